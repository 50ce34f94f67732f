"""Consent events: the only way anything about who may read or write a subject's records changes.

Each event is a DSSE payload, numbered from 1 and linked to the message before it. Boxes (parts sealed to the subject
or to a grantee) travel beside the envelope and are named in the event by their SHA-256, so a custodian can check
that a box belongs to the event without opening it. Spec: docs/spec/consent.md. What the events mean together is
state.py's business; who may sign for the subject is the caller's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from careledger.errors import MalformedError, VerificationError
from careledger.seal import Envelope, Payload, VerifyKey, canonical, dsse

__all__ = [
    "CONSENT_TYPE",
    "NO_HEAD",
    "SLOTS",
    "Box",
    "Compartments",
    "ConsentEvent",
    "EventMessage",
    "File",
    "Grant",
    "Hex16",
    "Hex32",
    "Joint",
    "KeyId",
    "Merge",
    "Purpose",
    "Range",
    "Rekey",
    "RekeyedSlot",
    "Revoke",
    "Right",
    "Role",
    "Slot",
    "TokenText",
    "box_hash",
    "decode_event",
    "decode_event_message",
    "encode_event_message",
    "named_boxes",
    "read_event",
    "read_event_view",
]

CONSENT_TYPE = "application/vnd.careledger.consent+json"
NO_HEAD = "00" * 32
"""The `prev` of event 1 and the head of a subject that has no consent yet (DESIGN 5.3)."""
SLOTS = 16
"""Compartments of a subject: always this many, so that their number tells nothing."""

RECORDS_MAX = 1000
"""Record ids of one grant; a larger choice is what compartments are for."""
BOXES_MAX = 256
"""Recipients of one rekey: as many as grantees that can remain."""
EVENT_BYTES_MAX = 1 << 18
"""16 slots with X-Wing keys are 27 kB, 256 rekey boxes 40 kB of hashes; four times that is ample."""
BOX_BYTES_MAX = 1 << 17
"""1000 records' consent keys are about 70 kB."""

Hex16: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
Hex32: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
TokenText: TypeAlias = Annotated[str, Meta(pattern=r"\Acl1[02-9ac-hj-np-z]{46}\Z")]
"""A token's shape; its checksum is identity's to check where the token comes from a person."""
KeyId: TypeAlias = Annotated[str, Meta(pattern=r"\Acl1[02-9ac-hj-np-z]{46}#(0|[1-9][0-9]{0,9})\Z")]
Time: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
Count: TypeAlias = Annotated[int, Meta(ge=1, le=(1 << 32) - 1)]
PublicKeyText: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1622}\Z")]
"""An X-Wing public key: 1216 bytes in unpadded base64url."""
Purpose: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Z]{2,16}\Z")]
"""A code of HL7 v3 PurposeOfUse, such as TREAT, ETREAT, PATRQT."""
Role: TypeAlias = Literal["subject", "guardian", "manager"]
Right: TypeAlias = Literal["read", "contribute"]


class Slot(Payload, frozen=True, kw_only=True):
    """One compartment's public key in its first epoch."""

    compartment: Hex16
    epoch: Count
    key: PublicKeyText


class RekeyedSlot(Payload, frozen=True, kw_only=True):
    """A compartment's next epoch; `prev` is the old seed encrypted under KDF(new seed, "prev")."""

    compartment: Hex16
    epoch: Count
    key: PublicKeyText
    prev: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{64}\Z")]


class Box(Payload, frozen=True, kw_only=True):
    """Names one sealed part: for whom it is and its SHA-256."""

    to: KeyId
    hash: Hex32


class Range(Payload, frozen=True, kw_only=True, rename={"from_": "from"}):
    """Only records whose manifest's `recorded` is at or after `from` and before `until`."""

    from_: Time | UnsetType = UNSET
    until: Time | UnsetType = UNSET


class Joint(Payload, frozen=True, kw_only=True):
    """Reading needs the approval of `k` of these people; the reader's own does not count."""

    k: Annotated[int, Meta(ge=1, le=16)]
    tokens: Annotated[list[TokenText], Meta(min_length=1, max_length=16)]


