"""The directory: executed again as a whole, or one value of it proven."""

import random

import msgspec
import pytest

from careledger.directory import network_of, parse_block, parse_genesis
from careledger.errors import Error, MalformedError, UnavailableError, VerificationError
from careledger.node.settings import NodeFolder
from careledger.seal import SigningKey, encode, unb64
from careledger.tlog import (
    CHECKPOINT_PATH,
    EMPTY_ROOT,
    Checkpoint,
    Signer,
    parse_unverified_checkpoint,
    sign_checkpoint,
    tail_of_entries,
)
from careledger.verify import (
    DirectoryHistory,
    folder_fetch,
    index_of,
    trust_of_genesis,
    verify_directory,
    verify_directory_proof,
)

LINE = Signer("somebody", SigningKey(bytes(32))).sign_line(b"anything")


@pytest.fixture
def files(story):
    folder = story.node(1) / "directory" / "log"
    fetch = folder_fetch(folder)
    size = parse_unverified_checkpoint(fetch(CHECKPOINT_PATH)).size
    blocks = verify_directory(fetch, story.genesis).history.blocks
    assert len(blocks) == size
    _, found = tail_of_entries(list(blocks))
    return {path: fetch(path) for path in [*found, CHECKPOINT_PATH]}


def check(files, story, **more):
    return verify_directory(files.__getitem__, story.genesis, network=story.network, **more)


def test_a_directory_is_executed_again(files, story):
    found = check(files, story)
    assert found.report.height == found.directory.height > 5
    assert found.report.transactions > found.report.height - 2
    assert len(found.report.cosigned) == found.report.members == 4
    assert found.directory.identity(story.patient) is not None


def test_every_sampled_byte_of_its_files_matters(files, story):
    rng = random.Random(3)
    for path, data in files.items():
        for at in rng.sample(range(len(data)), min(len(data), 25)):
            changed = bytearray(data)
            changed[at] ^= 1 << rng.randrange(8)
            with pytest.raises(Error):
                check({**files, path: bytes(changed)}, story, needed=4)


def signed_by_sequencer(story, blocks, app_hash):
    folder = NodeFolder(story.node(1))
    signer = Signer(f"{story.network[:16]}/directory", SigningKey(unb64(folder.secrets.log)))
    tail, files = tail_of_entries(blocks)
    checkpoint = Checkpoint(signer.name, tail.size, tail.root(), (f"app-hash {app_hash}",))
    return {**files, CHECKPOINT_PATH: sign_checkpoint(checkpoint, signer=signer)}


def test_a_block_that_breaks_the_rules_is_named_although_the_sequencer_signed_it(files, story):
    """A refused transaction changes nothing, so that even the app hash is right."""
    found = check(files, story)
    blocks = list(found.history.blocks)
    at = next(at for at, data in enumerate(blocks) if parse_block(data).transactions)
    block = parse_block(blocks[at])
    doubled = msgspec.structs.replace(block, transactions=[*block.transactions, block.transactions[0]])
    blocks[at] = encode(doubled)
    with pytest.raises(VerificationError) as caught:
        check(signed_by_sequencer(story, blocks, found.report.app_hash), story, needed=0)
    assert caught.value.code == "wrong-block"
    assert index_of(caught.value) == at


def test_a_block_that_does_not_follow_is_named(files, story):
    found = check(files, story)
    blocks = list(found.history.blocks)
    blocks[2], blocks[3] = blocks[3], blocks[2]
    with pytest.raises(VerificationError) as caught:
        check(signed_by_sequencer(story, blocks, found.report.app_hash), story, needed=0)
    assert (caught.value.code, index_of(caught.value)) == ("wrong-block", 2)


def test_another_app_hash_than_executing_gives_is_refused(files, story):
    blocks = list(check(files, story).history.blocks)
    with pytest.raises(VerificationError) as caught:
        check(signed_by_sequencer(story, blocks, "0" * 64), story, needed=0)
    assert caught.value.code == "wrong-block"


def test_a_sequencer_alone_is_not_believed(files, story):
    found = check(files, story)
    alone = signed_by_sequencer(story, list(found.history.blocks), found.report.app_hash)
    with pytest.raises(UnavailableError) as caught:
        check(alone, story)
    assert caught.value.details == {"found": 0, "needed": 3}
    more = check(alone, story, more_notes=[files[CHECKPOINT_PATH]])
    assert len(more.report.cosigned) == 4


