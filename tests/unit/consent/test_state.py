"""The state after events: links, rules of each event, forks and their repair."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from careledger import consent
from careledger.consent import NO_HEAD, fold, fold_fork
from careledger.errors import ConflictError, Error, VerificationError

replace = msgspec.structs.replace


def refused(chain: Any, event: consent.ConsentEvent, state: consent.ConsentState | None = None) -> str:
    with pytest.raises(Error) as error:
        fold(chain.state if state is None else state, event, "11" * 32)
    return error.value.code


def test_no_consent_is_number_0_with_a_head_of_zeros() -> None:
    assert (consent.EMPTY.seq, consent.EMPTY.head, NO_HEAD) == (0, "00" * 32, "00" * 32)


def test_a_replayed_event_is_refused(chain: Any) -> None:
    chain.grant(chain.ada, [chain.about])
    for message in chain.messages:
        with pytest.raises(ConflictError) as error:
            chain.check(message)
        assert error.value.code == "bad-sequence"
        assert error.value.details == {"seq": 2, "head": chain.state.head}


def test_a_skipped_number_is_refused(chain: Any) -> None:
    event = chain.read(chain.grant_message(chain.ada, [chain.about]))[0]
    assert refused(chain, replace(event, seq=event.seq + 1)) == "bad-sequence"


def test_an_event_that_follows_another_head_is_refused(chain: Any) -> None:
    event = chain.read(chain.grant_message(chain.ada, [chain.about]))[0]
    assert refused(chain, replace(event, prev="22" * 32)) == "bad-prev"


def test_an_event_about_somebody_else_is_refused(chain: Any) -> None:
    event = chain.read(chain.grant_message(chain.ada, [chain.about]))[0]
    assert refused(chain, replace(event, subject=chain.bea.token)) == "wrong-subject"
    with pytest.raises(VerificationError) as error:
        fold_fork(chain.bea.token, chain.events)
    assert error.value.code == "wrong-subject"


def test_compartments_come_once_with_distinct_ids_and_an_inbox(chain: Any) -> None:
    first = chain.events[0][0]
    again = replace(first, seq=2, prev=chain.state.head)
    assert refused(chain, again) == "compartments-exist"
    slots = first.slots
    for wrong, code in (
        ({"inbox": "ff" * 16}, "bad-slots"),
        ({"slots": [slots[0], *slots[:-1]]}, "bad-slots"),
        ({"slots": [replace(slots[0], epoch=2), *slots[1:]]}, "bad-slots"),
        ({"slots": [replace(slots[0], key=slots[1].key), *slots[1:]]}, "bad-key"),
    ):
        assert refused(chain, replace(first, **wrong), consent.EMPTY) == code


@pytest.mark.parametrize(
    "wrong",
    [
        {"compartments": msgspec.UNSET},
        {"records": ["aa" * 16]},
        {"rights": ["read", "read"]},
        {"purposes": ["TREAT", "TREAT"]},
        {"expires": 1},
        {"joint": consent.Joint(k=2, tokens=["cl1" + "q" * 46])},
        {"joint": consent.Joint(k=1, tokens=["cl1" + "q" * 46] * 2)},
        {"compartments": msgspec.UNSET, "records": ["aa" * 16], "rights": ["contribute", "read"]},
        {"to": "cl1" + "q" * 46 + "#0"},
    ],
)
def test_a_grant_that_contradicts_itself_is_refused(chain: Any, wrong: dict[str, Any]) -> None:
    event = chain.read(chain.grant_message(chain.ada, [chain.about]))[0]
    assert refused(chain, replace(event, **wrong)) == "bad-grant"


def test_joint_and_record_grants_that_fit_are_accepted_up_to_their_bounds(chain: Any) -> None:
    joint = consent.Joint(k=2, tokens=[chain.bea.token, chain.clinic.token])
    given = chain.grant(chain.ada, [chain.about], joint=joint, expires=chain.now + 1)
    assert given.joint == joint
    by_records = chain.grant(chain.ada, [], records={"aa" * 16: bytes(32)})
    assert by_records.records == ["aa" * 16]
    event = chain.read(chain.grant_message(chain.ada, [chain.about]))[0]
    assert refused(chain, replace(event, expires=event.time)) == "bad-grant"
    assert refused(chain, replace(event, joint=consent.Joint(k=3, tokens=joint.tokens))) == "bad-grant"


def test_a_subject_gives_a_bounded_number_of_grants(chain: Any) -> None:
    event = chain.read(chain.grant_message(chain.ada, [chain.about]))[0]
    given = consent.GrantState(terms=event, event="11" * 32)
    full = replace(chain.state, grants={f"{number:032x}": given for number in range(2000)})
    assert refused(chain, event, full) == "too-many-grants"
    almost = replace(full, grants=dict(list(full.grants.items())[1:]))
    assert event.grant in fold(almost, event, "11" * 32).grants


def test_a_grant_to_the_subject_or_with_a_used_id_or_of_nothing_known_is_refused(chain: Any) -> None:
    event = chain.read(chain.grant_message(chain.ada, [chain.about]))[0]
    me = chain.patient
    assert refused(chain, replace(event, grantee=me.token, to=me.keyid)) == "bad-grant"
    assert refused(chain, replace(event, compartments=["ff" * 16])) == "unknown-compartment"
    given = chain.grant(chain.ada, [chain.about])
    chain.revoke(given.grant, {})
    again = replace(event, grant=given.grant, seq=chain.state.seq + 1, prev=chain.state.head)
    assert refused(chain, again) == "grant-exists"


def test_a_revocation_needs_a_standing_grant(chain: Any) -> None:
    grant = chain.grant(chain.ada, [chain.about])
    (revoke, _) = chain.revoke(grant.grant, {})
    assert chain.state.grants[grant.grant].revoked
    again = replace(revoke, seq=chain.state.seq + 1, prev=chain.state.head)
    assert refused(chain, again) == "already-revoked"
    assert refused(chain, replace(again, grant="ff" * 16)) == "unknown-grant"


def test_a_rekey_moves_exactly_one_epoch_with_fresh_keys(chain: Any) -> None:
    rekeyed = consent.make_rekey(
        chain.writer,
        chain.state,
        [chain.about, chain.warnings],
        seeds=chain.seeds,
        recipients={},
        now_ms=chain.now,
        rand=chain.rand,
    )
    event = chain.read(rekeyed.message)[0]
    one, two = event.slots
    assert refused(chain, replace(event, slots=[replace(one, epoch=1)])) == "stale-epoch"
    assert refused(chain, replace(event, slots=[replace(one, epoch=3)])) == "stale-epoch"
    assert refused(chain, replace(event, slots=[replace(one, compartment="ff" * 16)])) == "unknown-compartment"
    assert refused(chain, replace(event, slots=[one, one])) == "bad-slots"
    assert refused(chain, replace(event, slots=[one, replace(two, key=one.key)])) == "bad-slots"
    old = chain.state.compartments[one.compartment][1]
    assert refused(chain, replace(event, slots=[replace(one, key=old)])) == "bad-key"
    chain.add(rekeyed.message)
    assert chain.state.compartments[chain.about][0] == 2
    assert chain.state.compartments[chain.private][0] == 1


def test_filing_needs_the_current_epoch_of_a_known_compartment(chain: Any) -> None:
    record = "ab" * 16
    message = consent.make_file(
        chain.writer, chain.state, record=record, compartment=chain.about, consent_key=bytes(32), now_ms=chain.now
    )
    event = chain.read(message)[0]
    assert refused(chain, replace(event, epoch=2)) == "stale-epoch"
    assert refused(chain, replace(event, compartment="ff" * 16)) == "unknown-compartment"
    chain.add(message)
    assert chain.state.filed == {record: chain.about}


def test_a_merge_without_a_fork_is_refused(chain: Any) -> None:
    event = consent.Merge(
        network=chain.writer.network,
        subject=chain.patient.token,
        seq=2,
        prev=chain.state.head,
        time=chain.now,
        prevs=["00" * 32, chain.state.head],
        keep=chain.state.head,
    )
    assert refused(chain, event) == "merge-without-fork"


def test_folding_the_whole_chain_equals_folding_step_by_step(chain: Any) -> None:
    grant = chain.grant(chain.ada, [chain.about, chain.warnings])
    chain.grant(chain.bea, [chain.about])
    chain.revoke(grant.grant, {chain.bea.token: chain.bea.recipient})
    for events in itertools.permutations(chain.events):
        assert fold_fork(chain.patient.token, events) == chain.state


class Fork:
    """Two devices that didn't know of each other after event 3: `left` grants, `right` revokes and rekeys."""

    def __init__(self, chain: Any) -> None:
        self.chain = chain
        self.kept = chain.grant(chain.ada, [chain.about])
        self.ended = chain.grant(chain.bea, [chain.about])
        self.base = chain.state
        self.before = list(chain.events)
        self.left = [chain.read(chain.grant_message(chain.clinic, [chain.about, chain.private]))]
        messages, self.right_seeds = consent.make_revocation_with_rekey(
            chain.writer,
            self.base,
            self.ended.grant,
            seeds=chain.seeds,
            recipients={chain.ada.token: chain.ada.recipient},
            now_ms=chain.now,
            rand=chain.rand,
        )
        self.right = [chain.read(message) for message in messages]

    def all(self) -> list[tuple[consent.ConsentEvent, str]]:
        return [*self.before, *self.left, *self.right]

    def state(self) -> consent.ConsentState:
        return fold_fork(self.chain.patient.token, self.all())

    def merged(self, keep: str) -> tuple[consent.ConsentState, tuple[consent.ConsentEvent, str]]:
        message = consent.make_merge(self.chain.writer, self.state(), keep, now_ms=self.chain.now)
        merge = self.chain.read(message)
        return fold_fork(self.chain.patient.token, [*self.all(), merge]), merge


