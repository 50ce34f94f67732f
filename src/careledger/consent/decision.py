"""Who may open and who may contribute: one pure function each, the same in every custodian, auditor and browser.

A decision is a value, never an exception, because denials are logged too. It depends on nothing but its arguments,
and those are in the log entry or can be had again for its moment, so an auditor replays it (`replay`).
What the functions need to know of requests, manifests and the directory is in the views; others implement them.
Source: DESIGN 5.3; docs/spec/consent.md; vectors/consent/decision.json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from msgspec import UNSET

from careledger.consent.event import Grant
from careledger.consent.state import ConsentState, GrantState
from careledger.consent.views import (
    ContributionView,
    DirectoryView,
    ManifestView,
    RecordedDecision,
    RequestView,
)
from careledger.errors import VerificationError

__all__ = [
    "DENIALS",
    "Decision",
    "covers",
    "decide",
    "decide_contribution",
    "overtaken",
    "places_of",
    "replay",
]

DENIALS = (
    "stale",
    "unknown-identity",
    "not-affiliated",
    "no-grant",
    "revoked",
    "expired",
    "wrong-purpose",
    "out-of-scope",
    "not-enough-approvals",
    "over-limit",
)
"""Reasons to deny access, in the order in which the first that applies is given (DESIGN 5.3)."""

_OVERTAKEN = frozenset({"stale-epoch", "revoked", "expired", "stale", "not-licensed"})

HEADS_AGE_MAX_MS = 60_000
"""A custodian that compared heads longer ago than this doesn't know whether a grant still stands (DESIGN 5.3)."""
HEAD_FRESH_MS = 600_000
"""With a directory older than this nobody new is let in (DESIGN 5.6)."""
STALE_MAX_MS = 86_400_000
"""With a directory older than this nothing opens but the subject's own, unless a parameter says otherwise."""
INBOX_QUOTA = 1000
"""Records that one author may leave in one subject's inbox a day, unless a parameter says otherwise."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Allow, with the records covered (in the order of the manifests given), or deny with a reason code.

    `reason` of an allow is the basis it rests on: `grant`, `owner`, `managed`, and for contributions also `inbox`.
    `grant` is the grant used: the one the request names if it allows, else the first given.
    """

    allow: bool
    reason: str
    grant: str | None = None
    covered: tuple[str, ...] = ()


def decide(  # noqa: PLR0917 — the order every part and both languages use
    state: ConsentState,
    directory: DirectoryView,
    request: RequestView,
    manifests: Iterable[ManifestView],
    counters: Mapping[str, int],
    now_ms: int,
    *,
    manager: str | None = None,
) -> Decision:
    """Decide an access request.

    `manifests` are those of the requested records that exist and are not erased; for a list all of the subject's.
    Every requested record must be covered by a grant that allows it, not necessarily one for all; what doesn't exist
    is `out-of-scope` exactly like what isn't covered. A list is allowed with whatever is covered, be it nothing.
    `manager` is who the subject's document names. Counters (absent: 0, and no limit): `requests` of this reader in
    the last hour and `requests_max`; `heads_age_ms` since heads were compared with t−1 other custodians; `unseen`: how
    many of reader, organisation and affiliation this custodian meets for the first time; `stale_max_ms`,
    `head_fresh_ms`. The subject's own requests are decided even by a custodian that is alone (DESIGN 5.2).
    """
    if request.basis == "owner":
        return _decide_for_owner(directory, request, manifests, counters)
    if _stale(state, directory, request, counters, now_ms):
        return _deny("stale")
    problem = _identity_problem(directory, request.reader, request.for_, request.affiliated, now_ms)
    if problem:
        return _deny(problem)
    if request.basis == "managed":
        if manager is None or manager not in (request.reader, request.for_):
            return _deny("no-grant")
        decision = _allow("managed", manifests, request.records)
    elif request.basis == "grant":
        decision = _decide_by_grants(state, directory, request, list(manifests), now_ms)
    else:
        # Emergency and warrant need events and transactions that don't exist yet: nothing is granted by them.
        return _deny("no-grant")
    if decision.allow and _over(counters, "requests", None):
        return _deny("over-limit")
    return decision


