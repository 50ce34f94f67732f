"""Tokens: the name of an identity, derived from its first operation and therefore beyond anybody's power to assign.

token = Bech32m, prefix `cl`, of the first 25 bytes of SHA-256(inception payload).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from careledger.errors import MalformedError
from careledger.identity import bech32m

__all__ = ["TOKEN_LENGTH", "Token", "check_token", "token_of"]

Token = str
"""A token as text: 49 characters, always lower case."""

TOKEN_LENGTH = 49
_HRP = "cl"
_HASH_BYTES = 25
"""200 bits: a collision costs 2^100 hashes, and the text has no padding bits."""


def token_of(inception_payload: bytes) -> Token:
    """The token of the identity that begins with this payload (exact bytes)."""
    return bech32m.encode(_HRP, hashlib.sha256(inception_payload).digest()[:_HASH_BYTES])


@lru_cache(maxsize=16384)
def check_token(text: str) -> Token:
    """`text` itself, when it is a token in its one written form (lower case).

    Raises MalformedError `bad-token`.
    """
    if len(text) != TOKEN_LENGTH or text != text.lower():
        raise MalformedError("bad-token", f"a token is {TOKEN_LENGTH} lower-case characters starting with cl1")
    try:
        data = bech32m.decode(text, hrp=_HRP)
    except MalformedError as error:
        raise MalformedError("bad-token", f"this is not a token: {error.message}") from None
    if len(data) != _HASH_BYTES:
        raise MalformedError("bad-token", f"a token holds {_HASH_BYTES} bytes, this one {len(data)}")
    return text