@pytest.fixture
def fork(chain: Any) -> Fork:
    return Fork(chain)


def test_a_second_event_with_one_number_is_kept_and_only_what_restricts_applies(fork: Fork) -> None:
    with pytest.raises(ConflictError) as error:
        fold(fold(fork.base, *fork.left[0]), *fork.right[0])
    assert error.value.code == "bad-sequence"
    state = fork.state()
    new_grant = fork.left[0][0]
    assert state.forked
    assert len(state.heads) == 2
    assert new_grant.grant not in state.grants, "a grant that one branch alone has isn't in force"
    assert not state.grants[fork.kept.grant].revoked, "what both branches have goes on"
    assert state.grants[fork.ended.grant].revoked, "a revocation in one branch counts"
    assert state.compartments[fork.chain.about][0] == 2, "so does its rekey"
    assert state.by_grantee.keys() == {fork.chain.ada.token, fork.chain.bea.token}


def test_a_fork_means_the_same_whatever_came_first(fork: Fork) -> None:
    expected = fork.state()
    for events in itertools.permutations(fork.all()):
        assert fold_fork(fork.chain.patient.token, events) == expected
    twice = [*fork.all(), *fork.left]
    assert fold_fork(fork.chain.patient.token, twice) == expected


def test_nothing_but_a_merge_follows_a_fork_and_branches_may_only_restrict(fork: Fork) -> None:
    state = fork.state()
    chain = fork.chain
    more = chain.read(chain.grant_message(chain.bea, [chain.private], state=fold(fork.base, *fork.left[0])))
    with pytest.raises(ConflictError) as error:
        fold(state, *more)
    assert error.value.code == "forked"
    longer = fold_fork(chain.patient.token, [*fork.all(), more])
    assert more[0].grant not in longer.grants
    revocation = consent.make_revocation(
        chain.writer, fold(fork.base, *fork.left[0]), fork.kept.grant, now_ms=chain.now
    )
    ended = fold_fork(chain.patient.token, [*fork.all(), chain.read(revocation)])
    assert ended.grants[fork.kept.grant].revoked


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_merge_keeps_one_branch_and_every_restriction(fork: Fork, side: str) -> None:
    head = getattr(fork, side)[-1][1]
    state, merge = fork.merged(head)
    new_grant = fork.left[0][0].grant
    assert not state.forked
    assert (state.seq, state.head) == (6, merge[1])
    assert state.grants[new_grant].revoked is (side == "right")
    assert state.grants[fork.ended.grant].revoked
    assert not state.grants[fork.kept.grant].revoked
    assert state.compartments[fork.chain.about] == (2, fork.right[1][0].slots[0].key)


