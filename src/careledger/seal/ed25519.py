"""Ed25519 signatures, strict in both directions: what one verifier accepts, every verifier accepts.

Follows RFC 8032 with the choices that libraries leave open pinned down: a public key must be canonically encoded and
not of small order, S must be below the group order, R is compared as bytes (so a non-canonical R never verifies), and
the equation is the one without cofactor. The library underneath accepts non-canonical and small-order keys, under
which one signature fits many messages; they are refused here. Bytes that are no point of the curve make a key under
which nothing verifies, which costs nothing to know.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from careledger.errors import MalformedError, VerificationError
from careledger.seal.proven import memory_in_use

__all__ = ["PUBLIC_SIZE", "SEED_SIZE", "SIGNATURE_SIZE", "SigningKey", "VerifyKey"]

SEED_SIZE: Final = 32
PUBLIC_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64

_P: Final = 2**255 - 19
_L: Final = 2**252 + 27742317777372353535851937790883648493
_SIGN_BIT: Final = 1 << 255

# y of the points of order 8: where x² = −y² the curve equation says d·y⁴ + 2y² = 1. Orders 1, 2, 4 have y = 1, −1, 0.
_Y8: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER_Y: Final = frozenset({0, 1, _P - 1, _Y8, _P - _Y8})


class VerifyKey:
    """A public key that was checked once; verifying with it costs what the library's verifying costs."""

    __slots__ = ("_key", "raw")

    raw: bytes
    """The 32 bytes of RFC 8032 section 5.1.2."""

    def __init__(self, raw: bytes) -> None:
        """Raises MalformedError `bad-key`: not 32 bytes, y ≥ p, x = 0 with the sign bit, small order."""
        if len(raw) != PUBLIC_SIZE:
            raise MalformedError("bad-key", f"an Ed25519 public key has {PUBLIC_SIZE} bytes, not {len(raw)}")
        y = int.from_bytes(raw, "little") & (_SIGN_BIT - 1)
        if y >= _P:
            raise MalformedError(
                "bad-key", "the Ed25519 public key is not in canonical form (y is not below p); make a new key"
            )
        # x = 0 only where y = ±1, of order 1 and 2: the same refusal covers x = 0 with the sign bit.
        if y in _SMALL_ORDER_Y:
            raise MalformedError(
                "bad-key", "the Ed25519 public key is of small order, under which anybody can sign; make a new key"
            )
        self.raw = raw
        self._key = Ed25519PublicKey.from_public_bytes(raw)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Return if `signature` (64 bytes) is this key's on `message`, else raise VerificationError `bad-signature`."""
        if len(signature) == SIGNATURE_SIZE and int.from_bytes(signature[32:], "little") < _L:
            memory = memory_in_use()
            # Two parts of fixed length before the third: no other three give the same digest.
            digest = b"" if memory is None else sha256(self.raw + signature + message).digest()
            if memory is not None and digest in memory:
                return
            try:
                self._key.verify(signature, message)
            except InvalidSignature:
                pass
            else:
                if memory is not None:
                    memory.add(digest)
                return
        raise VerificationError(
            "bad-signature", "the Ed25519 signature is not this key's on these bytes; do not trust them"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VerifyKey) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"VerifyKey({self.raw.hex()})"


class SigningKey:
    """A private key, which is its 32-byte seed (RFC 8032 section 5.1.5). Signing is deterministic."""

    __slots__ = ("_key", "public", "seed")

    seed: bytes
    public: bytes

    def __init__(self, seed: bytes) -> None:
        """Raises MalformedError `bad-key` when the seed is not 32 bytes."""
        if len(seed) != SEED_SIZE:
            raise MalformedError("bad-key", f"an Ed25519 seed has {SEED_SIZE} bytes, not {len(seed)}")
        self.seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature R ‖ S on `message`."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()})"
