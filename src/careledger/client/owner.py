"""The subject reads its own record: one custodian is enough, and this is where an author's falsehoods show.

M, sealed to the subject, gives every key of a submission. With it the subject derives again what the author gave to
others (consent locks, share commitments) and compares (records.check_owner): nobody else can. Opened with basis
`owner`, or `managed` when a provider acts for a patient without a device; both are in the custodians' logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from careledger.access import Basis
from careledger.client.asking import Race
from careledger.client.exchange import gist
from careledger.client.keys import HeldKeys
from careledger.client.network import Subject
from careledger.client.nodes import Node
from careledger.client.opening import Opened, not_enough, raise_common
from careledger.client.organisation import Staff
from careledger.client.patient import Patient
from careledger.client.reader import CLIENT, Listing
from careledger.client.release import Asked, Release, asked, checked_listing, checked_release
from careledger.errors import Error, NotPermittedError, UnavailableError, VerificationError
from careledger.identity import default_threshold
from careledger.records import (
    Manifest,
    OpenedRecord,
    SubmissionKeys,
    VerifiedSubmission,
    check_owner,
    claimed_author,
    decode_view,
    open_with_master,
    verify_view,
)
from careledger.seal import SealingKey

__all__ = ["Owner"]

RECORDS_AT_ONCE: Final = 200
"""Records of one request: as many as an author seals at once."""
PURPOSE: Final = "PATRQT"
"""HL7 PurposeOfUse: requested by the patient."""


class _Part(msgspec.Struct, frozen=True):
    request: str
    release: Release
    records: list[OpenedRecord]
    failed: list[tuple[str, Error]]
    masters: list[tuple[VerifiedSubmission, bytes]]


class Owner:
    """Reads a subject's records with the subject's own keys, or for a manager that unlocked them."""

    def __init__(
        self,
        patient: Patient,
        *,
        reader: HeldKeys | None = None,
        staff: Staff | None = None,
        basis: Literal["owner", "managed"] = "owner",
        purpose: str = PURPOSE,
        client: str = CLIENT,
    ) -> None:
        self.patient = patient
        self.network = patient.network
        self.reader = reader or patient.keys
        self.staff = staff
        self.basis: Literal["owner", "managed"] = basis
        self.purpose = purpose
        self.client = client

    async def list(self) -> Listing:
        """Every record, as t custodians together know them. Raises as Reader.list."""
        await self.patient.refresh()
        who = await self.network.subject(self.patient.subject)
        request = self._request(None)
        race: Race[Release] = Race(
            who.custodians,
            lambda node: self._ask(node, request),
            pace=self.patient.pace,
            at_once=who.threshold,
        )
        async with race:
            while len(race.answers) < who.threshold:
                if race.possible < who.threshold or not await race.more():
                    raise await not_enough(who, race)
        manifests: dict[str, Manifest] = {}
        faults = dict(race.failures)
        for node, release in race.answers.items():
            try:
                for manifest, _ in checked_listing(release, network=self.network.id, subject=who.token):
                    manifests.setdefault(manifest.record, manifest)
            except Error as error:
                faults[node] = error
        return Listing(
            request=request.id.hex(),
            manifests=sorted(manifests.values(), key=lambda one: (one.recorded, one.submission, one.index)),
            names=dict(self.patient.chain.names),
            faults=faults,
            receipts={node: release.receipt for node, release in race.answers.items()},
        )

    async def open(self, records: Sequence[bytes]) -> Opened:
        """Open records by id, checking all that their authors sealed. `failed` names what does not hold and why.

        Raises NotPermittedError; UnavailableError `not-enough-custodians` when no custodian answers well.
        """
        await self.patient.refresh()
        parts: list[_Part] = []
        faults: dict[str, Error] = {}
        for at in range(0, len(records), RECORDS_AT_ONCE):
            part, failures = await self._open_some(records[at : at + RECORDS_AT_ONCE])
            parts.append(part)
            faults |= failures
        return Opened(
            request=parts[0].request if parts else "",
            records=[record for part in parts for record in part.records],
            failed=[failure for part in parts for failure in part.failed],
            faults=faults,
            receipts={f"{part.release.node}#{part.release.entry.index}": part.release.receipt for part in parts},
            views=[view for part in parts for view in part.release.submissions],
        )

    async def open_all(self) -> Opened:
        """Open the whole record."""
        listing = await self.list()
        return await self.open([bytes.fromhex(one.record) for one in listing.manifests])

    async def consent_keys(self, records: Sequence[bytes]) -> dict[str, bytes]:
        """K_consent of records by hex id, for a grant by record ids or for filing. Raises as `open`."""
        await self.patient.refresh()
        found: dict[str, bytes] = {}
        for at in range(0, len(records), RECORDS_AT_ONCE):
            part, _ = await self._open_some(records[at : at + RECORDS_AT_ONCE])
            for submission, master in part.masters:
                keys = SubmissionKeys(master)
                for one in submission.records:
                    place = (bytes.fromhex(one.manifest.compartment), one.manifest.epoch)
                    found[one.manifest.record] = keys.consent_key(one.record, *place)
        return found

    async def _open_some(self, records: Sequence[bytes]) -> tuple[_Part, dict[str, Error]]:
        who = await self.network.subject(self.patient.subject)
        request = self._request(records)

        async def ask(node: Node) -> _Part:
            return await self._opened(await self._ask(node, request), who, request)

        race: Race[_Part] = Race(who.custodians, ask, pace=self.patient.pace, at_once=1)
        async with race:
            while not race.answers:
                if not await race.more():
                    denials = [e for e in race.failures.values() if isinstance(e, NotPermittedError)]
                    if denials:
                        raise denials[0]
                    raise_common(race.failures)
                    raise UnavailableError(
                        "not-enough-custodians", f"no custodian showed the records: {gist(race.failures)}; try again"
                    )
        return next(iter(race.answers.values())), dict(race.failures)

    def _request(self, records: Sequence[bytes] | None) -> Asked:
        state, staff = self.patient.chain.state, self.staff
        return asked(
            self.reader,
            network=self.network.id,
            subject=self.patient.subject,
            records=records,
            purpose=self.purpose,
            basis=Basis(kind=self.basis),
            head=(state.seq, state.head),
            client=self.client,
            now_ms=self.network.now_ms(),
            rand=self.network.rand,
            organisation=None if staff is None else staff.organisation,
            affiliation=None if staff is None else staff.affiliation,
            affiliation_id=None if staff is None else staff.affiliation_id,
        )

    async def _ask(self, node: Node, request: Asked) -> Release:
        answer = await self.network.wire.post(node.url, "/v1/access", request.message(content=True))
        return checked_release(answer, request, node, network=self.network.id, now_ms=self.network.now_ms())

    async def _opened(self, release: Release, who: Subject, request: Asked) -> _Part:
        records: list[OpenedRecord] = []
        failed: list[tuple[str, Error]] = []
        masters: list[tuple[VerifiedSubmission, bytes]] = []
        for data in release.submissions:
            view = decode_view(data)
            key = await self.network.verify_key(claimed_author(view.envelope))
            submission = verify_view(view, network=self.network.id, author_key=key, subject=who.token)
            try:
                master = self._checked(submission, who)
            except VerificationError as error:
                failed += [(one.manifest.record, error) for one in submission.records]
                continue
            masters.append((submission, master))
            opened = open_with_master(submission.records, master=master)
            records += opened.records
            failed += [(record.hex(), error) for record, error in opened.failed]
        shown = {one.record for one in records} | {bytes.fromhex(record) for record, _ in failed}
        if shown != set(request.records or ()):
            raise VerificationError("missing-content", f"the node showed {len(shown)} records, others were asked for")
        return _Part(request.id.hex(), release, records, failed, masters)

    def _checked(self, submission: VerifiedSubmission, who: Subject) -> bytes:
        """M of a submission, once everything the author sealed follows from it."""
        owners = [lock.to for lock in submission.locks if lock.use == "owner"]
        if not owners:
            raise VerificationError("no-lock", "the submission came without its owner lock; ask another custodian")
        keys: dict[tuple[str, int], SealingKey] = {}
        for one in submission.records:
            place = (one.manifest.compartment, one.manifest.epoch)
            if place not in keys:
                keys[place] = self.patient.chain.compartment_key(*place)
        n = len(submission.records[0].manifest.shares)
        return check_owner(
            submission,
            key=self.patient.keys.sealing(owners[0]),
            compartment_keys=keys,
            threshold=who.threshold if n == who.n else default_threshold(n),
        )