def test_after_a_merge_the_chain_goes_on_and_dropped_grants_keep_their_ids(fork: Fork) -> None:
    chain = fork.chain
    state, _ = fork.merged(fork.right[-1][1])
    message = consent.make_revocation(chain.writer, state, fork.kept.grant, now_ms=chain.now)
    after = fold(state, *chain.read(message))
    assert after.grants[fork.kept.grant].revoked
    again = replace(fork.left[0][0], seq=state.seq + 1, prev=state.head)
    assert refused(chain, again, state) == "grant-exists"


def test_a_merge_must_name_both_heads_in_order_and_keep_one(fork: Fork) -> None:
    _, (merge, _) = fork.merged(fork.left[-1][1])
    subject = fork.chain.patient.token
    first, second = merge.prevs
    for wrong, code in (
        ({"prevs": [second, first]}, "bad-merge"),
        ({"prevs": [first, first]}, "bad-merge"),
        ({"keep": fork.before[0][1]}, "bad-merge"),
        ({"keep": fork.before[-1][1], "prev": fork.before[-1][1]}, "bad-merge"),
        ({"prev": second if merge.keep == first else first}, "bad-merge"),
        ({"prevs": sorted([merge.keep, "ff" * 32])}, "bad-prev"),
        ({"seq": merge.seq + 1}, "bad-sequence"),
    ):
        with pytest.raises(Error) as error:
            fold_fork(subject, [*fork.all(), (replace(merge, **wrong), "33" * 32)])
        assert error.value.code == code, wrong


