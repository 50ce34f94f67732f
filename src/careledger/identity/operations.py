"""Operations: the signed, hash-linked steps of an identity, and the one pure rule that applies them.

inception → update* / rotate* → deactivate. An update is signed by the device key and changes the document only;
a rotation and the deactivation are signed by the *next* key, to which the operation before committed and which is not
on the device: whoever steals a device can't take an identity over. The directory stores `IdentityState`, from which
nothing can be read but hashes; the keys themselves are in the operations.

Source: design 5.1; pre-commitment to the next key as in KERI and did:plc, which explain it well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, ClassVar, Final, Literal, NamedTuple

import msgspec

from careledger.errors import ConflictError, MalformedError, NotFoundError, NotPermittedError, VerificationError
from careledger.identity.fields import ZERO_HASH, Hash, Milliseconds, TokenText, Version
from careledger.identity.fields import Sequence as SequenceNumber
from careledger.identity.token import Token, token_of
from careledger.seal import (
    ALG_SEAL,
    ALG_SIGN,
    Envelope,
    Key,
    Payload,
    VerifyKey,
    decode,
    encode,
    keyid,
    message_id,
    unb64,
    verify,
)

__all__ = [
    "OPERATION_TYPES",
    "Applied",
    "Claim",
    "Deactivate",
    "IdentityState",
    "Inception",
    "Operation",
    "ParsedOperation",
    "Rotate",
    "Update",
    "apply_operation",
    "apply_parsed",
    "check_keys",
    "keys_current",
    "keys_hash",
    "next_hash",
    "parse_operation",
    "verify_key",
]

_SEALING_PUBLIC_BYTES = 1216
OPERATION_BYTES_MAX = 8192
"""A rotation has two kilobytes; four times that leaves room for an ML-DSA-65 key beside the Ed25519 one."""

Kind = Literal["person", "organisation", "software"]
Keys = Annotated[list[Key], msgspec.Meta(min_length=2, max_length=2)]


class Inception(Payload, frozen=True, kw_only=True):
    """The first operation; it names no network and not its own token. Signed by keys[0] as `<token>#0`."""

    v: Version
    kind: Kind
    keys: Keys
    next: Hash
    document: Hash
    guardians: Hash

    TYPE: ClassVar[str] = "application/vnd.careledger.inception+json"


class Update(Payload, frozen=True, kw_only=True):
    """A new document, signed by the device key now in force, under keyid `token#<sequence−1>`."""

    v: Version
    network: Hash
    token: TokenText
    sequence: SequenceNumber
    prev: Hash
    document: Hash

    TYPE: ClassVar[str] = "application/vnd.careledger.update+json"


class Claim(Payload, frozen=True, kw_only=True):
    """In a rotation: the provider that managed the identity until now, and that signs this too."""

    manager: TokenText


class Rotate(Payload, frozen=True, kw_only=True):
    """New keys, signed by the revealed `signer`, whose hash is the `next` before, under keyid `token#<sequence>`."""

    v: Version
    network: Hash
    token: TokenText
    sequence: SequenceNumber
    prev: Hash
    signer: Key
    keys: Keys
    next: Hash
    document: Hash
    guardians: Hash
    claim: Claim | msgspec.UnsetType = msgspec.UNSET

    TYPE: ClassVar[str] = "application/vnd.careledger.rotate+json"


class Deactivate(Payload, frozen=True, kw_only=True):
    """The end: a tombstone stays, nothing can follow. Signed as a rotation is."""

    v: Version
    network: Hash
    token: TokenText
    sequence: SequenceNumber
    prev: Hash
    signer: Key

    TYPE: ClassVar[str] = "application/vnd.careledger.deactivate+json"


Operation = Inception | Update | Rotate | Deactivate

OPERATION_TYPES: Final[dict[str, type[Operation]]] = {
    kind.TYPE: kind for kind in (Inception, Update, Rotate, Deactivate)
}


class IdentityState(Payload, frozen=True, kw_only=True):
    """What the directory holds of an identity. `effective_at` is the block time of the last operation, `head` its
    message id, `keys_hash` = SHA-256(canonical JSON of the key list). All hashes are zeros in a tombstone but `head`.
    """

    v: Version
    kind: Kind
    sequence: SequenceNumber
    keys_hash: Hash
    next: Hash
    document: Hash
    guardians: Hash
    status: Literal["active", "deactivated"]
    effective_at: Milliseconds
    head: Hash

    TYPE: ClassVar[str] = "application/vnd.careledger.identity-state+json"


class ParsedOperation(NamedTuple):
    """An operation that has its form, with nothing proven yet; `token` is whose it claims to be."""

    token: Token
    operation: Operation
    head: str
    envelope: Envelope


class Applied(NamedTuple):
    """What an operation made of an identity; `keys` are those in force after it, none in a tombstone."""

    token: Token
    state: IdentityState
    keys: tuple[Key, ...]


def keys_hash(keys: Sequence[Key]) -> str:
    """Hex SHA-256 of the canonical JSON of a key list."""
    return hashlib.sha256(encode(list(keys))).hexdigest()


def next_hash(public: bytes) -> str:
    """Hex SHA-256 of a raw signing public key: the pre-commitment `next`."""
    return hashlib.sha256(public).hexdigest()


def _signing_key(key: Key) -> VerifyKey:
    if key.alg != ALG_SIGN:
        raise MalformedError("bad-key", f"an {ALG_SIGN} key is needed here; the key list names another algorithm")
    return VerifyKey(unb64(key.pub, size=32))


@lru_cache(maxsize=4096)
def verify_key(key: Key) -> VerifyKey:
    """The strictly parsed Ed25519 key of a key item; remembered, since nodes and members sign again and again.

    Raises MalformedError `bad-key`, `bad-base64`.
    """
    return _signing_key(key)


def check_keys(keys: Sequence[Key]) -> VerifyKey:
    """The signing key of a well-formed list: exactly one Ed25519 key first, then one X-Wing key.

    Of the X-Wing key only the size is checked here: what it holds is checked by whoever seals to it, so that no
    library's opinion of ML-KEM keys decides what every replica must agree on (docs/decisions/0020).
    Raises MalformedError `bad-key`, `bad-base64`.
    """
    if [key.alg for key in keys] != [ALG_SIGN, ALG_SEAL]:
        raise MalformedError("bad-key", f"an identity has one {ALG_SIGN} key, then one {ALG_SEAL} key")
    unb64(keys[1].pub, size=_SEALING_PUBLIC_BYTES)
    return _signing_key(keys[0])


def keys_current(state: IdentityState, keys: Sequence[Key]) -> bool:
    """Whether a key list of any sequence is still the one in force: its hash is the state's, and no tombstone."""
    return state.status == "active" and keys_hash(keys) == state.keys_hash


