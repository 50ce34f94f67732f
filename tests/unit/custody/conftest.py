"""A small directory and real custodians without HTTP: what people send is built here, and what they should not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from careledger.access import (
    AccessMessage,
    AccessRequest,
    Basis,
    DocumentMessage,
    Head,
    ReadAudit,
    ReadConsent,
    SignedRead,
    sign_request,
)
from careledger.consent import (
    EMPTY,
    NO_HEAD,
    ConsentState,
    EventMessage,
    Writer,
    decode_event,
    first_compartments,
    fold,
    make_grant,
    make_rekey,
    make_revocation,
)
from careledger.custody import (
    Acceptance,
    Custodian,
    Documents,
    Events,
    Exchange,
    Reading,
    Release,
    Shelf,
)
from careledger.directory import (
    Block,
    Directory,
    Enrol,
    MemberPart,
    NodePart,
    founding,
    log_origin,
    network_of,
    sign_transaction,
)
from careledger.errors import Error
from careledger.identity import (
    NewIdentity,
    new_organisation,
    new_person,
    new_software,
    sign_affiliation,
    sign_licence,
)
from careledger.records import RecordPlan, Submission, SubmissionPlan, seal_submission
from careledger.seal import (
    Envelope,
    SealingKey,
    SealingPublicKey,
    SigningKey,
    decode,
    encode,
    envelope_message_id,
    keyid,
    sign,
    unb64,
)
from careledger.tlog import Cosigner, Ed25519SigningKey, Signer, cosign, open_checkpoint

T = TypeVar("T")
NOW_MS = 1_790_000_000_000
DAY_MS = 86_400_000
CATEGORIES = ("results", "visits", "private")


class Clock:
    """Stands still until a test moves it."""

    ms = NOW_MS

    def __call__(self) -> int:
        return self.ms


class Person:
    """Anybody with keys: a patient, a clinician, an organisation."""

    def __init__(self, made: NewIdentity) -> None:
        self.token = made.token
        self.document, self.salt = made.document, made.salt
        self.device = made.secrets.device
        self.root = made.secrets.root
        self.reading_seed = made.secrets.reading_seed
        self.inception = made.envelope
        self.sequence = 0

    @property
    def keyid(self) -> str:
        return keyid(self.token, self.sequence)

    @property
    def signer(self) -> tuple[str, SigningKey]:
        return self.keyid, self.device.signing_key()

    @property
    def recipient(self) -> tuple[str, SealingPublicKey]:
        return self.keyid, SealingPublicKey(SealingKey(self.device.seal).public)


class Subject(Person):
    """A patient with its consent chain as its own software has it."""

    def __init__(self, town: Town, made: NewIdentity) -> None:
        super().__init__(made)
        self.town = town
        self.state: ConsentState = EMPTY
        self.events: list[EventMessage] = []
        self.seeds: dict[tuple[str, int], bytes] = {}
        self.names: dict[str, str] = {}

    @property
    def writer(self) -> Writer:
        return Writer(network=self.town.network, subject=self.token, signer=self.signer, owner=self.recipient)

    def compartment(self, category: str) -> str:
        return next(one for one, name in self.names.items() if name == category)

    def _take(self, message: EventMessage) -> EventMessage:
        payload = unb64(decode(message.envelope, Envelope).payload)
        message_id = envelope_message_id(decode(message.envelope, Envelope)).hex()
        self.state = fold(self.state, decode_event(payload), message_id)
        self.events.append(message)
        return message

    def begin(self) -> EventMessage:
        made = first_compartments(self.writer, categories=CATEGORIES, now_ms=self.town.clock(), rand=self.town.rand)
        self.names, self.seeds = made.names, dict(made.seeds)
        return self._take(made.message)

    def grant(
        self,
        grantee: Person,
        *categories: str,
        rights: Sequence[str] = ("contribute", "read"),
        keep: bool = True,
        **more: Any,
    ) -> EventMessage:
        """`keep=False`: signed but not part of the subject's own chain, as from a second device."""
        to = grantee.recipient
        if grantee.reading_seed is not None:
            to = (grantee.keyid, SealingPublicKey(SealingKey(grantee.reading_seed).public))
        fields: dict[str, Any] = {
            "purposes": ["TREAT"],
            "expires": self.town.clock() + 30 * DAY_MS,
            "policy": "https://careledger.example/policy/1",
            "text_hash": sha256(b"").hexdigest(),
            "text_language": "en",
            "compartments": [self.compartment(one) for one in categories or CATEGORIES],
            **more,
        }
        message = make_grant(
            self.writer,
            self.state,
            grantee=grantee.token,
            to=to,
            rights=list(rights),
            names=self.names,
            seeds=self.seeds,
            now_ms=self.town.clock(),
            rand=self.town.rand,
            **fields,
        )
        return self._take(message) if keep else message

    @property
    def newest_grant(self) -> str:
        return max(self.state.grants.values(), key=lambda given: given.terms.seq).terms.grant

    def revoke(self, grant: str | None = None) -> EventMessage:
        return self._take(
            make_revocation(self.writer, self.state, grant or self.newest_grant, now_ms=self.town.clock())
        )

    def rekey(self, *categories: str) -> EventMessage:
        named = [self.compartment(one) for one in categories]
        grantees = {given.terms.grantee for given in self.state.grants.values()}
        made = make_rekey(
            self.writer,
            self.state,
            named,
            seeds=self.seeds,
            recipients=dict.fromkeys(grantees),
            now_ms=self.town.clock(),
            rand=self.town.rand,
        )
        self.seeds.update(made.seeds)
        return self._take(made.message)

    @property
    def message(self) -> DocumentMessage:
        return DocumentMessage(self.token, self.salt, self.document)


