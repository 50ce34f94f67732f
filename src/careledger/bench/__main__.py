"""`python -m careledger.bench`: the benchmarks without the command line around them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from careledger.bench.running import NAMES, run
from careledger.errors import Error


def _main() -> int:
    parser = argparse.ArgumentParser(prog="careledger.bench")
    parser.add_argument("--json", action="store_true", help="the last line on stdout is one JSON object")
    parser.add_argument("--only", action="append", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--data", type=Path, help="a folder of FHIR bundles to import instead of generated ones")
    parser.add_argument("--folder", type=Path, help="where networks are kept while they run")
    parser.add_argument("--profile", action="store_true", help="profile client and nodes; figures are slower then")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only to see that everything runs")
    arguments = parser.parse_args()
    try:
        found = run(
            arguments.only, folder=arguments.folder, data=arguments.data, profile=arguments.profile,
            quick=arguments.quick, report=lambda line: print(line, file=sys.stderr, flush=True),
        )  # fmt: skip
    except Error as error:
        print(f"careledger: {error}", file=sys.stderr)
        return error.exit_code
    for name, rows in found.get("profile", {}).items():
        print(f"\n{name}: own ms, total ms, calls, function", file=sys.stderr)
        for row in rows:
            line = f"{row['own_ms']:9.1f} {row['total_ms']:9.1f} {row['calls']:8} {row['function']}"
            print(line, file=sys.stderr)
    print(json.dumps(found) if arguments.json else json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(_main())
