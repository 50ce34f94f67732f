"""The subject's own software: it alone writes its consent, and it says at which moment a change holds.

Before an event is signed, the newest head is read from t custodians; the event then goes to all n. Everything
remembered (the chain, receipts of revocations) is in the folder's encrypted state. A manager uses the same class for
a patient without a device (managed.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

import msgspec

from careledger.access import ConsentAnswer, ReadConsent, SignedRead
from careledger.client.asking import Pace, Race
from careledger.client.chain import OwnChain, signer_of
from careledger.client.exchange import decoded, gist
from careledger.client.keys import HeldKeys, State
from careledger.client.network import Network
from careledger.client.nodes import Node
from careledger.client.receipts import ConsentReceipts, EventsSent
from careledger.client.spread import Spread, consent_marks, spread
from careledger.consent import (
    ConsentState,
    EventMessage,
    GrantState,
    Joint,
    Range,
    Writer,
    decode_event_message,
    first_compartments,
    make_file,
    make_grant,
    make_merge,
    make_rekey,
    make_revocation_with_rekey,
    remaining_grantees,
)
from careledger.consent.event import Right, Role
from careledger.errors import ConflictError, Error, NotFoundError, UnavailableError
from careledger.fhir import CATEGORIES
from careledger.seal import SealingKey, SealingPublicKey, encode, sign

__all__ = ["Granted", "Patient", "Published"]

DAY_MS: Final = 24 * 3600 * 1000
_CHAIN: Final = "chain"
_SENT_ALONG_MAX: Final = 32
"""Events sent again to a custodian that is behind: about a megabyte, a fourth of what a node takes at once."""


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What became of consent events that were sent to all custodians.

    `reached` has the milliseconds at which they became `effective` (n−t+1+f acknowledgements) and `complete` (all n);
    `failures` names who did not acknowledge and why; `receipts` are by node, one for each event.
    """

    seq: int
    head: str
    n: int
    reached: dict[str, float]
    failures: dict[str, Error]
    receipts: dict[str, list[bytes]]

    @property
    def effective(self) -> bool:
        return "effective" in self.reached

    @property
    def complete(self) -> bool:
        return "complete" in self.reached


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """A new grant's id and how far it is known."""

    grant: str
    published: Published


