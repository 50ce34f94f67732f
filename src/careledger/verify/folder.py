"""Reading what a node keeps on disk, without changing anything: log files, bodies, documents, what it cosigned.

For an auditor on the node's machine or with a copy of its folder. Databases are opened read-only; a copy taken while
the node runs must have the `-wal` file beside the database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

from careledger.errors import Error, MalformedError, NotFoundError, UnavailableError
from careledger.tlog import Verifier, open_checkpoint
from careledger.verify.history import Fetch
from careledger.verify.report import Known

__all__ = ["Store", "folder_fetch", "load_blocks", "load_bodies", "read_file", "witnessed_in"]

FILE_BYTES_MAX: Final = 64 << 20
"""Of one file of a log: a full bundle of the largest entries has 17 MB."""


def folder_fetch(folder: Path) -> Fetch:
    """A fetch over a folder's files. It never leaves the folder by a path's dots."""

    def fetch(path: str) -> bytes:
        if path.startswith("/") or ".." in path.split("/"):
            raise NotFoundError("not-found", f"{path} is no path inside {folder}")
        return read_file(folder / path)

    return fetch


def read_file(path: Path) -> bytes:
    """A file's bytes. Raises NotFoundError `not-found`; UnavailableError `unreadable`; MalformedError `too-large`."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise MalformedError("too-large", f"{path} has more than {FILE_BYTES_MAX} bytes; it is no file of a log")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise NotFoundError("not-found", f"there is no file {path}") from None
    except OSError as problem:
        raise UnavailableError("unreadable", f"{path} can't be read ({type(problem).__name__})") from None


class Store:
    """A node's `store/main.db`, read-only. Use it with `with`, from one thread."""

    def __init__(self, path: Path) -> None:
        """Raises NotFoundError `no-store`; UnavailableError `unreadable`: no database, or one of other software."""
        self._db = _read_only(path, "no-store")
        try:
            self._db.execute("SELECT idx, kind, digest, salt, body FROM entries LIMIT 1").fetchone()
            # One snapshot for everything that is read, while the node goes on writing.
            self._db.execute("BEGIN")
            row = self._db.execute("SELECT coalesce(max(idx) + 1, 0) FROM entries").fetchone()
        except sqlite3.Error:
            self._db.close()
            raise UnavailableError("unreadable", f"{path} is not the store of a careledger node") from None
        self.size = int(row[0])

    def bodies(self, start: int, end: int) -> Sequence[tuple[bytes, bytes] | None]:
        """(salt, body) of the entries start..end-1, None where body or salt are gone (verify's `Bodies`)."""
        found: list[tuple[bytes, bytes] | None] = [None] * (end - start)
        rows = self._rows("SELECT idx, salt, body FROM entries WHERE idx >= ? AND idx < ?", (start, end))
        for index, salt, body in rows:
            if salt is not None and body is not None:
                found[index - start] = (_bytes(salt), _bytes(body))
        return found

    def document(self, token: str, sequence: int) -> tuple[bytes, bytes] | None:
        """(salt, document) in force from an identity's operation `sequence` on (verify's `Documents`)."""
        rows = self._rows("SELECT salt, document FROM documents WHERE token = ? AND sequence = ?", (token, sequence))
        return next(((_bytes(salt), _bytes(document)) for salt, document in rows), None)

    def _rows(self, sql: str, parameters: tuple[object, ...]) -> Iterator[Any]:
        try:
            yield from self._db.execute(sql, parameters)
        except sqlite3.Error as problem:
            raise UnavailableError(
                "unreadable", f"the store can't be read ({type(problem).__name__}): copy it with its -wal file"
            ) from None

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load_bodies(path: Path) -> Store:
    """The bodies in a node's `store/main.db`: pass its `bodies` and `document` to `verify_log`. Raises as Store."""
    return Store(path)


def load_blocks(path: Path) -> list[bytes]:
    """The blocks of a node's `directory/directory.db`, from the first on and without a gap.

    Raises NotFoundError `no-directory`; UnavailableError `unreadable`.
    """
    with closing(_read_only(path, "no-directory")) as database:
        try:
            rows = database.execute("SELECT height, data FROM blocks ORDER BY height").fetchall()
        except sqlite3.Error:
            raise UnavailableError("unreadable", f"{path} is not the directory of a careledger node") from None
    return [_bytes(data) for at, (height, data) in enumerate(rows, start=1) if height == at]


def witnessed_in(path: Path, *, verifier: Verifier, source: str) -> list[Known]:
    """What a node's `witness.db` has last cosigned of the log of `verifier`: nothing, or one checkpoint; and any
    contradicting checkpoints it kept as evidence of a fork.

    Only what the log's own key signed counts: a log can't be accused by somebody else's database.
    Raises NotFoundError `no-witness`; UnavailableError `unreadable`.
    """
    found: list[Known] = []
    with closing(_read_only(path, "no-witness")) as db:
        try:
            rows = db.execute("SELECT checkpoint FROM cosigned WHERE origin = ?", (verifier.name,)).fetchall()
            rows += db.execute("SELECT cosigned FROM forks WHERE origin = ?", (verifier.name,)).fetchall()
            rows += db.execute("SELECT other FROM forks WHERE origin = ?", (verifier.name,)).fetchall()
        except sqlite3.Error:
            raise UnavailableError("unreadable", f"{path} is not the witness database of a careledger node") from None
    for (note,) in rows:
        try:
            stated = open_checkpoint(_bytes(note), verifier=verifier)
        except Error:
            continue
        found.append(Known(size=stated.size, root=stated.root.hex(), source=source))
    return found


def _bytes(value: object) -> bytes:
    """A column's bytes. SQLite stores any type in any column: what is no BLOB was not written by a node, and its text
    won't match what it is compared with."""
    return value if isinstance(value, bytes) else str(value).encode()


def _read_only(path: Path, missing: str) -> sqlite3.Connection:
    if not path.is_file():
        raise NotFoundError(missing, f"there is no database {path}")
    address = f"file:{quote(str(path.resolve()))}?mode=ro"
    try:
        return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as problem:
        raise UnavailableError("unreadable", f"{path} can't be opened ({type(problem).__name__})") from None
