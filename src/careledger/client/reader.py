"""Opening records: the hot path, and the promise that every read is in the custodians' logs before it is seen.

A reader asks t custodians (more only when one is slow or wrong), believes none of them, and opens what any t of them
released: receipts prove that the request was logged, commitments that the shares are the author's, the content root
that the content is the signed one. Whoever answers wrongly is named. Keys of requests, shares and content keys are
fresh for each open; the reader's own long-lived keys and other people's parsed public keys are kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from careledger.access import Basis, ConsentAnswer, ReadConsent, SignedRead, sign_approval
from careledger.client.asking import Pace, Race
from careledger.client.chain import GrantsView, signer_of
from careledger.client.exchange import gist
from careledger.client.keys import HeldKeys
from careledger.client.network import Network, Subject
from careledger.client.nodes import Node
from careledger.client.organisation import Staff
from careledger.client.release import Asked, Release, asked, checked_listing, checked_release
from careledger.consent import NO_HEAD, EventMessage
from careledger.errors import Error, NotFoundError, NotPermittedError, UnavailableError, VerificationError
from careledger.identity import default_threshold
from careledger.records import (
    Manifest,
    OpenedRecord,
    OpenedRecords,
    VerifiedSubmission,
    claimed_author,
    decode_view,
    open_records,
    verify_view,
)
from careledger.seal import SealingKey, encode, parse_keyid, share_commitment, sign

__all__ = ["CLIENT", "Listing", "Opened", "Reader"]

CLIENT: Final = "careledger/1"
"""The software's name in requests, and so in every log and audit trail."""


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """What a request opened: records, those that would not open and why, which custodians failed and why.

    `receipts` (by node) prove that the read is logged; `views` are the proofs of authorship: both go into an export.
    """

    request: str
    records: list[OpenedRecord]
    failed: list[tuple[str, Error]]
    faults: dict[str, Error]
    receipts: dict[str, bytes]
    views: list[bytes]


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """The records that the grant covers, newest last; `names` are category names by compartment, where known."""

    request: str
    manifests: list[Manifest]
    names: dict[str, str]
    faults: dict[str, Error]
    receipts: dict[str, bytes]


