"""Bech32m, the text form of tokens and printed codes: any four mistyped characters are always noticed.

Follows BIP-350 (and BIP-173 for what it leaves unchanged), including the limit of 90 characters, for which the
error-detecting property is proven. What the data means is the caller's business.
"""

from __future__ import annotations

from base64 import b32encode
from functools import reduce
from operator import xor

from careledger.errors import MalformedError

__all__ = ["decode", "decode_words", "encode", "encode_words"]

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_TO_ALPHABET = bytes.maketrans(bytes(range(32)), _ALPHABET.encode("ascii"))
_FROM_BASE32 = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", bytes(range(32)))
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_FEEDBACK = [
    reduce(xor, (generator for place, generator in enumerate(_GENERATORS) if top >> place & 1), 0) for top in range(32)
]
"""The generators that the five bits shifted out of the residue bring in, for every value of these bits."""
_CONSTANT = 0x2BC830A3
_CHECKSUM_WORDS = 6
_TEXT_MAX = 90


def encode(hrp: str, data: bytes) -> str:
    """The Bech32m text of `data` (whole bytes) under the human-readable part `hrp`, in lower case."""
    return encode_words(hrp, _bytes_to_words(data))


def decode(text: str, *, hrp: str) -> bytes:
    """The bytes that `text` stands for.

    Raises MalformedError `bad-bech32m`: wrong prefix, checksum, alphabet, case, length or non-zero padding bits.
    """
    found, words = decode_words(text)
    if found != hrp:
        raise _bad(f"starts with another prefix than {hrp}1")
    return _words_to_bytes(words)


def encode_words(hrp: str, words: list[int]) -> str:
    """The Bech32m text of 5-bit `words`, in lower case (BIP-350)."""
    text = hrp + "1" + bytes([*words, *_checksum(hrp, words)]).translate(_TO_ALPHABET).decode("ascii")
    if len(text) > _TEXT_MAX:
        raise AssertionError(f"a Bech32m text has at most {_TEXT_MAX} characters, this one {len(text)}")
    return text


def decode_words(text: str) -> tuple[str, list[int]]:
    """The human-readable part and the 5-bit words without the checksum.

    Raises MalformedError `bad-bech32m`.
    """
    if len(text) > _TEXT_MAX:
        raise _bad(f"has more than {_TEXT_MAX} characters")
    if any(not "!" <= character <= "~" for character in text):
        raise _bad("holds a character outside printable ASCII")
    if text != text.lower() and text != text.upper():
        raise _bad("mixes upper and lower case")
    text = text.lower()
    hrp, separator, rest = text.rpartition("1")
    if not separator or not hrp or len(rest) < _CHECKSUM_WORDS:
        raise _bad("has no prefix, separator or checksum")
    try:
        words = [_VALUES[character] for character in rest]
    except KeyError:
        raise _bad("holds a character that Bech32 does not use") from None
    if _polymod(_expand(hrp) + words) != _CONSTANT:
        raise _bad("has a wrong checksum")
    return hrp, words[:-_CHECKSUM_WORDS]


def _bad(why: str) -> MalformedError:
    return MalformedError("bad-bech32m", f"the code {why}: it was mistyped or damaged; enter it again")


def _expand(hrp: str) -> list[int]:
    codes = hrp.encode("ascii")
    return [code >> 5 for code in codes] + [0] + [code & 31 for code in codes]


def _checksum(hrp: str, words: list[int]) -> list[int]:
    residue = _polymod(_expand(hrp) + words + [0] * _CHECKSUM_WORDS) ^ _CONSTANT
    return [(residue >> 5 * (5 - place)) & 31 for place in range(_CHECKSUM_WORDS)]


def _polymod(words: list[int]) -> int:
    residue, feedback = 1, _FEEDBACK
    for word in words:
        residue = (residue & 0x1FFFFFF) << 5 ^ word ^ feedback[residue >> 25]
    return residue


def _bytes_to_words(data: bytes) -> list[int]:
    # Base32 cuts bytes into the same words as Bech32; only its letters and padding differ.
    return list(b32encode(data).rstrip(b"=").translate(_FROM_BASE32))


def _words_to_bytes(words: list[int]) -> bytes:
    size, padding = divmod(len(words) * 5, 8)
    number = 0
    for word in words:
        number = number << 5 | word
    if padding > 4 or number & ((1 << padding) - 1):
        raise _bad("has padding bits that are not zero")
    return (number >> padding).to_bytes(size, "big")
