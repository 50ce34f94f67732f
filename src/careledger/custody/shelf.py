"""The records that a custodian keeps: rows for decisions, and, once a request is logged, shares and ciphertexts.

Each record's share and ciphertext are stored under its own fresh wrapping key (64 bytes in keys.db: one half for each),
so that destroying the key erases the record although backups and free pages may keep the bytes (DESIGN 5.7).
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from careledger.custody.store import Store
from careledger.errors import ErasedError
from careledger.records import Lock, encode_view, leaf_tree, view_of
from careledger.records.locks import decode_lock
from careledger.seal import open_content, seal_content
from careledger.tlog import MemoryTree

__all__ = ["RecordRow", "Shelf", "Wrapped", "wrap"]

WRAPPING_BYTES = 64
_SUBMISSIONS_HELD = 256
_AT_ONCE = 64
"""Keys in one statement: a large request is a few statements, not one for each record."""
_COLUMNS = "entry, record, submission, position, compartment, epoch, recorded, author, manifest_at, manifest_length"


class RecordRow(msgspec.Struct, frozen=True):
    """A kept record as decisions see it (consent.ManifestView), with where the rest of it is."""

    entry: int
    record_id: bytes
    submission: int
    position: int
    compartment: str
    epoch: int
    recorded: int
    author: str
    manifest_at: int
    manifest_length: int

    @property
    def record(self) -> str:
        return self.record_id.hex()


class Wrapped(msgspec.Struct, frozen=True):
    """A record's wrapping key (for keys.db), and its share and ciphertext under it."""

    key: bytes
    share: bytes
    ciphertext: bytes


def wrap(key: bytes, *, record: bytes, share: bytes, ciphertext: bytes) -> Wrapped:
    """Wrap share and ciphertext under the two halves of a fresh 64-byte key."""
    return Wrapped(key, seal_content(key[:32], share, aad=record), seal_content(key[32:], ciphertext, aad=record))


def _several(
    connection: sqlite3.Connection, sql: str, keys: Sequence[int | bytes], *first: int
) -> Iterator[tuple[Any, ...]]:
    """The rows of `sql`, which ends in IN, for these keys, in any order; `first` are its parameters before them.

    One key is asked for alone, more _AT_ONCE at a time (the last ones repeated), so that only two statements of each
    kind are ever prepared.
    """
    width = 1 if len(keys) == 1 else _AT_ONCE
    marks = f"({','.join('?' * width)})"
    for at in range(0, len(keys), width):
        some = [*keys[at : at + width]]
        some += some[-1:] * (width - len(some))
        yield from connection.execute(sql + marks, (*first, *some))


class _Held(msgspec.Struct):
    """A submission's envelope, its two trees, and its locks by use, compartment and epoch with their positions."""

    envelope: bytes
    manifests: MemoryTree
    locks_tree: MemoryTree
    locks: dict[tuple[str, str | None, int | None], tuple[bytes, int]]