def decide_contribution(
    state: ConsentState,
    directory: DirectoryView,
    contribution: ContributionView,
    counters: Mapping[str, int],
    now_ms: int,
    *,
    manager: str | None = None,
) -> Decision:
    """Decide whether a submission may be kept.

    The subject, its manager and a grantee with the right `contribute` may; the inbox also takes records from any
    licensed author affiliated with a member, within a quota. Counters: `inbox_records` of this author for this
    subject in the last day, `inbox_records_max`, and those of `decide`. Reasons: `decide`'s, `not-licensed` (inbox),
    `stale-epoch` (sealed to an older key; the answer carries the newest), `stale` (this custodian lacks the event
    that made the epoch).
    """
    if contribution.author != contribution.subject and _directory_stale(directory, counters, now_ms):
        return _deny("stale")
    affiliated = contribution.affiliated
    problem = _identity_problem(directory, contribution.author, contribution.for_, affiliated, now_ms)
    if problem:
        return _deny(problem)
    epochs = [(state.compartments.get(compartment), epoch) for compartment, epoch, _ in contribution.compartments]
    reason, grant = "grant", None
    if contribution.author == contribution.subject:
        reason = "owner"
    elif manager is not None and manager in (contribution.author, contribution.for_):
        reason = "managed"
    else:
        # Which compartments exist is told only to who may write to all that are named.
        for compartment, _, count in contribution.compartments:
            by_grant = _contribute_by_grants(state, contribution, compartment, now_ms)
            if by_grant.allow:
                grant = grant or by_grant.grant
                continue
            if compartment != state.inbox or not compartment:
                return by_grant
            problem = _inbox_problem(directory, contribution, counters, count, now_ms)
            if problem:
                return _deny(problem)
            reason = "inbox"
    if not epochs or any(known is None for known, _ in epochs):
        return _deny("out-of-scope")
    if any(known is not None and epoch > known[0] for known, epoch in epochs):
        return _deny("stale")
    if any(known is not None and epoch < known[0] for known, epoch in epochs):
        return _deny("stale-epoch")
    return Decision(allow=True, reason=reason, grant=grant)


def overtaken(state: ConsentState, decision: Decision) -> bool:
    """Whether time alone can have brought a denied contribution about, so that a peer that kept it earlier was right.

    Nobody's word makes up for a grant or an affiliation that never was: else one dishonest node could bring into a
    record whatever anybody signs. A grant that only one branch of an open fork has counts as one that was.
    """
    return decision.reason in _OVERTAKEN or (decision.reason == "no-grant" and state.forked)


def places_of(state: ConsentState, manifest: ManifestView) -> tuple[str, ...]:
    """The compartments that a grant must all cover: where the record was filed, else its own; in a fork every place."""
    contested = state.contested.get(manifest.record)
    if contested is not None:
        return (manifest.compartment, *contested)
    filed = state.filed.get(manifest.record)
    return (manifest.compartment if filed is None else filed,)


def covers(state: ConsentState, grant: Grant, manifest: ManifestView) -> bool:
    """Whether the record is within the grant's records or compartments and its range of `recorded`.

    Says nothing on whether the grant stands, for which purpose and for whom.
    """
    return _scope(state, grant)(manifest)


def _scope(state: ConsentState, grant: Grant) -> Callable[[ManifestView], bool]:
    """`covers` prepared for many manifests of one grant."""
    span = grant.range
    start = 0 if span is UNSET or span.from_ is UNSET else span.from_
    end = None if span is UNSET or span.until is UNSET else span.until
    records = None if grant.records is UNSET else frozenset(grant.records)
    compartments = frozenset(grant.compartments or ())
    filed, contested = state.filed, state.contested

    def covered(manifest: ManifestView) -> bool:
        recorded = manifest.recorded
        if recorded < start or (end is not None and recorded >= end):
            return False
        record = manifest.record
        if records is not None:
            return record in records
        if record in contested:
            return compartments.issuperset(places_of(state, manifest))
        return (filed.get(record) or manifest.compartment) in compartments

    return covered


