"""`make test` runs every folder of tests, in one of its two halves."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_folder_of_tests_is_in_one_half() -> None:
    text = (ROOT / "Makefile").read_text()
    halves = re.findall(r"^(?:NETWORKS|UNITS) := \$\(addprefix tests/,([a-z0-9 ]+)\)$", text, re.MULTILINE)
    named = [name for half in halves for name in half.split()]
    folders = {path.parent.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("*/**/test_*.py")}
    assert len(halves) == 2
    assert sorted(named) == sorted(folders)
    assert not list((ROOT / "tests").glob("test_*.py")), "a test outside the folders would run in neither"