class Asked:
    """A signed access request with the key that its answer is sealed to."""

    def __init__(self, message: AccessMessage, message_id: bytes, key: SealingKey) -> None:
        self.message = message
        self.id = message_id
        self.key = key


class Town:
    """Four members with a node each, a directory in memory, a clock, and people."""

    def __init__(self, folder: Path, *, members: int = 4, **parameters: Any) -> None:
        self.folder = folder
        self.rand: Callable[[int], bytes] = random.Random(11).randbytes
        self.clock = Clock()
        self.runner = asyncio.Runner()
        self.software = [new_software(rand=self.rand) for _ in range(members)]
        self.log_seeds = [self.rand(32) for _ in range(members)]
        self.witness_seeds = [self.rand(32) for _ in range(members)]
        self.organisations = [Person(new_organisation(nodes=[one.token], rand=self.rand)) for one in self.software]
        self.genesis = founding(
            [
                MemberPart(
                    organisation.inception,
                    [
                        NodePart(
                            self.software[at].envelope,
                            f"http://node-{at}.example",
                            SigningKey(self.log_seeds[at]).public,
                            SigningKey(self.witness_seeds[at]).public,
                        )
                    ],
                    ("licensor", "provider"),
                )
                for at, organisation in enumerate(self.organisations)
            ],
            time_ms=self.clock(),
            nonce=self.rand(16),
            parameters=parameters,
        )
        self.network = network_of(self.genesis)
        self.directory = Directory.from_genesis(self.genesis)
        self.keepers: list[Keeper] = []

    def run(self, work: Awaitable[T]) -> T:
        async def main() -> T:
            return await work

        return self.runner.run(main())

    def together(self, *work: Awaitable[Any]) -> list[Any]:
        """All at once; exceptions are results."""

        async def main() -> list[Any]:
            return list(await asyncio.gather(*work, return_exceptions=True))

        return self.runner.run(main())

    def refused(self, work: Awaitable[Any]) -> str:
        """The code with which it is refused."""
        with pytest.raises(Error) as refusal:
            self.run(work)
        return refusal.value.code

    def order(self, *envelopes: Envelope, directory: Directory | None = None) -> None:
        """Put transactions into the next block; each must be accepted."""
        target = directory or self.directory
        block = Block(
            v=1,
            network=self.network,
            height=target.height + 1,
            time=self.clock(),
            transactions=list(envelopes),
        )
        assert [one.code for one in target.apply(block)] == ["ok"] * len(envelopes)

    def node_signer(self, number: int = 0) -> tuple[str, SigningKey]:
        one = self.software[number]
        return keyid(one.token, 0), one.secrets.device.signing_key()

    def enrol(self, made: NewIdentity, by: int = 0) -> None:
        payload = Enrol(v=1, network=self.network, node=self.software[by].token, inception=made.envelope)
        self.order(sign_transaction(payload, signers=[self.node_signer(by)]))

    def person(self) -> Person:
        made = new_person(custodians=(), rand=self.rand)
        self.enrol(made)
        return Person(made)

    def subject(self, *, custodians: Sequence[int] | None = None, manager: Person | None = None) -> Subject:
        """An enrolled patient; no custodian has been told anything yet."""
        chosen = range(len(self.software)) if custodians is None else custodians
        made = new_person(
            custodians=[self.software[at].token for at in chosen],
            rand=self.rand,
            manager=None if manager is None else manager.token,
        )
        self.enrol(made)
        return Subject(self, made)

    def license(self, person: Person, by: int = 1, *, until_ms: int | None = None) -> None:
        licensor = self.organisations[by]
        self.order(
            sign_licence(
                network=self.network,
                licence=self.rand(16).hex(),
                licensor=licensor.token,
                person=person.token,
                role="physician",
                from_ms=self.clock() - 1000,
                until_ms=until_ms or self.clock() + 365 * DAY_MS,
                status="active",
                signer=licensor.signer,
            )
        )

    def affiliate(self, person: Person, organisation: int | Person = 1, **more: Any) -> bytes:
        employer = organisation if isinstance(organisation, Person) else self.organisations[organisation]
        fields: dict[str, Any] = {
            "network": self.network,
            "from_ms": self.clock() - 1000,
            "until_ms": self.clock() + DAY_MS // 2,
            **more,
        }
        return encode(
            sign_affiliation(
                organisation=employer.token,
                person=person.token,
                role="physician",
                signer=employer.signer,
                **fields,
            )
        )

    def clinician(self, organisation: int = 1) -> tuple[Person, bytes]:
        """A licensed person and today's affiliation."""
        person = self.person()
        self.license(person, organisation)
        return person, self.affiliate(person, organisation)

    def plan(
        self,
        author: Person,
        subject: Subject,
        categories: Sequence[str] = ("results",),
        *,
        for_: Person | None = None,
        **changes: Any,
    ) -> SubmissionPlan:
        """One record for each category named (again, if named twice)."""
        held = {
            compartment: (epoch, SealingPublicKey(unb64(key)))
            for compartment, (epoch, key) in subject.state.compartments.items()
        }
        document = msgspec.json.decode(subject.document)
        at = {one.token: one for one in self.software}
        plan = SubmissionPlan(
            network=self.network,
            subject=subject.token,
            subject_seq=subject.sequence,
            owner=subject.recipient,
            author=author.keyid,
            for_=None if for_ is None else for_.token,
            compartments=held,
            custodians=[
                (keyid(token, 0), SealingPublicKey(SealingKey(at[token].secrets.device.seal).public))
                for token in document["custodians"]
            ],
            threshold=document["threshold"],
            records=[
                RecordPlan(
                    compartment=subject.compartment(category),
                    header={"source": "https://ehr.example"},
                    resources=[(f"urn:uuid:{number}", b'{"resourceType":"Observation","n":%d}' % number)],
                )
                for number, category in enumerate(categories)
            ],
        )
        return msgspec.structs.replace(plan, **changes)

    def seal(
        self,
        author: Person,
        subject: Subject,
        categories: Sequence[str] = ("results",),
        *,
        affiliation: bytes | None = None,
        **changes: Any,
    ) -> Submission:
        plan = self.plan(author, subject, categories, **changes)
        made = seal_submission(plan, signer=author.signer[1], now_ms=self.clock(), rand=self.rand)
        return msgspec.structs.replace(made, affiliation=affiliation)

    def ask(
        self,
        reader: Person,
        subject: Subject,
        records: Sequence[bytes] | None = None,
        *,
        for_: Person | None = None,
        affiliation: bytes | None = None,
        send: bool = True,
        basis: str = "grant",
        content: bool = True,
        approvals: Sequence[bytes] = (),
        signer: tuple[str, SigningKey] | None = None,
        **changes: Any,
    ) -> Asked:
        """A request for records, or without any for a list. `send=False` only names the affiliation."""
        key = SealingKey(self.rand(32))
        unset = msgspec.UNSET
        named = unset if affiliation is None else envelope_message_id(decode(affiliation, Envelope)).hex()
        fields: dict[str, Any] = {
            "network": self.network,
            "reader": reader.token,
            "for_": unset if for_ is None else for_.token,
            "affiliation": named,
            "subject": subject.token,
            "records": unset if records is None else [one.hex() for one in records],
            "list_": True if records is None else unset,
            "purpose": "TREAT",
            "basis": Basis(kind=basis),  # type: ignore[arg-type]
            "key": sha256(key.public).hexdigest(),
            "head": Head(seq=0, hash=NO_HEAD),
            "client": "test/1",
            "time": self.clock(),
            "nonce": self.rand(16).hex(),
            **changes,
        }
        envelope, message_id = sign_request(AccessRequest(**fields), signer or reader.signer)
        message = AccessMessage(
            request=envelope,
            key=key.public,
            affiliation=affiliation if send else None,
            approvals=list(approvals),
            content=content,
        )
        return Asked(message, message_id, key)

    def read_consent(
        self, who: Person, subject: Subject, view: str, *, affiliation: bytes | None = None, **changes: Any
    ) -> SignedRead:
        signer = changes.pop("signer", who.signer)
        for_ = changes.pop("for_", None)
        fields: dict[str, Any] = {
            "network": self.network,
            "who": who.token,
            "subject": subject.token,
            "view": view,
            "from_seq": 1,
            "time": self.clock(),
            "nonce": self.rand(16).hex(),
            "for_": msgspec.UNSET if for_ is None else for_.token,
            **changes,
        }
        read = ReadConsent(**fields)
        return SignedRead(encode(sign(ReadConsent.TYPE, encode(read), [signer])), affiliation)

    def read_audit(self, who: Person, subject: Subject, *, since: int = 0, **changes: Any) -> SignedRead:
        signer = changes.pop("signer", who.signer)
        fields: dict[str, Any] = {
            "network": self.network,
            "who": who.token,
            "subject": subject.token,
            "since": since,
            "time": self.clock(),
            "nonce": self.rand(16).hex(),
            **changes,
        }
        return SignedRead(encode(sign(ReadAudit.TYPE, encode(ReadAudit(**fields)), [signer])))

    def keeper(self, number: int = 0, *, directory: Directory | None = None) -> Keeper:
        """The custodian of member `number`, with real files."""
        keeper = Keeper(self, number, directory or self.directory)
        self.keepers.append(keeper)
        return keeper

    def close(self) -> None:
        for keeper in self.keepers:
            keeper.close()
        self.runner.close()


