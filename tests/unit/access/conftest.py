"""A reader, an organisation, a node with a log of its own, and a request that holds."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from careledger import access, identity, tlog
from careledger.seal import Envelope, SealingKey, SigningKey, VerifyKey, decode, encode, envelope_message_id

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
NETWORK = "ab" * 32
NOW = 1_760_000_000_000


def token(name: str) -> str:
    digest = hashlib.sha512(name.encode()).digest()
    return "cl1" + "".join(ALPHABET[byte % 32] for byte in digest[:46])


class Person:
    def __init__(self, name: str) -> None:
        self.token = token(name)
        self.keyid = self.token + "#0"
        self.sign = SigningKey(hashlib.sha256(b"sign " + name.encode()).digest())
        self.signer = (self.keyid, self.sign)
        self.verify = VerifyKey(self.sign.public)


class World:
    def __init__(self) -> None:
        self.network = NETWORK
        self.now = NOW
        self.ada, self.bea, self.patient = Person("ada"), Person("bea"), Person("patient")
        self.clinic, self.hospital, self.node = Person("clinic"), Person("hospital"), Person("node")
        people = (self.ada, self.bea, self.patient, self.clinic, self.hospital)
        self.keys = {person.keyid: person.verify for person in people}
        self.fresh = SealingKey(hashlib.sha256(b"fresh").digest())
        self.affiliation = self.affiliate(self.clinic, self.ada)
        self.affiliations: dict[str, identity.Affiliation] = {}
        origin = access.origin(NETWORK, self.node.token)
        self.log_signer = tlog.Signer(origin, self.node.sign)
        self.log_verifier = tlog.Verifier.ed25519(origin, self.node.sign.public)

    def affiliate(self, organisation: Person, person: Person, *, until: int = NOW + 3_600_000) -> bytes:
        envelope = identity.sign_affiliation(
            network=NETWORK,
            organisation=organisation.token,
            person=person.token,
            role="clinician",
            from_ms=NOW - 1000,
            until_ms=until,
            signer=organisation.signer,
        )
        return encode(envelope)

    def request(self, **changes: Any) -> access.AccessRequest:
        request = access.AccessRequest(
            network=NETWORK,
            reader=self.ada.token,
            for_=self.clinic.token,
            affiliation=envelope_message_id(decode(self.affiliation, Envelope)).hex(),
            subject=self.patient.token,
            records=["cd" * 16, "ef" * 16],
            purpose="TREAT",
            basis=access.Basis(kind="grant", grant="12" * 16),
            key=hashlib.sha256(self.fresh.public).hexdigest(),
            head=access.Head(seq=3, hash="aa" * 32),
            client="careledger/0.1 (web)",
            time=self.now,
            nonce="34" * 16,
        )
        return msgspec.structs.replace(request, **changes)

    def message(self, request: access.AccessRequest | None = None, **changes: Any) -> access.AccessMessage:
        envelope, _ = access.sign_request(request or self.request(), changes.pop("signer", self.ada.signer))
        message = access.AccessMessage(request=envelope, key=self.fresh.public, affiliation=self.affiliation)
        return msgspec.structs.replace(message, **changes)

    def check(self, message: access.AccessMessage, **changes: Any) -> access.CheckedRequest:
        given: dict[str, Any] = {
            "keys": self.keys,
            "network": NETWORK,
            "now_ms": self.now,
            "affiliations": self.affiliations,
        }
        given.update(changes)
        return access.check_request(message, **given)

    def body(self, checked: access.CheckedRequest, **changes: Any) -> bytes:
        fields: dict[str, Any] = {
            "network": NETWORK,
            "node": self.node.token,
            "index": 2,
            "received": self.now,
            "directory_height": 7,
            "directory_age": 1234,
            "consent_seq": 3,
            "consent_hash": "aa" * 32,
            "kind": "access",
            "decision": "allow",
            "reason": "grant",
            "counters": {"requests": 3, "requests_max": 100},
            "envelopes": checked.envelopes,
            "grant": "12" * 16,
        }
        fields.update(changes)
        return access.build_entry(**fields)

    def receipt(self, body: bytes, *, kind: str = "access", index: int = 2, salt: bytes = b"s" * 32) -> access.Receipt:
        """A receipt from a log of five entries with this one at `index`."""
        leaves = [f"other {i}".encode() for i in range(5)]
        leaves[index] = access.leaf(kind, salt, body)
        hashes = [tlog.leaf_hash(item) for item in leaves]
        checkpoint = tlog.Checkpoint(origin=self.log_signer.name, size=5, root=tlog.root_of(hashes))
        note = tlog.sign_checkpoint(checkpoint, signer=self.log_signer)
        proof = tlog.format_proof(index, tlog.inclusion_proof(hashes, index), note)
        return access.Receipt(salt=salt, body=body, proof=proof)


@pytest.fixture
def world() -> World:
    return World()
