"""Making and changing identities: enrolment, documents, rotation, the end.

Secrets are on disk before the network hears of what they belong to, so a crash never leaves an identity that nobody
holds the keys of. A node that has not applied the newest block yet says so; it is asked again for a few seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from careledger.access import DocumentMessage, Receipt, encode_receipt
from careledger.client.catching_up import until_caught_up
from careledger.client.keys import KeyFolder
from careledger.client.network import Network, Subject, identity_of
from careledger.client.nodes import Node
from careledger.client.patient import Patient, Published
from careledger.client.receipts import checked_keep_receipt
from careledger.client.spread import Spread, consent_marks, spread
from careledger.errors import Error, NotFoundError, NotPermittedError, UnavailableError
from careledger.identity import (
    DeviceSecrets,
    NewIdentity,
    build_deactivate,
    build_rotate,
    encode_key_box,
    kit_code,
    new_organisation,
    new_person,
    parse_kit_code,
    renewed_secrets,
)
from careledger.seal import Envelope, decode, encode

__all__ = [
    "Enrolled",
    "choose_custodians",
    "deactivate",
    "enrol_patient",
    "enrol_person",
    "keep_organisation",
    "make_organisation",
    "publish_document",
    "rotate",
]

CUSTODIANS_DEFAULT: Final = 4
"""n = 4 is the production minimum (DESIGN 3): one custodian may lie, one may be down."""
_ENVELOPE_MAX: Final = 1 << 16


class Enrolled(msgspec.Struct, frozen=True, kw_only=True):
    """A new identity: `kit` is the recovery kit's code, to be printed now and never stored."""

    token: str
    folder: KeyFolder
    kit: str


class _PendingRotation(msgspec.Struct, frozen=True, kw_only=True):
    """What must not be lost between signing a rotation and having new keys in the folder."""

    envelope: bytes
    sequence: int
    sign: bytes
    seal: bytes
    document: bytes
    salt: bytes


def choose_custodians(network: Network, *, n: int | None = None) -> list[str]:
    """Node tokens of `n` distinct members (default: four, or all where there are fewer), chosen at random.

    Raises UnavailableError `not-enough-custodians`.
    """
    by_member: dict[str, Node] = {}
    for node in network.some_nodes():
        by_member.setdefault(node.member, node)
    wanted = min(CUSTODIANS_DEFAULT, len(by_member)) if n is None else n
    if not 0 < wanted <= len(by_member):
        raise UnavailableError(
            "not-enough-custodians", f"{wanted} custodians of distinct members are wanted, there are {len(by_member)}"
        )
    return [node.token for node in by_member.values()][:wanted]


async def enrol_person(network: Network, path: Path, *, passphrase: str) -> Enrolled:
    """Enrol a person who keeps no record here, such as a clinician, into a new folder.

    Raises ConflictError `folder-in-use`; what the directory refuses with; UnavailableError.
    """
    return await _enrol(network, new_person(custodians=(), rand=network.rand), path, passphrase=passphrase)


async def enrol_patient(
    network: Network,
    path: Path,
    *,
    passphrase: str,
    custodians: Sequence[str] | None = None,
    threshold: int | None = None,
) -> tuple[Enrolled, Patient]:
    """Enrol a patient: identity, document to all custodians, the sixteen compartments.

    Raises as `enrol_person`; UnavailableError `not-enough-custodians` unless the document and the compartments are
    known to n−t+1+f custodians.
    """
    chosen = list(custodians) if custodians is not None else choose_custodians(network)
    made = new_person(custodians=chosen, threshold=threshold, rand=network.rand)
    enrolled = await _enrol(network, made, path, passphrase=passphrase)
    with _or_nothing(enrolled.folder):
        subject = await remember_new(network, made)
        await publish_document(network, subject, key_box=encode_key_box(enrolled.folder.box))
        patient = Patient(network, enrolled.folder.keys, state=enrolled.folder)
        must_be_effective(await patient.begin())
    return enrolled, patient


