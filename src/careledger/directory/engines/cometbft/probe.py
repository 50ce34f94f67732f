"""Whether CometBFT lives and gets on: asked every few seconds, since nothing else would tell.

CometBFT has no limit on how long it waits for the application or for the other validators, so both hang in silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from careledger.directory.engines.cometbft.logs import Problem
from careledger.directory.engines.cometbft.rpc import EngineRpc
from careledger.errors import UnavailableError

__all__ = ["PROBE_S", "Probe"]

PROBE_S: Final = 2.0
_IMPATIENT_S: Final = 0.25
"""Between questions until the first is answered: a start takes a second or two."""
HUNG_S: Final = 30.0
"""Without an answer or a call to the application: far longer than any answer takes."""
STALLED_S: Final = 10.0
"""Without a block while transactions wait: twice what a restarted validator needs to come back."""
LATE_S: Final = 1.0
"""By which the own event loop may be late before that is said: consensus waits for the application in it."""

_log: Final = logging.getLogger("careledger.directory.cometbft")


class Probe:
    """Asks the RPC. `calls` counts the application's answers, `waiting` the node's undecided transactions."""

    def __init__(
        self,
        rpc: EngineRpc,
        *,
        height: Callable[[], int],
        calls: Callable[[], int],
        waiting: Callable[[], int],
        running: Callable[[], bool],
        on_hung: Callable[[Problem], None],
    ) -> None:
        self._rpc = rpc
        self._height = height
        self._calls = calls
        self._waiting = waiting
        self._running = running
        self._on_hung = on_hung
        self._alive_at: float | None = None
        self._calls_then = -1
        self._moved_at = 0.0
        self._height_then = -1
        self.answers = False
        """Whether the last question was answered."""
        self.catching_up = False
        self.peers = 0
        self.pending = 0
        self.problem: Problem | None = None

    @property
    def settled(self) -> bool:
        """The application follows the chain's end, as far as this node can know."""
        return self.answers and not self.catching_up

    async def run(self) -> None:
        """Ask until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self.ask()
            pause = PROBE_S if self.answers else _IMPATIENT_S
            asleep = loop.time()
            await asyncio.sleep(pause)
            late = loop.time() - asleep - pause
            if late >= LATE_S:
                _log.warning("loop-late", extra={"fields": {"ms": int(late * 1000)}})
                self._alive_at = None  # what CometBFT did meanwhile, this node couldn't have seen

    async def ask(self) -> None:
        """One round of questions; `problem` afterwards says what is wrong, or None."""
        now = asyncio.get_running_loop().time()
        if not self._running():
            self.answers, self._alive_at, self.problem = False, None, None
            return
        self.answers = False
        with contextlib.suppress(UnavailableError):
            status = await self._rpc.status()
            self.catching_up, self.peers = status.catching_up, await self._rpc.peers()
            self.pending = await self._rpc.pending()
            self.answers = True
        self._judge(now)

    def _judge(self, now: float) -> None:
        if self.answers or self._alive_at is None or self._calls() != self._calls_then:
            self._alive_at, self._calls_then = now, self._calls()
        if self._height() != self._height_then or not (self._waiting() or self.pending):
            self._moved_at, self._height_then = now, self._height()
        self.problem = None
        if now - self._alive_at >= HUNG_S:
            self.problem = Problem(
                "engine-hung", f"CometBFT answered nothing for {int(now - self._alive_at)} s: it is started again"
            )
            self._alive_at = None
            self._on_hung(self.problem)
        elif now - self._moved_at >= STALLED_S:
            self.problem = Problem(
                "directory-waits",
                f"no block for {int(now - self._moved_at)} s while transactions wait, {self.peers} peers connected: "
                "more than two thirds of the members' engines must be up and reach each other",
            )
