"""What a subject's consent events mean together: one immutable state, the same wherever the same events arrive.

`fold` takes the next event of an unbroken chain. Two events with one number are a fork: nobody can say which the
subject meant, so `fold_fork` keeps both and applies only what restricts (a revocation and a new epoch count from any
branch, a grant only when every branch has it, a moved record only where every place is allowed) until a `merge`
names the branch to keep. The result depends on the set of events alone, never on the order of their arrival.
Signatures and boxes are event.py's business and already checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from careledger.consent.event import (
    NO_HEAD,
    Compartments,
    ConsentEvent,
    EventMessage,
    File,
    Grant,
    Merge,
    Rekey,
    Revoke,
    read_event,
)
from careledger.errors import ConflictError, VerificationError
from careledger.seal import VerifyKey

__all__ = ["EMPTY", "ConsentState", "GrantState", "check_event", "fold", "fold_fork"]

GRANTS_MAX = 2000
"""Grants of one subject, ended ones included: decisions look at all of a grantee's."""


class GrantState(msgspec.Struct, frozen=True, kw_only=True):
    """A grant and whether it still stands. `event` is the hex id of the message that gave it."""

    terms: Grant
    event: str
    revoked: bool = False


class ConsentState(msgspec.Struct, frozen=True, kw_only=True):
    """A subject's consent after `seq` events. All mappings are read-only by agreement.

    `head` is the hex message id of the last event; in a fork SHA-256("careledger/fork/v1" ‖ heads, sorted, as bytes).
    `compartments` maps id to (epoch, public key in base64url). `filed` maps a record to the compartment it was moved
    to, `contested` to all compartments that branches of a fork moved it to. `by_grantee` is an index of `grants`.
    """

    subject: str = ""
    seq: int = 0
    head: str = NO_HEAD
    heads: tuple[str, ...] = (NO_HEAD,)
    compartments: Mapping[str, tuple[int, str]] = {}
    inbox: str = ""
    grants: Mapping[str, GrantState] = {}
    by_grantee: Mapping[str, tuple[str, ...]] = {}
    filed: Mapping[str, str] = {}
    contested: Mapping[str, tuple[str, ...]] = {}

    @property
    def forked(self) -> bool:
        """Whether two events with one number are known and not yet merged."""
        return len(self.heads) > 1


EMPTY = ConsentState()
"""No consent yet: number 0, hash of 32 zero bytes (DESIGN 5.3). It takes its subject from the first event."""


def check_event(
    message: EventMessage, *, network: str, subject: str, keys: Mapping[str, VerifyKey], state: ConsentState
) -> tuple[ConsentEvent, str]:
    """Verify a message completely as the next event after `state`; return the event and its hex message id.

    Raises what event.read_event and `fold` raise. After ConflictError `bad-sequence` or `forked` the caller reads the
    event with read_event, keeps it and folds everything with `fold_fork`, when its `prev` is known.
    """
    event, message_id = read_event(message, network=network, subject=subject, keys=keys)
    fold(state, event, message_id)
    return event, message_id


def fold(state: ConsentState, event: ConsentEvent, message_id: str) -> ConsentState:
    """The state after `event`, the next of an unbroken chain.

    Raises ConflictError with details seq and head of `state`: `forked` (a merge is needed first), `bad-sequence`
    (already another event with that number, or a number is skipped), `bad-prev` (not linked to the head);
    VerificationError `wrong-subject`, `merge-without-fork` and the codes of what the event breaks (`_apply`).
    """
    if state.subject not in ("", event.subject):
        raise VerificationError(
            "wrong-subject", f"an event about {event.subject} can't follow one about {state.subject}"
        )
    known: dict[str, object] = {"seq": state.seq, "head": state.head}
    if state.forked:
        raise ConflictError("forked", "the subject's consent chain is forked; fold it whole", details=known)
    if event.seq != state.seq + 1:
        raise ConflictError(
            "bad-sequence",
            f"expected event {state.seq + 1}, got {event.seq}: read the chain's head first and sign again",
            details=known,
        )
    if event.prev != state.head:
        raise ConflictError(
            "bad-prev", f"event {event.seq} follows another event {state.seq} than the one known here", details=known
        )
    if isinstance(event, Merge):
        raise VerificationError("merge-without-fork", f"event {event.seq} merges, but there is no fork")
    changed = _apply(state, event, message_id)
    return msgspec.structs.replace(changed, subject=event.subject, seq=event.seq, head=message_id, heads=(message_id,))


