"""The Merkle tree of RFC 6962 (section 2.1): roots, inclusion proofs and consistency proofs over SHA-256.

Everything here works on hashes alone. A *hash source* is any function (level, index) -> 32 bytes that knows the
hashes of complete subtrees: level 0 are leaf hashes, level l index i covers leaves [i * 2^l, (i + 1) * 2^l). Proofs
are made the same way whether the source is a list in memory, tiles on disk, or the hashes one batch has produced.
Verification follows RFC 9162 sections 2.1.3.2 and 2.1.4.2, whose trees are the same as RFC 6962's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeAlias

from careledger.errors import VerificationError

HASH_SIZE = 32
PROOF_HASHES_MAX = 63
"""No tree of fewer than 2^63 leaves needs more; C2SP tlog-witness names the same bound."""

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of the tree without leaves (RFC 6962 section 2.1)."""

HashSource: TypeAlias = Callable[[int, int], bytes]

_LEAF = hashlib.sha256(b"\x00")
_INTERIOR = hashlib.sha256(b"\x01")
"""States after the prefix: where many are hashed, copying one costs less than beginning anew."""


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 ‖ data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def interior_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def leaf_hashes_of(entries: Sequence[bytes]) -> list[bytes]:
    """The leaf hash of each entry, in order."""
    new = _LEAF.copy
    hashes: list[bytes] = []
    for entry in entries:
        state = new()
        state.update(entry)
        hashes.append(state.digest())
    return hashes


def parents_of(hashes: Sequence[bytes]) -> list[bytes]:
    """The hashes one level up: one for each full pair; an unpaired last hash has no parent yet."""
    new = _INTERIOR.copy
    above: list[bytes] = []
    pairs = iter(hashes)
    for left, right in zip(pairs, pairs, strict=False):
        state = new()
        state.update(left + right)
        above.append(state.digest())
    return above


def root_of(leaf_hashes: Sequence[bytes]) -> bytes:
    """The root of the tree with these leaf hashes; `EMPTY_ROOT` when there are none."""
    if not leaf_hashes:
        return EMPTY_ROOT
    level: Sequence[bytes] = leaf_hashes
    while len(level) > 1:
        above = parents_of(level)
        if len(level) & 1:
            # An unpaired hash rises unchanged, which is RFC 6962's split at the largest power of two.
            above.append(level[-1])
        level = above
    return level[0]


def right_edge(source: HashSource, size: int) -> list[bytes | None]:
    """For each level up to the root, the hash of the incomplete subtree at the right edge, None without one.

    The last item is None exactly when the whole tree is one complete subtree.
    """
    edge: list[bytes | None] = [None]
    unfinished: bytes | None = None
    for level in range((size - 1).bit_length() if size else 0):
        count = size >> level
        if count & 1:
            complete = source(level, count - 1)
            unfinished = complete if unfinished is None else interior_hash(complete, unfinished)
        edge.append(unfinished)
    return edge


def root_from(source: HashSource, size: int) -> bytes:
    """The root of the first `size` leaves, from the hashes of complete subtrees."""
    if size == 0:
        return EMPTY_ROOT
    edge = right_edge(source, size)
    top = edge[-1]
    return source(len(edge) - 1, 0) if top is None else top


def inclusion_proof_from(
    source: HashSource, *, index: int, size: int, edge: Sequence[bytes | None] | None = None
) -> list[bytes]:
    """The proof that leaf `index` is in the tree of `size` leaves, from the leaf's sibling up to the root's child.

    `edge` is `right_edge(source, size)` where the caller proves many leaves of one tree.
    """
    if not 0 <= index < size:
        raise AssertionError(f"leaf {index} is not in a tree of {size}")
    return _climb(source, 0, index, size, right_edge(source, size) if edge is None else edge)


def consistency_proof_from(source: HashSource, *, old_size: int, new_size: int) -> list[bytes]:
    """The proof that the tree of `new_size` leaves begins with the tree of `old_size` (RFC 6962 section 2.1.2).

    Empty when the sizes are equal or the old tree is empty.
    """
    if not 0 <= old_size <= new_size:
        raise AssertionError(f"a tree of {new_size} does not extend one of {old_size}")
    if old_size in (0, new_size):
        return []
    level = (old_size & -old_size).bit_length() - 1
    index = (old_size >> level) - 1
    proof = _climb(source, level, index, new_size, right_edge(source, new_size))
    # The verifier knows the old root; it is itself the first subtree when the old size is a power of two.
    return proof if index == 0 else [source(level, index), *proof]


def _climb(source: HashSource, level: int, index: int, size: int, edge: Sequence[bytes | None]) -> list[bytes]:
    """The siblings on the way from the complete subtree (level, index) up to the root."""
    proof: list[bytes] = []
    for at in range(level, len(edge) - 1):
        complete = size >> at
        sibling = index ^ 1
        if sibling < complete:
            proof.append(source(at, sibling))
        elif sibling == complete:
            unfinished = edge[at]
            if unfinished is not None:
                proof.append(unfinished)
        index >>= 1
    return proof


