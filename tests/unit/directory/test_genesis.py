"""Founding: the network is its genesis, and a genesis that lies makes no network."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from careledger.directory import Directory, Genesis, MemberPart, NodePart, founding, network_of, parse_genesis
from careledger.errors import MalformedError
from careledger.identity import new_organisation, new_person, new_software
from careledger.seal import SigningKey, decode, encode


def test_network_is_the_hash_of_the_genesis_bytes(world: Any) -> None:
    assert world.network == hashlib.sha256(world.genesis).hexdigest() == network_of(world.genesis)
    assert world.directory.height == 0
    assert encode(parse_genesis(world.genesis)) == world.genesis


def test_founding_is_a_function_of_its_parts(world: Any) -> None:
    parts = [party.part for party in world.parties]
    one = founding(parts, time_ms=5, nonce=bytes(16))
    assert one == founding(parts, time_ms=5, nonce=bytes(16))
    others = [
        founding(parts, time_ms=6, nonce=bytes(16)),
        founding(parts, time_ms=5, nonce=b"\x01" * 16),
        founding(parts[::-1], time_ms=5, nonce=bytes(16)),
        founding(parts[:3], time_ms=5, nonce=bytes(16)),
        founding(parts, time_ms=5, nonce=bytes(16), parameters={"inbox_quota": 1}),
    ]
    assert len({network_of(data) for data in [one, *others]}) == 6


def test_first_node_of_the_first_founder_is_the_sequencer_unless_said_otherwise(world: Any) -> None:
    parts = [party.part for party in world.parties]
    genesis = parse_genesis(founding(parts, time_ms=5, nonce=bytes(16)))
    assert genesis.parameters["sequencer"] == world.parties[0].node
    other = founding(parts, time_ms=5, nonce=bytes(16), parameters={"sequencer": world.parties[2].node})
    verifier = Directory.from_genesis(other).sequencer_verifier()
    assert verifier is not None
    assert verifier.public == world.parties[2].log_key.public
    none = founding(parts, time_ms=5, nonce=bytes(16), parameters={"sequencer": ""})
    assert Directory.from_genesis(none).sequencer_verifier() is None


def test_every_founder_and_node_is_an_identity_from_the_start(world: Any) -> None:
    for party in world.parties:
        assert world.directory.identity(party.token).kind == "organisation"
        assert world.directory.identity(party.node).kind == "software"
        assert world.directory.identity(party.token).effective_at == world.directory.time_ms


def changed(world: Any, **fields: Any) -> bytes:
    return encode(msgspec.structs.replace(decode(world.genesis, Genesis), **fields))


def test_genesis_that_lies_makes_no_network(world: Any) -> None:
    genesis = decode(world.genesis, Genesis)
    stranger = new_person(custodians=[], rand=world.rand)
    other = new_organisation(nodes=[], rand=world.rand)
    forged = msgspec.structs.replace(genesis.inceptions[0], signatures=genesis.inceptions[1].signatures)
    cases = {
        "signature": changed(world, inceptions=[forged, *genesis.inceptions[1:]]),
        "missing": changed(world, inceptions=genesis.inceptions[1:]),
        "twice": changed(world, inceptions=[*genesis.inceptions, genesis.inceptions[0]]),
        "member twice": changed(world, members=[*genesis.members, genesis.members[0]]),
        "person as member": changed(
            world,
            inceptions=[*genesis.inceptions, stranger.envelope],
            members=[*genesis.members, msgspec.structs.replace(genesis.members[0], token=stranger.token, nodes=[])],
        ),
        "node twice": changed(
            world,
            inceptions=[*genesis.inceptions, other.envelope],
            members=[*genesis.members, msgspec.structs.replace(genesis.members[0], token=other.token)],
        ),
        "no members": changed(world, members=[]),
        "parameter missing": changed(
            world, parameters={name: value for name, value in genesis.parameters.items() if name != "formats"}
        ),
        "parameter wrong": changed(world, parameters=genesis.parameters | {"inbox_quota": -1}),
        "parameter unknown": changed(world, parameters=genesis.parameters | {"colour": 1}),
        "sequencer unknown": changed(world, parameters=genesis.parameters | {"sequencer": stranger.token}),
        "version": world.genesis.replace(b'"v":1}', b'"v":2}'),
        "space": world.genesis + b" ",
    }
    for name, data in cases.items():
        with pytest.raises(MalformedError) as caught:
            Directory.from_genesis(data)
        assert caught.value.message, name


def test_founding_refuses_parts_that_make_no_network(world: Any) -> None:
    with pytest.raises(MalformedError):
        founding([], time_ms=5, nonce=bytes(16))
    organisation = new_organisation(nodes=[], rand=world.rand)
    with pytest.raises(MalformedError):
        founding([MemberPart(organisation.envelope, [])], time_ms=5, nonce=bytes(16))
    software = new_software(rand=world.rand)
    key = SigningKey(world.rand(32)).public
    same = NodePart(software.envelope, "http://a.example", key, key)
    with pytest.raises(MalformedError):
        founding([MemberPart(organisation.envelope, [same])], time_ms=5, nonce=bytes(16))
    small_order = NodePart(software.envelope, "http://a.example", bytes(32), key)
    with pytest.raises(MalformedError):
        founding([MemberPart(organisation.envelope, [small_order])], time_ms=5, nonce=bytes(16))
