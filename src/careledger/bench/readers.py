"""A client process with several readers: `python -m careledger.bench.readers`, driven by opening.ManyReaders.

The first line on stdin is the setting, each further one a number of seconds to open records for; one line of JSON
answers each. Readers are people of one organisation, with a connection pool in common as in one application.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import time
from typing import Any

import msgspec

from careledger.bench.world import now_ms
from careledger.client import HeldKeys, Network, Reader, decode_staff_pass, open_staff_pass
from careledger.identity import DeviceSecrets
from careledger.seal import unb64
from careledger.transport import Transport


class _Setting(msgspec.Struct):
    network: str
    subject: str
    records: list[str]
    readers: list[dict[str, str]]


async def _readers(setting: _Setting, network: Network) -> list[Reader]:
    found = []
    for one in setting.readers:
        device = DeviceSecrets(sequence=0, sign=unb64(one["sign"]), seal=unb64(one["seal"]))
        keys = HeldKeys(token=one["token"], kind="person", device=device)
        staff = await open_staff_pass(decode_staff_pass(unb64(one["pass"])), keys, network=network)
        found.append(Reader(network, keys, staff=staff))
    return found


async def _open_for(seconds: float, readers: list[Reader], subject: str, records: list[bytes]) -> dict[str, Any]:
    took: list[float] = []
    ends = time.perf_counter() + seconds

    async def one(reader: Reader) -> None:
        while (started := time.perf_counter()) < ends:
            opened = await reader.open(subject, [random.choice(records)], purpose="TREAT")  # noqa: S311 - not a secret
            assert len(opened.records) == 1, opened.failed
            took.append((time.perf_counter() - started) * 1000)

    cpu, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*(one(reader) for reader in readers))
    return {
        "opens": len(took),
        "seconds": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu,
        "took_ms": [round(one, 3) for one in took],
    }


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    setting = msgspec.json.decode(await loop.run_in_executor(None, sys.stdin.readline), type=_Setting)
    wire = Transport()
    network = Network.from_file(unb64(setting.network), wire=wire, now_ms=now_ms, rand=os.urandom)
    readers = await _readers(setting, network)
    records = [bytes.fromhex(record) for record in setting.records]
    for reader in readers:
        await reader.open(setting.subject, records[:1], purpose="TREAT")
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        answer = await _open_for(float(line), readers, setting.subject, records)
        print(msgspec.json.encode(answer).decode(), flush=True)
    await wire.close()


def _main() -> None:
    import uvloop  # noqa: PLC0415

    uvloop.run(_serve())


if __name__ == "__main__":
    _main()
