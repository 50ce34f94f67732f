"""One node's CometBFT engine as a process of its own, told over stdin what to do: `python comet_node.py SPEC`.

SPEC is a JSON file. Commands are JSON lines on stdin, answers JSON lines on stdout with the command's id. A line
{"id": 0, "committed": height} tells of every block. The word in the file `SPEC.die` names the point at which the
process kills itself, as a power failure would.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from careledger.directory.engines.cometbft import CometbftEngine, EngineKeys, EngineRpc, EngineSettings
from careledger.directory.engines.cometbft.replica import EngineReplica, parse_engine_block, transaction_id
from careledger.directory.engines.cometbft.store import EngineStore
from careledger.directory.rules import Execution
from careledger.errors import Error
from careledger.node.reports import set_up_logging
from careledger.seal import Envelope, decode, encode

POINTS = ("mid-finalize", "end-of-finalize", "before-commit", "after-commit")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(wanted: Callable[[], str]) -> None:
    """Kill this process at the point that is wanted when it gets there with a transaction in hand."""

    def before(kind: Any, name: str, point: str, *, holds: Callable[..., bool] = lambda *_: True) -> None:
        original = getattr(kind, name)

        def wrapped(self: Any, *arguments: Any, **named: Any) -> Any:
            if wanted() == point and holds(self, *arguments):
                die()
            return original(self, *arguments, **named)

        setattr(kind, name, wrapped)

    def after(kind: Any, name: str, point: str, *, holds: Callable[..., bool]) -> None:
        original = getattr(kind, name)

        def wrapped(self: Any, *arguments: Any, **named: Any) -> Any:
            result = original(self, *arguments, **named)
            if wanted() == point and holds(self, result):
                die()
            return result

        setattr(kind, name, wrapped)

    before(Execution, "run", "mid-finalize")
    before(EngineReplica, "decide", "end-of-finalize", holds=lambda _, executed: bool(executed.ids))
    before(EngineStore, "add_commit", "before-commit", holds=lambda self, *_: self.decided_height() > 0)
    after(EngineReplica, "commit", "after-commit", holds=lambda _, executed: bool(executed.ids))


async def main(spec: dict[str, Any], death: Path, genesis: bytes) -> None:
    arm(lambda: death.read_text().strip() if death.exists() else "")
    say_lock = asyncio.Lock()

    def say(**line: Any) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    others = [EngineRpc(Path(one)) for one in spec["others"]]
    engine = CometbftEngine(
        Path(spec["folder"]),
        genesis=genesis,
        node=spec["node"],
        keys=EngineKeys(bytes.fromhex(spec["consensus"]), bytes.fromhex(spec["transport"])),
        settings=EngineSettings(moniker=spec["moniker"], listen=spec["listen"], peers=spec.get("peers", [])),
        binary=Path(spec["binary"]),
        sockets=Path(spec["sockets"]),
        send=[other.broadcast for other in others],
        on_commit=lambda: say(id=0, committed=engine.height),
    )
    stop = asyncio.Event()

    async def answer(command: dict[str, Any]) -> dict[str, Any]:
        what = command["do"]
        if what == "submit":
            envelopes = [decode(one.encode(), Envelope) for one in command["transactions"]]
            results = await engine.submit(envelopes, timeout_s=command.get("timeout_s", 10.0))
            return {"results": [list(result) for result in results]}
        if what == "health":
            health = engine.health()
            return {name: getattr(health, name) for name in health.__struct_fields__}
        if what == "hashes":
            found = engine.replica.store
            heights = range(1, engine.height + 1)
            return {"hashes": [(found.app_hash(height) or b"").hex() for height in heights]}
        if what == "known":
            return {"known": [engine.directory.identity(token) is not None for token in command["tokens"]]}
        if what == "rpc":
            return {"answer": await getattr(engine.rpc, command["call"])(*command.get("arguments", []))}
        if what == "history":
            blocks = [parse_engine_block(engine.block(height) or b"") for height in range(1, engine.height + 1)]
            ids = [transaction_id(encode(one)).hex() for block in blocks for one in block.transactions]
            return {"ids": ids, "resent": engine.outbox.resent}
        stop.set()
        return {}

    async def serve(line: bytes) -> None:
        command = json.loads(line)
        try:
            found = await answer(command)
        except Error as error:
            found = {"error": error.code, "message": error.message}
        async with say_lock:
            say(id=command["id"], **found)

    if "take_over" in spec and not engine.height:
        engine.replica.take_over(bytes.fromhex(one) for one in spec["take_over"])
    await engine.start()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks: set[asyncio.Task[None]] = set()

    async def listen() -> None:
        while line := await reader.readline():
            task = loop.create_task(serve(line))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        stop.set()

    listening = loop.create_task(listen())
    await stop.wait()
    await engine.stop()
    for other in others:
        await other.close()
    await asyncio.gather(*tasks, return_exceptions=True)
    listening.cancel()


if __name__ == "__main__":
    set_up_logging()
    place = Path(sys.argv[1])
    facts = json.loads(place.read_text())
    uvloop.run(main(facts, place.with_suffix(".die"), Path(facts["genesis"]).read_bytes()))
