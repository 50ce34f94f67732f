"""A network of real validators under load, with faults in random order; then everything accepted must be there, once.

    python tests/net/faults.py --seconds 300 --seed 1

Faults: a node is killed at a random moment or at an exact point of a block, an engine is killed or stopped (SIGSTOP) or
a whole node is, two of four are down for a while, a directory is lost, alone or with CometBFT's data. The seed decides
which, when and to whom; the operating system's scheduling is not ours. Clients enrol people at every node and repeat
what was not answered, with the same bytes. The last line is JSON; the exit code is 0 only if nothing was lost, doubled
or different.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from careledger.directory.engines.cometbft.replica import transaction_id
from careledger.seal import encode

POINTS = ("mid-finalize", "end-of-finalize", "before-commit", "after-commit")


def load(name: str, path: Path) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


class Run:
    """Load, faults and what came of them."""

    def __init__(self, net: Any, comet_net: ModuleType, seed: int) -> None:
        self.net, self.comet_net, self.dice = net, comet_net, random.Random(seed)
        self.over = False
        self.accepted: dict[str, bytes] = {}
        self.faults: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.slowest = 0.0

    async def client(self, by: int) -> None:
        """Enrol one person after the other at one node; what isn't answered is asked again, with the same bytes."""
        while not self.over:
            token, envelope = self.net.enrolment(by)
            began = time.monotonic()
            while True:
                try:
                    code = (await self.net.nodes[by].submit(envelope, timeout_s=3.0))[0]
                except self.comet_net.NodeGoneError:
                    code = "gone"
                self.answers[code] += 1
                if code in ("ok", "exists", "directory-waits"):
                    self.accepted[token] = transaction_id(encode(envelope))
                if code in ("ok", "exists"):
                    self.slowest = max(self.slowest, time.monotonic() - began)
                    break
                if self.over and code not in ("directory-waits", "gone"):
                    break
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.05)

    async def play(self, seconds: float) -> None:
        faults: list[Callable[[], Awaitable[None]]] = [
            self.kill_node,
            self.kill_at_point,
            self.kill_engine,
            self.stop_engine,
            self.stop_node,
            self.two_down,
            self.lose_directory,
            self.lose_engine_data,
        ]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            fault = self.dice.choice(faults)
            self.faults[fault.__name__] += 1
            await fault()
            await asyncio.sleep(self.dice.uniform(0.2, 4.0))

    async def kill_node(self) -> None:
        node = self.dice.choice(self.net.nodes)
        await node.kill()
        await asyncio.sleep(self.dice.uniform(0, 2.0))
        await node.start()

    async def kill_at_point(self) -> None:
        node = self.dice.choice(self.net.nodes)
        node.die_at(self.dice.choice(POINTS))
        with contextlib.suppress(TimeoutError):
            await node.gone(timeout_s=10)
        node.live()
        if node.process.returncode is not None:
            await node.start()

    async def _engine(self, what: signal.Signals) -> int | None:
        try:
            pid = (await self.dice.choice(self.net.nodes).do("health"))["pid"]
        except self.comet_net.NodeGoneError:
            return None
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                self.comet_net.signal_engine(pid, what)
        return int(pid) if pid is not None else None

    async def kill_engine(self) -> None:
        await self._engine(signal.SIGKILL)

    async def stop_engine(self) -> None:
        pid = await self._engine(signal.SIGSTOP)
        await asyncio.sleep(self.dice.uniform(0.5, 6.0))
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                self.comet_net.signal_engine(pid, signal.SIGCONT)

    async def stop_node(self) -> None:
        node = self.dice.choice(self.net.nodes)
        node.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(self.dice.uniform(0.5, 6.0))
        node.process.send_signal(signal.SIGCONT)

    async def two_down(self) -> None:
        pair = self.dice.sample(self.net.nodes, 2)
        for node in pair:
            await node.kill()
        await asyncio.sleep(self.dice.uniform(1.0, 5.0))
        for node in pair:
            await node.start()

    async def lose_directory(self) -> None:
        node = self.dice.choice(self.net.nodes)
        await node.kill()
        remove_directory(node)
        await node.start()

    async def lose_engine_data(self) -> None:
        """As the message for damaged data says: all but what the validator has signed, and the directory with it."""
        node = self.dice.choice(self.net.nodes)
        await node.kill()
        remove_directory(node)
        remove_engine_data(node)
        await node.start()

    async def check(self) -> int:
        """Raises AssertionError; returns the height at which all agree."""
        for node in self.net.nodes:
            await node.until(lambda health: health["state"] == "running" and not health["outbox"], timeout_s=120)
        height: int = await self.net.agree(timeout_s=120)
        for node in self.net.nodes:
            history = (await node.do("history"))["ids"]
            assert len(history) == len(set(history)), "a transaction took effect twice"
            lost = [token for token, ident in self.accepted.items() if ident.hex() not in set(history)]
            assert not lost, f"{len(lost)} accepted transactions are in no block"
        return height


def remove_directory(node: Any) -> None:
    for file in Path(node.facts["folder"]).glob("directory.db*"):
        file.unlink()


def remove_engine_data(node: Any) -> None:
    data = Path(node.facts["folder"]) / "home" / "data"
    for entry in data.iterdir():
        if entry.name == "priv_validator_state.json":
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


async def run(folder: Path, *, seconds: float, seed: int) -> dict[str, Any]:
    comet_net = load("careledger_comet_net", Path(__file__).with_name("comet_net.py"))
    async with comet_net.running(folder) as net:
        await asyncio.gather(*(node.reached(1) for node in net.nodes))
        story = Run(net, comet_net, seed)
        clients = [asyncio.create_task(story.client(by)) for by in range(4)]
        await story.play(seconds)
        story.over = True
        await asyncio.wait_for(asyncio.gather(*clients), 180)
        height = await story.check()
        return {
            "seed": seed,
            "seconds": seconds,
            "faults": dict(sorted(story.faults.items())),
            "answers": dict(sorted(story.answers.items())),
            "accepted": len(story.accepted),
            "lost": 0,
            "doubled": 0,
            "height": height,
            "slowest_answer_s": round(story.slowest, 1),
        }


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=300)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--keep", type=Path, help="keep the nodes' files and logs here")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="careledger-faults-") as scratch:
        folder = chosen.keep or Path(scratch)
        if chosen.keep:
            folder.mkdir(parents=True)  # a new one: another network's files would be refused
        try:
            found = asyncio.run(run(folder, seconds=chosen.seconds, seed=chosen.seed))
        except (AssertionError, TimeoutError) as problem:
            where = traceback.extract_tb(problem.__traceback__)[-1]
            print(f"seed {chosen.seed}: {type(problem).__name__} in {where.name}: {problem}", file=sys.stderr)
            traceback.print_exception(problem)
            return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
