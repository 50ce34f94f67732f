"""What lies at a path, from its file names and first bytes: so that `careledger verify PATH` needs no options.

Pure: the caller lists names and reads files. Guesses nothing but the form; verifying decides whether it is genuine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, Literal, TypeAlias

from careledger.errors import Error
from careledger.tlog import CHECKPOINT_PATH, parse_unverified_checkpoint
from careledger.verify.export import MAGIC, PROOFS

__all__ = ["Form", "describe_file", "describe_folder"]

Form: TypeAlias = Literal[
    "log", "directory", "node", "network", "export", "receipt", "directory-proof", "checkpoint", "tlog-proof", "unknown"
]
"""`log`: a node's log folder. `directory`: the block log's. `node`: a node's folder. `network`: a folder of nodes'
folders. `export`: an export's folder or its proof file. The rest are single files."""

HEAD_BYTES: Final = 4096
"""As much of a file as `describe_file` looks at."""


def describe_folder(names: Collection[str], read: Callable[[str], bytes]) -> Form:
    """The form of a folder with these names (files and folders, no paths); `read` gives a file's bytes by name.

    `read` may raise Error or OSError for what can't be read; the folder is then what its names say.
    """
    if PROOFS in names:
        return "export"
    if "node.json" in names or ("log" in names and "log.vkey" in names):
        return "node"
    if CHECKPOINT_PATH in names:
        try:
            origin = parse_unverified_checkpoint(read(CHECKPOINT_PATH)).origin
        except (Error, OSError):
            return "log"
        return "directory" if origin.endswith("/directory") else "log"
    if "genesis.json" in names or any(name.startswith("node-") for name in names):
        return "network"
    return "unknown"


def describe_file(head: bytes) -> Form:
    """The form of a single file, from its first HEAD_BYTES bytes or all of it."""
    if head.startswith(MAGIC):
        return "export"
    if head.startswith(b"c2sp.org/tlog-proof@v1\n"):
        return "tlog-proof"
    if head.startswith(b"\x93\xc4\x20"):
        # MessagePack: an array of three, the first of them 32 bytes.
        return "receipt"
    if head.startswith(b'{"blocks":') or (head.lstrip()[:1] == b"{" and b'"proof"' in head):
        return "directory-proof"
    if b"\n\n\xe2\x80\x94 " in head:
        return "checkpoint"
    return "unknown"
