"""The block store: one SQLite file that a replica of the embedded engine needs, and nothing it can derive.

Write-ahead log with `synchronous=FULL`: what a commit returned is on disk. Blocks, the sequencer's checkpoints, the
members' cosignatures and proofs of a fork; where each identity's operations stand is kept only to find them quickly.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from careledger.errors import ConflictError, UnavailableError

__all__ = ["BlockStore", "StoredCheckpoint"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS genesis (network TEXT PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS blocks (height INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS checkpoints (size INTEGER PRIMARY KEY, note BLOB NOT NULL, signer BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS cosignatures (
    size INTEGER NOT NULL, vkey TEXT NOT NULL, line BLOB NOT NULL, PRIMARY KEY (size, vkey)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS operations (
    token TEXT NOT NULL, height INTEGER NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (token, height, place)
    ) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS forks (size INTEGER NOT NULL, kept BLOB NOT NULL, other BLOB NOT NULL) STRICT;
"""


class StoredCheckpoint(NamedTuple):
    """The sequencer's signed note at a size, and the raw key that signed it."""

    size: int
    note: bytes
    signer: bytes


class BlockStore:
    """One file, used by one replica from one thread at a time. Every write belongs to a `writing` block."""

    def __init__(self, path: Path, *, network: str, genesis: bytes) -> None:
        """Open or create. Raises ConflictError `other-network`: the file belongs to another network."""
        self._path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise UnavailableError("store-failed", f"the block store {path} can't be opened: {error}") from error
        row = self._db.execute("SELECT network FROM genesis").fetchone()
        if row is None:
            self._db.execute("INSERT INTO genesis VALUES (?, ?)", (network, genesis))
        elif row[0] != network:
            self._db.close()
            raise ConflictError(
                "other-network",
                f"{path} holds the blocks of network {row[0][:16]}, not {network[:16]}: use another file",
            )

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction: durable when it ends, undone when it raises.

        Raises UnavailableError `store-failed` (disk full, read-only, …): nothing of it was kept.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise UnavailableError("store-failed", f"the block store {self._path} can't be written: {error}") from error

    def height(self) -> int:
        """The height of the last block, 0 when there is none. Raises UnavailableError `store-failed`."""
        try:
            return int(self._db.execute("SELECT coalesce(max(height), 0) FROM blocks").fetchone()[0])
        except sqlite3.Error as error:
            raise UnavailableError("store-failed", f"the block store {self._path} can't be read: {error}") from error

    def add_block(self, height: int, data: bytes, operations: list[tuple[str, int]]) -> None:
        """`operations`: token and place in the block of each identity operation."""
        self._db.execute("INSERT INTO blocks VALUES (?, ?)", (height, data))
        self._db.executemany(
            "INSERT INTO operations VALUES (?, ?, ?)", [(token, height, place) for token, place in operations]
        )

    def blocks(self, first: int, last: int) -> Iterator[bytes]:
        """The blocks of heights `first` to `last`, in order."""
        rows = self._db.execute("SELECT data FROM blocks WHERE height BETWEEN ? AND ? ORDER BY height", (first, last))
        for row in rows:
            yield row[0]

    def block(self, height: int) -> bytes | None:
        row = self._db.execute("SELECT data FROM blocks WHERE height = ?", (height,)).fetchone()
        return None if row is None else row[0]

    def operation_places(self, token: str) -> list[tuple[int, int]]:
        """(height, place) of each operation of an identity after the genesis, in order."""
        rows = self._db.execute("SELECT height, place FROM operations WHERE token = ? ORDER BY height, place", (token,))
        return [(height, place) for height, place in rows]

    def add_checkpoint(self, checkpoint: StoredCheckpoint) -> None:
        self._db.execute("INSERT INTO checkpoints VALUES (?, ?, ?)", checkpoint)

    def checkpoint(self, size: int) -> StoredCheckpoint | None:
        return self._one_checkpoint("WHERE size = ?", size)

    def newest_checkpoint(self) -> StoredCheckpoint | None:
        return self._one_checkpoint("WHERE size >= ? ORDER BY size DESC LIMIT 1", 0)

    def checkpoints_after(self, size: int, limit: int) -> list[StoredCheckpoint]:
        """Checkpoints of sizes above `size` and at most `limit`, in order."""
        rows = self._db.execute(
            "SELECT size, note, signer FROM checkpoints WHERE size > ? AND size <= ? ORDER BY size", (size, limit)
        )
        return [StoredCheckpoint(*row) for row in rows]

    def next_checkpoint(self, size: int) -> StoredCheckpoint | None:
        """The smallest checkpoint above `size`."""
        return self._one_checkpoint("WHERE size > ? ORDER BY size LIMIT 1", size)

    def add_cosignature(self, size: int, vkey: str, line: bytes) -> None:
        """The first cosignature of a witness for a size is kept; later ones say the same."""
        self._db.execute("INSERT OR IGNORE INTO cosignatures VALUES (?, ?, ?)", (size, vkey, line))

    def cosignatures(self, size: int) -> list[tuple[str, bytes]]:
        """(vkey, line) of every cosignature of a size, in the order of their vkeys."""
        rows = self._db.execute("SELECT vkey, line FROM cosignatures WHERE size = ? ORDER BY vkey", (size,))
        return [(vkey, line) for vkey, line in rows]

    def cosigned_sizes(self, limit: int) -> list[int]:
        """The largest sizes that have any cosignature, largest first."""
        rows = self._db.execute("SELECT DISTINCT size FROM cosignatures ORDER BY size DESC LIMIT ?", (limit,))
        return [row[0] for row in rows]

    def add_fork(self, size: int, kept: bytes, other: bytes) -> None:
        """Two notes of the sequencer that can't both be true: the one this replica follows, and another."""
        self._db.execute("INSERT INTO forks VALUES (?, ?, ?)", (size, kept, other))

    def forks(self) -> list[tuple[int, bytes, bytes]]:
        return [(size, kept, other) for size, kept, other in self._db.execute("SELECT size, kept, other FROM forks")]

    def _one_checkpoint(self, where: str, value: int) -> StoredCheckpoint | None:
        row = self._db.execute(f"SELECT size, note, signer FROM checkpoints {where}", (value,)).fetchone()  # noqa: S608
        return None if row is None else StoredCheckpoint(*row)