def fold_fork(subject: str, events: Iterable[tuple[ConsentEvent, str]]) -> ConsentState:
    """The state after all `events` (with their hex message ids), in any order, forked or not.

    Raises ConflictError `bad-prev` when an event's predecessor is missing, and what `fold` raises for the event that
    breaks a rule within its own branch.
    """
    states: dict[str, ConsentState] = {NO_HEAD: EMPTY}
    parents: dict[str, list[str]] = {}
    # A predecessor has a smaller number, so ordering by number is topological; the id only makes errors repeatable.
    for event, message_id in sorted(events, key=lambda pair: (pair[0].seq, pair[1])):
        if event.subject != subject:
            raise VerificationError("wrong-subject", f"an event about {event.subject} is not of {subject}'s chain")
        if isinstance(event, Merge):
            states[message_id] = _merged(states, parents, event, message_id)
            parents[message_id] = event.prevs
            continue
        before = states.get(event.prev)
        if before is None:
            raise ConflictError("bad-prev", f"the event before number {event.seq} is missing: fetch the chain again")
        states[message_id] = fold(before, event, message_id)
        parents[message_id] = [event.prev]
    followed = {parent for before in parents.values() for parent in before}
    heads = sorted(message_id for message_id in states if message_id not in followed)
    if len(heads) == 1:
        return states[heads[0]]
    return _only_what_restricts([states[head] for head in heads])


def _apply(state: ConsentState, event: ConsentEvent, message_id: str) -> ConsentState:
    """The event's effect. VerificationError codes: compartments-exist, bad-slots, bad-key, grant-exists, bad-grant,
    unknown-compartment, too-many-grants, unknown-grant, already-revoked, stale-epoch."""
    replace = msgspec.structs.replace
    match event:
        case Compartments():
            _check_first_slots(state, event)
            slots = {slot.compartment: (slot.epoch, slot.key) for slot in event.slots}
            return replace(state, compartments=slots, inbox=event.inbox)
        case Grant():
            _check_grant(state, event)
            grants = {**state.grants, event.grant: GrantState(terms=event, event=message_id)}
            given = (*state.by_grantee.get(event.grantee, ()), event.grant)
            return replace(state, grants=grants, by_grantee={**state.by_grantee, event.grantee: given})
        case Revoke():
            grant = state.grants.get(event.grant)
            if grant is None:
                raise VerificationError("unknown-grant", f"there is no grant {event.grant} to revoke")
            if grant.revoked:
                raise VerificationError("already-revoked", f"grant {event.grant} is revoked already")
            return replace(state, grants={**state.grants, event.grant: replace(grant, revoked=True)})
        case Rekey():
            return replace(state, compartments={**state.compartments, **_next_slots(state, event)})
        case File():
            known = _compartment(state, event.compartment)
            if event.epoch != known[0]:
                raise VerificationError(
                    "stale-epoch", f"compartment {event.compartment} is at epoch {known[0]}, not {event.epoch}"
                )
            contested = {record: places for record, places in state.contested.items() if record != event.record}
            return replace(state, filed={**state.filed, event.record: event.compartment}, contested=contested)
        case _:
            raise AssertionError("a merge has two states before it")


def _check_first_slots(state: ConsentState, event: Compartments) -> None:
    if state.compartments:
        raise VerificationError("compartments-exist", "the subject has its compartments; a rekey changes their keys")
    ids = {slot.compartment for slot in event.slots}
    if len(ids) != len(event.slots) or event.inbox not in ids or any(slot.epoch != 1 for slot in event.slots):
        raise VerificationError("bad-slots", "compartments need distinct ids, epoch 1, and an inbox among them")
    if len({slot.key for slot in event.slots}) != len(event.slots):
        raise VerificationError("bad-key", "two compartments have the same key")


def _check_grant(state: ConsentState, event: Grant) -> None:
    if event.grant in state.grants:
        raise VerificationError("grant-exists", f"grant {event.grant} exists; a changed grant needs a new id")
    if len(state.grants) >= GRANTS_MAX:
        raise VerificationError("too-many-grants", f"a subject may give {GRANTS_MAX} grants")
    compartments = event.compartments or []
    records = event.records or []
    lists: tuple[Sequence[str], ...] = (event.rights, compartments, records, event.purposes)
    tokens = event.joint.tokens if event.joint else []
    problem = ""
    if bool(compartments) == bool(records):
        problem = "names compartments or records, one of the two"
    elif any(len(set(items)) != len(items) for items in (*lists, tokens)):
        problem = "lists something twice"
    elif event.joint and event.joint.k > len(tokens):
        problem = f"asks for {event.joint.k} approvals of {len(tokens)} people"
    elif records and "contribute" in event.rights:
        problem = "lets somebody contribute to single records; name compartments"
    elif event.grantee == event.subject or event.to.partition("#")[0] != event.grantee:
        problem = "is sealed to somebody else than its grantee, or given to the subject"
    elif event.expires <= event.time:
        problem = "expires before it is given"
    if problem:
        raise VerificationError("bad-grant", f"grant {event.grant} {problem}")
    for compartment in compartments:
        _compartment(state, compartment)


def _next_slots(state: ConsentState, event: Rekey) -> dict[str, tuple[int, str]]:
    slots: dict[str, tuple[int, str]] = {}
    for slot in event.slots:
        epoch, key = _compartment(state, slot.compartment)
        if slot.epoch != epoch + 1:
            raise VerificationError(
                "stale-epoch", f"compartment {slot.compartment} is at epoch {epoch}, so {slot.epoch} is not its next"
            )
        if slot.key == key:
            raise VerificationError("bad-key", f"compartment {slot.compartment} would keep its old key")
        slots[slot.compartment] = (slot.epoch, slot.key)
    if len(slots) != len(event.slots) or len({key for _, key in slots.values()}) != len(slots):
        raise VerificationError("bad-slots", "a rekey needs distinct compartments with distinct keys")
    return slots


