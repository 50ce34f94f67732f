"""The frontier (compact range) of a growing tree: all that appending, roots and receipts of new leaves need.

A writer keeps one `Frontier`: at most 63 hashes, whatever the size of the log. Appending a batch returns the hashes
that the batch made; together with the old frontier they hold every sibling of the batch's own leaves, so receipts are
made without reading the tree: a sibling on the left that has no new leaf is itself in the old frontier.
"""

from __future__ import annotations

from collections.abc import Sequence

from careledger.errors import VerificationError
from careledger.tlog.tree import EMPTY_ROOT, inclusion_proof_from, interior_hash, parents_of, right_edge


class Frontier:
    """The complete subtrees a tree of `size` leaves consists of, largest first.

    Raises VerificationError `bad-frontier` when the number of hashes doesn't fit the size. Not safe for concurrent use.
    """

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        if size < 0 or len(hashes) != size.bit_count() or any(len(value) != 32 for value in hashes):
            raise VerificationError(
                "bad-frontier", f"a tree of {size} leaves has {size.bit_count()} frontier hashes, not {len(hashes)}"
            )
        self._size = size
        self._by_level: list[bytes | None] = [None] * size.bit_length()
        remaining = iter(hashes)
        for level in reversed(range(size.bit_length())):
            if size >> level & 1:
                self._by_level[level] = next(remaining)

    @property
    def size(self) -> int:
        return self._size

    @property
    def hashes(self) -> list[bytes]:
        """Largest subtree first: what the constructor takes back."""
        return [value for value in reversed(self._by_level) if value is not None]

    def root(self) -> bytes:
        root: bytes | None = None
        for value in self._by_level:
            if value is not None:
                root = value if root is None else interior_hash(value, root)
        return EMPTY_ROOT if root is None else root

    def copy(self) -> Frontier:
        """An independent frontier: append to the copy, keep it once the batch is on disk."""
        twin = Frontier()
        twin._size, twin._by_level = self._size, list(self._by_level)
        return twin

    def append(self, leaf_hash: bytes) -> None:
        level = 0
        while level < len(self._by_level):
            left = self._by_level[level]
            if left is None:
                break
            leaf_hash = interior_hash(left, leaf_hash)
            self._by_level[level] = None
            level += 1
        if level == len(self._by_level):
            self._by_level.append(None)
        self._by_level[level] = leaf_hash
        self._size += 1

    def append_batch(self, leaf_hashes: Sequence[bytes]) -> BatchProofs:
        """Append leaf hashes; returns what proves them in the grown tree."""
        old_size, old = self._size, list(self._by_level)
        size = old_size + len(leaf_hashes)
        made: list[tuple[int, list[bytes]]] = []
        new = list(leaf_hashes)
        level = 0
        while new:
            start = old_size >> level
            made.append((start, new))
            left = old[level] if level < len(old) else None
            new = parents_of([left, *new] if left is not None else new)
            level += 1
        by_level: list[bytes | None] = [None] * size.bit_length()
        for level in range(size.bit_length()):
            count = size >> level
            if count & 1:
                at = count - 1 - made[level][0] if level < len(made) else -1
                by_level[level] = made[level][1][at] if at >= 0 else old[level]
        self._size, self._by_level = size, by_level
        return BatchProofs(old_size, size, old, made, tuple(by_level))


class BatchProofs:
    """The hashes one batch made, and the frontier it was appended to. Holds for the tree as it was after that batch."""

    def __init__(
        self,
        old_size: int,
        size: int,
        old: Sequence[bytes | None],
        made: Sequence[tuple[int, list[bytes]]],
        new: tuple[bytes | None, ...],
    ) -> None:
        self.old_size = old_size
        self.size = size
        self._old = old
        self._made = made
        self._new = new
        self._edge: list[bytes | None] | None = None

    def grown(self) -> Frontier:
        """A frontier of the tree after the batch."""
        frontier = Frontier()
        frontier._size, frontier._by_level = self.size, list(self._new)
        return frontier

    def made(self, level: int) -> list[bytes]:
        """The hashes of the complete subtrees of this level that the batch completed, in order."""
        return self._made[level][1] if level < len(self._made) else []

    def hash_at(self, level: int, index: int) -> bytes:
        """A hash source for everything on the way from the batch's own leaves to the root."""
        if level < len(self._made):
            start, hashes = self._made[level]
            if index >= start:
                return hashes[index - start]
        value = self._old[level] if level < len(self._old) and index == (self.old_size >> level) - 1 else None
        if value is None:
            raise AssertionError(f"the hash at level {level} index {index} is neither in the batch nor in the frontier")
        return value

    def inclusion(self, index: int) -> list[bytes]:
        """The inclusion proof of one of the batch's own leaves in the tree after the batch."""
        if not self.old_size <= index < self.size:
            raise AssertionError(f"leaf {index} is not one of this batch's [{self.old_size}, {self.size})")
        if index == self.size - 1 and self.old_size == index:
            # Alone in its batch, at the right edge of the tree: its siblings are what the old tree consisted of.
            return [value for value in self._old if value is not None]
        if self._edge is None:
            self._edge = right_edge(self.hash_at, self.size)
        return inclusion_proof_from(self.hash_at, index=index, size=self.size, edge=self._edge)
