"""The witness's memory: the last checkpoint that this node cosigned for each other log, durable before it signs.

The rule is `tlog.cosign_if_consistent`; this module makes "read, check, store, sign" one step. A file of its own, so
that witnessing goes on while the main store commits, or refuses writes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from careledger.custody.store import disk_error
from careledger.tlog import AddCheckpoint, Cosigner, Verifier, cosign_if_consistent

__all__ = ["Witness", "read_cosigned"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cosigned(
  origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, checkpoint BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS forks(origin TEXT PRIMARY KEY, cosigned BLOB NOT NULL, other BLOB NOT NULL) WITHOUT ROWID;
"""


class Witness:
    """One node as witness for the other members' logs. For one thread."""

    def __init__(self, file: Path, *, signer: Cosigner, now_s: Callable[[], int]) -> None:
        self._signer = signer
        self._now_s = now_s
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)

    def last(self, origin: str) -> tuple[int, bytes, bytes] | None:
        """(size, root, checkpoint note) last cosigned for a log, or None."""
        row = self._db.execute("SELECT size, root, checkpoint FROM cosigned WHERE origin = ?", (origin,)).fetchone()
        return None if row is None else (row[0], row[1], row[2])

    def add_checkpoint(self, request: AddCheckpoint, *, log_verifier: Verifier | None) -> bytes:
        """Cosign; returns the signature line. Durable when it returns: the process may die right after.

        Raises what `cosign_if_consistent` raises, and UnavailableError when the disk refuses. A provable fork is kept
        as evidence: both signed checkpoints.
        """
        origin = request.unverified_origin
        known = self.last(origin)
        try:
            state, line = cosign_if_consistent(
                None if known is None else known[:2],
                request,
                log_verifier=log_verifier,
                signer=self._signer,
                now_s=self._now_s(),
            )
        except Exception as problem:
            if getattr(problem, "code", "") == "fork" and known is not None:
                self._write("INSERT OR IGNORE INTO forks VALUES(?,?,?)", (origin, known[2], request.checkpoint))
            raise
        if known is None or state != known[:2]:
            self._write("INSERT OR REPLACE INTO cosigned VALUES(?,?,?,?)", (origin, *state, request.checkpoint))
        return line

    def forks(self) -> list[tuple[str, bytes, bytes]]:
        """(origin, cosigned checkpoint, contradicting checkpoint) of every fork seen: evidence for the directory."""
        return list(self._db.execute("SELECT origin, cosigned, other FROM forks ORDER BY origin"))

    def _write(self, sql: str, parameters: tuple[object, ...]) -> None:
        try:
            self._db.execute(sql, parameters)
        except sqlite3.Error as error:
            raise disk_error(error) from None

    def close(self) -> None:
        self._db.close()


def read_cosigned(file: Path, origin: str) -> tuple[int, bytes] | None:
    """(size, root) that the witness with this file last cosigned for a log, read from outside; None if nothing."""
    database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        row = database.execute("SELECT size, root FROM cosigned WHERE origin = ?", (origin,)).fetchone()
    finally:
        database.close()
    return None if row is None else (row[0], row[1])
