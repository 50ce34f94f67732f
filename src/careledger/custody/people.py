"""Subjects and documents: who is kept here, and which nodes are a subject's custodians."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from careledger.custody.store import Row, Store
from careledger.directory import Directory
from careledger.errors import NotFoundError
from careledger.identity import Document, document_hash
from careledger.seal import decode

__all__ = ["People", "StoredDocument"]

_HELD_MAX = 20_000
_DOCUMENT_BYTES_MAX = 1 << 16


class StoredDocument(msgspec.Struct, frozen=True):
    """A document as kept: in force from the identity's operation `sequence` on; `entry` is its log index."""

    sequence: int
    salt: bytes
    data: bytes
    key_box: bytes | None
    managed: bytes | None
    entry: int
    document: Document
    hash: str


class People:
    """Row ids of subjects, and documents. New rows are in memory at once, durable with the writer's batch."""

    def __init__(self, store: Store, directory: Directory) -> None:
        self._store = store
        self._directory = directory
        self._ids: OrderedDict[str, int] = OrderedDict()
        self._documents: OrderedDict[tuple[str, int], StoredDocument] = OrderedDict()
        self._changing: set[str] = set()
        self._next_id = self._first_free()

    def _first_free(self) -> int:
        row = self._store.reading.execute("SELECT coalesce(max(id), 0) + 1 FROM subjects").fetchone()
        return int(row[0])

    def forget(self) -> None:
        """Drop what a failed commit may have left ahead of the store."""
        self._ids.clear()
        self._documents.clear()
        self._changing.clear()
        self._next_id = self._first_free()

    def subject(self, token: str) -> int | None:
        """The row id of a subject that this custodian keeps anything of."""
        found = self._ids.get(token)
        if found is None:
            row = self._store.reading.execute("SELECT id FROM subjects WHERE token = ?", (token,)).fetchone()
            if row is None:
                return None
            found = self._ids[token] = int(row[0])
            if len(self._ids) > _HELD_MAX:
                self._ids.popitem(last=False)
        return found

    def add_subject(self, token: str) -> tuple[int, list[Row]]:
        """The row id of a subject, known or new, and what to store."""
        known = self.subject(token)
        if known is not None:
            return known, []
        number, self._next_id = self._next_id, self._next_id + 1
        self._ids[token] = number
        return number, [("INSERT INTO subjects VALUES(?,?)", (number, token))]

    def document(self, token: str, sequence: int | None = None) -> StoredDocument:
        """The document in force after the identity's operation `sequence` (None: now).

        Raises NotFoundError `no-document`: never sent here, or this node doesn't have the newest yet.
        """
        state = self._directory.identity(token)
        if state is None:
            raise NotFoundError("no-document", "the directory knows no identity of that token; check it")
        wanted = state.sequence if sequence is None else sequence
        held = self._documents.get((token, wanted))
        if held is None:
            held = self._read(token, wanted)
            self._documents[token, wanted] = held
            if len(self._documents) > _HELD_MAX:
                self._documents.popitem(last=False)
        if sequence is None and state.status == "active" and held.hash != state.document:
            raise NotFoundError("no-document", f"this node lacks the newest document of {token}: send it with its salt")
        return held

    def _read(self, token: str, sequence: int) -> StoredDocument:
        row = self._store.reading.execute(
            "SELECT sequence, salt, document, key_box, managed, entry FROM documents "
            "WHERE token = ? AND sequence <= ? ORDER BY sequence DESC LIMIT 1",
            (token, sequence),
        ).fetchone()
        if row is None:
            raise NotFoundError("no-document", f"this node has no document of {token}: send it with its salt first")
        since, salt, data, key_box, managed, entry = row
        document = decode(data, Document, size_max=_DOCUMENT_BYTES_MAX)
        return StoredDocument(since, salt, data, key_box, managed, entry, document, document_hash(salt, data))

    def changing(self, token: str) -> None:
        """A new document is about to be kept: what is held of the old one ends with the commit."""
        self._changing.add(token)

    def settle(self) -> None:
        """The batch is durable. Only now, since until then a reader may have held the old document once more."""
        if self._changing:
            for key in [key for key in self._documents if key[0] in self._changing]:
                del self._documents[key]
            self._changing.clear()

    def manager(self, token: str) -> str | None:
        """Who manages the subject's identity, if anybody does."""
        try:
            manager = self.document(token).document.manager
        except NotFoundError:
            return None
        return None if manager is msgspec.UNSET else manager

    def custodians(self, token: str) -> list[str]:
        """The subject's custodians now, in the order of their shares; empty when its document isn't here."""
        try:
            return self.document(token).document.custodians
        except NotFoundError:
            return []
