"""Reading a log from its tiles, believing nothing but a size and a root that a checkpoint has proven.

`fetch` is any function from a tile path to bytes: a folder, an HTTP client, a dict; it raises NotFoundError for a path
that isn't there. The partial tiles at the right edge must lead to the root; every other tile must hash to its place
in the tile above. So a hash, proof or entry that this module hands out is proven before it is handed out.
"""

from __future__ import annotations

from collections.abc import Callable

from careledger.errors import MalformedError, NotFoundError, VerificationError
from careledger.tlog.tile import (
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    decode_entries,
    decode_tile,
    edge_tiles,
    entries_path,
)
from careledger.tlog.tree import (
    EMPTY_ROOT,
    consistency_proof_from,
    inclusion_proof_from,
    interior_hash,
    leaf_hash,
    leaf_hashes_of,
    parents_of,
    root_from,
    root_of,
)

CACHED_TILES_MAX = 4096
"""About 70 MB with interior hashes: the working set of a proof server, a bound for a reader of a hostile log."""


class TileReader:
    """Hashes, proofs and entries of the tree (size, root), read through `fetch` and checked.

    Errors of every method: VerificationError `bad-tile` (details: tile, first, last = leaves it covers), `bad-root`
    (the right edge doesn't lead to the root), MalformedError `bad-tile` (a tile of the wrong length), and what `fetch`
    raises.
    """

    def __init__(self, fetch: Callable[[str], bytes], *, size: int, root: bytes) -> None:
        if size == 0 and root != EMPTY_ROOT:
            raise VerificationError("bad-root", f"an empty log cannot have root {root.hex()}")
        self._fetch = fetch
        self.size = size
        self.root = root
        self._edge: dict[tuple[int, int], list[list[bytes]]] | None = None
        self._full: dict[tuple[int, int], list[list[bytes]]] = {}

    def hash_at(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree of the tree: a hash source (see `tree`)."""
        if not 0 <= index < self.size >> level:
            raise AssertionError(f"level {level} index {index} is not a complete subtree in {self.size} leaves")
        within = level % TILE_HEIGHT
        per_tile = TILE_WIDTH >> within
        return self._tile(level // TILE_HEIGHT, index // per_tile)[within][index % per_tile]

    def leaf_hash_at(self, index: int) -> bytes:
        return self.hash_at(0, index)

    def root_at(self, size: int) -> bytes:
        """The root of the first `size` leaves."""
        return root_from(self.hash_at, size)

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        return inclusion_proof_from(self.hash_at, index=index, size=self.size if size is None else size)

    def consistency_proof(self, old_size: int, size: int | None = None) -> list[bytes]:
        return consistency_proof_from(self.hash_at, old_size=old_size, new_size=self.size if size is None else size)

    def entries(self, bundle: int) -> list[bytes]:
        """The entries of one bundle, each checked against its leaf hash.

        Raises besides VerificationError `bad-entry` (details: index): an entry doesn't hash to its leaf, or the bundle
        is cut or has bytes too many; the index is that of the first entry that is wrong.
        """
        first = bundle * TILE_WIDTH
        if not 0 <= first < self.size:
            raise AssertionError(f"bundle {bundle} is not in a log of {self.size} entries")
        width = min(TILE_WIDTH, self.size - first)
        data = self._fetch_widest(entries_path, bundle, width)
        try:
            found = decode_entries(data, width=width)
        except MalformedError:
            found = []
        computed = leaf_hashes_of(found)
        if len(found) == TILE_WIDTH and self._is_full_tile(bundle, computed):
            return found
        leaves = self._tile(0, bundle)[0]
        if computed != leaves:
            index = first + _first_wrong(data, leaves)
            raise VerificationError(
                "bad-entry",
                f"entry {index} does not hash to its leaf: it was changed after it was logged",
                details={"index": index},
            )
        return found

    def entry(self, index: int) -> bytes:
        return self.entries(index // TILE_WIDTH)[index % TILE_WIDTH]

    def _is_full_tile(self, index: int, hashes: list[bytes]) -> bool:
        """Whether these make up a full tile of level 0, and right: no cache, for who reads each tile once."""
        expected = self.hash_at(TILE_HEIGHT, index)
        return self._fetch(Tile(0, index).path) == b"".join(hashes) and root_of(hashes) == expected

    def _tile(self, level: int, index: int) -> list[list[bytes]]:
        """The eight tree levels inside one checked tile."""
        if self._edge is None:
            self._edge = self._read_edge()
        found = self._edge.get((level, index)) or self._full.get((level, index))
        if found is not None:
            return found
        tile = Tile(level, index)
        expected = self.hash_at(TILE_HEIGHT * (level + 1), index)
        hashes = self._hashes(tile)
        levels = _inner_levels(hashes)
        if interior_hash(levels[-1][0], levels[-1][1]) != expected:
            first, last = index << (TILE_HEIGHT * (level + 1)), ((index + 1) << (TILE_HEIGHT * (level + 1))) - 1
            raise VerificationError(
                "bad-tile",
                f"{tile.path} does not hash to its place in the tree; it covers entries {first} to {last}",
                details={"tile": tile.path, "index": first, "first": first, "last": last},
            )
        if len(self._full) >= CACHED_TILES_MAX:
            self._full.pop(next(iter(self._full)))
        self._full[level, index] = levels
        return levels

    def _read_edge(self) -> dict[tuple[int, int], list[list[bytes]]]:
        edge: dict[tuple[int, int], list[list[bytes]]] = {}
        root: bytes | None = None
        for tile in edge_tiles(self.size):
            hashes = self._hashes(tile)
            edge[tile.level, tile.index] = _inner_levels(hashes)
            # The hashes beyond the complete subtrees belong to this level's own incomplete part: fold right to left.
            part = _frontier_of(hashes)
            for value in reversed(part):
                root = value if root is None else interior_hash(value, root)
        if root is not None and root != self.root:
            first = min(index << (TILE_HEIGHT * (level + 1)) for level, index in edge)
            raise VerificationError(
                "bad-root",
                f"the right edge of {self.size} entries leads to root {root.hex()}, not to {self.root.hex()}",
                details={"index": first},
            )
        return edge

    def _hashes(self, tile: Tile) -> list[bytes]:
        data = self._fetch_widest(lambda index, width: Tile(tile.level, index, width).path, tile.index, tile.width)
        return decode_tile(data, width=tile.width)

    def _fetch_widest(self, path_of: Callable[[int, int], str], index: int, width: int) -> bytes:
        """A partial tile or bundle, or the beginning of the full one: C2SP lets logs delete partials then."""
        try:
            return self._fetch(path_of(index, width))
        except NotFoundError:
            if width == TILE_WIDTH:
                raise
        data = self._fetch(path_of(index, TILE_WIDTH))
        if path_of is entries_path:
            at = 0
            for _ in range(width):
                at += 2 + int.from_bytes(data[at : at + 2], "big")
            return data[:at]
        return data[: 32 * width]


def root_of_entries(entries: list[bytes]) -> bytes:
    """The root of the tree over these entries: a check of a whole small log in one call."""
    return root_of(leaf_hashes_of(entries))


def _first_wrong(data: bytes, leaves: list[bytes]) -> int:
    """The position in a bundle of the first entry that isn't the one its leaf hash names."""
    at = 0
    for position, expected in enumerate(leaves):
        start = at + 2
        at = start + int.from_bytes(data[at:start], "big")
        if at > len(data) or leaf_hash(data[start:at]) != expected:
            return position
    return len(leaves) - 1


def _inner_levels(hashes: list[bytes]) -> list[list[bytes]]:
    levels = [hashes]
    while len(levels) < TILE_HEIGHT:
        levels.append(parents_of(levels[-1]))
    return levels


def _frontier_of(hashes: list[bytes]) -> list[bytes]:
    """The roots of the complete subtrees a partial tile consists of, largest first."""
    roots: list[bytes] = []
    at = 0
    for level in reversed(range(TILE_HEIGHT)):
        if len(hashes) >> level & 1:
            roots.append(root_of(hashes[at : at + (1 << level)]))
            at += 1 << level
    return roots