def parse_operation(envelope: Envelope) -> ParsedOperation:
    """Decode an operation strictly; nothing about it is proven yet.

    Raises MalformedError (those of seal.decode, `bad-base64`) and VerificationError `wrong-type`.
    """
    kind = OPERATION_TYPES.get(envelope.payloadType)
    if kind is None:
        raise VerificationError("wrong-type", "the envelope holds no operation of an identity")
    payload = unb64(envelope.payload)
    operation: Operation = decode(payload, kind, size_max=OPERATION_BYTES_MAX)
    token = token_of(payload) if isinstance(operation, Inception) else operation.token
    return ParsedOperation(token, operation, message_id(envelope.payloadType, payload).hex(), envelope)


def apply_operation(
    state: IdentityState | None,
    envelope: Envelope,
    *,
    network: str,
    now_ms: int,
    keys: Sequence[Key] = (),
    manager_keys: Mapping[str, VerifyKey] | None = None,
) -> Applied:
    """Apply one operation to the state before it (None: the identity is not known yet).

    `keys` is the list now in force, needed for an update; `manager_keys` maps keyid to key for the manager that a
    claim names. `now_ms` is the block's time. Pure: the same arguments give the same result on every node.
    Raises ConflictError `exists`, `bad-sequence`; NotFoundError `unknown-identity`; NotPermittedError `deactivated`;
    VerificationError `wrong-network`, `bad-prev`, `bad-next`, `not-the-manager`, `unknown-key`, `bad-signature`, …;
    MalformedError as parse_operation and check_keys.
    """
    parsed = parse_operation(envelope)
    return apply_parsed(state, parsed, network=network, now_ms=now_ms, keys=keys, manager_keys=manager_keys)


def apply_parsed(
    state: IdentityState | None,
    parsed: ParsedOperation,
    *,
    network: str,
    now_ms: int,
    keys: Sequence[Key] = (),
    manager_keys: Mapping[str, VerifyKey] | None = None,
) -> Applied:
    """As apply_operation, for an operation that parse_operation decoded already."""
    operation = parsed.operation
    if isinstance(operation, Inception):
        return _begin(state, parsed, operation, now_ms)
    if state is None:
        raise NotFoundError("unknown-identity", f"the directory knows no identity {parsed.token}: enrol it first")
    _check_link(state, operation, network)
    if isinstance(operation, Update):
        return _update(state, parsed, operation, keys, now_ms)
    _check_signer(state, operation.signer)
    if isinstance(operation, Deactivate):
        return _deactivate(state, parsed, operation, now_ms)
    return _rotate(state, parsed, operation, manager_keys, now_ms)


