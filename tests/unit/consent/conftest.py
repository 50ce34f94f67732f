"""One subject, some grantees and a chain that checks everything it is given, as a custodian does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from careledger import consent
from careledger.seal import SealingKey, SealingPublicKey, SigningKey, VerifyKey

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
NETWORK = "ab" * 32
NOW = 1_760_000_000_000


def token(name: str) -> str:
    digest = hashlib.sha512(name.encode()).digest()
    return "cl1" + "".join(ALPHABET[byte % 32] for byte in digest[:46])


def counting_rand(label: str) -> Callable[[int], bytes]:
    """A repeatable source of bytes that never repeats itself."""
    count = 0

    def rand(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{label} {count}".encode()).digest(size)

    return rand


class Person:
    def __init__(self, name: str) -> None:
        self.token = token(name)
        self.keyid = self.token + "#0"
        self.sign = SigningKey(hashlib.sha256(b"sign " + name.encode()).digest())
        self.seal = SealingKey(hashlib.sha256(b"seal " + name.encode()).digest())
        self.public = SealingPublicKey(self.seal.public)
        self.recipient = (self.keyid, self.public)
        self.keys = {self.keyid: VerifyKey(self.sign.public)}


class Chain:
    """The subject's software and a custodian in one: every message made is checked and folded."""

    def __init__(self) -> None:
        self.patient = Person("patient")
        self.ada = Person("ada")
        self.bea = Person("bea")
        self.clinic = Person("clinic")
        self.rand = counting_rand("chain")
        self.writer = consent.Writer(
            network=NETWORK,
            subject=self.patient.token,
            signer=(self.patient.keyid, self.patient.sign),
            owner=self.patient.recipient,
        )
        self.now = NOW
        self.state = consent.EMPTY
        self.events: list[tuple[consent.ConsentEvent, str]] = []
        self.messages: list[consent.EventMessage] = []
        self.first = consent.first_compartments(
            self.writer, categories=["about", "warnings", "private"], now_ms=self.now, rand=self.rand
        )
        self.seeds: consent.Seeds = dict(self.first.seeds)
        self.about = self.first.id_of("about")
        self.warnings = self.first.id_of("warnings")
        self.private = self.first.id_of("private")
        self.add(self.first.message)

    def read(self, message: consent.EventMessage) -> tuple[consent.ConsentEvent, str]:
        return consent.read_event(message, network=NETWORK, subject=self.patient.token, keys=self.patient.keys)

    def check(self, message: consent.EventMessage) -> tuple[consent.ConsentEvent, str]:
        return consent.check_event(
            message, network=NETWORK, subject=self.patient.token, keys=self.patient.keys, state=self.state
        )

    def add(self, message: consent.EventMessage) -> consent.ConsentEvent:
        event, message_id = self.check(message)
        self.state = consent.fold(self.state, event, message_id)
        self.events.append((event, message_id))
        self.messages.append(message)
        return event

    def grant_message(self, to: Person, compartments: list[str], **changes: Any) -> consent.EventMessage:
        fields: dict[str, Any] = {
            "grantee": to.token,
            "to": to.recipient,
            "rights": ["read"],
            "purposes": ["TREAT"],
            "expires": self.now + 10_000_000,
            "compartments": compartments,
            "names": self.first.names,
            "seeds": self.seeds,
            "policy": "https://careledger.example/policy/1",
            "text_hash": "00" * 32,
            "text_language": "en",
            "now_ms": self.now,
            "rand": self.rand,
        }
        fields.update(changes)
        state = fields.pop("state", self.state)
        return consent.make_grant(self.writer, state, **fields)

    def grant(self, to: Person, compartments: list[str], **changes: Any) -> consent.Grant:
        event = self.add(self.grant_message(to, compartments, **changes))
        assert isinstance(event, consent.Grant)
        return event

    def revoke(self, grant: str, recipients: dict[str, Any]) -> list[consent.ConsentEvent]:
        messages, seeds = consent.make_revocation_with_rekey(
            self.writer,
            self.state,
            grant,
            seeds=self.seeds,
            recipients=recipients,
            now_ms=self.now,
            rand=self.rand,
        )
        self.seeds.update(seeds)
        return [self.add(message) for message in messages]


@pytest.fixture
def chain() -> Chain:
    return Chain()
