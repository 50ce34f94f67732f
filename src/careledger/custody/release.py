"""Access: prove a request, decide it and log it in one step, and only then hand out shares and ciphertexts.

Nothing that a reader could use exists before the entry is on disk: shares are unwrapped, and sealed to the reader's
fresh key, after the commit (trust row 3). Shares and answers are never stored; a repeated message is decided again.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import msgspec

from careledger.access import (
    FRESH_MS,
    AccessAnswer,
    AccessMessage,
    CheckedRequest,
    Receipt,
    check_request,
    seal_answer,
)
from careledger.consent import Decision, decide
from careledger.custody.custodian import Custodian
from careledger.custody.shelf import RecordRow, Shelf
from careledger.custody.store import Row
from careledger.custody.writer import Batch, Plan
from careledger.errors import VerificationError
from careledger.identity import Affiliation, open_custodian_share
from careledger.seal import Envelope, SealingPublicKey, envelope_message_id

__all__ = ["Release"]

_SEEN_MAX = 400_000
"""Requests remembered for as long as they are fresh: 240 s at 1,600 a second."""
_AFFILIATIONS_MAX = 20_000
_HOUR_MS = 3_600_000


class _Seen(msgspec.Struct, frozen=True):
    """Where an earlier copy of a message was logged, and what was decided."""

    index: int
    allowed: bool
    until: int


class _Envelopes(msgspec.Struct):
    received: int
    decision: str
    envelopes: list[Envelope]


class Release:
    """The part of a custodian that answers readers."""

    def __init__(self, custodian: Custodian, shelf: Shelf) -> None:
        self.custodian = custodian
        self.shelf = shelf
        self.affiliations: OrderedDict[str, Affiliation] = OrderedDict()
        self.seen: OrderedDict[bytes, _Seen] = OrderedDict()
        self.met: set[bytes] = set()
        self._hour = 0
        self._requests: dict[str, int] = {}
        custodian.on_forget(self._reload)
        self._reload()

    def _reload(self) -> None:
        """What must survive a restart: requests that are still fresh, and whom this custodian has met."""
        self.seen.clear()
        self.affiliations.clear()
        self.met = {row[0] for row in self.custodian.store.reading.execute("SELECT id FROM seen")}
        cutoff = self.custodian.now_ms() - 2 * FRESH_MS
        rows = self.custodian.store.reading.execute("SELECT idx, body FROM entries WHERE kind = 1 ORDER BY idx DESC")
        found: list[tuple[bytes, _Seen]] = []
        for index, body in rows:
            entry = msgspec.json.decode(body, type=_Envelopes)
            if entry.received < cutoff or len(found) >= _SEEN_MAX:
                break
            seen = _Seen(index, entry.decision == "allow", entry.received + 2 * FRESH_MS)
            found.append((envelope_message_id(entry.envelopes[0]), seen))
        rows.close()
        self.seen.update(reversed(found))

    def _remember(self, message_id: bytes, seen: _Seen, now_ms: int) -> None:
        self.seen[message_id] = seen
        while self.seen:
            oldest = next(iter(self.seen))
            if self.seen[oldest].until > now_ms and len(self.seen) <= _SEEN_MAX:
                break
            del self.seen[oldest]

    def count(self, reader: str, now_ms: int) -> int:
        """Requests of this reader in the running hour, this one not counted; a restart begins to count anew."""
        hour = now_ms // _HOUR_MS
        if hour != self._hour:
            self._hour, self._requests = hour, {}
        return self._requests.get(reader, 0)

    def add_to_count(self, reader: str) -> None:
        self._requests[reader] = self._requests.get(reader, 0) + 1

    def check(self, message: AccessMessage) -> CheckedRequest:
        """Prove a message. Raises what access.check_request raises, and VerificationError `affiliation-needed`: the
        affiliation is named by its id, and this node doesn't have it (any more)."""
        checked = check_request(
            message,
            keys=self.custodian.keyring.everybody,
            network=self.custodian.network,
            now_ms=self.custodian.now_ms(),
            affiliations=self.affiliations,
        )
        request = checked.request
        if request.affiliation is not msgspec.UNSET and checked.affiliation is None and message.affiliation is None:
            raise VerificationError(
                "affiliation-needed", "this node does not have the affiliation that is named: send it along"
            )
        return checked

    async def answer(self, checked: CheckedRequest) -> AccessAnswer:
        """Decide a proven request, log it, and answer. A denial is an answer too, with its receipt."""
        fresh_key = SealingPublicKey(checked.key)
        job = _AccessJob(self, checked)
        done, committed = await self.custodian.writer.submit(job)
        assert isinstance(done, _Decided)
        if committed is None:
            receipt = await self.custodian.receipt_of(done.index)
        else:
            receipt = self.custodian.receipt(done.salt, done.body, done.index, committed)
        if not done.decision.allow:
            return AccessAnswer(receipt=receipt, denied=done.decision.reason)
        return self._released(checked, done, receipt, fresh_key)

    def _released(
        self, checked: CheckedRequest, done: _Decided, receipt: Receipt, fresh_key: SealingPublicKey
    ) -> AccessAnswer:
        shares: list[tuple[bytes, bytes]] = []
        submissions: list[bytes] = []
        listed: list[bytes] = []
        if checked.records is None:
            listed = self.shelf.manifests(done.rows)
            shares = self._managed_share(checked)
        else:
            own = checked.basis in ("owner", "managed")
            shares = list(zip([row.record_id for row in done.rows], self.shelf.shares(done.rows), strict=True))
            if checked.content:
                submissions = self.shelf.views(done.rows, own=own)
        sealed = b""
        if shares:
            sealed = seal_answer(
                shares,
                key=fresh_key,
                network=self.custodian.network,
                request=checked.id,
                node=self.custodian.node,
                index=done.index,
            )
        return AccessAnswer(receipt=receipt, sealed=sealed, submissions=submissions, listed=listed)

    def _managed_share(self, checked: CheckedRequest) -> list[tuple[bytes, bytes]]:
        """The share of K_c that a manager needs, under an empty record id (DESIGN 5.1)."""
        if checked.basis != "managed":
            return []
        stored = self.custodian.people.document(checked.subject)
        if stored.managed is None:
            return []
        share = open_custodian_share(
            stored.managed,
            network=self.custodian.network,
            subject=checked.subject,
            sequence=stored.sequence,
            to=self.custodian.keyid,
            key=self.custodian.sealing[self.custodian.keyid],
            place=stored.document.custodians.index(self.custodian.node) + 1,
        )
        return [(bytes(16), share)]


