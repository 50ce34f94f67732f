"""A network in one process: real custodians over an in-memory wire on which tests put liars, sleepers and thieves."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from careledger.client import HeldKeys, MemoryState, Network, Organisation, Patient, Staff, open_staff_pass
from careledger.client.author import Author, Imported
from careledger.client.enrolment import publish_document, remember_new
from careledger.client.network import Subject
from careledger.client.reader import Reader
from careledger.custody import Acceptance, Custodian, Documents, Events, Exchange, Reading, Release, Shelf, Witness
from careledger.directory import Enrol, MemberPart, NodePart, founding, log_origin, network_of, sign_transaction
from careledger.directory.engines.embedded import Sequencer
from careledger.errors import Error, UnavailableError
from careledger.fhir import ReadOptions, read_file
from careledger.identity import Inception, NewIdentity, new_organisation, new_person, new_software
from careledger.node.api import Api
from careledger.node.standing import Standing
from careledger.seal import Envelope, SealingKey, SigningKey, encode, keyid
from careledger.tlog import Cosigner, Ed25519SigningKey, Signer, cosign
from careledger.transport import Answer

CATEGORIES = ("about", "conditions", "results", "visits", "private")

Fault = Callable[[str, bytes, Callable[[], Awaitable[Answer]]], Awaitable[Answer]]
"""(path, body, what the honest node would do) -> what this one does."""


class Clock:
    """The time that everybody but a test's fault believes."""

    def __init__(self) -> None:
        self.ms = 1_790_000_000_000

    def __call__(self) -> int:
        self.ms += 1
        return self.ms


