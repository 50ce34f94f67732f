"""The block log as C2SP tile files, for anybody's software to check. Derived from the store; rebuilt when it differs.

Files are written aside and renamed, tiles before the checkpoint that needs them: at every moment the checkpoint on disk
can be verified from the tiles on disk.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from careledger.errors import UnavailableError
from careledger.tlog import CHECKPOINT_PATH, TILE_WIDTH, edge_tiles, entries_path

__all__ = ["LogFolder"]

_SIZES_KEPT: Final = 4
"""Checkpoints whose partial files stay, so that who reads one while the log grows still finds them."""


class LogFolder:
    """Writes one log's files below a folder. Raises UnavailableError `folder-failed` when the disk refuses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sizes: deque[int] = deque()

    def grow(self, files: Iterable[tuple[str, bytes]], checkpoint: bytes, *, size: int) -> None:
        """Write what growing to `size` entries changed, then the checkpoint; drop partial files of sizes long past."""
        for name, data in files:
            self._write(name, data)
        self._write(CHECKPOINT_PATH, checkpoint)
        self._sizes.append(size)
        while len(self._sizes) > _SIZES_KEPT:
            past = self._sizes.popleft()
            needed = {name for kept in self._sizes for name in _partial_files(kept)}
            for name in _partial_files(past):
                if name not in needed:
                    (self.path / name).unlink(missing_ok=True)

    def set_checkpoint(self, checkpoint: bytes) -> None:
        """The same tree with more cosignatures."""
        self._write(CHECKPOINT_PATH, checkpoint)

    def repair(self, files: Mapping[str, bytes], checkpoint: bytes, *, size: int) -> list[str]:
        """Write every file that is missing or differs, and the checkpoint; returns the names that were wrong."""
        wrong = [name for name, data in sorted(files.items()) if self._read(name) != data]
        for name in wrong:
            self._write(name, files[name])
        if self._read(CHECKPOINT_PATH) != checkpoint:
            self._write(CHECKPOINT_PATH, checkpoint)
            wrong.append(CHECKPOINT_PATH)
        self._sizes = deque([size])
        return wrong

    def _read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except OSError:
            return None

    def _write(self, name: str, data: bytes) -> None:
        target = self.path / name
        aside = target.with_name(target.name + ".new")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(data)
            os.replace(aside, target)
        except OSError as error:
            raise UnavailableError("folder-failed", f"the log file {target} can't be written: {error}") from error


def _partial_files(size: int) -> list[str]:
    """The partial tiles and the partial bundle of a log of this size."""
    names = [tile.path for tile in edge_tiles(size)]
    if size % TILE_WIDTH:
        names.append(entries_path(size // TILE_WIDTH, size % TILE_WIDTH))
    return names
