"""Files that hold keys, or what a key has signed: for their owner alone, and whole or not there.

For people's software, nodes and their engines alike.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["write_private"]


def write_private(path: Path, data: bytes) -> None:
    """Replace a file whole: mode 0600 from the first byte whatever the umask, synced, renamed, its folder synced.

    Durable when it returns. Raises OSError; the file that was there before then stays as it was.
    """
    aside = path.with_name(f".{path.name}.new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
