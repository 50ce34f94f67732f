"""Differential replay: the same random transactions through both engines' code, and the same app hash after each block.

    python tests/replay/replay.py --transactions 1000000 --seed 1 [--python PATH --python PATH]

Each side is a subprocess with its own hash seed, time zone, locale, and (with two --python) interpreter: nothing of
these may reach the state. After some thousand transactions a new network begins. The last line is JSON; the exit code
is 0 only if there was no difference. A difference is printed with the seed that repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
A_NETWORK = 20_000
BATCH_MOST = 16
AHEAD = 24
"""Batches that are under way: their answers fit a pipe, so that nobody waits for somebody who waits."""

ENVIRONMENTS = {
    "embedded": {"PYTHONHASHSEED": "1", "TZ": "Pacific/Kiritimati", "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"},
    "cometbft": {"PYTHONHASHSEED": "4242", "TZ": "America/St_Johns", "LC_ALL": "C", "LANG": "C"},
}


class DifferentError(Exception):
    """The engines disagree."""


def load(name: str, path: Path) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


class Side:
    """One engine's process."""

    def __init__(self, which: str, python: str, folder: Path) -> None:
        self.which = which
        self.process = subprocess.Popen(
            [python, str(HERE / "side.py"), which, str(folder)],
            env={**os.environ, **ENVIRONMENTS[which]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, **line: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise DifferentError(f"the {self.which} side ended with exit code {self.process.wait(30)}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Tally:
    def __init__(self) -> None:
        self.transactions = self.blocks = self.networks = 0
        self.codes: Counter[str] = Counter()
        self.last = ""


def play(
    transactions: int,
    *,
    seed: int,
    a_network: int = A_NETWORK,
    pythons: tuple[str, str] = (sys.executable, sys.executable),
    restarts: float = 0.002,
) -> Tally:
    """Throw this many transactions at both. Raises DifferentError at the first block that differs."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="careledger-replay-") as folder:
        sides = [Side(which, python, Path(folder)) for which, python in zip(ENVIRONMENTS, pythons, strict=True)]
        try:
            while tally.transactions < transactions:
                most = min(a_network, transactions - tally.transactions)
                _play_network(sides, f"{seed}/{tally.networks}", most, tally, restarts)
                tally.networks += 1
        finally:
            for side in sides:
                side.close()
    return tally


def _play_network(sides: list[Side], seed: str, most: int, tally: Tally, restarts: float) -> None:
    worlds = load("careledger_directory_world", HERE.parent / "unit" / "directory" / "conftest.py")
    dice_module = load("careledger_replay_dice", HERE / "dice.py")
    world = worlds.World(4, seed=f"replay {seed}", validates=True, heartbeat_ms=100)
    dice, nanos = dice_module.Dice(world, seed), random.Random(f"nanos {seed}")
    start = {
        "genesis": world.genesis.hex(),
        "time": world.now_ms,
        "seed": seed,
        "restarts": restarts,
        "node": world.parties[0].node,
        "log_key": world.parties[0].log_key.seed.hex(),
        "witness": world.parties[0].witness_key.seed.hex(),
        "other": world.parties[1].node,
        "other_witness": world.parties[1].witness_key.seed.hex(),
    }
    for side in sides:
        side.tell(**start)
    world.directory.apply(world.block(time_ms=world.now_ms))
    under_way: deque[int] = deque()
    thrown = 0
    while thrown < most or under_way:
        if thrown < most:
            time_ms, batch = dice.batch(min(BATCH_MOST, most - thrown))
            line = {"time": time_ms, "nanos": nanos.randrange(1_000_000), "transactions": [one.hex() for one in batch]}
            for side in sides:
                side.tell(**line)
            thrown += len(batch)
            under_way.append(len(batch))
        if len(under_way) > AHEAD or thrown >= most:
            _compare(sides, seed, tally)
            tally.transactions += under_way.popleft()
            tally.blocks += 1
    if tally.last != world.directory.app_hash().hex():
        raise DifferentError(f"seed {seed}: the dice's own directory has another app hash at its end")


def _compare(sides: list[Side], seed: str, tally: Tally) -> None:
    one, other = (side.hear() for side in sides)
    if one != other:
        raise DifferentError(f"seed {seed}, height {one['height']}: {one} is not {other}")
    tally.codes.update(one["codes"])
    tally.last = one["app_hash"]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--transactions", type=int, default=100_000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--python", action="append", default=[], help="an interpreter for one side; at most two")
    chosen = options.parse_args()
    pythons = (*chosen.python, sys.executable, sys.executable)[:2]
    began = time.monotonic()
    try:
        tally = play(chosen.transactions, seed=chosen.seed, pythons=pythons)
    except DifferentError as difference:
        print(difference, file=sys.stderr)
        print(json.dumps({"seed": chosen.seed, "differences": 1}))
        return 1
    seconds = time.monotonic() - began
    print(
        json.dumps(
            {
                "seed": chosen.seed,
                "transactions": tally.transactions,
                "accepted": tally.codes["ok"],
                "reason_codes": len(tally.codes),
                "blocks": tally.blocks,
                "networks": tally.networks,
                "differences": 0,
                "seconds": round(seconds, 1),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
