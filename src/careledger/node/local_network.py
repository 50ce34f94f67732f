"""A whole network on this machine: organisations, their nodes as separate processes on loopback, one genesis.

For the demo, the benchmark and the tests; each node is exactly what an operator would run. Clients are not this
module's business: it hands out the organisations' secrets, the genesis and the nodes' URLs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from careledger.directory import MemberPart, founding, network_of
from careledger.directory.parameters import Value
from careledger.errors import UnavailableError
from careledger.identity import NewIdentity, new_organisation, token_of
from careledger.node.settings import NodeFolder, create_node
from careledger.seal import unb64
from careledger.transport import Transport

__all__ = ["LOCAL_PARAMETERS", "Engine", "LocalNetwork", "LocalNode", "engine_parameters"]

Engine = Literal["embedded", "cometbft"]

LOCAL_PARAMETERS: Mapping[str, Value] = {"anchor_min_ms": 2_000, "requests_per_hour": 1_000_000_000}
"""Demo and tests anchor every 2 s (DESIGN 5.5), and read faster than any person."""
START_S = 60.0
STOP_S = 8.0


def engine_parameters(engine: Engine) -> dict[str, Value]:
    """The parameters that choose a network's engine; with the embedded one `founding` names a sequencer by itself."""
    return {"sequencer": ""} if engine == "cometbft" else {}


class LocalNode:
    """One node process: its folder, URL and token."""

    def __init__(self, folder: Path, url: str, token: str) -> None:
        self.folder = folder
        self.url = url
        self.token = token
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    def start(self, *, environment: Mapping[str, str] | None = None) -> None:
        """Start the process; its log goes to `node.log` in its folder."""
        with (self.folder / "node.log").open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - this interpreter, and a folder of ours
                [sys.executable, "-m", "careledger.node", str(self.folder), "--parent", str(os.getpid())],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(environment or {})},
            )

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        """SIGTERM, and wait; returns the exit code, -9 when it had to be killed."""
        self.terminate()
        return self.wait()

    def terminate(self) -> None:
        """SIGTERM, once: a second one would end the process before it has closed its files."""
        if self.process is not None:
            self.process.terminate()

    def wait(self) -> int:
        """Wait for the end of a node that was told to stop; returns the exit code, -9 when it had to be killed."""
        if self.process is None:
            return 0
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.process = None
        return code

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


class LocalNetwork:
    """`organisations` are the members' identities with their secrets, in the order of their nodes."""

    def __init__(self, folder: Path, genesis: bytes, organisations: list[NewIdentity], nodes: list[LocalNode]) -> None:
        self.folder = folder
        self.genesis = genesis
        self.network = network_of(genesis)
        self.organisations = organisations
        self.nodes = nodes

    @classmethod
    def found(
        cls,
        folder: Path,
        *,
        count: int = 4,
        now_ms: int,
        rand: Callable[[int], bytes] = os.urandom,
        parameters: Mapping[str, Value] | None = None,
        engine: Engine = "embedded",
    ) -> LocalNetwork:
        """Create `count` members with a node each in `folder/node-1` …; nothing is started yet."""
        folder.mkdir(parents=True, exist_ok=True)
        ports = _free_ports(2 * count)
        ports, peers = ports[:count], ports[count:]
        members: list[MemberPart] = []
        organisations: list[NewIdentity] = []
        nodes: list[LocalNode] = []
        for number, port in enumerate(ports, start=1):
            place, url = folder / f"node-{number}", f"http://127.0.0.1:{port}"
            consensus = f"127.0.0.1:{peers[number - 1]}" if engine == "cometbft" else ""
            part = create_node(place, url=url, host="127.0.0.1", port=port, rand=rand, consensus=consensus)
            token = token_of(unb64(part.inception.payload))
            organisation = new_organisation(nodes=[token], rand=rand)
            organisations.append(organisation)
            members.append(MemberPart(organisation.envelope, [part], ("licensor", "provider")))
            nodes.append(LocalNode(place, url, token))
        chosen = {**engine_parameters(engine), **LOCAL_PARAMETERS, **(parameters or {})}
        genesis = founding(members, time_ms=now_ms, nonce=rand(16), parameters=chosen)
        network = cls(folder, genesis, organisations, nodes)
        for node in nodes:
            NodeFolder(node.folder).join(genesis, network=network.network)
        (folder / "genesis.json").write_bytes(genesis)
        return network

    async def start(self) -> None:
        """Start every node and wait until all serve. Raises UnavailableError `not-started`, naming who doesn't."""
        for node in self.nodes:
            if not node.running:
                node.start()
        await self.wait_until_serving()

    async def wait_until_serving(self, *, timeout_s: float = START_S) -> None:
        """Wait until every running node answers /health with `serving`. Raises UnavailableError `not-started`."""
        transport = Transport()
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*(self._serving(transport, node) for node in self.nodes if node.running))
        except TimeoutError:
            raise UnavailableError(
                "not-started", f"a node in {self.folder} did not start within {timeout_s:g} s; see its node.log"
            ) from None
        finally:
            await transport.close()

    async def _serving(self, transport: Transport, node: LocalNode) -> None:
        while True:
            if not node.running:
                raise UnavailableError("not-started", f"{node.name} ended while starting; see {node.folder}/node.log")
            with contextlib.suppress(UnavailableError):
                answer = await transport.get(node.url, "/health", timeout_s=1.0)
                health = msgspec.json.decode(answer.body, type=dict[str, object])
                peers = health.get("peers_in_touch")
                if answer.status == 200 and isinstance(peers, list) and self._enough(len(peers)):
                    return
            await asyncio.sleep(0.01)

    def _enough(self, peers: int) -> bool:
        """Consent heads compared with as many as any threshold asks for, of those that run."""
        return peers >= min(sum(node.running for node in self.nodes) - 1, 2 * len(self.nodes) // 3)

    def stop(self) -> list[int]:
        """Stop every node; returns their exit codes."""
        for node in self.nodes:
            node.terminate()
        return [node.wait() for node in self.nodes]

    def kill(self) -> None:
        """SIGKILL every node."""
        for node in self.nodes:
            node.kill()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
