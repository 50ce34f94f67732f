"""Submissions: prove everything a custodian can prove, decide whether the author may contribute, log, keep.

A receipt means: this node can do its part later. It has opened its own release lock, compared each share with the
signed commitment, and has share and ciphertext on disk under keys that are on disk too (trust row 9).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from careledger.access import Receipt
from careledger.access.entry import SALT_BYTES, with_manifests
from careledger.consent import Decision, decide_contribution, overtaken
from careledger.custody.custodian import Custodian
from careledger.custody.shelf import WRAPPING_BYTES, wrap
from careledger.custody.store import Row
from careledger.custody.writer import Batch, Plan
from careledger.errors import ConflictError, Error, NotPermittedError, VerificationError
from careledger.identity import Affiliation, Document, check_affiliation
from careledger.records import CheckedSubmission, Submission, check_steps, claimed_author, open_statement
from careledger.records.locks import decode_lock
from careledger.seal import Envelope, decode, parse_keyid

__all__ = ["Acceptance", "Extra"]

_DAY_MS = 86_400_000


class Extra(msgspec.Struct, frozen=True, array_like=True):
    """What a submission came with besides its signed parts, to hand it on to peers as it came."""

    filler: bytes
    affiliation: bytes | None
    grant: str | None


class _Contribution(msgspec.Struct, frozen=True, kw_only=True):
    """consent.ContributionView of a checked submission."""

    author: str
    for_: str | None
    affiliated: tuple[str, int] | None
    subject: str
    compartments: Sequence[tuple[str, int, int]]


class _Kept(msgspec.Struct):
    decision: Decision | None
    index: int
    salt: bytes
    body: bytes


class Acceptance:
    """The part of a custodian that answers authors. One submission is in preparation at a time."""

    def __init__(self, custodian: Custodian) -> None:
        self.custodian = custodian
        self._preparing = asyncio.Lock()
        self.next_id = 0
        custodian.on_forget(self.reload)
        self.reload()

    def reload(self) -> None:
        """The next free row id, from the store."""
        row = self.custodian.store.reading.execute("SELECT coalesce(max(id), 0) + 1 FROM submissions").fetchone()
        self.next_id = int(row[0])

    async def accept(self, submission: Submission, *, via: str | None = None) -> Receipt:
        """Keep a submission; the receipt is that of its entry. Known ones are answered again, with nothing done.

        `via` is the peer that handed on what it had kept before: keys may be superseded since, and what has been
        revoked or moved on meanwhile is no reason to lack it. Raises the errors of records.check_steps;
        NotPermittedError with the decision's reason; ConflictError `stale-epoch` (details: newest keys by compartment),
        `stale-document`, `duplicate`; NotFoundError `no-document`.
        """
        async with self._preparing:
            custodian = self.custodian
            author = claimed_author(submission.envelope)
            author_key = custodian.keyring.verify_key(author, superseded=via is not None)
            statement = open_statement(submission.envelope, network=custodian.network, author_key=author_key)
            document = self._document(statement.subject, statement.subject_seq, peers=via is not None)
            if custodian.node not in document.custodians:
                raise NotPermittedError(
                    "not-a-custodian", "this node is no custodian of that subject; see its document"
                )
            own = self._own_keyid(submission)
            steps = check_steps(
                submission,
                network=custodian.network,
                author_key=author_key,
                custodian=own,
                sealing_key=custodian.sealing[own],
                place=document.custodians.index(custodian.node) + 1,
                n=len(document.custodians),
                now_ms=custodian.now_ms(),
            )
            while True:
                try:
                    next(steps)
                except StopIteration as done:
                    checked: CheckedSubmission = done.value
                    break
                await asyncio.sleep(0)
            self._check_recipients(checked, document)
            now = statement.time if via is not None else custodian.now_ms()
            affiliation = self._affiliation(checked, now)
            done_, committed = await custodian.writer.submit(_SubmissionJob(self, checked, affiliation, via))
        assert isinstance(done_, _Kept)
        if done_.decision is not None and not done_.decision.allow:
            raise self._refusal(done_.decision.reason, checked)
        if committed is None:
            return await custodian.receipt_of(done_.index)
        return custodian.receipt(done_.salt, done_.body, done_.index, committed)

    def _document(self, subject: str, sequence: int, *, peers: bool) -> Document:
        state = self.custodian.directory.identity(subject)
        if state is None:
            raise NotPermittedError("unknown-identity", f"the directory knows no identity {subject}: enrol it first")
        if not peers and sequence != state.sequence:
            raise ConflictError(
                "stale-document",
                f"the subject is at operation {state.sequence}, not {sequence}: read its document and seal again",
                details={"sequence": state.sequence},
            )
        return self.custodian.people.document(subject, sequence if peers else None).document

    def _own_keyid(self, submission: Submission) -> str:
        """The keyid under which the release lock for this node is sealed: the current one, or one from before."""
        named = {decode_lock(data).to for data in submission.locks}
        return next((key_id for key_id in self.custodian.sealing if key_id in named), self.custodian.keyid)

    def _check_recipients(self, checked: CheckedSubmission, document: Document) -> None:
        """The release locks are to exactly the document's custodians, the owner lock to a key of the subject."""
        released = {parse_keyid(one.lock.to)[0] for one in checked.locks if one.lock.use == "release"}
        if released != set(document.custodians):
            raise VerificationError(
                "bad-lock", "the release locks are not for the custodians of the subject's document"
            )

    def _affiliation(self, checked: CheckedSubmission, now_ms: int) -> Affiliation | None:
        statement, data = checked.statement, checked.submission.affiliation
        if statement.for_ is msgspec.UNSET or data is None:
            return None
        try:
            return check_affiliation(
                decode(data, Envelope, size_max=16 << 10),
                keys=self.custodian.keyring.of(statement.for_, superseded=True),
                network=self.custodian.network,
                person=parse_keyid(statement.author)[0],
                organisation=statement.for_,
                now_ms=now_ms,
            )
        except Error:
            return None

    def _refusal(self, reason: str, checked: CheckedSubmission) -> Error:
        custodian = self.custodian
        if reason == "stale-epoch":
            state = custodian.chains.state(custodian.people.subject(checked.statement.subject))
            named = {record.manifest.compartment for record in checked.records}
            newest: dict[str, object] = {
                compartment: list(state.compartments[compartment]) for compartment in sorted(named)
            }
            return ConflictError(
                "stale-epoch", "a compartment has a newer key: seal again with the keys given", details=newest
            )
        return NotPermittedError(
            reason, f"the author may not contribute these records here ({reason}); nothing was kept"
        )


