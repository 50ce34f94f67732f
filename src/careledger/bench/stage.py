"""What is measured on: a network of node processes, a writing and a reading organisation, people to write about.

Nodes are what an operator runs, with the default parameters but for the number of requests; the client side is the
client package with keys in memory. Nothing is switched off: syncs, receipts, witnesses, anchors, sync between
custodians and metrics are as in use.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from careledger.bench.machine import cpu_s
from careledger.bench.world import YEAR_MS, Clinician, World, now_ms
from careledger.client import Patient, encode_staff_pass, network_file
from careledger.directory import default_parameters
from careledger.fhir import Counts, FileReading, RecordDraft, Report
from careledger.node import LocalNetwork
from careledger.seal import b64

__all__ = ["CATEGORIES", "Kept", "Stage", "drafts"]

CATEGORIES = ("conditions", "medicines", "results", "visits")
"""Compartments that readers are granted, and that a revocation moves up an epoch."""
_RESOURCE = (
    '{"resourceType":"Observation","id":"%s","status":"final","category":[{"coding":[{"system":'
    '"http://terminology.hl7.org/CodeSystem/observation-category","code":"laboratory","display":"laboratory"}]}],'
    '"code":{"coding":[{"system":"http://loinc.org","code":"2339-0","display":"Glucose [Mass/volume] in Blood"}],'
    '"text":"Glucose [Mass/volume] in Blood"},"subject":{"reference":"urn:uuid:%s"},"encounter":{"reference":'
    '"urn:uuid:%s"},"effectiveDateTime":"2024-03-%02dT09:30:00+01:00","issued":"2024-03-%02dT09:31:12.117+01:00",'
    '"valueQuantity":{"value":%d.%04d,"unit":"mg/dL","system":"http://unitsofmeasure.org","code":"mg/dL"}}'
)


def drafts(count: int, *, resources: int = 3) -> list[RecordDraft]:
    """Records ready to be sealed: `resources` laboratory results each, different bytes every time, one category after
    the other. What reading FHIR files costs is measured elsewhere."""
    found = []
    for at in range(count):
        visit = os.urandom(16).hex()
        own = []
        for n in range(resources):
            name, day, value = os.urandom(16).hex(), 1 + (at + n) % 28, int.from_bytes(os.urandom(2), "big")
            data = _RESOURCE % (name, visit, visit, day, day, value % 200, value % 10_000)
            own.append((f"urn:uuid:{name}", data.encode()))
        found.append(RecordDraft(compartment=CATEGORIES[at % len(CATEGORIES)], resources=own, travelling=[], header={}))
    return found


class Kept:
    """A patient with records that are safe at all custodians: the 16-byte ids, and the grant that readers use."""

    def __init__(self, patient: Patient) -> None:
        self.patient = patient
        self.subject = patient.subject
        self.records: list[bytes] = []
        self.grant = ""


class Stage:
    """A running network with staff; `async with await Stage.begin(…)`."""

    def __init__(self, local: LocalNetwork, world: World, author: Clinician, reader: Clinician) -> None:
        self.local = local
        self.world = world
        self.author = author
        self.reader = reader

    @classmethod
    async def begin(cls, folder: Path, *, nodes: int = 4, environment: Mapping[str, str] | None = None) -> Stage:
        """Found and start the network, and enrol one author (of the first organisation) and one reader (of the
        second)."""
        local = LocalNetwork.found(
            folder, count=nodes, now_ms=now_ms(), parameters={"anchor_min_ms": default_parameters()["anchor_min_ms"]}
        )
        for node in local.nodes:
            node.start(environment=environment)
        try:
            await local.wait_until_serving(timeout_s=120.0)
            world = World(local)
            await world.begin()
            return cls(local, world, await world.clinician(0), await world.clinician(1))
        except BaseException:
            local.kill()
            raise

    async def __aenter__(self) -> Stage:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.world.wire.close()
        if error is None:
            self.local.stop()
        else:
            self.local.kill()

    async def patient(self) -> Kept:
        """Enrol a patient who lets the author's organisation write everything and the reader's read CATEGORIES."""
        (patient,) = await self.world.patients(1)
        kept = Kept(patient)
        await self.world.let_write(patient, self.author.staff.organisation)
        kept.grant = await self.world.let_read(patient, self.reader.staff.organisation, CATEGORIES)
        return kept

    async def store(self, kept: Kept, count: int, *, submission: int = 200, resources: int = 3) -> None:
        """Keep `count` more records, `submission` in each submission. Raises what the author's software raises."""
        for at in range(0, count, submission):
            await self.keep(kept, drafts(min(submission, count - at), resources=resources))

    async def keep(self, kept: Kept, records: Sequence[RecordDraft]) -> None:
        reading = FileReading(report=_no_report(len(records)), subject_url="", patient=None, records=list(records))
        done = await self.author.author.import_reading(kept.subject, reading)
        for refusal in done.refused:
            raise refusal
        assert done.safe == len(records), "a custodian did not keep what the bench sent"
        kept.records += [bytes.fromhex(record) for sent in done.sent for record in sent.records]

    def node_cpu_s(self) -> float:
        """CPU seconds that all nodes together have used so far."""
        return sum(cpu_s(node.process.pid) for node in self.local.nodes if node.process is not None)

    async def readers(self, count: int) -> list[dict[str, str]]:
        """Clinicians of the reader's organisation, as a process of its own takes them (see bench.readers)."""
        found = []
        for _ in range(count):
            keys = await self.world.person()
            employer = self.world.organisations[1]
            await employer.license(keys.token, role="physician", until_ms=now_ms() + YEAR_MS)
            staff_pass = await employer.staff_pass(keys.token, role="physician")
            device = keys.device
            found.append(
                {
                    "token": keys.token,
                    "sign": b64(device.sign),
                    "seal": b64(device.seal),
                    "pass": b64(encode_staff_pass(staff_pass)),
                }
            )
        return found

    @property
    def network_file(self) -> bytes:
        return network_file(self.local.genesis)


def _no_report(count: int) -> Report:
    return Report(file="bench", rows=[], counts=Counts(entries=count, kept=count, distinct=count, records=count))


async def settle(seconds: float) -> None:
    """Let the nodes finish what they do in the background before something else is measured."""
    await asyncio.sleep(seconds)
