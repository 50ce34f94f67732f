"""Who is asked, in which order, and when the others are asked too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from careledger.client.asking import Pace, Race
from careledger.client.nodes import Node
from careledger.client.spread import spread
from careledger.errors import Error, UnavailableError


class FakeNode:
    def __init__(self, token: str) -> None:
        self.token = token

    def __repr__(self) -> str:
        return self.token


NODES = cast("list[Node]", [FakeNode(name) for name in "abcd"])


def names(nodes: list[Node]) -> str:
    return "".join(node.token for node in nodes)


def race(ask: Callable[[Node], Awaitable[Any]], *, at_once: int = 3, pace: Pace | None = None) -> Any:
    async def run() -> tuple[dict[str, Any], dict[str, Error]]:
        async with Race(NODES, ask, pace=pace or Pace(), at_once=at_once) as running:
            while len(running.answers) < at_once and running.possible >= at_once:
                if not await running.more():
                    break
            return dict(running.answers), dict(running.failures)

    return asyncio.run(run())


def test_turns_rotate() -> None:
    pace = Pace()
    assert [names(pace.order(NODES, 0.0)) for _ in range(5)] == ["bcda", "cdab", "dabc", "abcd", "bcda"]


def test_who_could_not_be_reached_is_asked_last_for_a_while() -> None:
    pace = Pace()
    pace.failed(NODES[1], now_s=100.0)
    assert names(pace.order(NODES, 101.0)) == "cdab"
    assert names(pace.order(NODES, 140.0)) == "cdab", "its turn again"
    pace.answered(NODES[1], 0.01)
    assert names(pace.order(NODES, 101.0)) == "dabc"


def test_hedges_after_three_times_the_median_within_bounds() -> None:
    pace = Pace()
    for _ in range(64):
        pace.answered(NODES[0], 0.02)
    assert pace.hedge_s == pytest.approx(0.06)
    for _ in range(64):
        pace.answered(NODES[0], 0.0001)
    assert pace.hedge_s == 0.01
    for _ in range(64):
        pace.answered(NODES[0], 60.0)
    assert pace.hedge_s == 2.0


def test_asks_only_as_many_as_needed() -> None:
    asked: list[str] = []

    async def ask(node: Node) -> str:
        asked.append(node.token)
        return node.token

    answers, failures = race(ask)
    assert len(answers) == len(asked) == 3
    assert failures == {}


def test_a_bad_answer_has_the_others_asked_at_once() -> None:
    async def ask(node: Node) -> str:
        if node.token == "c":
            raise UnavailableError("unreachable", "no")
        return node.token

    answers, failures = race(ask)
    assert set(answers) == {"a", "b", "d"}
    assert {node: error.code for node, error in failures.items()} == {"c": "unreachable"}


def test_a_slow_one_has_the_others_asked_and_is_cancelled() -> None:
    cancelled: list[str] = []

    async def ask(node: Node) -> str:
        if node.token == "c":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(node.token)
                raise
        return node.token

    answers, failures = race(ask)
    assert set(answers) == {"a", "b", "d"}
    assert failures == {}
    assert cancelled == ["c"]


def test_gives_up_when_it_can_no_longer_succeed() -> None:
    async def ask(node: Node) -> str:
        if node.token in "ab":
            raise UnavailableError("unreachable", "no")
        return node.token

    answers, failures = race(ask)
    assert set(answers) <= {"c", "d"}
    assert set(failures) == {"a", "b"}


def test_a_bug_in_a_check_is_not_taken_for_a_bad_custodian() -> None:
    async def ask(node: Node) -> str:
        raise AssertionError("a bug")

    with pytest.raises(AssertionError, match="a bug"):
        race(ask)


def test_spread_tells_each_mark_once_and_in_order() -> None:
    told: list[str] = []

    async def send(node: Node) -> str:
        if node.token == "d":
            raise UnavailableError("unreachable", "no")
        return node.token

    async def run() -> Any:
        marks = {"effective": 3, "complete": 4}
        return await spread(NODES, send, marks=marks, on_mark=lambda mark, _: told.append(mark))

    done = asyncio.run(run())
    assert told == ["effective"]
    assert set(done.acks) == {"a", "b", "c"}
    assert set(done.failures) == {"d"}