class _SubmissionJob:
    """Decides one checked submission and plans what to keep; see writer.Job."""

    light = False

    def __init__(
        self, acceptance: Acceptance, checked: CheckedSubmission, affiliation: Affiliation | None, via: str | None
    ) -> None:
        self._acceptance = acceptance
        self._checked = checked
        self._affiliation = affiliation
        self._via = via

    def plan(self, batch: Batch) -> Plan:
        custodian, checked = self._acceptance.custodian, self._checked
        statement = checked.statement
        author = parse_keyid(statement.author)[0]
        known = custodian.store.reading.execute(
            "SELECT entry, message FROM submissions WHERE author = ? AND submission = ?",
            (author, bytes.fromhex(statement.submission)),
        ).fetchone()
        if known is not None:
            if known[1] != checked.message_id:
                raise ConflictError("duplicate", "the author has used that submission id before: draw a fresh one")
            return Plan(answer=_Kept(None, known[0], b"", b""))
        subject = custodian.people.subject(statement.subject)
        state = custodian.chains.state(subject)
        decision, counters = self._decide(batch, subject, author)
        allowed = decision.allow or (self._via is not None and overtaken(state, decision))
        salt = custodian.rand(32)
        affiliation = checked.submission.affiliation if self._affiliation is not None else None
        body = custodian.body(
            batch,
            batch.index,
            state,
            kind="keep",
            decision="accept" if allowed else "deny",
            reason=decision.reason,
            counters=counters,
            envelopes=[checked.submission.envelope, *([affiliation] if affiliation else [])],
            subject=statement.subject,
            grant=decision.grant,
            details=None if self._via is None else {"via": self._via},
        )
        plan = Plan(entries=[("keep", salt, body, subject)])
        if not allowed:
            plan.answer = _Kept(decision, batch.index, salt, body)
            return plan
        assert subject is not None, "who has a document here is a subject here"
        plan.answer = _Kept(None, batch.index, salt, body)
        number, self._acceptance.next_id = self._acceptance.next_id, self._acceptance.next_id + 1
        plan.rows = self._submission_rows(batch, number, subject, author, inbox=decision.reason == "inbox")
        self._plan_records(batch, plan, number, subject)
        return plan

    def _decide(self, batch: Batch, subject: int | None, author: str) -> tuple[Decision, dict[str, int]]:
        custodian, statement = self._acceptance.custodian, self._checked.statement
        counts: dict[tuple[str, int], int] = {}
        for record in self._checked.records:
            place = (record.manifest.compartment, record.manifest.epoch)
            counts[place] = counts.get(place, 0) + 1
        affiliation = self._affiliation
        contribution = _Contribution(
            author=author,
            for_=None if statement.for_ is msgspec.UNSET else statement.for_,
            affiliated=None if affiliation is None else (affiliation.organisation, affiliation.until),
            subject=statement.subject,
            compartments=[(compartment, epoch, count) for (compartment, epoch), count in sorted(counts.items())],
        )
        counters = custodian.limits()
        counters["inbox_records"] = self._inbox_records(batch, subject, author)
        counters["inbox_records_max"] = int(str(custodian.directory.parameter("inbox_quota")))
        manager = custodian.people.manager(statement.subject)
        state = custodian.chains.state(subject)
        now = statement.time if self._via is not None else batch.now_ms
        decision = decide_contribution(state, custodian.view, contribution, counters, now, manager=manager)
        return decision, counters

    def _inbox_records(self, batch: Batch, subject: int | None, author: str) -> int:
        if subject is None:
            return 0
        row = self._acceptance.custodian.store.reading.execute(
            "SELECT coalesce(sum(inbox), 0) FROM submissions "
            "WHERE subject = ? AND author = ? AND received > ? AND inbox > 0",
            (subject, author, batch.now_ms - _DAY_MS),
        ).fetchone()
        return int(row[0])

    def _submission_rows(self, batch: Batch, number: int, subject: int, author: str, *, inbox: bool) -> list[Row]:
        checked = self._checked
        sent = checked.submission
        extra = msgspec.msgpack.encode(Extra(sent.filler, sent.affiliation, sent.grant))
        rows: list[Row] = [
            (
                "INSERT INTO submissions VALUES(?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    number,
                    bytes.fromhex(checked.statement.submission),
                    subject,
                    author,
                    checked.message_id,
                    batch.index,
                    batch.now_ms,
                    sent.envelope,
                    b"".join(sent.manifest_leaves),
                    b"".join(sent.lock_leaves),
                    extra,
                    len(checked.records) if inbox else 0,
                ),
            )
        ]
        rows += [("INSERT INTO locks VALUES(?,?,?)", (number, one.position, one.lock_bytes)) for one in checked.locks]
        return rows

    def _plan_records(self, batch: Batch, plan: Plan, number: int, subject: int) -> None:
        custodian, checked = self._acceptance.custodian, self._checked
        records, first = checked.records, batch.index + 1
        author = parse_keyid(checked.statement.author)[0]
        manifests = [record.manifest_bytes for record in records]
        body = custodian.body(
            batch,
            first,
            custodian.chains.state(subject),
            kind="keep",
            decision="accept",
            reason="manifest",
            manifest=manifests[0],
        )
        bodies = with_manifests(body, index=first, manifests=manifests)
        salts, keys = custodian.rand(SALT_BYTES * len(records)), custodian.rand(WRAPPING_BYTES * len(records))
        kept: list[Row] = []
        blobs: list[Row] = []
        for at, (record, (body, manifest_at)) in enumerate(zip(records, bodies, strict=True)):
            index, manifest = first + at, record.manifest
            plan.entries.append(("keep", salts[SALT_BYTES * at : SALT_BYTES * (at + 1)], body, None))
            wrapped = wrap(
                keys[WRAPPING_BYTES * at : WRAPPING_BYTES * (at + 1)],
                record=record.record,
                share=record.share,
                ciphertext=record.ciphertext,
            )
            plan.keys.append((index, wrapped.key))
            kept.append(
                (
                    "INSERT INTO records VALUES(?,?,?,?,?,?,?,?,?,?,?)",
                    (
                        index,
                        record.record,
                        subject,
                        number,
                        record.position,
                        manifest.compartment,
                        manifest.epoch,
                        manifest.recorded,
                        author,
                        manifest_at,
                        len(record.manifest_bytes),
                    ),
                )
            )
            blobs.append(("INSERT INTO blobs VALUES(?,?,?)", (index, wrapped.share, wrapped.ciphertext)))
        plan.rows += kept
        plan.rows += blobs
