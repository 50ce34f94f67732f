"""What a client believes about the directory's head: cosigned checkpoints are tested with nodes, commits here."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from careledger.client.heads import CommittedHeads, CosignedHeads, DirectoryProof, heads_of
from careledger.directory import Directory, LightBlock, StateProof, network_of
from careledger.directory.engines.cometbft.light import light_block, light_validators
from careledger.directory.validators import validators
from careledger.errors import UnavailableError, VerificationError
from careledger.seal import decode, unb64

FOUND = json.loads((Path(__file__).parents[3] / "vectors" / "directory" / "light-blocks.json").read_bytes())
GENESIS = unb64(FOUND["genesis"])
SETS = [light_validators(one["validators"]) for one in FOUND["vectors"]]
BLOCKS = [
    light_block(one["signed_header"], next_validators=after)
    for one, after in zip(FOUND["vectors"], [*SETS[1:], None], strict=True)
]
CHANGE = next(at for at, block in enumerate(BLOCKS) if block.next_set is not msgspec.UNSET)
PROOF = msgspec.convert(FOUND["proof"], StateProof)


def shown(*places: int) -> DirectoryProof:
    return DirectoryProof(proof=PROOF, blocks=[BLOCKS[at] for at in places])


@pytest.fixture
def heads() -> CommittedHeads:
    state = Directory.from_genesis(GENESIS).state
    return CommittedHeads(network_of(GENESIS), validators(state.members, state.nodes))


def test_a_network_without_sequencer_has_committed_heads() -> None:
    assert isinstance(heads_of(GENESIS, sequencer=None, witnesses=dict), CommittedHeads)


def test_a_head_and_its_value(heads: CommittedHeads) -> None:
    head = heads.check(shown(CHANGE, len(BLOCKS) - 1))
    assert PROOF.verify(kind="identity", ident=FOUND["ident"], app=head.app_hash) is not None
    last = BLOCKS[-1].header
    assert head.time_ms == last.seconds * 1000 + last.nanos // 1_000_000


def test_a_set_that_was_followed_once_is_the_one_that_counts(heads: CommittedHeads) -> None:
    """Those who left since can't bring another history, even with a block that they committed when they could."""
    heads.check(shown(CHANGE, CHANGE + 2))
    assert heads.check(shown(CHANGE, len(BLOCKS) - 1)).app_hash == bytes.fromhex(BLOCKS[-1].header.app)
    assert heads.check(shown(len(BLOCKS) - 1)).app_hash == bytes.fromhex(BLOCKS[-1].header.app)
    with pytest.raises(UnavailableError) as behind:
        heads.check(shown(CHANGE - 1))
    assert behind.value.code == "directory-behind"


def test_without_the_change_and_without_any_block(heads: CommittedHeads) -> None:
    with pytest.raises(VerificationError) as refused:
        heads.check(shown(len(BLOCKS) - 1))
    assert refused.value.code == "wrong-validators"
    with pytest.raises(VerificationError) as nothing:
        heads.check(DirectoryProof(proof=PROOF, checkpoint="a cosigned checkpoint is none of these"))
    assert nothing.value.code == "no-blocks"


def test_a_refused_proof_changes_nothing(heads: CommittedHeads) -> None:
    forged = msgspec.structs.replace(BLOCKS[-1], votes=BLOCKS[-1].votes[:1])
    with pytest.raises(VerificationError):
        heads.check(DirectoryProof(proof=PROOF, blocks=[BLOCKS[CHANGE], forged]))
    assert heads.check(shown(CHANGE - 1)).app_hash == bytes.fromhex(BLOCKS[CHANGE - 1].header.app)


def test_what_exports_carry() -> None:
    assert decode(shown(CHANGE).above, list[LightBlock]) == [BLOCKS[CHANGE]]
    assert DirectoryProof(proof=PROOF, checkpoint="note").above == b"note"


def test_a_checkpoint_needs_a_sequencer() -> None:
    with pytest.raises(VerificationError) as refused:
        CosignedHeads(network_of(GENESIS), None, dict).check(DirectoryProof(proof=PROOF, checkpoint="note"))
    assert refused.value.code == "no-sequencer"
