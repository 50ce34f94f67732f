"""Answers that open no record: consent chains, audit trails, documents of others. Signed and fresh, but not logged,
since nothing sealed is released for them (DESIGN 5.4)."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from careledger.access import (
    FRESH_MS,
    AuditAnswer,
    AuditEntry,
    ConsentAnswer,
    ReadAudit,
    ReadConsent,
    SignedRead,
)
from careledger.consent import (
    Compartments,
    ConsentEvent,
    ConsentState,
    EventMessage,
    File,
    Grant,
    Rekey,
    Revoke,
    decode_event,
    named_boxes,
)
from careledger.custody.custodian import Custodian
from careledger.errors import NotPermittedError, VerificationError
from careledger.identity import check_affiliation
from careledger.seal import Envelope, Payload, decode, unb64, verify

__all__ = ["Reading", "check_signed_read"]

_ENVELOPE_BYTES_MAX = 16 << 10
AUDIT_ENTRIES_MAX = 500


_Read = TypeVar("_Read", bound=Payload)


def check_signed_read(custodian: Custodian, data: bytes, kind: type[_Read], *, payload_type: str, who: str) -> _Read:
    """Prove a signed read: signature by the identity that its field `who` names, this network, fresh, and new: its
    answer is not sealed to the asker, so whoever got hold of the request must not have it answered once more.

    Raises VerificationError `wrong-network`, `wrong-signer`, `stale-request` (details: the node's time), dsse.verify's;
    ConflictError `replayed`.
    """
    envelope = decode(data, Envelope, size_max=_ENVELOPE_BYTES_MAX)
    payload = verify(envelope, payload_type=payload_type, keys=custodian.keyring.everybody)
    read = decode(payload, kind, size_max=_ENVELOPE_BYTES_MAX)
    fields = msgspec.structs.asdict(read)
    if fields["network"] != custodian.network:
        raise VerificationError("wrong-network", "the request is for another network than this node's")
    signers = {signature.keyid.partition("#")[0] for signature in envelope.signatures}
    if signers != {fields[who]}:
        raise VerificationError("wrong-signer", "the request is not signed by who it says is asking")
    now = custodian.now_ms()
    if abs(now - fields["time"]) > FRESH_MS:
        raise VerificationError(
            "stale-request",
            f"the request's time is {abs(now - fields['time']) // 1000} s off; set the clock and sign again",
            details={"time": now},
        )
    custodian.use_nonce(fields["nonce"], now)
    return read


class Reading:
    """The part of a custodian that shows people what concerns them."""

    def __init__(self, custodian: Custodian) -> None:
        self.custodian = custodian

    def consent(self, signed: SignedRead) -> ConsentAnswer:
        """The part of a chain that the asker may see. Raises NotPermittedError `no-grant` for whoever may see none."""
        read = check_signed_read(self.custodian, signed.request, ReadConsent, payload_type=ReadConsent.TYPE, who="who")
        subject = self.custodian.people.subject(read.subject)
        state = self.custodian.chains.state(subject)
        for_ = self._organisation(read, signed.affiliation)
        owner = read.who == read.subject or self._manages(read.subject, read.who, for_)
        grants = [
            given for given in state.grants.values() if given.terms.grantee in (read.who, for_) and not given.revoked
        ]
        may_write = any("contribute" in given.terms.rights for given in grants)
        licensed = (
            for_ is not None
            and self.custodian.view.member(for_)
            and self.custodian.directory.licensed(read.who, self.custodian.now_ms())
        )
        if (read.view == "chain" and not owner) or not (owner or grants or licensed):
            raise NotPermittedError("no-grant", "no part of that consent chain is for you")
        events: list[tuple[bytes, list[bytes]]] = []
        if subject is not None and read.view == "chain":
            events = [(one.envelope, one.boxes) for one in self._messages(subject, read.from_seq)]
        elif subject is not None and read.view == "grants":
            events = self._for_grantee(subject, read, state, for_)
        keys = self._keys(state, everything=owner or may_write) if read.view == "keys" else []
        if subject is not None and read.view == "keys":
            events = self._key_events(subject, read, {compartment for compartment, _, _ in keys})
        return ConsentAnswer(state.seq, state.head, events, keys, state.inbox or None)

    def _organisation(self, read: ReadConsent, affiliation: bytes | None) -> str | None:
        if read.for_ is msgspec.UNSET or affiliation is None:
            return None
        check_affiliation(
            decode(affiliation, Envelope, size_max=_ENVELOPE_BYTES_MAX),
            keys=self.custodian.keyring.of(read.for_),
            network=self.custodian.network,
            person=read.who,
            organisation=read.for_,
            now_ms=self.custodian.now_ms(),
        )
        return read.for_

    def _manages(self, subject: str, who: str, for_: str | None) -> bool:
        manager = self.custodian.people.manager(subject)
        return manager is not None and manager in (who, for_)

    def _messages(self, subject: int, from_seq: int) -> list[EventMessage]:
        return [message for _, _, message, _ in self.custodian.chains.stored(subject, from_seq=from_seq)]

    @staticmethod
    def _keys(state: ConsentState, *, everything: bool) -> list[tuple[str, int, bytes]]:
        """Newest public keys: of every compartment for who may write there, else of the inbox alone."""
        return [
            (compartment, epoch, unb64(key))
            for compartment, (epoch, key) in state.compartments.items()
            if everything or compartment == state.inbox
        ]

    def _key_events(self, subject: int, read: ReadConsent, shown: set[str]) -> list[tuple[bytes, list[bytes]]]:
        """The subject's own signed words for the keys shown: an author seals to nothing that only a custodian says."""
        return [
            (message.envelope, [])
            for message in self._messages(subject, read.from_seq)
            if isinstance(event := _event_of(message), Compartments | Rekey)
            and any(slot.compartment in shown for slot in event.slots)
        ]

    def _for_grantee(
        self, subject: int, read: ReadConsent, state: ConsentState, for_: str | None
    ) -> list[tuple[bytes, list[bytes]]]:
        """The grants to the asker, every rekey and filing, each with only the boxes that are for the asker."""
        mine = {read.who, for_}
        own_grants = {grant for grant, given in state.grants.items() if given.terms.grantee in mine}
        shown: list[tuple[bytes, list[bytes]]] = []
        for message in self._messages(subject, read.from_seq):
            event = _event_of(message)
            match event:
                case Grant() if event.grantee in mine:
                    shown.append((message.envelope, message.boxes))
                case Revoke() if event.grant in own_grants:
                    shown.append((message.envelope, []))
                case Rekey():
                    wanted = {box.hash for box in event.boxes if box.to.partition("#")[0] in mine}
                    boxes = [box for name, box in zip(named_boxes(event), message.boxes, strict=True) if name in wanted]
                    # Without a box too: its `prev` leads to the seeds of epochs from before the grant.
                    if boxes or own_grants:
                        shown.append((message.envelope, boxes))
                case File() | Compartments() if own_grants:
                    shown.append((message.envelope, []))
                case _:
                    pass
        return shown

    async def audit(self, signed: SignedRead) -> AuditAnswer:
        """The access entries about a subject, for itself or its manager, as far as the log is published.

        Raises NotPermittedError `no-grant`.
        """
        custodian = self.custodian
        read = check_signed_read(custodian, signed.request, ReadAudit, payload_type=ReadAudit.TYPE, who="who")
        if read.who != read.subject and not self._manages(read.subject, read.who, None):
            raise NotPermittedError("no-grant", "an audit trail is shown to the subject alone")
        subject = custodian.people.subject(read.subject)
        await custodian.published_up_to(custodian.writer.frontier.size)
        size, checkpoint = custodian.published
        if subject is None or not size:
            return AuditAnswer(checkpoint, [], False)
        rows = custodian.store.reading.execute(
            "SELECT idx, salt, body FROM entries WHERE subject = ? AND kind = 1 AND idx >= ? AND idx < ? "
            "ORDER BY idx LIMIT ?",
            (subject, read.since, size, AUDIT_ENTRIES_MAX + 1),
        ).fetchall()
        reader = custodian.files.reader()
        entries = [
            AuditEntry(index, salt, body, reader.inclusion_proof(index, size))
            for index, salt, body in rows[:AUDIT_ENTRIES_MAX]
        ]
        return AuditAnswer(checkpoint, entries, len(rows) > AUDIT_ENTRIES_MAX)


def _event_of(message: EventMessage) -> ConsentEvent:
    envelope = decode(message.envelope, Envelope, size_max=1 << 20)
    return decode_event(unb64(envelope.payload))
