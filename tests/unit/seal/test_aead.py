import pytest

from careledger.errors import VerificationError
from careledger.seal import open_content, open_random, seal_content, seal_random

KEY = bytes(range(32))


def test_every_failure_to_open_says_the_same_words() -> None:
    content = seal_content(KEY, b"plaintext", aad=b"a")
    random = seal_random(KEY, b"plaintext", aad=b"a", rand=bytes)
    said = set()
    for opened, wire in ((open_content, content), (open_random, random)):
        flipped = bytes([wire[0] ^ 1]) + wire[1:]
        tries = [(bytes(32), wire, b"a"), (KEY, wire, b"b"), (KEY, wire, b""), (KEY, flipped, b"a")]
        tries += [(KEY, wire[:size], b"a") for size in range(len(wire))]
        for key, bytes_, aad in tries:
            with pytest.raises(VerificationError) as refusal:
                opened(key, bytes_, aad=aad)
            said.add((refusal.value.code, refusal.value.message))
    assert len(said) == 1 and said.pop()[0] == "not-openable"


def test_a_long_lived_key_takes_a_fresh_nonce_for_each_message() -> None:
    nonces = iter((b"\x01" * 12, b"\x02" * 12))
    first, second = (seal_random(KEY, b"same", aad=b"", rand=lambda _: next(nonces)) for _ in range(2))
    assert first[:12] == b"\x01" * 12 and second[:12] == b"\x02" * 12
    assert first[12:] != second[12:]


@pytest.mark.parametrize("size", [0, 11, 13])
def test_a_source_of_randomness_that_returns_too_little_is_a_bug(size: int) -> None:
    with pytest.raises(AssertionError):
        seal_random(KEY, b"", aad=b"", rand=lambda _: bytes(size))


@pytest.mark.parametrize("size", [0, 16, 24, 31, 33])
def test_only_256_bit_keys(size: int) -> None:
    with pytest.raises(AssertionError):
        seal_content(bytes(size), b"", aad=b"")
    with pytest.raises(AssertionError):
        open_content(bytes(size), bytes(16), aad=b"")
