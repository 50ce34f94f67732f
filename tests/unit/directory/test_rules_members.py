"""Members decide by more than two thirds; each rules its own nodes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from careledger.directory import (
    Enrol,
    MemberPropose,
    ParameterChange,
    Remove,
    RoleChange,
    default_parameters,
    sign_transaction,
)
from careledger.identity import build_deactivate
from careledger.identity.fields import ZERO_HASH
from careledger.seal import SigningKey, b64, envelope_message_id, keyid

DAY_MS = 86_400_000


def parameter(name: str, value: Any, activates: int = 0) -> ParameterChange:
    return ParameterChange(name=name, value=value, activates=activates)


def test_founders_have_their_roles_and_nodes(world: Any) -> None:
    directory = world.directory
    assert [member.token for member in directory.members()] == [party.token for party in world.parties]
    assert directory.member(world.parties[0].token).roles == ["licensor", "provider"]
    assert directory.node_member(world.parties[2].node) == world.parties[2].token
    assert directory.node(world.parties[2].node).url == world.parties[2].url
    assert len(directory.nodes()) == 4
    assert directory.member("cl1" + "q" * 46) is None
    assert directory.node_member("cl1" + "q" * 46) is None


@pytest.mark.parametrize(("members", "needed"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (6, 5), (7, 5)])
def test_more_than_two_thirds_decide(make_world: Any, members: int, needed: int) -> None:
    world = make_world(members)
    envelope, ident = world.propose(parameter("inbox_quota", 5))
    assert world.run(envelope) == ["ok"]
    for index in range(1, needed):
        assert world.directory.proposal(ident).status == "open"
        assert world.directory.parameter("inbox_quota") == 1_000
        assert world.run(world.vote(ident, index)) == ["ok"]
    assert world.directory.proposal(ident).status == "passed"
    assert world.directory.parameter("inbox_quota") == 5


def test_one_member_cannot_vote_twice_nor_after_the_decision(world: Any) -> None:
    envelope, ident = world.propose(parameter("inbox_quota", 5))
    assert world.run(envelope, world.vote(ident, 0), world.vote(ident, 1), world.vote(ident, 1)) == [
        "ok",
        "exists",
        "ok",
        "exists",
    ]
    assert world.run(world.vote(ident, 2), world.vote(ident, 3), envelope) == ["ok", "decided", "exists"]


def test_vote_of_a_stranger_or_for_nothing_is_refused(world: Any) -> None:
    envelope, ident = world.propose(parameter("inbox_quota", 5))
    world.run(envelope)
    world.parties.append(world.party())
    assert world.run(world.vote(ident, 4), world.vote("ab" * 32, 1)) == ["unknown-identity", "unknown-proposal"]
    assert world.run(world.enrol(world.parties[4].organisation), world.vote(ident, 4)) == ["ok", "not-a-member"]


def test_deactivated_member_and_node_sign_nothing_more(world: Any) -> None:
    party = world.parties[1]
    envelope, ident = world.propose(parameter("inbox_quota", 5))
    ends = [
        build_deactivate(
            network=world.network,
            token=identity.token,
            state=world.directory.identity(identity.token),
            root=identity.secrets.root,
        )
        for identity in (party.organisation, party.software)
    ]
    assert world.run(envelope, *ends) == ["ok", "ok", "ok"]
    assert world.run(world.vote(ident, 1), world.enrol(world.person(), by=1)) == ["deactivated", "deactivated"]


def test_proposal_expires_by_block_time(world: Any) -> None:
    envelope, ident = world.propose(parameter("inbox_quota", 5), expires=world.now_ms + 5_000)
    assert world.run(envelope) == ["ok"]
    end = world.directory.proposal(ident).expires
    assert world.run(world.vote(ident, 1), time_ms=end - 1) == ["ok"]
    assert world.run(world.vote(ident, 2), time_ms=end) == ["expired"]
    assert world.directory.parameter("inbox_quota") == 1_000


def test_proposal_that_has_expired_or_never_does_is_refused(world: Any) -> None:
    assert world.run(world.propose(parameter("inbox_quota", 5), expires=world.now_ms)[0]) == ["expired"]
    late = world.now_ms + 1_000 + 90 * DAY_MS + 1
    assert world.run(world.propose(parameter("inbox_quota", 5), expires=late)[0]) == ["expired"]


def test_proposal_for_another_network_is_refused(world: Any, make_world: Any) -> None:
    other = make_world(policy="https://other.example")
    assert world.run(other.propose(parameter("inbox_quota", 5))[0]) == ["wrong-network"]


def test_admitted_member_counts_and_its_node_may_enrol(world: Any) -> None:
    newcomer = world.party()
    assert world.admit(newcomer) == ["ok", "ok", "ok"]
    assert [member.token for member in world.directory.members()][-1] == newcomer.token
    assert world.directory.node_member(newcomer.node) == newcomer.token
    person = world.person()
    envelope = newcomer.as_node(Enrol(v=1, network=world.network, node=newcomer.node, inception=person.envelope))
    assert world.run(envelope) == ["ok"]
    # Five members now: three are no longer more than two thirds.
    proposal, ident = world.propose(parameter("inbox_quota", 5))
    assert world.run(proposal, world.vote(ident, 1), world.vote(ident, 2)) == ["ok", "ok", "ok"]
    assert world.directory.proposal(ident).status == "open"
    assert world.run(world.vote(ident, 3)) == ["ok"]
    assert world.directory.proposal(ident).status == "passed"


def test_admission_needs_known_identities_of_the_right_kind(world: Any) -> None:
    from careledger.directory import Admit

    newcomer = world.party()
    change = Admit(member=newcomer.token, roles=["provider"], nodes=[newcomer.entry])
    assert world.run(world.propose(change)[0]) == ["unknown-identity"]
    assert world.run(world.enrol(newcomer.organisation)) == ["ok"]
    assert world.run(world.propose(change)[0]) == ["unknown-identity"]
    assert world.run(world.enrol(newcomer.software)) == ["ok"]
    person = world.enrolled()
    assert world.run(world.propose(Admit(member=person.token, roles=[], nodes=[]))[0]) == ["wrong-kind"]
    wrong = msgspec.structs.replace(newcomer.entry, token=person.token)
    assert world.run(world.propose(msgspec.structs.replace(change, nodes=[wrong]))[0]) == ["wrong-kind"]
    taken = msgspec.structs.replace(change, nodes=[world.parties[1].entry])
    assert world.run(world.propose(taken)[0]) == ["node-taken"]
    assert world.run(world.propose(Admit(member=world.parties[1].token, roles=[], nodes=[]))[0]) == ["exists"]
    twice = msgspec.structs.replace(change, nodes=[newcomer.entry, newcomer.entry])
    assert world.run(world.propose(twice)[0]) == ["bad-nodes"]


def test_decision_that_became_impossible_fails_without_effect(world: Any) -> None:
    one, first = world.propose(Remove(member=world.parties[3].token))
    other, second = world.propose(Remove(member=world.parties[3].token), by=1)
    assert world.run(one, other) == ["ok", "ok"]
    assert world.run(world.vote(first, 1), world.vote(first, 2)) == ["ok", "ok"]
    assert world.directory.proposal(first).status == "passed"
    assert world.run(world.vote(second, 0), world.vote(second, 2)) == ["ok", "ok"]
    assert world.directory.proposal(second).status == "failed"


def test_removed_member_has_no_vote_no_nodes_and_can_come_back(world: Any) -> None:
    from careledger.directory import Admit

    gone = world.parties[3]
    open_envelope, open_ident = world.propose(parameter("inbox_quota", 5), by=3)
    assert world.run(open_envelope) == ["ok"]
    assert world.decide(Remove(member=gone.token)) == ["ok", "ok", "ok"]
    assert world.directory.member(gone.token) is None
    assert world.directory.node(gone.node) is None
    assert gone.token not in world.directory.witnesses()
    person = world.person()
    assert world.run(world.enrol(person, by=3), world.propose(parameter("inbox_quota", 6), by=3)[0]) == [
        "not-a-node",
        "not-a-member",
    ]
    # Its vote no longer counts: three members need three votes.
    assert world.run(world.vote(open_ident, 0), world.vote(open_ident, 1)) == ["ok", "ok"]
    assert world.directory.proposal(open_ident).status == "open"
    assert world.run(world.vote(open_ident, 2)) == ["ok"]
    assert world.directory.proposal(open_ident).status == "passed"
    back = world.decide(Admit(member=gone.token, roles=["provider"], nodes=[gone.entry]))
    assert set(back) == {"ok"}
    assert world.directory.node_member(gone.node) == gone.token


def test_last_member_and_the_sequencer_s_member_stay(make_world: Any) -> None:
    alone = make_world(1, sequencer="")
    assert alone.run(alone.propose(Remove(member=alone.parties[0].token))[0]) == ["last-member"]
    world = make_world(4)
    assert world.run(world.propose(Remove(member=world.parties[0].token), by=1)[0]) == ["is-sequencer"]
    assert world.run(world.propose(Remove(member="cl1" + "q" * 46))[0]) == ["not-a-member"]


def test_roles_change_by_vote_only(world: Any) -> None:
    person = world.enrolled()
    assert world.decide(RoleChange(member=world.parties[1].token, roles=["licensor"])) == ["ok"] * 3
    assert world.run(world.licence(person.token, by=1)) == ["ok"]


def test_parameter_takes_effect_at_its_height(world: Any) -> None:
    height = world.directory.height + 10
    assert world.decide(parameter("inbox_quota", 7, activates=height)) == ["ok"] * 3
    while world.directory.height < height - 1:
        assert world.directory.parameter("inbox_quota") == 1_000
        world.run()
    assert world.directory.parameter("inbox_quota") == 1_000
    world.run()
    assert world.directory.parameter("inbox_quota") == 7
    assert world.run(world.propose(parameter("inbox_quota", 8, activates=3))[0]) == ["expired"]


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("colour", 1, "unknown-parameter"),
        ("inbox_quota", -1, "bad-parameter"),
        ("inbox_quota", "1", "bad-parameter"),
        ("policy", "two words", "bad-parameter"),
        ("policy", 3, "bad-parameter"),
        ("app_bundle", "AB" * 32, "bad-parameter"),
        ("sequencer", "cl1q", "bad-parameter"),
        ("sequencer", 1, "bad-parameter"),
        ("formats", {}, "bad-parameter"),
        ("formats", 1, "bad-parameter"),
        ("formats", {"application/vnd.careledger.member-propose+json": [1]}, "bad-parameter"),
    ],
)
def test_parameter_out_of_its_bounds_is_refused(world: Any, name: str, value: Any, code: str) -> None:
    assert world.run(world.propose(parameter(name, value))[0]) == [code]


@pytest.mark.parametrize("versions", [[], [0], [2, 1], [1, 1], [1001]])
def test_formats_with_odd_versions_are_refused(world: Any, versions: list[int]) -> None:
    formats = default_parameters()["formats"]
    assert isinstance(formats, dict)
    changed = formats | {"application/vnd.careledger.licence+json": versions}
    assert world.run(world.propose(parameter("formats", changed))[0]) == ["bad-parameter"]


def test_format_that_is_not_active_may_not_be_written(world: Any) -> None:
    formats = default_parameters()["formats"]
    assert isinstance(formats, dict)
    person = world.enrolled()
    without = {name: versions for name, versions in formats.items() if "licence" not in name}
    height = world.directory.height + 6
    assert world.decide(parameter("formats", without, activates=height)) == ["ok"] * 3
    assert world.run(world.licence(person.token)) == ["ok"]
    while world.directory.height < height - 1:
        world.run()
    assert world.run(world.licence(person.token, licence="22" * 16)) == ["inactive-format"]


def test_sequencer_changes_to_an_active_node_at_once(world: Any) -> None:
    assert world.run(world.propose(parameter("sequencer", world.parties[0].token))[0]) == ["not-a-node"]
    assert world.run(world.propose(parameter("sequencer", world.parties[1].node, activates=50))[0]) == ["bad-parameter"]
    assert world.decide(parameter("sequencer", world.parties[1].node)) == ["ok"] * 3
    verifier = world.directory.sequencer_verifier()
    assert verifier.public == world.parties[1].log_key.public
    assert verifier.name == f"{world.network[:16]}/directory"


def test_member_replaces_its_own_nodes_and_old_statements_cannot_be_replayed(world: Any) -> None:
    party = world.parties[1]
    newcomer = world.party()
    assert world.run(world.enrol(newcomer.software)) == ["ok"]
    first = world.nodes(1, [newcomer.entry])
    assert world.run(first) == ["ok"]
    assert world.directory.node(party.node) is None
    assert world.directory.node_member(newcomer.node) == party.token
    assert world.directory.member(party.token).head == envelope_message_id(first).hex()
    back = world.nodes(1, [party.entry])
    assert world.run(back, first) == ["ok", "bad-prev"]
    assert world.directory.node(party.node) is not None
    assert world.run(world.nodes(1, [party.entry], prev=ZERO_HASH)) == ["bad-prev"]


def test_new_log_key_is_taken_and_the_former_one_remembered(world: Any) -> None:
    party = world.parties[1]
    key = SigningKey(world.rand(32))
    changed = msgspec.structs.replace(party.entry, log_key=b64(key.public), url="https://new.example")
    assert world.run(world.nodes(1, [changed])) == ["ok"]
    state = world.directory.node(party.node)
    assert state.log_key == b64(key.public)
    assert state.former_log_keys == [b64(party.log_key.public)]
    assert state.url == "https://new.example"


def test_member_cannot_take_another_s_node_nor_drop_the_sequencer(world: Any) -> None:
    assert world.run(world.nodes(1, [world.parties[2].entry])) == ["node-taken"]
    assert world.run(world.nodes(0, [])) == ["is-sequencer"]
    assert world.run(world.nodes(1, [world.parties[1].entry, world.parties[1].entry])) == ["bad-nodes"]


def test_member_s_statement_signed_by_another_is_refused(world: Any) -> None:
    change = MemberPropose(
        v=1,
        network=world.network,
        member=world.parties[1].token,
        nonce="00" * 16,
        expires=world.now_ms + DAY_MS,
        change=parameter("inbox_quota", 5),
    )
    key = world.parties[0].organisation.secrets.device.signing_key()
    forged = sign_transaction(change, signers=[(keyid(world.parties[1].token, 0), key)])
    assert world.run(forged) == ["bad-signature"]
