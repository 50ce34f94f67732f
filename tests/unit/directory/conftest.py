"""A small deterministic network: its founders' keys are at hand, so that tests can sign, lie and tamper."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from careledger.directory import (
    Admit,
    Anchor,
    Block,
    ConsensusPart,
    Directory,
    Enrol,
    MemberNodes,
    MemberPart,
    MemberPropose,
    MemberVote,
    NodeEntry,
    NodePart,
    founding,
    log_origin,
    sign_transaction,
)
from careledger.directory.engines import Follower, Sequencer
from careledger.identity import NewIdentity, new_organisation, new_person, new_software, sign_licence
from careledger.identity.fields import ZERO_HASH
from careledger.seal import Envelope, Payload, SigningKey, keyid
from careledger.tlog import Checkpoint, MemoryTree, Signer, leaf_hash, sign_checkpoint

T0 = 1_700_000_000_000


def counter_rand(seed: str) -> Callable[[int], bytes]:
    """SHA-256 in counter mode: looks random, is the same every time."""
    state = {"n": 0}

    def rand(size: int) -> bytes:
        out = b""
        while len(out) < size:
            state["n"] += 1
            out += hashlib.sha256(f"{seed}/{state['n']}".encode()).digest()
        return out[:size]

    return rand


class Party:
    """One member with one node and all private keys."""

    def __init__(self, rand: Callable[[int], bytes], index: int, *, validates: bool = False) -> None:
        self.software = new_software(rand=rand)
        self.organisation = new_organisation(nodes=[self.software.token], rand=rand)
        self.log_key, self.witness_key = SigningKey(rand(32)), SigningKey(rand(32))
        self.url = f"http://node-{index}.example"
        self.log = MemoryTree()
        self.consensus_seed = rand(32) if validates else b""
        self.consensus_key = SigningKey(self.consensus_seed) if validates else None
        self.peer = f"{index:040x}@127.0.0.1:26656"

    @property
    def token(self) -> str:
        return self.organisation.token

    @property
    def node(self) -> str:
        return self.software.token

    @property
    def node_part(self) -> NodePart:
        key = self.consensus_key
        consensus = None if key is None else ConsensusPart(key.public, self.peer)
        return NodePart(self.software.envelope, self.url, self.log_key.public, self.witness_key.public, consensus)

    @property
    def entry(self) -> NodeEntry:
        return self.node_part.entry()

    @property
    def part(self) -> MemberPart:
        return MemberPart(self.organisation.envelope, [self.node_part], ("provider",))

    def as_member(self, payload: Payload) -> Envelope:
        key = self.organisation.secrets.device.signing_key()
        return sign_transaction(payload, signers=[(keyid(self.token, 0), key)])

    def as_node(self, payload: Payload) -> Envelope:
        key = self.software.secrets.device.signing_key()
        return sign_transaction(payload, signers=[(keyid(self.node, 0), key)])


class World:
    """Parties, their genesis, a directory, and short words for what can be done to it."""

    def __init__(
        self,
        members: int = 4,
        seed: str = "world",
        *,
        validates: bool = False,
        peers: Sequence[str] = (),
        **parameters: Any,
    ) -> None:
        self.rand = counter_rand(seed)
        self.validates = validates
        self.parties = [Party(self.rand, index, validates=validates) for index in range(members)]
        for party, peer in zip(self.parties, peers, strict=False):
            party.peer = peer
        parts = [party.part for party in self.parties]
        parts[0] = parts[0]._replace(roles=("licensor", "provider"))
        chosen: dict[str, Any] = {"anchor_min_ms": 0, **parameters}
        self.genesis = founding(parts, time_ms=T0, nonce=self.rand(16), parameters=chosen)
        self.directory = Directory.from_genesis(self.genesis)
        self.network = self.directory.network
        self.now_ms = T0

    def block(self, *envelopes: Envelope, time_ms: int | None = None) -> Block:
        self.now_ms = self.now_ms + 1000 if time_ms is None else time_ms
        height = self.directory.height + 1
        return Block(v=1, network=self.network, height=height, time=self.now_ms, transactions=list(envelopes))

    def run(self, *envelopes: Envelope, time_ms: int | None = None) -> list[str]:
        """Apply one block; the code of each transaction."""
        return [result.code for result in self.directory.apply(self.block(*envelopes, time_ms=time_ms))]

    def party(self) -> Party:
        return Party(self.rand, 99, validates=self.validates)

    def person(self) -> NewIdentity:
        return new_person(custodians=[party.node for party in self.parties], rand=self.rand)

    def enrol(self, identity: NewIdentity, by: int = 0) -> Envelope:
        party = self.parties[by]
        return party.as_node(Enrol(v=1, network=self.network, node=party.node, inception=identity.envelope))

    def enrolled(self) -> NewIdentity:
        person = self.person()
        assert self.run(self.enrol(person)) == ["ok"]
        return person

    def propose(self, change: Any, by: int = 0, expires: int | None = None) -> tuple[Envelope, str]:
        party = self.parties[by]
        payload = MemberPropose(
            v=1,
            network=self.network,
            member=party.token,
            nonce=self.rand(16).hex(),
            expires=self.now_ms + 86_400_000 if expires is None else expires,
            change=change,
        )
        envelope = party.as_member(payload)
        from careledger.seal import envelope_message_id

        return envelope, envelope_message_id(envelope).hex()

    def vote(self, proposal: str, by: int) -> Envelope:
        party = self.parties[by]
        return party.as_member(MemberVote(v=1, network=self.network, member=party.token, proposal=proposal))

    def decide(self, change: Any) -> list[str]:
        """Propose and have as many vote as it takes."""
        envelope, ident = self.propose(change)
        codes = self.run(envelope)
        for index in range(1, len(self.parties)):
            found = self.directory.proposal(ident)
            if found is None or found.status != "open":
                break
            codes += self.run(self.vote(ident, index))
        return codes

    def admit(self, party: Party) -> list[str]:
        assert self.run(self.enrol(party.software), self.enrol(party.organisation)) == ["ok", "ok"]
        return self.decide(Admit(member=party.token, roles=["provider"], nodes=[party.entry]))

    def nodes(self, by: int, entries: list[NodeEntry], prev: str | None = None) -> Envelope:
        party = self.parties[by]
        member = self.directory.member(party.token)
        head = prev if prev is not None else (member.head if member else ZERO_HASH)
        return party.as_member(MemberNodes(v=1, network=self.network, member=party.token, prev=head, nodes=entries))

    def licence(self, person: str, by: int = 0, **more: Any) -> Envelope:
        party = self.parties[by]
        fields: dict[str, Any] = {
            "licence": "11" * 16,
            "role": "physician",
            "from_ms": T0,
            "until_ms": T0 + 10**10,
            "status": "active",
            **more,
        }
        key = party.organisation.secrets.device.signing_key()
        return sign_licence(
            network=self.network, licensor=party.token, person=person, signer=(keyid(party.token, 0), key), **fields
        )

    def grow_log(self, by: int, count: int) -> None:
        party = self.parties[by]
        party.log.extend([leaf_hash(self.rand(8)) for _ in range(count)])

    def checkpoint(self, by: int, size: int | None = None, *, root: bytes | None = None) -> str:
        party = self.parties[by]
        origin = log_origin(self.network, party.node)
        at = party.log.size if size is None else size
        value = party.log.root(at) if root is None else root
        return sign_checkpoint(Checkpoint(origin, at, value), signer=Signer(origin, party.log_key)).decode()

    def anchor(self, by: int, *, old: int = 0, size: int | None = None, **more: Any) -> Envelope:
        party = self.parties[by]
        proof = [value.hex() for value in party.log.consistency_proof(old, size)]
        fields: dict[str, Any] = {
            "v": 1,
            "network": self.network,
            "node": party.node,
            "checkpoint": self.checkpoint(by, size),
            "proof": proof,
            **more,
        }
        return party.as_node(Anchor(**fields))

    def sequencer(self, place: Path, by: int = 0, **more: Any) -> Sequencer:
        party = self.parties[by]
        return Sequencer(
            place / f"sequencer-{by}.db",
            genesis=self.genesis,
            node=party.node,
            log_key=party.log_key,
            witness=party.witness_key,
            now_ms=self.now_ms,
            **more,
        )

    def follower(self, place: Path, by: int, **more: Any) -> Follower:
        party = self.parties[by]
        return Follower(
            place / f"follower-{by}.db", genesis=self.genesis, node=party.node, witness=party.witness_key, **more
        )


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def make_world() -> Callable[..., World]:
    return World
