"""Signed requests that open no record: reading a consent chain, an audit trail, or what a peer has meanwhile kept.

They are proven and fresh like an access request (DESIGN 5.4), but nothing sealed is released for them: events, public
keys and boxes that only their addressees can open, and entries about the asker. What a peer gets by `sync` is logged
by the node that hands it out. Answers are MessagePack arrays.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from careledger.seal import Payload

__all__ = [
    "AuditAnswer",
    "AuditEntry",
    "ConsentAnswer",
    "DocumentMessage",
    "ReadAudit",
    "ReadConsent",
    "SignedRead",
    "SyncAnswer",
    "SyncItem",
    "SyncRequest",
]

View = Literal["chain", "grants", "keys", "head"]
_TYPE = "application/vnd.careledger.{}+json"


class ReadConsent(Payload, frozen=True, kw_only=True):
    """Ask a custodian for a subject's consent chain, as far as the asker may see it.

    view `chain`: the subject (or its manager): every event from `from_seq` on, with all boxes.
    view `grants`: a grantee, or who is affiliated with a grantee: the grants to it, and every `rekey`, with its boxes.
    view `keys`: a licensed and affiliated author: newest epoch and public key of each compartment, and the inbox.
    view `head`: anyone who may ask for one of the others.
    """

    TYPE: ClassVar[str] = _TYPE.format("consent-read")

    v: Literal[1] = 1
    network: str
    who: str
    subject: str
    view: View
    from_seq: int
    time: int
    nonce: str
    for_: str | msgspec.UnsetType = msgspec.field(name="for", default=msgspec.UNSET)


class ReadAudit(Payload, frozen=True, kw_only=True):
    """Ask a custodian for all access entries about a subject from log index `since` on; `who` = subject or manager."""

    TYPE: ClassVar[str] = _TYPE.format("audit-read")

    v: Literal[1] = 1
    network: str
    who: str
    subject: str
    since: int
    time: int
    nonce: str


class SyncRequest(Payload, frozen=True, kw_only=True):
    """A node asks another what it kept from log index `since` on, of subjects that both are custodians of.

    Without `wanted` the answer names the items, with it (log indexes from such an answer) it holds them. With
    `subject`, only what is kept of that subject (a request carried a newer head than the asker knows).
    """

    TYPE: ClassVar[str] = _TYPE.format("sync")

    v: Literal[1] = 1
    network: str
    node: str
    to: str
    since: int
    time: int
    nonce: str
    subject: str | msgspec.UnsetType = msgspec.UNSET
    wanted: Annotated[list[int], msgspec.Meta(min_length=1, max_length=400)] | msgspec.UnsetType = msgspec.UNSET


class SignedRead(msgspec.Struct, frozen=True, array_like=True):
    """The body of POST /v1/consent/read, /v1/audit, /v1/sync: a DSSE envelope (canonical JSON bytes) and, where the
    asker speaks for an organisation, its affiliation (likewise)."""

    request: bytes
    affiliation: bytes | None = None


class ConsentAnswer(msgspec.Struct, frozen=True, array_like=True):
    """Events as [envelope, boxes], head as (number, message id in hex), keys as (compartment, epoch, raw key)."""

    seq: int
    head: str
    events: list[tuple[bytes, list[bytes]]]
    keys: list[tuple[str, int, bytes]]
    inbox: str | None


class AuditEntry(msgspec.Struct, frozen=True, array_like=True):
    """One access entry about the subject, with its inclusion proof in the tree of the answer's checkpoint."""

    index: int
    salt: bytes
    body: bytes
    proof: list[bytes]


class AuditAnswer(msgspec.Struct, frozen=True, array_like=True):
    """`checkpoint` is the published note, cosignatures included; `more` says to ask again from the last index + 1."""

    checkpoint: bytes
    entries: list[AuditEntry]
    more: bool


class DocumentMessage(msgspec.Struct, frozen=True, array_like=True):
    """The body of POST /v1/document and the answer of GET /v1/document/{token}: a document whose salted hash the
    directory holds, and (towards custodians) the key box's ciphertext and, for a managed identity, this custodian's
    share of K_c sealed to it. A managed access of kind list releases that share, under an empty record id."""

    token: str
    salt: bytes
    document: bytes
    key_box: bytes | None = None
    managed: bytes | None = None


class SyncItem(msgspec.Struct, frozen=True, array_like=True):
    """kind `document` (DocumentMessage), `consent` (EventMessage) or `submission` (Submission), in MessagePack.

    `name` tells an item without showing it: a document's salt, an event's message id, an
    author's token, a slash and the submission's id in hex. `message` is empty unless the item was wanted.
    """

    index: int
    kind: str
    name: bytes
    message: bytes


class SyncAnswer(msgspec.Struct, frozen=True, array_like=True):
    """`next` is the index to go on from; `size` the answering log's size: equal when there is nothing more."""

    items: list[SyncItem]
    next: int
    size: int
