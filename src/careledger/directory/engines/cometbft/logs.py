"""What CometBFT writes, and what of it an operator needs: the rest is read, so that the pipe never fills, and dropped.

Log lines are JSON on stdout; errors at start are one plain line `ERROR: …` on stderr, panics a plain text there. The
table below is what each damage of its files looked like when it was made on purpose (docs/spec/directory.md section 8).
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

__all__ = ["EngineLog", "Problem", "diagnose"]

_log: Final = logging.getLogger("careledger.directory.cometbft")

LINES_KEPT: Final = 200
"""Of the last start, as evidence when it fails."""
_LINE_MAX: Final = 500
_QUIET_S: Final = 60.0
"""The same message is passed on once in this time: a peer that is down is dialled every few seconds."""
_MESSAGES_MAX: Final = 256

_RESYNC: Final = "remove its data folder but for priv_validator_state.json, and directory.db; it catches up from peers"
_REPLAY: Final = "move directory.db away; CometBFT replays every block"


class Problem(NamedTuple):
    """A stable code, and one line that says what is wrong and what to do."""

    code: str
    message: str


_DIAGNOSES: Final = tuple(
    (re.compile(pattern), Problem(code, message))
    for pattern, code, message in (
        (
            r"app block height \(\d+\) is higher than core",
            "engine-behind-directory",
            f"CometBFT's data is older than the directory's: {_RESYNC}",
        ),
        (
            r"is too far below block store base",
            "directory-too-old",
            f"CometBFT lacks the next block: {_RESYNC}",
        ),
        (r"AppHash does not match AppHash after replay", "app-hash-differs", f"the directory differs: {_REPLAY}"),
        (
            r"\[wrong-genesis\]",
            "wrong-genesis",
            "CometBFT's data folder is another network's: use another",
        ),
        (
            r"resource temporarily unavailable",
            "engine-runs-already",
            "another CometBFT holds this data folder: stop it; if none runs, the node ends it at its next start",
        ),
        (
            r"address already in use",
            "address-in-use",
            "something else listens on CometBFT's peer address: stop it, or change the node's peer port",
        ),
        (
            r"Error reading PrivValidator state",
            "validator-state-damaged",
            "priv_validator_state.json says no more what this validator has signed: give the node a new consensus key; "
            "never bring back an old copy",
        ),
        (
            r"Error reading PrivValidator key|failed to load or gen node key",
            "validator-key-damaged",
            "a key file of CometBFT does not parse: restart the node, which writes it anew",
        ),
        (
            r"leveldb.*(corrupt|missing|checksum)|failed to initialize database|file missing",
            "engine-data-damaged",
            f"CometBFT's database is damaged: {_RESYNC}",
        ),
        (r"no space left on device", "disk-full", "the disk is full: make room; the node goes on by itself"),
        (
            r"too many open files",
            "too-many-files",
            "the limit of open files is reached: raise it for the node",
        ),
        (
            r"CONSENSUS FAILURE",
            "consensus-failure",
            "CometBFT stopped deciding: report its log, restart the node",
        ),
        (
            r"Corrupted entry|WAL file is corrupted|successful WAL repair|does not contain #ENDHEIGHT",
            "engine-wal-repaired",
            "CometBFT's write-ahead log was damaged and repaired: check the disk; a copy is beside it (wal.CORRUPTED)",
        ),
        (r"^panic: |\bpanic\b", "engine-panicked", "CometBFT panicked: keep its log and report it"),
        (r"^ERROR: ", "engine-failed", "CometBFT could not start: the line says why"),
    )
)
_WARNINGS: Final = frozenset({"engine-wal-repaired"})
"""Problems that CometBFT got over by itself."""


def diagnose(line: str) -> Problem | None:
    """What a line means for the operator; None if nothing. A start-up error that isn't in the table says itself."""
    for pattern, problem in _DIAGNOSES:
        if pattern.search(line):
            if problem.code in ("engine-failed", "engine-panicked"):
                return Problem(problem.code, f"{problem.message}: {line[:200].strip()}")
            return problem
    return None


class _Line(msgspec.Struct, frozen=True):
    level: str = ""
    message: str = msgspec.field(name="_msg", default="")
    module: str = ""
    err: str = ""


class EngineLog:
    """Reads lines of one start of CometBFT. `problem` is the gravest so far: what its end is explained by."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._said: dict[str, float] = {}
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self.problem: Problem | None = None
        self.warning: Problem | None = None

    def take(self, data: bytes) -> None:
        """One line, from either pipe."""
        line = data.decode("utf-8", "replace").strip()[:_LINE_MAX]
        if not line:
            return
        self.lines.append(line)
        try:
            parsed = msgspec.json.decode(line, type=_Line)
        except (msgspec.DecodeError, RecursionError):
            parsed = None
        if parsed is not None and parsed.level != "error" and "WAL" not in parsed.message:
            return
        problem = diagnose(line if parsed is None else f"{parsed.message} {parsed.err}")
        if problem is not None and problem.code in _WARNINGS:
            self.warning = problem
        elif problem is not None and self.problem is None:
            self.problem = problem
        self._pass_on(parsed.message if parsed else line, parsed.err if parsed else "", problem)

    def _pass_on(self, message: str, error: str, problem: Problem | None) -> None:
        key, now = f"{problem.code if problem else message}"[:100], self._clock()
        if now - self._said.get(key, now - _QUIET_S) < _QUIET_S:
            return
        if len(self._said) >= _MESSAGES_MAX:
            self._said.clear()
        self._said[key] = now
        fields = {"message": message[:200], "error": error[:200]}
        if problem is not None:
            fields |= {"problem": problem.code, "why": problem.message}
        level = logging.ERROR if problem is not None and problem.code not in _WARNINGS else logging.WARNING
        _log.log(level, "engine", extra={"fields": fields})
