"""Verifying a whole log from its files: entries, leaf hashes, tiles of every level, root.

`verified_bundles` streams, so a log larger than memory can be verified and its entries used in the same pass. When it
stops it names the first entry at fault, by computing every tile again from the entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from careledger.errors import Error, MalformedError, NotFoundError, VerificationError
from careledger.tlog.reader import TileReader
from careledger.tlog.tail import LogTail
from careledger.tlog.tile import TILE_HEIGHT, TILE_WIDTH, decode_entries, edge_tiles, entries_path


def verified_bundles(
    fetch: Callable[[str], bytes], *, size: int, root: bytes, start: int = 0
) -> Iterator[tuple[int, list[bytes]]]:
    """Every bundle from the one that holds entry `start`: (index of its first entry, its entries), proven when yielded.

    Running it to the end from 0 verifies the whole log against (size, root). The checkpoint they come from, its
    cosignatures and what the entries mean are the caller's to check.
    Raises VerificationError `bad-entry`, `bad-tile`, `bad-root` with details {index}: the first entry at fault.
    NotFoundError: a file is missing.
    """
    reader = TileReader(fetch, size=size, root=root)
    for bundle in range(start // TILE_WIDTH, -(-size // TILE_WIDTH)):
        try:
            entries = reader.entries(bundle)
        except (MalformedError, VerificationError) as problem:
            if problem.code == "bad-entry":
                raise
            raise _located(problem, fetch, size) from problem
        yield bundle * TILE_WIDTH, entries


def verify_log(fetch: Callable[[str], bytes], *, size: int, root: bytes) -> None:
    """Check every entry and tile of a log against (size, root); errors as `verified_bundles`'."""
    for _ in verified_bundles(fetch, size=size, root=root):
        pass


def first_difference(fetch: Callable[[str], bytes], *, size: int) -> int | None:
    """The first entry whose stored tiles (of any level) aren't what the stored entries give; None if all agree."""
    tail = LogTail()
    final = {tile.path for tile in edge_tiles(size)}
    for first in range(0, size, TILE_WIDTH):
        width = min(TILE_WIDTH, size - first)
        try:
            entries = decode_entries(fetch(entries_path(first // TILE_WIDTH, width)), width=width)
        except Error:
            return first
        for path, data in tail.append(entries)[1]:
            if path.startswith("tile/entries/") or (".p/" in path and path not in final):
                continue
            try:
                stored = fetch(path)
            except NotFoundError:
                return first
            if stored != data:
                return _leaf_of(path, data, stored)
    return None


def _leaf_of(path: str, data: bytes, stored: bytes) -> int:
    level_text, _, index_text = path.removeprefix("tile/").partition("/")
    level, index = int(level_text), int(index_text.split(".p/")[0].replace("/", "").replace("x", ""))
    at = next((at for at in range(0, len(data), 32) if data[at : at + 32] != stored[at : at + 32]), len(data) - 32)
    return (index * TILE_WIDTH + at // 32) << (TILE_HEIGHT * level)


def _located(problem: Error, fetch: Callable[[str], bytes], size: int) -> Error:
    index = first_difference(fetch, size=size)
    if index is None:
        # Entries and tiles agree with each other: the whole log is another one than the checkpoint's.
        return problem
    message = f"{problem.message}; the first entry at odds with the tiles is {index}"
    return VerificationError(problem.code, message, details={**problem.details, "index": index})