async def _enrol(network: Network, made: NewIdentity, path: Path, *, passphrase: str) -> Enrolled:
    folder = KeyFolder.create(
        path,
        network=network.id,
        token=made.token,
        kind="person",
        device=made.secrets.device,
        root=made.secrets.root,
        passphrase=passphrase,
        rand=network.rand,
    )
    with _or_nothing(folder):
        folder.save("document", (made.document, made.salt))
        await network.transact([made.envelope])
    return Enrolled(token=made.token, folder=folder, kit=kit_code(made.secrets.root))


@contextlib.contextmanager
def _or_nothing(folder: KeyFolder) -> Iterator[None]:
    """Of an enrolment that fails no folder is left: nobody has seen its kit, and the next try needs the place."""
    try:
        yield
    except Error:
        folder.discard()
        raise


def make_organisation(
    path: Path, *, nodes: Sequence[str], passphrase: str, rand: Callable[[int], bytes], services: Sequence[str] = ()
) -> tuple[Enrolled, Envelope]:
    """Make an organisation's identity for founding or joining a network: its folder, and the inception to hand in.

    The network is not known before the founding: call `folder.join(network.id)` after it, then `publish_organisation`.
    """
    made = new_organisation(nodes=list(nodes), rand=rand, services=services)
    return keep_organisation(path, made, network="", passphrase=passphrase, rand=rand), made.envelope


def keep_organisation(
    path: Path, made: NewIdentity, *, network: str, passphrase: str, rand: Callable[[int], bytes]
) -> Enrolled:
    """Put an organisation that was just made into a new folder, with its reading seed.

    Raises ConflictError `folder-in-use`.
    """
    folder = KeyFolder.create(
        path,
        network=network,
        token=made.token,
        kind="organisation",
        device=made.secrets.device,
        root=made.secrets.root,
        passphrase=passphrase,
        rand=rand,
    )
    folder.save("document", (made.document, made.salt))
    if made.secrets.reading_seed is not None:
        folder.save("reading", [(0, made.secrets.reading_seed)])
    return Enrolled(token=made.token, folder=folder, kit=kit_code(made.secrets.root))


async def publish_organisation(network: Network, folder: KeyFolder) -> Spread[bytes]:
    """Give an organisation's document, which has its reading key, to all known nodes. Raises as `publish_document`."""
    document, salt = folder.load("document", tuple[bytes, bytes]) or (b"", b"")
    if not document:
        raise NotFoundError("no-document", f"{folder.path} holds no document; it was made by other software")
    return await publish_organisation_document(network, folder.token, document, salt)


async def publish_organisation_document(network: Network, token: str, document: bytes, salt: bytes) -> Spread[bytes]:
    """As `publish_organisation`, for a document that is at hand."""
    message = DocumentMessage(token=token, salt=salt, document=document)
    return await _send_document(network, list(network.nodes.values()), lambda _: message, needed=1)


async def remember_new(network: Network, made: NewIdentity) -> Subject:
    """Know a subject that was just made here, without waiting for the directory's proof of it."""
    identity = identity_of(made.token, [made.envelope], network=network.id, managers={})
    message = DocumentMessage(token=made.token, salt=made.salt, document=made.document)
    subject = await network.subject_of(identity, message)
    network.remember(subject)
    return subject


async def publish_document(
    network: Network,
    subject: Subject,
    *,
    key_box: bytes | None = None,
    managed: Sequence[bytes] | None = None,
) -> Spread[bytes]:
    """Give the document (with key box, and each custodian's sealed share of a managed identity) to all custodians.

    Raises UnavailableError `not-enough-custodians` when fewer than n−t+1+f took it.
    """
    places = {node.token: place for place, node in enumerate(subject.custodians)}

    def message(node: Node) -> DocumentMessage:
        return DocumentMessage(
            token=subject.token,
            salt=subject.salt,
            document=subject.document_bytes,
            key_box=key_box,
            managed=None if managed is None else managed[places[node.token]],
        )

    marks = consent_marks(subject.n, subject.threshold, subject.faults)
    return await _send_document(network, subject.custodians, message, needed=marks["effective"])