class LabNode:
    """One custodian with its API; `off_ms` is how wrong its clock is."""

    def __init__(self, folder: Path, number: int, clock: Clock) -> None:
        self.folder = folder / f"node-{number}"
        self.url = f"http://node-{number}.example"
        self.clock = clock
        self.off_ms = 0
        self.identity = new_software(rand=os.urandom)
        self.token = self.identity.token
        self.log_seed, self.witness_seed = os.urandom(32), os.urandom(32)
        self.fault: Fault | None = None
        self.asked: list[str] = []

    @property
    def part(self) -> NodePart:
        log, witness = SigningKey(self.log_seed).public, SigningKey(self.witness_seed).public
        return NodePart(self.identity.envelope, self.url, log, witness)

    def now_ms(self) -> int:
        return self.clock() + self.off_ms

    def serve(self, engine: Sequencer) -> None:
        directory = engine.directory
        device = self.identity.secrets.device
        name = log_origin(directory.network, self.token)
        self.log_signer = Signer(name, Ed25519SigningKey(self.log_seed))
        self.cosigner = Cosigner(name, Ed25519SigningKey(self.witness_seed))
        self.custodian = Custodian(
            self.folder,
            node=self.token,
            directory=directory,
            sealing={keyid(self.token, 0): SealingKey(device.seal)},
            log_signer=self.log_signer,
            now_ms=self.now_ms,
            rand=os.urandom,
            heads_age_ms=lambda *_: 0,
        )
        standing = Standing(self.token, directory, now_ms=self.now_ms)
        standing.rollback = "checked"
        shelf = Shelf(self.custodian.store)
        acceptance, documents, events = Acceptance(self.custodian), Documents(self.custodian), Events(self.custodian)
        self.api = Api(
            self.custodian,
            standing,
            release=Release(self.custodian, shelf),
            acceptance=acceptance,
            documents=documents,
            events=events,
            reading=Reading(self.custodian),
            exchange=Exchange(self.custodian, shelf, documents=documents, events=events, acceptance=acceptance),
            witness=Witness(self.folder / "witness.db", signer=self.cosigner, now_s=lambda: self.now_ms() // 1000),
        )

    def publish(self, witnesses: list[LabNode]) -> None:
        """Publish the log as it is, cosigned by the given nodes."""
        size, root = self.custodian.files.write()
        note = self.custodian.sign(size, root)
        text = note[: note.index(b"\n\n") + 1]
        lines = [cosign(text, signer=one.cosigner, now_s=self.now_ms() // 1000) for one in witnesses]
        self.custodian.publish(size, note + b"".join(lines))


class Wire:
    """careledger.client's transport, without sockets."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    async def post(self, url: str, path: str, body: bytes, *, content: str = "application/msgpack") -> Answer:
        return await self._to(url, path, body)

    async def get(self, url: str, path: str) -> Answer:
        return await self._to(url, path, b"")

    async def _to(self, url: str, path: str, body: bytes) -> Answer:
        node = self.lab.by_url[url]
        node.asked.append(path)

        async def honest() -> Answer:
            return await self._honest(node, path, body)

        if node.fault is not None:
            return await node.fault(path, body, honest)
        return await honest()

    async def _honest(self, node: LabNode, path: str, body: bytes) -> Answer:
        try:
            return await self._answer(node, path.partition("?")[0], body)
        except Error as error:
            details = {k: v for k, v in error.details.items() if isinstance(v, str | int | list | dict)}
            refusal = {"code": error.code, "message": error.message, "details": details, "time": node.now_ms()}
            return Answer(error.http_status, encode(refusal), {"content-type": "application/json"})

    async def _answer(self, node: LabNode, path: str, body: bytes) -> Answer:
        calls: dict[str, Any] = {
            "/v1/access": node.api.access,
            "/v1/submission": node.api.submission,
            "/v1/consent": node.api.consent,
            "/v1/consent/read": node.api.consent_read,
            "/v1/document": node.api.document,
            "/v1/audit": node.api.audit,
        }
        if path == "/v1/audit":
            node.publish([other for other in self.lab.nodes if other is not node])
        if path in calls:
            answered = await calls[path](body)
        elif path.startswith("/v1/document/"):
            answered = await node.api.document_of(path.rpartition("/")[2])
        else:
            return self._directory(node, path, body)
        return Answer(answered.status, answered.body, {"content-type": answered.content.decode()})

    def _directory(self, node: LabNode, path: str, body: bytes) -> Answer:
        engine = self.lab.engine
        if path == "/v1/directory/transaction":
            results = self.lab.order(msgspec.json.decode(body, type=list[Envelope]), by=node)
            answer: object = {"results": results, "height": engine.height}
        elif path.startswith("/v1/directory/identity/"):
            token = path.rpartition("/")[2]
            state = engine.directory.identity(token)
            if state is None:
                return Answer(404, encode({"code": "unknown-identity", "message": "no", "details": {}, "time": 0}), {})
            answer = {"state": state, "operations": engine.operations(token)}
        else:
            kind, _, ident = path.removeprefix("/v1/directory/proof/").partition("/")
            answer = {"proof": engine.directory.prove_state(kind, ident), "checkpoint": self.lab.note_of(node)}
        return Answer(200, msgspec.json.encode(answer), {"content-type": "application/json"})


class Lab:
    """Four members with a node each, a directory, and the people that tests need."""

    def __init__(self, folder: Path, *, members: int = 4) -> None:
        self.folder = folder
        self.clock = Clock()
        self.runner = asyncio.Runner()
        self.nodes = [LabNode(folder, number, self.clock) for number in range(members)]
        self.by_url = {node.url: node for node in self.nodes}
        self.by_token = {node.token: node for node in self.nodes}
        self.organisations: list[NewIdentity] = [
            new_organisation(nodes=[node.token], rand=os.urandom) for node in self.nodes
        ]
        self.genesis = founding(
            [
                MemberPart(organisation.envelope, [node.part], ("licensor", "provider"))
                for organisation, node in zip(self.organisations, self.nodes, strict=True)
            ],
            time_ms=self.clock(),
            nonce=os.urandom(16),
            parameters={"requests_per_hour": 1_000_000},
        )
        self.id = network_of(self.genesis)
        first = self.nodes[0]
        self.engine = Sequencer(
            folder / "directory.db",
            genesis=self.genesis,
            node=first.token,
            log_key=SigningKey(first.log_seed),
            witness=SigningKey(first.witness_seed),
            now_ms=self.clock(),
        )
        for node in self.nodes:
            node.serve(self.engine)
        self.wire = Wire(self)
        self.network = self.new_network()
        self.withhold_cosignatures = False

    def new_network(self) -> Network:
        """Another client's view, with nothing cached."""
        return Network(self.genesis, wire=self.wire, now_ms=self.clock, rand=os.urandom)

    def run(self, work: Awaitable[Any]) -> Any:
        async def main() -> Any:
            return await work

        return self.runner.run(main())

    def order(self, envelopes: list[Envelope], *, by: LabNode) -> list[dict[str, str]]:
        signer = (keyid(by.token, 0), by.identity.secrets.device.signing_key())
        wrapped = [
            sign_transaction(Enrol(v=1, network=self.id, node=by.token, inception=one), signers=[signer])
            if one.payloadType == Inception.TYPE
            else one
            for one in envelopes
        ]
        done = self.engine.submit(wrapped, now_ms=self.clock())
        return [{"code": one.code, "message": one.message} for one in done]

    def note_of(self, node: LabNode) -> str:
        """The directory's checkpoint as this node has it: the sequencer's signature, and cosignatures."""
        note = self.engine.checkpoint().decode()
        text = note[: note.index("\n\n") + 1].encode()
        lines = "" if self.withhold_cosignatures else cosign(text, signer=node.cosigner, now_s=1_790_000_000).decode()
        return note + ("" if lines in note else lines)

    def heal(self) -> None:
        for node in self.nodes:
            node.fault = None
            node.off_ms = 0
            node.asked.clear()
        self.withhold_cosignatures = False

    def close(self) -> None:
        async def close() -> None:
            for node in self.nodes:
                await node.custodian.close()

        self.run(close())
        self.engine.close()
        self.runner.close()

    # People

    async def person(self) -> HeldKeys:
        made = new_person(custodians=(), rand=os.urandom)
        await self.network.transact([made.envelope])
        return HeldKeys(token=made.token, kind="person", device=made.secrets.device)

    async def patient(self, *, n: int = 4) -> Patient:
        made = new_person(custodians=[node.token for node in self.nodes[:n]], rand=os.urandom)
        await self.network.transact([made.envelope])
        subject: Subject = await remember_new(self.network, made)
        await publish_document(self.network, subject)
        patient = Patient(
            self.network, HeldKeys(token=made.token, kind="person", device=made.secrets.device), state=MemoryState()
        )
        await patient.begin()
        return patient

    async def organisation(self, number: int) -> Organisation:
        made = self.organisations[number]
        state = MemoryState()
        state.save("reading", [(0, made.secrets.reading_seed)])
        keys = HeldKeys(token=made.token, kind="organisation", device=made.secrets.device)
        message = [made.token, made.salt, made.document, None, None]
        for node in self.nodes:
            await self.wire.post(node.url, "/v1/document", msgspec.msgpack.encode(message))
        return Organisation(self.network, keys, state=state)

    async def clinician(self, organisation: int = 1, *, licensed: bool = True) -> tuple[HeldKeys, Staff]:
        keys = await self.person()
        made = await self.organisation(organisation)
        staff = await open_staff_pass(await made.staff_pass(keys.token, role="physician"), keys, network=self.network)
        if licensed:
            await made.license(keys.token, role="physician", until_ms=self.clock.ms + 86_400_000)
        return keys, staff

    def expires(self) -> int:
        return self.clock.ms + 30 * 86_400_000


def bundle(count: int = 3, *, name: str = "Kowalczyk", patient_id: str = "p1", note: str = "") -> bytes:
    """A small transaction: a Patient, an Encounter and `count` Observations of it."""

    def entry(full_url: str, resource: dict[str, Any]) -> dict[str, Any]:
        return {"fullUrl": full_url, "resource": resource, "request": {"method": "POST", "url": "x"}}

    subject = {"reference": f"urn:uuid:{patient_id}"}
    person: dict[str, Any] = {
        "resourceType": "Patient",
        "id": patient_id,
        "name": [{"family": name}],
        "birthDate": "1970-01-01",
    }
    visit: dict[str, Any] = {
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"code": "AMB"},
        "subject": subject,
        "period": {"start": "2024-05-01T10:00:00Z", "end": "2024-05-01T10:20:00Z"},
    }
    entries = [entry(f"urn:uuid:{patient_id}", person), entry("urn:uuid:e1", visit)]
    for number in range(count):
        observation = {
            "resourceType": "Observation",
            "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": "4548-4"}], "text": f"HbA1c {number}{note}"},
            "subject": subject,
            "encounter": {"reference": "urn:uuid:e1"},
            "effectiveDateTime": "2024-05-01T10:00:00Z",
            "valueQuantity": {"value": 6 + number, "unit": "%"},
        }
        entries.append(entry(f"urn:uuid:o{number}", observation))
    return msgspec.json.encode({"resourceType": "Bundle", "type": "transaction", "entry": entries})


