"""Writing records: FHIR in, sealed submissions out to all custodians, and a report that counts what they keep.

One file is read or one submission sealed at a time, in a worker thread, while a few are on their way: more at once
would only take the interpreter from each other and from the event loop, for which the custodians then wait. A
submission sealed to keys that a custodian knows to be old is sealed once more with the newest and a fresh secret. What
is kept is remembered, so that importing twice changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from careledger.access import ConsentAnswer, ReadConsent, Receipt, SignedRead, encode_receipt
from careledger.client.asking import Pace, first_answer
from careledger.client.chain import GrantsView, signer_of
from careledger.client.drafts import Batch, KeptIndex, Places, batches, with_replaced
from careledger.client.exchange import gist
from careledger.client.keys import HeldKeys, State
from careledger.client.network import Network, Subject
from careledger.client.nodes import Node
from careledger.client.organisation import Staff
from careledger.client.receipts import checked_keep_receipt
from careledger.client.spread import Spread, spread, submission_marks
from careledger.consent import EventMessage
from careledger.errors import Error, NotPermittedError, UnavailableError
from careledger.fhir import FileReading, PatientIdentity, ReadOptions, Report, read_file, refuse_other_person
from careledger.records import SubmissionPlan, encode_submission, record_id, seal_submission
from careledger.seal import Envelope, SealingKey, SealingPublicKey, decode, encode, envelope_message_id, sign, unb64

__all__ = ["Author", "Imported", "Progress", "Sent"]

IN_FLIGHT: Final = 3
"""Submissions on their way at once: more only makes custodians' other answers slower (docs/results.md)."""
_RESEAL: Final = frozenset({"stale-epoch", "stale-document", "bad-share"})
"""What a custodian says when the subject's keys or document, or its own key, moved on since they were read."""
_ENVELOPE_MAX: Final = 1 << 16
_PARSED_MAX: Final = 1_000
_VIEW_AGE_MS: Final = 10_000
"""A grant given since is worth another look: without it everything would go to the inbox."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an import is: records sealed and kept of all that there are to send."""

    records: int
    sealed: int
    kept: int


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """One submission: its records (hex ids), receipts by node, who failed and why, milliseconds to each mark."""

    submission: str
    records: list[str]
    receipts: dict[str, bytes]
    failures: dict[str, Error]
    reached: dict[str, float]


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file. `resources` counts distinct (fullUrl, SHA-256) that were sent, `already` those that were
    kept before. `kept`, `readable`, `safe` count records at f+1, t, t+f receipts; `refused` are submissions that not
    even f+1 custodians took, with the reason."""

    report: Report | None
    records: int
    resources: int
    already: int
    kept: int
    readable: int
    safe: int
    sent: list[Sent]
    refused: list[Error]


class Author:
    """A person who writes, for the organisation of a staff pass, or a subject about itself."""

    def __init__(
        self, network: Network, keys: HeldKeys, *, state: State, staff: Staff | None = None, own: Any = None
    ) -> None:
        """`own` is the Patient of a subject that writes about itself."""
        self.network = network
        self.keys = keys
        self.state = state
        self.staff = staff
        self.pace = Pace()
        self.at_work = asyncio.Lock()
        """Held while a file is read or a submission sealed, whichever import it belongs to."""
        self._own = own
        self._views: dict[str, tuple[int, GrantsView]] = {}
        self._parsed: dict[str, SealingPublicKey] = {}

    # What the author knows of the subject

    async def places(self, subject: str, *, fresh: bool = False) -> Places:
        """Where this author may write: from the subject's own signed events, never from a custodian's word.

        Raises NotPermittedError `no-grant`; UnavailableError `not-enough-custodians`.
        """
        if self._own is not None and subject == self.keys.token:
            return await self._own_places()
        now = self.network.now_ms()
        read_at, view = self._views.get(subject, (0, None))
        if view is None or fresh or now - read_at > _VIEW_AGE_MS:
            view = GrantsView(network=self.network.id, subject=subject)
            await self._read(view, "grants")
            await self._read(view, "keys")
            self._views[subject] = now, view
        newest, inbox = view.public_keys()
        standing = [g for g in view.standing(self.network.now_ms()) if "contribute" in g.rights]
        writable = {compartment for grant in standing for compartment in grant.compartments or ()}
        by_category = {name: compartment for compartment, name in view.names.items() if compartment in writable}
        keys = {place: key for place, key in newest.items() if place in writable or place == inbox}
        return Places(by_category, keys, inbox, standing[0].grant if standing else None)

    def parsed(self, epoch: int, key: str) -> tuple[int, SealingPublicKey]:
        """A compartment's epoch with its parsed key; parsing costs as much as sealing, so it is done once."""
        found = self._parsed.get(key)
        if found is None:
            if len(self._parsed) >= _PARSED_MAX:
                self._parsed.clear()
            found = self._parsed[key] = SealingPublicKey(unb64(key))
        return epoch, found

    async def _own_places(self) -> Places:
        state = await self._own.refresh()
        names: dict[str, str] = self._own.chain.names
        by_category = {name: compartment for compartment, name in names.items()}
        return Places(by_category, dict(state.compartments), state.inbox, None)

    async def _read(self, view: GrantsView, what: Any) -> None:
        """Ask one custodian for a view of the chain, others when it fails or is slow; a refusal leaves it as it is."""
        who = await self.network.subject(view.subject)
        read = ReadConsent(
            network=self.network.id,
            who=self.keys.token,
            subject=view.subject,
            view=what,
            from_seq=1,
            time=self.network.now_ms(),
            nonce=self.network.rand(16).hex(),
            for_=msgspec.UNSET if self.staff is None else self.staff.organisation,
        )
        envelope = encode(sign(ReadConsent.TYPE, encode(read), [self.keys.signer]))
        signed = SignedRead(request=envelope, affiliation=None if self.staff is None else self.staff.affiliation)

        async def ask(node: Node) -> bool:
            answer = await self.network.post(node, "/v1/consent/read", signed, ConsentAnswer)
            messages = [EventMessage(envelope=data, boxes=boxes) for data, boxes in answer.events]
            keys = await self.network.consent_keys(view.subject, map(signer_of, messages))
            view.add(messages, keys=keys, key_of=self._key_of)
            return True

        told, failures = await first_answer(who.custodians, ask, pace=self.pace)
        if told:
            return
        denials = [error for error in failures.values() if isinstance(error, NotPermittedError)]
        if not denials:
            raise UnavailableError(
                "not-enough-custodians", f"no custodian told the subject's public keys: {gist(failures)}; try again"
            )
        if what == "keys":
            raise denials[0]

    def _key_of(self, to: str) -> SealingKey:
        if self.staff is not None and to.partition("#")[0] == self.staff.organisation:
            return self.staff.key_of(to)
        return self.keys.sealing(to)

    # Imports

    async def import_file(
        self,
        subject: str,
        name: str,
        chunks: Iterable[bytes],
        *,
        options: ReadOptions | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        confirmed: bool = False,
    ) -> Imported:
        """Read one FHIR file and import it; see `import_reading`. Raises MalformedError as fhir.read_file."""
        data = list(chunks)
        async with self.at_work:
            reading = await asyncio.to_thread(read_file, name, data, options=options or ReadOptions())
        return await self.import_reading(subject, reading, on_progress=on_progress, confirmed=confirmed)

    async def import_reading(
        self,
        subject: str,
        reading: FileReading,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        confirmed: bool = False,
    ) -> Imported:
        """Seal a file's records and hand them to all custodians of `subject`; returns when each has answered.

        `confirmed`: the person said that the file is about the subject although it names somebody else.
        Raises ConflictError `other-person`; NotPermittedError when no record could be sent (`no-grant`, …);
        UnavailableError `not-enough-custodians` likewise. Where some submissions were kept, refusals are in the result.
        """
        if reading.patient is not None and not confirmed:
            self._check_person(subject, reading.patient)
        index = self._index(subject)
        todo, already = batches(reading.records, index)
        total = sum(len(batch.drafts) for batch in todo)
        sending = _Sending(self, subject, index, total, on_progress)
        await sending.run(todo)
        done = sending.sent
        if sending.refused and not done:
            raise sending.refused[0]
        if done:
            self._save_index(subject, index)
        if reading.patient is not None and (done or already):
            self.state.save(f"person.{subject}", reading.patient)
        count = {mark: sum(len(s.records) for s in done if mark in s.reached) for mark in ("kept", "readable", "safe")}
        return Imported(
            report=reading.report,
            records=sum(len(one.records) for one in done),
            resources=len(sending.resources),
            already=already,
            kept=count["kept"],
            readable=count["readable"],
            safe=count["safe"],
            sent=done,
            refused=sending.refused,
        )

    def _check_person(self, subject: str, found: PatientIdentity) -> None:
        known = self.state.load(f"person.{subject}", PatientIdentity)
        if known is not None:
            refuse_other_person(known=known, found=found)

    def _index(self, subject: str) -> KeptIndex:
        saved = self.state.load(f"kept.{subject}", tuple[dict[bytes, bytes], dict[bytes, bytes]])
        return KeptIndex(*saved) if saved is not None else KeptIndex()

    def _save_index(self, subject: str, index: KeptIndex) -> None:
        self.state.save(f"kept.{subject}", (index.resources, index.urls))


