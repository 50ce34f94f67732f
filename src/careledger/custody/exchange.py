"""Sync between custodians: what one kept while another was down, handed on as it came and proven again on arrival.

A node asks each peer from the index where it left off; the peer names the documents, consent events and submissions
of the subjects that both keep. What the asker lacks it then asks for; the peer logs that it hands it out, and does.
Nothing is believed for coming from a peer: every item goes through the same checks as from its author or subject.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from careledger.access import DocumentMessage, SignedRead, SyncAnswer, SyncItem, SyncRequest
from careledger.consent import decode_event_message
from careledger.custody.acceptance import Acceptance, Extra
from careledger.custody.custodian import Custodian
from careledger.custody.documents import Documents, Events, claimed_subject
from careledger.custody.reading import check_signed_read
from careledger.custody.shelf import RecordRow, Shelf
from careledger.custody.writer import Batch, Plan
from careledger.errors import Error, MalformedError, NotPermittedError, VerificationError
from careledger.records import Submission, decode_submission, encode_submission
from careledger.seal import encode as canonical
from careledger.seal import sign
from careledger.seal.ed25519 import SigningKey

__all__ = ["Exchange", "Refused"]

ITEMS_MAX = 400
BYTES_MAX = 8 << 20
_RECORD_COLUMNS = (
    "entry, record, submission, position, compartment, epoch, recorded, author, manifest_at, manifest_length"
)
_document_decoder = msgspec.msgpack.Decoder(DocumentMessage)


class Refused(msgspec.Struct, frozen=True):
    """An item of a peer that did not prove itself here: its index in the peer's log, its kind, and why."""

    index: int
    kind: str
    code: str


