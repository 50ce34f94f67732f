"""What the application keeps on disk: the history, and the app hash of each height that CometBFT decided.

One file, one SQLite transaction a Commit. It may be lost or put back: CometBFT hands over every block again. So nothing
is in it that CometBFT doesn't have; the outbox has a file of its own.
"""

from __future__ import annotations

from typing import Final

from careledger.directory.engines.history import History

__all__ = ["EngineStore"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS commits (height INTEGER PRIMARY KEY, app_hash BLOB NOT NULL) STRICT;
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
