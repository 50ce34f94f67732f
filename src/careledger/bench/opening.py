"""Opening records as a clinician's software does: t receipts verified, and content keys, shares and ephemerals fresh
for every open. Parsed public keys, the reader's own long-lived keys and the known consent head are held.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import msgspec

from careledger.bench.figures import Goal, figure, rate
from careledger.bench.sizes import Sizes
from careledger.bench.stage import Kept, Stage
from careledger.client import Reader
from careledger.seal import b64

_choices = random.Random(4)  # noqa: S311 - which record is opened next is no secret

__all__ = ["ManyReaders", "Opens", "OpensAt", "open_repeatedly"]


async def open_repeatedly(reader: Reader, subject: str, choices: Sequence[Sequence[bytes]]) -> list[float]:
    """Open each choice of records in turn; returns milliseconds for each. Raises when a record did not open."""
    took = []
    for records in choices:
        started = time.perf_counter()
        opened = await reader.open(subject, records, purpose="TREAT")
        took.append((time.perf_counter() - started) * 1000)
        assert len(opened.records) == len(records), opened.failed
    return took


class Opens:
    """One reader that opens `records` at a time, from one submission, or each from a submission of its own."""

    def __init__(self, name: str, goal: Goal, *, records: int = 1, apart: bool = False) -> None:
        self.name = name
        self.goal = goal
        self._records = records
        self._apart = apart
        self._rounds: list[list[float]] = []
        self._client_cpu: list[float] = []
        self._node_cpu: list[float] = []
        self._kept: Kept | None = None

    async def prepare(self, stage: Stage, sizes: Sizes) -> None:
        self._kept = kept = await stage.patient()
        if self._apart:
            await stage.store(kept, sizes.many, submission=1)
        elif self._records > 1:
            await stage.store(kept, sizes.many, submission=200)
        else:
            await stage.store(kept, sizes.stored)
        await open_repeatedly(stage.reader.reader, kept.subject, self._choices(kept, sizes, 5))

    def _choices(self, kept: Kept, sizes: Sizes, count: int) -> list[list[bytes]]:
        if self._records > 1:
            return [kept.records[: sizes.many]] * count
        return [[record] for record in _choices.choices(kept.records, k=count)]

    async def round(self, stage: Stage, sizes: Sizes) -> None:
        assert self._kept is not None
        choices = self._choices(self._kept, sizes, sizes.opens if self._records == 1 else sizes.large_opens)
        nodes, client = stage.node_cpu_s(), time.process_time()
        self._rounds.append(await open_repeatedly(stage.reader.reader, self._kept.subject, choices))
        self._client_cpu.append((time.process_time() - client) / len(choices) * 1000)
        self._node_cpu.append((stage.node_cpu_s() - nodes) / len(choices) * 1000)

    def result(self) -> dict[str, Any]:
        return figure(
            self._rounds,
            unit="ms",
            goal=self.goal,
            client_cpu_ms=round(median(self._client_cpu), 2),
            all_nodes_cpu_ms=round(median(self._node_cpu), 2),
        )


class OpensAt:
    """Opening one record where few are stored, and where many are: two networks, their rounds interleaved."""

    name = "open_1_at_50000"
    goal = Goal("<= 1.2 x open_1 at 1,000 stored records", 1.2)

    def __init__(self) -> None:
        self._small: list[list[float]] = []
        self._large: list[list[float]] = []

    async def compare(self, small: tuple[Stage, Kept], large: tuple[Stage, Kept], sizes: Sizes) -> None:
        """Three rounds, each of both, in alternating order."""
        for at in range(sizes.rounds):
            pair = [(small, self._small), (large, self._large)]
            for (stage, kept), rounds in pair if at % 2 else reversed(pair):
                choices = [[record] for record in _choices.choices(kept.records, k=sizes.opens)]
                await open_repeatedly(stage.reader.reader, kept.subject, choices[:10])
                rounds.append(await open_repeatedly(stage.reader.reader, kept.subject, choices))

    def result(self, *, stored: tuple[int, int]) -> dict[str, Any]:
        few = figure(self._small, unit="ms", goal=self.goal)
        many = figure(self._large, unit="ms", goal=self.goal)
        ratio = round(many["p50"] / few["p50"], 3)
        return {
            "value": ratio,
            "unit": "ratio of p50",
            "p50": many["p50"],
            "p99": many["p99"],
            "goal": self.goal.text,
            "met": self.goal.met(ratio, None),
            "rounds": many["rounds"],
            "at_few": {"stored": stored[0], "p50": few["p50"], "p99": few["p99"], "rounds": few["rounds"]},
            "stored": stored[1],
        }


class ManyReaders:
    """Sixteen readers in two client processes, as fast as they can."""

    name = "opens_per_s"
    goal = Goal(">= 400", 400, at_least=True)

    def __init__(self) -> None:
        self._processes: list[asyncio.subprocess.Process] = []
        self._rates: list[float] = []
        self._latencies: list[list[float]] = []
        self._client_cpu: list[float] = []
        self._node_cpu: list[float] = []

    async def prepare(self, stage: Stage, sizes: Sizes) -> None:
        kept = await stage.patient()
        await stage.store(kept, sizes.stored)
        readers = await stage.readers(sizes.readers)
        per_process = sizes.readers // sizes.reader_processes
        for at in range(sizes.reader_processes):
            setting = {
                "network": b64(stage.network_file),
                "subject": kept.subject,
                "records": [record.hex() for record in kept.records],
                "readers": readers[at * per_process : (at + 1) * per_process],
            }
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "careledger.bench.readers",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 24,
            )  # fmt: skip
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(setting) + b"\n")
            await process.stdin.drain()
            self._processes.append(process)
        for process in self._processes:
            await _line(process)

    async def round(self, stage: Stage, sizes: Sizes) -> None:
        nodes = stage.node_cpu_s()
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(b"%f\n" % sizes.seconds)
        answers = [msgspec.json.decode(await _line(process), type=dict[str, Any]) for process in self._processes]
        opens = sum(answer["opens"] for answer in answers)
        self._rates.append(sum(answer["opens"] / answer["seconds"] for answer in answers))
        self._latencies.append([took for answer in answers for took in answer["took_ms"]])
        self._client_cpu.append(sum(answer["cpu_s"] for answer in answers) / opens * 1000)
        self._node_cpu.append((stage.node_cpu_s() - nodes) / opens * 1000)

    async def close(self) -> None:
        """End the client processes."""
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()

    def result(self) -> dict[str, Any]:
        spread = figure(self._latencies, unit="ms", goal=self.goal)
        return rate(
            self._rates,
            unit="opens/s",
            goal=self.goal,
            p50=spread["p50"],
            p99=spread["p99"],
            client_cpu_ms=round(median(self._client_cpu), 2),
            all_nodes_cpu_ms=round(median(self._node_cpu), 2),
        )


async def _line(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("a reading process of the bench ended early; its error is above")
    return line
