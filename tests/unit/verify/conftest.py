"""A real network that has lived a little, in one process and as folders on disk; and an operator with a node's keys."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

import careledger.client as c
from careledger.access import Basis, leaf_of_commitment
from careledger.access.entry import KINDS, leaf
from careledger.client.release import asked
from careledger.consent import NO_HEAD
from careledger.custody import Acceptance, Custodian, Documents, Events, Exchange, Reading, Release, Shelf, Witness
from careledger.directory import Enrol, MemberPart, founding, network_of, sign_transaction
from careledger.directory.engines.embedded import Sequencer
from careledger.errors import Error, UnavailableError
from careledger.fhir import demo_patients
from careledger.identity import Inception, NewIdentity, new_organisation
from careledger.node.api import Api
from careledger.node.background import Background
from careledger.node.evidence import Evidence
from careledger.node.reports import Metrics
from careledger.node.settings import NodeFolder, create_node
from careledger.node.standing import Standing
from careledger.seal import Envelope, SigningKey, encode, keyid, unb64
from careledger.tlog import (
    CHECKPOINT_PATH,
    Checkpoint,
    cosign,
    sign_checkpoint,
    tail_of_entries,
)
from careledger.transport import Answer
from careledger.verify import (
    LogReport,
    Trust,
    VerifiedDirectory,
    folder_fetch,
    load_bodies,
    trust_of_directory,
    verify_directory,
    verify_log,
)

DAY_MS = 86_400_000
NOTE = (
    b'{"resourceType":"Bundle","type":"collection","entry":[{"fullUrl":"urn:uuid:p","resource":{"resourceType":"Patient",'
    b'"id":"p"}},{"fullUrl":"urn:uuid:o","resource":{"resourceType":"Observation","status":"final","code":{"text":"seen"},'
    b'"subject":{"reference":"urn:uuid:p"},"effectiveDateTime":"2024-05-01"}}]}'
)
ROUTES = {
    "/v1/access": "access",
    "/v1/submission": "submission",
    "/v1/consent": "consent",
    "/v1/consent/read": "consent_read",
    "/v1/document": "document",
    "/v1/audit": "audit",
    "/v1/sync": "sync",
    "/witness/add-checkpoint": "add_checkpoint",
}


class Clock:
    def __init__(self) -> None:
        self.ms = 1_790_000_000_000

    def __call__(self) -> int:
        self.ms += 1
        return self.ms


class Node:
    """A node as `careledger node run` puts it together, without its process and sockets."""

    def __init__(self, path: Path, *, town: Town, number: int) -> None:
        self.path, self.town = path, town
        self.url = f"http://node-{number}.example"
        self.part = create_node(path, url=self.url, host="127.0.0.1", port=1000 + number, rand=os.urandom)
        self.up = True

    def serve(self, engine: Sequencer) -> None:
        folder, clock = NodeFolder(self.path), self.town.clock
        self.token, network, directory = folder.settings.token, self.town.id, engine.directory
        self.signer = (keyid(self.token, 0), folder.signing_key)
        self.cosigner = folder.cosigner(network)
        self.standing = Standing(self.token, directory, now_ms=clock)
        self.standing.rollback = "checked"
        self.custodian = Custodian(
            self.path,
            node=self.token,
            directory=directory,
            sealing=folder.sealing_keys(),
            log_signer=folder.log_signer(network),
            now_ms=clock,
            rand=os.urandom,
            heads_age_ms=lambda *_: 0,
        )
        shelf = Shelf(self.custodian.store)
        acceptance, documents, events = Acceptance(self.custodian), Documents(self.custodian), Events(self.custodian)
        exchange = Exchange(self.custodian, shelf, documents=documents, events=events, acceptance=acceptance)
        self.witness = Witness(self.path / "witness.db", signer=self.cosigner, now_s=lambda: clock() // 1000)
        self.api = Api(
            self.custodian,
            self.standing,
            release=Release(self.custodian, shelf),
            acceptance=acceptance,
            documents=documents,
            events=events,
            reading=Reading(self.custodian),
            exchange=exchange,
            witness=self.witness,
        )
        self.background = Background(
            self.custodian,
            self.standing,
            exchange,
            signer=self.signer,
            transport=self.town,
            metrics=Metrics(),
            submit=self.town.order,
            witnesses=[],
            evidence=Evidence(self.witness, self.standing.directory, signer=self.signer, submit=self.town.order),
        )

    async def close(self) -> None:
        await self.custodian.close()
        self.witness.close()


class Town:
    """Four members with a node each and one sequencer; also the wire between them and to people."""

    def __init__(self, base: Path) -> None:
        self.base, self.clock = base, Clock()
        self.nodes = [Node(base / "nodes" / f"node-{number}", town=self, number=number) for number in range(1, 5)]
        tokens = [NodeFolder(node.path).settings.token for node in self.nodes]
        self.organisations: list[NewIdentity] = [new_organisation(nodes=[one], rand=os.urandom) for one in tokens]
        self.genesis = founding(
            [
                MemberPart(made.envelope, [node.part], ("licensor", "provider"))
                for made, node in zip(self.organisations, self.nodes, strict=True)
            ],
            time_ms=self.clock(),
            nonce=os.urandom(16),
            parameters={"requests_per_hour": 1000, "anchor_min_ms": 1},
        )
        self.id = network_of(self.genesis)
        (base / "nodes" / "genesis.json").write_bytes(self.genesis)
        for node in self.nodes:
            NodeFolder(node.path).join(self.genesis, network=self.id)
        first = NodeFolder(self.nodes[0].path)
        (first.path / "directory").mkdir()
        self.engine = Sequencer(
            first.path / "directory" / "directory.db",
            genesis=self.genesis,
            node=first.settings.token,
            log_key=SigningKey(unb64(first.secrets.log)),
            witness=SigningKey(unb64(first.secrets.witness)),
            now_ms=self.clock(),
            folder=first.path / "directory" / "log",
        )
        for node in self.nodes:
            node.serve(self.engine)

    async def order(self, envelopes: list[Envelope], *, by: int = 0) -> list[dict[str, str]]:
        node = self.nodes[by]
        wrapped = [
            sign_transaction(Enrol(v=1, network=self.id, node=node.token, inception=one), signers=[node.signer])
            if one.payloadType == Inception.TYPE
            else one
            for one in envelopes
        ]
        done = self.engine.submit(wrapped, now_ms=self.clock())
        text = self.engine.checkpoint()
        text = text[: text.index(b"\n\n") + 1]
        for other in self.nodes[1:]:
            line = cosign(text, signer=other.cosigner, now_s=self.clock() // 1000)
            self.engine.add_cosignature(self.engine.height, line)
        return [{"code": one.code, "message": one.message} for one in done]

    async def publish(self) -> None:
        """Every node's log cosigned by the others and anchored."""
        for node in self.nodes:
            if node.up:
                await node.background.publish()
                await node.background.anchor()

    async def post(self, url: str, path: str, body: bytes, **_: object) -> Answer:
        node = next(one for one in self.nodes if one.url == url)
        if not node.up:
            raise UnavailableError("unreachable", "the node is down")
        if path == "/v1/audit":
            await self.publish()
        try:
            if path in ROUTES:
                answered = await getattr(node.api, ROUTES[path])(body)
                return Answer(answered.status, answered.body, {})
            results = await self.order(msgspec.json.decode(body, type=list[Envelope]), by=self.nodes.index(node))
            return Answer(200, msgspec.json.encode({"results": results, "height": self.engine.height}), {})
        except Error as error:
            return self._refusal(error)

    async def get(self, url: str, path: str, **_: object) -> Answer:
        node = next(one for one in self.nodes if one.url == url)
        if not node.up:
            raise UnavailableError("unreachable", "the node is down")
        try:
            if path.startswith("/v1/document/"):
                return Answer(200, (await node.api.document_of(path.rpartition("/")[2])).body, {})
            if path.startswith("/v1/directory/identity/"):
                token = path.rpartition("/")[2]
                found = {"state": self.engine.directory.identity(token), "operations": self.engine.operations(token)}
                return Answer(200, msgspec.json.encode(found), {})
            kind, _, ident = path.partition("?")[0].removeprefix("/v1/directory/proof/").partition("/")
            proof = self.engine.directory.prove_state(kind, ident)
            return Answer(
                200, msgspec.json.encode({"proof": proof, "checkpoint": self.engine.checkpoint().decode()}), {}
            )
        except Error as error:
            return self._refusal(error)

    def _refusal(self, error: Error) -> Answer:
        details = {k: v for k, v in error.details.items() if isinstance(v, str | int | list | dict)}
        said = {"code": error.code, "message": error.message, "details": details, "time": self.clock()}
        return Answer(error.http_status, encode(said), {})

    async def close(self) -> None:
        for node in self.nodes:
            await node.close()
        self.engine.close()
        log = self.nodes[0].path / "directory" / "log"
        for node in self.nodes[1:]:
            shutil.copytree(log, node.path / "directory" / "log")