class Exchange:
    """Both sides of sync."""

    def __init__(
        self, custodian: Custodian, shelf: Shelf, *, documents: Documents, events: Events, acceptance: Acceptance
    ) -> None:
        self.custodian = custodian
        self.shelf = shelf
        self._documents = documents
        self._events = events
        self._acceptance = acceptance

    def ask(
        self,
        to: str,
        *,
        since: int,
        signer: tuple[str, SigningKey],
        subject: str | None = None,
        wanted: Sequence[int] = (),
    ) -> SignedRead:
        """The signed request for what `to` kept from its log index `since` on; for the items themselves if `wanted`."""
        request = SyncRequest(
            network=self.custodian.network,
            node=self.custodian.node,
            to=to,
            since=since,
            time=self.custodian.now_ms(),
            nonce=self.custodian.rand(16).hex(),
            subject=msgspec.UNSET if subject is None else subject,
            wanted=list(wanted) if wanted else msgspec.UNSET,
        )
        return SignedRead(canonical(sign(SyncRequest.TYPE, canonical(request), [signer])))

    async def serve(self, signed: SignedRead) -> SyncAnswer:
        """Answer a peer. Log first: what is handed out stands in a `system` entry before it leaves.

        Raises NotPermittedError `not-a-node`; VerificationError `wrong-node` and check_signed_read's.
        """
        custodian = self.custodian
        request = check_signed_read(custodian, signed.request, SyncRequest, payload_type=SyncRequest.TYPE, who="node")
        if custodian.directory.node(request.node) is None:
            raise NotPermittedError("not-a-node", "only a member's node may sync")
        if request.to != custodian.node:
            raise VerificationError("wrong-node", "the sync request is for another node")
        size = custodian.writer.frontier.size
        items, after = self._items(request, size)
        if items and request.wanted is not msgspec.UNSET:
            await custodian.writer.submit(_HandedOut(custodian, signed.request, len(items), after))
        return SyncAnswer(items, after, size)

    def _items(self, request: SyncRequest, size: int) -> tuple[list[SyncItem], int]:
        subject = None if request.subject is msgspec.UNSET else self.custodian.people.subject(request.subject)
        found = self._index(request.since, size, subject, one=request.subject is not msgspec.UNSET)
        wanted = None if request.wanted is msgspec.UNSET else set(request.wanted)
        items: list[SyncItem] = []
        total = 0
        for index, kind, token, name in found:
            if request.node not in self.custodian.people.custodians(token):
                continue
            if len(items) >= ITEMS_MAX or total >= BYTES_MAX:
                return items, index
            if wanted is not None and index not in wanted:
                continue
            message = b"" if wanted is None else self._message(index, kind, token)
            item = SyncItem(index, kind, name, message)
            total += len(message)
            items.append(item)
        return items, size

    def _index(self, since: int, size: int, subject: int | None, *, one: bool) -> list[tuple[int, str, str, bytes]]:
        """(index, kind, subject's token, name) of everything kept in a range, in log order."""
        if one and subject is None:
            return []
        reading = self.custodian.store.reading
        rows: list[tuple[int, str, str, bytes]] = []
        for table, kind, column, name in (
            ("documents", "document", "s.token = t.token", "t.salt"),
            ("consent", "consent", "s.id = t.subject", "t.message"),
            ("submissions", "submission", "s.id = t.subject", "t.author || '/' || lower(hex(t.submission))"),
        ):
            sql = (
                f"SELECT t.entry, '{kind}', s.token, {name} "  # noqa: S608 - constants
                f"FROM {table} t JOIN subjects s ON {column} "
                "WHERE t.entry >= ? AND t.entry < ? AND (? IS NULL OR s.id = ?) ORDER BY t.entry LIMIT ?"
            )
            found = reading.execute(sql, (since, size, subject, subject, ITEMS_MAX + 1))
            rows += [(*row, name.encode() if isinstance(name, str) else name) for *row, name in found]
        return sorted(rows)

    def _message(self, index: int, kind: str, token: str) -> bytes:
        reading = self.custodian.store.reading
        if kind == "document":
            salt, document, key_box = reading.execute(
                "SELECT salt, document, key_box FROM documents WHERE entry = ?", (index,)
            ).fetchone()
            return msgspec.msgpack.encode(DocumentMessage(token, salt, document, key_box))
        if kind == "consent":
            event: bytes = reading.execute("SELECT event FROM consent WHERE entry = ?", (index,)).fetchone()[0]
            return event
        return encode_submission(self.submission(index))

    def submission(self, entry: int) -> Submission:
        """A kept submission as it came. Raises ErasedError when a record of it was erased."""
        reading = self.custodian.store.reading
        number, envelope, manifest_leaves, lock_leaves, extra_data = reading.execute(
            "SELECT id, envelope, manifest_leaves, lock_leaves, extra FROM submissions WHERE entry = ?", (entry,)
        ).fetchone()
        extra = msgspec.msgpack.decode(extra_data, type=Extra)
        locks = reading.execute("SELECT lock FROM locks WHERE submission = ? ORDER BY position", (number,)).fetchall()
        rows = [
            RecordRow(*row)
            for row in reading.execute(
                f"SELECT {_RECORD_COLUMNS} FROM records WHERE submission = ? ORDER BY entry",  # noqa: S608 - a constant
                (number,),
            )
        ]
        return Submission(
            envelope=envelope,
            manifest_leaves=_split(manifest_leaves),
            lock_leaves=_split(lock_leaves),
            filler=extra.filler,
            manifests=self.shelf.manifests(rows),
            locks=[lock for (lock,) in locks],
            ciphertexts=self.shelf.ciphertexts(rows),
            affiliation=extra.affiliation,
            grant=extra.grant,
        )

    def cursor(self, peer: str) -> int:
        """The index from which this node goes on with a peer."""
        row = self.custodian.store.reading.execute("SELECT cursor FROM peers WHERE node = ?", (peer,)).fetchone()
        return 0 if row is None else int(row[0])

    def missing(self, answer: SyncAnswer) -> list[int]:
        """The indexes of those named items that this custodian does not keep yet."""
        return [item.index for item in answer.items if not self._has(item.kind, item.name)]

    async def move_on(self, peer: str, after: int) -> None:
        """Remember that everything of a peer below `after` was dealt with."""
        if after != self.cursor(peer):
            await self.custodian.writer.submit(_Cursor(peer, after))

    async def take(self, peer: str, answer: SyncAnswer) -> list[Refused]:
        """Keep what a peer handed out, each item proven as if it came from its author; returns what did not prove
        itself. A passing failure of this node (UnavailableError) is raised: ask again later."""
        refused: list[Refused] = []
        for item in answer.items:
            try:
                await self._take_one(peer, item)
            except Error as problem:
                if problem.http_status == 503:
                    raise
                refused.append(Refused(item.index, item.kind, problem.code))
        return refused

    async def _take_one(self, peer: str, item: SyncItem) -> None:
        if item.kind == "document":
            await self._take_document(item.message)
        elif item.kind == "consent":
            message = decode_event_message(item.message)
            await self._events.keep([message], subject=claimed_subject(message), via=peer)
        elif item.kind == "submission":
            await self._acceptance.accept(decode_submission(item.message), via=peer)
        else:
            raise MalformedError("unknown-type", f"a peer hands on something of kind {item.kind[:20]!r}")

    async def _take_document(self, data: bytes) -> None:
        try:
            message = _document_decoder.decode(data)
        except (msgspec.DecodeError, RecursionError, ValueError):
            raise MalformedError("not-msgpack", "a peer's document message does not parse") from None
        await self._documents.keep(message)

    def _has(self, kind: str, name: bytes) -> bool:
        """Whether a named item is kept here: of most that peers name, it is."""
        reading = self.custodian.store.reading
        if kind == "document":
            found = reading.execute("SELECT 1 FROM documents WHERE salt = ?", (name,))
        elif kind == "consent":
            found = reading.execute("SELECT 1 FROM consent WHERE message = ?", (name,))
        else:
            author, _, submission = name.decode("ascii", "replace").partition("/")
            found = reading.execute(
                "SELECT 1 FROM submissions WHERE author = ? AND submission = ?", (author, _unhex(submission))
            )
        return found.fetchone() is not None


class _HandedOut:
    """The `system` entry about items handed to a peer."""

    light = False

    def __init__(self, custodian: Custodian, request: bytes, count: int, after: int) -> None:
        self._custodian = custodian
        self._request = request
        self._details = {"items": count, "next": after}

    def plan(self, batch: Batch) -> Plan:
        custodian = self._custodian
        salt = custodian.rand(32)
        body = custodian.body(
            batch,
            batch.index,
            custodian.chains.state(None),
            kind="system",
            decision="allow",
            reason="sync",
            envelopes=[self._request],
            details=self._details,
        )
        return Plan(entries=[("system", salt, body, None)])


class _Cursor:
    """Remembers how far this node has come with a peer. No entry: losing it only asks again."""

    light = False

    def __init__(self, peer: str, after: int) -> None:
        self._row = (peer, after)

    def plan(self, batch: Batch) -> Plan:
        return Plan(rows=[("INSERT OR REPLACE INTO peers VALUES(?,?)", self._row)])


def _split(joined: bytes) -> list[bytes]:
    return [joined[at : at + 32] for at in range(0, len(joined), 32)]


def _unhex(text: str) -> bytes:
    """The id that a peer names; nothing (and so nothing found) when it isn't hex."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
