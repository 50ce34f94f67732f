"""Random transactions for one small network, good ones and bad ones; a seed gives the same ones again.

The good ones need to know the state, so the dice move a directory of their own on with what they throw. The bad ones
are good ones replayed, damaged, signed by the wrong hand, or bytes that are no transaction.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec

from careledger import identity as idy
from careledger.directory import (
    Admit,
    Block,
    ConsensusEntry,
    ForkEvidence,
    ForkProof,
    ParameterChange,
    Remove,
    RoleChange,
)
from careledger.directory.engines.cometbft.replica import parse_transaction
from careledger.errors import Error
from careledger.seal import SigningKey, b64, encode, envelope_message_id, keyid
from careledger.tlog import MemoryTree, leaf_hash

BATCH_BYTES_MAX = 60_000
"""Fits one block of the embedded engine, whose height would otherwise run ahead."""
PEOPLE_MAX = 400
REMEMBERED_MAX = 300


class Person:
    """What is needed to sign for a person, kept up with what was accepted."""

    def __init__(self, made: Any) -> None:
        self.made, self.token, self.secrets = made, made.token, made.secrets


class Dice:
    """Throws batches of (time in ms, transactions)."""

    def __init__(self, world: Any, seed: str) -> None:
        self.world, self.dice = world, random.Random(seed)
        self.people: list[Person] = []
        self.seen: list[bytes] = []
        self.proposals: list[str] = []
        self.newcomers: list[Any] = []
        self.licences: dict[str, tuple[str, str]] = {}
        self._pending: dict[bytes, Any] = {}
        self._throws = [
            (18, self.enrol),
            (14, self.update),
            (4, self.rotate),
            (1, self.deactivate),
            (10, self.licence),
            (8, self.anchor),
            (1, self.fork),
            (3, self.propose),
            (7, self.vote),
            (3, self.nodes),
            (10, self.again),
            (16, self.damaged),
            (5, self.junk),
        ]

    def batch(self, most: int) -> tuple[int, list[bytes]]:
        """At most `most` transactions, and the time of their block."""
        if self.dice.random() < 0.01:
            return self._decided([self.large()])
        chosen: list[bytes] = []
        size = 0
        for _ in range(self.dice.randint(0, most)):
            throw = self.dice.choices([one for _, one in self._throws], [weight for weight, _ in self._throws])[0]
            data = throw()
            size += len(data) + 1
            if size > BATCH_BYTES_MAX:
                break
            chosen.append(data)
        self.dice.shuffle(chosen)
        return self._decided(chosen)

    def _decided(self, chosen: list[bytes]) -> tuple[int, list[bytes]]:
        """Move the own directory on, so that the next throws know what was accepted."""
        world = self.world
        world.now_ms += self.dice.randint(100, 5_000)
        envelopes, places = [], []
        for data in chosen:
            try:
                envelopes.append(parse_transaction(data))
            except Error:
                continue
            places.append(data)
        height = world.directory.height + 1
        block = Block(v=1, network=world.network, height=height, time=world.now_ms, transactions=envelopes)
        for data, result in zip(places, world.directory.apply(block), strict=True):
            if result.ok and data in self._pending:
                self._pending[data]()
        self._pending.clear()
        self.seen = [*self.seen, *chosen][-REMEMBERED_MAX:]
        return world.now_ms, chosen

    def _then(self, envelope: Any, act: Any) -> bytes:
        data = encode(envelope)
        self._pending[data] = act
        return data

    def _party(self) -> tuple[int, Any]:
        by = self.dice.randrange(len(self.world.parties))
        return by, self.world.parties[by]

    def enrol(self) -> bytes:
        if len(self.people) >= PEOPLE_MAX or (self.people and self.dice.random() < 0.15):
            made = self.dice.choice(self.people).made
        else:
            made = self.world.person()
        by, _ = self._party()
        if self.dice.random() < 0.05:
            return encode(made.envelope)
        return self._then(self.world.enrol(made, by), lambda: self.people.append(Person(made)))

    def _open(self) -> tuple[Person, Any, Any] | None:
        """Someone with the state and a document; what the document says doesn't matter to the directory."""
        if not self.people:
            return None
        person = self.dice.choice(self.people)
        state = self.world.directory.identity(person.token)
        document = msgspec.json.decode(person.made.document, type=idy.Document)
        return person, state, document

    def update(self) -> bytes:
        found = self._open()
        if found is None:
            return self.enrol()
        person, state, document = found
        envelope, _, _ = idy.build_update(
            network=self.world.network,
            token=person.token,
            state=state,
            document=document,
            device=person.secrets.device.signing_key(),
            rand=self.world.rand,
        )
        return encode(envelope)

    def rotate(self) -> bytes:
        found = self._open()
        if found is None or found[1].status != "active":
            return self.enrol()
        person, state, document = found
        rotation = idy.build_rotate(
            network=self.world.network,
            token=person.token,
            state=state,
            root=person.secrets.root,
            device=idy.renewed_secrets(person.secrets.device, sequence=state.sequence + 1, rand=self.world.rand),
            document=document,
            rand=self.world.rand,
        )

        def rotated() -> None:
            person.secrets = rotation.secrets

        return self._then(rotation.envelope, rotated)

    def deactivate(self) -> bytes:
        found = self._open()
        if found is None or found[1].status != "active":
            return self.junk()
        person, state, _ = found
        return encode(
            idy.build_deactivate(network=self.world.network, token=person.token, state=state, root=person.secrets.root)
        )

    def licence(self) -> bytes:
        if not self.people:
            return self.enrol()
        person = self.dice.choice(self.people).token
        ident = self.world.rand(16).hex()
        prev = "00" * 32
        if self.licences and self.dice.random() < 0.6:
            ident = self.dice.choice(list(self.licences))
            person, prev = self.licences[ident]
        envelope = self.world.licence(
            person,
            by=0 if self.dice.random() < 0.9 else self._party()[0],
            licence=ident,
            prev=prev,
            status=self.dice.choice(["active", "suspended", "active", "revoked"]),
        )

        def stated() -> None:
            self.licences[ident] = (person, envelope_message_id(envelope).hex())

        return self._then(envelope, stated)

    def anchor(self) -> bytes:
        by, party = self._party()
        known = self.world.directory.anchor(party.node)
        old = 0 if known is None else known.size
        if old > party.log.size or self.dice.random() < 0.8:
            self.world.grow_log(by, self.dice.randint(1, 3))
        if old > party.log.size or self.dice.random() < 0.1:
            old = self.dice.randint(0, party.log.size)
        return encode(self.world.anchor(by, old=old))

    def fork(self) -> bytes:
        by, party = self._party()
        other = self.dice.randrange(len(self.world.parties))
        if party.log.size < 2:
            return self.anchor()
        size = self.dice.randint(1, party.log.size)
        lie = MemoryTree()
        lie.extend([leaf_hash(self.world.rand(8)) for _ in range(size)])
        proof = ForkProof(
            root=party.log.root(size).hex(), hashes=[one.hex() for one in party.log.consistency_proof(size, None)]
        )
        payload = ForkEvidence(
            v=1,
            network=self.world.network,
            node=party.node,
            checkpoints=[self.world.checkpoint(by, size, root=lie.root()), self.world.checkpoint(by)],
            proof=proof if size < party.log.size else msgspec.UNSET,
        )
        return encode(self.world.parties[other].as_node(payload))

    def propose(self) -> bytes:
        by, _ = self._party()
        change = self.dice.choice([self._parameter, self._parameter, self._roles, self._admission, self._removal])()
        expires = self.world.now_ms + self.dice.choice([1, 10_000, 86_400_000, 10**11])
        envelope, ident = self.world.propose(change, by, expires)
        return self._then(envelope, lambda: self.proposals.append(ident))

    def _parameter(self) -> ParameterChange:
        activates = self.dice.choice([0, 0, self.world.directory.height + self.dice.randint(-2, 20)])
        name = self.dice.choice(["inbox_quota", "stale_max_ms", "inceptions_per_member_per_day", "no_such"])
        return ParameterChange(name=name, value=self.dice.randint(0, 100_000), activates=max(0, activates))

    def _roles(self) -> RoleChange:
        roles = sorted(self.dice.sample(["provider", "licensor", "payer"], self.dice.randint(0, 3)))
        return RoleChange(member=self._party()[1].token, roles=roles)

    def _admission(self) -> Admit:
        if not self.newcomers or self.dice.random() < 0.3:
            self.newcomers = [*self.newcomers, self.world.party()][-8:]
        party = self.dice.choice([*self.newcomers, *self.world.parties])
        return Admit(member=party.token, roles=["provider"], nodes=[party.entry])

    def _removal(self) -> Remove:
        members = [member.token for member in self.world.directory.members()]
        keep = [party.token for party in self.world.parties]
        others = [token for token in members if token not in keep] or keep[:1]
        return Remove(member=self.dice.choice(others))

    def vote(self) -> bytes:
        if self.newcomers and self.dice.random() < 0.3:
            party = self.dice.choice(self.newcomers)
            made = self.dice.choice([party.software, party.organisation])
            return encode(self.world.enrol(made, self._party()[0]))
        if not self.proposals:
            return self.propose()
        ident = self.dice.choice(self.proposals[-6:])
        return encode(self.world.vote(ident, self._party()[0]))

    def nodes(self) -> bytes:
        by, party = self._party()
        entry = party.entry
        roll = self.dice.random()
        if roll < 0.4:
            key = b64(SigningKey(self.world.rand(32)).public)
            entry = msgspec.structs.replace(entry, consensus=ConsensusEntry(key=key, peer=party.peer))
        elif roll < 0.5:
            entry = msgspec.structs.replace(entry, consensus=msgspec.UNSET)
        elif roll < 0.6:
            entry = msgspec.structs.replace(entry, consensus=self._party()[1].entry.consensus)
        entries = [] if roll > 0.95 else [entry]
        return encode(self.world.nodes(by, entries, prev=None if self.dice.random() < 0.8 else "00" * 32))

    def again(self) -> bytes:
        return self.dice.choice(self.seen) if self.seen else self.enrol()

    def damaged(self) -> bytes:
        if not self.seen:
            return self.junk()
        data = bytearray(self.dice.choice(self.seen))
        how = self.dice.randrange(6)
        at = self.dice.randrange(len(data) or 1) if data else 0
        if not data or how == 0:
            return bytes(data[:at])
        if how == 1:
            data[at:at] = b" "
        elif how == 2:
            del data[at]
        elif how == 3:
            data += bytes([self.dice.randrange(256)])
        else:
            data[at] ^= 1 << self.dice.randrange(8)
        return bytes(data)

    def junk(self) -> bytes:
        return self.dice.choice(
            [
                b"",
                b"{}",
                b"[" * self.dice.randint(1, 5000),
                b'{"payload":"","payloadType":"","signatures":[]}',
                '{"payload":"","payloadType":"İı","signatures":[]}'.encode(),
                b'{"payload":"","payloadType":"x","signatures":[{"keyid":"a","sig":"b"},{"keyid":"a","sig":"b"}]}',
                b'{"payload":1e400,"payloadType":"","signatures":[]}',
                self.dice.randbytes(self.dice.randint(1, 200)),
                encode(self._stranger()),
            ]
        )

    def _stranger(self) -> Any:
        from careledger.seal import sign

        kind = self.dice.choice(["enrol", "update", "anchor", "poem", "member-vote", "recover"])
        key = SigningKey(self.world.rand(32))
        signer = self.dice.choice([party.token for party in self.world.parties])
        return sign(f"application/vnd.careledger.{kind}+json", b"{}", [(keyid(signer, 0), key)])

    def large(self) -> bytes:
        """Alone in its block: the embedded engine would begin another block for it."""
        size = self.dice.choice([49_000, 49_300, 65_400, 65_600])
        return b'{"payload":"%s","payloadType":"x","signatures":[]}' % (b"A" * (size // 4 * 4))