def test_two_notes_of_one_height_are_a_fork(files, story):
    found = check(files, story)
    other = list(found.history.blocks)
    last = parse_block(other[-1])
    other[-1] = encode(msgspec.structs.replace(last, time=last.time + 1))
    forked = signed_by_sequencer(story, other, found.report.app_hash)
    with pytest.raises(VerificationError) as caught:
        check(files, story, more_notes=[forked[CHECKPOINT_PATH]])
    assert caught.value.code == "fork"


def test_a_directory_of_another_network(files, story):
    with pytest.raises(VerificationError) as caught:
        verify_directory(files.__getitem__, story.genesis, network="0" * 64)
    assert caught.value.code == "wrong-network"


def test_a_node_s_log_is_no_directory(story):
    with pytest.raises(VerificationError) as caught:
        verify_directory(folder_fetch(story.node(1) / "log"), story.genesis)
    assert caught.value.code == "wrong-origin"


def test_a_directory_can_be_asked_about_any_height(files, story):
    found = check(files, story)
    history: DirectoryHistory = found.history
    seen = {height: history.at(height).app_hash() for height in range(history.height + 1)}
    for height in (history.height, 0, 5, 3, history.height):
        assert history.at(height).app_hash() == seen[height]
        assert history.at(height).height == height
    with pytest.raises(Error):
        history.at(history.height + 1)


# Proofs of one value


def test_a_value_and_its_absence_are_proven(story):
    present = verify_directory_proof(story.proof, genesis=story.genesis, network=story.network)
    assert present.value is not None
    assert present.id == story.patient
    assert len(present.cosigned) >= 3
    absent = verify_directory_proof(story.absent, genesis=story.genesis)
    assert absent.value is None


def test_a_proof_with_a_changed_value_or_too_few_cosignatures(story):
    shown = msgspec.json.decode(story.proof)
    shown["proof"]["value"] = shown["proof"]["value"].replace('"active"', '"deactivated"')
    with pytest.raises(VerificationError):
        verify_directory_proof(msgspec.json.encode(shown), genesis=story.genesis)
    shown = msgspec.json.decode(story.proof)
    lines = shown["checkpoint"].split("\n")
    shown["checkpoint"] = "\n".join(lines[:-3]) + "\n"
    with pytest.raises(UnavailableError) as caught:
        verify_directory_proof(msgspec.json.encode(shown), genesis=story.genesis, needed=4)
    assert caught.value.code == "not-enough-cosignatures"


def test_every_sampled_byte_of_a_proof_matters(story):
    rng = random.Random(4)
    for at in rng.sample(range(len(story.proof)), 150):
        changed = bytearray(story.proof)
        changed[at] ^= 1
        with pytest.raises(Error):
            verify_directory_proof(bytes(changed), genesis=story.genesis, network=story.network, needed=4)


def test_a_proof_of_another_network_or_none(story):
    with pytest.raises(VerificationError):
        verify_directory_proof(story.proof, genesis=story.genesis, network="0" * 64)
    other = trust_of_genesis(story.genesis)._replace(network="0" * 64)
    with pytest.raises(VerificationError):
        verify_directory_proof(story.proof, genesis=story.genesis, trust=other)
    with pytest.raises(MalformedError):
        verify_directory_proof(b"[]", genesis=story.genesis)


def test_a_network_whose_genesis_names_no_sequencer(story):
    """Its blocks are ordered by another engine: nothing here can be proven by a sequencer's checkpoints."""
    genesis = parse_genesis(story.genesis)
    without = encode(msgspec.structs.replace(genesis, parameters={**genesis.parameters, "sequencer": ""}))
    assert trust_of_genesis(without).sequencer is None
    with pytest.raises(VerificationError) as caught:
        verify_directory_proof(story.proof, genesis=without)
    assert caught.value.code == "no-sequencer"
    _, files = tail_of_entries([])
    empty = Checkpoint(f"{network_of(without)[:16]}/directory", 0, EMPTY_ROOT).text + b"\n" + LINE
    with pytest.raises(VerificationError) as caught:
        verify_directory({**files, CHECKPOINT_PATH: empty}.__getitem__, without)
    assert caught.value.code == "no-sequencer"