def test_the_places_of_a_record_are_its_own_or_where_it_was_filed(chain: Any) -> None:
    record = "ab" * 16
    manifest = type("Manifest", (), {"record": record, "compartment": chain.about, "recorded": 1})()
    assert consent.places_of(chain.state, manifest) == (chain.about,)
    filed = replace(chain.state, filed={record: chain.private})
    assert consent.places_of(filed, manifest) == (chain.private,)
    torn = replace(filed, contested={record: (chain.private, chain.warnings)})
    assert consent.places_of(torn, manifest) == (chain.about, chain.private, chain.warnings)


def test_a_merge_cannot_roll_the_chain_back_to_an_earlier_event(fork: Fork) -> None:
    head = fork.right[-1][1]
    for earlier in (fork.right[0][1], fork.before[0][1], "00" * 32):
        merge = consent.Merge(
            network=fork.chain.writer.network,
            subject=fork.chain.patient.token,
            seq=6,
            prev=earlier,
            time=fork.chain.now,
            prevs=sorted([earlier, head]),
            keep=earlier,
        )
        with pytest.raises(VerificationError) as error:
            fold_fork(fork.chain.patient.token, [*fork.all(), (merge, "44" * 32)])
        assert error.value.code == "bad-merge"


def test_an_event_that_comes_late_on_a_merged_branch_forks_again_and_can_be_merged(fork: Fork) -> None:
    chain = fork.chain
    after_left = fold(fork.base, *fork.left[0])
    late = chain.read(consent.make_revocation(chain.writer, after_left, fork.kept.grant, now_ms=chain.now))
    merged, merge = fork.merged(fork.right[-1][1])
    events = [*fork.all(), merge, late]
    state = fold_fork(chain.patient.token, events)
    assert state.heads == tuple(sorted([merge[1], late[1]]))
    assert state.grants[fork.kept.grant].revoked
    again = chain.read(consent.make_merge(chain.writer, state, merge[1], now_ms=chain.now))
    state = fold_fork(chain.patient.token, [again, *events])
    assert not state.forked
    assert state.grants[fork.kept.grant].revoked
    assert state.seq == merged.seq + 1


