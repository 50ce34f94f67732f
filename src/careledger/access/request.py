"""Access requests and approvals: what a reader signs, and what a custodian checks before it decides.

Checking proves who asks, that the request is fresh, and what stands behind it (affiliation, approvals). It doesn't
decide: a proven request that is refused is logged like one that is allowed. Whether the message is new is for the
store of requests seen. Spec: docs/spec/access.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from careledger.errors import Error, MalformedError, VerificationError
from careledger.identity import Affiliation, check_affiliation
from careledger.seal import Envelope, Payload, SigningKey, VerifyKey, canonical, dsse

__all__ = [
    "FRESH_MS",
    "RECORDS_MAX",
    "AccessMessage",
    "AccessRequest",
    "Approval",
    "Basis",
    "CheckedRequest",
    "Head",
    "check_request",
    "check_request_envelope",
    "decode_access_message",
    "encode_access_message",
    "sign_approval",
    "sign_request",
]

FRESH_MS = 120_000
"""How far a request's time may be from the node's, either way (DESIGN 5.4)."""
RECORDS_MAX = 1000
"""Records of one request: their ids alone are 35 kB."""
APPROVALS_MAX = 16
REQUEST_BYTES_MAX = 1 << 17
_SMALL_BYTES_MAX = 1 << 13
"""An affiliation or approval has about 1 kB."""
KEY_BYTES = 1216
"""An X-Wing public key."""

_Hex16: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
_Hex32: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Token: TypeAlias = Annotated[str, Meta(pattern=r"\Acl1[02-9ac-hj-np-z]{46}\Z")]
_Time: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
BasisKind: TypeAlias = Literal["grant", "owner", "managed", "emergency", "warrant"]


class Basis(Payload, frozen=True, kw_only=True):
    """What the reader says it may open on. `grant` is the grant it thinks of; `reason` is an emergency's."""

    kind: BasisKind
    grant: _Hex16 | UnsetType = UNSET
    reason: Annotated[str, Meta(min_length=1, max_length=500)] | UnsetType = UNSET


class Head(Payload, frozen=True, kw_only=True):
    """The newest consent event that the reader knows: number and message id; 0 and zeros when it knows none."""

    seq: Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]
    hash: _Hex32


class AccessRequest(Payload, frozen=True, kw_only=True):
    """A reader's request to open records, or with `list` to be told which there are.

    Exactly one of `records` (distinct) and `list` (true) is present. `affiliation` is the hex message id of the
    affiliation to `for`. `key` is the hex SHA-256 of the fresh X-Wing public key that answers are sealed to.
    """

    TYPE: ClassVar[str] = "application/vnd.careledger.access+json"

    v: Literal[1] = 1
    network: _Hex32
    reader: _Token
    for_: _Token | UnsetType = msgspec.field(name="for", default=UNSET)
    affiliation: _Hex32 | UnsetType = UNSET
    subject: _Token
    records: Annotated[list[_Hex16], Meta(min_length=1, max_length=RECORDS_MAX)] | UnsetType = UNSET
    list_: bool | UnsetType = msgspec.field(name="list", default=UNSET)
    purpose: Annotated[str, Meta(pattern=r"\A[A-Z]{2,16}\Z")]
    basis: Basis
    key: _Hex32
    head: Head
    client: Annotated[str, Meta(min_length=1, max_length=100)]
    time: _Time
    nonce: _Hex16


class Approval(Payload, frozen=True, kw_only=True):
    """One person's agreement to one request about one subject (`request` is the hex message id)."""

    TYPE: ClassVar[str] = "application/vnd.careledger.approval+json"

    v: Literal[1] = 1
    network: _Hex32
    request: _Hex32
    subject: _Token
    approver: _Token
    expires: _Time


