"""Running measures by name: networks are shared by what can share them, and rounds of what is compared interleave."""

from __future__ import annotations

import asyncio
import gc
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import careledger
from careledger.bench.figures import Goal
from careledger.bench.logs import Appending, Publishing, Verifying
from careledger.bench.machine import calibration, describe
from careledger.bench.opening import ManyReaders, Opens, OpensAt, open_repeatedly
from careledger.bench.profiling import Profiles
from careledger.bench.sizes import FULL, QUICK, Sizes
from careledger.bench.stage import Kept, Stage, settle
from careledger.bench.starting import Memory, Starts
from careledger.bench.writing import Imports, Revocations
from careledger.errors import MalformedError

__all__ = ["NAMES", "Result", "run"]

Result = dict[str, Any]
Say = Callable[[str], None]

NAMES = (
    "open_1",
    "open_1_n16",
    "open_100",
    "open_100_apart",
    "opens_per_s",
    "import_resources_per_s",
    "revocation_effective",
    "append_entries_per_s",
    "published",
    "verify_entries_per_s",
    "open_1_at_50000",
    "node_rss_mb",
    "network_start_s",
)
_SETTLE_S = 0.5


class _OnStage(Protocol):
    """A measure on a network of four: prepared once, then one round at a time, in turn with the others."""

    name: str

    async def prepare(self, stage: Stage, sizes: Sizes) -> None: ...
    async def round(self, stage: Stage, sizes: Sizes) -> None: ...
    def result(self) -> Result: ...


class _Alone(Protocol):
    """A measure that needs an empty folder each round and no network of the others'."""

    name: str

    async def round(self, folder: Path, sizes: Sizes) -> None: ...
    def result(self) -> Result: ...


