"""Make vectors/directory/light-blocks.json: what four CometBFT v0.38.25 validators decided, as its RPC shows it.

    python tests/vectors/make_light_blocks.py COMETBFT_BINARY

Runs a network on loopback for some seconds: a person is enrolled, the fourth member's node gives up its consensus key
(so that the set of validators changes), another person is enrolled. Times and signatures differ at every run.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "directory"))

from careledger.directory.engines.cometbft.application import Application
from careledger.directory.engines.cometbft.config import (
    EngineKeys,
    EngineSettings,
    genesis_document,
    peer_id,
    write_home,
)
from careledger.directory.engines.cometbft.replica import EngineReplica
from careledger.directory.engines.cometbft.server import AbciServer
from careledger.seal import SigningKey, b64, encode
from conftest import World

PLACE = Path(__file__).parents[2] / "vectors" / "directory" / "light-blocks.json"


async def rpc(path: Path, method: str, **arguments: str) -> Any:
    reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 24)
    query = "&".join(f"{name}={value}" for name, value in arguments.items())
    writer.write(f"GET /{method}?{query} HTTP/1.0\r\nHost: rpc\r\n\r\n".encode())
    answer = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
    writer.close()
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["result"]


class Node:
    def __init__(self, place: Path, world: World, number: int, port: int) -> None:
        self.place, self.world, self.number, self.port = place, world, number, port
        self.transport = bytes([number + 1]) * 32
        self.peer = f"{peer_id(SigningKey(self.transport).public)}@127.0.0.1:{port}"
        place.mkdir(parents=True)
        self.replica = EngineReplica(place / "directory.db", genesis=world.genesis)
        self.server = AbciServer(place / "abci.sock", Application(self.replica).answer)
        self.rpc = place / "rpc.sock"

    async def start(self, binary: str, peers: list[str]) -> None:
        await self.server.start()
        write_home(
            self.place / "home",
            settings=EngineSettings(f"node-{self.number}", f"127.0.0.1:{self.port}", peers),
            keys=EngineKeys(self.world.parties[self.number].consensus_seed, self.transport),
            genesis_json=genesis_document(self.world.genesis),
            app_socket=self.place / "abci.sock",
            rpc_socket=self.rpc,
        )
        log = (self.place / "engine.log").open("wb")
        self.process = await asyncio.create_subprocess_exec(
            binary, "--home", str(self.place / "home"), "node", stdout=log, stderr=log
        )

    async def stop(self) -> None:
        self.process.terminate()
        await self.process.wait()
        await self.server.close()
        self.replica.close()


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


async def main(binary: str) -> None:
    world = World(4, validates=True)
    with tempfile.TemporaryDirectory(prefix="cl-") as scratch:
        nodes = [Node(Path(scratch) / f"n{at}", world, at, port) for at, port in enumerate(free_ports(4))]
        for node in nodes:
            await node.start(binary, [other.peer for other in nodes if other is not node])
        directory = nodes[0].replica.directory

        async def until(height: int) -> None:
            while directory.height < height:  # noqa: ASYNC110 - nothing here tells of a commit
                await asyncio.sleep(0.05)

        async def submit(envelope: Any) -> None:
            result = await rpc(nodes[0].rpc, "broadcast_tx_sync", tx="0x" + encode(envelope).hex())
            assert result["code"] == 0, result
            await until(directory.height + 2)

        await until(1)
        world.now_ms = time.time_ns() // 1_000_000
        await submit(world.enrol(world.person()))
        plain = msgspec.structs.replace(world.parties[3].entry, consensus=msgspec.UNSET)
        await submit(world.nodes(3, [plain]))
        known = world.person()
        await submit(world.enrol(known))
        await submit(world.enrol(world.person()))
        top = directory.height
        blocks = []
        for height in range(1, top + 1):
            signed = (await rpc(nodes[0].rpc, "commit", height=str(height)))["signed_header"]
            found = (await rpc(nodes[0].rpc, "validators", height=str(height), per_page="100"))["validators"]
            blocks.append({"signed_header": signed, "validators": found})
        kind, ident = "identity", known.token
        proof = directory.prove_state(kind, ident, height=top - 1)
        await asyncio.gather(*(node.stop() for node in nodes))
    document = {
        "source": "careledger, from the answers of CometBFT v0.38.25 to /commit and /validators",
        "section": "docs/spec/directory.md section 8",
        "how_made": "made with tests/vectors/make_light_blocks.py: what four validators on loopback decided; times and "
        "signatures differ at every run",
        "licence": "Apache-2.0, part of careledger",
        "genesis": b64(world.genesis),
        "ident": ident,
        "proof": msgspec.json.decode(encode(proof)),
        "vectors": blocks,
    }
    PLACE.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
