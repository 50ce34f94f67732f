"""The embedded engine: one orders, the others execute, cosign what is right and refuse everything else."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from careledger.directory import (
    ParameterChange,
    app_hash_line,
    check_directory_checkpoint,
    cosignatures_needed,
    directory_origin,
    parse_app_hash,
    parse_block,
)
from careledger.directory.engines import Follower, Sequencer
from careledger.errors import (
    ConflictError,
    Error,
    MalformedError,
    NotFoundError,
    NotPermittedError,
    UnavailableError,
    VerificationError,
)
from careledger.identity import build_deactivate
from careledger.seal import SigningKey, b64, encode
from careledger.tlog import (
    Checkpoint,
    Cosigner,
    Signer,
    TileReader,
    cosign,
    leaf_hashes_of,
    open_checkpoint,
    parse_unverified_checkpoint,
    root_of,
    sign_checkpoint,
    verify_cosignature,
    verify_log,
)


class Followers(list[Follower]):
    """Three followers, each opened when it is first asked for: most tests need one."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self._net = net
        self._opened: dict[int, Follower] = {}

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(3))]
        if index not in self._opened:
            self._opened[index] = self._net.open_follower(index + 1)
        return self._opened[index]

    def __setitem__(self, index: Any, follower: Any) -> None:
        self._opened[index] = follower

    def __iter__(self) -> Iterator[Follower]:
        return iter(self[0:3])

    def opened(self) -> list[Follower]:
        return list(self._opened.values())


class Net:
    """A sequencer and three followers in one folder."""

    def __init__(self, world: Any, path: Path) -> None:
        self.world, self.path = world, path
        self.sequencer: Sequencer = world.sequencer(path, folder=path / "log")
        self.followers = Followers(self)
        self.opened_at = 0
        """The height at which followers are opened."""

    def open_follower(self, index: int) -> Follower:
        follower: Follower = self.world.follower(self.path, index)
        while follower.height < self.opened_at:
            found = self.sequencer.blocks_after(follower.height, limit=self.opened_at - follower.height)
            assert found is not None
            follower.accept(*found, now_ms=self.world.now_ms)
        return follower

    def submit(self, *envelopes: Any) -> list[str]:
        self.world.now_ms += 1000
        return [result.code for result in self.sequencer.submit(envelopes, now_ms=self.world.now_ms)]

    def enrol(self, count: int = 1) -> list[Any]:
        people = [self.world.person() for _ in range(count)]
        assert self.submit(*(self.world.enrol(person) for person in people)) == ["ok"] * count
        return people

    def sync(self, follower: Follower) -> bytes:
        line = b""
        while (news := self.sequencer.blocks_after(follower.height)) is not None:
            line = follower.accept(*news, now_ms=self.world.now_ms)
        return line

    def close(self) -> None:
        for replica in (self.sequencer, *self.followers.opened()):
            replica.close()


@pytest.fixture
def net(world: Any, tmp_path: Path) -> Iterator[Net]:
    made = Net(world, tmp_path)
    yield made
    made.close()


def signed_by(key: SigningKey, network: str, size: int, root: bytes, app: bytes) -> bytes:
    origin = directory_origin(network)
    return sign_checkpoint(Checkpoint(origin, size, root, (app_hash_line(app),)), signer=Signer(origin, key))


def test_new_network_starts_with_an_empty_block_that_can_be_cosigned(net: Net) -> None:
    assert net.sequencer.height == 1
    for follower in net.followers:
        assert follower.height == 0
        net.sync(follower)
        assert follower.directory.app_hash() == net.sequencer.directory.app_hash()


def test_followers_execute_cosign_and_the_head_is_proven_by_members(net: Net) -> None:
    person = net.enrol()[0]
    size = net.sequencer.height
    assert net.sequencer.cosigned(size) == [net.world.parties[0].token]
    assert net.sequencer.newest_cosigned() is None
    for follower in net.followers[:2]:
        line = net.sync(follower)
        assert net.sequencer.add_cosignature(size, line) in [party.token for party in net.world.parties]
    newest = net.sequencer.newest_cosigned()
    assert newest is not None
    assert newest[0] == size
    directory = net.followers[0].directory
    verifier = directory.sequencer_verifier()
    assert verifier is not None
    head = check_directory_checkpoint(
        newest[1], sequencer=verifier, witnesses=directory.witnesses(), needed=cosignatures_needed(4)
    )
    assert len(head.cosigned) == 3
    proof = net.sequencer.directory.prove_state("identity", person.token, height=size)
    assert proof.verify(kind="identity", ident=person.token, app=head.app_hash) is not None


