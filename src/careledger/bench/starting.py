"""Starting: four node processes from nothing to serving, and what a node needs in memory with many records kept."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any

from careledger.bench.figures import Goal, rate
from careledger.bench.machine import cpu_s, rss_mb
from careledger.bench.sizes import Sizes
from careledger.bench.stage import Stage
from careledger.bench.world import now_ms
from careledger.node import LocalNetwork

__all__ = ["Memory", "Starts"]


class Starts:
    """Four processes started at once, until all serve: rollback check and a first comparison with peers done.

    Python finds compiled modules, as after an installation: the first start only makes them and does not count.
    """

    name = "network_start_s"
    goal = Goal("<= 2", 2)

    def __init__(self) -> None:
        self._rounds: list[float] = []
        self._cpu: list[float] = []
        self._compiled = False

    async def round(self, folder: Path, sizes: Sizes) -> None:
        environment: dict[str, str] = {}
        if sizes.compile:
            environment = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder.parent / "bytecode")}
        if sizes.compile and not self._compiled:
            await self._start(folder / "first", environment)
            self._compiled = True
        took, cpu = await self._start(folder / "network", environment)
        self._rounds.append(took)
        self._cpu.append(cpu)

    @staticmethod
    async def _start(folder: Path, environment: dict[str, str]) -> tuple[float, float]:
        """Start and stop one network; returns seconds until it serves and CPU seconds of its nodes."""
        local = LocalNetwork.found(folder, now_ms=now_ms())
        started = time.perf_counter()
        try:
            for node in local.nodes:
                node.start(environment=environment)
            await local.wait_until_serving(timeout_s=120.0)
            took = time.perf_counter() - started
            return took, sum(cpu_s(node.process.pid) for node in local.nodes if node.process is not None)
        finally:
            local.stop()

    def result(self) -> dict[str, Any]:
        cpu = round(median(self._cpu), 2)
        return rate(self._rounds, unit="s", goal=self.goal, all_nodes_cpu_s=cpu)


class Memory:
    """Resident memory of the largest node process of a network that keeps many records and answered opens."""

    name = "node_rss_mb"
    goal = Goal("<= 130", 130)

    def measure(self, stage: Stage, *, stored: int) -> dict[str, Any]:
        sizes = sorted(rss_mb(node.process.pid) for node in stage.local.nodes if node.process is not None)
        return rate([sizes[-1]], unit="MB", goal=self.goal, stored=stored, nodes=[round(size, 1) for size in sizes])