def replay(
    recorded: RecordedDecision,
    request: RequestView,
    state: ConsentState,
    directory: DirectoryView,
    manifests: Iterable[ManifestView],
    *,
    manager: str | None = None,
) -> Decision:
    """Decide again what a log entry recorded, with the state and directory of its moment.

    Raises VerificationError `wrong-moment` when these are not the ones the entry names, `wrong-decision` when the
    entry says something else than the rules do.
    """
    if (recorded.consent_seq, recorded.consent_hash) != (state.seq, state.head):
        raise VerificationError("wrong-moment", f"the entry was decided at consent event {recorded.consent_seq}")
    age = max(0, recorded.received - directory.time_ms)
    if (recorded.directory_height, recorded.directory_age) != (directory.height, age):
        raise VerificationError(
            "wrong-moment", f"the entry was decided at directory height {recorded.directory_height}"
        )
    decision = decide(state, directory, request, manifests, recorded.counters, recorded.received, manager=manager)
    verdict = "allow" if decision.allow else "deny"
    if (recorded.decision, recorded.reason) != (verdict, decision.reason):
        raise VerificationError(
            "wrong-decision",
            f"the entry says {recorded.decision} ({recorded.reason}), the rules say {verdict} ({decision.reason})",
        )
    return decision


def _deny(reason: str) -> Decision:
    return Decision(allow=False, reason=reason)


def _allow(reason: str, manifests: Iterable[ManifestView], records: Sequence[str] | None) -> Decision:
    wanted = None if records is None else set(records)
    covered = tuple(item.record for item in manifests if wanted is None or item.record in wanted)
    return Decision(allow=True, reason=reason, covered=covered)


def _decide_for_owner(
    directory: DirectoryView, request: RequestView, manifests: Iterable[ManifestView], counters: Mapping[str, int]
) -> Decision:
    if not directory.is_active(request.reader):
        return _deny("unknown-identity")
    if request.reader != request.subject:
        return _deny("no-grant")
    if _over(counters, "requests", None):
        return _deny("over-limit")
    return _allow("owner", manifests, request.records)


def _stale(
    state: ConsentState, directory: DirectoryView, request: RequestView, counters: Mapping[str, int], now_ms: int
) -> bool:
    seq, head = request.head
    behind = seq > state.seq or (seq == state.seq and head != state.head and head not in state.heads)
    compared = counters.get("heads_age_ms", 0) <= counters.get("heads_age_max_ms", HEADS_AGE_MAX_MS)
    return behind or not compared or _directory_stale(directory, counters, now_ms)


def _directory_stale(directory: DirectoryView, counters: Mapping[str, int], now_ms: int) -> bool:
    age = now_ms - directory.time_ms
    if age > counters.get("stale_max_ms", STALE_MAX_MS):
        return True
    return age > counters.get("head_fresh_ms", HEAD_FRESH_MS) and counters.get("unseen", 0) > 0


def _identity_problem(
    directory: DirectoryView, person: str, for_: str | None, affiliated: tuple[str, int] | None, now_ms: int
) -> str | None:
    if not directory.is_active(person) or (for_ is not None and not directory.is_active(for_)):
        return "unknown-identity"
    if for_ is not None and (affiliated is None or affiliated[0] != for_ or affiliated[1] <= now_ms):
        return "not-affiliated"
    return None


def _over(counters: Mapping[str, int], name: str, default_max: int | None, more: int = 1) -> bool:
    limit = counters.get(f"{name}_max", default_max)
    return limit is not None and counters.get(name, 0) + more > limit


