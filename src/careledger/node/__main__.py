"""`python -m careledger.node FOLDER [--parent PID]`: one node, without the command line's imports.

With CARELEDGER_PROFILE naming a folder, the process leaves its profile there when it ends (thread CPU time; SIGUSR1
begins it anew, after preparations that are not to be counted). For `careledger bench --profile`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from careledger.errors import Error
from careledger.node.process import run_node


def _main() -> int:
    parser = argparse.ArgumentParser(prog="careledger.node")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parent", type=int)
    arguments = parser.parse_args()
    profiles = os.environ.get("CARELEDGER_PROFILE")
    run = run_node if profiles is None else _profiled(Path(profiles))
    try:
        run(arguments.folder, parent=arguments.parent)
    except Error as error:
        print(f"careledger: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _profiled(folder: Path) -> Callable[..., None]:
    import cProfile  # noqa: PLC0415 - a node that is not profiled doesn't need it

    profile = cProfile.Profile(time.thread_time)

    def begin_anew(*_: object) -> None:
        profile.disable()
        profile.clear()
        profile.enable()

    def run(node: Path, *, parent: int | None) -> None:
        signal.signal(signal.SIGUSR1, begin_anew)
        profile.enable()
        try:
            run_node(node, parent=parent)
        finally:
            profile.disable()
            profile.dump_stats(folder / f"{node.name}.prof")

    return run


if __name__ == "__main__":
    sys.exit(_main())
