"""Whether a log still is what it once was: against earlier checkpoints, and against an older copy of its tiles.

A node's own key signs whatever its operator wants. That a log was rewritten shows only in what others keep: their
cosignatures, the anchors in the directory, receipts, or a copy. Source: RFC 6962 section 2.1.2; C2SP tlog-witness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from careledger.directory import Anchor, parse_block
from careledger.errors import NotFoundError, VerificationError
from careledger.seal import decode, unb64
from careledger.tlog import EMPTY_ROOT, Checkpoint, TileReader, parse_unverified_checkpoint
from careledger.verify.report import Known

__all__ = ["Fetch", "anchors_in", "check_known", "first_divergence", "verify_extends"]

Fetch = Callable[[str], bytes]
"""From a C2SP path to the file's bytes; raises NotFoundError for a path that isn't there."""

_ANCHOR_BYTES_MAX = 65_535


def verify_extends(
    fetch: Fetch,
    *,
    old: Checkpoint,
    new: Checkpoint,
    source: str = "an earlier checkpoint",
    old_fetch: Fetch | None = None,
) -> None:
    """Check that the log (`fetch`, at checkpoint `new`) begins with the log that `old` states.

    Both checkpoints are opened by the caller, with the keys it trusts. `old_fetch` reads an older copy's tiles, if
    there is one: then the first entry that differs is named.
    Raises VerificationError `rolled-back` (the log got shorter), `fork` (one size, two roots), `rewritten` (an earlier
    entry is another one now), details {known, source, first, last}: the changed entry is among `first`..`last`;
    `index` where it is known; and TileReader's errors.
    """
    try:
        known = Known(size=old.size, root=old.root.hex(), source=source)
        check_known(TileReader(fetch, size=new.size, root=new.root), [known], origin=new.origin)
    except VerificationError as problem:
        if old_fetch is None or problem.code not in ("rewritten", "fork"):
            raise
        before = TileReader(old_fetch, size=old.size, root=old.root)
        index = first_divergence(before, TileReader(fetch, size=new.size, root=new.root))
        assert index is not None, "two roots of one size have different leaves"
        details = {**problem.details, "index": index, "first": index, "last": index}
        raise VerificationError(
            problem.code, f"{problem.message}; the first entry that differs is {index}", details=details
        ) from problem


def check_known(log: TileReader, known: Iterable[Known], *, origin: str) -> int:
    """Compare a log with every checkpoint known of it; returns how many there were. Errors as `verify_extends`'.

    They are taken by size, so the entry that was changed lies between the last one that agrees and the first that
    does not: the more anchors, the narrower.
    """
    count, agreed = 0, 0
    for one in sorted(known, key=lambda item: item.size):
        count += 1
        if one.size > log.size:
            raise VerificationError(
                "rolled-back",
                f'log "{origin}" had {one.size} entries ({one.source}) and shows {log.size}: it was rolled back; keep '
                "both and report the node",
                details={"known": one.size, "size": log.size, "source": one.source},
            )
        root = log.root_at(one.size) if one.size else EMPTY_ROOT
        if root.hex() != one.root:
            raise _changed(log, one, agreed, origin)
        agreed = one.size
    return count


def _changed(log: TileReader, known: Known, agreed: int, origin: str) -> VerificationError:
    details: dict[str, object] = {
        "known": known.size,
        "source": known.source,
        "first": agreed,
        "last": known.size - 1,
    }
    if known.size - agreed == 1:
        details["index"] = agreed
    if known.size == log.size:
        return VerificationError(
            "fork",
            f'log "{origin}" has two roots at size {known.size}, this one and that of {known.source}: it forked or was '
            f"rewritten from entry {agreed} or later on; keep both and report the node",
            details=details,
        )
    return VerificationError(
        "rewritten",
        f'log "{origin}" no longer begins with the {known.size} entries of {known.source}: one of {agreed} to '
        f"{known.size - 1} was rewritten; keep both and report the node",
        details=details,
    )


def first_divergence(old: TileReader, new: TileReader) -> int | None:
    """The first entry in which two logs differ, both read through proven tiles; None if the shorter begins the longer.

    Descends from the largest complete subtrees: a few tiles are read, however long the logs are.
    """
    size = min(old.size, new.size)
    start = 0
    for level in reversed(range(size.bit_length())):
        if not size >> level & 1:
            continue
        index = start >> level
        if old.hash_at(level, index) != new.hash_at(level, index):
            return _descend(old, new, level, index)
        start += 1 << level
    return None


def _descend(old: TileReader, new: TileReader, level: int, index: int) -> int:
    """The first leaf that differs below a hash that does."""
    while level:
        level, index = level - 1, index * 2
        if old.hash_at(level, index) == new.hash_at(level, index):
            index += 1
    return index


def anchors_in(blocks: Sequence[bytes], *, node: str) -> list[Known]:
    """Every anchor of a node's log in the blocks of a directory that was verified, oldest first."""
    found: list[Known] = []
    for data in blocks:
        if b"anchor+json" not in data:
            continue
        block = parse_block(data)
        for envelope in block.transactions:
            if envelope.payloadType != Anchor.TYPE:
                continue
            anchor = decode(unb64(envelope.payload), Anchor, size_max=_ANCHOR_BYTES_MAX)
            if anchor.node == node:
                stated = parse_unverified_checkpoint(anchor.checkpoint.encode())
                source = f"the anchor in block {block.height} of the directory"
                found.append(Known(size=stated.size, root=stated.root.hex(), source=source))
    return found


def narrowing(fetch: Fetch) -> Fetch:
    """The same files, with a partial tile or bundle cut out of the full one where a log has dropped it (C2SP)."""

    def read(path: str) -> bytes:
        try:
            return fetch(path)
        except NotFoundError:
            full, partial, width = path.rpartition(".p/")
            if not partial or not width.isdecimal():
                raise
            return _cut(fetch(full), int(width), bundle=path.startswith("tile/entries/"))

    return read


def _cut(data: bytes, width: int, *, bundle: bool) -> bytes:
    if not bundle:
        return data[: 32 * width]
    at = 0
    for _ in range(width):
        at += 2 + int.from_bytes(data[at : at + 2], "big")
    return data[:at]
