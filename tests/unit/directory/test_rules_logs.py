"""Anchors interlink the nodes' logs with the directory; a proven fork marks a node for good."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from careledger.directory import ForkEvidence, ForkProof
from careledger.seal import SigningKey, b64
from careledger.tlog import MemoryTree, leaf_hash


def evidence(world: Any, checkpoints: list[str], *, node: int = 1, by: int = 2, proof: Any = msgspec.UNSET) -> Any:
    payload = ForkEvidence(
        v=1, network=world.network, node=world.parties[node].node, checkpoints=checkpoints, proof=proof
    )
    return world.parties[by].as_node(payload)


def test_anchors_follow_each_other_with_consistency_proofs(world: Any) -> None:
    world.grow_log(1, 5)
    assert world.run(world.anchor(1)) == ["ok"]
    world.grow_log(1, 8)
    assert world.run(world.anchor(1, old=5)) == ["ok"]
    anchor = world.directory.anchor(world.parties[1].node)
    assert (anchor.size, anchor.root) == (13, world.parties[1].log.root().hex())
    assert (anchor.height, anchor.time) == (world.directory.height, world.now_ms)


def test_anchor_of_a_rewritten_log_is_refused(world: Any) -> None:
    world.grow_log(1, 5)
    assert world.run(world.anchor(1)) == ["ok"]
    before = world.directory.anchor(world.parties[1].node)
    world.parties[1].log = MemoryTree()
    world.grow_log(1, 13)
    assert world.run(world.anchor(1, old=5)) == ["bad-proof"]
    assert world.directory.anchor(world.parties[1].node) == before


def test_anchor_of_a_shorter_or_equal_log_is_refused(world: Any) -> None:
    world.grow_log(1, 9)
    assert world.run(world.anchor(1)) == ["ok"]
    assert world.run(world.anchor(1, old=5, size=5, proof=[])) == ["old-anchor"]
    assert world.run(world.anchor(1, old=9)) == ["old-anchor"]


def test_first_anchor_needs_no_proof_and_takes_none(world: Any) -> None:
    world.grow_log(1, 5)
    assert world.run(world.anchor(1, proof=["00" * 32])) == ["bad-proof"]
    assert world.run(world.anchor(1)) == ["ok"]
    world.grow_log(1, 1)
    assert world.run(world.anchor(1, old=5, proof=[])) == ["bad-proof"]


def test_anchor_signed_by_another_log_or_for_another_node_is_refused(world: Any) -> None:
    for index in (1, 2):
        world.grow_log(index, 5)
    assert world.run(world.anchor(1, checkpoint=world.checkpoint(2))) == ["no-signature"]
    true_key = world.parties[1].log_key
    world.parties[1].log_key = SigningKey(world.rand(32))
    assert world.run(world.anchor(1)) == ["no-signature"]
    world.parties[1].log_key = true_key
    forged = world.parties[2].as_node(msgspec.structs.replace(_anchor_payload(world, 1), node=world.parties[1].node))
    assert world.run(forged) == ["wrong-signer"]


def _anchor_payload(world: Any, by: int) -> Any:
    from careledger.directory import Anchor

    party = world.parties[by]
    return Anchor(v=1, network=world.network, node=party.node, checkpoint=world.checkpoint(by), proof=[])


def test_anchor_that_is_no_checkpoint_is_refused(world: Any) -> None:
    assert world.run(world.anchor(1, checkpoint="nonsense")) == ["bad-note"]


def test_anchor_with_a_signer_s_name_outside_ascii_is_refused(world: Any) -> None:
    """Which characters a name may have depends on Python's Unicode version; replicas must not differ by it."""
    world.grow_log(1, 5)
    true = world.checkpoint(1)
    plain = true + "\u2014 somebody AAAAAAAA\n"
    assert world.run(world.anchor(1, checkpoint=true + "\u2014 sömebody AAAAAAAA\n")) == ["bad-note"]
    assert world.run(world.anchor(1, checkpoint=plain)) == ["ok"]