def test_two_members_of_four_are_not_enough(net: Net) -> None:
    net.enrol()
    line = net.sync(net.followers[0])
    net.sequencer.add_cosignature(net.sequencer.height, line)
    note = net.sequencer.checkpoint()
    directory = net.sequencer.directory
    verifier = directory.sequencer_verifier()
    assert verifier is not None
    with pytest.raises(UnavailableError) as caught:
        check_directory_checkpoint(note, sequencer=verifier, witnesses=directory.witnesses(), needed=3)
    assert caught.value.details == {"found": 2, "needed": 3}


def test_one_block_for_many_waiting_transactions_and_refused_ones_left_out(net: Net) -> None:
    people = [net.world.person() for _ in range(3)]
    envelopes = [net.world.enrol(person) for person in people]
    height = net.sequencer.height
    results = net.sequencer.submit(
        [envelopes[0], envelopes[0], people[1].envelope, *envelopes[1:]], now_ms=net.world.now_ms
    )
    assert [(result.code, result.height) for result in results] == [
        ("ok", height + 1),
        ("exists", None),
        ("not-enrolled", None),
        ("ok", height + 1),
        ("ok", height + 1),
    ]
    block = net.sequencer.block(height + 1)
    assert block is not None
    assert parse_block(block).transactions == envelopes
    assert net.sequencer.operations(people[2].token) == [people[2].envelope]


def test_transactions_that_are_all_refused_make_no_block(net: Net) -> None:
    height, note = net.sequencer.height, net.sequencer.checkpoint()
    assert net.submit(net.world.person().envelope) == ["not-enrolled"]
    assert net.submit() == []
    assert (net.sequencer.height, net.sequencer.checkpoint()) == (height, note)


def test_more_transactions_than_a_block_holds_make_several_under_one_checkpoint(net: Net) -> None:
    height = net.sequencer.height
    people = net.enrol(40)
    assert net.sequencer.height > height + 1
    for index in range(height + 1, net.sequencer.height + 1):
        data = net.sequencer.block(index)
        assert data is not None
        assert len(data) <= 65_535
    with pytest.raises(NotFoundError):
        net.sequencer.checkpoint(height + 1)
    for follower in net.followers:
        net.sync(follower)
        assert follower.directory.is_active(people[39].token)
        assert follower.operations(people[39].token) == [people[39].envelope]


def test_heartbeat_comes_only_when_the_last_block_is_old(net: Net) -> None:
    app, time_ms = net.sequencer.directory.app_hash(), net.sequencer.directory.time_ms
    assert not net.sequencer.heartbeat(now_ms=time_ms + 59_999)
    assert net.sequencer.heartbeat(now_ms=time_ms + 60_000)
    assert net.sequencer.directory.app_hash() == app
    assert net.sequencer.directory.time_ms == time_ms + 60_000


def test_sequencer_s_time_never_runs_backwards(net: Net) -> None:
    net.enrol()
    before = net.sequencer.directory.time_ms
    net.sequencer.submit([net.world.enrol(net.world.person())], now_ms=before - 10_000)
    assert net.sequencer.directory.time_ms == before


# Wrong blocks


def news(net: Net, follower: Follower) -> tuple[list[bytes], Checkpoint]:
    found = net.sequencer.blocks_after(follower.height)
    assert found is not None
    return found[0], parse_unverified_checkpoint(found[1])


def refused(net: Net, follower: Follower, blocks: list[bytes], checkpoint: bytes, code: str = "wrong-block") -> str:
    before = (follower.height, follower.directory.app_hash(), dict(follower.directory.state.values))
    with pytest.raises(Error) as caught:
        follower.accept(blocks, checkpoint, now_ms=net.world.now_ms)
    assert caught.value.code == code, caught.value
    assert (follower.height, follower.directory.app_hash(), follower.directory.state.values) == before
    assert follower.block(before[0] + 1) is None
    return caught.value.message


def resigned(net: Net, follower: Follower, blocks: list[bytes], app: bytes, *, size: int | None = None) -> bytes:
    """The sequencer signs a log of its real history up to the follower's height and then these blocks."""
    history = [net.sequencer.block(height) or b"" for height in range(1, follower.height + 1)]
    root = root_of(leaf_hashes_of([*history, *blocks]))
    at = follower.height + len(blocks) if size is None else size
    return signed_by(net.world.parties[0].log_key, net.world.network, at, root, app)


@pytest.fixture
def ready(net: Net) -> Net:
    """Followers are at height 1; a block of three enrolments waits for them."""
    net.opened_at = net.sequencer.height
    net.enrol(3)
    return net