@dataclass(frozen=True)
class Story:
    """Folders of four stopped nodes, an export, and what was handed out meanwhile."""

    nodes: Path
    genesis: bytes
    network: str
    patient: str
    export: Path
    receipts: dict[str, bytes]
    """node token -> receipt of one allowed access."""
    consent_receipt: bytes
    proof: bytes
    absent: bytes
    elsewhere: str
    """A patient that node 4 is no custodian of."""
    gone: str
    """An identity that was deactivated."""
    doctor: tuple[str, bytes]
    """keyid and signing seed of a reader that the export knows."""
    patient_keys: list[tuple[str, bytes]]
    """keyids and signing seeds of the patient, before and after its rotation."""

    def node(self, number: int) -> Path:
        return self.nodes / f"node-{number}"


async def _refused(call) -> str:
    try:
        await call
    except Error as problem:
        return problem.code
    raise AssertionError("it was not refused")


async def _lived(base: Path) -> Story:
    town = Town(base)
    network = c.Network(town.genesis, wire=town, now_ms=town.clock, rand=os.urandom)
    organisations = [
        c.keep_organisation(base / f"org{at}", made, network=network.id, passphrase="x", rand=os.urandom)
        for at, made in enumerate(town.organisations[:2])
    ]
    for one in organisations:
        await c.publish_organisation(network, one.folder)
    doctor = await c.enrol_person(network, base / "doctor", passphrase="x")
    stranger = await c.enrol_person(network, base / "stranger", passphrase="x")
    enrolled, patient = await c.enrol_patient(network, base / "patient", passphrase="x")
    clinic = c.Organisation(network, organisations[0].folder.keys, state=organisations[0].folder)
    passed = await clinic.staff_pass(doctor.token, role="physician")
    await clinic.license(doctor.token, role="physician", until_ms=town.clock.ms + DAY_MS)
    staff = await c.open_staff_pass(passed, doctor.folder.keys, network=network)
    author = c.Author(network, doctor.folder.keys, state=doctor.folder, staff=staff)
    # Without a grant: into the inbox, twice.
    name, data = demo_patients()[1]
    await author.import_file(enrolled.token, name, [data])
    await author.import_file(enrolled.token, "note.json", [NOTE], confirmed=True)
    categories = [one for one in patient.chain.categories() if one != "inbox" and not one.startswith("spare")]
    granted = await patient.grant(
        organisations[0].token,
        categories=[*categories, "inbox"],
        rights=["read", "contribute"],
        expires_ms=town.clock.ms + DAY_MS,
    )
    await town.publish()
    # One custodian misses what follows and is told by its peers.
    town.nodes[3].up = False
    reader = c.Reader(network, doctor.folder.keys, staff=staff)
    author = c.Author(network, doctor.folder.keys, state=doctor.folder, staff=staff)
    name, data = demo_patients()[2]
    await author.import_file(enrolled.token, name, [data], confirmed=True)
    await town.publish()
    town.nodes[3].up = True
    await town.nodes[3].background.sync_all()
    listed = await reader.list(enrolled.token, purpose="TREAT")
    records = [bytes.fromhex(one.record) for one in listed.manifests]
    opened = await reader.open(enrolled.token, records, purpose="TREAT")
    assert opened.records
    assert not opened.failed
    await town.publish()
    request = asked(
        stranger.folder.keys,
        network=network.id,
        subject=enrolled.token,
        records=records[:2],
        purpose="TREAT",
        basis=Basis(kind="grant"),
        head=(0, NO_HEAD),
        client="curious",
        now_ms=town.clock(),
        rand=os.urandom,
        organisation=None,
        affiliation=None,
        affiliation_id=None,
    )
    for node in town.nodes:
        assert (await town.post(node.url, "/v1/access", request.message(content=False))).status == 403
    owned = await c.Owner(patient).open_all()
    revoked = await patient.revoke(granted.grant)
    assert await _refused(reader.open(enrolled.token, records, purpose="TREAT")) == "revoked"
    patient_keys = [(enrolled.folder.keys.keyid, enrolled.folder.keys.device.sign)]
    rotated, _ = await c.rotate(network, enrolled.folder, kit=enrolled.kit, passphrase="x")
    await rotated.refresh()
    patient_keys.append((rotated.keys.keyid, rotated.keys.device.sign))
    manager = c.Manager(
        network, organisations[1].folder.keys, organisation=organisations[1].token, state=organisations[1].folder
    )
    managed, code = await manager.enrol()
    await manager.act(managed)
    await c.claim(network, base / "claimed", token=managed, code=code, passphrase="y", countersign=manager.countersign)
    elsewhere, _ = await c.enrol_patient(
        network, base / "elsewhere", passphrase="x", custodians=[node.token for node in town.nodes[:3]]
    )
    await c.deactivate(network, stranger.folder, kit=stranger.kit)
    trail = await c.audit(network, enrolled.folder.keys, state=enrolled.folder)
    assert trail.complete, {node: str(problem) for node, problem in trail.missing.items()}
    exported = await c.export_record(network, owned, subject=enrolled.token, trail=trail)
    c.write_export(base / "export", exported)
    proofs = [await network.directory_proof("identity", one) for one in (enrolled.token, "cl1" + "q" * 46)]
    await town.publish()
    await town.close()
    return Story(
        nodes=base / "nodes",
        genesis=town.genesis,
        network=network.id,
        patient=enrolled.token,
        export=base / "export",
        receipts=opened.receipts,
        consent_receipt=next(iter(revoked.receipts.values()))[0],
        proof=msgspec.json.encode(proofs[0]),
        absent=msgspec.json.encode(proofs[1]),
        elsewhere=elsewhere.token,
        gone=stranger.token,
        doctor=(doctor.folder.keys.keyid, doctor.folder.keys.device.sign),
        patient_keys=patient_keys,
    )


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return asyncio.run(_lived(tmp_path_factory.mktemp("network")))


