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
from careledger.tlog import CHECKPOINT_PATH

__all__ = ["LogFolder"]

_PARTIALS_KEPT: Final = 4
"""Growth steps whose partial files stay: readers of the last few checkpoints still find theirs."""


class LogFolder:
    """Writes one log's files below a folder. Raises UnavailableError `folder-failed` when the disk refuses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partials: deque[list[str]] = deque()

    def grow(self, files: Iterable[tuple[str, bytes]], checkpoint: bytes) -> None:
        """Write what a growth step changed, then its checkpoint; drop partial files of steps long past."""
        partial: list[str] = []
        for name, data in files:
            self._write(name, data)
            if ".p/" in name:
                partial.append(name)
        self._write(CHECKPOINT_PATH, checkpoint)
        self._partials.append(partial)
        while len(self._partials) > _PARTIALS_KEPT:
            current = {name for step in list(self._partials)[1:] for name in step}
            for name in self._partials.popleft():
                if name not in current:
                    (self.path / name).unlink(missing_ok=True)

    def set_checkpoint(self, checkpoint: bytes) -> None:
        """The same tree with more cosignatures."""
        self._write(CHECKPOINT_PATH, checkpoint)

    def repair(self, files: Mapping[str, bytes], checkpoint: bytes | None) -> list[str]:
        """Write every file that is missing or differs, and the checkpoint; returns the names that were wrong."""
        wrong = [name for name, data in sorted(files.items()) if self._read(name) != data]
        for name in wrong:
            self._write(name, files[name])
        if checkpoint is not None and self._read(CHECKPOINT_PATH) != checkpoint:
            self._write(CHECKPOINT_PATH, checkpoint)
            wrong.append(CHECKPOINT_PATH)
        self._partials = deque([[name for name in files if ".p/" in name]])
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
