"""Remembering that a signature holds changes no answer, and no memory grows without bound."""

from __future__ import annotations

import pytest

from careledger.errors import VerificationError
from careledger.seal import ProvenSignatures, SigningKey, VerifyKey

KEY = SigningKey(bytes(range(32)))
PUBLIC = VerifyKey(KEY.public)


def test_a_proven_signature_is_checked_once() -> None:
    memory, signature = ProvenSignatures(10), KEY.sign(b"message")
    with memory.used():
        for _ in range(3):
            PUBLIC.verify(signature, b"message")
    assert memory.checks == 1


@pytest.mark.parametrize("flipped", range(0, 64, 7))
def test_what_differs_in_any_way_is_checked_and_refused(flipped: int) -> None:
    memory, signature = ProvenSignatures(10), KEY.sign(b"message")
    bad = bytearray(signature)
    bad[flipped] ^= 1
    with memory.used():
        PUBLIC.verify(signature, b"message")
        for wrong in (
            lambda: PUBLIC.verify(bytes(bad), b"message"),
            lambda: PUBLIC.verify(signature, b"massage"),
            lambda: PUBLIC.verify(signature + b"m", b"essage"),
            lambda: PUBLIC.verify(signature[:-1], signature[-1:] + b"message"),
            lambda: VerifyKey(SigningKey(bytes(32)).public).verify(signature, b"message"),
        ):
            for _ in range(2):
                with pytest.raises(VerificationError, match="not this key's"):
                    wrong()


def test_the_memory_is_bounded_and_keeps_the_newest() -> None:
    memory = ProvenSignatures(5)
    digests = [number.to_bytes(32, "big") for number in range(40)]
    for digest in digests:
        memory.add(digest)
    known = [digest for digest in digests if digest in memory]
    assert known == digests[-len(known) :]
    assert 5 <= len(known) <= 10


def test_nothing_is_remembered_outside() -> None:
    memory, signature = ProvenSignatures(5), KEY.sign(b"message")
    PUBLIC.verify(signature, b"message")
    assert memory.checks == 0