class Operator:
    """A node's operator at work on a copy of its folder: has its store and all its keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _db(self) -> sqlite3.Connection:
        return sqlite3.connect(self.folder / "store" / "main.db")

    def entry(self, index: int) -> tuple[str, bytes, bytes]:
        """(kind, salt, body)."""
        db = self._db()
        try:
            kind, salt, body = db.execute("SELECT kind, salt, body FROM entries WHERE idx = ?", (index,)).fetchone()
        finally:
            db.close()
        return KINDS[kind], salt, body

    def bodies(self) -> list[tuple[int, str, dict[str, object]]]:
        """(index, kind, decoded body) of every entry."""
        db = self._db()
        try:
            rows = db.execute("SELECT idx, kind, body FROM entries ORDER BY idx").fetchall()
        finally:
            db.close()
        return [(index, KINDS[kind], msgspec.json.decode(body)) for index, kind, body in rows if body is not None]

    def find(self, **fields: object) -> int:
        """The index of the first entry whose body has these fields."""
        for index, _, body in self.bodies():
            if all(body.get(name) == value for name, value in fields.items()):
                return index
        raise AssertionError(f"no entry has {fields}")

    def row(self, sql: str, parameters: tuple[object, ...]) -> tuple[object, ...]:
        db = self._db()
        try:
            return db.execute(sql, parameters).fetchone()
        finally:
            db.close()

    def execute(self, sql: str, parameters: tuple[object, ...] = ()) -> None:
        db = self._db()
        try:
            with db:
                db.execute(sql, parameters)
        finally:
            db.close()

    def put(self, index: int, body: bytes, *, kind: str | None = None) -> None:
        """Rewrite an entry in the store so that body, digest and leaf agree again."""
        old_kind, salt, _ = self.entry(index)
        digest = bytes.fromhex(leaf(kind or old_kind, salt, body)[-64:].decode())
        self.execute(
            "UPDATE entries SET kind = ?, body = ?, digest = ? WHERE idx = ?",
            (KINDS.index(kind or old_kind), body, digest, index),
        )

    def change(self, index: int, **fields: object) -> None:
        """Rewrite fields of an entry's body (None removes one)."""
        body = msgspec.json.decode(self.entry(index)[2])
        body.update(fields)
        body = {name: value for name, value in body.items() if value is not None}
        self.put(index, msgspec.json.encode(body, order="sorted"))

    def append(self, kind: str, body: dict[str, object]) -> int:
        db = self._db()
        try:
            (index,) = db.execute("SELECT max(idx) + 1 FROM entries").fetchone()
        finally:
            db.close()
        salt = os.urandom(32)
        data = msgspec.json.encode({**body, "index": index, "kind": kind}, order="sorted")
        digest = bytes.fromhex(leaf(kind, salt, data)[-64:].decode())
        self.execute("INSERT INTO entries VALUES(?,?,?,?,?,NULL)", (index, KINDS.index(kind), digest, salt, data))
        return index

    def leaves(self) -> list[bytes]:
        db = self._db()
        try:
            rows = db.execute("SELECT kind, digest FROM entries ORDER BY idx").fetchall()
        finally:
            db.close()
        return [leaf_of_commitment(KINDS[kind], digest) for kind, digest in rows]

    def publish(self, *, leaves: list[bytes] | None = None) -> None:
        """Rebuild all tiles from the store and sign the new root with the node's own key."""
        publish(self.folder, self.leaves() if leaves is None else leaves)


