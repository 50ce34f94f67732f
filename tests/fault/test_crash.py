"""SIGKILL at random moments, as `make crash` does it 10,000 times: nothing acknowledged is lost, nothing half done."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 300
NETWORKS = 4
SEED = 20_260


@pytest.mark.slow
def test_300_kills_lose_nothing_that_was_acknowledged_and_release_no_share_without_an_entry() -> None:
    script = Path(__file__).with_name("crash.py")
    command = [sys.executable, str(script), f"--kills={KILLS}", f"--networks={NETWORKS}", f"--seed={SEED}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["problems"] == [], f"repeat with: {' '.join(command[1:])}"
    assert result["bugs"] == [], f"repeat with: {' '.join(command[1:])}"
    assert result["networks"] >= NETWORKS
    assert result["kills"] >= KILLS
    for kind in ("submissions", "releases", "consent_events"):
        assert result[kind] > 400, f"too little load to mean anything: {result}"
    assert done.returncode == 0
