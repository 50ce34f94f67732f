"""Builders: make identities and sign their operations. The one place where secrets of an identity come into being.

Everything random comes from `rand`; nothing is kept here. What the builders sign is checked by the same rules on every
node, so a mistake here can only make an operation that is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import msgspec

from careledger.errors import VerificationError
from careledger.identity.document import Document, default_threshold, document_hash, encode_document
from careledger.identity.keybox import DeviceSecrets, KeyBox, create_key_box, device_secrets, kit_way
from careledger.identity.managed import split_account_key
from careledger.identity.operations import Claim, Deactivate, IdentityState, Inception, Rotate, Update, next_hash
from careledger.identity.root import find_next_key, root_signing_key
from careledger.identity.token import Token, token_of
from careledger.seal import Envelope, Key, SealingKey, Signature, SigningKey, decode, encode, keyid, sign, unb64

__all__ = [
    "IdentitySecrets",
    "NewIdentity",
    "NewManaged",
    "Rotation",
    "build_deactivate",
    "build_rotate",
    "build_update",
    "countersign_claim",
    "new_managed_person",
    "new_organisation",
    "new_person",
    "new_software",
]

Rand = Callable[[int], bytes]


class IdentitySecrets(NamedTuple):
    """The root (for the kit; never stored on the device), the device's seeds, the guardians' policy with its salt,
    and an organisation's reading seed (for its staff key holder, not for a node)."""

    root: bytes
    device: DeviceSecrets
    guardians: bytes
    guardians_salt: bytes
    reading_seed: bytes | None = None

    def __repr__(self) -> str:
        return "IdentitySecrets(…)"


class NewIdentity(NamedTuple):
    """A signed inception, the token it makes, the document it commits to with its salt, and the secrets."""

    envelope: Envelope
    token: Token
    document: bytes
    salt: bytes
    secrets: IdentitySecrets


class NewManaged(NamedTuple):
    """A managed person: the identity, its key box (ways: managed and kit), K_m, the custodians' shares of K_c."""

    identity: NewIdentity
    key_box: KeyBox
    manager_half: bytes
    custodian_shares: list[bytes]


class Rotation(NamedTuple):
    """A signed rotation, the secrets after it, and the new document's bytes and salt."""

    envelope: Envelope
    secrets: IdentitySecrets
    document: bytes
    salt: bytes


def new_person(
    *,
    custodians: Sequence[Token],
    rand: Rand,
    threshold: int | None = None,
    services: Sequence[str] = (),
    manager: Token | None = None,
) -> NewIdentity:
    """A person with these custodians, in share order; t as design section 3 gives it unless said otherwise."""
    document = _document(custodians, threshold, services, manager=manager)
    return _new("person", document, rand)


def new_organisation(
    *, nodes: Sequence[Token], rand: Rand, services: Sequence[str] = (), custodians: Sequence[Token] = ()
) -> NewIdentity:
    """An organisation with its nodes' tokens and a fresh reading key, whose seed is in the secrets."""
    reading_seed = rand(32)
    document = _document(custodians, None, services, nodes=nodes, reading=Key.seal(SealingKey(reading_seed).public))
    made = _new("organisation", document, rand)
    return made._replace(secrets=made.secrets._replace(reading_seed=reading_seed))


def new_software(*, rand: Rand, services: Sequence[str] = ()) -> NewIdentity:
    """A node's (or client's) software identity."""
    return _new("software", _document((), None, services), rand)


def new_managed_person(
    *, custodians: Sequence[Token], manager: Token, rand: Rand, threshold: int | None = None
) -> NewManaged:
    """A patient enrolled by a provider: `identity.secrets` are to be printed (root) and then forgotten by it."""
    identity = new_person(custodians=custodians, threshold=threshold, manager=manager, rand=rand)
    t = threshold if threshold is not None else default_threshold(len(custodians))
    account_key = rand(32)
    halves = split_account_key(
        account_key, token=identity.token, manager=manager, n=len(custodians), threshold=t, rand=rand
    )
    ways = [halves.way, kit_way(identity.secrets.root, token=identity.token, account_key=account_key, rand=rand)]
    box = create_key_box(identity.secrets.device, token=identity.token, account_key=account_key, ways=ways, rand=rand)
    return NewManaged(identity, box, halves.manager_half, halves.custodian_shares)


def build_update(
    *, network: str, token: Token, state: IdentityState, document: Document, device: SigningKey, rand: Rand
) -> tuple[Envelope, bytes, bytes]:
    """A signed update with the new document's bytes and salt."""
    data, salt = encode_document(document), rand(32)
    payload = Update(
        v=1,
        network=network,
        token=token,
        sequence=state.sequence + 1,
        prev=state.head,
        document=document_hash(salt, data),
    )
    return sign(Update.TYPE, encode(payload), [(keyid(token, state.sequence), device)]), data, salt