class AccessMessage(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """The body of POST /v1/access: MessagePack [request, key, affiliation, approvals, content].

    `request`, `affiliation` and `approvals` are canonical envelopes; `affiliation` is nil when the node has it
    already. `content` is an unsigned hint: this node shall send ciphertext, locks and manifests.
    """

    request: Annotated[bytes, Meta(max_length=REQUEST_BYTES_MAX)]
    key: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    affiliation: Annotated[bytes, Meta(max_length=_SMALL_BYTES_MAX)] | None = None
    approvals: Annotated[list[Annotated[bytes, Meta(max_length=_SMALL_BYTES_MAX)]], Meta(max_length=APPROVALS_MAX)] = []
    content: bool = True


class CheckedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A proven request, in the form in which consent.decide reads it (consent.RequestView).

    `id` is the message id. `affiliation` is the affiliation proven or already known, `affiliated` its organisation
    and end. `envelopes` are what the log entry keeps: the request, then the affiliation and the approvals that count.
    """

    request: AccessRequest
    id: bytes
    reader: str
    for_: str | None
    affiliated: tuple[str, int] | None
    subject: str
    records: tuple[str, ...] | None
    purpose: str
    basis: BasisKind
    grant: str | None
    head: tuple[int, str]
    approvals: tuple[Approval, ...]
    affiliation: Affiliation | None
    envelopes: tuple[bytes, ...]
    key: bytes
    content: bool


_decoder = msgspec.msgpack.Decoder(AccessMessage)
_encoder = msgspec.msgpack.Encoder()


def encode_access_message(message: AccessMessage) -> bytes:
    """The MessagePack form of a message."""
    return _encoder.encode(message)


def decode_access_message(data: bytes) -> AccessMessage:
    """Parse a message. Raises MalformedError `bad-access-message`."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise MalformedError(
            "bad-access-message", f"an access message of {len(data)} bytes does not parse; see docs/spec/access.md"
        ) from None


def sign_request(request: AccessRequest, signer: tuple[str, SigningKey]) -> tuple[bytes, bytes]:
    """The canonical envelope of a request, and its message id, which approvals name."""
    payload = canonical.encode(request)
    envelope = dsse.sign(AccessRequest.TYPE, payload, [signer])
    return canonical.encode(envelope), dsse.message_id(AccessRequest.TYPE, payload)


def sign_approval(
    *, network: str, request: bytes, subject: str, approver: str, expires: int, signer: tuple[str, SigningKey]
) -> bytes:
    """The canonical envelope of an approval of the request with this message id."""
    approval = Approval(network=network, request=request.hex(), subject=subject, approver=approver, expires=expires)
    return canonical.encode(dsse.sign(Approval.TYPE, canonical.encode(approval), [signer]))


def check_request(
    message: AccessMessage,
    *,
    keys: Mapping[str, VerifyKey],
    network: str,
    now_ms: int,
    affiliations: Mapping[str, Affiliation],
) -> CheckedRequest:
    """Prove a message as it arrives.

    `keys` has by keyid the current keys of reader, organisation and approvers; `affiliations` by hex message id what
    this node has already checked and logged. Steps: 1. signature by the reader's key on the exact bytes; 2. canonical,
    network, fields that fit together; 3. within FRESH_MS of `now_ms`; 4. `key` is the one signed for; 5. the
    affiliation is that of reader and organisation; 6. approvals that name this request. An affiliation or approval
    that doesn't hold is left out, so that the decision (not-affiliated, not-enough-approvals) is logged.
    Left to the caller: whether the message is new, and the decision.
    Raises MalformedError; VerificationError `wrong-network`, `wrong-signer`, `wrong-key`, `stale-request` (details:
    the node's time) and dsse.verify's codes.
    """
    request, message_id = check_request_envelope(message.request, keys=keys, network=network, now_ms=now_ms)
    if hashlib.sha256(message.key).hexdigest() != request.key:
        raise VerificationError("wrong-key", "the key to seal the answer to is not the one the reader signed for")
    return with_backing(request, message_id, message, keys=keys, now_ms=now_ms, affiliations=affiliations)


def check_request_envelope(
    data: bytes, *, keys: Mapping[str, VerifyKey], network: str, now_ms: int
) -> tuple[AccessRequest, bytes]:
    """Steps 1 to 3 of `check_request`: the request and its message id."""
    envelope = canonical.decode(data, Envelope, size_max=REQUEST_BYTES_MAX)
    payload = dsse.verify(envelope, payload_type=AccessRequest.TYPE, keys=keys)
    request = canonical.decode(payload, AccessRequest, size_max=REQUEST_BYTES_MAX)
    if request.network != network:
        raise VerificationError("wrong-network", f"the request is for network {request.network[:16]}, not this one")
    if _signer(envelope) != request.reader:
        raise VerificationError("wrong-signer", "the request is not signed by its reader, and by the reader alone")
    if (request.records is UNSET) == (request.list_ is not True) or request.list_ is False:
        raise MalformedError("bad-field", "a request names records or asks for a list, one of the two")
    if request.records is not UNSET and len(set(request.records)) != len(request.records):
        raise MalformedError("bad-field", "a request names a record twice")
    if request.affiliation is not UNSET and request.for_ is UNSET:
        raise MalformedError("bad-field", "a request names an affiliation, but not for which organisation it acts")
    if abs(now_ms - request.time) > FRESH_MS:
        raise VerificationError(
            "stale-request",
            f"the request's time is {abs(now_ms - request.time) // 1000} s off; set the clock and sign again",
            details={"time": now_ms},
        )
    return request, dsse.message_id(AccessRequest.TYPE, payload)