def publish(folder: Path, leaves: list[bytes]) -> None:
    tail, files = tail_of_entries(leaves)
    log = folder / "log"
    node = NodeFolder(folder)
    signer = node.log_signer(network_of(node.genesis))
    shutil.rmtree(log)
    for path, data in files.items():
        (log / path).parent.mkdir(parents=True, exist_ok=True)
        (log / path).write_bytes(data)
    (log / CHECKPOINT_PATH).write_bytes(sign_checkpoint(Checkpoint(signer.name, tail.size, tail.root()), signer=signer))


@pytest.fixture
def operator(story: Story, tmp_path: Path) -> Callable[[int], Operator]:
    """A copy of a node's folder in its operator's hands."""

    def copy(number: int = 1) -> Operator:
        target = tmp_path / f"node-{number}"
        if not target.exists():
            shutil.copytree(story.node(number), target)
        return Operator(target)

    return copy


@pytest.fixture
def with_entry(operator: Callable[[int], Operator]) -> Callable[..., tuple[Operator, int]]:
    """The first node that has an entry with these fields in its body, in its operator's hands, and the index: requests
    go to t of n custodians, so that not every log has every one."""

    def find(**fields: object) -> tuple[Operator, int]:
        for number in range(1, 5):
            node = operator(number)
            for index, _, body in node.bodies():
                if all(body.get(name) == value for name, value in fields.items()):
                    return node, index
        raise AssertionError(f"no node has an entry with {fields}")

    return find


