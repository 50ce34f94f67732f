"""The records that a custodian keeps: rows for decisions, and, once a request is logged, shares and ciphertexts.

Each record's share and ciphertext are stored under its own fresh wrapping key (64 bytes in keys.db: one half for each),
so that destroying the key erases the record although backups and free pages may keep the bytes (DESIGN 5.7).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

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
        """Those of `records` (hex ids) that are kept for this subject."""
        found = []
        for record in records:
            row = self._store.reading.execute(
                f"SELECT {_COLUMNS} FROM records WHERE record = ? AND subject = ?",  # noqa: S608 - a constant
                (bytes.fromhex(record), subject),
            ).fetchone()
            if row is not None:
                found.append(RecordRow(*row))
        return found

    def all_of(self, subject: int) -> list[RecordRow]:
        """All of a subject's records in the order in which they came."""
        rows = self._store.reading.execute(
            f"SELECT {_COLUMNS} FROM records WHERE subject = ? ORDER BY entry",  # noqa: S608 - a constant
            (subject,),
        )
        return [RecordRow(*row) for row in rows]

    def _key(self, row: RecordRow) -> bytes:
        found = self._store.keys_reading.execute("SELECT key FROM wrapping WHERE entry = ?", (row.entry,)).fetchone()
        if found is None:
            raise ErasedError("erased", f"record {row.record} was erased; nothing of it is left here")
        key: bytes = found[0]
        return key

    def share(self, row: RecordRow) -> bytes:
        """This custodian's share of the record's release key (y ‖ x, 33 bytes). Raises ErasedError."""
        wrapped = self._store.reading.execute("SELECT share FROM blobs WHERE entry = ?", (row.entry,)).fetchone()
        return open_content(self._key(row)[:32], wrapped[0], aad=row.record_id)

    def ciphertext(self, row: RecordRow) -> bytes:
        """The record's ciphertext as its author sealed it. Raises ErasedError."""
        wrapped = self._store.reading.execute("SELECT ciphertext FROM blobs WHERE entry = ?", (row.entry,)).fetchone()
        return open_content(self._key(row)[32:], wrapped[0], aad=row.record_id)

    def manifest(self, row: RecordRow) -> bytes:
        """The canonical manifest, out of the body of its entry."""
        found = self._store.reading.execute(
            "SELECT substr(body, ?, ?) FROM entries WHERE idx = ?",
            (row.manifest_at + 1, row.manifest_length, row.entry),
        ).fetchone()
        manifest: bytes = found[0]
        return manifest

    def views(self, rows: Sequence[RecordRow], *, own: bool) -> list[bytes]:
        """Encoded records.SubmissionViews of these records: ciphertexts, manifests and the consent locks they need,
        for the subject's own use (`own`) also the owner locks."""
        groups: dict[int, list[RecordRow]] = {}
        for row in rows:
            groups.setdefault(row.submission, []).append(row)
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
                records=[(self.manifest(row), row.position, self.ciphertext(row)) for row in group],
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