def _compartment(state: ConsentState, compartment: str) -> tuple[int, str]:
    known = state.compartments.get(compartment)
    if known is None:
        raise VerificationError("unknown-compartment", f"the subject has no compartment {compartment}")
    return known


def _by_grantee(grants: Mapping[str, GrantState]) -> dict[str, tuple[str, ...]]:
    index: dict[str, tuple[str, ...]] = {}
    for grant, given in grants.items():
        index[given.terms.grantee] = (*index.get(given.terms.grantee, ()), grant)
    return index


def _fork_head(heads: Sequence[str]) -> str:
    return hashlib.sha256(b"careledger/fork/v1" + b"".join(map(bytes.fromhex, heads))).hexdigest()


def _newest_epochs(branches: Sequence[ConsentState]) -> dict[str, tuple[int, str]]:
    """Each compartment at its highest epoch: going back would let in whom a rekey shut out. The first branch wins a
    tie, so callers order the branches."""
    newest: dict[str, tuple[int, str]] = {}
    for branch in branches:
        for compartment, slot in branch.compartments.items():
            if compartment not in newest or slot[0] > newest[compartment][0]:
                newest[compartment] = slot
    return newest


def _contested(branches: Sequence[ConsentState]) -> dict[str, tuple[str, ...]]:
    """The records that not all branches have in one place, with every place a branch has moved them to."""
    records = {record for branch in branches for record in (*branch.filed, *branch.contested)}
    contested: dict[str, tuple[str, ...]] = {}
    for record in sorted(records):
        places = {branch.filed.get(record) for branch in branches}
        earlier = {place for branch in branches for place in branch.contested.get(record, ())}
        if len(places) > 1 or earlier:
            contested[record] = tuple(sorted({place for place in places if place} | earlier))
    return contested


def _only_what_restricts(branches: Sequence[ConsentState]) -> ConsentState:
    """The state of an unmerged fork; `branches` are the states at its heads, ordered by head."""
    first = branches[0]
    grants: dict[str, GrantState] = {}
    for grant, given in first.grants.items():
        same = [branch.grants.get(grant) for branch in branches]
        if all(other is not None and other.event == given.event for other in same):
            revoked = any(other is not None and other.revoked for other in same)
            grants[grant] = msgspec.structs.replace(given, revoked=revoked)
    heads = tuple(branch.head for branch in branches)
    inboxes = {branch.inbox for branch in branches}
    return ConsentState(
        subject=next(branch.subject for branch in branches if branch.subject),
        seq=max(branch.seq for branch in branches),
        head=_fork_head(heads),
        heads=heads,
        compartments=_newest_epochs(branches),
        inbox=inboxes.pop() if len(inboxes) == 1 else "",
        grants=grants,
        by_grantee=_by_grantee(grants),
        filed=first.filed,
        contested=_contested(branches),
    )


def _follows(parents: Mapping[str, Sequence[str]], later: str, earlier: str) -> bool:
    """Whether `earlier` is among the events before `later`."""
    seen: set[str] = set()
    waiting = [later]
    while waiting:
        for parent in parents.get(waiting.pop(), ()):
            if parent == earlier:
                return True
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return False


def _merged(
    states: Mapping[str, ConsentState], parents: Mapping[str, Sequence[str]], event: Merge, message_id: str
) -> ConsentState:
    """The kept branch, with what the other one had revoked, moved up an epoch or moved elsewhere. Grants that only
    the other branch had count as revoked, so that their ids can't be used again."""
    if any(prev not in states for prev in event.prevs):
        raise ConflictError("bad-prev", f"event {event.seq} merges an event that is missing: fetch the chain again")
    if event.prevs != sorted(set(event.prevs)) or event.keep not in event.prevs or event.prev != event.keep:
        raise VerificationError("bad-merge", f"event {event.seq} must name two heads in order and keep one of them")
    if _follows(parents, *event.prevs) or _follows(parents, *reversed(event.prevs)):
        raise VerificationError(
            "bad-merge", f"event {event.seq} merges an event with one before it: that undoes, not merges"
        )
    kept = states[event.keep]
    other = states[next(prev for prev in event.prevs if prev != event.keep)]
    if event.seq != max(kept.seq, other.seq) + 1:
        raise ConflictError("bad-sequence", f"a merge of events {kept.seq} and {other.seq} can't be number {event.seq}")
    grants = dict(kept.grants)
    for grant, given in other.grants.items():
        if grant not in grants:
            grants[grant] = msgspec.structs.replace(given, revoked=True)
        elif given.revoked:
            grants[grant] = msgspec.structs.replace(grants[grant], revoked=True)
    return ConsentState(
        subject=event.subject,
        seq=event.seq,
        head=message_id,
        heads=(message_id,),
        compartments=_newest_epochs([kept, other]),
        inbox=kept.inbox,
        grants=grants,
        by_grantee=_by_grantee(grants),
        filed=kept.filed,
        contested=_contested([kept, other]),
    )