def test_honest_block_passes_where_the_wrong_ones_are_refused(ready: Net) -> None:
    """The control for the tests below: the same helpers with nothing wrong."""
    follower = ready.followers[0]
    blocks, checkpoint = news(ready, follower)
    note = resigned(ready, follower, blocks, parse_app_hash(checkpoint))
    line = follower.accept(blocks, note, now_ms=ready.world.now_ms)
    assert verify_cosignature(line, checkpoint_text=checkpoint.text, verifier=follower.cosigner.verifier) > 0


def test_wrong_app_hash_is_refused(ready: Net) -> None:
    follower = ready.followers[0]
    blocks, checkpoint = news(ready, follower)
    app = bytearray(parse_app_hash(checkpoint))
    app[31] ^= 1
    assert "app hash" in refused(ready, follower, blocks, resigned(ready, follower, blocks, bytes(app)))


def test_missing_app_hash_is_refused(ready: Net) -> None:
    follower = ready.followers[0]
    blocks, checkpoint = news(ready, follower)
    signer = Signer(checkpoint.origin, ready.world.parties[0].log_key)
    for extensions in ((), ("app-hash zz",), (*checkpoint.extensions, "more"), (checkpoint.extensions[0].upper(),)):
        note = sign_checkpoint(msgspec_free_replace(checkpoint, extensions), signer=signer)
        refused(ready, follower, blocks, note, "no-app-hash")


def msgspec_free_replace(checkpoint: Checkpoint, extensions: tuple[str, ...]) -> Checkpoint:
    return Checkpoint(checkpoint.origin, checkpoint.size, checkpoint.root, extensions)


def test_reordered_transactions_are_refused(ready: Net) -> None:
    follower = ready.followers[0]
    blocks, checkpoint = news(ready, follower)
    block = parse_block(blocks[0])
    swapped = [encode(msgspec.structs.replace(block, transactions=block.transactions[::-1]))]
    note = resigned(ready, follower, swapped, parse_app_hash(checkpoint))
    assert "app hash" in refused(ready, follower, swapped, note)


def test_reordered_blocks_are_refused(ready: Net) -> None:
    follower = ready.followers[0]
    ready.enrol(1)
    blocks, checkpoint = news(ready, follower)
    assert len(blocks) == 2
    note = resigned(ready, follower, blocks[::-1], parse_app_hash(checkpoint))
    refused(ready, follower, blocks[::-1], note)


@pytest.mark.parametrize("wrong", ["not-enrolled", "exists"])
def test_block_that_accepted_an_invalid_transaction_is_refused(ready: Net, wrong: str) -> None:
    follower = ready.followers[0]
    blocks, checkpoint = news(ready, follower)
    block = parse_block(blocks[0])
    extra = ready.world.person().envelope if wrong == "not-enrolled" else block.transactions[0]
    bad = [encode(msgspec.structs.replace(block, transactions=[*block.transactions, extra]))]
    note = resigned(ready, follower, bad, parse_app_hash(checkpoint))
    assert wrong in refused(ready, follower, bad, note)


def test_altered_dropped_or_added_transaction_is_refused(ready: Net) -> None:
    follower = ready.followers[0]
    blocks, checkpoint = news(ready, follower)
    block = parse_block(blocks[0])
    forged = msgspec.structs.replace(block.transactions[0], signatures=block.transactions[1].signatures)
    more = ready.world.enrol(ready.world.person())
    for transactions in (
        [forged, *block.transactions[1:]],
        block.transactions[1:],
        [*block.transactions, more],
    ):
        bad = [encode(msgspec.structs.replace(block, transactions=transactions))]
        refused(ready, follower, bad, resigned(ready, follower, bad, parse_app_hash(checkpoint)))


def test_block_altered_on_the_way_is_refused(ready: Net) -> None:
    """Every byte of the block is under the root, even where executing it would give the same app hash."""
    follower = ready.followers[0]
    found = ready.sequencer.blocks_after(follower.height)
    assert found is not None
    block = parse_block(found[0][0])
    later = encode(msgspec.structs.replace(block, time=block.time + 1))
    refused(ready, follower, [later], found[1])
    for position in range(0, len(found[0][0]), 997):
        data = bytearray(found[0][0])
        data[position] ^= 1
        with pytest.raises(Error):
            follower.accept([bytes(data)], found[1], now_ms=ready.world.now_ms)
    assert follower.accept(found[0], found[1], now_ms=ready.world.now_ms)


def test_empty_block_with_another_root_is_refused(ready: Net) -> None:
    follower = ready.followers[0]
    ready.sync(follower)
    ready.sequencer.heartbeat(now_ms=ready.world.now_ms + 60_000)
    found = ready.sequencer.blocks_after(follower.height)
    assert found is not None
    stated = parse_unverified_checkpoint(found[1])
    note = signed_by(
        ready.world.parties[0].log_key, ready.world.network, stated.size, bytes(32), parse_app_hash(stated)
    )
    assert "root" in refused(ready, follower, found[0], note)


