"""`careledger demo --check`, as a person would start it: a process of its own, whose last line says what held."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from careledger.fhir import ReadOptions, demo_patients, read_file

SYNTHEA = Path(__file__).parents[3] / "shared" / "data" / "synthea"
FIELDS = {
    "patients": int,
    "resources": int,
    "records": int,
    "nodes": int,
    "threshold": int,
    "engine": str,
    "submissions": int,
    "opened_records": int,
    "opened_resources": int,
    "bytes_equal": bool,
    "refused_without_grant": str,
    "revocation_effective_ms": float,
    "refused_after_revocation": str,
    "audit_entries": int,
    "audit_complete": bool,
    "tamper_detected": bool,
    "tamper_index": int,
    "resigned_detected": bool,
    "plaintext_on_disk": int,
    "strings_checked": int,
    "scan_selftest": bool,
    "seconds": dict,
}
"""DESIGN section 9."""


def demo(folder: Path, *options: str, returncode: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from careledger.cli import main; main()", "demo", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=900)
    assert done.returncode == returncode, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def facts_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert set(facts) == set(FIELDS)
    for name, kind in FIELDS.items():
        assert isinstance(facts[name], (int, float) if kind is float else kind), name
        assert kind is bool or not isinstance(facts[name], bool), name
    return facts


def came(files: Sequence[tuple[str, bytes]]) -> tuple[int, int]:
    """(distinct resources, records) of these files, counted here and not taken from the demo."""
    resources: set[tuple[str, str, bytes]] = set()
    records = 0
    for name, data in files:
        reading = read_file(name, [data], options=ReadOptions())
        records += len(reading.records)
        resources |= {(name, url, resource) for draft in reading.records for url, resource in draft.resources}
    return len(resources), records


def holds(facts: dict[str, Any]) -> None:
    assert facts["engine"] == "embedded"
    assert (facts["nodes"], facts["threshold"]) == (4, 3)
    assert facts["opened_records"] == facts["records"]
    assert facts["opened_resources"] == facts["resources"]
    assert facts["bytes_equal"] is True
    assert facts["refused_without_grant"] == "no-grant"
    assert facts["refused_after_revocation"] == "revoked"
    assert 0 < facts["revocation_effective_ms"] < 60_000
    assert facts["submissions"] >= facts["patients"]
    # Each patient's chart was listed and opened, the first one's also asked for twice more, in vain.
    assert facts["audit_entries"] >= 2 * facts["patients"] + 2
    assert facts["audit_complete"] is True
    assert facts["tamper_detected"] is True
    assert facts["tamper_index"] >= 0
    assert facts["resigned_detected"] is True
    assert facts["plaintext_on_disk"] == 0
    assert facts["scan_selftest"] is True
    assert set(facts["seconds"]) >= {"start", "import", "open"}
    assert all(value > 0 for value in facts["seconds"].values())


def test_the_demo_with_its_own_patients_holds_in_every_field(tmp_path: Path) -> None:
    done = demo(tmp_path, "--check", "--folder", str(tmp_path / "kept"))
    facts = facts_of(done)
    holds(facts)
    files = demo_patients()
    resources, records = came(files)
    assert (facts["patients"], facts["resources"], facts["records"]) == (len(files), resources, records)
    assert facts["strings_checked"] > 200
    assert "refused" in done.stderr and "no-grant" in done.stderr and "revoked" in done.stderr
    for number in range(1, 5):
        node = tmp_path / "kept" / f"node-{number}"
        assert (node / "log" / "checkpoint").is_file() and (node / "log.vkey").is_file()
    assert (tmp_path / "kept" / "tampered").is_dir()
    again = demo(tmp_path, "--check", "--folder", str(tmp_path / "kept"), returncode=1)
    assert "folder-in-use" in again.stderr, "somebody's folder is never written over"


def test_the_demo_with_real_histories_counts_what_is_in_them(tmp_path: Path) -> None:
    bundles = sorted(SYNTHEA.glob("*.json.gz"), key=lambda path: path.stat().st_size)[:3]
    if not bundles:
        pytest.skip(f"no Synthea bundles in {SYNTHEA}; the demo's own patients are tested")
    folder = tmp_path / "data"
    folder.mkdir()
    for path in bundles:
        (folder / path.name).write_bytes(path.read_bytes())
    facts = facts_of(demo(tmp_path, "--check", "--data", str(folder)))
    holds(facts)
    resources, records = came([(path.name, path.read_bytes()) for path in bundles])
    assert (facts["patients"], facts["records"]) == (3, records)
    assert facts["resources"] <= resources, "practitioners and places that several files share count once"
    assert facts["resources"] > 0.9 * resources
    assert facts["strings_checked"] > 200


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("nothing.txt", b"", "no-data"),
        ("broken.json", b'{"resourceType": "Bundle", "entry": [', "no-data"),
        ("other.json", b'{"resourceType": "StructureMap"}', "no-data"),
    ],
)
def test_data_that_holds_no_record_is_refused_in_one_line(tmp_path: Path, name: str, data: bytes, code: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / name).write_bytes(data)
    done = demo(tmp_path, "--check", "--data", str(folder), returncode=1)
    assert f"[{code}]" in done.stderr.splitlines()[-1]
    assert done.stdout == ""
