"""The two trees of a submission: shuffled leaves, filled to a power of two, so that a proof tells nothing of the rest.

Fillers look random to a reader, who sees proofs only, but follow from a seed that custodians get. So a custodian
can tell that the author signed no manifest or lock that it was not shown: otherwise two custodians could each
be given another record under one id and one signature (docs/decisions/0015).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final, Literal

from careledger.errors import MalformedError, VerificationError
from careledger.tlog import MemoryTree, leaf_hash, leaf_hashes_of, verify_inclusion

__all__ = [
    "LEAVES_MIN",
    "SEED_SIZE",
    "Tree",
    "arrange",
    "check_leaves",
    "filler",
    "leaves_root",
    "prove_leaf",
    "verify_leaf",
]

Tree = Literal["manifests", "locks"]

LEAVES_MIN: Final = 8
"""The smallest tree: a submission of one record looks like one of eight."""

LEAVES_MAX: Final = 1 << 16
SEED_SIZE: Final = 32

_LABEL: Final = b"careledger/filler/v1"
_HASH_SIZE: Final = 32
_PROOF_MAX: Final = LEAVES_MAX.bit_length() - 1
_SORT_KEY_SIZE: Final = 16


def filler(seed: bytes, tree: Tree, number: int) -> bytes:
    """Return the value of the filler with 0-based `number`: SHA-256(label ‖ seed ‖ tree's name ‖ u32 number)."""
    return sha256(_LABEL + seed + tree.encode() + number.to_bytes(4)).digest()


def arrange(values: Sequence[bytes], *, tree: Tree, seed: bytes, rand: Callable[[int], bytes]) -> list[bytes]:
    """Return the tree's leaf values: `values` and fillers up to a power of two of at least 8, in random order."""
    size = max(LEAVES_MIN, 1 << (len(values) - 1).bit_length())
    if not values or size > LEAVES_MAX:
        raise AssertionError(f"a submission's tree takes 1 to {LEAVES_MAX} leaves, not {len(values)}")
    leaves = [*values, *(filler(seed, tree, number) for number in range(size - len(values)))]
    # Sorting by random keys long enough never to be equal is an unbiased shuffle.
    keys = rand(_SORT_KEY_SIZE * size)
    order = sorted(range(size), key=lambda at: keys[_SORT_KEY_SIZE * at : _SORT_KEY_SIZE * (at + 1)])
    return [leaves[at] for at in order]


def leaves_root(leaves: Sequence[bytes]) -> bytes:
    """Return the RFC 6962 root over the leaf values."""
    return MemoryTree(leaf_hashes_of(leaves)).root()


def check_leaves(
    leaves: Sequence[bytes], *, tree: Tree, seed: bytes, root: bytes, values: Sequence[bytes]
) -> list[int]:
    """Return the position of each of `values`, once the leaves are exactly these and the seed's fillers.

    Raises MalformedError `bad-leaves` (sizes); VerificationError `bad-root` (the leaves are not the signed ones),
    `duplicate` (a value twice), `bad-leaf` (a value that is no leaf, or a leaf that is neither value nor filler).
    """
    size = len(leaves)
    if not LEAVES_MIN <= size <= LEAVES_MAX or size & (size - 1) or any(len(leaf) != _HASH_SIZE for leaf in leaves):
        raise MalformedError(
            "bad-leaves", f"the tree of {tree} has {size} leaves, not a power of two from {LEAVES_MIN}"
        )
    if len(seed) != SEED_SIZE:
        raise MalformedError("bad-leaves", f"the seed of fillers has {len(seed)} bytes, not {SEED_SIZE}")
    if leaves_root(leaves) != root:
        raise VerificationError(
            "bad-root", f"the leaves of the tree of {tree} do not give the signed root; refuse them"
        )
    positions = {leaf: at for at, leaf in enumerate(leaves)}
    if len(positions) != size or len(set(values)) != len(values):
        raise VerificationError("duplicate", f"the tree of {tree} has a leaf twice; refuse the submission")
    fillers = [filler(seed, tree, number) for number in range(size - len(values))]
    if positions.keys() != {*values, *fillers}:
        raise VerificationError(
            "bad-leaf", f"a leaf of the tree of {tree} was not sent, or what was sent is no leaf; refuse the submission"
        )
    return [positions[value] for value in values]


def prove_leaf(tree: MemoryTree, position: int) -> list[bytes]:
    """Return the inclusion proof of the leaf at `position`; its length says the size, since trees are full."""
    return tree.inclusion_proof(position)


def verify_leaf(value: bytes, *, position: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that `value` is the leaf at `position`; raises VerificationError `bad-proof`.

    The tree's size is not told: trees are powers of two, so the proof's length gives it.
    """
    if len(proof) > _PROOF_MAX:
        raise VerificationError("bad-proof", f"a proof of {len(proof)} hashes is longer than any submission's")
    verify_inclusion(index=position, size=1 << len(proof), leaf_hash=leaf_hash(value), proof=proof, root=root)
