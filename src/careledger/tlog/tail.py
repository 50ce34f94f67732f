"""The right edge of a log that a writer holds: append entries, get the tiles and bundles to write.

Derived state only: it is rebuilt from a log's own partial tiles and last bundle (`LogTail.restore`), which is also how
a node that lost its tiles or started from a copy comes up. Nothing here writes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from careledger.errors import VerificationError
from careledger.tlog.frontier import BatchProofs, Frontier
from careledger.tlog.reader import TileReader
from careledger.tlog.tile import (
    TILE_HEIGHT,
    TILE_WIDTH,
    edge_tiles,
    encode_entries,
    entries_path,
    tile_path,
)
from careledger.tlog.tree import leaf_hashes_of


class LogTail:
    """The frontier, the partial tiles and the partial bundle of a log, in memory: at most 256 hashes a tile level.

    Not safe for concurrent use; after a failed append discard it and restore.
    """

    def __init__(self) -> None:
        self.frontier = Frontier()
        self._tiles: list[bytes] = []
        self._bundle = b""

    @classmethod
    def restore(cls, fetch: Callable[[str], bytes], *, size: int, root: bytes) -> LogTail:
        """The tail of a log of this size and root, from its own tiles; errors as `TileReader`'s."""
        reader = TileReader(fetch, size=size, root=root)
        tail = cls()
        levels = [level for level in reversed(range(size.bit_length())) if size >> level & 1]
        tail.frontier = Frontier(size, [reader.hash_at(level, (size >> level) - 1) for level in levels])
        level = 0
        while count := size >> (TILE_HEIGHT * level):
            start = count - count % TILE_WIDTH
            tail._tiles.append(b"".join(reader.hash_at(TILE_HEIGHT * level, index) for index in range(start, count)))
            level += 1
        if size % TILE_WIDTH:
            tail._bundle = encode_entries(reader.entries(size // TILE_WIDTH))
        if tail.frontier.root() != root:
            raise VerificationError("bad-root", f"the frontier of {size} entries does not lead to {root.hex()}")
        return tail

    @property
    def size(self) -> int:
        return self.frontier.size

    def root(self) -> bytes:
        return self.frontier.root()

    def append(self, entries: Sequence[bytes]) -> tuple[BatchProofs, list[tuple[str, bytes]]]:
        """Append entries; returns the proofs of the batch and the (path, bytes) of every tile and bundle it changes.

        Full files are final; a partial file is the one of exactly this size.
        """
        old_size = self.size
        batch = self.frontier.append_batch(leaf_hashes_of(entries))
        files = self._grow_bundles(old_size, entries)
        level = 0
        while made := batch.made(TILE_HEIGHT * level):
            files += self._grow_tiles(level, old_size >> (TILE_HEIGHT * level), made)
            level += 1
        return batch, files

    def _grow_tiles(self, level: int, old_count: int, made: list[bytes]) -> list[tuple[str, bytes]]:
        if level == len(self._tiles):
            self._tiles.append(b"")
        data = self._tiles[level] + b"".join(made)
        files: list[tuple[str, bytes]] = []
        index = old_count // TILE_WIDTH
        full = 32 * TILE_WIDTH
        while len(data) >= full:
            files.append((tile_path(level, index), data[:full]))
            data = data[full:]
            index += 1
        if data:
            files.append((tile_path(level, index, len(data) // 32), data))
        self._tiles[level] = data
        return files

    def _grow_bundles(self, old_size: int, entries: Sequence[bytes]) -> list[tuple[str, bytes]]:
        files: list[tuple[str, bytes]] = []
        bundle, data, at = old_size // TILE_WIDTH, self._bundle, 0
        free = TILE_WIDTH - old_size % TILE_WIDTH
        while len(entries) - at >= free:
            files.append((entries_path(bundle), data + encode_entries(entries[at : at + free])))
            at += free
            bundle, data, free = bundle + 1, b"", TILE_WIDTH
        data += encode_entries(entries[at:])
        if data:
            files.append((entries_path(bundle, self.size % TILE_WIDTH), data))
        self._bundle = data
        return files


def tail_of_entries(entries: Sequence[bytes]) -> tuple[LogTail, dict[str, bytes]]:
    """A whole log built at once: its tail and every file but the checkpoint, as when tiles are rebuilt from a store."""
    tail = LogTail()
    files: dict[str, bytes] = {}
    for start in range(0, len(entries), TILE_WIDTH):
        _, changed = tail.append(entries[start : start + TILE_WIDTH])
        files.update(changed)
    # Partial tiles of sizes in between have no checkpoint and would only mislead.
    partial = {tile.path for tile in edge_tiles(tail.size)} | {
        entries_path(tail.size // TILE_WIDTH, tail.size % TILE_WIDTH or TILE_WIDTH)
    }
    return tail, {path: data for path, data in files.items() if ".p/" not in path or path in partial}
