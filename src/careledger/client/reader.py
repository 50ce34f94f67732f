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
from careledger.client.asking import Pace, Race, first_answer
from careledger.client.catching_up import until_caught_up
from careledger.client.chain import GrantsView, signer_of
from careledger.client.exchange import gist
from careledger.client.keys import HeldKeys
from careledger.client.network import Network, Subject
from careledger.client.nodes import Node
from careledger.client.opening import Opened, Opening, not_enough, raise_common
from careledger.client.organisation import Staff
from careledger.client.release import Asked, Release, asked, checked_listing, checked_release
from careledger.consent import NO_HEAD, EventMessage
from careledger.errors import Error, UnavailableError
from careledger.records import (
    Manifest,
)
from careledger.seal import SealingKey, encode, parse_keyid, sign

__all__ = ["CLIENT", "Listing", "Opened", "Reader"]

CLIENT: Final = "careledger/1"
"""The software's name in requests, and so in every log and audit trail."""
_FIRST_S: Final = 2.0
"""A reader who was enrolled or licensed just now waits this long for nodes that are a block behind."""


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
        self._known = False

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
        """Ask one custodian, others when it fails or is slow; what it shows is proven event by event."""
        who = await self.network.subject(view.subject)
        read = self._signed_read(view)

        async def ask(node: Node) -> ConsentAnswer:
            answer = await self.network.post(node, "/v1/consent/read", read, ConsentAnswer)
            messages = [EventMessage(envelope=envelope, boxes=boxes) for envelope, boxes in answer.events]
            keys = await self.network.consent_keys(view.subject, map(signer_of, messages))
            view.add(messages, keys=keys, key_of=self._key_of)
            return answer

        answer, failures = await first_answer(who.custodians, ask, pace=self.pace)
        if answer is None:
            raise_common(failures)
            raise UnavailableError("not-enough-custodians", f"no custodian showed the grants: {gist(failures)}")
        if answer.seq >= view.seq:
            view.seq, view.head = answer.seq, answer.head

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
                    raise await not_enough(who, race)
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
        if self._known:
            return await self.open_asked(await self.request(subject, records, purpose=purpose, grant=grant))

        async def first() -> Opened:
            return await self.open_asked(await self.request(subject, records, purpose=purpose, grant=grant))

        opened = await until_caught_up(first, for_s=_FIRST_S)
        self._known = True
        return opened

    async def open_asked(self, request: Asked, *, approvals: Sequence[bytes] = ()) -> Opened:
        """Open what a prepared request asks for, with the approvals it got."""
        if approvals:
            request = msgspec.structs.replace(request, approvals=tuple(approvals))
        who = await self.network.subject(request.subject)
        view = await self.grants(request.subject)
        return await Opening(self, who, view, request).run()

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
