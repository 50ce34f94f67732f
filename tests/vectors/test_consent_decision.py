"""vectors/consent/decision.json: the table of decisions that Python and the web app must share."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from careledger.consent import DENIALS, ConsentState, Decision, decide, decide_contribution

FILE = Path(__file__).resolve().parents[2] / "vectors" / "consent" / "decision.json"
VECTORS = json.loads(FILE.read_text(encoding="utf-8"))


class Directory:
    def __init__(self, data: dict[str, Any]) -> None:
        self.height = data["height"]
        self.time_ms = data["time_ms"]
        self._data = data

    def is_active(self, token: str, /) -> bool:
        return token in self._data["active"]

    def licensed(self, person: str, now_ms: int, /) -> bool:
        return any(
            item["person"] == person and item["from"] <= now_ms < item["until"] for item in self._data["licences"]
        )

    def member(self, organisation: str, /) -> bool:
        return organisation in self._data["members"]


STATES = {name: msgspec.convert(value, ConsentState) for name, value in VECTORS["states"].items()}
DIRECTORIES = {name: Directory(value) for name, value in VECTORS["directories"].items()}
MANIFESTS = {name: SimpleNamespace(**value) for name, value in VECTORS["manifests"].items()}


def view(data: dict[str, Any]) -> SimpleNamespace:
    fields = {("for_" if name == "for" else name): value for name, value in data.items()}
    if fields["affiliated"] is not None:
        fields["affiliated"] = tuple(fields["affiliated"])
    if "head" in fields:
        fields["head"] = tuple(fields["head"])
        fields["approvals"] = [SimpleNamespace(**approval) for approval in fields["approvals"]]
    return SimpleNamespace(**fields)


def expected(data: dict[str, Any]) -> Decision:
    return Decision(allow=data["allow"], reason=data["reason"], grant=data["grant"], covered=tuple(data["covered"]))


@pytest.mark.parametrize("case", VECTORS["access"], ids=lambda case: case["name"])
def test_access_decision(case: dict[str, Any]) -> None:
    decision = decide(
        STATES[case["state"]],
        DIRECTORIES[case["directory"]],
        view(case["request"]),
        [MANIFESTS[name] for name in case["manifests"]],
        case["counters"],
        case["now"],
        manager=case["manager"],
    )
    assert decision == expected(case["expect"])


@pytest.mark.parametrize("case", VECTORS["contribution"], ids=lambda case: case["name"])
def test_contribution_decision(case: dict[str, Any]) -> None:
    decision = decide_contribution(
        STATES[case["state"]],
        DIRECTORIES[case["directory"]],
        view(case["contribution"]),
        case["counters"],
        case["now"],
        manager=case["manager"],
    )
    assert decision == expected(case["expect"])


def test_the_table_has_every_denial() -> None:
    assert {case["expect"]["reason"] for case in VECTORS["access"] if not case["expect"]["allow"]} == set(DENIALS)
    assert len(VECTORS["access"]) >= 80


def test_the_file_is_what_its_generator_writes() -> None:
    made = runpy.run_path(str(Path(__file__).with_name("make_consent_vectors.py")))["vectors"]()
    assert json.loads(json.dumps(made)) == VECTORS
