"""Replicas: same blocks, same app hash; purity; proofs down from the app hash, now and of recent heights."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from careledger.directory import (
    Block,
    Directory,
    ParameterChange,
    app_hash,
    apply_block,
    check_directory_checkpoint,
    cosignatures_needed,
    found_state,
    parse_block,
)
from careledger.errors import MalformedError, NotFoundError, UnavailableError, VerificationError
from careledger.identity import IdentityState
from careledger.seal import decode, encode


def story(world: Any) -> list[Block]:
    """Blocks that touch every kind of value, some transactions in them refused."""
    blocks: list[Block] = []
    apply = world.directory.apply

    def recorded(block: Block) -> Any:
        blocks.append(block)
        return apply(block)

    world.directory.apply = recorded
    person = world.enrolled()
    world.run(world.licence(person.token), world.licence(person.token))
    world.grow_log(1, 5)
    world.run(world.anchor(1))
    world.admit(world.party())
    world.decide(ParameterChange(name="inbox_quota", value=9, activates=0))
    world.run()
    return blocks


def test_two_replicas_agree_after_every_block(make_world: Any) -> None:
    one, other = make_world(), make_world()
    blocks = story(one)
    assert len(blocks) > 8
    for block in blocks:
        other.directory.apply(parse_block(encode(block)))
    assert other.directory.app_hash() == one.directory.app_hash()
    assert other.directory.height == one.directory.height
    assert other.directory.time_ms == one.directory.time_ms


def test_empty_block_does_not_change_the_app_hash(world: Any) -> None:
    story(world)
    before = world.directory.app_hash()
    world.run()
    assert world.directory.app_hash() == before


def test_apply_is_pure(world: Any) -> None:
    state = found_state(world.genesis)
    before, values, root = state.height, dict(state.values), state.state_map.root
    block = world.block(world.enrol(world.person()))
    one, other = apply_block(state, block), apply_block(state, block)
    assert one.app_hash == other.app_hash
    assert (state.height, state.values, state.state_map.root) == (before, values, root)
    assert one.app_hash != app_hash(root, state.frontier.root())
    state.commit(one)
    assert app_hash(state.state_map.root, state.frontier.root()) == one.app_hash


def test_app_hash_binds_the_history_not_only_the_values(make_world: Any) -> None:
    """Two ways to the same values differ in their events."""
    one, other = make_world(), make_world()
    assert one.directory.app_hash() == other.directory.app_hash()
    people = [one.person(), one.person()]
    one.run(one.enrol(people[0]), one.enrol(people[1]))
    other.run(other.enrol(people[1]), other.enrol(people[0]))
    assert one.directory.state.state_map.root == other.directory.state.state_map.root
    assert one.directory.app_hash() != other.directory.app_hash()


@pytest.mark.parametrize(("field", "value"), [("height", 2), ("time", 5), ("network", "ab" * 32)])
def test_block_that_does_not_follow_is_refused(world: Any, field: str, value: Any) -> None:
    block = msgspec.structs.replace(world.block(), **{field: value})
    before = world.directory.app_hash()
    with pytest.raises(VerificationError):
        world.directory.apply(block)
    assert world.directory.app_hash() == before
    assert world.directory.height == 0


def test_block_bytes_are_canonical_and_bounded(world: Any) -> None:
    data = encode(world.block())
    assert encode(parse_block(data)) == data
    for wrong in (data + b"\n", data.replace(b'"v":1', b'"v":2'), data[:-1] + b',"x":1}'):
        with pytest.raises(MalformedError):
            parse_block(wrong)
    with pytest.raises(MalformedError) as caught:
        parse_block(b" " * 65_536)
    assert caught.value.code == "too-large"


def test_taking_blocks_back_restores_everything(make_world: Any) -> None:
    world = make_world()
    untouched = found_state(world.genesis)
    heights = [(0, world.directory.app_hash())]
    apply = world.directory.apply

    def watched(block: Block) -> Any:
        results = apply(block)
        heights.append((world.directory.height, world.directory.app_hash()))
        return results

    world.directory.apply = watched
    blocks = story(world)
    state = world.directory.state
    state.event_tree()
    for height, expected in reversed(heights):
        state.take_back(height)
        assert world.directory.height == height
        assert world.directory.app_hash() == expected
    for name in ("values", "keys", "members", "nodes", "events", "event_places"):
        assert getattr(state, name) == getattr(untouched, name), name
    assert list(state.members) == list(untouched.members)
    assert all(not licences for licences in state.licences.values())
    again = Directory(state)
    for block in blocks:
        again.apply(block)
    assert again.app_hash() == heights[-1][1]


def test_every_value_is_provable_from_the_app_hash(world: Any) -> None:
    story(world)
    app = world.directory.app_hash()
    for place, value in world.directory.state.values.items():
        kind, _, ident = place.partition("/")
        proof = world.directory.prove_state(kind, ident)
        assert proof.verify(kind=kind, ident=ident, app=app) == encode(value)


def test_unknown_token_is_provably_unknown(world: Any) -> None:
    person = world.person()
    proof = world.directory.prove_state("identity", person.token)
    assert proof.verify(kind="identity", ident=person.token, app=world.directory.app_hash()) is None
    world.run(world.enrol(person))
    with pytest.raises(VerificationError) as caught:
        proof.verify(kind="identity", ident=person.token, app=world.directory.app_hash())
    assert caught.value.code == "bad-app-hash"


def test_proof_about_something_else_is_refused(world: Any) -> None:
    one, other = world.enrolled(), world.enrolled()
    app = world.directory.app_hash()
    proof = world.directory.prove_state("identity", one.token)
    with pytest.raises(VerificationError) as caught:
        proof.verify(kind="identity", ident=other.token, app=app)
    assert caught.value.code == "wrong-proof"
    renamed = msgspec.structs.replace(proof, id=other.token)
    with pytest.raises(VerificationError):
        renamed.verify(kind="identity", ident=other.token, app=app)
    hidden = msgspec.structs.replace(proof, value=msgspec.UNSET)
    with pytest.raises(VerificationError):
        hidden.verify(kind="identity", ident=one.token, app=app)
    assert isinstance(proof.value, str)
    altered = msgspec.structs.replace(proof, value=proof.value.replace('"active"', '"deactivated"'))
    with pytest.raises(VerificationError):
        altered.verify(kind="identity", ident=one.token, app=app)


def test_recent_heights_can_be_proven_later(world: Any) -> None:
    person = world.enrolled()
    height, app = world.directory.height, world.directory.app_hash()
    old = world.directory.identity(person.token)
    from careledger.identity import build_deactivate

    end = build_deactivate(network=world.network, token=person.token, state=old, root=person.secrets.root)
    newcomer = world.person()
    world.run(end, world.enrol(newcomer))
    world.run()
    proof = world.directory.prove_state("identity", person.token, height=height)
    value = proof.verify(kind="identity", ident=person.token, app=app)
    assert value is not None
    assert decode(value, IdentityState) == old
    absent = world.directory.prove_state("identity", newcomer.token, height=height)
    assert absent.verify(kind="identity", ident=newcomer.token, app=app) is None
    genesis = world.directory.prove_state("identity", person.token, height=0)
    assert genesis.verify(kind="identity", ident=person.token, app=found_app(world)) is None
    with pytest.raises(NotFoundError):
        world.directory.prove_state("identity", person.token, height=world.directory.height + 1)
    with pytest.raises(NotFoundError):
        world.directory.prove_state("identity", person.token, height=-1)


def found_app(world: Any) -> bytes:
    return Directory.from_genesis(world.genesis).app_hash()


def test_history_proves_what_was_true_when(world: Any) -> None:
    person = world.enrolled()
    first = world.directory.height
    first_value = encode(world.directory.identity(person.token))
    app_then = world.directory.app_hash()
    from careledger.identity import build_deactivate

    state = world.directory.identity(person.token)
    world.run(build_deactivate(network=world.network, token=person.token, state=state, root=person.secrets.root))
    app = world.directory.app_hash()
    proofs = world.directory.history("identity", person.token)
    events = [proof.verify(app=app) for proof in proofs]
    assert [(event.kind, event.id, event.height) for event in events] == [
        ("identity", person.token, first),
        ("identity", person.token, first + 1),
    ]
    import hashlib

    assert events[0].value == hashlib.sha256(first_value).hexdigest()
    earlier = world.directory.history("identity", person.token, height=first)
    assert len(earlier) == 1
    assert earlier[0].verify(app=app_then) == events[0]
    for wrong in (
        msgspec.structs.replace(proofs[0], index=proofs[1].index),
        msgspec.structs.replace(proofs[0], event=proofs[1].event),
        msgspec.structs.replace(proofs[0], hashes=proofs[0].hashes[1:]),
        msgspec.structs.replace(proofs[0], events_root="ab" * 32),
    ):
        with pytest.raises(VerificationError):
            wrong.verify(app=app)


def test_events_tree_has_no_counters(world: Any) -> None:
    world.enrolled()
    assert f"quota/{world.parties[0].token}" in world.directory.state.values
    assert world.directory.history("quota", world.parties[0].token) == []


@pytest.mark.parametrize(("members", "needed"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (6, 5), (7, 5), (16, 11)])
def test_cosignatures_needed(members: int, needed: int) -> None:
    assert cosignatures_needed(members) == needed
    assert 3 * needed > 2 * members


def test_checkpoint_counts_members_not_nodes(world: Any, tmp_path: Any) -> None:
    engine = world.sequencer(tmp_path)
    try:
        note = engine.checkpoint()
        sequencer = world.directory.sequencer_verifier()
        witnesses = world.directory.witnesses()
        head = check_directory_checkpoint(note, sequencer=sequencer, witnesses=witnesses, needed=1)
        assert (head.height, head.app_hash) == (1, engine.directory.app_hash())
        assert list(head.cosigned) == [world.parties[0].token]
        # The same witness listed twice for one member is still one member.
        doubled = {world.parties[0].token: witnesses[world.parties[0].token] * 1, world.parties[1].token: []}
        with pytest.raises(UnavailableError) as caught:
            check_directory_checkpoint(note, sequencer=sequencer, witnesses=doubled, needed=2)
        assert caught.value.details == {"found": 1, "needed": 2}
        stranger = world.parties[1].log_key
        from careledger.tlog import Verifier

        with pytest.raises(VerificationError):
            check_directory_checkpoint(
                note,
                sequencer=Verifier.ed25519(sequencer.name, stranger.public),
                witnesses=witnesses,
                needed=1,
            )
    finally:
        engine.close()