@dataclass(frozen=True)
class Known:
    """What an auditor knows before it looks at a log."""

    directory: VerifiedDirectory
    trust: Trust
    tokens: dict[int, str]

    def options(self, number: int) -> dict[str, object]:
        """Arguments of verify_log for a node's log."""
        token = self.tokens[number]
        return {
            "verifier": self.trust.log(token),
            "witnesses": self.trust.witnesses(besides=token),
            "cosignatures_needed": 3,
        }


@pytest.fixture(scope="session")
def auditor(story: Story) -> Known:
    directory = verify_directory(
        folder_fetch(story.node(1) / "directory" / "log"), story.genesis, network=story.network
    )
    tokens = {number: NodeFolder(story.node(number)).settings.token for number in range(1, 5)}
    return Known(directory, trust_of_directory(directory.directory), tokens)


@pytest.fixture
def audit_decisions(auditor: Known) -> Callable[[Operator], LogReport]:
    """Verifies an operator's log by its bodies and decisions alone: nobody else is asked."""

    def run(operator: Operator) -> LogReport:
        verifier = auditor.trust.log(NodeFolder(operator.folder).settings.token)
        with load_bodies(operator.folder / "store" / "main.db") as store:
            return verify_log(
                folder_fetch(operator.folder / "log"),
                verifier=verifier,
                bodies=store.bodies,
                history=auditor.directory.history,
                documents=store.document,
            )

    return run
