"""Authenticated encryption of bytes under a key both sides hold: AES-256-GCM (NIST SP 800-38D).

Two ways, told apart by name because mixing them up would be fatal: `seal_content` for a key that encrypts exactly one
plaintext ever, `seal_random` for a key that lives long. GCM does not commit to its key: that a ciphertext has one
meaning is proven elsewhere (the record's content root).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from careledger.errors import VerificationError

__all__ = ["KEY_SIZE", "NONCE_SIZE", "TAG_SIZE", "open_content", "open_random", "seal_content", "seal_random"]

KEY_SIZE: Final = 32
NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16

_ZERO_NONCE: Final = bytes(NONCE_SIZE)


def seal_content(key: bytes, plaintext: bytes, *, aad: bytes) -> bytes:
    """Return ciphertext ‖ tag under a key that is derived for this one plaintext and never used again.

    The nonce is zero: it only has to differ between uses of one key, and there is one use. Two plaintexts under one key
    would give both away, so the key must come from a KDF over fresh randomness (records: M and the record id).
    """
    return _cipher(key).encrypt(_ZERO_NONCE, plaintext, aad)


def open_content(key: bytes, ciphertext: bytes, *, aad: bytes) -> bytes:
    """Return the plaintext of `seal_content`; raises VerificationError `not-openable` without saying what was wrong."""
    return _open(key, _ZERO_NONCE, ciphertext, aad)


def seal_random(key: bytes, plaintext: bytes, *, aad: bytes, rand: Callable[[int], bytes]) -> bytes:
    """Return nonce (12 bytes from `rand`) ‖ ciphertext ‖ tag under a long-lived key.

    One key takes at most 2^32 messages (SP 800-38D section 8.3), far more than a person's devices ever write.
    """
    nonce = rand(NONCE_SIZE)
    if len(nonce) != NONCE_SIZE:
        raise AssertionError(f"the source of randomness returned {len(nonce)} bytes, not {NONCE_SIZE}")
    return nonce + _cipher(key).encrypt(nonce, plaintext, aad)


def open_random(key: bytes, wire: bytes, *, aad: bytes) -> bytes:
    """Return the plaintext of `seal_random`; raises VerificationError `not-openable` without saying what was wrong."""
    return _open(key, wire[:NONCE_SIZE], wire[NONCE_SIZE:], aad)


def _cipher(key: bytes) -> AESGCM:
    if len(key) != KEY_SIZE:
        raise AssertionError(f"AES-256-GCM needs a key of {KEY_SIZE} bytes, not {len(key)}")
    return AESGCM(key)


def _open(key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    cipher = _cipher(key)
    if len(nonce) == NONCE_SIZE and len(ciphertext) >= TAG_SIZE:
        try:
            return cipher.decrypt(nonce, ciphertext, aad)
        except InvalidTag:
            pass
    raise VerificationError(
        "not-openable",
        "the ciphertext does not open with this key in this place; fetch it again from another custodian",
    )
