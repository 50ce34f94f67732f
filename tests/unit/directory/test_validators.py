"""Validators follow from the members: one vote each, by the first node with a consensus key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from careledger.directory import Admit, ConsensusEntry, Directory, NodeEntry, Remove
from careledger.directory.genesis import parse_genesis
from careledger.directory.validators import POWER, founding_validators, validator_changes, validators
from careledger.errors import MalformedError
from careledger.seal import b64, decode, encode


@pytest.fixture
def world(make_world: Callable[..., Any]) -> Any:
    return make_world(validates=True)


def of(world: Any) -> dict[bytes, int]:
    return validators(world.directory.state.members, world.directory.state.nodes)


def keys(world: Any) -> list[bytes]:
    return [party.consensus_key.public for party in world.parties]


def test_founders_validate_with_equal_power(world: Any) -> None:
    assert of(world) == dict.fromkeys(keys(world), POWER)
    assert founding_validators(parse_genesis(world.genesis)) == of(world)


def test_a_network_without_consensus_keys_has_the_same_genesis_bytes_as_ever(make_world: Callable[..., Any]) -> None:
    genesis = make_world().genesis
    assert b"consensus" not in genesis
    assert of(make_world()) == {}
    assert encode(parse_genesis(genesis)) == genesis


def test_a_members_second_node_has_no_vote(world: Any) -> None:
    second = world.party()
    assert world.run(world.enrol(second.software)) == ["ok"]
    assert world.run(world.nodes(0, [world.parties[0].entry, second.entry])) == ["ok"]
    assert of(world) == dict.fromkeys(keys(world), POWER)
    assert world.run(world.nodes(0, [second.entry, world.parties[0].entry])) == ["ok"]
    assert set(of(world)) == {second.consensus_key.public, *keys(world)[1:]}


def test_a_member_may_run_a_node_that_does_not_validate(world: Any) -> None:
    plain = msgspec.structs.replace(world.parties[1].entry, consensus=msgspec.UNSET)
    assert world.run(world.nodes(1, [plain])) == ["ok"]
    assert set(of(world)) == {keys(world)[0], *keys(world)[2:]}


def test_nobody_takes_another_members_consensus_key(world: Any) -> None:
    stolen = msgspec.structs.replace(world.parties[3].entry, consensus=world.parties[1].entry.consensus)
    assert world.run(world.nodes(3, [stolen])) == ["key-taken"]
    newcomer = world.party()
    assert world.run(world.enrol(newcomer.software), world.enrol(newcomer.organisation)) == ["ok", "ok"]
    entry = msgspec.structs.replace(newcomer.entry, consensus=world.parties[1].entry.consensus)
    envelope, _ = world.propose(Admit(member=newcomer.token, roles=["provider"], nodes=[entry]))
    assert world.run(envelope) == ["key-taken"]


def test_a_consensus_key_has_no_other_use(world: Any) -> None:
    party = world.parties[0]
    twice = ConsensusEntry(key=b64(party.log_key.public), peer=party.peer)
    assert world.run(world.nodes(0, [msgspec.structs.replace(party.entry, consensus=twice)])) == ["bad-nodes"]


def test_a_key_of_a_removed_member_is_free_again(world: Any) -> None:
    left = world.parties[3]
    assert set(world.decide(Remove(member=left.token))) == {"ok"}
    assert set(of(world)) == set(keys(world)[:3])
    taken = msgspec.structs.replace(world.parties[2].entry, consensus=left.entry.consensus)
    assert world.run(world.nodes(2, [taken])) == ["ok"]
    assert left.consensus_key.public in of(world)


def test_the_last_validator_stays(world: Any) -> None:
    for index in (0, 1, 2):
        plain = msgspec.structs.replace(world.parties[index].entry, consensus=msgspec.UNSET)
        assert world.run(world.nodes(index, [plain])) == ["ok"]
    last = world.parties[3]
    plain = msgspec.structs.replace(last.entry, consensus=msgspec.UNSET)
    assert world.run(world.nodes(3, [plain])) == ["last-validator"]
    envelope, _ = world.propose(Remove(member=last.token))
    assert world.run(envelope) == ["last-validator"]
    assert list(of(world)) == [last.consensus_key.public]


def test_an_admitted_member_validates_and_the_change_says_so(world: Any) -> None:
    before, newcomer = of(world), world.party()
    assert set(world.admit(newcomer)) == {"ok"}
    assert validator_changes(before, of(world)) == [(newcomer.consensus_key.public, POWER)]
    assert validator_changes(of(world), before) == [(newcomer.consensus_key.public, 0)]
    assert validator_changes(before, before) == []


@pytest.mark.parametrize(
    "peer", ["", "node.example:1", "0" * 40 + "@:1", "G" * 40 + "@a:1", "0" * 40 + "@a b:1", "0" * 40 + "@a:1\n"]
)
def test_a_peer_has_one_form(world: Any, peer: str) -> None:
    entry = world.parties[0].entry
    data = encode(msgspec.structs.replace(entry, consensus=ConsensusEntry(key=entry.log_key, peer=peer)))
    with pytest.raises(MalformedError):
        decode(data, NodeEntry)


def test_validators_are_the_same_after_a_replay(world: Any) -> None:
    assert set(world.admit(world.party())) == {"ok"}
    again = Directory.from_genesis(world.genesis)
    assert validators(again.state.members, again.state.nodes) == dict.fromkeys(keys(world), POWER)
