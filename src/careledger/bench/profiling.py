"""The profile of a run: of this process, and of each node (environment variable CARELEDGER_PROFILE, see node.__main__).

By thread CPU time, not wall clock, which would count waiting for a core. Every call costs the profiler about a
microsecond: shares are to be believed, sums are not.
"""

from __future__ import annotations

import cProfile
import pstats
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from careledger.bench.stage import Stage

__all__ = ["NODE_PROFILE", "Profiles", "table"]

NODE_PROFILE = "CARELEDGER_PROFILE"
"""Names a folder: a node process that finds it puts its profile there when it ends."""
_LINES = 40


class Profiles:
    """Collects this process's profile, when `wanted`, and finds the nodes'."""

    def __init__(self, folder: Path, *, wanted: bool) -> None:
        self.folder = folder
        self.wanted = wanted
        self._own = cProfile.Profile(time.thread_time) if wanted else None
        if wanted:
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """What nodes are to be started with."""
        return {NODE_PROFILE: str(self.folder)} if self.wanted else {}

    @contextmanager
    def client(self) -> Iterator[None]:
        """Profile what this process does meanwhile."""
        if self._own is None:
            yield
            return
        self._own.enable()
        try:
            yield
        finally:
            self._own.disable()

    def begin_anew(self, stage: Stage) -> None:
        """Have the nodes forget what they did until now: the preparations."""
        for node in stage.local.nodes:
            if self.wanted and node.process is not None:
                node.process.send_signal(signal.SIGUSR1)

    def results(self) -> dict[str, list[dict[str, Any]]]:
        """The costliest functions of the client and of one node, by own time. Call when the nodes have ended."""
        if self._own is None:
            return {}
        found = {"client": table(pstats.Stats(self._own))}
        nodes = sorted(self.folder.glob("node-*.prof"))
        if nodes:
            found["node"] = table(pstats.Stats(str(nodes[-1])))
        return found


def table(stats: pstats.Stats, *, lines: int = _LINES) -> list[dict[str, Any]]:
    """[{function, calls, own_ms, total_ms, share}], most own time first; `share` is of all the profile's time."""
    rows: list[dict[str, Any]] = []
    raw: dict[tuple[str, int, str], tuple[int, int, float, float, Any]] = stats.stats  # type: ignore[attr-defined]
    total = sum(row[2] for row in raw.values()) or 1.0
    for (path, line, name), (_, calls, own, cumulative, _callers) in raw.items():
        where = name if path == "~" else f"{_short(path)}:{line} {name}"
        rows.append(
            {
                "function": where,
                "calls": calls,
                "own_ms": round(own * 1000, 2),
                "total_ms": round(cumulative * 1000, 2),
                "share": round(own / total, 4),
            }
        )
    rows.sort(key=lambda row: -row["own_ms"])
    return rows[:lines]


def _short(path: str) -> str:
    parts = Path(path).parts
    for mark in ("careledger", "site-packages"):
        if mark in parts:
            at = len(parts) - 1 - parts[::-1].index(mark)
            return "/".join(parts[at + 1 :])
    return "/".join(parts[-2:])
