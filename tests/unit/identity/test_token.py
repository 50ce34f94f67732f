"""Tokens: one written form, derived and never assigned."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from careledger.errors import MalformedError
from careledger.identity import TOKEN_LENGTH, bech32m, check_token, new_person, token_of
from careledger.seal import unb64


def test_token_is_bech32m_of_the_first_25_bytes_of_the_hash() -> None:
    payload = b'{"v":1}'
    token = token_of(payload)
    assert token.startswith("cl1")
    assert len(token) == TOKEN_LENGTH == 49
    assert bech32m.decode(token, hrp="cl") == hashlib.sha256(payload).digest()[:25]
    assert check_token(token) == token


def test_token_follows_from_the_inception(rand: Callable[[int], bytes]) -> None:
    person = new_person(custodians=[], rand=rand)
    assert person.token == token_of(unb64(person.envelope.payload))


def test_token_in_capitals_or_with_another_prefix_is_refused() -> None:
    data = hashlib.sha256(b"x").digest()
    token = bech32m.encode("cl", data[:25])
    wrong = [
        token.upper(),
        token[:-1],
        token + "q",
        " " + token[1:],
        bech32m.encode("cm", data[:25]),
        bech32m.encode("cl", data[:24]),
        bech32m.encode("cl", data[:26]),
        "",
    ]
    for text in wrong:
        with pytest.raises(MalformedError) as caught:
            check_token(text)
        assert caught.value.code == "bad-token"


def test_every_single_mistyped_character_is_noticed() -> None:
    token = token_of(b"payload")
    for place in range(3, len(token)):
        for character in "qpzry9x8gf2tvdw0s3jn54khce6mua7l":
            typed = token[:place] + character + token[place + 1 :]
            if typed != token:
                with pytest.raises(MalformedError):
                    check_token(typed)


def test_swapped_neighbours_are_noticed() -> None:
    token = token_of(b"payload")
    for place in range(3, len(token) - 1):
        typed = token[:place] + token[place + 1] + token[place] + token[place + 2 :]
        if typed != token:
            with pytest.raises(MalformedError):
                check_token(typed)


def test_padding_bits_that_are_not_zero_are_refused() -> None:
    words = bech32m.decode_words(bech32m.encode("x", b"\x01"))[1]
    assert bech32m.decode(bech32m.encode_words("x", words), hrp="x") == b"\x01"
    for wrong in ([words[0], words[1] | 1], [*words, 0], words[:1]):
        with pytest.raises(MalformedError):
            bech32m.decode(bech32m.encode_words("x", wrong), hrp="x")
