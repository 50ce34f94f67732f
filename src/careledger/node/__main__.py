"""`python -m careledger.node FOLDER [--parent PID]`: one node, without the command line's imports."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from careledger.errors import Error
from careledger.node.process import run_node


def _main() -> int:
    parser = argparse.ArgumentParser(prog="careledger.node")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parent", type=int)
    arguments = parser.parse_args()
    try:
        run_node(arguments.folder, parent=arguments.parent)
    except Error as error:
        print(f"careledger: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_main())
