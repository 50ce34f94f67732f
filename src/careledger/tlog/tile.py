"""Tiles and entry bundles: where the hashes and entries of a log lie, as C2SP tlog-tiles has it.

A tile is up to 256 hashes of one tile level (tile level l holds the tree's levels 8l to 8l+7); a bundle is up to 256
entries, each after its length as big-endian uint16. Paths are relative to the log's prefix. Pure naming and coding:
`reader.py` checks tiles against a root, `tail.py` makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from careledger.errors import MalformedError

TILE_HEIGHT = 8
TILE_WIDTH = 256
ENTRY_BYTES_MAX = 0xFFFF
"""The length prefix of a bundled entry is a uint16."""

CHECKPOINT_PATH = "checkpoint"


@dataclass(frozen=True, slots=True)
class Tile:
    """The coordinates of one tile; `width` is below 256 only at the right edge of the tree."""

    level: int
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        return tile_path(self.level, self.index, self.width)


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """`tile/<L>/<N>[.p/<W>]`."""
    if not 0 <= level <= 63:
        raise AssertionError(f"tile level {level}")
    return f"tile/{level}/{_index_path(index, width)}"


def entries_path(index: int, width: int = TILE_WIDTH) -> str:
    """`tile/entries/<N>[.p/<W>]`."""
    return f"tile/entries/{_index_path(index, width)}"


def _index_path(index: int, width: int) -> str:
    if index < 0 or not 1 <= width <= TILE_WIDTH:
        raise AssertionError(f"tile index {index}, width {width}")
    path = f"{index % 1000:03d}"
    index //= 1000
    while index:
        path = f"x{index % 1000:03d}/{path}"
        index //= 1000
    return path if width == TILE_WIDTH else f"{path}.p/{width}"


def tiles_for_growth(old_size: int, new_size: int) -> list[Tile]:
    """The tiles that are new when a log grows: full ones and the partial ones of the new size, from level 0 up."""
    tiles: list[Tile] = []
    level = 0
    while new_count := new_size >> (TILE_HEIGHT * level):
        old_count = old_size >> (TILE_HEIGHT * level)
        if new_count > old_count:
            for index in range(old_count // TILE_WIDTH, (new_count - 1) // TILE_WIDTH + 1):
                tiles.append(Tile(level, index, min(TILE_WIDTH, new_count - index * TILE_WIDTH)))
        level += 1
    return tiles


def edge_tiles(size: int) -> list[Tile]:
    """The partial tiles of a tree, from level 0 up; together they hold its frontier and so give its root."""
    tiles: list[Tile] = []
    level = 0
    while count := size >> (TILE_HEIGHT * level):
        if width := count % TILE_WIDTH:
            tiles.append(Tile(level, count // TILE_WIDTH, width))
        level += 1
    return tiles


def encode_entries(entries: Sequence[bytes]) -> bytes:
    """An entry bundle: for each entry its length as big-endian uint16, then its bytes."""
    longest = max(map(len, entries), default=0)
    if longest > ENTRY_BYTES_MAX:
        raise AssertionError(f"a log entry of {longest} bytes; a bundle holds at most {ENTRY_BYTES_MAX}")
    return b"".join([len(entry).to_bytes(2, "big") + entry for entry in entries])


def decode_entries(data: bytes, *, width: int | None = None) -> list[bytes]:
    """The entries of a bundle; exactly `width` of them where given, never more than 256.

    Raises MalformedError `bad-bundle`: cut off inside an entry, or another number of entries.
    """
    entries: list[bytes] = []
    at, end = 0, len(data)
    for _ in range(TILE_WIDTH):
        start = at + 2
        if start > end:
            break
        at = start + (data[at] << 8 | data[start - 1])
        entries.append(data[start:at])
    if at + 2 <= end:
        raise MalformedError("bad-bundle", f"an entry bundle holds more than {TILE_WIDTH} entries")
    if at != end:
        raise MalformedError("bad-bundle", f"an entry bundle of {end} bytes ends inside entry {len(entries) - 1}")
    if width is not None and len(entries) != width:
        raise MalformedError("bad-bundle", f"an entry bundle holds {len(entries)} entries, not {width}")
    return entries


def decode_tile(data: bytes, *, width: int) -> list[bytes]:
    """The hashes of a tile. Raises MalformedError `bad-tile` when it isn't exactly `width` hashes long."""
    if len(data) != 32 * width:
        raise MalformedError("bad-tile", f"a tile of {width} hashes has {len(data)} bytes, not {32 * width}")
    return [data[at : at + 32] for at in range(0, len(data), 32)]
