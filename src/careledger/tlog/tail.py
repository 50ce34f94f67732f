"""The right edge of a log that a writer holds: take entries, get the tiles and bundles to write.

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
    """The frontier, the partial tiles and the partial bundle of a log, in memory: at most 256 hashes a tile level, and
    what was taken since files were made.

    Not safe for concurrent use; after a failed append discard it and restore.
    """

    def __init__(self) -> None:
        self.frontier = Frontier()
        self._made_size = 0
        """Entries that are in files already."""
        self._tiles: list[bytes] = []
        self._bundle = b""
        self._entries: list[bytes] = []

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
        tail._made_size = size
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
        """Append entries; returns the proofs of the batch and the (path, bytes) of every tile and bundle it changes."""
        batch = self.take(entries)
        return batch, self.changed_files()

    def take(self, entries: Sequence[bytes], batch: BatchProofs | None = None) -> BatchProofs:
        """Append entries without making files yet; returns the proofs of the batch.

        `batch` is what the same entries gave when another frontier of this log appended them: nothing is hashed again.
        """
        if batch is None:
            batch = self.frontier.append_batch(leaf_hashes_of(entries))
        elif (batch.old_size, batch.size) != (self.size, self.size + len(entries)):
            raise AssertionError(f"a batch of [{batch.old_size}, {batch.size}) does not follow {self.size} entries")
        else:
            self.frontier = batch.grown()
        self._entries += entries
        level = 0
        while made := batch.made(TILE_HEIGHT * level):
            if level == len(self._tiles):
                self._tiles.append(b"")
            self._tiles[level] += b"".join(made)
            level += 1
        return batch

    def changed_files(self) -> list[tuple[str, bytes]]:
        """The (path, bytes) of every tile and bundle that changed since the last call.

        Full files are final; a partial file is the one of exactly this size.
        """
        files = self._changed_bundles()
        for level in range(len(self._tiles)):
            old_count = self._made_size >> (TILE_HEIGHT * level)
            if self.size >> (TILE_HEIGHT * level) > old_count:
                files += self._changed_tiles(level, old_count // TILE_WIDTH)
        self._made_size = self.size
        return files

    def _changed_tiles(self, level: int, index: int) -> list[tuple[str, bytes]]:
        data = self._tiles[level]
        files: list[tuple[str, bytes]] = []
        full = 32 * TILE_WIDTH
        while len(data) >= full:
            files.append((tile_path(level, index), data[:full]))
            data = data[full:]
            index += 1
        if data:
            files.append((tile_path(level, index, len(data) // 32), data))
        self._tiles[level] = data
        return files

    def _changed_bundles(self) -> list[tuple[str, bytes]]:
        files: list[tuple[str, bytes]] = []
        entries, old_size = self._entries, self._made_size
        bundle, data, at = old_size // TILE_WIDTH, self._bundle, 0
        free = TILE_WIDTH - old_size % TILE_WIDTH
        while len(entries) - at >= free:
            files.append((entries_path(bundle), data + encode_entries(entries[at : at + free])))
            at += free
            bundle, data, free = bundle + 1, b"", TILE_WIDTH
        if at < len(entries):
            data += encode_entries(entries[at:])
            files.append((entries_path(bundle, self.size % TILE_WIDTH), data))
        self._bundle, self._entries = data, []
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