def test_anchors_come_no_oftener_than_the_parameter_says(make_world: Any) -> None:
    world = make_world(anchor_min_ms=5_000)
    world.grow_log(1, 5)
    assert world.run(world.anchor(1)) == ["ok"]
    first = world.now_ms
    world.grow_log(1, 1)
    assert world.run(world.anchor(1, old=5), time_ms=first + 4_999) == ["too-soon"]
    assert world.run(world.anchor(1, old=5), time_ms=first + 5_000) == ["ok"]


def test_two_roots_of_one_size_mark_the_node_and_stop_its_anchors(world: Any) -> None:
    world.grow_log(1, 5)
    two = [world.checkpoint(1), world.checkpoint(1, root=bytes(32))]
    assert world.run(evidence(world, two)) == ["ok"]
    mark = world.directory.fork(world.parties[1].node)
    assert (mark.size, mark.member) == (5, world.parties[1].token)
    assert world.run(evidence(world, two, by=3)) == ["exists"]
    assert world.run(world.anchor(1)) == ["forked"]
    # Its witness no longer vouches for its member.
    assert world.directory.witnesses()[world.parties[1].token] == []
    assert len(world.directory.witnesses()[world.parties[2].token]) == 1


def test_two_sizes_are_a_fork_only_with_the_proof_of_what_the_larger_one_holds(world: Any) -> None:
    log = world.parties[1].log
    world.grow_log(1, 13)
    large = world.checkpoint(1)
    honest = world.checkpoint(1, 5)
    lie = world.checkpoint(1, 5, root=leaf_hash(b"another history"))
    proof = ForkProof(root=log.root(5).hex(), hashes=[value.hex() for value in log.consistency_proof(5)])
    assert world.run(evidence(world, [lie, large])) == ["no-fork"]
    assert world.run(evidence(world, [honest, large], proof=proof)) == ["no-fork"]
    made_up = msgspec.structs.replace(proof, root="ab" * 32)
    assert world.run(evidence(world, [honest, large], proof=made_up)) == ["bad-proof"]
    assert world.run(evidence(world, [large, lie], proof=proof)) == ["ok"]
    assert world.directory.fork(world.parties[1].node).size == 5


def test_honest_node_cannot_be_framed(world: Any) -> None:
    world.grow_log(1, 5)
    world.grow_log(2, 5)
    true = world.checkpoint(1)
    assert world.run(evidence(world, [true, true])) == ["no-fork"]
    assert world.run(evidence(world, [true, world.checkpoint(2)])) == ["no-signature"]
    key = world.parties[1].log_key
    world.parties[1].log_key = SigningKey(world.rand(32))
    assert world.run(evidence(world, [true, world.checkpoint(1, root=bytes(32))])) == ["no-signature"]
    world.parties[1].log_key = key
    proof = ForkProof(root="00" * 32, hashes=[])
    two = [true, world.checkpoint(1, root=bytes(32))]
    assert world.run(evidence(world, two, proof=proof)) == ["no-fork"]
    assert world.directory.fork(world.parties[1].node) is None


def test_evidence_comes_from_a_member_s_node_about_a_known_node(world: Any) -> None:
    world.grow_log(1, 5)
    two = [world.checkpoint(1), world.checkpoint(1, root=bytes(32))]
    stranger = world.party()
    payload = ForkEvidence(v=1, network=world.network, node=world.parties[1].node, checkpoints=two)
    assert world.run(stranger.as_node(payload)) == ["unknown-identity"]
    assert world.run(world.enrol(stranger.software), stranger.as_node(payload)) == ["ok", "not-a-node"]
    unknown = msgspec.structs.replace(payload, node=stranger.node)
    assert world.run(world.parties[2].as_node(unknown)) == ["not-a-node"]


def test_fork_signed_with_a_former_key_is_still_proven(world: Any) -> None:
    world.grow_log(1, 5)
    two = [world.checkpoint(1), world.checkpoint(1, root=bytes(32))]
    new = SigningKey(world.rand(32))
    entry = msgspec.structs.replace(world.parties[1].entry, log_key=b64(new.public))
    assert world.run(world.nodes(1, [entry])) == ["ok"]
    assert world.run(evidence(world, two)) == ["ok"]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_evidence_has_exactly_two_checkpoints(world: Any, count: int) -> None:
    world.grow_log(1, 5)
    assert world.run(evidence(world, [world.checkpoint(1)] * count)) == ["bad-field"]