class Patient:
    """One subject at work. `role` is `manager` where a provider acts for it with its own signing key."""

    def __init__(
        self,
        network: Network,
        keys: HeldKeys,
        *,
        state: State,
        subject: str | None = None,
        role: Role = "subject",
        signer: HeldKeys | None = None,
    ) -> None:
        """`keys` are the subject's; `signer` who signs events, if that is somebody else."""
        self.network = network
        self.keys = keys
        self.signer = signer or keys
        self.role: Role = role
        self.state = state
        self.subject = subject or keys.token
        self.chain = OwnChain(network=network.id, subject=self.subject)
        self.pace = Pace()
        self._loaded = False

    # The chain

    async def refresh(self, *, meanwhile: Callable[[], object] | None = None) -> ConsentState:
        """Read the newest events from t custodians; returns the state. Call before showing or deciding anything.

        `meanwhile` is called once the custodians have been asked: work that does not depend on their answers.
        Raises UnavailableError `not-enough-custodians`; VerificationError where an event does not hold.
        """
        await self._load()
        who = await self.network.subject(self.subject)
        since = max(1, self.chain.state.seq)
        race: Race[list[EventMessage]] = Race(
            who.custodians, lambda node: self._read(node, since), pace=self.pace, at_once=who.threshold
        )
        async with race:
            if meanwhile is not None:
                asyncio.get_running_loop().call_soon(meanwhile)
            while len(race.answers) < who.threshold:
                if race.possible < who.threshold or not await race.more():
                    raise UnavailableError(
                        "not-enough-custodians",
                        f"{len(race.answers)} of {who.threshold} custodians showed the consent chain: "
                        f"{gist(race.failures)}; try again",
                    )
        if await self._take([message for answer in race.answers.values() for message in answer]):
            self._save()
        return self.chain.state

    async def _read(self, node: Node, since: int) -> list[EventMessage]:
        read = ReadConsent(
            network=self.network.id,
            who=self.signer.token,
            subject=self.subject,
            view="chain",
            from_seq=since,
            time=self.network.now_ms(),
            nonce=self.network.rand(16).hex(),
        )
        envelope = encode(sign(ReadConsent.TYPE, encode(read), [self.signer.signer]))
        answer = await self.network.post(node, "/v1/consent/read", SignedRead(request=envelope), ConsentAnswer)
        return [EventMessage(envelope=data, boxes=boxes) for data, boxes in answer.events]

    async def _take(self, messages: Sequence[EventMessage]) -> int:
        keys = await self.network.consent_keys(self.subject, map(signer_of, messages))
        return self.chain.add(messages, keys=keys, key_of=self.keys.sealing)

    async def _load(self) -> None:
        if self._loaded:
            return
        who = await self.network.subject(self.subject)
        self.chain.claimed_at = max(who.identity.managers().values(), default=None)
        saved = self.state.load(_CHAIN, list[bytes]) or []
        if saved:
            await self._take([decode_event_message(data) for data in saved])
        self._loaded = True

    def _save(self) -> None:
        self.state.save(_CHAIN, self.chain.encoded)

    def writer(self) -> Writer:
        """Who writes events now, and whom the subject's own boxes go to."""
        return Writer(
            network=self.network.id,
            subject=self.subject,
            signer=self.signer.signer,
            owner=self.keys.recipient,
            role=self.role,
        )

    # Events

    async def begin(self) -> Published:
        """The first event: the sixteen compartments. Raises ConflictError `bad-sequence` where they exist already."""
        self._loaded = True
        made = first_compartments(
            self.writer(),
            categories=[category.id for category in CATEGORIES],
            now_ms=self.network.now_ms(),
            rand=self.network.rand,
        )
        return await self._publish([made.message])

    async def grant(
        self,
        grantee: str,
        *,
        categories: Sequence[str] = (),
        records: dict[str, bytes] | None = None,
        rights: Sequence[Right] = ("read",),
        purposes: Sequence[str] = ("TREAT",),
        expires_ms: int,
        recorded_from: int | None = None,
        recorded_until: int | None = None,
        joint: tuple[int, Sequence[str]] | None = None,
        text: str = "",
        language: str = "en",
        on_mark: Callable[[str, float], None] | None = None,
    ) -> Granted:
        """Let a person or organisation read or contribute to categories (names), or read single `records`.

        `records` maps hex ids to K_consent (`Owner.consent_keys`); `joint` is (k, tokens of who must approve); `text`
        is what the person saw, in `language`: its hash goes into the grant.
        Raises NotFoundError `unknown-category`, `unknown-identity`; VerificationError `bad-grant`; as `refresh`.
        """
        state = await self.refresh()
        span: Range | msgspec.UnsetType = msgspec.UNSET
        if recorded_from is not None or recorded_until is not None:
            unset = msgspec.UNSET
            span = Range(
                from_=unset if recorded_from is None else recorded_from,
                until=unset if recorded_until is None else recorded_until,
            )
        compartments = [self.chain.compartment_of(name) for name in categories]
        message = make_grant(
            self.writer(),
            state,
            grantee=grantee,
            to=await self.network.recipient(grantee),
            rights=list(rights),
            purposes=purposes,
            expires=expires_ms,
            compartments=compartments,
            records=records,
            names=self.chain.names,
            seeds=self.chain.seeds(),
            range=span,
            joint=msgspec.UNSET if joint is None else Joint(k=joint[0], tokens=sorted(joint[1])),
            policy=str(self.network.genesis.parameters["policy"]),
            text_hash=sha256(text.encode()).hexdigest(),
            text_language=language,
            now_ms=self.network.now_ms(),
            rand=self.network.rand,
        )
        before = set(state.grants)
        published = await self._publish([message], on_mark=on_mark)
        (made,) = set(self.chain.state.grants) - before
        return Granted(grant=made, published=published)

    async def revoke(self, grant: str, *, on_mark: Callable[[str, float], None] | None = None) -> Published:
        """End a grant and move what it let somebody read up an epoch, in one message.

        The receipts are kept in the folder. Raises VerificationError `unknown-grant`, `already-revoked`; as `refresh`.
        """
        await self._load()
        fresh: dict[str, SealingKey] = {}
        state = await self.refresh(meanwhile=lambda: fresh.update(self._fresh(self._readable(grant))))
        messages, _ = make_revocation_with_rekey(
            self.writer(),
            state,
            grant,
            seeds=self.chain.seeds(),
            recipients=await self._recipients(state, self._readable(grant), without=grant),
            now_ms=self.network.now_ms(),
            rand=self.network.rand,
            fresh=fresh,
        )
        published = await self._publish(messages, on_mark=on_mark)
        self.state.save(f"receipts.{grant}", sorted(published.receipts.items()))
        return published

    def _readable(self, grant: str) -> Sequence[str]:
        """The compartments that a grant lets somebody read."""
        given = self.chain.state.grants.get(grant)
        return (given.terms.compartments or ()) if given is not None and "read" in given.terms.rights else ()

    def _fresh(self, compartments: Sequence[str]) -> dict[str, SealingKey]:
        """New keys, which the own chain finds again when it checks the rekey that they are for."""
        return {one: self.chain.derived(self.network.rand(32)) for one in compartments}

    async def rekey(self, categories: Sequence[str] | None = None) -> Published:
        """Move categories (None: all compartments) up an epoch, as after a rotation or a merge."""
        state = await self.refresh()
        named = None if categories is None else [self.chain.compartment_of(name) for name in categories]
        compartments = sorted(state.compartments) if named is None else named
        made = make_rekey(
            self.writer(),
            state,
            compartments,
            seeds=self.chain.seeds(),
            recipients=await self._recipients(state, compartments),
            now_ms=self.network.now_ms(),
            rand=self.network.rand,
            fresh=self._fresh(compartments),
        )
        return await self._publish([made.message])

    async def file(self, record: str, category: str, *, consent_key: bytes) -> Published:
        """Move a record (hex id) into a category for later decisions; `consent_key` is its K_consent."""
        state = await self.refresh()
        message = make_file(
            self.writer(),
            state,
            record=record,
            compartment=self.chain.compartment_of(category),
            consent_key=consent_key,
            now_ms=self.network.now_ms(),
        )
        return await self._publish([message])

    async def merge(self, keep: str) -> Published:
        """Repair a fork, keeping the grants of the branch whose head is `keep`; a rekey of everything should follow."""
        state = await self.refresh()
        return await self._publish([make_merge(self.writer(), state, keep, now_ms=self.network.now_ms())])

    def grants(self) -> list[GrantState]:
        """All grants ever given, newest last; `revoked` and `terms.expires` say whether they stand."""
        return sorted(self.chain.state.grants.values(), key=lambda given: given.terms.seq)

    def receipts_of(self, grant: str) -> dict[str, list[bytes]]:
        """The custodians' receipts of a grant's revocation, by node."""
        return dict(self.state.load(f"receipts.{grant}", list[tuple[str, list[bytes]]]) or [])

    async def settle(self) -> Published:
        """Send the newest events again to custodians that lack them, as after one was down; returns who has them."""
        await self.refresh()
        return await self._publish(self.chain.messages[-8:])

    async def _recipients(
        self, state: ConsentState, compartments: Sequence[str], *, without: str = ""
    ) -> dict[str, tuple[str, SealingPublicKey] | None]:
        """Keys of who may still read; None for a deactivated identity."""
        remaining = {given.terms.grantee for grant, given in state.grants.items() if grant != without}
        named = sorted(remaining_grantees(state, compartments, now_ms=self.network.now_ms()).keys() & remaining)

        async def recipient(grantee: str) -> tuple[str, SealingPublicKey] | None:
            try:
                return await self.network.recipient(grantee)
            except NotFoundError as error:
                if error.code != "unknown-keys":
                    raise
                return None

        return dict(zip(named, await asyncio.gather(*map(recipient, named)), strict=True))

    async def _publish(
        self, messages: list[EventMessage], *, on_mark: Callable[[str, float], None] | None = None
    ) -> Published:
        """Take events into the own chain, then send them to all custodians."""
        await self._take(messages)
        self._save()
        who = await self.network.subject(self.subject)
        sending = EventsSent.of(messages)
        done: Spread[list[bytes]] = await spread(
            who.custodians,
            lambda node: self._send_from_behind(node, sending),
            marks=consent_marks(who.n, who.threshold, who.faults),
            on_mark=on_mark,
        )
        if not done.acks:
            raise UnavailableError(
                "not-enough-custodians",
                f"no custodian took the change ({gist(done.failures)}); it is kept here: try again",
            )
        return Published(
            seq=self.chain.state.seq,
            head=self.chain.state.head,
            n=who.n,
            reached=done.reached,
            failures=done.failures,
            receipts=done.acks,
        )

    async def _send_from_behind(self, node: Node, sending: EventsSent) -> list[bytes]:
        """As `_send`; a custodian that lacks an event before these gets the newest of the chain with them at once,
        rather than refuse everything until its peers have told it."""
        try:
            return await self._send(node, sending)
        except ConflictError as behind:
            recent = self.chain.messages[-_SENT_ALONG_MAX:]
            if behind.code not in ("bad-sequence", "bad-prev") or len(recent) <= len(sending.ids):
                raise
        along = EventsSent.of(recent)
        receipts = await self._send(node, along)
        return [receipt for one, receipt in zip(along.ids, receipts, strict=True) if one in sending.ids]

    async def _send(self, node: Node, sending: EventsSent) -> list[bytes]:
        answer = await self.network.wire.post(node.url, "/v1/consent", sending.body)
        said = decoded(answer, ConsentReceipts, now_ms=self.network.now_ms)
        return sending.checked(said, node, network=self.network.id)
