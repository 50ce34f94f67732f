"""Light blocks: who must have signed them, and that no byte of a proof can change."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from careledger.directory.lightblocks import (
    Header,
    LightBlock,
    LightValidator,
    Vote,
    _signed_bytes,
    follow,
    validators_hash,
)
from careledger.errors import Error, VerificationError
from careledger.seal import SigningKey, b64, decode, encode

CHAIN = "careledger-0123456789abcdef"


def keys_of(*numbers):
    return [SigningKey(bytes([number]) * 32) for number in numbers]


def set_of(keys, powers=None):
    return [
        LightValidator(key=b64(key.public), power=power)
        for key, power in zip(keys, powers or [10] * len(keys), strict=True)
    ]


def block(height, keys, *, next_keys=None, signers=None, powers=None, **fields):
    """A light block of this set, signed by the keys at the places `signers` (all when not given)."""
    own, after = set_of(keys, powers), set_of(next_keys or keys, None if next_keys else powers)
    header = Header(
        **{
            "block_version": 11,
            "app_version": 1,
            "chain": CHAIN,
            "height": height,
            "seconds": 1_800_000_000 + height,
            "nanos": 7,
            "last_commit": "11" * 32,
            "data": "",
            "validators": validators_hash(own).hex(),
            "next_validators": validators_hash(after).hex(),
            "consensus": "22" * 32,
            "app": f"{height:064x}",
            "last_results": "",
            "evidence": "33" * 32,
            "proposer": own[0].address.hex(),
            **fields,
        }
    )
    bare = LightBlock(header=header, round=0, parts=1, parts_hash="44" * 32, votes=[])
    votes = []
    for place in range(len(keys)) if signers is None else signers:
        vote = Vote(validator=place, seconds=1_800_000_001 + height, nanos=place, signature="")
        signature = keys[place].sign(_signed_bytes(bare, vote))
        votes.append(msgspec.structs.replace(vote, signature=b64(signature)))
    changed = next_keys is not None
    return msgspec.structs.replace(bare, votes=votes, **({"next_set": after} if changed else {}))


FOUR = keys_of(1, 2, 3, 4)


def refused(code, blocks, validators=None, chain=CHAIN):
    with pytest.raises(VerificationError) as caught:
        follow(blocks, chain=chain, validators=validators or set_of(FOUR))
    assert caught.value.code == code


def test_three_of_four_make_a_head_of_the_block_before():
    head = follow([block(9, FOUR, signers=[0, 2, 3])], chain=CHAIN, validators=set_of(FOUR))
    assert (head.height, head.app_hash.hex()) == (8, f"{9:064x}")
    assert head.time_ms == (1_800_000_009) * 1000
    assert head.validators == set_of(FOUR)


def test_two_of_four_do_not():
    refused("not-enough-votes", [block(9, FOUR, signers=[0, 3])])


def test_exactly_two_thirds_are_not_enough():
    three = keys_of(1, 2, 3)
    refused("not-enough-votes", [block(9, three, signers=[0, 1])], set_of(three))


def test_power_counts_not_heads():
    powers = [70, 10, 10, 10]
    weighed = set_of(FOUR, powers)
    assert follow([block(9, FOUR, powers=powers, signers=[0])], chain=CHAIN, validators=weighed).height == 8
    refused("not-enough-votes", [block(9, FOUR, powers=powers, signers=[1, 2, 3])], weighed)


def test_a_vote_that_does_not_hold_spoils_the_block_although_the_others_suffice():
    good = block(9, FOUR)
    other = block(9, FOUR, app="55" * 32)
    refused("bad-signature", [msgspec.structs.replace(good, votes=[*good.votes[:3], other.votes[3]])])


def test_a_vote_counts_once_and_in_its_place():
    good = block(9, FOUR)
    refused("wrong-order", [msgspec.structs.replace(good, votes=[good.votes[0]] * 3)])
    refused("wrong-order", [msgspec.structs.replace(good, votes=good.votes[::-1])])
    stranger = msgspec.structs.replace(good.votes[3], validator=4)
    refused("wrong-order", [msgspec.structs.replace(good, votes=[*good.votes[:3], stranger])])


def test_another_chain_and_no_blocks():
    refused("wrong-chain", [block(9, FOUR, chain="careledger-other")])
    refused("no-blocks", [])


def test_other_validators_than_the_trusted_ones():
    refused("wrong-validators", [block(9, keys_of(5, 6, 7, 8))])


def test_the_set_is_followed_from_change_to_change():
    five, last = [*FOUR, *keys_of(5)], keys_of(2, 3, 4, 5)
    blocks = [block(9, FOUR, next_keys=five), block(20, five, next_keys=last), block(31, last)]
    head = follow(blocks, chain=CHAIN, validators=set_of(FOUR))
    assert (head.height, head.validators) == (30, set_of(last))
    refused("wrong-validators", [blocks[0], blocks[2]])
    refused("wrong-validators", blocks[1:])
    refused("wrong-order", [blocks[0], blocks[0]], None)


def test_a_removed_validator_counts_no_more():
    last = keys_of(1, 2, 3)
    change, after = block(9, FOUR, next_keys=last), block(10, last, signers=[0, 1])
    refused("not-enough-votes", [change, after])


@pytest.mark.parametrize("wrong", [keys_of(6, 7, 8), None])
def test_the_next_set_is_the_one_that_the_header_names(wrong):
    change = block(9, FOUR, next_keys=keys_of(1, 2, 3))
    other = msgspec.UNSET if wrong is None else set_of(wrong)
    refused("wrong-validators", [msgspec.structs.replace(change, next_set=other)])


def test_a_set_that_did_not_change_is_not_repeated():
    refused("wrong-validators", [msgspec.structs.replace(block(9, FOUR), next_set=set_of(FOUR))])


def test_time_does_not_go_back():
    refused("wrong-order", [block(9, FOUR), block(10, FOUR, seconds=5)])


PROOF = [block(9, FOUR, next_keys=keys_of(1, 2, 3, 4, 5), signers=[0, 1, 2]), block(10, keys_of(1, 2, 3, 4, 5))]
DATA = encode(PROOF)


@settings(max_examples=400, deadline=None)
@given(at=st.integers(0, len(DATA) - 1), to=st.integers(0, 255))
def test_no_byte_of_a_proof_can_change(at, to):
    changed = bytes([*DATA[:at], to, *DATA[at + 1 :]])
    try:
        found = decode(changed, list[LightBlock])
        head = follow(found, chain=CHAIN, validators=set_of(FOUR))
    except Error:
        return
    assert changed == DATA
    assert head.height == 9
