"""Both engines execute the same random transactions to the same app hashes; `make replay` does it for many more."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def replay() -> ModuleType:
    name = "careledger_replay"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("replay.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_two_thousand_random_transactions_give_the_same_app_hashes_in_both_engines(replay: ModuleType) -> None:
    tally = replay.play(2_000, seed=20_261, a_network=1_000, restarts=0.02)
    assert tally.transactions >= 2_000
    assert tally.codes["ok"] > 500
    expected = {"exists", "bad-sequence", "bad-prev", "old-anchor", "bad-proof", "decided", "not-json", "not-canonical"}
    assert set(tally.codes) >= expected


def test_a_difference_is_noticed(replay: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = replay.Side.hear

    def lying(self: object) -> dict[str, object]:
        answer: dict[str, object] = heard(self)
        if getattr(self, "which", "") == "cometbft" and answer["height"] == 20:
            answer["app_hash"] = "00" * 32
        return answer

    monkeypatch.setattr(replay.Side, "hear", lying)
    with pytest.raises(replay.DifferentError, match="height 20"):
        replay.play(500, seed=1)
