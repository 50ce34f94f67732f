"""The story that the demo plays on a real network: a chart sealed by one organisation, opened by another's clinician.

Each step does what people's software does and keeps what it saw; nothing is assumed. `Story.facts` ends as the object
of DESIGN section 9.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from careledger.bench import World
from careledger.cli.scan import Scanner, self_test, strings_of
from careledger.client import Patient, Trail, audit
from careledger.errors import NotPermittedError
from careledger.fhir import FileReading
from careledger.node import LocalNetwork

__all__ = ["Story"]

_PATIENTS_AT_ONCE = 2
_OPENED_AT_ONCE = 100
_AUDIT_TRIES = 8


class Chart:
    """One patient of the story: its file's resources as they came, and what happened to them."""

    def __init__(self, name: str, patient: Patient, reading: FileReading) -> None:
        self.name = name
        self.patient = patient
        self.reading = reading
        self.came = {
            (url, hashlib.sha256(data).digest()): data for draft in reading.records for url, data in draft.resources
        }
        self.opened: set[tuple[str, bytes]] = set()
        self.records: list[bytes] = []
        self.submissions = 0
        self.sent_records = 0
        self.all_safe = False
        self.grant = ""
        self.trail: Trail | None = None


class Story:
    """Plays the steps in order; call them one after the other."""

    def __init__(self, local: LocalNetwork, world: World) -> None:
        self.local = local
        self.world = world
        self.charts: list[Chart] = []
        self.facts: dict[str, object] = {}
        self.seconds: dict[str, float] = {}
        self.names = ["Harbour Hospital", "Lakeside Practice", "Hill Clinic", "City Laboratory"]

    def organisation(self, number: int) -> str:
        """A name for a member, for the people who watch; the network knows tokens."""
        return self.names[number] if number < len(self.names) else f"Organisation {number + 1}"

    async def enrol(self, readings: Sequence[tuple[str, FileReading]]) -> None:
        """The members' staff, and one patient for each file."""
        world = self.world
        await world.begin()
        self.author = await world.clinician(0)
        self.clinician = await world.clinician(1)
        self.stranger = await world.clinician(min(2, len(world.organisations) - 1))
        patients = await world.patients(len(readings))
        self.charts = [
            Chart(name, patient, reading) for (name, reading), patient in zip(readings, patients, strict=True)
        ]
        await self._all(lambda chart: world.let_write(chart.patient, self.author.staff.organisation))
        self.facts["threshold"] = (await world.network.subject(self.charts[0].patient.subject)).threshold

    async def _all(self, step: Callable[[Chart], object]) -> None:
        gate = asyncio.Semaphore(_PATIENTS_AT_ONCE)

        async def one(chart: Chart) -> None:
            async with gate:
                result = step(chart)
                if asyncio.iscoroutine(result):
                    await result

        async with asyncio.TaskGroup() as group:
            for chart in self.charts:
                group.create_task(one(chart))

    async def import_charts(self, *, progress: Callable[[Chart], None] | None = None) -> None:
        """The first organisation's clinician seals every chart and hands it to all custodians."""
        started = time.perf_counter()

        async def one(chart: Chart) -> None:
            done = await self.author.author.import_reading(chart.patient.subject, chart.reading)
            chart.submissions = len(done.sent)
            chart.sent_records = done.records
            chart.all_safe = done.safe == done.records and not done.refused
            if progress is not None:
                progress(chart)

        await self._all(one)
        self.seconds["import"] = time.perf_counter() - started

    async def refuse_without_grant(self) -> str:
        """A clinician whom nobody gave a grant asks for the first chart; the reason code of the refusal."""
        self.facts["refused_without_grant"] = await self._refusal(self.stranger.reader.list, self.charts[0])
        return str(self.facts["refused_without_grant"])

    @staticmethod
    async def _refusal(ask: Callable[..., object], chart: Chart, *arguments: object) -> str:
        try:
            answer = ask(chart.patient.subject, *arguments, purpose="TREAT")
            if asyncio.iscoroutine(answer):
                await answer
        except NotPermittedError as refused:
            return refused.code
        return "not-refused"

    async def grant(self) -> None:
        """Each patient lets the second organisation read everything, for treatment."""

        async def one(chart: Chart) -> None:
            chart.grant = await self.world.let_read(chart.patient, self.clinician.staff.organisation)

        await self._all(one)

    async def open_charts(self) -> None:
        """The second organisation's clinician lists and opens every record of every chart."""
        started = time.perf_counter()
        reader = self.clinician.reader
        for chart in self.charts:
            listing = await reader.list(chart.patient.subject, purpose="TREAT")
            chart.records = [bytes.fromhex(manifest.record) for manifest in listing.manifests]
            for at in range(0, len(chart.records), _OPENED_AT_ONCE):
                opened = await reader.open(
                    chart.patient.subject, chart.records[at : at + _OPENED_AT_ONCE], purpose="TREAT"
                )
                for record in opened.records:
                    chart.opened |= {(one.full_url, hashlib.sha256(one.data).digest()) for one in record.resources}
        self.seconds["open"] = time.perf_counter() - started

    async def revoke(self) -> None:
        """The first patient ends the grant; how long until it was effective, and what the clinician then gets."""
        chart = self.charts[0]
        reached: dict[str, float] = {}
        started = time.perf_counter()

        def note(mark: str, _: float) -> None:
            reached.setdefault(mark, (time.perf_counter() - started) * 1000)

        published = await chart.patient.revoke(chart.grant, on_mark=note)
        if not published.effective:
            raise NotPermittedError("not-effective", "the revocation did not reach enough custodians; see their logs")
        self.facts["revocation_effective_ms"] = round(reached["effective"], 3)
        again = chart.records[:1]
        self.facts["refused_after_revocation"] = await self._refusal(self.clinician.reader.open, chart, again)

    async def audit(self) -> None:
        """Each patient reads who asked for its records; complete only if every custodian proved its part."""

        async def one(chart: Chart) -> None:
            for _ in range(_AUDIT_TRIES):
                chart.trail = await audit(self.world.network, chart.patient.keys, state=chart.patient.state)
                if chart.trail.complete:
                    return
                await asyncio.sleep(0.5)

        await self._all(one)
        trails = [chart.trail for chart in self.charts if chart.trail is not None]
        self.facts["audit_entries"] = sum(len(trail.accesses) for trail in trails)
        self.facts["audit_complete"] = len(trails) == len(self.charts) and all(trail.complete for trail in trails)

    def count(self) -> None:
        """What the charts amount to; every number is counted from what came and what was opened."""
        came: dict[tuple[str, bytes], bytes] = {}
        opened: set[tuple[str, bytes]] = set()
        for chart in self.charts:
            came |= chart.came
            opened |= chart.opened
        self.facts |= {
            "patients": len(self.charts),
            "resources": len(came),
            "records": sum(chart.sent_records for chart in self.charts),
            "submissions": sum(chart.submissions for chart in self.charts),
            "opened_records": sum(len(chart.records) for chart in self.charts),
            "opened_resources": len(opened),
            "bytes_equal": opened == set(came) and all(chart.all_safe for chart in self.charts),
        }

    def scan(self, scratch: Path) -> None:
        """Look for every long string of the input in every file of the nodes."""
        strings: set[str] = set()
        for chart in self.charts:
            for data in chart.came.values():
                strings |= strings_of(data)
        scanner = Scanner(strings)
        found: set[str] = set()
        for node in self.local.nodes:
            found |= scanner.scan(node.folder)
        self.facts["plaintext_on_disk"] = len(found)
        self.facts["strings_checked"] = len(scanner.strings)
        self.facts["scan_selftest"] = self_test(scratch)