def _grants_for(
    state: ConsentState, person: str, for_: str | None, right: str, named: str | None
) -> list[tuple[str, GrantState]]:
    """Grants to the person or its organisation with the right, the named one first, else in the order given."""
    ids = [*state.by_grantee.get(person, ()), *(state.by_grantee.get(for_, ()) if for_ is not None else ())]
    if named in ids:
        ids.remove(named)
        ids.insert(0, named)
    found = ((grant, state.grants[grant]) for grant in ids)
    return [(grant, given) for grant, given in found if right in given.terms.rights]


def _standing_problem(given: GrantState, purpose: str | None, now_ms: int) -> str | None:
    if given.revoked:
        return "revoked"
    if given.terms.expires <= now_ms:
        return "expired"
    if purpose is not None and purpose not in given.terms.purposes:
        return "wrong-purpose"
    return None


def _approved(terms: Grant, directory: DirectoryView, request: RequestView, now_ms: int) -> bool:
    """Whether k different people whom the grant names, the reader not among them, have approved this request."""
    if terms.joint is UNSET:
        return True
    approvers = {
        approval.approver
        for approval in request.approvals
        if approval.approver in terms.joint.tokens
        and approval.approver != request.reader
        and approval.expires > now_ms
        and directory.is_active(approval.approver)
    }
    return len(approvers) >= terms.joint.k


def _first(reasons: Iterable[str]) -> str:
    return min(reasons, key=DENIALS.index)


def _decide_by_grants(
    state: ConsentState,
    directory: DirectoryView,
    request: RequestView,
    manifests: Sequence[ManifestView],
    now_ms: int,
) -> Decision:
    given = _grants_for(state, request.reader, request.for_, "read", request.grant)
    if not given:
        return _deny("no-grant")
    problems: list[str] = []
    standing: list[tuple[str, Callable[[ManifestView], bool], bool]] = []
    for grant, found in given:
        problem = _standing_problem(found, request.purpose, now_ms)
        if problem:
            problems.append(problem)
        else:
            standing.append((grant, _scope(state, found.terms), _approved(found.terms, directory, request, now_ms)))
    allowing = [(grant, scope) for grant, scope, approved in standing if approved]
    if request.records is None:
        if not allowing:
            return _deny(_first([*problems, *("not-enough-approvals" for _ in standing)]))
        covered = tuple(item.record for item in manifests if any(scope(item) for _, scope in allowing))
        return Decision(allow=True, reason="grant", grant=allowing[0][0], covered=covered)
    by_record = {item.record: item for item in manifests}
    used: str | None = None
    denials: list[str] = []
    for record in request.records:
        manifest = by_record.get(record)
        winner = next((grant for grant, scope in allowing if manifest is not None and scope(manifest)), None)
        if winner is not None:
            used = used or winner
            continue
        reasons = list(problems)
        for _, scope, _ in standing:
            in_scope = manifest is not None and scope(manifest)
            reasons.append("not-enough-approvals" if in_scope else "out-of-scope")
        denials.append(_first(reasons))
    if denials:
        return _deny(_first(denials))
    return Decision(allow=True, reason="grant", grant=used, covered=tuple(request.records))


def _contribute_by_grants(
    state: ConsentState, contribution: ContributionView, compartment: str, now_ms: int
) -> Decision:
    reasons: list[str] = []
    for grant, given in _grants_for(state, contribution.author, contribution.for_, "contribute", None):
        problem = _standing_problem(given, None, now_ms)
        if problem is None and compartment in (given.terms.compartments or ()):
            return Decision(allow=True, reason="grant", grant=grant)
        reasons.append(problem or "out-of-scope")
    return _deny(_first(reasons) if reasons else "no-grant")


def _inbox_problem(
    directory: DirectoryView, contribution: ContributionView, counters: Mapping[str, int], count: int, now_ms: int
) -> str | None:
    if contribution.for_ is None or not directory.member(contribution.for_):
        return "not-affiliated"
    if not directory.licensed(contribution.author, now_ms):
        return "not-licensed"
    if _over(counters, "inbox_records", INBOX_QUOTA, more=count):
        return "over-limit"
    return None