def test_skipped_height_is_refused(ready: Net) -> None:
    follower = ready.followers[0]
    blocks, checkpoint = news(ready, follower)
    block = parse_block(blocks[0])
    skipping = [encode(msgspec.structs.replace(block, height=block.height + 1))]
    refused(ready, follower, skipping, resigned(ready, follower, skipping, parse_app_hash(checkpoint)))
    note = resigned(ready, follower, blocks, parse_app_hash(checkpoint), size=block.height + 1)
    assert "only 1 came" in refused(ready, follower, blocks, note)
    refused(ready, follower, [], ready.sequencer.checkpoint())


def test_block_of_the_past_or_of_another_network_is_refused(ready: Net) -> None:
    follower = ready.followers[0]
    blocks, checkpoint = news(ready, follower)
    block = parse_block(blocks[0])
    for fields in ({"time": follower.directory.time_ms - 1}, {"network": "ab" * 32}):
        bad = [encode(msgspec.structs.replace(block, **fields))]
        refused(ready, follower, bad, resigned(ready, follower, bad, parse_app_hash(checkpoint)))


def test_block_dated_ahead_of_the_clock_is_refused(ready: Net) -> None:
    follower = ready.followers[0]
    blocks, _ = news(ready, follower)
    found = ready.sequencer.blocks_after(follower.height)
    assert found is not None
    time_ms = parse_block(blocks[-1]).time
    with pytest.raises(VerificationError) as caught:
        follower.accept(*found, now_ms=time_ms - 120_001)
    assert caught.value.code == "wrong-block"
    assert follower.accept(*found, now_ms=time_ms - 120_000)


def test_checkpoint_by_a_wrong_key_is_refused(ready: Net) -> None:
    follower = ready.followers[0]
    blocks, checkpoint = news(ready, follower)
    app = parse_app_hash(checkpoint)
    for key in (ready.world.parties[1].log_key, ready.world.parties[0].witness_key):
        note = signed_by(key, ready.world.network, checkpoint.size, checkpoint.root, app)
        refused(ready, follower, blocks, note)
    origin = "0123456789abcdef/directory"
    other = sign_checkpoint(
        Checkpoint(origin, checkpoint.size, checkpoint.root, checkpoint.extensions),
        signer=Signer(origin, ready.world.parties[0].log_key),
    )
    refused(ready, follower, blocks, other)
    refused(ready, follower, blocks, b"nonsense", "bad-note")


def test_node_s_own_log_checkpoint_is_no_directory_checkpoint(ready: Net) -> None:
    """One key, two logs: the origin keeps them apart."""
    follower = ready.followers[0]
    blocks, checkpoint = news(ready, follower)
    origin = f"{ready.world.network[:16]}/{ready.world.parties[0].node}"
    note = sign_checkpoint(
        Checkpoint(origin, checkpoint.size, checkpoint.root, checkpoint.extensions),
        signer=Signer(origin, ready.world.parties[0].log_key),
    )
    refused(ready, follower, blocks, note)


def test_fork_of_the_block_log_is_refused_and_kept_as_evidence(ready: Net, tmp_path: Path) -> None:
    follower = ready.followers[0]
    ready.sync(follower)
    size = follower.height
    # The sequencer was restored from an old copy and orders something else at the same height.
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    fork = ready.world.sequencer(other_folder)
    while fork.height < size:
        fork.submit([ready.world.enrol(ready.world.person())], now_ms=ready.world.now_ms)
    with pytest.raises(VerificationError) as caught:
        follower.accept([fork.block(size)], fork.checkpoint(size), now_ms=ready.world.now_ms)
    assert caught.value.code == "fork"
    kept_size, kept, other = follower.forks()[0]
    assert kept_size == size
    assert parse_unverified_checkpoint(kept).root != parse_unverified_checkpoint(other).root
    assert follower.height == size
    # Going on from the fork is refused as well.
    fork.submit([ready.world.enrol(ready.world.person())], now_ms=ready.world.now_ms)
    refused(ready, follower, [fork.block(size + 1)], fork.checkpoint(size + 1))
    refused(ready, follower, [fork.block(size), fork.block(size + 1)], fork.checkpoint(size + 1))
    fork.close()


