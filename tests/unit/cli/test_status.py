"""The network at a glance: what is wrong is said, and makes the exit code 1."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from careledger.cli.status import NodeStatus, disagreements, network_status, show_status
from careledger.errors import UnavailableError
from careledger.transport import Answer

HEALTH = {
    "status": "ok",
    "todo": "",
    "log_entries": 12,
    "published_entries": 10,
    "anchored_entries": 7,
    "cosigned_by": ["a", "b"],
    "faults": {},
}
HEAD = {"height": 5, "app_hash": "aa", "fault": ""}


class Town:
    """Three nodes that answer what they are told; stands for Network and Session."""

    id = "5a" * 32

    def __init__(self, **said: Any) -> None:
        self.said: dict[str, Any] = dict.fromkeys(("one", "two", "three"), (HEALTH, HEAD)) | said
        node = lambda name: msgspec.defstruct("N", ["token", "member", "url"])(name, f"m-{name}", name)  # noqa: E731
        self.nodes = {name: node(name) for name in self.said}
        self.wire = self.network = self

    async def get(self, url: str, path: str) -> Answer:
        said = self.said[url]
        if isinstance(said, Exception):
            raise said
        body = msgspec.json.encode(said[path != "/health"]) if isinstance(said, tuple) else b"<html>"
        return Answer(status=200, body=body, headers={})


def status(town: Any) -> dict[str, NodeStatus]:
    return {one.node: one for one in asyncio.run(network_status(town))}


def test_lag_and_height() -> None:
    found = status(Town(two=(HEALTH, {**HEAD, "height": 3, "engine": {"state": "catching-up", "message": ""}})))
    one, two = found["one"], found["two"]
    assert (one.status, one.entries, one.lag, one.unanchored, one.cosigned_by) == ("ok", 12, 2, 3, 2)
    assert (one.behind, two.behind, one.engine, two.engine) == (0, 2, "embedded", "catching-up")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (UnavailableError("unreachable", "nobody listens"), "unreachable"),
        ("<html>", "garbage"),
        (({"status": "ok"}, HEAD), "garbage"),
        (({**HEALTH, "status": "disk-full", "todo": "free space"}, HEAD), "disk-full"),
    ],
)
def test_what_is_wrong_is_said(said: Any, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    town: Any = Town(two=said)
    assert status(town)["two"].status == expected
    assert status(town)["two"].problem
    assert asyncio.run(show_status(town, as_json=False)) == 1
    out = capsys.readouterr().out
    assert expected in out
    assert "needs attention" in out
    assert asyncio.run(show_status(town, as_json=True)) == 1
    assert msgspec.json.decode(capsys.readouterr().out)["well"] is False


def test_two_directories_at_one_height_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    town: Any = Town(two=(HEALTH, {**HEAD, "app_hash": "bb"}))
    assert disagreements(list(status(town).values())) == [5]
    assert asyncio.run(show_status(town, as_json=False)) == 1
    assert "different directories at height 5" in capsys.readouterr().out


def test_a_peer_that_did_wrong_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    town: Any = Town(one=({**HEALTH, "faults": {"cl1evil": "bad-proof"}}, HEAD))
    assert asyncio.run(show_status(town, as_json=False)) == 1
    assert "cl1evil did wrong: bad-proof" in capsys.readouterr().out


def test_all_well(capsys: pytest.CaptureFixture[str]) -> None:
    town: Any = Town()
    assert asyncio.run(show_status(town, as_json=False)) == 0
    assert "all well" in capsys.readouterr().out
