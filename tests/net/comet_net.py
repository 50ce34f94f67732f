"""Networks of real CometBFT validators on loopback, a process for each node, for tests and the fault run."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from careledger.directory.engines.cometbft.config import peer_id
from careledger.directory.engines.cometbft.install import install_engine
from careledger.seal import Envelope, SigningKey, encode

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "engine"
NODE = Path(__file__).with_name("comet_node.py")


def load(name: str, path: Path) -> ModuleType:
    """A module of the tests by its file, once."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def binary() -> Path:
    """CometBFT, built by `engine install`'s own function if it hasn't been; two test runs don't build it twice."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return install_engine(cache=CACHE)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class NodeGoneError(Exception):
    """The process ended before it answered."""


class Node:
    """One node's process, and the commands it takes."""

    def __init__(self, spec: Path) -> None:
        self.spec = spec
        self.facts: dict[str, Any] = json.loads(spec.read_text())
        self.process: asyncio.subprocess.Process | None = None
        self.height = 0
        self._news = asyncio.Event()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._count = 0
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.height = 0
        log = self.spec.with_suffix(".log").open("ab")
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(NODE),
            str(self.spec),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            limit=1 << 26,
        )
        log.close()
        self._reading = asyncio.get_running_loop().create_task(self._read(self.process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while (line := await process.stdout.readline()).endswith(b"\n"):  # a half line is its last
            answer = json.loads(line)
            if answer["id"] == 0:
                self.height = answer["committed"]
                self._news.set()
                self._news = asyncio.Event()
            elif (future := self._waiting.pop(answer["id"], None)) is not None and not future.done():
                future.set_result(answer)
        await process.wait()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(NodeGoneError(self.facts["moniker"]))
        self._waiting.clear()

    async def do(self, what: str, **more: Any) -> dict[str, Any]:
        assert self.process is not None and self.process.stdin is not None
        if self.process.returncode is not None:
            raise NodeGoneError(self.facts["moniker"])
        self._count += 1
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[self._count] = future
        try:
            self.process.stdin.write(json.dumps({"id": self._count, "do": what, **more}).encode() + b"\n")
            await self.process.stdin.drain()
        except ConnectionError:
            self._waiting.pop(self._count, None)
            raise NodeGoneError(self.facts["moniker"]) from None
        return await future

    async def submit(self, *envelopes: Envelope, timeout_s: float = 15.0) -> list[str]:
        """The codes of these transactions; one code if the submission as a whole was refused."""
        answer = await self.do("submit", transactions=[encode(one).decode() for one in envelopes], timeout_s=timeout_s)
        return [answer["error"]] if "error" in answer else [result[0] for result in answer["results"]]

    async def reached(self, height: int, *, timeout_s: float = 90.0) -> None:
        async with asyncio.timeout(timeout_s):
            while self.height < height:
                await self._news.wait()

    async def until(self, what: Callable[[dict[str, Any]], bool], *, timeout_s: float = 90.0) -> dict[str, Any]:
        """The first health of which this holds."""
        async with asyncio.timeout(timeout_s):
            while True:
                health = await self.do("health")
                if what(health):
                    return health
                await asyncio.sleep(0.05)

    def die_at(self, point: str) -> None:
        self.spec.with_suffix(".die").write_text(point)

    def live(self) -> None:
        self.spec.with_suffix(".die").unlink(missing_ok=True)

    async def gone(self, *, timeout_s: float = 90.0) -> int:
        """Wait for the process' end."""
        assert self.process is not None and self._reading is not None
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(self._reading)
            return await self.process.wait()

    async def kill(self) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.gone()

    async def stop(self) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            with contextlib.suppress(NodeGoneError):
                await self.do("stop")
        return await self.gone()


class Net:
    """Some members with one node each, all of them validators."""

    def __init__(self, world: Any, nodes: list[Node]) -> None:
        self.world, self.nodes = world, nodes

    def enrolment(self, by: int) -> tuple[str, Envelope]:
        """A fresh person's token, and the transaction that brings it in by that member's node."""
        person = self.world.person()
        return person.token, self.world.enrol(person, by)

    async def agree(self, nodes: Sequence[Node] | None = None, *, timeout_s: float = 90.0) -> int:
        """Wait until all of these stand at one height, and compare every app hash; returns the height."""
        chosen = list(nodes or self.nodes)
        async with asyncio.timeout(timeout_s):
            while True:
                hashes = [(await node.do("hashes"))["hashes"] for node in chosen]
                shortest = min(len(one) for one in hashes)
                for one in hashes:
                    assert one[:shortest] == hashes[0][:shortest], "two nodes have different app hashes at one height"
                if all(len(one) == shortest for one in hashes) and shortest:
                    return shortest
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def running(
    folder: Path, *, members: int = 4, history: Callable[[Any], list[bytes]] | None = None
) -> AsyncIterator[Net]:
    """A network in this folder; its sockets are in a short one elsewhere. Everything ends with it.

    `history`: makes, from the world, blocks of another engine that this network takes over.
    """
    conftest = load("careledger_directory_world", ROOT / "tests" / "unit" / "directory" / "conftest.py")
    program = binary()
    world = conftest.World(members, seed=f"net {members}", validates=False)
    transports = [world.rand(32) for _ in range(members)]
    ports = [free_port() for _ in range(members)]
    world = conftest.World(
        members,
        seed=f"net {members}",
        validates=True,
        peers=[
            f"{peer_id(SigningKey(seed).public)}@127.0.0.1:{port}" for seed, port in zip(transports, ports, strict=True)
        ],
    )
    blocks = history(world) if history else []
    genesis = folder / "genesis.json"
    genesis.write_bytes(world.genesis)
    with tempfile.TemporaryDirectory(prefix="cl-") as short:
        sockets = [Path(short) / str(index) for index in range(members)]
        nodes = []
        for index, party in enumerate(world.parties):
            spec = folder / f"node-{index}.json"
            facts: dict[str, Any] = {
                "folder": str(folder / f"node-{index}"),
                "genesis": str(genesis),
                "node": party.node,
                "moniker": f"node-{index}",
                "consensus": party.consensus_seed.hex(),
                "transport": transports[index].hex(),
                "listen": f"127.0.0.1:{ports[index]}",
                "binary": str(program),
                "sockets": str(sockets[index]),
                "others": [str(one / "rpc.sock") for number, one in enumerate(sockets) if number != index],
            }
            if blocks:
                facts["take_over"] = [one.hex() for one in blocks]
            spec.write_text(json.dumps(facts))
            nodes.append(Node(spec))
        net = Net(world, nodes)
        try:
            await asyncio.gather(*(node.start() for node in nodes))
            yield net
        finally:
            for node in nodes:
                if node.process is not None and node.process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        node.process.send_signal(signal.SIGCONT)
                    await node.kill()


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody has waited for doesn't."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return not stat.rpartition(")")[2].lstrip().startswith("Z")


def wait_gone(pid: int, *, timeout_s: float = 5.0) -> None:
    end = time.monotonic() + timeout_s
    while is_alive(pid):
        assert time.monotonic() < end, f"process {pid} is still there"
        time.sleep(0.01)


def signal_engine(pid: int, what: signal.Signals) -> None:
    os.kill(pid, what)