def test_same_root_with_another_app_hash_is_a_fork_too(ready: Net) -> None:
    follower = ready.followers[0]
    ready.sync(follower)
    mine = parse_unverified_checkpoint(ready.sequencer.checkpoint())
    note = signed_by(ready.world.parties[0].log_key, ready.world.network, mine.size, mine.root, bytes(32))
    with pytest.raises(VerificationError) as caught:
        follower.accept([], note, now_ms=ready.world.now_ms)
    assert caught.value.code == "fork"


def test_accepting_again_gives_the_same_line_and_never_another_block(ready: Net) -> None:
    follower = ready.followers[0]
    height = follower.height
    found = ready.sequencer.blocks_after(height)
    assert found is not None
    line = follower.accept(*found, now_ms=ready.world.now_ms)
    assert follower.accept(*found, now_ms=ready.world.now_ms + 5_000) == line
    assert follower.accept([], found[1], now_ms=ready.world.now_ms) == line
    wrong = signed_by(ready.world.parties[1].log_key, ready.world.network, follower.height, bytes(32), bytes(32))
    with pytest.raises(VerificationError) as caught:
        follower.accept([], wrong, now_ms=ready.world.now_ms)
    assert caught.value.code == "wrong-block"
    assert follower.forks() == []


def test_blocks_already_known_may_lead_but_must_be_the_same(ready: Net) -> None:
    follower = ready.followers[0]
    all_blocks = [ready.sequencer.block(height) or b"" for height in range(1, ready.sequencer.height + 1)]
    other = encode(msgspec.structs.replace(parse_block(all_blocks[0]), time=parse_block(all_blocks[0]).time + 1))
    note = ready.sequencer.checkpoint()
    refused(ready, follower, [other, *all_blocks[1:]], note)
    refused(ready, follower, [b"", *all_blocks], note)
    assert follower.accept(all_blocks, note, now_ms=ready.world.now_ms)


def test_too_many_blocks_at_once_are_refused_before_any_is_executed(ready: Net) -> None:
    follower = ready.followers[0]
    note = signed_by(ready.world.parties[0].log_key, ready.world.network, 1000, bytes(32), bytes(32))
    with pytest.raises(MalformedError) as caught:
        follower.accept([b""] * 999, note, now_ms=ready.world.now_ms)
    assert caught.value.code == "too-many-blocks"


def test_wrong_cosignature_is_not_kept(ready: Net) -> None:
    follower = ready.followers[0]
    line = ready.sync(follower)
    size = ready.sequencer.height
    text = parse_unverified_checkpoint(ready.sequencer.checkpoint()).text
    stranger = cosign(text, signer=Cosigner("somebody", SigningKey(bytes(32))), now_s=5)
    forged = cosign(text, signer=Cosigner(follower.cosigner.name, SigningKey(bytes(32))), now_s=5)
    older = cosign(text.replace(b"%d" % size, b"9"), signer=follower.cosigner, now_s=5)
    for wrong, code in ((stranger, "unknown-witness"), (forged, "unknown-witness"), (older, "bad-signature")):
        with pytest.raises(VerificationError) as caught:
            ready.sequencer.add_cosignature(size, wrong)
        assert caught.value.code == code
    with pytest.raises(NotFoundError):
        ready.sequencer.add_cosignature(size + 1, line)
    assert ready.sequencer.add_cosignature(size, line) == ready.world.parties[1].token
    assert ready.sequencer.add_cosignature(size, line) == ready.world.parties[1].token
    assert ready.sequencer.checkpoint().count(b"\xe2\x80\x94") == 3


def test_cosignatures_travel_with_the_note(ready: Net) -> None:
    """A follower that comes later has those of the others without asking them."""
    first, second = ready.followers[:2]
    size = ready.sequencer.height
    ready.sequencer.add_cosignature(size, ready.sync(first))
    ready.sync(second)
    assert second.cosigned(size) == [party.token for party in ready.world.parties[:3]]
    assert second.newest_cosigned() is not None


# Change of sequencer


