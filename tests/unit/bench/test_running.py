"""Every measure runs, in sizes that say nothing about speed, and gives its figures in the promised form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from careledger.bench import NAMES, run
from careledger.errors import MalformedError

ISSUE = [
    "open_1",
    "open_1_n16",
    "open_100",
    "open_100_apart",
    "opens_per_s",
    "import_resources_per_s",
    "revocation_effective",
    "append_entries_per_s",
    "published",
    "verify_entries_per_s",
    "open_1_at_50000",
    "node_rss_mb",
    "network_start_s",
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("bench")
    done = subprocess.run(
        [sys.executable, "-m", "careledger.bench", "--quick", "--json", "--profile", "--folder", str(folder)],
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**result, "folder": folder, "said": done.stderr.decode()}


def test_the_names_are_those_that_the_goals_are_set_for() -> None:
    assert list(NAMES) == ISSUE


@pytest.mark.parametrize("name", NAMES)
def test_a_measure_has_its_figures(found: dict[str, Any], name: str) -> None:
    figures = found[name]
    assert {"value", "unit", "p50", "p99", "goal", "met", "rounds"} <= figures.keys()
    assert figures["value"] > 0
    assert figures["p50"] is None or 0 < figures["p50"] <= figures["p99"]
    assert len(figures["rounds"]) == 1
    assert f"{name}: " in found["said"]


def test_the_machine_is_described(found: dict[str, Any]) -> None:
    machine = found["machine"]
    assert {"cores", "python", "seal_hot_us", "seal_cold_us", "sync_p50_us", "two_processes_slowdown"} <= machine.keys()
    assert found["version"]


def test_client_and_node_are_profiled_on_request(found: dict[str, Any]) -> None:
    assert {"client", "node"} <= found["profile"].keys()
    functions = {row["function"].rpartition(" ")[2] for row in found["profile"]["node"]}
    assert functions
    assert all({"function", "calls", "own_ms", "total_ms", "share"} <= row.keys() for row in found["profile"]["client"])


def test_networks_are_cleared_away(found: dict[str, Any]) -> None:
    assert [path.name for path in Path(found["folder"]).iterdir()] == ["profiles"]


def test_an_unknown_name_is_refused_before_anything_runs() -> None:
    with pytest.raises(MalformedError, match="open_1_n16") as refused:
        run(["open_2"])
    assert refused.value.code == "unknown-measure"