class _Event(Payload, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = CONSENT_TYPE

    v: Literal[1] = 1
    network: Hex32
    subject: TokenText
    seq: Count
    prev: Hex32
    time: Time
    role: Role = "subject"


class Compartments(_Event, frozen=True, kw_only=True, tag_field="type", tag="compartments"):
    """The subject's 16 compartments; `own` names the box with their seeds and category names for the subject."""

    slots: Annotated[list[Slot], Meta(min_length=SLOTS, max_length=SLOTS)]
    inbox: Hex16
    own: Hex32


class Grant(_Event, frozen=True, kw_only=True, tag_field="type", tag="grant"):
    """Allows `grantee` to read, to contribute, or both; `box` names what is sealed to the key `to`.

    Exactly one of `compartments` and `records` is present. `policy` and `text_*` say which policy applies and
    which text the person saw (FHIR Consent.policyRule, Consent.sourceReference).
    """

    grant: Hex16
    grantee: TokenText
    to: KeyId
    rights: Annotated[list[Right], Meta(min_length=1, max_length=2)]
    compartments: Annotated[list[Hex16], Meta(min_length=1, max_length=SLOTS)] | UnsetType = UNSET
    records: Annotated[list[Hex16], Meta(min_length=1, max_length=RECORDS_MAX)] | UnsetType = UNSET
    range: Range | UnsetType = UNSET
    purposes: Annotated[list[Purpose], Meta(min_length=1, max_length=32)]
    expires: Time
    joint: Joint | UnsetType = UNSET
    box: Hex32
    policy: Annotated[str, Meta(max_length=512)]
    text_hash: Hex32
    text_language: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9-]{2,35}\Z")]


class Revoke(_Event, frozen=True, kw_only=True, tag_field="type", tag="revoke"):
    """Ends a grant for good. Signed before the rekey that follows it, so that it takes effect first."""

    grant: Hex16


class Rekey(_Event, frozen=True, kw_only=True, tag_field="type", tag="rekey"):
    """Moves compartments up one epoch and gives the new seeds to whoever may still read."""

    slots: Annotated[list[RekeyedSlot], Meta(min_length=1, max_length=SLOTS)]
    boxes: Annotated[list[Box], Meta(max_length=BOXES_MAX)]
    own: Hex32


class File(_Event, frozen=True, kw_only=True, tag_field="type", tag="file"):
    """Moves a record into a compartment for decisions; `secret` is its K_consent sealed to that compartment's key."""

    record: Hex16
    compartment: Hex16
    epoch: Count
    secret: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1558}\Z")]


class Merge(_Event, frozen=True, kw_only=True, tag_field="type", tag="merge"):
    """Repairs a fork: `prevs` are the two heads in order, `keep` (equal to `prev`) the one whose grants stay."""

    prevs: Annotated[list[Hex32], Meta(min_length=2, max_length=2)]
    keep: Hex32


ConsentEvent: TypeAlias = Compartments | Grant | Revoke | Rekey | File | Merge

_KINDS: dict[str, type[ConsentEvent]] = {
    "compartments": Compartments,
    "grant": Grant,
    "revoke": Revoke,
    "rekey": Rekey,
    "file": File,
    "merge": Merge,
}