def test_sequencer_hands_over_to_the_node_that_members_chose(net: Net) -> None:
    world = net.world
    world.directory = net.sequencer.directory
    change = ParameterChange(name="sequencer", value=world.parties[1].node, activates=0)
    envelope, ident = world.propose(change)
    late = world.enrol(world.person())
    votes = [world.vote(ident, index) for index in (1, 2)]
    assert net.submit(envelope, *votes) == ["ok", "ok", "ok"]
    with pytest.raises(NotPermittedError) as caught:
        net.sequencer.submit([late], now_ms=world.now_ms)
    assert caught.value.code == "not-the-sequencer"
    for follower in net.followers:
        net.sync(follower)
    net.followers[0].close()
    successor = Sequencer(
        net.path / "follower-1.db",
        genesis=world.genesis,
        node=world.parties[1].node,
        log_key=world.parties[1].log_key,
        witness=world.parties[1].witness_key,
        now_ms=world.now_ms,
    )
    assert [result.code for result in successor.submit([late], now_ms=world.now_ms)] == ["ok"]
    # A newcomer takes both parts of the history, each under its own sequencer's checkpoint.
    newcomer = world.follower(net.path, 0)
    parts = 0
    while (found := successor.blocks_after(newcomer.height)) is not None:
        newcomer.accept(*found, now_ms=world.now_ms)
        parts += 1
    assert parts == 2
    assert newcomer.directory.app_hash() == successor.directory.app_hash()
    reopened = world.follower(net.path, 0)
    assert reopened.height == successor.height
    # The old sequencer can't go on.
    follower = net.followers[1]
    stale = signed_by(world.parties[0].log_key, world.network, follower.height + 1, bytes(32), bytes(32))
    with pytest.raises(VerificationError):
        follower.accept([b""], stale, now_ms=world.now_ms)
    for replica in (successor, newcomer, reopened):
        replica.close()
    net.followers[0] = world.follower(net.path, 1)


def test_old_sequencer_cannot_slip_a_block_in_behind_the_one_that_replaced_it(net: Net) -> None:
    """Both blocks under one checkpoint of the old key, everything else right: root, app hash, rules."""
    world = net.world
    net.opened_at = 1
    follower = net.followers[0]
    world.directory = net.sequencer.directory
    change = ParameterChange(name="sequencer", value=world.parties[1].node, activates=0)
    envelope, ident = world.propose(change)
    assert net.submit(envelope, world.vote(ident, 1), world.vote(ident, 2)) == ["ok", "ok", "ok"]
    handover = net.sequencer.block(2) or b""
    extra = encode(msgspec.structs.replace(parse_block(handover), height=3, transactions=[world.enrol(world.person())]))
    assert all(result.ok for result in net.sequencer.directory.apply(parse_block(extra)))
    app = net.sequencer.directory.app_hash()
    note = resigned(net, follower, [handover, extra], app)
    assert "change of sequencer" in refused(net, follower, [handover, extra], note)
    net.sequencer.directory.state.take_back(2)
    assert net.sync(follower)


def test_note_that_only_witnesses_signed_is_refused(ready: Net) -> None:
    follower = ready.followers[0]
    blocks, checkpoint = news(ready, follower)
    line = cosign(checkpoint.text, signer=ready.followers[1].cosigner, now_s=5)
    message = refused(ready, follower, blocks, checkpoint.text + b"\n" + line)
    assert "not the sequencer's" in message


def test_only_the_named_node_with_its_log_key_may_sequence(world: Any, tmp_path: Path) -> None:
    with pytest.raises(NotPermittedError) as caught:
        world.sequencer(tmp_path, by=1)
    assert caught.value.code == "not-the-sequencer"
    world.parties[0].log_key = SigningKey(bytes(32))
    with pytest.raises(NotPermittedError) as caught:
        world.sequencer(tmp_path, by=0)
    assert caught.value.code == "wrong-key"


def test_sequencer_s_new_log_key_ends_its_term_until_it_is_opened_with_it(net: Net) -> None:
    world = net.world
    world.directory = net.sequencer.directory
    new = SigningKey(world.rand(32))
    entry = msgspec.structs.replace(world.parties[0].entry, log_key=b64(new.public))
    assert net.submit(world.nodes(0, [entry])) == ["ok"]
    with pytest.raises(NotPermittedError) as caught:
        net.sequencer.submit([world.enrol(world.person())], now_ms=world.now_ms)
    assert caught.value.code == "wrong-key"
    net.sequencer.close()
    world.parties[0].log_key = new
    net.sequencer = world.sequencer(net.path, folder=net.path / "log")
    net.enrol()
    for follower in net.followers:
        net.sync(follower)
        assert follower.height == net.sequencer.height


# Restart and crash


def test_restart_replays_to_the_same_state(ready: Net) -> None:
    app, note, height = ready.sequencer.directory.app_hash(), ready.sequencer.checkpoint(), ready.sequencer.height
    ready.sync(ready.followers[0])
    ready.sequencer.close()
    ready.followers[0].close()
    ready.sequencer = ready.world.sequencer(ready.path, folder=ready.path / "log")
    ready.followers[0] = ready.world.follower(ready.path, 1)
    assert ready.sequencer.repaired == []
    for replica in (ready.sequencer, ready.followers[0]):
        assert (replica.directory.app_hash(), replica.height) == (app, height)
    assert ready.sequencer.checkpoint() == note
    ready.enrol()
    ready.sync(ready.followers[0])
    assert ready.followers[0].height == height + 1


