"""The log as anyone may read it: a folder of C2SP tiles, entry bundles and one checkpoint, derived from the store.

Nothing here is a commit point: files are written without a sync, tiles before the checkpoint that covers them, and
whatever a crash leaves is mended at start from the store. Every file appears whole (written aside, then renamed).
Old partial tiles stay until the checkpoint that makes them superfluous is in place.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from careledger.access import leaf_of_commitment
from careledger.custody.store import KINDS, Store
from careledger.errors import Error, NotFoundError, VerificationError
from careledger.tlog import (
    EMPTY_ROOT,
    BatchProofs,
    LogTail,
    TileReader,
    Verifier,
    open_checkpoint,
    verified_bundles,
)

__all__ = ["LogFiles", "read_log_file"]

_CHUNK = 256 * 16
_PATH = re.compile(r"checkpoint|tile/(?:entries|[0-9]{1,2})(?:/x?[0-9]{3}){1,7}(?:\.p/[0-9]{1,3})?")
_CHECKED_AT_START = 1 << 18
"""Entries whose files are read again at start: more than an operating system can have left unwritten when it stopped,
and half a second of hashing. Older damage is for `careledger verify` to find, and mended once the folder is deleted."""


def read_log_file(folder: Path, path: str) -> bytes:
    """The bytes of one published file. Raises NotFoundError; opens nothing that is not named like a C2SP tile."""
    if _PATH.fullmatch(path) is None:
        raise NotFoundError("not-found", "no such file in this log")
    try:
        return (folder / path).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise NotFoundError("not-found", "no such file in this log") from None


class LogFiles:
    """The published folder of one log."""

    def __init__(self, folder: Path, store: Store, *, verifier: Verifier) -> None:
        """`verifier` is the log's own key: a checkpoint that it did not sign is a damaged file, not a promise.

        Raises VerificationError `rolled-back`: the store has fewer entries than the log promised.
        """
        self.folder = folder
        self._store = store
        self._verifier = verifier
        folder.mkdir(parents=True, exist_ok=True)
        self._superfluous: list[Path] = []
        self._reload(store.log_state()[0])

    def _reload(self, size: int) -> None:
        """Begin anew from the published files, with the store's entries up to `size` added."""
        self._reader: TileReader | None = None
        self.tail = self._restore()
        self._waiting: deque[tuple[list[bytes], BatchProofs | None]] = deque()
        self._size = self.tail.size
        for leaves in self._stored(self.tail.size, size):
            self.add(leaves)

    @property
    def size(self) -> int:
        """Entries covered by the files after the next `write`."""
        return self._size

    def _stored(self, start: int, end: int) -> Iterator[list[bytes]]:
        for at in range(start, end, _CHUNK):
            rows = self._store.bodies(at, min(at + _CHUNK, end))
            yield [leaf_of_commitment(KINDS[kind], digest) for _, kind, digest, _, _ in rows]

    def _restore(self) -> LogTail:
        """The tail at the published checkpoint if its files are whole, else an empty one (all is built again)."""
        size, _ = self._store.log_state()
        try:
            published = open_checkpoint(self.read("checkpoint"), verifier=self._verifier)
        except Error:
            return LogTail()
        if published.size > size:
            raise VerificationError(
                "rolled-back",
                f"the published log has {published.size} entries and the store only {size}: an older copy of the "
                "store was put back; restore the newest one, or ask the other members for what is missing",
            )
        try:
            start = max(0, published.size - _CHECKED_AT_START)
            for _ in verified_bundles(self.read, size=published.size, root=published.root, start=start):
                pass
            return LogTail.restore(self.read, size=published.size, root=published.root)
        except Error:
            return LogTail()

    def read(self, path: str) -> bytes:
        """One file of the log by its C2SP path. Raises NotFoundError."""
        return read_log_file(self.folder, path)

    def add(self, leaves: list[bytes], proofs: BatchProofs | None = None) -> None:
        """Entries that were committed, in order; written by the next `write`. `proofs` has the hashes they gave."""
        self._waiting.append((leaves, proofs))
        self._size += len(leaves)

    def write(self) -> tuple[int, bytes]:
        """Write tiles and bundles for everything added. Returns the (size, root) a checkpoint may now be published for.

        Raises OSError (disk full); what was added is read from the store again, and a repeated call goes on.
        """
        added = self.size
        try:
            while self._waiting:
                before = self.tail.size
                while self._waiting and self.tail.size - before < _CHUNK:
                    self.tail.take(*self._waiting.popleft())
                for path, data in self.tail.changed_files():
                    self._replace(path, data)
                    if ".p/" not in path:
                        self._superfluous.append(self.folder / f"{path}.p")
        except OSError:
            # Not up to what the store has by now: a commit may be under way whose leaves are still to be added.
            self._reload(added)
            raise
        return self.tail.size, self.tail.root() if self.tail.size else EMPTY_ROOT

    def publish(self, checkpoint: bytes) -> None:
        """Put the signed (and cosigned) checkpoint of what `write` returned in place. Raises OSError."""
        self._replace("checkpoint", checkpoint)
        for folder in self._superfluous:
            shutil.rmtree(folder, ignore_errors=True)
        self._superfluous.clear()

    def reader(self) -> TileReader:
        """Proofs and entries of the written files. While none is added it is the same reader, with what it checked."""
        if self._reader is None or self._reader.size != self.tail.size:
            root = self.tail.root() if self.tail.size else EMPTY_ROOT
            self._reader = TileReader(self.read, size=self.tail.size, root=root)
        return self._reader

    def _replace(self, path: str, data: bytes) -> None:
        target = self.folder / path
        aside = target.with_name(f".{target.name}.new")
        try:
            aside.write_bytes(data)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(data)
        os.replace(aside, target)
