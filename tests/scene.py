"""A real network for end-to-end and fault tests: node processes, staff, patients with charts, and an attacker's tools.

Tests reach it through the fixtures `scene` (one network shared by a whole run: leave it as it was found) and
`new_scene` (a network of one's own to break). Everything asynchronous runs on the scene's loop: `scene.run(coroutine)`.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from careledger.bench.world import Clinician, World, now_ms
from careledger.client import Network, Owner, Patient, Reader, Trail, audit, network_file
from careledger.client.author import Author, Imported
from careledger.client.exchange import refusal
from careledger.client.keys import MemoryState
from careledger.client.reader import Opened
from careledger.errors import Error
from careledger.fhir import FileReading, ReadOptions, demo_patients, read_file
from careledger.node import Engine, LocalNetwork, LocalNode, NodeFolder
from careledger.records import RecordPlan, Submission, SubmissionPlan, SubmissionStatement, seal_submission
from careledger.records.leaves import arrange, leaves_root
from careledger.records.locks import lock_leaf
from careledger.records.manifest import manifest_leaf
from careledger.seal import Envelope, SealingPublicKey, decode, encode, sign, unb64
from careledger.transport import Answer, Transport

T = TypeVar("T")
Fault = Callable[[str, bytes, Callable[[], Awaitable[Answer]]], Awaitable[Answer]]
"""(path, body, what the node really answers) -> what the client gets."""
DEADLINE_S = 60.0
HEADER = {"import": "0f" * 8, "source": "https://ehr.example/fhir", "subject_url": "urn:uuid:1", "category": 1}


class FaultyWire(Transport):
    """A transport on which a test stands in front of nodes, by URL."""

    def __init__(self, *, timeout_s: float = 10.0) -> None:
        super().__init__(timeout_s=timeout_s)
        self.faults: dict[str, Fault] = {}
        self.asked: list[tuple[str, str]] = []

    async def request(
        self, method: str, url: str, path: str, body: bytes, *, content: str = "", timeout_s: float | None = None
    ) -> Answer:
        self.asked.append((url, path))

        async def honest() -> Answer:
            return await super(FaultyWire, self).request(method, url, path, body, content=content, timeout_s=timeout_s)

        fault = self.faults.get(url)
        return await (honest() if fault is None else fault(path, body, honest))


@dataclass
class Chart:
    """A patient, the records that the author sealed for it, and what went into them, by (fullUrl, exact bytes)."""

    patient: Patient
    records: list[bytes] = field(default_factory=list)
    came: set[tuple[str, bytes]] = field(default_factory=set)
    write_grant: str = ""
    read_grant: str = ""

    @property
    def subject(self) -> str:
        return self.patient.subject


class Scene:
    """One network with an author (first member), a clinician (second), a stranger (third), and charts on demand."""

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 4,
        parameters: Mapping[str, Any] | None = None,
        engine: Engine = "embedded",
    ) -> None:
        self.folder = folder
        self._runner = asyncio.Runner()
        self.local = LocalNetwork.found(folder, count=nodes, now_ms=now_ms(), parameters=parameters, engine=engine)
        self._wires: list[Transport] = []
        name, data = demo_patients()[0]
        self.reading: FileReading = read_file(name, [data], options=ReadOptions())
        try:
            self.run(self._begin())
        except BaseException:
            self.close()
            raise

    async def _begin(self) -> None:
        await self.local.start()
        self.world = World(self.local)
        self._wires.append(self.world.wire)
        self.network = self.world.network
        await self.world.begin()
        self.author: Clinician = await self.world.clinician(0)
        self.clinician: Clinician = await self.world.clinician(1)
        self.stranger: Clinician = await self.world.clinician(2)

    @classmethod
    @contextmanager
    def played(cls, folder: Path, **options: Any) -> Iterator[Scene]:
        scene = cls(folder, **options)
        try:
            yield scene
        finally:
            scene.close()

    def close(self) -> None:
        for node in self.local.nodes:
            if node.process is not None:
                node.process.send_signal(signal.SIGCONT)
        self.local.kill()

        async def close() -> None:
            for wire in self._wires:
                await wire.close()
            await asyncio.sleep(0.01)  # asyncio closes sockets a turn later

        self.run(close())
        self._runner.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)

    # Waiting

    async def until(self, holds: Callable[[], Any], what: str, *, deadline_s: float = DEADLINE_S) -> Any:
        """The first true value of `holds` (which may be asynchronous and may raise foreseen errors)."""
        end, last = time.monotonic() + deadline_s, ""
        while time.monotonic() < end:
            try:
                value = holds()
                value = await value if inspect.isawaitable(value) else value
            except (Error, OSError, sqlite3.OperationalError) as error:
                last = str(error)
            else:
                if value:
                    return value
            await asyncio.sleep(0.02)
        raise AssertionError(f"{what} did not come about within {deadline_s:g} s {last}")

    async def health(self, node: LocalNode) -> dict[str, Any]:
        answer = await self.network.wire.get(node.url, "/health")
        return msgspec.json.decode(answer.body, type=dict[str, Any])

    async def until_status(self, node: LocalNode, *statuses: str) -> dict[str, Any]:
        async def there() -> dict[str, Any] | None:
            health = await self.health(node)
            return health if health["status"] in statuses else None

        found: dict[str, Any] = await self.until(there, f"{node.name} with status {statuses}")
        return found

    async def until_published(self, nodes: Sequence[LocalNode] | None = None) -> None:
        """Every node's log is published, cosigned by all others and anchored as it stands."""

        async def settled() -> bool:
            found = [await self.health(node) for node in (nodes or self.local.nodes)]
            return all(
                one["log_entries"] == one["published_entries"] == one["anchored_entries"]
                and len(one["cosigned_by"]) >= len(self.local.nodes) - 1
                for one in found
            )

        await self.until(settled, "published, cosigned and anchored logs")

    def restart(self, *nodes: LocalNode) -> None:
        for node in nodes:
            node.start()
        self.run(self.local.wait_until_serving())

    def freeze(self, *nodes: LocalNode) -> None:
        for node in nodes:
            assert node.process is not None
            node.process.send_signal(signal.SIGSTOP)

    def thaw(self, *nodes: LocalNode) -> None:
        for node in nodes:
            assert node.process is not None
            node.process.send_signal(signal.SIGCONT)

    def node(self, token: str) -> LocalNode:
        return next(node for node in self.local.nodes if node.token == token)

    def secrets(self, node: LocalNode) -> NodeFolder:
        return NodeFolder(node.folder)

    def store(self, node: LocalNode) -> sqlite3.Connection:
        """A node's main.db, read-only, with keys.db attached as `k`."""
        database = sqlite3.connect(f"file:{node.folder / 'store' / 'main.db'}?mode=ro", uri=True)
        database.execute("ATTACH ? AS k", (f"file:{node.folder / 'store' / 'keys.db'}?mode=ro",))
        return database

    # People

    def client(self, wire: Transport | None = None, *, clock_off_ms: int = 0) -> Network:
        """Another client of the network: its own wire, its own clock."""
        made = wire or Transport()
        self._wires.append(made)
        return Network.from_file(
            network_file(self.local.genesis), wire=made, now_ms=lambda: now_ms() + clock_off_ms, rand=os.urandom
        )

    def reader(self, network: Network, clinician: Clinician | None = None) -> Reader:
        """The clinician's software on another client."""
        who = clinician or self.clinician
        return Reader(network, who.keys, staff=who.staff)

    def patient(self, network: Network, patient: Patient) -> Patient:
        """The patient's software on another device that has the same keys and remembers nothing."""
        return Patient(network, patient.keys, state=MemoryState())

    def writer(self, network: Network, clinician: Clinician | None = None) -> Author:
        who = clinician or self.author
        return Author(network, who.keys, state=MemoryState(), staff=who.staff)

    async def chart(self, count: int = 4, *, read: bool = True) -> Chart:
        """A new patient with `count` records; the clinician may read them."""
        (patient,) = await self.world.patients(1)
        chart = Chart(patient)
        chart.write_grant = await self.world.let_write(patient, self.author.staff.organisation)
        if count:
            await self.add(chart, count)
        if read:
            chart.read_grant = await self.world.let_read(patient, self.clinician.staff.organisation)
        return chart

    async def add(self, chart: Chart, count: int = 1, *, author: Author | None = None, safe: bool = True) -> Imported:
        """Import `count` more records of the demo patient."""
        at = len(chart.records)
        drafts = self.reading.records[at : at + count]
        assert len(drafts) == count, "the demo patient has no more records"
        reading = msgspec.structs.replace(self.reading, records=drafts, patient=None)
        done = await (author or self.author.author).import_reading(chart.subject, reading)
        assert done.records == count, [str(error) for error in done.refused]
        assert not safe or done.safe == count, [str(e) for sent in done.sent for e in sent.failures.values()]
        chart.records += [bytes.fromhex(record) for sent in done.sent for record in sent.records]
        chart.came |= {(url, data) for draft in drafts for url, data in draft.resources}
        return done

    async def open(self, chart: Chart, records: Sequence[bytes] | None = None, **options: Any) -> Opened:
        reader = options.pop("reader", self.clinician.reader)
        return await reader.open(chart.subject, chart.records if records is None else records, purpose="TREAT")

    async def trail(self, chart: Chart, *, network: Network | None = None) -> Trail:
        patient = chart.patient
        return await audit(network or self.network, patient.keys, state=MemoryState())

    def owner(self, chart: Chart) -> Owner:
        return Owner(chart.patient)

    # What an author who lies can do

    async def plan(self, chart: Chart, count: int = 1, *, clinician: Clinician | None = None) -> SubmissionPlan:
        """What an honest author would seal next: `count` small records in the first compartment it may write to."""
        who, network = clinician or self.author, self.network
        subject = await network.subject(chart.subject)
        view = await who.reader.grants(chart.subject, fresh=True)
        newest, _ = view.public_keys()
        granted = [c for g in view.standing(now_ms()) if "contribute" in g.rights for c in g.compartments or ()]
        compartment = min(granted)
        return SubmissionPlan(
            network=network.id,
            subject=chart.subject,
            subject_seq=subject.identity.state.sequence,
            owner=await network.sealing_key(chart.subject),
            author=who.keys.keyid,
            for_=who.staff.organisation,
            compartments={name: (epoch, SealingPublicKey(unb64(key))) for name, (epoch, key) in newest.items()},
            custodians=await network.custodian_keys(subject.custodians),
            threshold=subject.threshold,
            records=[
                RecordPlan(
                    compartment=compartment,
                    header=HEADER,
                    resources=[(f"urn:uuid:{number}", b'{"resourceType": "Basic", "id": "%d"}' % number)],
                )
                for number in range(count)
            ],
        )

    def seal(self, plan: SubmissionPlan, *, clinician: Clinician | None = None) -> Submission:
        who = clinician or self.author
        made = seal_submission(plan, signer=who.keys.signing, now_ms=now_ms(), rand=os.urandom)
        return msgspec.structs.replace(made, affiliation=who.staff.affiliation)

    def forge(
        self,
        submission: Submission,
        *,
        manifests: Sequence[bytes] | None = None,
        locks: Sequence[bytes] | None = None,
        ciphertexts: Sequence[bytes] | None = None,
        clinician: Clinician | None = None,
        **statement_changes: Any,
    ) -> Submission:
        """The submission with other parts, its trees built anew and signed by its author, who lies."""
        who = clinician or self.author
        manifests = list(submission.manifests if manifests is None else manifests)
        locks = list(submission.locks if locks is None else locks)
        seed = submission.filler
        manifest_leaves = arrange(
            [manifest_leaf(one) for one in manifests], tree="manifests", seed=seed, rand=os.urandom
        )
        lock_leaves = arrange([lock_leaf(one) for one in locks], tree="locks", seed=seed, rand=os.urandom)
        statement = msgspec.structs.replace(
            statement_of(submission),
            manifests_root=leaves_root(manifest_leaves).hex(),
            locks_root=leaves_root(lock_leaves).hex(),
            **statement_changes,
        )
        return msgspec.structs.replace(
            submission,
            envelope=encode(sign(statement.TYPE, encode(statement), [who.keys.signer])),
            manifests=manifests,
            locks=locks,
            ciphertexts=list(submission.ciphertexts if ciphertexts is None else ciphertexts),
            manifest_leaves=manifest_leaves,
            lock_leaves=lock_leaves,
        )


def statement_of(submission: Submission) -> SubmissionStatement:
    return decode(unb64(decode(submission.envelope, Envelope).payload), SubmissionStatement)


def refused(answer: Answer) -> Error:
    """The refusal in an answer that must be one."""
    assert answer.status != 200, f"not refused: {answer.body[:80]!r}"
    return refusal(answer, now_ms=now_ms())


def entries_about(store: sqlite3.Connection, subject: str, kind: int = 1) -> list[tuple[int, dict[str, Any]]]:
    """(index, body) of a subject's entries of one kind (0 keep, 1 access) in a node's store."""
    rows = store.execute(
        "SELECT idx, body FROM entries e JOIN subjects s ON s.id = e.subject WHERE s.token = ? AND kind = ? ORDER BY 1",
        (subject, kind),
    )
    return [(index, msgspec.json.decode(body)) for index, body in rows]