class Keeper:
    """One custodian with all its parts."""

    def __init__(self, town: Town, number: int, directory: Directory) -> None:
        self.town = town
        self.number = number
        self.directory = directory
        self.token = town.software[number].token
        self.folder = town.folder / f"node-{number}"
        name = log_origin(town.network, self.token)
        self.log_signer = Signer(name, Ed25519SigningKey(town.log_seeds[number]))
        self.cosigner = Cosigner(name, Ed25519SigningKey(town.witness_seeds[number]))
        self.heads_age = 0
        self.is_open = False
        self.open()

    def open(self) -> None:
        device = self.town.software[self.number].secrets.device
        self.custodian = Custodian(
            self.folder,
            node=self.token,
            directory=self.directory,
            sealing={keyid(self.token, 0): SealingKey(device.seal)},
            log_signer=self.log_signer,
            now_ms=self.town.clock,
            rand=self.town.rand,
            heads_age_ms=lambda *_: self.heads_age,
        )
        self.is_open = True
        self.store, self.writer, self.files = self.custodian.store, self.custodian.writer, self.custodian.files
        self.shelf = Shelf(self.store)
        self.acceptance, self.documents = Acceptance(self.custodian), Documents(self.custodian)
        self.events, self.reading = Events(self.custodian), Reading(self.custodian)
        self.release = Release(self.custodian, self.shelf)
        self.exchange = Exchange(
            self.custodian, self.shelf, documents=self.documents, events=self.events, acceptance=self.acceptance
        )

    def close(self) -> None:
        if self.is_open:
            self.town.run(self.custodian.close())
            self.is_open = False

    def restart(self) -> None:
        self.close()
        self.open()

    # What people do

    def keep(self, subject: Subject) -> None:
        """The document, and every event of the subject's chain."""
        self.town.run(self.documents.keep(subject.message))
        if subject.events:
            self.tell(subject, *subject.events)

    def tell(self, subject: Subject, *events: EventMessage) -> Any:
        return self.town.run(self.events.keep(events, subject=subject.token))

    async def answer(self, asked: Asked) -> Any:
        return await self.release.answer(self.release.check(asked.message))

    def ask(self, asked: Asked) -> Any:
        return self.town.run(self.answer(asked))

    def accept(self, submission: Submission, *, via: str | None = None) -> Any:
        return self.town.run(self.acceptance.accept(submission, via=via))

    def publish(self, *witnesses: Keeper) -> None:
        size, root = self.files.write()
        note = self.custodian.sign(size, root)
        text = note[: note.index(b"\n\n") + 1]
        lines = [cosign(text, signer=one.cosigner, now_s=self.town.clock() // 1000) for one in witnesses]
        self.custodian.publish(size, note + b"".join(lines))

    # What a test looks at

    @property
    def size(self) -> int:
        return self.writer.frontier.size

    def entries(self, start: int = 0) -> list[dict[str, Any]]:
        return [msgspec.json.decode(body) for _, _, _, _, body in self.store.bodies(start, self.size)]

    def logged(self, start: int = 0) -> list[tuple[str, str, str]]:
        """(kind, decision, reason) of the entries from `start` on."""
        return [(one["kind"], one["decision"], one["reason"]) for one in self.entries(start)]

    @property
    def published_size(self) -> int:
        return open_checkpoint(self.files.read("checkpoint"), verifier=self.log_signer.verifier).size


@pytest.fixture
def make_town(tmp_path: Path) -> Iterator[Callable[..., Town]]:
    towns: list[Town] = []

    def make(**parameters: Any) -> Town:
        town = Town(tmp_path / f"town-{len(towns)}", **parameters)
        towns.append(town)
        return town

    yield make
    for town in towns:
        town.close()


@pytest.fixture
def town(make_town: Callable[..., Town]) -> Town:
    return make_town()


class Case:
    """A keeper with a patient whom a clinic may treat: its grant covers reading and contributing."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.keeper = town.keeper()
        self.clinic = town.organisations[1]
        self.clinician, self.affiliation = town.clinician()
        self.subject = town.subject()
        self.subject.begin()
        self.subject.grant(self.clinic)
        self.keeper.keep(self.subject)

    def seal(self, categories: Sequence[str] = ("results",), **changes: Any) -> Submission:
        more = {"for_": self.clinic, "affiliation": self.affiliation, **changes}
        return self.town.seal(self.clinician, self.subject, categories, **more)

    def ask(self, records: Sequence[bytes] | None = None, **changes: Any) -> Asked:
        more = {"for_": self.clinic, "affiliation": self.affiliation, **changes}
        return self.town.ask(self.clinician, self.subject, records, **more)

    def treated(self, categories: Sequence[str] = ("results", "visits")) -> list[bytes]:
        """Keep a submission; the ids of its records."""
        self.keeper.accept(self.seal(categories))
        return self.records()

    def records(self) -> list[bytes]:
        number = self.keeper.custodian.people.subject(self.subject.token)
        assert number is not None
        return [row.record_id for row in self.keeper.shelf.all_of(number)]


@pytest.fixture
def case(town: Town) -> Case:
    return Case(town)


@pytest.fixture
def make_case() -> Callable[[Town], Case]:
    return Case
