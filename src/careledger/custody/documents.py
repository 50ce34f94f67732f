"""Documents and consent events: what the subject itself hands to its custodians.

Both prove themselves: a document by the salted hash that the directory holds, an event by the subject's signature and
its place in the chain. So it doesn't matter who brings them, and peers hand them on as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from careledger.access import DocumentMessage, Receipt
from careledger.consent import EventMessage
from careledger.custody.custodian import Custodian
from careledger.custody.people import StoredDocument
from careledger.custody.writer import Batch, Plan
from careledger.errors import Error, MalformedError, NotFoundError, NotPermittedError
from careledger.identity import Document, check_claim, check_update, open_document
from careledger.seal import Envelope, decode, unb64

__all__ = ["Documents", "Events", "claimed_subject"]

_KEY_BOX_BYTES_MAX = 16 << 10
_MANAGED_BYTES_MAX = 4 << 10
EVENTS_AT_ONCE_MAX = 64
_EVENT_BYTES_MAX = 1 << 20
_LIGHT_EVENTS_MAX = 2
"""A revocation with its rekey is no more work than an access, and must not wait behind imports."""


def claimed_subject(message: EventMessage) -> str:
    """The subject that a consent event says it is about: to find its keys and chain with, which then bind it.

    Raises MalformedError `not-json`, `bad-field` and seal.decode's.
    """
    payload = unb64(decode(message.envelope, Envelope, size_max=_EVENT_BYTES_MAX).payload)
    try:
        return _claim_decoder.decode(payload).subject
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise MalformedError("not-json", "a consent event is not JSON that names its subject") from None


class _Claim(msgspec.Struct):
    subject: str


_claim_decoder = msgspec.json.Decoder(_Claim)


class _Logged(msgspec.Struct):
    """An entry that a job made, or found from before (no body)."""

    index: int
    salt: bytes = b""
    body: bytes = b""


class Documents:
    """The part of a custodian that keeps documents and key boxes."""

    def __init__(self, custodian: Custodian) -> None:
        self.custodian = custodian

    async def keep(self, message: DocumentMessage) -> Receipt:
        """Keep a document that the directory commits to; a known one with the same key box is answered again.

        Raises NotPermittedError `unknown-identity`, `not-a-custodian`; VerificationError `bad-document-hash`,
        `update-not-allowed`, `bad-claim`; MalformedError.
        """
        custodian = self.custodian
        state = custodian.directory.identity(message.token)
        if state is None or state.status != "active":
            raise NotPermittedError("unknown-identity", "the directory knows no active identity of that token")
        document = open_document(message.salt, message.document, state.document)
        if state.kind == "person" and custodian.node not in document.custodians:
            raise NotPermittedError("not-a-custodian", "this node is no custodian of that subject; see its document")
        if len(message.key_box or b"") > _KEY_BOX_BYTES_MAX or len(message.managed or b"") > _MANAGED_BYTES_MAX:
            raise MalformedError("too-large", "the key box or the managed share is larger than one can be")
        try:
            before = custodian.people.document(message.token, state.sequence)
        except NotFoundError:
            before = None
        if before is not None and before.hash == state.document and self._same(message, before.key_box, before.managed):
            return await custodian.receipt_of(before.entry)
        if before is not None:
            self._check_change(message.token, before, document)
        done, committed = await custodian.writer.submit(_DocumentJob(custodian, message))
        assert isinstance(done, _Logged)
        assert committed is not None
        return custodian.receipt(done.salt, done.body, done.index, committed)

    def _check_change(self, token: str, before: StoredDocument, document: Document) -> None:
        """The directory can't see documents, so custodians say what an operation may change (identity.md 4)."""
        directory = self.custodian.directory
        if (directory.keys_since(token) or 0) <= before.sequence:
            check_update(before.document, document)
        manager = directory.claimed_from(token, before.sequence)
        if manager is not None:
            check_claim(before.document, document, manager=manager)

    @staticmethod
    def _same(message: DocumentMessage, key_box: bytes | None, managed: bytes | None) -> bool:
        return message.key_box in (None, key_box) and message.managed in (None, managed)

    def stored(self, token: str) -> DocumentMessage:
        """The newest document, for whoever must know an identity's custodians. Raises NotFoundError."""
        stored = self.custodian.people.document(token)
        return DocumentMessage(token=token, salt=stored.salt, document=stored.data, key_box=stored.key_box)