class Reader:
    """A person who reads, alone or for the organisation of a staff pass.

    `ask_all` asks all custodians at once, as a subject can ask of its readers; else t, rotating.
    """

    def __init__(self, network: Network, keys: HeldKeys, *, staff: Staff | None = None, client: str = CLIENT) -> None:
        self.network = network
        self.keys = keys
        self.staff = staff
        self.client = client
        self.ask_all = False
        self.pace = Pace()
        self._views: dict[str, GrantsView] = {}
        self._has_affiliation: set[tuple[str, str]] = set()

    # What the reader knows of a subject's consent

    async def grants(self, subject: str, *, fresh: bool = False) -> GrantsView:
        """The grants to this reader (or its organisation) with their keys; cached unless `fresh`.

        Raises UnavailableError `not-enough-custodians` when no custodian answers.
        """
        view = self._views.get(subject)
        if view is None:
            view = GrantsView(network=self.network.id, subject=subject)
            fresh = True
        if fresh:
            await self._refresh(view)
            self._views[subject] = view
        return view

    async def _refresh(self, view: GrantsView) -> None:
        """Ask one custodian after the other until one answers; what it shows is proven event by event."""
        who = await self.network.subject(view.subject)
        read = self._signed_read(view)
        failures: dict[str, Error] = {}
        for node in self.pace.order(who.custodians, 0.0):
            try:
                answer: ConsentAnswer = await self.network.post(node, "/v1/consent/read", read, ConsentAnswer)
                messages = [EventMessage(envelope=envelope, boxes=boxes) for envelope, boxes in answer.events]
                keys = await self.network.consent_keys(view.subject, map(signer_of, messages))
                view.add(messages, keys=keys, key_of=self._key_of)
            except Error as error:
                failures[node.token] = error
                continue
            if answer.seq >= view.seq:
                view.seq, view.head = answer.seq, answer.head
            return
        raise_common(failures)
        raise UnavailableError("not-enough-custodians", f"no custodian showed the grants: {gist(failures)}")

    def _signed_read(self, view: GrantsView) -> SignedRead:
        read = ReadConsent(
            network=self.network.id,
            who=self.keys.token,
            subject=view.subject,
            view="grants",
            from_seq=1,
            time=self.network.now_ms(),
            nonce=self.network.rand(16).hex(),
            for_=msgspec.UNSET if self.staff is None else self.staff.organisation,
        )
        envelope = sign(ReadConsent.TYPE, encode(read), [self.keys.signer])
        return SignedRead(request=encode(envelope), affiliation=None if self.staff is None else self.staff.affiliation)

    def _key_of(self, to: str) -> SealingKey:
        token = parse_keyid(to)[0]
        if self.staff is not None and token == self.staff.organisation:
            return self.staff.key_of(to)
        return self.keys.sealing(to)

    # Requests

    async def request(
        self,
        subject: str,
        records: Sequence[bytes] | None,
        *,
        purpose: str,
        grant: str | None = None,
    ) -> Asked:
        """Sign a request to open `records` (16-byte ids; None: to list). For joint access, let others approve its `id`
        and pass them with `approved` to `open_asked` within two minutes."""
        view = await self.grants(subject)
        basis = Basis(kind="grant") if grant is None else Basis(kind="grant", grant=grant)
        staff = self.staff
        return asked(
            self.keys,
            network=self.network.id,
            subject=subject,
            records=records,
            purpose=purpose,
            basis=basis,
            head=(view.seq, view.head or NO_HEAD),
            client=self.client,
            now_ms=self.network.now_ms(),
            rand=self.network.rand,
            organisation=None if staff is None else staff.organisation,
            affiliation=None if staff is None else staff.affiliation,
            affiliation_id=None if staff is None else staff.affiliation_id,
        )

    def approve(self, request: str, subject: str, *, minutes: int = 15) -> bytes:
        """Approve somebody else's request (hex message id) about a subject: one of the k of a joint grant."""
        return sign_approval(
            network=self.network.id,
            request=bytes.fromhex(request),
            subject=subject,
            approver=self.keys.token,
            expires=self.network.now_ms() + minutes * 60_000,
            signer=self.keys.signer,
        )

    async def list(self, subject: str, *, purpose: str, grant: str | None = None) -> Listing:
        """List the records that a grant covers, as t custodians together know them. Raises as `open`."""
        request = await self.request(subject, None, purpose=purpose, grant=grant)
        who = await self.network.subject(subject)
        async with self.race(who, lambda node: self.ask(node, request, content=True)) as race:
            while len(race.answers) < who.threshold:
                if race.possible < who.threshold or not await race.more():
                    raise not_enough(who, race)
            releases = dict(race.answers)
            faults = dict(race.failures)
        manifests: dict[str, Manifest] = {}
        for node, release in releases.items():
            try:
                shown = checked_listing(release, network=self.network.id, subject=subject)
            except Error as error:
                faults[node] = error
                continue
            for manifest, _ in shown:
                manifests.setdefault(manifest.record, manifest)
        view = await self.grants(subject)
        return Listing(
            request=request.id.hex(),
            manifests=sorted(manifests.values(), key=lambda one: (one.recorded, one.submission, one.index)),
            names=dict(view.names),
            faults=faults,
            receipts={node: release.receipt for node, release in releases.items()},
        )

    async def open(self, subject: str, records: Sequence[bytes], *, purpose: str, grant: str | None = None) -> Opened:
        """Open records by id.

        Succeeds with t honest custodians and names the others in `faults`. Raises NotPermittedError with the
        custodians' reason (`no-grant`, `revoked`, …); UnavailableError `not-enough-custodians` (which and why);
        NotFoundError `no-seed`: allowed, but no key for it was ever given.
        """
        request = await self.request(subject, records, purpose=purpose, grant=grant)
        return await self.open_asked(request)

    async def open_asked(self, request: Asked, *, approvals: Sequence[bytes] = ()) -> Opened:
        """Open what a prepared request asks for, with the approvals it got."""
        if approvals:
            request = msgspec.structs.replace(request, approvals=tuple(approvals))
        who = await self.network.subject(request.subject)
        view = await self.grants(request.subject)
        return await _Opening(self, who, view, request).run()

    def race(self, who: Subject, ask: Callable[[Node], Awaitable[Release]]) -> Race[Release]:
        """The race for one request's answers: t custodians, or all where the subject asks for that."""
        return Race(who.custodians, ask, pace=self.pace, at_once=who.n if self.ask_all else who.threshold)

    async def ask(self, node: Node, request: Asked, *, content: bool) -> Release:
        """One custodian's verified answer; the affiliation is sent along only where it isn't logged yet."""
        if request.affiliation_id is None:
            return await self._exchange(node, request, content=content, affiliation=False)
        place = (node.token, request.affiliation_id)
        known = place in self._has_affiliation
        try:
            release = await self._exchange(node, request, content=content, affiliation=not known)
        except Error as error:
            if not known or error.code not in ("affiliation-needed", "not-affiliated"):
                raise
            release = await self._exchange(node, request, content=content, affiliation=True)
        self._has_affiliation.add(place)
        return release

    async def _exchange(self, node: Node, request: Asked, *, content: bool, affiliation: bool) -> Release:
        network = self.network
        body = request.message(content=content, affiliation=affiliation)
        answer = await network.wire.post(node.url, "/v1/access", body)
        return checked_release(answer, request, node, network=network.id, now_ms=network.now_ms())


