"""The untouched log folders of a demo run in front of software that isn't ours, and what it says to a flipped byte."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from careledger.tlog import format_add_checkpoint

NODES = ("node-1", "node-2", "node-3", "node-4")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a demo that kept its files; its facts are test_demo.py's to check."""
    folder = tmp_path_factory.mktemp("demo") / "network"
    done = subprocess.run(
        [sys.executable, "-m", "careledger.cli", "demo", "--check", "--folder", str(folder)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.parametrize("node", NODES)
def test_gos_tlog_tesseras_fsck_and_a_witness_accept_the_log_as_the_node_left_it(
    check_log: Any, demo: Path, node: str
) -> None:
    said = check_log.check(demo / node / "log", demo / node / "log.vkey")
    assert said["tlog"]["record_proofs"] > 20
    assert said["witness_time_s"] > 0


@pytest.mark.parametrize("path", ["tile/entries/000", "tile/0/000", "checkpoint"])
def test_one_flipped_byte_is_refused_by_everybody(check_log: Any, demo: Path, tmp_path: Path, path: str) -> None:
    node = demo / "node-2"
    folder = tmp_path / "node-2"
    shutil.copytree(node / "log", folder / "log")
    shutil.copy(node / "log.vkey", folder / "log.vkey")
    target = folder / "log" / path
    if not target.exists():
        target = max((folder / "log" / f"{path}.p").iterdir(), key=lambda one: int(one.name))
    data = bytearray(target.read_bytes())
    data[20] ^= 0x01
    target.write_bytes(data)
    with pytest.raises(check_log.RefusedError):
        check_log.check_with_go(folder / "log", folder / "log.vkey")
    with pytest.raises(check_log.RefusedError):
        check_log.check_with_fsck(folder / "log", folder / "log.vkey")
    ours = subprocess.run(
        [sys.executable, "-m", "careledger.cli", "verify", "--json", str(folder / "log")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ours.returncode == 1
    assert json.loads(ours.stdout)["ok"] is False
    if path == "checkpoint":
        with check_log.running_witness((folder / "log.vkey").read_text().strip()) as witness:
            status, _, _ = witness.add_checkpoint(format_add_checkpoint(0, [], bytes(data)))
        assert status != 200


def test_verify_names_what_the_demo_tampered_with(demo: Path) -> None:
    (flipped,) = (demo / "tampered" / "flipped").iterdir()
    ours = subprocess.run(
        [sys.executable, "-m", "careledger.cli", "verify", "--json", str(flipped)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ours.returncode == 1
    assert isinstance(json.loads(ours.stdout)["index"], int)
