"""The two SQLite files of a custodian: `main.db` (log, records, consent) and `keys.db` (wrapping keys).

`main.db` is the commit point: one transaction holds a batch's log entries, their bodies and all their effects
(DESIGN 5.5). `keys.db` stays out of backups; it is synced *before* `main.db`, so a record that is there always has
its key, while a key without a record (died in between) is harmless and overwritten when its index is used again.
Derived tables only speed up what could be read from the bodies.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path

from careledger.errors import Error, UnavailableError

__all__ = ["KINDS", "EntryRow", "Row", "Store", "disk_error"]

Row = tuple[str, tuple[str | bytes | int | None, ...]]
"""One statement of a batch and its parameters. Equal statements that follow each other are prepared once."""

EntryRow = tuple[int, int, bytes, bytes | None, bytes | None, int | None]
"""One row of `entries`: index, number of the kind, digest, salt, body, subject's row id."""

KINDS = ("keep", "access", "erase", "system")
_ENTRY = "(?,?,?,?,?,?)"
_TOGETHER = 32
"""Entries of one INSERT: a fourth cheaper than one each, where a batch has that many."""
_CACHE_KIB = 8192
_AUTOCHECKPOINT_PAGES = 4000

_MAIN = """
CREATE TABLE IF NOT EXISTS log(one INTEGER PRIMARY KEY CHECK(one = 1), size INTEGER NOT NULL, frontier BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS entries(
  idx INTEGER PRIMARY KEY, kind INTEGER NOT NULL, digest BLOB NOT NULL, salt BLOB, body BLOB, subject INTEGER);
CREATE INDEX IF NOT EXISTS entries_subject ON entries(subject, idx) WHERE subject IS NOT NULL;
CREATE TABLE IF NOT EXISTS subjects(id INTEGER PRIMARY KEY, token TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS documents(
  token TEXT NOT NULL, sequence INTEGER NOT NULL, salt BLOB NOT NULL, document BLOB NOT NULL, key_box BLOB,
  managed BLOB, entry INTEGER NOT NULL, PRIMARY KEY(token, sequence)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS documents_entry ON documents(entry);
CREATE INDEX IF NOT EXISTS documents_salt ON documents(salt);
CREATE TABLE IF NOT EXISTS consent(
  subject INTEGER NOT NULL, seq INTEGER NOT NULL, message BLOB NOT NULL, event BLOB NOT NULL, entry INTEGER NOT NULL,
  PRIMARY KEY(subject, seq, message)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS consent_entry ON consent(entry);
CREATE INDEX IF NOT EXISTS consent_message ON consent(message);
CREATE TABLE IF NOT EXISTS submissions(
  id INTEGER PRIMARY KEY, submission BLOB NOT NULL, subject INTEGER NOT NULL, author TEXT NOT NULL,
  message BLOB NOT NULL, entry INTEGER NOT NULL, received INTEGER NOT NULL, envelope BLOB NOT NULL,
  manifest_leaves BLOB NOT NULL, lock_leaves BLOB NOT NULL, extra BLOB NOT NULL, inbox INTEGER NOT NULL,
  UNIQUE(author, submission));
CREATE INDEX IF NOT EXISTS submissions_inbox ON submissions(subject, author, received) WHERE inbox > 0;
CREATE INDEX IF NOT EXISTS submissions_entry ON submissions(entry);
CREATE TABLE IF NOT EXISTS locks(
  submission INTEGER NOT NULL, position INTEGER NOT NULL, lock BLOB NOT NULL,
  PRIMARY KEY(submission, position)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records(
  entry INTEGER PRIMARY KEY, record BLOB UNIQUE NOT NULL, subject INTEGER NOT NULL, submission INTEGER NOT NULL,
  position INTEGER NOT NULL, compartment TEXT NOT NULL, epoch INTEGER NOT NULL, recorded INTEGER NOT NULL,
  author TEXT NOT NULL, manifest_at INTEGER NOT NULL, manifest_length INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS records_subject ON records(subject);
CREATE TABLE IF NOT EXISTS blobs(entry INTEGER PRIMARY KEY, share BLOB NOT NULL, ciphertext BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS seen(id BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS peers(node TEXT PRIMARY KEY, cursor INTEGER NOT NULL) WITHOUT ROWID;
"""
_KEYS = "CREATE TABLE IF NOT EXISTS wrapping(entry INTEGER PRIMARY KEY, key BLOB NOT NULL);"