class _Decided(msgspec.Struct):
    """What the writer decided about one request, and where that stands in the log."""

    decision: Decision
    rows: list[RecordRow]
    index: int
    salt: bytes
    body: bytes


class _AccessJob:
    """Decides one proven request; see writer.Job."""

    light = True

    def __init__(self, release: Release, checked: CheckedRequest) -> None:
        self._release = release
        self._checked = checked

    def plan(self, batch: Batch) -> Plan:
        release, checked, custodian = self._release, self._checked, self._release.custodian
        subject = custodian.people.subject(checked.subject)
        state = custodian.chains.state(subject)
        rows = self._rows(subject)
        counters, unmet = self._counters(batch)
        manager = custodian.people.manager(checked.subject)
        decision = decide(state, custodian.view, checked, rows, counters, batch.now_ms, manager=manager)
        seen = release.seen.get(checked.id)
        covered = {row.record: row for row in rows}
        shown = [covered[record] for record in decision.covered if record in covered]
        if seen is not None and decision.allow and seen.allowed:
            return Plan(answer=_Decided(decision, shown, seen.index, b"", b""))
        release.add_to_count(checked.reader)
        salt = custodian.rand(32)
        body = custodian.body(
            batch,
            batch.index,
            state,
            kind="access",
            decision="allow" if decision.allow else "deny",
            reason=decision.reason,
            counters=counters,
            envelopes=checked.envelopes,
            subject=checked.subject,
            grant=decision.grant,
            client=checked.request.client,
        )
        entry_rows = self._meet(unmet)
        release._remember(checked.id, _Seen(batch.index, decision.allow, batch.now_ms + 2 * FRESH_MS), batch.now_ms)
        return Plan(
            entries=[("access", salt, body, subject)],
            rows=entry_rows,
            answer=_Decided(decision, shown, batch.index, salt, body),
        )

    def _rows(self, subject: int | None) -> list[RecordRow]:
        if subject is None:
            return []
        if self._checked.records is None:
            return self._release.shelf.all_of(subject)
        return self._release.shelf.rows(subject, self._checked.records)

    def _counters(self, batch: Batch) -> tuple[dict[str, int], list[bytes]]:
        release, checked, custodian = self._release, self._checked, self._release.custodian
        people = [checked.reader, *([checked.for_] if checked.for_ else [])]
        ids = [hashlib.sha256(token.encode()).digest()[:16] for token in people]
        if checked.request.affiliation is not msgspec.UNSET:
            ids.append(bytes.fromhex(checked.request.affiliation)[:16])
        unmet = [one for one in ids if one not in release.met]
        counters = custodian.limits()
        counters["requests"] = release.count(checked.reader, batch.now_ms)
        counters["requests_max"] = custodian.parameter("requests_per_hour")
        counters["unseen"] = len(unmet)
        counters["heads_age_ms"] = custodian.heads_age_of(checked.subject, batch.now_ms)
        return counters, unmet

    def _meet(self, unmet: list[bytes]) -> list[Row]:
        """Remember the people of a request, and the affiliation that its entry now holds."""
        release, checked = self._release, self._checked
        if checked.affiliation is not None and checked.request.affiliation is not msgspec.UNSET:
            release.affiliations[checked.request.affiliation] = checked.affiliation
            if len(release.affiliations) > _AFFILIATIONS_MAX:
                release.affiliations.popitem(last=False)
        release.met.update(unmet)
        return [("INSERT OR IGNORE INTO seen VALUES(?)", (one,)) for one in unmet]