class _Sending:
    """One import on its way."""

    def __init__(
        self,
        author: Author,
        subject: str,
        index: KeptIndex,
        total: int,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.author = author
        self.network = author.network
        self.subject = subject
        self.index = index
        self.total = total
        self.on_progress = on_progress
        self.sealed = 0
        self.kept = 0
        self.sent: list[Sent] = []
        self.refused: list[Error] = []
        self.resources: set[tuple[str, bytes]] = set()
        self._flight = asyncio.Semaphore(IN_FLIGHT)

    async def run(self, todo: Sequence[Batch]) -> None:
        """Prepare one batch after the other; the pool of one thread ends with the import."""
        with ThreadPoolExecutor(1, thread_name_prefix="seal") as pool:
            async with asyncio.TaskGroup() as group:
                under_way: set[asyncio.Task[None]] = set()
                for waiting in todo:
                    await self._flight.acquire()
                    if waiting.waits and under_way:
                        await asyncio.wait(under_way)
                    batch = with_replaced(waiting, self.index)
                    try:
                        body, sent, who = await self._seal(batch, pool, fresh=False)
                    except Error as error:
                        self._flight.release()
                        self.refused.append(error)
                        continue
                    under_way.add(group.create_task(self._deliver(batch, body, sent, who, pool)))

    async def _seal(self, batch: Batch, pool: ThreadPoolExecutor, *, fresh: bool) -> tuple[bytes, Sent, Subject]:
        network, author = self.network, self.author
        who = await network.subject(self.subject, fresh=fresh)
        places = await author.places(self.subject, fresh=fresh)
        staff = author.staff
        used = places.of(draft.compartment for draft in batch.drafts)
        plan = SubmissionPlan(
            network=network.id,
            subject=self.subject,
            subject_seq=who.identity.state.sequence,
            owner=await network.sealing_key(self.subject),
            author=author.keys.keyid,
            for_=None if staff is None else staff.organisation,
            compartments={place: author.parsed(*places.keys[place]) for place in set(used.values())},
            custodians=await network.custodian_keys(who.custodians),
            threshold=who.threshold,
            records=batch.plans(used, contributors=[{"token": author.keys.token, "parts": 1000}]),
        )

        def seal() -> tuple[bytes, str]:
            made = seal_submission(plan, signer=author.keys.signing, now_ms=network.now_ms(), rand=network.rand)
            made = msgspec.structs.replace(
                made, affiliation=None if staff is None else staff.affiliation, grant=places.grant
            )
            return encode_submission(made), made.envelope.decode()

        async with author.at_work:
            body, envelope = await asyncio.get_running_loop().run_in_executor(pool, seal)
        self.sealed += len(batch.drafts)
        self._tell()
        return body, self._sent(envelope.encode(), len(batch.drafts)), who

    def _sent(self, envelope: bytes, count: int) -> Sent:
        """What will have been sent: the ids follow from the envelope."""
        parsed = decode(envelope, Envelope, size_max=_ENVELOPE_MAX)
        statement = msgspec.json.decode(unb64(parsed.payload), type=_Submission)
        network, submission = bytes.fromhex(self.network.id), bytes.fromhex(statement.submission)
        author = self.author.keys.token
        ids = [record_id(network, self.subject, author, submission, at).hex() for at in range(count)]
        return Sent(submission=envelope_message_id(parsed).hex(), records=ids, receipts={}, failures={}, reached={})

    async def _deliver(self, batch: Batch, body: bytes, sent: Sent, who: Subject, pool: ThreadPoolExecutor) -> None:
        try:
            done = await self._spread(body, sent, who)
            if "kept" not in done.reached and any(e.code in _RESEAL for e in done.failures.values()):
                body, sent, who = await self._seal(batch, pool, fresh=True)
                done = await self._spread(body, sent, who)
            if "kept" not in done.reached:
                self.refused.append(_refusal(who, done))
                return
            self._keep(
                batch, msgspec.structs.replace(sent, receipts=done.acks, failures=done.failures, reached=done.reached)
            )
        except Error as error:
            self.refused.append(error)
        finally:
            self._flight.release()

    async def _spread(self, body: bytes, sent: Sent, who: Subject) -> Spread[bytes]:
        message_id = bytes.fromhex(sent.submission)

        async def send(node: Node) -> bytes:
            answer = await self.network.wire.post(node.url, "/v1/submission", body)
            receipt = self.network.unpacked(answer, Receipt)
            checked_keep_receipt(receipt, node, network=self.network.id, message_id=message_id)
            return encode_receipt(receipt)

        return await spread(who.custodians, send, marks=submission_marks(who.n, who.threshold, who.faults))

    def _keep(self, batch: Batch, sent: Sent) -> None:
        self.sent.append(sent)
        for record, draft in zip(sent.records, batch.drafts, strict=True):
            self.index.add(bytes.fromhex(record), draft.resources, travelling=len(draft.travelling))
            self.resources.update(draft.resources)
        self.kept += len(sent.records)
        self._tell()

    def _tell(self) -> None:
        if self.on_progress is not None:
            self.on_progress(Progress(records=self.total, sealed=min(self.sealed, self.total), kept=self.kept))


class _Submission(msgspec.Struct):
    submission: str


def _refusal(who: Subject, done: Spread[bytes]) -> Error:
    """Why a submission was not kept: the custodians' common reason, else who failed."""
    denials = [error for error in done.failures.values() if not isinstance(error, UnavailableError)]
    if len(denials) > who.faults:
        codes = [error.code for error in denials]
        return next(error for error in denials if error.code == max(codes, key=codes.count))
    return UnavailableError(
        "not-enough-custodians",
        f"{len(done.acks)} of {who.n} custodians kept the records, {who.faults + 1} are needed: "
        f"{gist(done.failures)}; import again",
    )
