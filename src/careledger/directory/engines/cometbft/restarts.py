"""When a CometBFT that ended is started again: soon, then ever later, and never silently for ever.

Its exit code is 0 also when the application's socket closes, so every end that nobody asked for is one to restart from.
"""

from __future__ import annotations

from typing import Final

from careledger.directory.engines.cometbft.logs import Problem

__all__ = ["Restarts"]

_FIRST_S: Final = 1.0
_LAST_S: Final = 30.0
_EQUAL_MAX: Final = 3
"""Ends of the same kind without a block between them: from then on somebody has to look."""

_UNKNOWN: Final = Problem("engine-ended", "CometBFT ended and said nothing: its last lines are in the node's log")


class Restarts:
    """Counts ends without progress. `degraded` is what is wrong once waiting alone will hardly help."""

    def __init__(self) -> None:
        self.degraded: Problem | None = None
        self.count = 0
        """Ends that nobody asked for, since the node started."""
        self._failures = 0
        self._same = 0
        self._last = ""

    def progressed(self) -> None:
        """A block was committed: whatever was wrong is over."""
        self.degraded = None
        self._failures = self._same = 0
        self._last = ""

    def ended(self, code: int, problem: Problem | None) -> float:
        """Seconds to wait before the next start, after an end with this exit code (negative: signal)."""
        self.count += 1
        found = problem or _UNKNOWN
        self._same = self._same + 1 if found.code == self._last else 1
        self._last = found.code
        if self._same >= _EQUAL_MAX:
            self.degraded = found
        self._failures += 1
        if code == 0 and self._failures == 1:
            return 0.0
        return min(_FIRST_S * 2.0 ** min(self._failures - 1, 10), _LAST_S)