class Treated:
    """A patient with imported records, a clinician whose organisation was granted them, and that clinician's tools."""

    def __init__(
        self, lab: Lab, patient: Patient, keys: HeldKeys, staff: Staff, grant: str, author: Author, done: Imported
    ) -> None:
        self.lab = lab
        self.patient = patient
        self.keys = keys
        self.staff = staff
        self.grant = grant
        self.author = author
        self.imported = done
        self.records = [bytes.fromhex(record) for sent in done.sent for record in sent.records]

    @property
    def subject(self) -> str:
        return self.patient.subject

    def reader(self) -> Reader:
        return Reader(self.lab.network, self.keys, staff=self.staff)


async def treat(lab: Lab, *, n: int = 4, data: bytes | None = None) -> Treated:
    patient = await lab.patient(n=n)
    keys, staff = await lab.clinician()
    given = await patient.grant(
        staff.organisation, categories=CATEGORIES, rights=["read", "contribute"], expires_ms=lab.expires()
    )
    author = Author(lab.network, keys, state=MemoryState(), staff=staff)
    reading = read_file("file.json", [data or bundle()], options=ReadOptions())
    done = await author.import_reading(patient.subject, reading)
    return Treated(lab, patient, keys, staff, given.grant, author, done)


@pytest.fixture(scope="session")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.close()