class MemoryTree:
    """A tree held in memory with the hashes of all its complete subtrees; the hash source for proofs over small trees.

    Takes 64 bytes and a Python object or two for each leaf: for a submission's records or a directory's events, not for
    a node's log. Not safe for concurrent appends.
    """

    def __init__(self, leaf_hashes: Sequence[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]
        self.extend(leaf_hashes)

    @property
    def size(self) -> int:
        return len(self._levels[0])

    def append(self, leaf_hash: bytes) -> None:
        self.extend([leaf_hash])

    def extend(self, leaf_hashes: Sequence[bytes]) -> None:
        """Add leaf hashes at the end."""
        levels = self._levels
        levels[0].extend(leaf_hashes)
        level = 0
        while len(levels[level]) > 1:
            if level + 1 == len(levels):
                levels.append([])
            above = levels[level + 1]
            above.extend(parents_of(levels[level][2 * len(above) :]))
            level += 1

    def hash_at(self, level: int, index: int) -> bytes:
        """The hash of one complete subtree."""
        return self._levels[level][index]

    def root(self, size: int | None = None) -> bytes:
        """The root of the first `size` leaves, of all when not given."""
        return root_from(self.hash_at, self._within(size))

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        return inclusion_proof_from(self.hash_at, index=index, size=self._within(size))

    def inclusion_proofs(self) -> list[list[bytes]]:
        """The inclusion proof of every leaf, the right edge computed once."""
        edge = right_edge(self.hash_at, self.size)
        return [_climb(self.hash_at, 0, index, self.size, edge) for index in range(self.size)]

    def consistency_proof(self, old_size: int, size: int | None = None) -> list[bytes]:
        return consistency_proof_from(self.hash_at, old_size=old_size, new_size=self._within(size))

    def _within(self, size: int | None) -> int:
        if size is None:
            return self.size
        if not 0 <= size <= self.size:
            raise AssertionError(f"the tree has {self.size} leaves, not {size}")
        return size


def inclusion_proof(leaf_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """The proof that leaf `index` is in the tree of these leaf hashes. Hashes the whole tree: `MemoryTree` for many."""
    return MemoryTree(leaf_hashes).inclusion_proof(index)


def consistency_proof(leaf_hashes: Sequence[bytes], old_size: int) -> list[bytes]:
    """The proof that the tree of these leaf hashes begins with the tree of the first `old_size` of them."""
    return MemoryTree(leaf_hashes).consistency_proof(old_size)


def verify_inclusion(*, index: int, size: int, leaf_hash: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf hash is at `index` in the tree with this size and root (RFC 9162 section 2.1.3.2).

    Raises VerificationError `bad-proof`: an index outside the tree, too few or too many hashes, or another root.
    """
    if not 0 <= index < size:
        raise _bad_proof(f"leaf {index} cannot be in a tree of {size} leaves")
    _check_sizes(root, leaf_hash, *proof)
    first, last = index, size - 1
    computed = leaf_hash
    for sibling in proof:
        if last == 0:
            raise _bad_proof(f"the inclusion proof of leaf {index} in {size} has {len(proof)} hashes, too many")
        if first & 1 or first == last:
            computed = interior_hash(sibling, computed)
            while not first & 1 and first:
                first >>= 1
                last >>= 1
        else:
            computed = interior_hash(computed, sibling)
        first >>= 1
        last >>= 1
    if last:
        raise _bad_proof(f"the inclusion proof of leaf {index} in {size} has {len(proof)} hashes, too few")
    if computed != root:
        raise _bad_proof(f"the inclusion proof of leaf {index} leads to root {computed.hex()}, not to {root.hex()}")


def verify_consistency(
    *, old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the new tree begins with exactly the leaves of the old one (RFC 9162 section 2.1.4.2).

    Raises VerificationError `bad-proof`: a shrunken tree, an empty tree whose root isn't `EMPTY_ROOT`, a proof where
    none is needed, or one that doesn't lead to both roots.
    """
    if not 0 <= old_size <= new_size:
        raise _bad_proof(f"the log shrank from {old_size} to {new_size} leaves")
    _check_sizes(old_root, new_root, *proof)
    if old_size == 0 and old_root != EMPTY_ROOT:
        raise _bad_proof(f"an empty log cannot have root {old_root.hex()}")
    if old_size in (0, new_size):
        if proof:
            raise _bad_proof(f"no proof is needed from {old_size} to {new_size} leaves, yet {len(proof)} hashes came")
        if old_size == new_size and old_root != new_root:
            raise _bad_proof(
                f"two roots for one size {old_size}: {old_root.hex()} and {new_root.hex()}; the log forked"
            )
        return
    path = list(proof) if old_size & (old_size - 1) else [old_root, *proof]
    if not path:
        raise _bad_proof(f"the consistency proof from {old_size} to {new_size} is empty")
    old, new = _replay_consistency(old_size, new_size, path)
    if old != old_root:
        raise _bad_proof(f"the consistency proof leads to root {old.hex()} at size {old_size}, not to {old_root.hex()}")
    if new != new_root:
        raise _bad_proof(f"the consistency proof leads to root {new.hex()} at size {new_size}, not to {new_root.hex()}")


def _replay_consistency(old_size: int, new_size: int, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    first, last = old_size - 1, new_size - 1
    while first & 1:
        first >>= 1
        last >>= 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise _bad_proof(f"the consistency proof from {old_size} to {new_size} has too many hashes")
        if first & 1 or first == last:
            old = interior_hash(sibling, old)
            new = interior_hash(sibling, new)
            while not first & 1 and first:
                first >>= 1
                last >>= 1
        else:
            new = interior_hash(new, sibling)
        first >>= 1
        last >>= 1
    if last:
        raise _bad_proof(f"the consistency proof from {old_size} to {new_size} has too few hashes")
    return old, new


def _check_sizes(*hashes: bytes) -> None:
    for value in hashes:
        if len(value) != HASH_SIZE:
            raise _bad_proof(f"a hash has {len(value)} bytes, not {HASH_SIZE}")


def _bad_proof(message: str) -> VerificationError:
    return VerificationError("bad-proof", message)