def log_fetch(folder: Path) -> Any:
    def fetch(path: str) -> bytes:
        try:
            return (folder / path).read_bytes()
        except FileNotFoundError:
            raise NotFoundError("not-found", path) from None

    return fetch


def check_log(net: Net) -> None:
    """The folder's checkpoint verifies from the folder's tiles, and its entries are the blocks."""
    fetch = log_fetch(net.path / "log")
    verifier = net.sequencer.directory.sequencer_verifier()
    assert verifier is not None
    checkpoint = open_checkpoint(fetch("checkpoint"), verifier=verifier)
    assert checkpoint.size == net.sequencer.height
    verify_log(fetch, size=checkpoint.size, root=checkpoint.root)
    reader = TileReader(fetch, size=checkpoint.size, root=checkpoint.root)
    for height in range(1, checkpoint.size + 1):
        assert reader.entry(height - 1) == net.sequencer.block(height)


def test_log_folder_is_a_tile_log_of_the_blocks_at_every_step(ready: Net) -> None:
    check_log(ready)
    for _ in range(5):
        ready.enrol(20)
        check_log(ready)


def test_log_of_more_blocks_than_a_tile_holds(world: Any, tmp_path: Path) -> None:
    net = Net(world, tmp_path)
    start = net.sequencer.directory.time_ms
    for beat in range(1, 265):
        net.sequencer.heartbeat(now_ms=start + beat * 60_000)
    world.now_ms = start + 265 * 60_000
    check_log(net)
    net.sync(net.followers[0])
    assert net.followers[0].height == 265
    partial = [path for path in (tmp_path / "log").rglob("*") if path.parent.name.endswith(".p")]
    assert len(partial) <= 16, "partial files of steps long past are dropped"
    net.close()


@pytest.mark.parametrize("damage", ["checkpoint", "tile", "entries", "everything", "older"])
def test_crash_between_block_row_and_log_files_is_repaired(ready: Net, damage: str) -> None:
    folder = ready.path / "log"
    size = ready.sequencer.height
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    if damage == "older":
        # The commit went through, the process died before any file of it was written.
        sequencer = ready.sequencer
        sequencer._folder = None
        ready.enrol(2)
    ready.sequencer.close()
    targets = {
        "checkpoint": [folder / "checkpoint"],
        "tile": [folder / "tile" / "0" / "000.p" / str(size)],
        "entries": [folder / "tile" / "entries" / "000.p" / str(size)],
        "everything": list(before),
        "older": [],
    }[damage]
    for number, target in enumerate(targets):
        assert target in before
        if number % 2:
            target.write_bytes(b"torn")
        else:
            target.unlink()
    ready.sequencer = ready.world.sequencer(ready.path, folder=folder)
    assert len(ready.sequencer.repaired) == (
        3 if damage == "older" else len([t for t in targets if str(size) in t.name or t.name == "checkpoint"])
    )
    check_log(ready)