class Shelf:
    """Reads what is kept; what it hands out must have been logged before."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: OrderedDict[int, _Held] = OrderedDict()

    def rows(self, subject: int, records: Sequence[str]) -> list[RecordRow]:
        """Those of `records` (hex ids) that are kept for this subject, in the order asked for."""
        sql = f"SELECT {_COLUMNS} FROM records WHERE subject = ? AND record IN"  # noqa: S608 - a constant
        asked = [bytes.fromhex(record) for record in records]
        found = {row[1]: row for row in _several(self._store.reading, sql, asked, subject)}
        return [RecordRow(*found[record]) for record in asked if record in found]

    def all_of(self, subject: int) -> list[RecordRow]:
        """All of a subject's records in the order in which they came."""
        rows = self._store.reading.execute(
            f"SELECT {_COLUMNS} FROM records WHERE subject = ? ORDER BY entry",  # noqa: S608 - a constant
            (subject,),
        )
        return [RecordRow(*row) for row in rows]

    def _keys(self, rows: Sequence[RecordRow]) -> dict[int, bytes]:
        """The wrapping keys by entry. Raises ErasedError when one is gone."""
        sql = "SELECT entry, key FROM wrapping WHERE entry IN"
        found: dict[int, bytes] = dict(_several(self._store.keys_reading, sql, [row.entry for row in rows]))
        for row in rows:
            if row.entry not in found:
                raise ErasedError("erased", f"record {row.record} was erased; nothing of it is left here")
        return found

    def _blobs(self, column: str, rows: Sequence[RecordRow]) -> dict[int, bytes]:
        sql = f"SELECT entry, {column} FROM blobs WHERE entry IN"  # noqa: S608 - one of two constants
        return dict(_several(self._store.reading, sql, [row.entry for row in rows]))

    def shares(self, rows: Sequence[RecordRow]) -> list[bytes]:
        """This custodian's share of each record's release key (y ‖ x, 33 bytes). Raises ErasedError."""
        keys, wrapped = self._keys(rows), self._blobs("share", rows)
        return [open_content(keys[row.entry][:32], wrapped[row.entry], aad=row.record_id) for row in rows]

    def ciphertexts(self, rows: Sequence[RecordRow]) -> list[bytes]:
        """Each record's ciphertext as its author sealed it. Raises ErasedError."""
        keys, wrapped = self._keys(rows), self._blobs("ciphertext", rows)
        return [open_content(keys[row.entry][32:], wrapped[row.entry], aad=row.record_id) for row in rows]

    def manifests(self, rows: Sequence[RecordRow]) -> list[bytes]:
        """The canonical manifests, out of the bodies of their entries."""
        sql = (
            "SELECT idx, substr(body, manifest_at + 1, manifest_length) "
            "FROM records JOIN entries ON idx = entry WHERE entry IN"
        )
        found: dict[int, bytes] = dict(_several(self._store.reading, sql, [row.entry for row in rows]))
        return [found[row.entry] for row in rows]

    def share(self, row: RecordRow) -> bytes:
        """As `shares`, of one record."""
        return self.shares([row])[0]

    def ciphertext(self, row: RecordRow) -> bytes:
        """As `ciphertexts`, of one record."""
        return self.ciphertexts([row])[0]

    def manifest(self, row: RecordRow) -> bytes:
        """As `manifests`, of one record."""
        return self.manifests([row])[0]

    def views(self, rows: Sequence[RecordRow], *, own: bool) -> list[bytes]:
        """Encoded records.SubmissionViews of these records: ciphertexts, manifests and the consent locks they need,
        for the subject's own use (`own`) also the owner locks."""
        groups: dict[int, list[RecordRow]] = {}
        for row in rows:
            groups.setdefault(row.submission, []).append(row)
        manifests = dict(zip(rows, self.manifests(rows), strict=True))
        ciphertexts = dict(zip(rows, self.ciphertexts(rows), strict=True))
        views = []
        for number, group in groups.items():
            held = self._submission(number)
            wanted: dict[tuple[str, str | None, int | None], None] = {("owner", None, None): None} if own else {}
            for row in group:
                wanted["consent", row.compartment, row.epoch] = None
            view = view_of(
                envelope=held.envelope,
                manifest_tree=held.manifests,
                lock_tree=held.locks_tree,
                locks=[held.locks[key] for key in wanted],
                records=[(manifests[row], row.position, ciphertexts[row]) for row in group],
            )
            views.append(encode_view(view))
        return views

    def _submission(self, number: int) -> _Held:
        held = self._held.get(number)
        if held is not None:
            self._held.move_to_end(number)
            return held
        envelope, manifest_leaves, lock_leaves = self._store.reading.execute(
            "SELECT envelope, manifest_leaves, lock_leaves FROM submissions WHERE id = ?", (number,)
        ).fetchone()
        locks: dict[tuple[str, str | None, int | None], tuple[bytes, int]] = {}
        for position, data in self._store.reading.execute(
            "SELECT position, lock FROM locks WHERE submission = ?", (number,)
        ):
            lock: Lock = decode_lock(data)
            if lock.use != "release":
                locks[lock.use, lock.compartment, lock.epoch] = (data, position)
        held = _Held(envelope, leaf_tree(_split(manifest_leaves)), leaf_tree(_split(lock_leaves)), locks)
        self._held[number] = held
        if len(self._held) > _SUBMISSIONS_HELD:
            self._held.popitem(last=False)
        return held


def _split(joined: bytes) -> list[bytes]:
    return [joined[at : at + 32] for at in range(0, len(joined), 32)]
