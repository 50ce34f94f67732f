"""Sending one message to all custodians, and saying at which moments how much was reached.

A single custodian's acknowledgement promises little; what a person is told ("kept", "effective", "complete") depends
on how many gave theirs. Those thresholds are DESIGN 5.2 and 5.3's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from careledger.client.nodes import Node
from careledger.errors import Error

__all__ = ["Spread", "consent_marks", "spread", "submission_marks"]

T = TypeVar("T")


class Spread(msgspec.Struct, Generic[T], frozen=True):
    """Acknowledgements and failures by node token; `reached` maps a mark to milliseconds since the start."""

    acks: dict[str, T]
    failures: dict[str, Error]
    reached: dict[str, float]


def consent_marks(n: int, t: int, f: int) -> dict[str, int]:
    """A consent event is `effective` at n−t+1+f acknowledgements, `complete` at n (DESIGN 5.3).

    Then a reader that asks any t custodians meets an honest one that knows: t + (n−t+1+f) − n = 1 + f.
    """
    return {"effective": min(n, n - t + 1 + f), "complete": n}


def submission_marks(n: int, t: int, f: int) -> dict[str, int]:
    """A submission is `kept` at f+1 receipts, `readable` at t, `safe` at t+f, `complete` at n (DESIGN 5.2)."""
    return {"kept": f + 1, "readable": t, "safe": min(n, t + f), "complete": n}


async def spread(
    nodes: Sequence[Node],
    send: Callable[[Node], Awaitable[T]],
    *,
    marks: Mapping[str, int],
    on_mark: Callable[[str, float], None] | None = None,
) -> Spread[T]:
    """Send to all nodes at once and return when each has answered or failed.

    `send` returns a *verified* acknowledgement or raises an Error. `on_mark` is told of each mark when it is reached.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    acks: dict[str, T] = {}
    failures: dict[str, Error] = {}
    reached: dict[str, float] = {}

    async def one(node: Node) -> None:
        try:
            acks[node.token] = await send(node)
        except Error as error:
            failures[node.token] = error
            return
        for mark, needed in marks.items():
            if len(acks) >= needed and mark not in reached:
                reached[mark] = (loop.time() - started) * 1000
                if on_mark is not None:
                    on_mark(mark, reached[mark])

    async with asyncio.TaskGroup() as group:
        for node in nodes:
            group.create_task(one(node))
    return Spread(acks=acks, failures=failures, reached=reached)