class EventMessage(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """MessagePack [envelope, boxes]: the canonical envelope, and the boxes in the order in which the event has them."""

    envelope: Annotated[bytes, Meta(max_length=2 * EVENT_BYTES_MAX)]
    boxes: Annotated[list[Annotated[bytes, Meta(max_length=BOX_BYTES_MAX)]], Meta(max_length=BOXES_MAX + 1)]


class _Tag(msgspec.Struct):
    type: str


_tag_decoder = msgspec.json.Decoder(_Tag)
_message_decoder = msgspec.msgpack.Decoder(EventMessage)
_message_encoder = msgspec.msgpack.Encoder()


def encode_event_message(message: EventMessage) -> bytes:
    """The MessagePack form in which events travel and are stored."""
    return _message_encoder.encode(message)


def decode_event_message(data: bytes) -> EventMessage:
    """Parse `encode_event_message`'s form. Raises MalformedError `bad-event-message`."""
    try:
        return _message_decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise MalformedError(
            "bad-event-message",
            f"a consent event message of {len(data)} bytes does not parse; see docs/spec/consent.md",
        ) from None


def box_hash(box: bytes) -> str:
    """How an event names a box: hex SHA-256 of the sealed bytes."""
    return hashlib.sha256(box).hexdigest()


def decode_event(payload: bytes) -> ConsentEvent:
    """Parse one event's payload strictly.

    Raises MalformedError: `unknown-type` (also for the reserved types emergency, guardians, erase, same-as and
    snapshot), and canonical.decode's codes.
    """
    try:
        tag = _tag_decoder.decode(payload).type
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise MalformedError(
            "not-json", f"a consent event of {len(payload)} bytes does not parse; see docs/spec/consent.md"
        ) from None
    kind = _KINDS.get(tag)
    if kind is None:
        raise MalformedError(
            "unknown-type", f"consent events of type {tag[:32]!r} are not known here; update careledger"
        )
    return canonical.decode(payload, kind, size_max=EVENT_BYTES_MAX)


def named_boxes(event: ConsentEvent) -> list[str]:
    """The hashes of the event's boxes in the order in which they travel: the subject's own first."""
    match event:
        case Compartments():
            return [event.own]
        case Grant():
            return [event.box]
        case Rekey():
            return [event.own, *(box.hash for box in event.boxes)]
        case _:
            return []


def read_event_view(
    message: EventMessage, *, network: str, subject: str, keys: Mapping[str, VerifyKey]
) -> tuple[ConsentEvent, str]:
    """Verify an event of which only some boxes are shown, as grantees get it; return it with its hex message id.

    Checked here: canonical envelope, one signature by one of `keys` (which the caller limits to keys that may sign
    for this subject at that time), type, network, subject, that the signer fits the role, and that every box shown
    is named by the event. Left to the caller: the event's place in the chain (state.fold).
    Raises MalformedError; VerificationError `wrong-network`, `wrong-subject`, `wrong-signer`, `wrong-box` and
    dsse.verify's codes.
    """
    envelope = canonical.decode(message.envelope, Envelope, size_max=2 * EVENT_BYTES_MAX)
    payload = dsse.verify(envelope, payload_type=CONSENT_TYPE, keys=keys)
    event = decode_event(payload)
    if event.network != network:
        raise VerificationError("wrong-network", f"the event is of network {event.network[:16]}, not {network[:16]}")
    if event.subject != subject:
        raise VerificationError("wrong-subject", f"the event is about {event.subject}, not {subject}")
    if len(envelope.signatures) != 1:
        raise VerificationError("wrong-signer", f"a consent event has one signature, not {len(envelope.signatures)}")
    signer = envelope.signatures[0].keyid.partition("#")[0]
    if (signer == subject) != (event.role == "subject"):
        raise VerificationError("wrong-signer", f"{signer} can't sign as the subject's {event.role}")
    named = named_boxes(event)
    shown = [box_hash(box) for box in message.boxes]
    if len(set(shown)) != len(shown) or not set(shown) <= set(named):
        raise VerificationError("wrong-box", f"event {event.seq} comes with a box that it does not name")
    return event, dsse.message_id(CONSENT_TYPE, payload).hex()


def read_event(
    message: EventMessage, *, network: str, subject: str, keys: Mapping[str, VerifyKey]
) -> tuple[ConsentEvent, str]:
    """Like `read_event_view`, but all boxes must be there, in order: what a custodian and the subject accept."""
    event, message_id = read_event_view(message, network=network, subject=subject, keys=keys)
    if [box_hash(box) for box in message.boxes] != named_boxes(event):
        raise VerificationError(
            "wrong-box", f"event {event.seq} must come with all its boxes in the order it names them"
        )
    return event, message_id
