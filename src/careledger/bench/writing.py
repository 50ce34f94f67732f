"""Writing: files in until every custodian has given its receipt, and a revocation until it holds."""

from __future__ import annotations

import asyncio
import gzip
import time
from pathlib import Path
from statistics import median
from typing import Any

from careledger.bench.bundles import history
from careledger.bench.figures import Goal, figure, rate
from careledger.bench.sizes import Sizes
from careledger.bench.stage import CATEGORIES, Kept, Stage
from careledger.bench.world import YEAR_MS, now_ms

__all__ = ["Imports", "Revocations", "files_in"]

_FILES_AT_ONCE = 2


def files_in(folder: Path) -> list[tuple[str, bytes]]:
    """The bundles of a folder, unpacked (`.json`, `.json.gz`), in the order of their names."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.endswith(".json"):
            found.append((path.name, path.read_bytes()))
        elif path.name.endswith(".json.gz"):
            found.append((path.name.removesuffix(".gz"), gzip.decompress(path.read_bytes())))
    return found


class Imports:
    """One client process imports histories of different people, two files at a time: read, validate, seal, send,
    verify the receipts of all four custodians. Counted when everything is safe at all of them."""

    name = "import_resources_per_s"
    goal = Goal(">= 6000", 6000, at_least=True)

    def __init__(self, data: Path | None = None) -> None:
        self._data = data
        self._files: list[tuple[str, bytes]] = []
        self._rates: list[float] = []
        self._counts = {"resources": 0, "records": 0, "json_mb": 0.0}
        self._client_cpu: list[float] = []
        self._node_cpu: list[float] = []
        self._waiting: list[Kept] = []

    async def prepare(self, stage: Stage, sizes: Sizes) -> None:
        if self._data is not None:
            self._files = files_in(self._data)[: None if sizes.rounds > 1 else 1]
        else:
            self._files = [history(number, visits=sizes.visits) for number in range(sizes.histories)]
        patients = await stage.world.patients(len(self._files) * sizes.rounds)
        for patient in patients:
            await stage.world.let_write(patient, stage.author.staff.organisation)
        self._waiting = [Kept(patient) for patient in patients]

    async def round(self, stage: Stage, sizes: Sizes) -> None:
        people = [self._waiting.pop() for _ in self._files]
        for kept in people:
            await stage.author.author.places(kept.subject)
        todo = list(zip(people, self._files, strict=True))
        resources = records = 0

        async def some() -> None:
            nonlocal resources, records
            while todo:
                kept, (name, data) = todo.pop()
                done = await stage.author.author.import_file(kept.subject, name, [data])
                assert done.safe == done.records, done.refused
                assert all("complete" in sent.reached for sent in done.sent), done.sent
                resources += done.resources
                records += done.records

        nodes, client, started = stage.node_cpu_s(), time.process_time(), time.perf_counter()
        await asyncio.gather(*(some() for _ in range(_FILES_AT_ONCE)))
        took = time.perf_counter() - started
        self._rates.append(resources / took)
        self._client_cpu.append((time.process_time() - client) / resources * 1e6)
        self._node_cpu.append((stage.node_cpu_s() - nodes) / resources * 1e6)
        size = sum(len(data) for _, data in self._files) / 1e6
        self._counts = {"resources": resources, "records": records, "json_mb": round(size, 2)}

    def result(self) -> dict[str, Any]:
        return rate(
            self._rates,
            unit="resources/s",
            goal=self.goal,
            data="generated" if self._data is None else self._data.name,
            client_cpu_us=round(median(self._client_cpu), 1),
            all_nodes_cpu_us=round(median(self._node_cpu), 1),
            **self._counts,
        )


class Revocations:
    """A patient revokes a read grant of four compartments: head read from t custodians, new seeds and keys of the four,
    one message to all; until n-t+1+f custodians have it on disk and their receipts are verified."""

    name = "revocation_effective"
    goal = Goal("p50 <= 10 ms", 10)

    def __init__(self) -> None:
        self._kept: Kept | None = None
        self._rounds: list[list[float]] = []
        self._complete: list[float] = []

    async def prepare(self, stage: Stage, sizes: Sizes) -> None:
        (patient,) = await stage.world.patients(1)
        self._kept = Kept(patient)
        await self._once(stage, patient)

    async def round(self, stage: Stage, sizes: Sizes) -> None:
        assert self._kept is not None
        took = [await self._once(stage, self._kept.patient) for _ in range(sizes.revocations)]
        self._rounds.append([effective for effective, _ in took])
        self._complete += [complete for _, complete in took]

    async def _once(self, stage: Stage, patient: Any) -> tuple[float, float]:
        granted = await patient.grant(
            stage.reader.staff.organisation, categories=CATEGORIES, expires_ms=now_ms() + YEAR_MS
        )
        marks: dict[str, float] = {}
        started = time.perf_counter()

        def note(mark: str, _: float) -> None:
            marks[mark] = (time.perf_counter() - started) * 1000

        done = await patient.revoke(granted.grant, on_mark=note)
        assert done.complete, done.failures
        return marks["effective"], marks["complete"]

    def result(self) -> dict[str, Any]:
        return figure(
            self._rounds,
            unit="ms",
            goal=self.goal,
            compartments=len(CATEGORIES),
            complete_p50=round(median(self._complete), 3),
        )
