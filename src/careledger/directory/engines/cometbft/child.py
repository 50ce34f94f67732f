"""CometBFT as a child process: started so that it dies with the node, and one left behind by a dead node is ended.

Linux: PR_SET_PDEATHSIG and /proc. Elsewhere the pid file alone must do.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["end_stale", "spawn"]

_PR_SET_PDEATHSIG: Final = 1
_GONE_WAIT_S: Final = 5.0
_LINE_BYTES_MAX: Final = 1 << 20
"""A stack trace is one line of CometBFT's JSON log."""


async def spawn(binary: Path, home: Path) -> asyncio.subprocess.Process:
    """Start `cometbft node` on this home, with a death signal and no input; both outputs are pipes to be drained.

    Must be called in a thread that lives as long as the process: the signal comes when that thread ends.
    """
    return await asyncio.create_subprocess_exec(
        str(binary),
        "node",
        "--home",
        str(home),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES_MAX,
        start_new_session=True,
        preexec_fn=_death_signal(),
    )


def _death_signal() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died between fork and here, and no signal will come
            os._exit(1)

    return die_with_parent


def end_stale(pid_file: Path, home: Path) -> bool:
    """End a CometBFT that a former node left running on this home; says whether there was one.

    Only the process of the pid file, and only if its command line names this very home: pids are used again.
    """
    try:
        pid = int(pid_file.read_text(encoding="ascii"))
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return False
    if os.fsencode(home) not in arguments or b"node" not in arguments:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + _GONE_WAIT_S
    while _is_alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return True


def _is_alive(pid: int) -> bool:
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0] != "Z"
        )
    except (OSError, IndexError):
        return False
