"""A patient without a device: a provider acts for it, visibly, until the patient claims the identity.

The account key is under K_m ⊕ K_c: the manager keeps K_m, the custodians release their shares of K_c only in answer to
an access request with basis `managed`, which is then an entry in their logs. So every use is in the audit trail. The
printed code is the root secret; with it, and the manager's countersignature, the patient *claims*: new keys, every
compartment up an epoch, no manager in the document any more. From then on the provider's keys open nothing new.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from careledger.access import Basis, DocumentMessage
from careledger.client.asking import Pace, Race
from careledger.client.enrolment import (
    Enrolled,
    choose_custodians,
    must_be_effective,
    publish_document,
    remember_new,
)
from careledger.client.keys import HeldKeys, KeyFolder, MemoryState, State
from careledger.client.network import Network, Subject
from careledger.client.nodes import Node
from careledger.client.opening import not_enough
from careledger.client.organisation import Staff
from careledger.client.owner import Owner
from careledger.client.patient import Patient
from careledger.client.reader import CLIENT
from careledger.client.release import Asked, Release, asked, checked_release
from careledger.consent import NO_HEAD
from careledger.errors import NotFoundError, VerificationError
from careledger.identity import (
    Document,
    KeyBox,
    build_rotate,
    countersign_claim,
    encode_key_box,
    kit_code,
    new_managed_person,
    open_key_box,
    parse_key_box,
    parse_kit_code,
    renewed_secrets,
    seal_custodian_shares,
    unlock_managed,
    unlock_with_root,
)
from careledger.seal import Envelope

__all__ = ["Manager", "claim"]

_SHARE_ID: Final = bytes(16)
"""Under this record id a custodian releases its share of K_c."""
PURPOSE: Final = "TREAT"

Countersign = Callable[[Envelope], Awaitable[Envelope]]


class Manager:
    """A provider that manages patients. Its folder keeps K_m of each; `staff` where one of its people acts for it."""

    def __init__(
        self, network: Network, keys: HeldKeys, *, organisation: str, state: State, staff: Staff | None = None
    ) -> None:
        self.network = network
        self.keys = keys
        self.organisation = organisation
        self.state = state
        self.staff = staff
        self.pace = Pace()

    async def enrol(self, *, custodians: Sequence[str] | None = None) -> tuple[str, str]:
        """Enrol a patient; returns its token and the code to print, with which the patient claims it one day.

        Its secrets are forgotten here; K_m stays. Raises as enrolment.enrol_patient.
        """
        network = self.network
        chosen = list(custodians) if custodians is not None else choose_custodians(network)
        made = new_managed_person(custodians=chosen, manager=self.organisation, rand=network.rand)
        token = made.identity.token
        self.state.save(f"half.{token}", made.manager_half)
        await network.transact([made.identity.envelope])
        subject = await remember_new(network, made.identity)
        sealed = seal_custodian_shares(
            made.custodian_shares,
            network=network.id,
            subject=token,
            sequence=0,
            custodians=await network.custodian_keys(subject.custodians),
        )
        await publish_document(network, subject, key_box=encode_key_box(made.key_box), managed=sealed)
        held = HeldKeys(token=token, kind="person", device=made.identity.secrets.device)
        must_be_effective(await Patient(network, held, state=MemoryState()).begin())
        return token, kit_code(made.identity.secrets.root)

    async def act(self, token: str, *, purpose: str = PURPOSE) -> tuple[Patient, Owner]:
        """Unlock a managed patient's keys, which t custodians log, to write its consent and read its record.

        Raises NotFoundError `no-such-way` (claimed meanwhile), `not-managed`; NotPermittedError as a custodian denies.
        """
        half = self.state.load(f"half.{token}", bytes)
        if half is None:
            raise NotFoundError("not-managed", f"{token} is not managed from this folder")
        subject = await self.network.subject(token, fresh=True)
        box = await self._key_box(subject)
        shares = await self._shares(subject, purpose)
        account_key = unlock_managed(box, manager=self.organisation, manager_half=half, custodian_shares=shares)
        device = open_key_box(box, account_key=account_key)
        sequence = subject.identity.state.sequence
        held = HeldKeys(token=token, kind="person", device=device, sequence=sequence)
        patient = Patient(self.network, held, state=MemoryState())
        owner = Owner(patient, reader=self.keys, staff=self.staff, basis="managed", purpose=purpose)
        return patient, owner

    async def countersign(self, envelope: Envelope) -> Envelope:
        """Sign a claim of a patient managed here. Raises VerificationError `bad-claim`."""
        return countersign_claim(envelope, manager=self.organisation, signer=self.keys.signer)

    async def _key_box(self, subject: Subject) -> KeyBox:
        message = await self.network.document(subject.identity)
        if message.key_box is None:
            raise NotFoundError(
                "no-key-box", f"no custodian keeps a key box of {subject.token}; it was never published"
            )
        box = parse_key_box(message.key_box)
        if box.token != subject.token:
            raise VerificationError("wrong-keys", "a node showed the key box of somebody else; report it")
        return box

    async def _shares(self, subject: Subject, purpose: str) -> list[bytes]:
        """K_c's shares from t custodians, each behind a logged request."""
        network, staff = self.network, self.staff
        request: Asked = asked(
            self.keys,
            network=network.id,
            subject=subject.token,
            records=None,
            purpose=purpose,
            basis=Basis(kind="managed"),
            head=(0, NO_HEAD),
            client=CLIENT,
            now_ms=network.now_ms(),
            rand=network.rand,
            organisation=None if staff is None else staff.organisation,
            affiliation=None if staff is None else staff.affiliation,
            affiliation_id=None if staff is None else staff.affiliation_id,
        )

        async def ask(node: Node) -> Release:
            answer = await network.wire.post(node.url, "/v1/access", request.message(content=False))
            release = checked_release(answer, request, node, network=network.id, now_ms=network.now_ms())
            if _SHARE_ID not in release.shares:
                raise NotFoundError(
                    "no-such-way", "the custodian keeps no share for a manager: the identity was claimed"
                )
            return release

        race: Race[Release] = Race(subject.custodians, ask, pace=self.pace, at_once=subject.threshold)
        async with race:
            while len(race.answers) < subject.threshold:
                if race.possible < subject.threshold or not await race.more():
                    gone = [e for e in race.failures.values() if e.code == "no-such-way"]
                    raise gone[0] if gone else await not_enough(subject, race)
        return [release.shares[_SHARE_ID] for release in race.answers.values()]


