"""The state map: a sparse Merkle tree, so that one root proves what the directory holds, and what it does not.

key = SHA-256(kind ‖ "/" ‖ id). Each leaf sits at its shortest unique prefix: a subtree with one leaf *is* that leaf,
an empty one is 32 zeros. leaf = H(0x00 ‖ key ‖ SHA-256(value)), interior = H(0x01 ‖ left ‖ right); bit 0 is the highest
bit of the key's first byte. The shape follows from the contents alone, never from the order in which they came.
Trees are persistent: an update shares what it does not touch and leaves the old tree as it was.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Final

import msgspec

from careledger.errors import VerificationError
from careledger.identity.fields import Hash
from careledger.seal import Payload

__all__ = ["EMPTY", "MapProof", "OtherLeaf", "StateMap", "map_key", "verify_absent", "verify_present"]

EMPTY: Final = bytes(32)
_KEY_BITS: Final = 256


class OtherLeaf(Payload, frozen=True, kw_only=True):
    """The leaf that sits where an absent key would: its key and SHA-256 of its value, in hex."""

    key: Hash
    value: Hash


class MapProof(Payload, frozen=True, kw_only=True):
    """Sibling hashes from the root down. `leaf` only in a proof of absence, where another leaf has the prefix."""

    siblings: Annotated[list[Hash], msgspec.Meta(max_length=_KEY_BITS)]
    leaf: OtherLeaf | msgspec.UnsetType = msgspec.UNSET


class _Leaf:
    __slots__ = ("hash", "key", "value_hash")

    def __init__(self, key: bytes, value_hash: bytes) -> None:
        self.key = key
        self.value_hash = value_hash
        self.hash = _leaf_hash(key, value_hash)


class _Interior:
    __slots__ = ("hash", "left", "right")

    def __init__(self, left: _Tree, right: _Tree) -> None:
        self.left = left
        self.right = right
        self.hash = _interior_hash(_hash_of(left), _hash_of(right))


_Tree = _Leaf | _Interior | None


class StateMap:
    """An immutable map from (kind, id) to a value's hash, with its root. Values themselves are kept elsewhere."""

    __slots__ = ("_tree",)

    def __init__(self, tree: _Tree = None) -> None:
        self._tree = tree

    @property
    def root(self) -> bytes:
        """32 bytes; zeros when empty."""
        return _hash_of(self._tree)

    def updated(self, changes: Mapping[bytes, bytes | None]) -> StateMap:
        """The map after `changes`: key (as map_key) → SHA-256 of the value, None to remove. O(changes · depth)."""
        return StateMap(_update(self._tree, sorted(changes.items()), 0)) if changes else self

    def prove(self, kind: str, ident: str) -> MapProof:
        """The proof that (kind, id) is here, or that it is not: whichever is true."""
        key = map_key(kind, ident)
        siblings: list[str] = []
        tree, depth = self._tree, 0
        while isinstance(tree, _Interior):
            here, other = (tree.right, tree.left) if _bit(key, depth) else (tree.left, tree.right)
            siblings.append(_hash_of(other).hex())
            tree, depth = here, depth + 1
        if tree is None or tree.key == key:
            return MapProof(siblings=siblings)
        return MapProof(siblings=siblings, leaf=OtherLeaf(key=tree.key.hex(), value=tree.value_hash.hex()))


def map_key(kind: str, ident: str) -> bytes:
    """SHA-256(kind ‖ "/" ‖ id). No kind has a slash, so no two pairs give the same bytes."""
    return sha256(f"{kind}/{ident}".encode()).digest()


def verify_present(proof: MapProof, kind: str, ident: str, value: bytes, root: bytes) -> None:
    """Prove that the map with this root holds exactly `value` (canonical bytes) under (kind, id).

    Raises VerificationError `bad-map-proof`.
    """
    if proof.leaf is not msgspec.UNSET:
        raise _refused("it is a proof of absence")
    key = map_key(kind, ident)
    if _fold(key, proof.siblings, _leaf_hash(key, sha256(value).digest())) != root:
        raise _refused("it does not lead to the root")


def verify_absent(proof: MapProof, kind: str, ident: str, root: bytes) -> None:
    """Prove that the map with this root holds nothing under (kind, id). Raises VerificationError `bad-map-proof`."""
    key = map_key(kind, ident)
    end = EMPTY
    if proof.leaf is not msgspec.UNSET:
        other = bytes.fromhex(proof.leaf.key)
        if other == key:
            raise _refused("the leaf in it is the key itself")
        if any(_bit(other, depth) != _bit(key, depth) for depth in range(len(proof.siblings))):
            raise _refused("the leaf in it lies elsewhere")
        end = _leaf_hash(other, bytes.fromhex(proof.leaf.value))
    if _fold(key, proof.siblings, end) != root:
        raise _refused("it does not lead to the root")


def _refused(why: str) -> VerificationError:
    return VerificationError("bad-map-proof", f"the proof from the directory's state does not hold: {why}")


def _fold(key: bytes, siblings: Sequence[str], end: bytes) -> bytes:
    for depth in range(len(siblings) - 1, -1, -1):
        sibling = bytes.fromhex(siblings[depth])
        end = _interior_hash(sibling, end) if _bit(key, depth) else _interior_hash(end, sibling)
    return end


def _leaf_hash(key: bytes, value_hash: bytes) -> bytes:
    return sha256(b"\x00" + key + value_hash).digest()


def _interior_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def _hash_of(tree: _Tree) -> bytes:
    return EMPTY if tree is None else tree.hash


def _bit(key: bytes, depth: int) -> int:
    return key[depth >> 3] >> (7 - (depth & 7)) & 1


def _update(tree: _Tree, changes: Sequence[tuple[bytes, bytes | None]], depth: int) -> _Tree:
    """`changes` sorted by key, all sharing the prefix that leads to `tree`."""
    if not changes:
        return tree
    if isinstance(tree, _Interior):
        middle = _split_at(changes, depth)
        left = _update(tree.left, changes[:middle], depth + 1)
        right = _update(tree.right, changes[middle:], depth + 1)
        return _join(left, right)
    leaves = {} if tree is None else {tree.key: tree}
    for key, value_hash in changes:
        if value_hash is None:
            leaves.pop(key, None)
        else:
            leaves[key] = _Leaf(key, value_hash)
    return _build([leaves[key] for key in sorted(leaves)], depth)


def _build(leaves: Sequence[_Leaf], depth: int) -> _Tree:
    if len(leaves) <= 1:
        return leaves[0] if leaves else None
    middle = bisect_left(leaves, 1, key=lambda leaf: _bit(leaf.key, depth))
    return _join(_build(leaves[:middle], depth + 1), _build(leaves[middle:], depth + 1))


def _join(left: _Tree, right: _Tree) -> _Tree:
    """A leaf alone rises to the shortest prefix that is its own."""
    if left is None and not isinstance(right, _Interior):
        return right
    if right is None and not isinstance(left, _Interior):
        return left
    return _Interior(left, right)


def _split_at(changes: Sequence[tuple[bytes, bytes | None]], depth: int) -> int:
    if len(changes) == 1:
        return 0 if _bit(changes[0][0], depth) else 1
    return bisect_left(changes, 1, key=lambda change: _bit(change[0], depth))