@pytest.fixture
def lab(shared_lab: Lab) -> Iterator[Lab]:
    shared_lab.heal()
    yield shared_lab
    shared_lab.heal()


@pytest.fixture(scope="session")
def shared_treated(shared_lab: Lab) -> Treated:
    result: Treated = shared_lab.run(treat(shared_lab))
    return result


@pytest.fixture
def treated(lab: Lab, shared_treated: Treated) -> Treated:
    return shared_treated


@pytest.fixture
def make_bundle() -> Callable[..., bytes]:
    return bundle


@pytest.fixture
def make_treated(lab: Lab) -> Callable[..., Treated]:
    def make(**kwargs: Any) -> Treated:
        result: Treated = lab.run(treat(lab, **kwargs))
        return result

    return make


async def dead(path: str, body: bytes, honest: Callable[[], Awaitable[Answer]]) -> Answer:
    raise UnavailableError("unreachable", "the node cannot be reached; try again later")


async def silent(path: str, body: bytes, honest: Callable[[], Awaitable[Answer]]) -> Answer:
    await asyncio.Event().wait()
    raise AssertionError("nobody wakes it")


async def garbage(path: str, body: bytes, honest: Callable[[], Awaitable[Answer]]) -> Answer:
    return Answer(200, b"\x93\xff\x00<html>", {"content-type": "text/html"})


@pytest.fixture
def faults() -> dict[str, Fault]:
    return {"dead": dead, "silent": silent, "garbage": garbage}