def build_rotate(
    *,
    network: str,
    token: Token,
    state: IdentityState,
    root: bytes,
    device: DeviceSecrets,
    document: Document,
    rand: Rand,
    new_root: bytes | None = None,
    claim: Token | None = None,
) -> Rotation:
    """A rotation signed by the kit's next key; `device` are the new seeds (see keybox.renewed_secrets).

    With `claim` = the manager's token, the manager must add its signature (countersign_claim) and `new_root` is
    required: the provider printed the old kit and could have kept it.
    Raises NotFoundError `wrong-kit`.
    """
    if claim is not None and new_root is None:
        raise AssertionError("a claim needs a new root: the manager has seen the old one")
    signer = find_next_key(root, committed=state.next, sequence=state.sequence)
    sequence = state.sequence + 1
    following = root if new_root is None else new_root
    data, salt = encode_document(document), rand(32)
    guardians, guardians_salt = _NO_GUARDIANS, rand(32)
    payload = Rotate(
        v=1,
        network=network,
        token=token,
        sequence=sequence,
        prev=state.head,
        signer=Key.sign(signer.public),
        keys=device.keys(),
        next=next_hash(root_signing_key(following, sequence + 1).public),
        document=document_hash(salt, data),
        guardians=_guardians_hash(guardians_salt, guardians),
        claim=msgspec.UNSET if claim is None else Claim(manager=claim),
    )
    envelope = sign(Rotate.TYPE, encode(payload), [(keyid(token, sequence), signer)])
    return Rotation(envelope, IdentitySecrets(following, device, guardians, guardians_salt), data, salt)


def countersign_claim(envelope: Envelope, *, manager: Token, signer: tuple[str, SigningKey]) -> Envelope:
    """The claim with the manager's signature added. Raises VerificationError `bad-claim`: it names another manager."""
    payload = unb64(envelope.payload)
    found = decode(payload, Rotate) if envelope.payloadType == Rotate.TYPE else None
    if found is None or found.claim is msgspec.UNSET or found.claim.manager != manager:
        raise VerificationError("bad-claim", "this is not a claim of an identity that this provider manages")
    added = sign(Rotate.TYPE, payload, [signer]).signatures
    signatures: list[Signature] = sorted([*envelope.signatures, *added], key=lambda item: item.keyid)
    return msgspec.structs.replace(envelope, signatures=signatures)


def build_deactivate(*, network: str, token: Token, state: IdentityState, root: bytes) -> Envelope:
    """The last operation, signed by the kit's next key. Raises NotFoundError `wrong-kit`."""
    signer = find_next_key(root, committed=state.next, sequence=state.sequence)
    sequence = state.sequence + 1
    payload = Deactivate(
        v=1, network=network, token=token, sequence=sequence, prev=state.head, signer=Key.sign(signer.public)
    )
    return sign(Deactivate.TYPE, encode(payload), [(keyid(token, sequence), signer)])


_NO_GUARDIANS = encode({"v": 1, "guardians": []})
"""The policy of a person who named nobody; salted, so that the directory can't tell it from another."""


def _guardians_hash(salt: bytes, policy: bytes) -> str:
    return hashlib.sha256(salt + policy).hexdigest()


def _document(
    custodians: Sequence[Token],
    threshold: int | None,
    services: Sequence[str],
    *,
    nodes: Sequence[Token] = (),
    manager: Token | None = None,
    reading: Key | None = None,
) -> Document:
    return Document(
        v=1,
        custodians=list(custodians),
        threshold=default_threshold(len(custodians)) if threshold is None else threshold,
        services=list(services),
        nodes=list(nodes),
        manager=msgspec.UNSET if manager is None else manager,
        reading_key=msgspec.UNSET if reading is None else reading,
    )


def _new(kind: Literal["person", "organisation", "software"], document: Document, rand: Rand) -> NewIdentity:
    root, device = rand(32), device_secrets(sequence=0, rand=rand)
    salt, guardians_salt, data = rand(32), rand(32), encode_document(document)
    payload = encode(
        Inception(
            v=1,
            kind=kind,
            keys=device.keys(),
            next=next_hash(root_signing_key(root, 1).public),
            document=document_hash(salt, data),
            guardians=_guardians_hash(guardians_salt, _NO_GUARDIANS),
        )
    )
    token = token_of(payload)
    envelope = sign(Inception.TYPE, payload, [(keyid(token, 0), device.signing_key())])
    secrets = IdentitySecrets(root, device, _NO_GUARDIANS, guardians_salt)
    return NewIdentity(envelope, token, data, salt, secrets)