def disk_error(error: sqlite3.Error) -> Error:
    """The refusal that a failed write means for whoever asked."""
    text = str(error)
    if "full" in text or "disk I/O" in text:
        return UnavailableError(
            "disk-full", "this node cannot write (disk full or failing): nothing was kept, try later"
        )
    what = type(error).__name__
    return UnavailableError("store-failed", f"this node cannot write ({what}): nothing was kept, try later")


def _connect(path: Path, schema: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "secure_delete=ON",
        f"cache_size=-{_CACHE_KIB}",
        f"wal_autocheckpoint={_AUTOCHECKPOINT_PAGES}",
        "foreign_keys=ON",
        "trusted_schema=OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")
    connection.executescript(schema)
    return connection


def _reading(path: Path) -> sqlite3.Connection:
    """A connection that sees what is committed, whatever another thread is committing meanwhile."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    connection.execute("PRAGMA query_only=ON")
    connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
    return connection


class Store:
    """Both files of one custodian. One thread at a time may `commit`; everybody reads through `reading` and
    `keys_reading`, which see the last committed state."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.main = _connect(folder / "main.db", _MAIN)
        self.keys = _connect(folder / "keys.db", _KEYS)
        self.reading = _reading(folder / "main.db")
        self.keys_reading = _reading(folder / "keys.db")
        self._grow(self.main)
        self._grow(self.keys)

    @staticmethod
    def _grow(connection: sqlite3.Connection) -> None:
        """Grow the WAL once: a sync of a file that does not grow is about twice as cheap."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE _grow(x)")
            connection.execute("INSERT INTO _grow VALUES(zeroblob(2097152))")
            connection.execute("DROP TABLE _grow")
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(RESTART)")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def log_state(self) -> tuple[int, list[bytes]]:
        """Tree size and the frontier's hashes, as of the last commit."""
        row = self.reading.execute("SELECT size, frontier FROM log").fetchone()
        if row is None:
            return 0, []
        size, joined = row
        return size, [joined[i : i + 32] for i in range(0, len(joined), 32)]

    def commit(
        self,
        entries: Sequence[EntryRow],
        rows: Iterable[Row],
        keys: Sequence[tuple[int, bytes]],
        log: tuple[int, bytes] | None,
    ) -> None:
        """Make one batch durable, all or nothing. Returns after the disk syncs; raises sqlite3.Error with both files
        as they were (but for keys of entries that do not exist, which are overwritten later)."""
        if keys:
            self._run(self.keys, [("INSERT OR REPLACE INTO wrapping VALUES(?,?)", keys)])
        whole = len(entries) - len(entries) % _TOGETHER
        together = [tuple(chain.from_iterable(entries[at : at + _TOGETHER])) for at in range(0, whole, _TOGETHER)]
        statements: list[tuple[str, Iterable[Sequence[object]]]] = [
            (f"INSERT INTO entries VALUES{','.join([_ENTRY] * _TOGETHER)}", together),
            (f"INSERT INTO entries VALUES{_ENTRY}", entries[whole:]),
        ]
        if log is not None:
            statements.append(("INSERT OR REPLACE INTO log VALUES(1,?,?)", [log]))
        self._run(self.main, statements, rows)

    @staticmethod
    def _run(
        connection: sqlite3.Connection, many: Iterable[tuple[str, Iterable[Sequence[object]]]], rows: Iterable[Row] = ()
    ) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE")
            for sql, parameters in many:
                connection.executemany(sql, parameters)
            for sql, group in groupby(rows, key=itemgetter(0)):
                connection.executemany(sql, [values for _, values in group])
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def bodies(self, start: int, end: int) -> Iterator[tuple[int, int, bytes, bytes | None, bytes | None]]:
        """(index, kind, digest, salt, body) of the entries start..end-1."""
        yield from self.reading.execute(
            "SELECT idx, kind, digest, salt, body FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx", (start, end)
        )

    def close(self) -> None:
        """Fold the write-ahead logs back and close all connections."""
        for connection in (self.reading, self.keys_reading, self.keys, self.main):
            connection.close()
