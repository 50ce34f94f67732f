"""The history file of a replica: one SQLite file with the network's blocks, whatever engine ordered them.

Write-ahead log with `synchronous=FULL`: what a commit returned is on disk. Where each identity's operations stand is
kept only to find them quickly; everything else of the directory follows from executing the blocks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from careledger.directory.transactions import Block, Enrol
from careledger.errors import ConflictError, UnavailableError
from careledger.identity import Token
from careledger.seal import Envelope, decode, unb64

__all__ = ["History"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS genesis (network TEXT PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS blocks (height INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS operations (
    token TEXT NOT NULL, height INTEGER NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (token, height, place)
    ) STRICT, WITHOUT ROWID;
"""


class History:
    """One file, used by one replica from one thread at a time. Every write belongs to a `writing` block."""

    SCHEMA = _SCHEMA
    """What an engine keeps besides is added by its own class."""

    def __init__(self, path: Path, *, network: str, genesis: bytes) -> None:
        """Open or create. Raises ConflictError `other-network`: the file belongs to another network."""
        self._path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(self.SCHEMA)
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

    def operations(
        self, token: Token, *, founders: Mapping[Token, Envelope], parse: Callable[[bytes], Block]
    ) -> list[Envelope]:
        """Every operation of an identity in order, from its inception on; empty when the token is not known.

        `founders`: inceptions of the genesis. `parse`: the engine's way from a block's bytes to the block.
        """
        found = [founders[token]] if token in founders else []
        rows = self._db.execute("SELECT height, place FROM operations WHERE token = ? ORDER BY height, place", (token,))
        for height, place in rows.fetchall():
            data = self.block(height)
            if data is None:
                raise AssertionError(f"the store has block {height}, which it has operations of")
            envelope = parse(data).transactions[place]
            if envelope.payloadType == Enrol.TYPE:
                envelope = decode(unb64(envelope.payload), Enrol).inception
            found.append(envelope)
        return found
