"""Light blocks of a real network: what CometBFT's validators signed is what is verified here."""

import json
import random
from pathlib import Path

import msgspec
import pytest

from careledger.directory import Directory, LightProof, StateProof, network_of, parse_genesis
from careledger.directory.engines.cometbft.light import light_block, light_validators
from careledger.directory.lightblocks import chain_id, follow, validator_set, validators_hash
from careledger.directory.validators import validators
from careledger.errors import Error, VerificationError
from careledger.seal import encode, unb64
from careledger.verify import verify_directory_proof

FOUND = json.loads((Path(__file__).parents[2] / "vectors" / "directory" / "light-blocks.json").read_bytes())
GENESIS = unb64(FOUND["genesis"])
CHAIN = chain_id(network_of(GENESIS))
SETS = [light_validators(one["validators"]) for one in FOUND["vectors"]]
BLOCKS = [
    light_block(one["signed_header"], next_validators=after)
    for one, after in zip(FOUND["vectors"], [*SETS[1:], None], strict=True)
]
CHANGES = [block for block in BLOCKS if block.next_set is not msgspec.UNSET]


def founders():
    state = Directory.from_genesis(GENESIS).state
    return validator_set(validators(state.members, state.nodes))


@pytest.mark.parametrize("at", range(len(BLOCKS)))
def test_header_and_set_hash_to_what_was_decided(at):
    decided = FOUND["vectors"][at]["signed_header"]["commit"]["block_id"]["hash"]
    assert BLOCKS[at].header.hash.hex().upper() == decided
    assert validators_hash(SETS[at]).hex() == BLOCKS[at].header.validators


def test_the_founders_are_the_first_set_in_its_order():
    assert founders() == SETS[0]


def test_every_block_after_the_other_and_only_those_that_changed_the_set():
    assert len(CHANGES) == 1
    head = follow(BLOCKS, chain=CHAIN, validators=founders())
    assert head == follow([*CHANGES, BLOCKS[-1]], chain=CHAIN, validators=founders())
    assert head.height == len(BLOCKS) - 1
    assert head.validators == SETS[-1]
    assert len(head.validators) == 3


def test_a_value_is_proven_down_from_the_validators_signatures():
    head = follow([*CHANGES, BLOCKS[-1]], chain=CHAIN, validators=founders())
    proof = msgspec.convert(FOUND["proof"], StateProof)
    assert proof.verify(kind="identity", ident=FOUND["ident"], app=head.app_hash) is not None
    with pytest.raises(VerificationError):
        proof.verify(kind="identity", ident=FOUND["ident"], app=bytes.fromhex(BLOCKS[2].header.app))


def test_without_the_change_the_new_set_is_not_believed():
    with pytest.raises(VerificationError) as refused:
        follow([BLOCKS[-1]], chain=CHAIN, validators=founders())
    assert refused.value.code == "wrong-validators"


@pytest.mark.parametrize("name", [name for name in BLOCKS[3].header.__struct_fields__ if name not in ("last",)])
def test_no_field_of_a_real_header_can_change(name):
    header = BLOCKS[3].header
    value = getattr(header, name)
    other = value + 1 if isinstance(value, int) else value[:-1] + ("0" if value[-1] != "0" else "1")
    changed = msgspec.structs.replace(BLOCKS[3], header=msgspec.structs.replace(header, **{name: other}))
    assert encode(changed) != encode(BLOCKS[3])
    with pytest.raises(VerificationError):
        follow([changed], chain=CHAIN, validators=founders())


PROOF = LightProof(v=1, proof=msgspec.convert(FOUND["proof"], StateProof), blocks=[*CHANGES, BLOCKS[-1]])


def test_a_proof_file_needs_the_genesis_and_nothing_else():
    report = verify_directory_proof(encode(PROOF), genesis=GENESIS, network=network_of(GENESIS))
    assert (report.kind, report.id, report.height) == ("identity", FOUND["ident"], len(BLOCKS) - 1)
    assert report.value is not None
    assert sum(report.committed.values()) == 30


@pytest.mark.parametrize("seed", range(4))
def test_no_byte_of_a_proof_file_can_change(seed):
    data, rng = encode(PROOF), random.Random(seed)
    for at in rng.sample(range(len(data)), 150):
        changed = bytearray(data)
        changed[at] ^= 1 << rng.randrange(8)
        with pytest.raises(Error):
            verify_directory_proof(bytes(changed), genesis=GENESIS, network=network_of(GENESIS))


def test_a_proof_file_is_of_one_network():
    with pytest.raises(VerificationError):
        verify_directory_proof(encode(PROOF), genesis=GENESIS, network="0" * 64)
    other = encode(msgspec.structs.replace(parse_genesis(GENESIS), nonce="0" * 32))
    with pytest.raises(VerificationError) as refused:
        verify_directory_proof(encode(PROOF), genesis=other)
    assert refused.value.code == "wrong-chain"
