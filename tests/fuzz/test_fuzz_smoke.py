"""Every fuzz target takes its seeds and some mutations of them on every test run; `make fuzz` gives each a million."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

MUTATIONS = 150


def _runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("careledger_fuzz_run", Path(__file__).parent / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


RUN = _runner()
TARGETS = RUN.load()


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_only_refusals_come_out_of_a_parser(name: str) -> None:
    target = TARGETS[name]
    tried, data, failure = RUN.run_mutations(target, inputs=len(target.seeds) + MUTATIONS, seed=7)
    assert data is None, f"{name} fails on {data!r}:\n{failure}"
    assert tried == len(target.seeds) + MUTATIONS


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_target_begins_from_something_that_is_accepted(name: str) -> None:
    """Else nothing behind its first check is ever reached."""
    target = TARGETS[name]
    assert any(RUN.try_one(target, data) for data in target.seeds)


def test_a_failing_target_is_named_with_its_input() -> None:
    def broken(data: bytes) -> None:
        if len(data) > 3:
            raise KeyError("a bug")

    target = RUN.Target("broken", broken, [b"abc"])
    tried, data, failure = RUN.run_mutations(target, inputs=1000, seed=1)
    assert data is not None
    assert len(data) > 3
    assert tried < 1000
    assert "KeyError" in failure


def test_mutations_of_a_seed_are_the_same_each_time() -> None:
    streams = [RUN.mutations([b"abc", b"defghi"], seed=5) for _ in range(2)]
    first, second = ([next(stream) for _ in range(200)] for stream in streams)
    assert first == second
    assert len(set(first)) > 100