async def _send_document(
    network: Network, nodes: Sequence[Node], message: Callable[[Node], DocumentMessage], *, needed: int
) -> Spread[bytes]:
    async def send(node: Node) -> bytes:
        async def once() -> bytes:
            receipt = await network.post(node, "/v1/document", message(node), Receipt)
            checked_keep_receipt(receipt, node, network=network.id, message_id=None)
            return encode_receipt(receipt)

        return await until_caught_up(once)

    done = await spread(nodes, send, marks={"effective": needed, "complete": len(nodes)})
    if "effective" not in done.reached:
        for error in done.failures.values():
            if not isinstance(error, UnavailableError):
                raise error
        raise UnavailableError(
            "not-enough-custodians",
            f"{len(done.acks)} of {len(nodes)} nodes took the document, {needed} are needed; try again",
        )
    return done


def must_be_effective(published: Published) -> None:
    """Raises UnavailableError `not-enough-custodians` unless consent events reached n−t+1+f custodians."""
    if not published.effective:
        raise UnavailableError(
            "not-enough-custodians",
            f"{len(published.receipts)} of {published.n} custodians took the change: too few for it to hold; try again",
            details={"nodes": {node: error.code for node, error in published.failures.items()}},
        )


async def rotate(network: Network, folder: KeyFolder, *, kit: str, passphrase: str) -> tuple[Patient, Published]:
    """New keys for a patient, signed with the recovery kit; every compartment moves up an epoch.

    Interrupted anywhere, calling it again finishes it. Raises NotFoundError `wrong-kit`; NotPermittedError
    `wrong-passphrase`; as `publish_document`.
    """
    folder.check_passphrase(passphrase)
    root = parse_kit_code(kit)
    identity = await network.identity(folder.token, fresh=True)
    pending = folder.load("rotation", _PendingRotation)
    if pending is None or pending.sequence != identity.state.sequence:
        pending = _signed_rotation(network, folder, await network.subject(folder.token, fresh=True), root)
        folder.save("rotation", pending)
        await network.transact([decode(pending.envelope, Envelope, size_max=_ENVELOPE_MAX)])
    before = folder.keys.device
    older = (*before.older, (before.sequence, before.seal))
    if before.sequence != pending.sequence:
        device = DeviceSecrets(pending.sequence, pending.sign, pending.seal, older)
        folder.renew(device, root=root, passphrase=passphrase)
    return await _settled(network, folder, pending)


def _signed_rotation(network: Network, folder: KeyFolder, subject: Subject, root: bytes) -> _PendingRotation:
    state = subject.identity.state
    device = renewed_secrets(folder.keys.device, sequence=state.sequence + 1, rand=network.rand)
    made = build_rotate(
        network=network.id,
        token=folder.token,
        state=state,
        root=root,
        device=device,
        document=subject.document,
        rand=network.rand,
    )
    return _PendingRotation(
        envelope=encode(made.envelope),
        sequence=device.sequence,
        sign=device.sign,
        seal=device.seal,
        document=made.document,
        salt=made.salt,
    )


async def _settled(network: Network, folder: KeyFolder, pending: _PendingRotation) -> tuple[Patient, Published]:
    """After the directory has a rotation: the document under its sequence, then a rekey of everything."""
    subject = await network.subject_of(
        await network.identity(folder.token, fresh=True),
        DocumentMessage(token=folder.token, salt=pending.salt, document=pending.document),
    )
    network.remember(subject)
    folder.save("document", (pending.document, pending.salt))
    await publish_document(network, subject, key_box=encode_key_box(folder.box))
    patient = Patient(network, folder.keys, state=folder)
    published = await patient.rekey()
    must_be_effective(published)
    return patient, published


async def deactivate(network: Network, folder: KeyFolder, *, kit: str) -> None:
    """End an identity for good: nothing can follow. Raises NotFoundError `wrong-kit`; the directory's refusal."""
    identity = await network.identity(folder.token, fresh=True)
    if identity.state.status != "active":
        raise NotPermittedError("deactivated", "the identity was deactivated before; nothing is left to do")
    envelope = build_deactivate(network=network.id, token=folder.token, state=identity.state, root=parse_kit_code(kit))
    await network.transact([envelope])
