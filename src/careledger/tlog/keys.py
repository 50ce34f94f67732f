"""Ed25519 keys as notes need them: two small protocols, and strict implementations of both.

`careledger.seal`'s keys fit the protocols; the implementations here serve whoever verifies a log and nothing else.
Strict as RFC 8032: a public key with y ≥ p or of small order is refused, and so is a signature with S ≥ L.
"""

from __future__ import annotations

from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from careledger.errors import MalformedError, VerificationError

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493

# The y coordinates of the eight points of small order: 1 (the neutral point), -1 (order 2), 0 (order 4) and the roots
# of d·y^4 + 2·y^2 = 1 (order 8: doubling leads to y = 0).
_Y8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER_Y = frozenset({0, 1, _P - 1, _Y8, _P - _Y8})


class SigningKey(Protocol):
    """What signs a note: an Ed25519 private key."""

    @property
    def public(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes: ...


class VerifyKey(Protocol):
    """What checks a signature; raises VerificationError when it doesn't hold."""

    def verify(self, signature: bytes, message: bytes) -> None: ...


class Ed25519SigningKey:
    """A private key from its 32-byte seed."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise MalformedError("bad-key", f"an Ed25519 seed has 32 bytes, not {len(seed)}")
        self.seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._key.public_key().public_bytes_raw()

    @property
    def public(self) -> bytes:
        return self._public

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


class Ed25519VerifyKey:
    """A public key from its 32 bytes. Raises MalformedError `bad-key`."""

    def __init__(self, public: bytes) -> None:
        if len(public) != 32:
            raise MalformedError("bad-key", f"an Ed25519 public key has 32 bytes, not {len(public)}")
        y = int.from_bytes(public, "little") & (2**255 - 1)
        if y >= _P or y in _SMALL_ORDER_Y:
            raise MalformedError("bad-key", "an Ed25519 public key is not canonical or of small order")
        try:
            self._key = Ed25519PublicKey.from_public_bytes(public)
        except ValueError as problem:
            raise MalformedError("bad-key", "an Ed25519 public key is not a point of the curve") from problem
        self.public = public

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raises VerificationError `bad-signature`."""
        if len(signature) != 64 or int.from_bytes(signature[32:], "little") >= _L:
            raise VerificationError("bad-signature", "an Ed25519 signature is not canonical")
        try:
            self._key.verify(signature, message)
        except InvalidSignature as problem:
            raise VerificationError("bad-signature", "an Ed25519 signature does not match its message") from problem
