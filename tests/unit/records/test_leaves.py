"""Shuffled, filled trees: a proof tells nothing of the rest, a custodian sees that nothing is hidden."""

from __future__ import annotations

import random
from hashlib import sha256

import pytest

from careledger.errors import VerificationError
from careledger.records.leaves import LEAVES_MAX, arrange, check_leaves, filler, leaves_root, prove_leaf, verify_leaf
from careledger.records.view import leaf_tree

SEED = bytes(range(32))


def values(count: int) -> list[bytes]:
    return [sha256(bytes([at])).digest() for at in range(count)]


@pytest.mark.parametrize(("count", "size"), [(1, 8), (7, 8), (8, 8), (9, 16), (200, 256)])
def test_trees_are_full_and_at_least_eight(count: int, size: int) -> None:
    leaves = arrange(values(count), tree="locks", seed=SEED, rand=random.Random(1).randbytes)
    assert len(leaves) == size
    positions = check_leaves(leaves, tree="locks", seed=SEED, root=leaves_root(leaves), values=values(count))
    assert [leaves[at] for at in positions] == values(count)


def test_trees_of_no_or_too_many_values_are_bugs() -> None:
    for count in (0, LEAVES_MAX + 1):
        with pytest.raises(AssertionError):
            arrange([bytes(32)] * count, tree="locks", seed=SEED, rand=bytes)


def test_the_order_of_leaves_is_random() -> None:
    seen = {
        tuple(arrange(values(3), tree="locks", seed=SEED, rand=random.Random(seed).randbytes)) for seed in range(50)
    }
    assert len(seen) == 50
    first = {arrange(values(3), tree="locks", seed=SEED, rand=random.Random(seed).randbytes)[0] for seed in range(300)}
    assert len(first) == 8, "every leaf comes to stand first"


def test_fillers_differ_by_seed_tree_and_number() -> None:
    fillers = {
        filler(seed, tree, number)
        for seed in (SEED, bytes(32))
        for tree in ("manifests", "locks")
        for number in range(9)
    }  # type: ignore[arg-type]
    assert len(fillers) == 36


def test_proofs_hold_for_their_leaf_and_place_only() -> None:
    leaves = arrange(values(9), tree="manifests", seed=SEED, rand=random.Random(2).randbytes)
    tree, root = leaf_tree(leaves), leaves_root(leaves)
    for position, leaf in enumerate(leaves):
        proof = prove_leaf(tree, position)
        verify_leaf(leaf, position=position, proof=proof, root=root)
        for wrong in (
            {"value": leaves[position - 1]},
            {"position": position ^ 1},
            {"position": position + 16},
            {"position": -1},
            {"proof": proof[:-1]},
            {"proof": [*proof, bytes(32)]},
            {"proof": [bytes(32), *proof[1:]]},
            {"proof": [proof[0][:-1], *proof[1:]]},
            {"proof": [bytes(32)] * 40},
            {"root": bytes(32)},
        ):
            arguments = {"value": leaf, "position": position, "proof": proof, "root": root, **wrong}
            with pytest.raises(VerificationError) as refused:
                verify_leaf(arguments.pop("value"), **arguments)  # type: ignore[arg-type]
            assert refused.value.code == "bad-proof"
    with pytest.raises(VerificationError, match="longer than any submission"):
        verify_leaf(leaves[0], position=0, proof=[bytes(32)] * 17, root=root)
