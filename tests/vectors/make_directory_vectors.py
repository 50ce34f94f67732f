"""Writes vectors/directory/*.json: `python tests/vectors/make_directory_vectors.py`.

A whole small network: its genesis, its blocks, what each does, the app hash after each, checkpoints and proofs. All of
it is a function of fixed seeds, so a second run writes the same files; run it only when a format changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from careledger import directory as dir_
from careledger import identity as idy
from careledger.directory.validators import validators
from careledger.seal import Envelope, Payload, SigningKey, encode, envelope_message_id, keyid, sign
from careledger.tlog import (
    Checkpoint,
    Cosigner,
    MemoryTree,
    Signer,
    cosign,
    leaf_hash,
    leaf_hashes_of,
    root_of,
    sign_checkpoint,
)

FOLDER = Path(__file__).resolve().parents[2] / "vectors" / "directory"
T0 = 1_760_000_000_000
HOW = "made with tests/vectors/make_directory_vectors.py from fixed seeds (SHAKE256 of a counter); deterministic"


def seeded(name: str) -> Callable[[int], bytes]:
    count = 0

    def draw(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{name} {count}".encode()).digest(size)

    return draw


def write(name: str, section: str, vectors: Sequence[Any], **more: Any) -> None:
    content = {
        "source": "careledger",
        "section": section,
        "how_made": HOW,
        "licence": "Apache-2.0, part of careledger",
        **more,
        "vectors": vectors,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def text(value: Any) -> str:
    return encode(value).decode()


def statemap() -> None:
    vectors: list[dict[str, Any]] = []
    for size in (0, 1, 2, 3, 10, 60):
        items = [(f"kind{number % 3}", f"id {number}", f"value {number}") for number in range(size)]
        some = dir_.StateMap().updated(
            {dir_.map_key(kind, ident): hashlib.sha256(value.encode()).digest() for kind, ident, value in items}
        )
        present = [
            {"kind": kind, "id": ident, "value": value, "proof": text(some.prove(kind, ident))}
            for kind, ident, value in items[:: max(1, size // 5)]
        ]
        absent = [
            {"kind": "kind0", "id": f"no {number}", "proof": text(some.prove("kind0", f"no {number}"))}
            for number in range(6)
        ]
        vectors.append(
            {
                "comment": f"{size} leaves",
                "items": items,
                "root": some.root.hex(),
                "present": present,
                "absent": absent,
            }
        )
    write("statemap", "docs/spec/directory.md section 5", vectors)


class Party:
    def __init__(self, rand: Callable[[int], bytes], index: int, *, validates: bool = False) -> None:
        self.software = idy.new_software(rand=rand)
        self.organisation = idy.new_organisation(nodes=[self.software.token], rand=rand)
        self.log_key, self.witness_key = SigningKey(rand(32)), SigningKey(rand(32))
        self.url = f"https://node-{index}.example"
        self.log = MemoryTree()
        peer = f"{hashlib.sha256(self.url.encode()).hexdigest()[:40]}@node-{index}.example:26656"
        self.consensus = dir_.ConsensusPart(SigningKey(rand(32)).public, peer) if validates else None

    @property
    def node_part(self) -> dir_.NodePart:
        return dir_.NodePart(
            self.software.envelope, self.url, self.log_key.public, self.witness_key.public, self.consensus
        )

    @property
    def part(self) -> dir_.MemberPart:
        return dir_.MemberPart(self.organisation.envelope, [self.node_part], ("provider",))

    @property
    def entry(self) -> dir_.NodeEntry:
        return self.node_part.entry()

    def member(self, payload: Payload) -> Envelope:
        signer = (keyid(self.organisation.token, 0), self.organisation.secrets.device.signing_key())
        return dir_.sign_transaction(payload, signers=[signer])

    def node(self, payload: Payload) -> Envelope:
        signer = (keyid(self.software.token, 0), self.software.secrets.device.signing_key())
        return dir_.sign_transaction(payload, signers=[signer])


class Story:
    """The blocks of the vectors, each recorded with its results."""

    def __init__(self, seed: str = "directory", *, validates: bool = False) -> None:
        self.validates = validates
        self.rand = seeded(seed)
        self.parties = [Party(self.rand, index, validates=validates) for index in range(4)]
        parts = [party.part for party in self.parties]
        parts[0] = parts[0]._replace(roles=("provider", "licensor"))
        chosen: dict[str, Any] = {"anchor_min_ms": 2_000, "inceptions_per_member_per_day": 6}
        self.genesis = dir_.founding(parts, time_ms=T0, nonce=self.rand(16), parameters=chosen)
        self.directory = dir_.Directory.from_genesis(self.genesis)
        self.network = self.directory.network
        self.blocks: list[bytes] = []
        self.vectors: list[dict[str, Any]] = []
        self.time = T0

    def block(self, comment: str, *transactions: tuple[Envelope, str], wait_ms: int = 1000) -> None:
        self.time += wait_ms
        block = dir_.Block(
            v=1,
            network=self.network,
            height=self.directory.height + 1,
            time=self.time,
            transactions=[envelope for envelope, _ in transactions],
        )
        codes = [result.code for result in self.directory.apply(block)]
        assert codes == [code for _, code in transactions], (comment, codes)
        state = self.directory.state
        self.blocks.append(encode(block))
        self.vectors.append(
            {
                "comment": comment,
                "block": text(block),
                "results": codes,
                "state_root": state.state_map.root.hex(),
                "events_size": state.frontier.size,
                "events_root": state.frontier.root().hex(),
                "app_hash": self.directory.app_hash().hex(),
                "log_root": root_of(leaf_hashes_of(self.blocks)).hex(),
            }
            | ({"validators": self.validators()} if self.validates else {})
        )

    def validators(self) -> dict[str, int]:
        state = self.directory.state
        return {key.hex(): power for key, power in validators(state.members, state.nodes).items()}

    def nodes(self, by: int, entries: list[dir_.NodeEntry]) -> Envelope:
        party = self.parties[by]
        member = self.directory.member(party.organisation.token)
        assert member is not None
        return party.member(
            dir_.MemberNodes(v=1, network=self.network, member=member.token, prev=member.head, nodes=entries)
        )

    def enrol(self, identity: Any, by: int = 0) -> Envelope:
        party = self.parties[by]
        return party.node(dir_.Enrol(v=1, network=self.network, node=party.software.token, inception=identity.envelope))

    def person(self, **more: Any) -> Any:
        return idy.new_person(custodians=[party.software.token for party in self.parties], rand=self.rand, **more)

    def propose(self, change: Any, by: int = 0) -> tuple[Envelope, str]:
        party = self.parties[by]
        envelope = party.member(
            dir_.MemberPropose(
                v=1,
                network=self.network,
                member=party.organisation.token,
                nonce=self.rand(16).hex(),
                expires=self.time + 86_400_000,
                change=change,
            )
        )
        return envelope, envelope_message_id(envelope).hex()

    def vote(self, proposal: str, by: int) -> Envelope:
        party = self.parties[by]
        return party.member(
            dir_.MemberVote(v=1, network=self.network, member=party.organisation.token, proposal=proposal)
        )

    def licence(self, person: str, status: Any, prev: str = "00" * 32, by: int = 0) -> Envelope:
        party = self.parties[by]
        return idy.sign_licence(
            network=self.network,
            licence="5a" * 16,
            licensor=party.organisation.token,
            person=person,
            role="physician",
            from_ms=T0,
            until_ms=T0 + 31_536_000_000,
            status=status,
            prev=prev,
            signer=(keyid(party.organisation.token, 0), party.organisation.secrets.device.signing_key()),
        )

    def checkpoint(self, by: int, size: int, root: bytes | None = None) -> str:
        party = self.parties[by]
        origin = dir_.log_origin(self.network, party.software.token)
        value = party.log.root(size) if root is None else root
        return sign_checkpoint(Checkpoint(origin, size, value), signer=Signer(origin, party.log_key)).decode()

    def anchor(self, by: int, old: int, size: int) -> Envelope:
        party = self.parties[by]
        proof = [value.hex() for value in party.log.consistency_proof(old, size)]
        return party.node(
            dir_.Anchor(
                v=1,
                network=self.network,
                node=party.software.token,
                checkpoint=self.checkpoint(by, size),
                proof=proof,
            )
        )


def network() -> None:
    story = Story()
    first = {"app_hash": story.directory.app_hash().hex(), "network": story.network}
    people = [story.person() for _ in range(3)]
    story.block("an empty block changes nothing")
    story.block(
        "people are enrolled by a member's node; bare inceptions and repetitions are refused",
        (story.enrol(people[0]), "ok"),
        (story.enrol(people[1], by=1), "ok"),
        (people[2].envelope, "not-enrolled"),
        (story.enrol(people[0], by=2), "exists"),
    )
    person, state = people[0], story.directory.identity(people[0].token)
    assert state is not None
    document = idy.open_document(person.salt, person.document, state.document)
    update = idy.build_update(
        network=story.network,
        token=person.token,
        state=state,
        document=msgspec.structs.replace(document, services=["https://phr.example"]),
        device=person.secrets.device.signing_key(),
        rand=story.rand,
    )[0]
    story.block("an update, and its replay", (update, "ok"), (update, "bad-sequence"))
    state = story.directory.identity(person.token)
    assert state is not None
    rotation = idy.build_rotate(
        network=story.network,
        token=person.token,
        state=state,
        root=person.secrets.root,
        device=idy.renewed_secrets(person.secrets.device, sequence=2, rand=story.rand),
        document=document,
        rand=story.rand,
    )
    story.block("a rotation by the pre-committed key", (rotation.envelope, "ok"))
    active = story.licence(people[1].token, "active")
    story.block(
        "a licence by the licensor, and by a member that is none",
        (active, "ok"),
        (story.licence(people[1].token, "active", by=1), "not-a-licensor"),
    )
    suspended = story.licence(people[1].token, "suspended", prev=envelope_message_id(active).hex())
    story.block(
        "the licence is suspended; the old statement can't be replayed", (suspended, "ok"), (active, "bad-prev")
    )
    story.parties[1].log.extend([leaf_hash(b"entry %d" % number) for number in range(13)])
    story.block("the first anchor", (story.anchor(1, 0, 5), "ok"))
    story.block("an anchor too soon, and one that does not grow", (story.anchor(1, 5, 13), "too-soon"))
    story.block("the next anchor with its proof", (story.anchor(1, 5, 13), "ok"), (story.anchor(1, 5, 5), "old-anchor"))
    evidence = dir_.ForkEvidence(
        v=1,
        network=story.network,
        node=story.parties[1].software.token,
        checkpoints=[story.checkpoint(1, 7, leaf_hash(b"lie")), story.checkpoint(1, 13)],
        proof=dir_.ForkProof(
            root=story.parties[1].log.root(7).hex(),
            hashes=[value.hex() for value in story.parties[1].log.consistency_proof(7, 13)],
        ),
    )
    story.block("a fork across two sizes is proven", (story.parties[2].node(evidence), "ok"))
    newcomer = Party(story.rand, 4)
    admit = dir_.Admit(member=newcomer.organisation.token, roles=["provider"], nodes=[newcomer.entry])
    envelope, ident = story.propose(admit)
    story.block(
        "a newcomer is enrolled, proposed and admitted by three of four",
        (story.enrol(newcomer.software), "ok"),
        (story.enrol(newcomer.organisation), "ok"),
        (envelope, "ok"),
        (story.vote(ident, 1), "ok"),
        (story.vote(ident, 1), "exists"),
        (story.vote(ident, 2), "ok"),
        (story.vote(ident, 3), "decided"),
    )
    change = dir_.ParameterChange(name="inbox_quota", value=50, activates=story.directory.height + 3)
    envelope, ident = story.propose(change)
    votes = [(story.vote(ident, index), "ok") for index in (1, 2, 3)]
    story.block("a parameter for a later height, by four of five", (envelope, "ok"), *votes)
    state = story.directory.identity(people[1].token)
    assert state is not None
    end = idy.build_deactivate(network=story.network, token=people[1].token, state=state, root=people[1].secrets.root)
    story.block("a tombstone", (end, "ok"), (end, "deactivated"))
    signer = (keyid(people[0].token, 0), people[0].secrets.device.signing_key())
    stray = sign("application/vnd.careledger.poem+json", b"{}", [signer])
    story.block("a transaction of no known type", (stray, "unknown-type"))
    write(
        "network",
        "docs/spec/directory.md sections 2 to 5",
        story.vectors,
        genesis=story.genesis.decode(),
        network=story.network,
        after_genesis=first,
    )
    proofs(story, people)
    checkpoints(story)


def consensus_keys() -> None:
    story = Story("validators", validates=True)
    first = {"app_hash": story.directory.app_hash().hex(), "validators": story.validators()}
    story.block("an empty block changes no validator")
    third, fourth = story.parties[2], story.parties[3]
    stolen = msgspec.structs.replace(fourth.entry, consensus=third.entry.consensus)
    story.block("another member's consensus key is refused", (story.nodes(3, [stolen]), "key-taken"))
    assert third.consensus is not None
    third.consensus = third.consensus._replace(key=SigningKey(story.rand(32)).public)
    story.block("a node's consensus key is replaced", (story.nodes(2, [third.entry]), "ok"))
    second = Party(story.rand, 5, validates=True)
    story.block(
        "a member's second node has a consensus key, but no vote of its own",
        (story.enrol(second.software), "ok"),
        (story.nodes(0, [story.parties[0].entry, second.entry]), "ok"),
    )
    story.block(
        "the order of a member's nodes says which of them votes",
        (story.nodes(0, [second.entry, story.parties[0].entry]), "ok"),
    )
    newcomer = Party(story.rand, 6, validates=True)
    admit = dir_.Admit(member=newcomer.organisation.token, roles=["provider"], nodes=[newcomer.entry])
    envelope, ident = story.propose(admit)
    story.block(
        "a newcomer is admitted with its validator",
        (story.enrol(newcomer.software), "ok"),
        (story.enrol(newcomer.organisation), "ok"),
        (envelope, "ok"),
        (story.vote(ident, 1), "ok"),
        (story.vote(ident, 2), "ok"),
    )
    envelope, ident = story.propose(dir_.Remove(member=story.parties[3].organisation.token))
    votes = [(story.vote(ident, index), "ok") for index in (1, 2)]
    story.block("a member is proposed for removal", (envelope, "ok"), *votes)
    story.parties[3] = newcomer
    story.block("the vote that removes it removes its validator", (story.vote(ident, 3), "ok"))
    write(
        "validators",
        "docs/spec/directory.md section 8",
        story.vectors,
        genesis=story.genesis.decode(),
        network=story.network,
        after_genesis=first,
    )


def proofs(story: Story, people: list[Any]) -> None:
    app = story.directory.app_hash()
    vectors: list[dict[str, Any]] = []
    asked = [
        ("identity", people[0].token),
        ("identity", people[1].token),
        ("identity", people[2].token),
        ("member", story.parties[1].organisation.token),
        ("node", story.parties[1].software.token),
        ("licence", "5a" * 16),
        ("licence", "00" * 16),
        ("anchor", story.parties[1].software.token),
        ("fork", story.parties[1].software.token),
        ("fork", story.parties[2].software.token),
        ("parameter", "inbox_quota"),
    ]
    for kind, ident in asked:
        proof = story.directory.prove_state(kind, ident)
        vectors.append({"comment": kind, "kind": kind, "id": ident, "proof": text(proof), "outcome": "accept"})
    proof = story.directory.prove_state(*asked[0])
    other = story.directory.prove_state(*asked[3])
    assert isinstance(proof.value, str)
    lies: list[tuple[str, Any, str]] = [
        ("another value", {"value": proof.value.replace("active", "passive")}, "bad-map-proof"),
        ("value hidden", {"value": msgspec.UNSET}, "bad-map-proof"),
        ("another key's proof", {"proof": other.proof}, "bad-map-proof"),
        (
            "a sibling left out",
            {"proof": msgspec.structs.replace(proof.proof, siblings=proof.proof.siblings[1:])},
            "bad-map-proof",
        ),
        ("another state root", {"state_root": "00" * 32}, "bad-app-hash"),
        ("another id", {"id": people[1].token}, "wrong-proof"),
    ]
    for comment, fields, code in lies:
        lie = msgspec.structs.replace(proof, **fields)
        vectors.append(
            {"comment": comment, "kind": "identity", "id": people[0].token, "proof": text(lie), "outcome": code}
        )
    events = story.directory.history("identity", people[0].token)
    for event in events:
        vectors.append({"comment": "event", "event_proof": text(event), "outcome": "accept"})
    moved = msgspec.structs.replace(events[0], index=events[0].index + 1)
    vectors.append({"comment": "event moved", "event_proof": text(moved), "outcome": "bad-proof"})
    write("proofs", "docs/spec/directory.md section 6", vectors, app_hash=app.hex())


def checkpoints(story: Story) -> None:
    origin = dir_.directory_origin(story.network)
    size, app = len(story.blocks), story.directory.app_hash()
    checkpoint = Checkpoint(origin, size, root_of(leaf_hashes_of(story.blocks)), (dir_.app_hash_line(app),))
    note = sign_checkpoint(checkpoint, signer=Signer(origin, story.parties[0].log_key))
    lines = [
        cosign(
            checkpoint.text,
            signer=Cosigner(dir_.log_origin(story.network, party.software.token), party.witness_key),
            now_s=story.time // 1000 + index,
        )
        for index, party in enumerate(story.parties)
    ]
    witnesses = {
        party.organisation.token: [
            Cosigner(dir_.log_origin(story.network, party.software.token), party.witness_key).vkey
        ]
        for party in story.parties
    }
    vectors: list[dict[str, Any]] = []

    def add(comment: str, data: bytes, needed: int, outcome: str) -> None:
        vectors.append({"comment": comment, "note": data.decode(), "needed": needed, "outcome": outcome})

    add("three of four", note + b"".join(lines[:3]), 3, "accept")
    add("all four", note + b"".join(lines), 3, "accept")
    add("two are not enough", note + b"".join(lines[:2]), 3, "not-enough-cosignatures")
    add("the same one twice", note + lines[0] + lines[0] + lines[1], 3, "not-enough-cosignatures")
    add(
        "a stranger's does not count",
        note
        + b"".join(lines[:2])
        + cosign(checkpoint.text, signer=Cosigner("stranger", SigningKey(bytes(32))), now_s=5),
        3,
        "not-enough-cosignatures",
    )
    other = Checkpoint(origin, size, checkpoint.root, (dir_.app_hash_line(bytes(32)),))
    add(
        "another app hash under the same signatures",
        other.text + note[len(checkpoint.text) :] + b"".join(lines),
        3,
        "bad-signature",
    )
    stranger = sign_checkpoint(checkpoint, signer=Signer(origin, story.parties[1].log_key))
    add("signed by another node", stranger + b"".join(lines), 3, "no-signature")
    plain = Checkpoint(origin, size, checkpoint.root)
    add(
        "without an app hash", sign_checkpoint(plain, signer=Signer(origin, story.parties[0].log_key)), 0, "no-app-hash"
    )
    write(
        "checkpoints",
        "docs/spec/directory.md section 7",
        vectors,
        sequencer=Signer(origin, story.parties[0].log_key).vkey,
        witnesses=witnesses,
        height=size,
        root=checkpoint.root.hex(),
        app_hash=app.hex(),
    )


if __name__ == "__main__":
    statemap()
    network()
    consensus_keys()
