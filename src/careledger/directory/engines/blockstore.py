"""The embedded engine's store: the history, and what its sequencer and followers signed about it.

The sequencer's checkpoints, the members' cosignatures, proofs of a fork.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from careledger.directory.engines.history import History

__all__ = ["BlockStore", "StoredCheckpoint"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS checkpoints (size INTEGER PRIMARY KEY, note BLOB NOT NULL, signer BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS cosignatures (
    size INTEGER NOT NULL, vkey TEXT NOT NULL, line BLOB NOT NULL, PRIMARY KEY (size, vkey)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS forks (size INTEGER NOT NULL, kept BLOB NOT NULL, other BLOB NOT NULL) STRICT;
"""


class StoredCheckpoint(NamedTuple):
    """The sequencer's signed note at a size, and the raw key that signed it."""

    size: int
    note: bytes
    signer: bytes


class BlockStore(History):
    """A history under checkpoints."""

    SCHEMA = History.SCHEMA + _SCHEMA

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