class _Run:
    """One run of the bench in one folder."""

    def __init__(self, wanted: frozenset[str], folder: Path, sizes: Sizes, profiles: Profiles, say: Say) -> None:
        self.wanted = wanted
        self.folder = folder
        self.sizes = sizes
        self.profiles = profiles
        self.say = say
        self.found: Result = {}

    async def all(self, data: Path | None) -> None:
        """Everything wanted, smallest setting first."""
        alone: list[_Alone] = [Appending(), Publishing(), Starts()]
        for measure in alone:
            if measure.name in self.wanted:
                await self._alone(measure)
        on_stage: list[_OnStage] = [
            Opens("open_1", Goal("p50 <= 6 ms, p99 <= 15 ms", 6, p99=15)),
            Opens("open_100", Goal("p50 <= 35 ms", 35), records=self.sizes.many),
            Opens("open_100_apart", Goal("p50 <= 70 ms", 70), records=self.sizes.many, apart=True),
            ManyReaders(),
            Imports(data),
            Revocations(),
            Verifying(),
        ]
        await self._on_stage("n4", 4, [one for one in on_stage if one.name in self.wanted])
        if "open_1_n16" in self.wanted:
            nodes = self.sizes.nodes_large
            await self._on_stage(f"n{nodes}", nodes, [Opens("open_1_n16", Goal("p50 <= 20 ms", 20))])
        if self.wanted & {"open_1_at_50000", "node_rss_mb"}:
            await self._large()

    async def _alone(self, measure: _Alone) -> None:
        for at in range(self.sizes.rounds):
            place = self.folder / f"{measure.name}-{at}"
            with self.profiles.client():
                await measure.round(place, self.sizes)
            shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(self.folder / "bytecode", ignore_errors=True)
        self._done(measure.name, measure.result())

    async def _on_stage(self, name: str, nodes: int, measures: Sequence[_OnStage]) -> None:
        if not measures:
            return
        place = self.folder / name
        async with await Stage.begin(place, nodes=nodes, environment=self.profiles.environment) as stage:
            try:
                for measure in measures:
                    await measure.prepare(stage, self.sizes)
                _freeze()
                self.profiles.begin_anew(stage)
                for _ in range(self.sizes.rounds):
                    for measure in measures:
                        await settle(_SETTLE_S if self.sizes.rounds > 1 else 0)
                        with self.profiles.client():
                            await measure.round(stage, self.sizes)
            finally:
                for measure in measures:
                    if isinstance(measure, ManyReaders):
                        await measure.close()
        for measure in measures:
            self._done(measure.name, measure.result())
        shutil.rmtree(place, ignore_errors=True)

    async def _large(self) -> None:
        """A network with few records and one with many, both running, so that only what is stored differs."""
        few, many = self.sizes.stored, self.sizes.at_large
        async with (
            await Stage.begin(self.folder / "few", environment=self.profiles.environment) as small,
            await Stage.begin(self.folder / "many", environment=self.profiles.environment) as large,
        ):
            kept: list[Kept] = []
            for stage, count in ((small, few), (large, many)):
                one = await stage.patient()
                await stage.store(one, count, submission=self.sizes.large_submission, resources=1)
                await open_repeatedly(stage.reader.reader, one.subject, [[record] for record in one.records[:5]])
                kept.append(one)
                self.say(f"stored {count} records")
            await settle(4.0 if self.sizes.rounds > 1 else 0)
            _freeze()
            self.profiles.begin_anew(large)
            compared = OpensAt()
            if compared.name in self.wanted:
                with self.profiles.client():
                    await compared.compare((small, kept[0]), (large, kept[1]), self.sizes)
                self._done(compared.name, compared.result(stored=(few, many)))
            memory = Memory()
            if memory.name in self.wanted:
                self._done(memory.name, memory.measure(large, stored=many))
        for name in ("few", "many"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _done(self, name: str, result: Result) -> None:
        self.found[name] = result
        self.say(f"{name}: {result['value']:g} {result['unit']} (goal {result['goal']})")


def _freeze() -> None:
    """What every long-running process of ours does after its start."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def run(
    only: Sequence[str] | None = None,
    *,
    folder: Path | None = None,
    data: Path | None = None,
    profile: bool = False,
    report: Callable[[str], None] = lambda _: None,
    quick: bool = False,
) -> Result:
    """Run the measures named in `only` (None: all of NAMES) and return {name: figures, …, "machine", "version"}.

    Each measure has value, unit, p50, p99 (null where there are none), goal, met, rounds. `folder` keeps nothing when
    the run succeeds (None: a temporary one); `data` is a folder of FHIR bundles to import instead of generated ones;
    `report` gets a line for each thing done; `quick` runs everything in tiny sizes: its figures say nothing.
    With `profile` the result has "profile": the costliest functions of client and node; figures are slower then.
    Raises MalformedError `unknown-measure`.
    """
    wanted = frozenset(NAMES if only is None else only)
    unknown = sorted(wanted - set(NAMES))
    if unknown:
        raise MalformedError("unknown-measure", f"there is no measure {unknown[0]!r}; measures are {', '.join(NAMES)}")
    own = folder is None
    place = Path(tempfile.mkdtemp(prefix="careledger-bench-")) if folder is None else folder
    place.mkdir(parents=True, exist_ok=True)
    profiles = Profiles(place / "profiles", wanted=profile)
    machine = {**describe(), **calibration(place, quick=quick)}
    report(f"machine: {machine}")
    one = _Run(wanted, place, QUICK if quick else FULL, profiles, report)
    try:
        _run_loop(one.all(data))
        result = {name: one.found[name] for name in NAMES if name in one.found}
        if profile:
            result["profile"] = profiles.results()
    finally:
        if own:
            shutil.rmtree(place, ignore_errors=True)
    return {**result, "machine": machine, "version": careledger.__version__}


def _run_loop(work: Any) -> None:
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:  # no uvloop for this system: slower, but the same
        asyncio.run(work)
    else:
        uvloop.run(work)
