"""What the CometBFT engine keeps on disk: the history, the app hash of each height, and the outbox.

All in one file, so that one SQLite transaction commits a block, its app hash, and that the outbox need no longer send
what is in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from careledger.directory.engines.history import History

__all__ = ["EngineStore"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS commits (height INTEGER PRIMARY KEY, app_hash BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, data BLOB NOT NULL) STRICT;
"""


class EngineStore(History):
    """A history that CometBFT decided. Heights without a commit were imported from another engine."""

    SCHEMA = History.SCHEMA + _SCHEMA

    def add_commit(self, height: int, app_hash: bytes) -> None:
        self._db.execute("INSERT INTO commits VALUES (?, ?)", (height, app_hash))

    def decided_height(self) -> int:
        """The last height that CometBFT decided, 0 when there is none."""
        return int(self._db.execute("SELECT coalesce(max(height), 0) FROM commits").fetchone()[0])

    def app_hash(self, height: int) -> bytes | None:
        """The app hash after a block; None where CometBFT did not decide it."""
        row = self._db.execute("SELECT app_hash FROM commits WHERE height = ?", (height,)).fetchone()
        return None if row is None else row[0]

    def post(self, ident: bytes, data: bytes) -> None:
        """Put a transaction into the outbox; one that is there already stays where it is."""
        self._db.execute("INSERT OR IGNORE INTO outbox (id, data) VALUES (?, ?)", (ident, data))

    def unpost(self, idents: Iterable[bytes]) -> None:
        """Take transactions out of the outbox; those that aren't in it don't matter."""
        self._db.executemany("DELETE FROM outbox WHERE id = ?", [(ident,) for ident in idents])

    def posted(self) -> list[tuple[bytes, bytes]]:
        """(id, bytes) of every transaction in the outbox, oldest first."""
        return list(self._db.execute("SELECT id, data FROM outbox ORDER BY number"))