def _begin(state: IdentityState | None, parsed: ParsedOperation, operation: Inception, now_ms: int) -> Applied:
    if state is not None:
        raise ConflictError("exists", f"the identity {parsed.token} is already in the directory")
    key = check_keys(operation.keys)
    _check_next(operation.next, operation.keys)
    _check_signatures(parsed.envelope, {keyid(parsed.token, 0): key})
    after = IdentityState(
        v=1,
        kind=operation.kind,
        sequence=0,
        keys_hash=keys_hash(operation.keys),
        next=operation.next,
        document=operation.document,
        guardians=operation.guardians,
        status="active",
        effective_at=now_ms,
        head=parsed.head,
    )
    return Applied(parsed.token, after, tuple(operation.keys))


def _update(
    state: IdentityState, parsed: ParsedOperation, operation: Update, keys: Sequence[Key], now_ms: int
) -> Applied:
    if keys_hash(keys) != state.keys_hash:
        raise AssertionError("an update is applied with the key list in force")
    _check_signatures(parsed.envelope, {keyid(parsed.token, state.sequence): _signing_key(keys[0])})
    after = msgspec.structs.replace(
        state, sequence=operation.sequence, document=operation.document, effective_at=now_ms, head=parsed.head
    )
    return Applied(parsed.token, after, tuple(keys))


def _rotate(
    state: IdentityState,
    parsed: ParsedOperation,
    operation: Rotate,
    manager_keys: Mapping[str, VerifyKey] | None,
    now_ms: int,
) -> Applied:
    check_keys(operation.keys)
    if operation.next == state.next:
        raise VerificationError("bad-next", "a rotation must commit to a fresh next key, not to the one it reveals")
    _check_next(operation.next, operation.keys)
    signers = {keyid(parsed.token, operation.sequence): _signing_key(operation.signer)}
    if operation.claim is not msgspec.UNSET:
        if not manager_keys or any(not name.startswith(operation.claim.manager + "#") for name in manager_keys):
            raise VerificationError("not-the-manager", "the claim names a manager that is no active identity")
        signers |= _manager_signer(parsed.envelope, manager_keys)
    _check_signatures(parsed.envelope, signers)
    after = IdentityState(
        v=1,
        kind=state.kind,
        sequence=operation.sequence,
        keys_hash=keys_hash(operation.keys),
        next=operation.next,
        document=operation.document,
        guardians=operation.guardians,
        status="active",
        effective_at=now_ms,
        head=parsed.head,
    )
    return Applied(parsed.token, after, tuple(operation.keys))


def _deactivate(state: IdentityState, parsed: ParsedOperation, operation: Deactivate, now_ms: int) -> Applied:
    _check_signatures(parsed.envelope, {keyid(parsed.token, operation.sequence): _signing_key(operation.signer)})
    after = IdentityState(
        v=1,
        kind=state.kind,
        sequence=operation.sequence,
        keys_hash=ZERO_HASH,
        next=ZERO_HASH,
        document=ZERO_HASH,
        guardians=ZERO_HASH,
        status="deactivated",
        effective_at=now_ms,
        head=parsed.head,
    )
    return Applied(parsed.token, after, ())


def _check_link(state: IdentityState, operation: Update | Rotate | Deactivate, network: str) -> None:
    if operation.network != network:
        raise VerificationError("wrong-network", "the operation was signed for another network")
    if state.status != "active":
        raise NotPermittedError("deactivated", "the identity was deactivated; nothing can follow")
    if operation.sequence != state.sequence + 1:
        raise ConflictError(
            "bad-sequence",
            f"operation {operation.sequence} can't follow operation {state.sequence}: sign again on the newest state",
            details={"sequence": state.sequence},
        )
    if operation.prev != state.head:
        raise VerificationError(
            "bad-prev", "the operation does not follow the last one: sign again on the newest state"
        )


def _check_signer(state: IdentityState, signer: Key) -> None:
    if signer.alg != ALG_SIGN or next_hash(unb64(signer.pub, size=32)) != state.next:
        raise VerificationError(
            "bad-next", "the operation reveals another key than the one committed to before: use the recovery kit's"
        )


def _check_next(following: str, keys: Sequence[Key]) -> None:
    """A next key that lies on the device would give the device's thief the identity."""
    if following == next_hash(unb64(keys[0].pub, size=32)):
        raise VerificationError("bad-next", "the next key must not be the device's own signing key")


def _manager_signer(envelope: Envelope, manager_keys: Mapping[str, VerifyKey]) -> dict[str, VerifyKey]:
    """The one of the manager's keyids that signed; the others name the same keys under other sequences."""
    signed = {signature.keyid for signature in envelope.signatures}
    found = {name: key for name, key in manager_keys.items() if name in signed}
    if len(found) != 1:
        raise VerificationError("not-the-manager", "a claim needs exactly one signature by the manager's current key")
    return found


def _check_signatures(envelope: Envelope, signers: Mapping[str, VerifyKey]) -> None:
    """Exactly these signers, all of them valid: an extra or missing one is refused."""
    verify(envelope, payload_type=envelope.payloadType, keys=signers)
    if len(envelope.signatures) != len(signers):
        raise VerificationError("no-signature", f"the operation needs {len(signers)} signatures; sign it again")
