"""Waiting for nodes that have not applied the newest block yet.

Whoever was enrolled, licensed or rotated a moment ago is unknown to a node that is a block behind. It says so with
codes of its own; asking again for a few seconds is all that is needed, and only then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from careledger.errors import Error

__all__ = ["until_caught_up"]

CATCH_UP_S: Final = 10.0
_PAUSE_S: Final = 0.05
_NOT_YET: Final = frozenset(
    {"unknown-identity", "no-document", "bad-document-hash", "superseded-key", "unknown-key", "stale-document"}
)

T = TypeVar("T")


async def until_caught_up(call: Callable[[], Awaitable[T]], *, for_s: float = CATCH_UP_S) -> T:
    """Repeat a call while what it fails with is only that nodes lag behind; raises its last error after `for_s`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + for_s
    while True:
        try:
            return await call()
        except Error as error:
            if not _lags(error) or loop.time() >= end:
                raise
        await asyncio.sleep(_PAUSE_S)


def _lags(error: Error) -> bool:
    nodes = error.details.get("nodes")
    if error.code == "not-enough-custodians" and isinstance(nodes, dict):
        return any(code in _NOT_YET for code in nodes.values())
    return error.code in _NOT_YET