class _DocumentJob:
    light = False

    def __init__(self, custodian: Custodian, message: DocumentMessage) -> None:
        self._custodian = custodian
        self._message = message

    def plan(self, batch: Batch) -> Plan:
        custodian, message = self._custodian, self._message
        state = custodian.directory.identity(message.token)
        assert state is not None
        subject, rows = custodian.people.add_subject(message.token)
        salt = custodian.rand(32)
        body = custodian.body(
            batch,
            batch.index,
            custodian.chains.state(subject),
            kind="keep",
            decision="accept",
            reason="document",
            subject=message.token,
            details={"document": state.document, "sequence": state.sequence},
        )
        custodian.people.changing(message.token)
        # A share of an earlier document's K_c opens nothing for anybody any more, so that none is left to be stolen.
        rows.append(
            (
                "UPDATE documents SET managed = NULL WHERE token = ? AND sequence < ? AND managed IS NOT NULL",
                (message.token, state.sequence),
            )
        )
        rows.append(
            (
                "INSERT OR REPLACE INTO documents VALUES(?,?,?,?,?,?,?)",
                (
                    message.token,
                    state.sequence,
                    message.salt,
                    message.document,
                    message.key_box,
                    message.managed,
                    batch.index,
                ),
            )
        )
        return Plan(entries=[("keep", salt, body, subject)], rows=rows, answer=_Logged(batch.index, salt, body))


class Events:
    """The part of a custodian that takes consent events."""

    def __init__(self, custodian: Custodian) -> None:
        self.custodian = custodian

    async def keep(
        self, messages: Sequence[EventMessage], *, subject: str, via: str | None = None
    ) -> tuple[list[Receipt], int, str]:
        """Keep events of one subject, in order, all or none; returns receipts and the chain's (number, head).

        Known events are answered again. `via` names a peer that kept them before: keys may be superseded since.
        Raises what Chains.take raises; NotPermittedError `not-a-custodian`; NotFoundError `no-document`.
        """
        custodian = self.custodian
        if not 0 < len(messages) <= EVENTS_AT_ONCE_MAX:
            raise MalformedError("too-large", f"a request takes 1 to {EVENTS_AT_ONCE_MAX} consent events")
        document = custodian.people.document(subject).document
        if custodian.node not in document.custodians:
            raise NotPermittedError("not-a-custodian", "this node is no custodian of that subject; see its document")
        done, committed = await custodian.writer.submit(_EventsJob(custodian, messages, subject, via))
        assert isinstance(done, _Events)
        receipts = []
        for one in done.logged:
            if one.body and committed is not None:
                receipts.append(custodian.receipt(one.salt, one.body, one.index, committed))
            else:
                receipts.append(await custodian.receipt_of(one.index))
        return receipts, done.seq, done.head


class _Events(msgspec.Struct):
    logged: list[_Logged]
    seq: int
    head: str


class _EventsJob:
    def __init__(self, custodian: Custodian, messages: Sequence[EventMessage], subject: str, via: str | None) -> None:
        self._custodian = custodian
        self._messages = messages
        self._subject = subject
        self._via = via
        self.light = len(messages) <= _LIGHT_EVENTS_MAX

    def plan(self, batch: Batch) -> Plan:
        custodian = self._custodian
        signers = [self._subject, custodian.people.manager(self._subject)]
        rank = None
        if self._via is not None:
            signers += [manager for _, manager in custodian.directory.claims(self._subject)]
            rank = partial(custodian.directory.signing_rank, subject=self._subject)
        keys = custodian.keyring.of(*signers, superseded=self._via is not None)
        number = custodian.people.subject(self._subject)
        assert number is not None, "who has a document here is a subject here"
        plan = Plan()
        logged: list[_Logged] = []
        before = custodian.chains.state(number)
        try:
            for message in self._messages:
                index = batch.index + len(plan.entries)
                state = custodian.chains.state(number)
                _, message_id, kept = custodian.chains.take(
                    number, self._subject, message, keys=keys, entry=index, rank=rank
                )
                if not kept:
                    known = custodian.chains.known(number, message_id)
                    assert known is not None
                    logged.append(_Logged(known))
                    continue
                salt = custodian.rand(32)
                body = custodian.body(
                    batch,
                    index,
                    state,
                    kind="keep",
                    decision="accept",
                    reason="consent",
                    envelopes=[message.envelope],
                    subject=self._subject,
                    details=None if self._via is None else {"via": self._via},
                )
                plan.entries.append(("keep", salt, body, number))
                plan.rows += kept
                logged.append(_Logged(index, salt, body))
        except Error:
            custodian.chains.undo(number, before, len(plan.entries))
            raise
        after = custodian.chains.state(number)
        plan.answer = _Events(logged, after.seq, after.head)
        return plan
