"""Asking custodians: as few as are needed, in turn, and the others as soon as one is slow or wrong.

A read needs t of n answers. Asking exactly t costs least; which t rotates, so that load and knowledge spread. The rest
is asked when an answer is bad, or when about three times the usual time has passed (docs/spec/client.md). A node that
could not be reached is asked last for a while.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from careledger.errors import Error, UnavailableError

if TYPE_CHECKING:
    from careledger.client.nodes import Node

__all__ = ["Pace", "Race", "SteadyPace", "first_answer"]

T = TypeVar("T")

_HEDGE_FACTOR: Final = 3.0
_HEDGE_S_MIN: Final = 0.01
"""Below this a hedge costs more than it saves: it is the noise of a busy machine."""
_HEDGE_S_MAX: Final = 2.0
_FIRST_GUESS_S: Final = 0.1
_REMEMBERED: Final = 64
_RECKONED_EVERY: Final = 8
"""Answers between two looks at the median: sorting for each would cost more than it tells."""
_AVOIDED_S: Final = 30.0


class Pace:
    """How long answers take here (median of the last 64), whose turn it is, and who is better left alone."""

    def __init__(self) -> None:
        self._took: deque[float] = deque(maxlen=_REMEMBERED)
        self._answers = 0
        self._turn = 0
        self._hedge_s = _FIRST_GUESS_S
        self._avoided: dict[str, float] = {}

    @property
    def hedge_s(self) -> float:
        """Seconds after which the others are asked too."""
        return self._hedge_s

    def answered(self, node: Node, took_s: float) -> None:
        self._took.append(took_s)
        if self._avoided:
            self._avoided.pop(node.token, None)
        self._answers += 1
        if self._answers % _RECKONED_EVERY == 1:
            median = sorted(self._took)[len(self._took) // 2]
            self._hedge_s = min(_HEDGE_S_MAX, max(_HEDGE_S_MIN, _HEDGE_FACTOR * median))

    def failed(self, node: Node, now_s: float) -> None:
        self._avoided[node.token] = now_s + _AVOIDED_S

    def order(self, nodes: Sequence[Node], now_s: float) -> list[Node]:
        """The nodes in the order in which to ask them this time."""
        self._turn += 1
        at = self._turn % len(nodes) if nodes else 0
        turned = [*nodes[at:], *nodes[:at]]
        if self._avoided:
            turned.sort(key=lambda node: self._avoided.get(node.token, 0.0) > now_s)
        return turned


class SteadyPace(Pace):
    """For nodes that come in an order that has a reason: only those that could not be reached lately are asked last."""

    def order(self, nodes: Sequence[Node], now_s: float) -> list[Node]:
        return sorted(nodes, key=lambda node: self._avoided.get(node.token, 0.0) > now_s)


class Race(Generic[T]):
    """One question to some of several nodes; `ask(node)` returns a *verified* answer or raises an Error.

    Use as an async context manager: leaving it cancels what is still under way.
    """

    def __init__(self, nodes: Sequence[Node], ask: Callable[[Node], Awaitable[T]], *, pace: Pace, at_once: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting = pace.order(nodes, self._loop.time())
        self._ask = ask
        self._pace = pace
        self._at_once = at_once
        self._running: dict[asyncio.Task[T], tuple[Node, float]] = {}
        self._hedge_at = self._loop.time() + pace.hedge_s
        self.hedged = False
        """Whether answers took so long that the others were asked too."""
        self.answers: dict[str, T] = {}
        self.failures: dict[str, Error] = {}

    async def __aenter__(self) -> Race[T]:
        for _ in range(min(self._at_once, len(self._waiting))):
            self._start(self._waiting.pop(0))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            ended, _pending = await asyncio.wait(self._running)
            for task in ended:
                if not task.cancelled():
                    task.exception()  # nobody needs it any more, but asyncio would report it as forgotten
        self._running.clear()

    @property
    def running(self) -> set[str]:
        """The tokens of the nodes that have not answered yet."""
        return {node.token for node, _ in self._running.values()}

    @property
    def possible(self) -> int:
        """How many answers there can still be in the end."""
        return len(self.answers.keys() | self.running) + len(self._waiting)

    def ask_more(self, count: int | None = None) -> None:
        """Ask `count` of the nodes not asked yet (None: all of them)."""
        for _ in range(len(self._waiting) if count is None else min(count, len(self._waiting))):
            self._start(self._waiting.pop(0))

    def ask_again(self, node: Node, ask: Callable[[Node], Awaitable[T]]) -> None:
        """Ask a node once more, in another way; its new answer takes the place of the old one."""
        self._start(node, ask)

    def bad(self, node: str, error: Error) -> None:
        """Strike out an answer that turned out to be wrong later, and ask the others."""
        self.answers.pop(node, None)
        self.failures[node] = error
        self.ask_more()

    async def more(self) -> bool:
        """Wait for an answer, a failure, or the moment to hedge; False when nothing is under way any more."""
        if self._running:
            timeout = None if self.hedged else max(0.0, self._hedge_at - self._loop.time())
            done, _ = await asyncio.wait(self._running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if done:
                for task in done:
                    self._take(task)
                return True
            self.hedged = True
            self.ask_more()
            return True
        return False

    async def rest(self, *, timeout_s: float) -> None:
        """Ask everybody who is left and wait for all, but not longer than this: for saying why there is no result."""
        self.ask_more()
        end = self._loop.time() + timeout_s
        while self._running and (left := end - self._loop.time()) > 0:
            done, _ = await asyncio.wait(self._running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                self._take(task)

    def _start(self, node: Node, ask: Callable[[Node], Awaitable[T]] | None = None) -> None:
        task: asyncio.Task[T] = self._loop.create_task((ask or self._ask)(node))  # type: ignore[arg-type]
        self._running[task] = (node, self._loop.time())

    def _take(self, task: asyncio.Task[T]) -> None:
        node, started = self._running.pop(task)
        now = self._loop.time()
        try:
            self.answers[node.token] = task.result()
        except Error as error:
            self.failures[node.token] = error
            if isinstance(error, UnavailableError):
                self._pace.failed(node, now)
            self.ask_more()
            return
        self.failures.pop(node.token, None)
        self._pace.answered(node, now - started)


async def first_answer(
    nodes: Sequence[Node], ask: Callable[[Node], Awaitable[T]], *, pace: Pace
) -> tuple[T | None, dict[str, Error]]:
    """The answer of one node, where any will do, or None; and who failed until then.

    One is asked, the others when it fails or is slow: a node that hangs must not hold up everybody's first question.
    """
    async with Race(nodes, ask, pace=pace, at_once=1) as race:
        while not race.answers and await race.more():
            pass
        return next(iter(race.answers.values()), None), dict(race.failures)