async def claim(
    network: Network, path: Path, *, token: str, code: str, passphrase: str, countersign: Countersign
) -> tuple[Enrolled, Patient]:
    """Take over an identity that a provider managed, with the printed code, into a new folder.

    `countersign` has the provider sign (Manager.countersign, wherever it runs). The result has the new kit's code: the
    old one, which the provider printed, is worth nothing afterwards. The trail of managed uses is `audit`'s to show.
    Raises NotFoundError `wrong-kit`, `not-managed`; NotPermittedError `wrong-kit`; as enrolment.rotate.
    """
    root = parse_kit_code(code)
    subject = await network.subject(token, fresh=True)
    if subject.manager is None:
        raise NotFoundError("not-managed", f"{token} has no manager: it was claimed already, or never managed")
    message = await network.document(subject.identity)
    box = parse_key_box(message.key_box or b"")
    old = open_key_box(box, account_key=unlock_with_root(box, root))
    state = subject.identity.state
    device = renewed_secrets(old, sequence=state.sequence + 1, rand=network.rand)
    new_root = network.rand(32)
    document: Document = msgspec.structs.replace(subject.document, manager=msgspec.UNSET)
    rotation = build_rotate(
        network=network.id,
        token=token,
        state=state,
        root=root,
        device=device,
        document=document,
        rand=network.rand,
        new_root=new_root,
        claim=subject.manager,
    )
    folder = KeyFolder.create(
        path,
        network=network.id,
        token=token,
        kind="person",
        device=device,
        root=new_root,
        passphrase=passphrase,
        rand=network.rand,
    )
    folder.save("document", (rotation.document, rotation.salt))
    await network.transact([await countersign(rotation.envelope)])
    claimed = await network.subject_of(
        await network.identity(token, fresh=True),
        DocumentMessage(token=token, salt=rotation.salt, document=rotation.document),
    )
    network.remember(claimed)
    await publish_document(network, claimed, key_box=encode_key_box(folder.box))
    patient = Patient(network, folder.keys, state=folder)
    must_be_effective(await patient.rekey())
    return Enrolled(token=token, folder=folder, kit=kit_code(new_root)), patient