def test_failed_commit_leaves_memory_and_disk_where_they_were(ready: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    sequencer, follower = ready.sequencer, ready.followers[0]
    state = (sequencer.height, sequencer.directory.app_hash(), sequencer.checkpoint())
    person = ready.world.person()

    def full(*_args: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    for replica, act in (
        (sequencer, lambda: sequencer.submit([ready.world.enrol(person)], now_ms=ready.world.now_ms)),
        (follower, lambda: ready.sync(follower)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(replica._store, "add_cosignature", full)
            height = replica.height
            with pytest.raises(UnavailableError) as caught:
                act()
            assert caught.value.code == "store-failed"
            assert replica.height == height == replica._store.height()
    assert (sequencer.height, sequencer.directory.app_hash(), sequencer.checkpoint()) == state
    assert ready.submit(ready.world.enrol(person)) == ["ok"]
    ready.sync(follower)
    assert follower.directory.app_hash() == sequencer.directory.app_hash()
    check_log(ready)


def test_log_files_that_cannot_be_written_stop_no_block_and_are_repaired_later(ready: Net) -> None:
    folder = ready.path / "log"
    blocked = folder / "tile" / "entries"
    hidden = folder / "hidden"
    blocked.rename(hidden)
    blocked.write_bytes(b"a file where a folder should be")
    ready.enrol(2)
    assert "can't be written" in ready.sequencer.folder_fault
    line = ready.sync(ready.followers[0])
    assert ready.sequencer.add_cosignature(ready.sequencer.height, line)
    blocked.unlink()
    ready.enrol(1)
    assert ready.sequencer.folder_fault == ""
    hidden.rename(folder.parent / "hidden")
    check_log(ready)


def test_sequencer_restored_from_an_old_copy_notices_and_catches_up_from_a_follower(ready: Net) -> None:
    import shutil

    follower = ready.followers[0]
    ready.sync(follower)
    ready.sequencer.close()
    path = ready.path / "sequencer-0.db"
    shutil.copy(path, ready.path / "old.db")
    ready.sequencer = ready.world.sequencer(ready.path)
    ready.sequencer.check_not_rolled_back(follower.checkpoint())
    ready.enrol(2)
    ready.sync(follower)
    ready.sequencer.close()
    for file in ready.path.glob("sequencer-0.db*"):
        file.unlink()
    shutil.copy(ready.path / "old.db", path)
    ready.sequencer = ready.world.sequencer(ready.path)
    with pytest.raises(VerificationError) as caught:
        ready.sequencer.check_not_rolled_back(follower.checkpoint())
    assert caught.value.code == "rolled-back"
    assert caught.value.details == {"size": follower.height, "height": ready.sequencer.height}
    # Going on regardless is a fork, and it would be noticed here too.
    ready.sequencer.close()
    party = ready.world.parties[0]
    catching_up = Follower(path, genesis=ready.world.genesis, node=party.node, witness=party.witness_key)
    found = follower.blocks_after(catching_up.height)
    assert found is not None
    catching_up.accept(*found, now_ms=ready.world.now_ms)
    catching_up.close()
    ready.sequencer = ready.world.sequencer(ready.path)
    ready.sequencer.check_not_rolled_back(follower.checkpoint())
    ready.enrol(1)
    ready.sync(follower)
    assert follower.height == ready.sequencer.height


def test_sequencer_that_went_on_from_an_old_copy_is_shown_its_fork(ready: Net, tmp_path: Path) -> None:
    follower = ready.followers[0]
    ready.sync(follower)
    other = tmp_path / "other"
    other.mkdir()
    fork = ready.world.sequencer(other)
    while fork.height <= follower.height:
        fork.submit([ready.world.enrol(ready.world.person())], now_ms=ready.world.now_ms)
    with pytest.raises(VerificationError) as caught:
        fork.check_not_rolled_back(follower.checkpoint())
    assert caught.value.code == "fork"
    stranger = signed_by(SigningKey(bytes(32)), ready.world.network, 1, bytes(32), bytes(32))
    with pytest.raises(VerificationError) as caught:
        fork.check_not_rolled_back(stranger)
    assert caught.value.code == "no-signature"
    fork.close()


def test_store_that_was_altered_is_refused_at_start(ready: Net) -> None:
    ready.sequencer.close()
    path = ready.path / "sequencer-0.db"
    with sqlite3.connect(path) as db:
        height, data = db.execute("SELECT height, data FROM blocks ORDER BY height DESC LIMIT 1").fetchone()
        block = parse_block(data)
        shorter = encode(msgspec.structs.replace(block, transactions=block.transactions[:-1]))
        db.execute("UPDATE blocks SET data = ? WHERE height = ?", (shorter, height))
    db.close()
    with pytest.raises(VerificationError) as caught:
        ready.world.sequencer(ready.path)
    assert caught.value.code == "wrong-block"
    with sqlite3.connect(path) as db:
        db.execute("UPDATE blocks SET data = ? WHERE height = ?", (data, height))
        db.execute("DELETE FROM checkpoints WHERE size = ?", (height,))
    db.close()
    with pytest.raises(VerificationError):
        ready.world.sequencer(ready.path)
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM blocks WHERE height = ?", (height,))
    db.close()
    ready.sequencer = ready.world.sequencer(ready.path)


def test_store_of_another_network_is_refused(ready: Net, make_world: Any) -> None:
    other = make_world(policy="https://other.example")
    ready.sequencer.close()
    with pytest.raises(ConflictError) as caught:
        other.sequencer(ready.path)
    assert caught.value.code == "other-network"
    ready.sequencer = ready.world.sequencer(ready.path)


def test_operations_of_an_identity_in_order_with_its_inception(ready: Net) -> None:
    person = ready.enrol()[0]
    state = ready.sequencer.directory.identity(person.token)
    assert state is not None
    end = build_deactivate(network=ready.world.network, token=person.token, state=state, root=person.secrets.root)
    refused_first = ready.world.person().envelope
    assert ready.submit(refused_first, end) == ["not-enrolled", "ok"]
    assert ready.sequencer.operations(person.token) == [person.envelope, end]
    founder = ready.world.parties[2]
    assert ready.sequencer.operations(founder.token) == [founder.organisation.envelope]
    assert ready.sequencer.operations("cl1" + "q" * 46) == []
    ready.sync(ready.followers[0])
    assert ready.followers[0].operations(person.token) == [person.envelope, end]