def test_a_record_filed_in_one_branch_needs_every_place_until_filed_again(chain: Any) -> None:
    record = "ab" * 16
    base = chain.state
    filing = {"record": record, "consent_key": bytes(32), "now_ms": chain.now}
    one = chain.read(consent.make_file(chain.writer, base, compartment=chain.private, **filing))
    two = chain.read(consent.make_file(chain.writer, base, compartment=chain.warnings, **filing))
    events = [*chain.events, one, two]
    state = fold_fork(chain.patient.token, events)
    assert state.contested == {record: tuple(sorted([chain.private, chain.warnings]))}
    manifest = type("Manifest", (), {"record": record, "compartment": chain.about, "recorded": 1})()
    assert set(consent.places_of(state, manifest)) == {chain.about, chain.private, chain.warnings}
    merge = chain.read(consent.make_merge(chain.writer, state, one[1], now_ms=chain.now))
    state = fold_fork(chain.patient.token, [*events, merge])
    assert state.contested == {record: tuple(sorted([chain.private, chain.warnings]))}
    again = chain.read(consent.make_file(chain.writer, state, compartment=chain.private, **filing))
    state = fold(state, *again)
    assert (state.filed, state.contested) == ({record: chain.private}, {})


def test_a_fork_leaves_alone_what_both_branches_have(fork: Fork) -> None:
    assert fork.state().inbox == fork.base.inbox != ""
    assert fork.state().contested == {}


def test_a_record_filed_before_the_fork_is_not_contested_but_stays_so_if_it_was(chain: Any) -> None:
    records = ["aa" * 16, "bb" * 16]
    filing = {"consent_key": bytes(32), "now_ms": chain.now}
    chain.add(consent.make_file(chain.writer, chain.state, record=records[0], compartment=chain.private, **filing))
    torn = [
        chain.read(consent.make_file(chain.writer, chain.state, record=records[1], compartment=place, **filing))
        for place in (chain.private, chain.warnings)
    ]
    events = [*chain.events, *torn]
    places = {records[1]: tuple(sorted([chain.private, chain.warnings]))}
    forked = fold_fork(chain.patient.token, events)
    assert (forked.contested, forked.filed[records[0]]) == (places, chain.private)
    merge = chain.read(consent.make_merge(chain.writer, forked, torn[0][1], now_ms=chain.now))
    events.append(merge)
    merged = fold_fork(chain.patient.token, events)
    again = [chain.read(chain.grant_message(person, [chain.about], state=merged)) for person in (chain.ada, chain.bea)]
    assert fold_fork(chain.patient.token, [*events, *again]).contested == places


def test_of_two_keys_of_one_epoch_the_first_head_gives_it_and_after_a_merge_the_kept_branch(chain: Any) -> None:
    rekeyed = [
        chain.read(
            consent.make_rekey(
                chain.writer,
                chain.state,
                [chain.about],
                seeds=chain.seeds,
                recipients={},
                now_ms=chain.now,
                rand=chain.rand,
            ).message
        )
        for _ in range(2)
    ]
    keys = {message_id: (2, event.slots[0].key) for event, message_id in rekeyed}
    events = [*chain.events, *rekeyed]
    forked = fold_fork(chain.patient.token, events)
    assert forked.compartments[chain.about] == keys[forked.heads[0]]
    for keep in forked.heads:
        merge = chain.read(consent.make_merge(chain.writer, forked, keep, now_ms=chain.now))
        assert fold_fork(chain.patient.token, [*events, merge]).compartments[chain.about] == keys[keep]


def test_one_grant_id_with_two_meanings_counts_for_nothing(fork: Fork) -> None:
    wider, message_id = fork.left[0]
    narrower = replace(wider, compartments=[fork.chain.private])
    both = [*fork.before, (wider, message_id), (narrower, "55" * 32)]
    assert wider.grant not in fold_fork(fork.chain.patient.token, both).grants


def test_a_chain_with_a_missing_event_is_refused(chain: Any) -> None:
    chain.grant(chain.ada, [chain.about])
    chain.grant(chain.bea, [chain.about])
    with pytest.raises(ConflictError) as error:
        fold_fork(chain.patient.token, [chain.events[0], chain.events[2]])
    assert error.value.code == "bad-prev"


def test_two_first_events_are_a_fork_from_nothing(chain: Any) -> None:
    other = consent.first_compartments(chain.writer, categories=["about"], now_ms=chain.now, rand=chain.rand)
    state = fold_fork(chain.patient.token, [*chain.events, chain.read(other.message)])
    assert state.forked
    assert state.inbox == "", "nobody can say which inbox is meant"
    assert state.grants == {}