def with_backing(
    request: AccessRequest,
    message_id: bytes,
    message: AccessMessage,
    *,
    keys: Mapping[str, VerifyKey],
    now_ms: int,
    affiliations: Mapping[str, Affiliation],
) -> CheckedRequest:
    envelopes = [message.request]
    affiliation = None
    if request.for_ is not UNSET and request.affiliation is not UNSET:
        affiliation = affiliations.get(request.affiliation)
        if affiliation is None and message.affiliation is not None:
            affiliation = _new_affiliation(request, message.affiliation, keys=keys, now_ms=now_ms)
            if affiliation is not None:
                envelopes.append(message.affiliation)
        elif affiliation is not None and not _fits(affiliation, request, now_ms):
            affiliation = None
    approvals: list[Approval] = []
    for data in message.approvals:
        approval = _approval(data, request, message_id, keys)
        if approval is not None:
            approvals.append(approval)
            envelopes.append(data)
    return CheckedRequest(
        request=request,
        id=message_id,
        reader=request.reader,
        for_=None if request.for_ is UNSET else request.for_,
        affiliated=None if affiliation is None else (affiliation.organisation, affiliation.until),
        subject=request.subject,
        records=None if request.records is UNSET else tuple(request.records),
        purpose=request.purpose,
        basis=request.basis.kind,
        grant=None if request.basis.grant is UNSET else request.basis.grant,
        head=(request.head.seq, request.head.hash),
        approvals=tuple(approvals),
        affiliation=affiliation,
        envelopes=tuple(envelopes),
        key=message.key,
        content=message.content,
    )


def _signer(envelope: Envelope) -> str | None:
    """The token of the only signer, or None when there are several."""
    if len(envelope.signatures) != 1:
        return None
    return envelope.signatures[0].keyid.partition("#")[0]


def _fits(affiliation: Affiliation, request: AccessRequest, now_ms: int) -> bool:
    """Whether an affiliation that was proven before is this reader's, for this organisation, and not over."""
    return (
        affiliation.person == request.reader and affiliation.organisation == request.for_ and affiliation.until > now_ms
    )


def _new_affiliation(
    request: AccessRequest, data: bytes, *, keys: Mapping[str, VerifyKey], now_ms: int
) -> Affiliation | None:
    envelope = canonical.decode(data, Envelope, size_max=_SMALL_BYTES_MAX)
    if request.for_ is UNSET or dsse.envelope_message_id(envelope).hex() != request.affiliation:
        return None
    try:
        return check_affiliation(
            envelope,
            keys=keys,
            network=request.network,
            person=request.reader,
            organisation=request.for_,
            now_ms=now_ms,
        )
    except Error:
        return None


def _approval(data: bytes, request: AccessRequest, message_id: bytes, keys: Mapping[str, VerifyKey]) -> Approval | None:
    envelope = canonical.decode(data, Envelope, size_max=_SMALL_BYTES_MAX)
    try:
        payload = dsse.verify(envelope, payload_type=Approval.TYPE, keys=keys)
        approval = canonical.decode(payload, Approval, size_max=_SMALL_BYTES_MAX)
    except Error:
        return None
    holds = (
        approval.network == request.network
        and approval.request == message_id.hex()
        and approval.subject == request.subject
        and approval.approver == _signer(envelope)
    )
    return approval if holds else None


def backing_of(envelopes: Sequence[bytes]) -> tuple[bytes | None, list[bytes]]:
    """Split a log entry's envelopes after the request into affiliation (or None) and approvals."""
    rest = list(envelopes[1:])
    if rest and canonical.decode(rest[0], Envelope, size_max=_SMALL_BYTES_MAX).payloadType == Affiliation.TYPE:
        return rest[0], rest[1:]
    return None, rest