class _Opening:
    """One request on its way: collects answers until the records open, or until that is impossible."""

    def __init__(self, reader: Reader, who: Subject, view: GrantsView, request: Asked) -> None:
        self.reader = reader
        self.who = who
        self.view = view
        self.request = request
        self.race: Race[Release] = reader.race(who, self._ask)
        self.content: list[VerifiedSubmission] | None = None
        self.view_bytes: list[bytes] = []
        self._asked_for_content: set[str] = set()
        self._asked_twice = False
        self._refreshed = False

    async def _ask(self, node: Node) -> Release:
        """The first node sends the content; when it has failed, the next one that is asked."""
        content = self.content is None and not (self._asked_for_content & self.race.running)
        if content:
            self._asked_for_content.add(node.token)
        return await self.reader.ask(node, self.request, content=content)

    async def run(self) -> Opened:
        race, threshold = self.race, self.who.threshold
        async with race:
            while True:
                await self._take_content()
                if len(race.answers) >= threshold:
                    if self.content is None:
                        self._ask_again_for_content()
                    else:
                        opened = await self._try_open()
                        if opened is not None:
                            return opened
                if race.possible < threshold or not await race.more():
                    raise not_enough(self.who, race)

    async def _take_content(self) -> None:
        for node, release in list(self.race.answers.items()):
            if self.content is None and release.submissions:
                try:
                    self.content = await self._verified(release)
                    self.view_bytes = release.submissions
                except Error as error:
                    self.race.bad(node, error)

    def _ask_again_for_content(self) -> None:
        """Shares are here, the content isn't: its node failed, sent none, or is slow. Repeat the same message to
        another (hotpath.md, shape 7)."""
        if self._asked_for_content & self.race.running and (self._asked_twice or not self.race.hedged):
            return
        self._asked_twice = self.race.hedged
        for node in self.who.custodians:
            if node.token in self.race.answers and node.token not in self._asked_for_content:
                self._asked_for_content.add(node.token)
                self.race.ask_again(node, self._content_from)
                return
        for token in self._asked_for_content & self.race.answers.keys():
            self.race.bad(token, UnavailableError("no-content", "the node released its share, but sent no content"))

    async def _content_from(self, node: Node) -> Release:
        return await self.reader.ask(node, self.request, content=True)

    async def _verified(self, release: Release) -> list[VerifiedSubmission]:
        network = self.reader.network
        found: list[VerifiedSubmission] = []
        for data in release.submissions:
            shown = decode_view(data)
            key = await network.verify_key(claimed_author(shown.envelope))
            found.append(verify_view(shown, network=network.id, author_key=key, subject=self.request.subject))
        shown_ids = [one.record for submission in found for one in submission.records if one.ciphertext is not None]
        wanted = self.request.records or ()
        if len(shown_ids) != len(wanted) or set(shown_ids) != set(wanted):
            raise VerificationError(
                "missing-content", f"the node sent content of {len(shown_ids)} records where {len(wanted)} were asked"
            )
        return found

    async def _try_open(self) -> Opened | None:
        """Open with what is there; None when a custodian turned out to be false and others are asked now."""
        releases = self.race.answers
        for node, error in self._false_custodians().items():
            self.race.bad(node, error)
        if len(releases) < self.who.threshold:
            return None
        shares: dict[int, dict[bytes, bytes]] = {}
        for release in releases.values():
            for record, share in release.shares.items():
                shares.setdefault(share[-1], {})[record] = share
        opened = await self._opened(shares)
        if any(error.code == "bad-seal" for _, error in opened.failed) and self.race.possible > len(releases):
            self.race.ask_more()  # another choice of t shares may still open it (DESIGN 5.2)
            return None
        return Opened(
            request=self.request.id.hex(),
            records=opened.records,
            failed=[(record.hex(), error) for record, error in opened.failed],
            faults=dict(self.race.failures),
            receipts={node: release.receipt for node, release in releases.items()},
            views=self.view_bytes,
        )

    def _false_custodians(self) -> dict[str, Error]:
        """Who released a share that is not its own: it does not match the author's commitment at its own place.

        Without the place a liar could hand out somebody else's x, spoil that custodian's share and have it blamed.
        """
        assert self.content is not None
        manifests = {one.record: one.manifest for submission in self.content for one in submission.records}
        sequence = self.who.identity.state.sequence
        places = {node.token: place for place, node in enumerate(self.who.custodians, start=1)}
        taken: set[tuple[int, bytes]] = set()
        false: dict[str, Error] = {}
        for node, release in self.race.answers.items():
            for record, share in release.shares.items():
                manifest, place = manifests[record], share[-1]
                own = place == places[node] or manifest.subject_seq != sequence
                known = 1 <= place <= len(manifest.shares) and (place, record) not in taken
                if not (own and known and share_commitment(record, share).hex() == manifest.shares[place - 1]):
                    false[node] = _false_share(record)
                    break
            if node not in false:
                taken.update((share[-1], record) for record, share in release.shares.items())
        return false

    async def _opened(self, shares: dict[int, dict[bytes, bytes]]) -> OpenedRecords:
        assert self.content is not None
        secrets, consent_keys, missing = self._consent(self.content)
        if missing and not self._refreshed:
            self._refreshed = True
            self.view = await self.reader.grants(self.request.subject, fresh=True)
            secrets, consent_keys, missing = self._consent(self.content)
        records: list[OpenedRecord] = []
        failed: list[tuple[bytes, Error]] = []
        bad: list[tuple[int, bytes]] = []
        for submission in self.content:
            mine = secrets[submission.statement.submission]
            by_count: dict[int, list[int]] = {}
            for at, one in enumerate(submission.records):
                by_count.setdefault(len(one.manifest.shares), []).append(at)
            for n, members in by_count.items():
                part = open_records(
                    [submission.records[at] for at in members],
                    shares=shares,
                    threshold=self.who.threshold if n == self.who.n else default_threshold(n),
                    secrets=mine,
                    consent_keys=consent_keys,
                )
                records += part.records
                failed += [(record, missing.get(record, error)) for record, error in part.failed]
                bad += part.bad_shares
        return OpenedRecords(records=records, failed=failed, bad_shares=bad)

    def _consent(
        self, content: Sequence[VerifiedSubmission]
    ) -> tuple[dict[str, dict[tuple[str, int], bytes]], dict[bytes, bytes], dict[bytes, Error]]:
        """C by submission and (compartment, epoch); K_consent by record; and why a record has neither."""
        secrets: dict[str, dict[tuple[str, int], bytes]] = {}
        consent_keys: dict[bytes, bytes] = {}
        missing: dict[bytes, Error] = {}
        for submission in content:
            mine = secrets.setdefault(submission.statement.submission, {})
            tried: dict[tuple[str, int], Error] = {}
            for one in submission.records:
                own = self.view.consent_key(one.record)
                if own is not None:
                    consent_keys[one.record] = own
                    continue
                place = (one.manifest.compartment, one.manifest.epoch)
                if place not in mine and place not in tried:
                    try:
                        mine[place] = submission.open_consent_lock(*place, self.view.compartment_key(*place))
                    except (NotFoundError, VerificationError) as error:
                        tried[place] = error
                if place in tried:
                    missing[one.record] = tried[place]
        return secrets, consent_keys, missing


def _false_share(record: bytes) -> VerificationError:
    return VerificationError(
        "bad-share", f"the share of record {record.hex()} does not match the author's commitment; report the custodian"
    )


def not_enough(who: Subject, race: Race[Release]) -> Error:
    """The one refusal to show when fewer than t custodians answered usefully."""
    denials = [error for error in race.failures.values() if isinstance(error, NotPermittedError)]
    if len(denials) > who.faults:
        codes = [error.code for error in denials]
        code = max(codes, key=codes.count)
        return next(error for error in denials if error.code == code)
    raise_common(race.failures)
    return UnavailableError(
        "not-enough-custodians",
        f"{len(race.answers)} of {who.n} custodians released their share, {who.threshold} are needed: "
        f"{gist(race.failures)}; try again",
        details={
            "found": len(race.answers),
            "needed": who.threshold,
            "nodes": {node: error.code for node, error in race.failures.items()},
        },
    )


def raise_common(failures: dict[str, Error]) -> None:
    """Where every node says that our clock is off, that is the one thing to say."""
    for error in failures.values():
        if error.code == "clock-off" and all(other.code == "clock-off" for other in failures.values()):
            raise error
