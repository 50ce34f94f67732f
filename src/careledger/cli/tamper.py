"""Tampering with copies of a node's files, and catching it: the last part of the demo.

(a) A byte of a tile or entry bundle is flipped: whoever verifies the log names the entry. (b) An operator rewrites an
entry in its store, rebuilds every tile and signs with the node's own key: the log is consistent in itself, and only
what others cosigned or anchored before gives it away.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec

from careledger.access import leaf_of_commitment, parse_leaf
from careledger.errors import Error
from careledger.node import LocalNetwork, LocalNode, NodeFolder
from careledger.tlog import (
    TILE_WIDTH,
    Checkpoint,
    decode_entries,
    entries_path,
    parse_unverified_checkpoint,
    sign_checkpoint,
    tail_of_entries,
    tile_path,
)

__all__ = ["Caught", "flip_a_byte", "sign_again"]

Rand = Callable[[int], bytes]


class Caught(msgspec.Struct, frozen=True):
    """Which entry was tampered with, whether verification refused, and what it said."""

    index: int
    detected: bool
    line: str


def _pick(rand: Rand, below: int) -> int:
    return int.from_bytes(rand(8), "big") % below


def _copy(local: LocalNetwork, target: Path, rand: Rand) -> tuple[LocalNode, Path, int]:
    """Copy a random node's log, key and store; returns the node, the copy and the log's published size."""
    node = local.nodes[_pick(rand, len(local.nodes))]
    copy = target / node.name
    shutil.copytree(node.folder / "log", copy / "log")
    shutil.copytree(node.folder / "store", copy / "store")
    shutil.copy(node.folder / "log.vkey", copy / "log.vkey")
    return node, copy, parse_unverified_checkpoint((copy / "log" / "checkpoint").read_bytes()).size


def _bundle(log: Path, index: int, size: int) -> tuple[Path, int]:
    """The file of the bundle that holds an entry, and how many entries it has."""
    bundle = index // TILE_WIDTH
    width = min(TILE_WIDTH, size - bundle * TILE_WIDTH)
    return log / entries_path(bundle, width), width


def flip_a_byte(local: LocalNetwork, target: Path, *, rand: Rand, verify: Callable[[Path], None]) -> Caught:
    """Flip one random bit of a random entry: in its bundle, or in its leaf hash's tile.

    `verify` checks the copy's folder and raises an Error with details {index}.
    """
    _, copy, size = _copy(local, target / "flipped", rand)
    index = _pick(rand, size)
    place, width = _bundle(copy / "log", index, size)
    at = index % TILE_WIDTH
    if _pick(rand, 2):
        entries = decode_entries(place.read_bytes(), width=width)
        start = sum(2 + len(entry) for entry in entries[:at]) + 2
        position = start + _pick(rand, len(entries[at]))
    else:
        place = copy / "log" / tile_path(0, index // TILE_WIDTH, width)
        position = 32 * at + _pick(rand, 32)
    data = bytearray(place.read_bytes())
    data[position] ^= 1 << _pick(rand, 8)
    place.write_bytes(bytes(data))
    try:
        verify(copy)
    except Error as refused:
        return Caught(index, refused.details.get("index") == index, str(refused))
    return Caught(index, False, "not noticed")


def sign_again(local: LocalNetwork, target: Path, *, rand: Rand, verify: Callable[[Path], None]) -> Caught:
    """Rewrite a random entry's body in the store's copy, rebuild all tiles, and sign with the node's own key."""
    node, copy, size = _copy(local, target / "resigned", rand)
    log = copy / "log"
    entries: list[bytes] = []
    for first in range(0, size, TILE_WIDTH):
        place, width = _bundle(log, first, size)
        entries += decode_entries(place.read_bytes(), width=width)
    index = _pick(rand, size)
    entries[index] = _rewrite(copy / "store" / "main.db", index, entries[index])
    tail, files = tail_of_entries(entries)
    shutil.rmtree(log)
    for path, data in files.items():
        (log / path).parent.mkdir(parents=True, exist_ok=True)
        (log / path).write_bytes(data)
    signer = NodeFolder(node.folder).log_signer(local.network)
    (log / "checkpoint").write_bytes(sign_checkpoint(Checkpoint(signer.name, size, tail.root()), signer=signer))
    try:
        verify(copy)
    except Error as refused:
        return Caught(index, True, str(refused))
    return Caught(index, False, "not noticed")


def _rewrite(store: Path, index: int, entry: bytes) -> bytes:
    """Change one entry's body as an operator with a text editor could; returns its new leaf."""
    kind, _ = parse_leaf(entry)
    database = sqlite3.connect(store)
    try:
        with database:
            salt, body = database.execute("SELECT salt, body FROM entries WHERE idx = ?", (index,)).fetchone()
            changed = body.replace(b'"received":1', b'"received":2', 1)
            digest = sha256(salt + changed).digest()
            database.execute("UPDATE entries SET body = ?, digest = ? WHERE idx = ?", (changed, digest, index))
    finally:
        database.close()
    return leaf_of_commitment(kind, digest)
