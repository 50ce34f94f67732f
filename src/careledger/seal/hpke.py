"""HPKE: sealing bytes to somebody's public key, post-quantum hybrid because health records outlive today's curves.

Follows RFC 9180 base mode, single shot, with the suite X-Wing (ML-KEM-768 + X25519, KEM 0x647a, draft-ietf-hpke-pq and
draft-connolly-cfrg-xwing-kem), HKDF-SHA256 and AES-256-GCM. Wire = enc (1120 bytes) ‖ ciphertext. There is no `aad`:
what the message belongs to is in `info`, canonical JSON from the table below. A private key is its 32-byte seed; HPKE's
DeriveKeyPair is never used, since implementations differ there.

The ephemeral randomness is drawn inside the library (docs/decisions/0001), so sealing is the one operation of this
package that is not a function of its arguments.
"""

from __future__ import annotations

from hashlib import shake_256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke as _hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from careledger.errors import MalformedError, VerificationError
from careledger.seal import canonical

__all__ = ["ENC_SIZE", "INFO_FIELDS", "OVERHEAD", "PUBLIC_SIZE", "SEED_SIZE", "SealingKey", "SealingPublicKey", "info"]

SEED_SIZE: Final = 32
PUBLIC_SIZE: Final = 1216
"""ML-KEM-768 1184 ‖ X25519 32."""
ENC_SIZE: Final = 1120
"""ML-KEM-768 ciphertext 1088 ‖ X25519 ephemeral 32."""
OVERHEAD: Final = ENC_SIZE + 16

_MLKEM_PUBLIC_SIZE: Final = 1184
_SUITE: Final = _hpke.Suite(_hpke.KEM.MLKEM768_X25519, _hpke.KDF.HKDF_SHA256, _hpke.AEAD.AES_256_GCM)

_P: Final = 2**255 - 19
_LOW_ORDER_U: Final = frozenset(
    {
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _P - 1,
        _P,
        _P + 1,
    }
)
"""Every u (top bit masked) whose X25519 secret is zero (RFC 7748 section 6.1); with it the curve would add nothing."""

INFO_FIELDS: Final[dict[str, tuple[frozenset[str], frozenset[str]]]] = {
    use: (frozenset(required.split()), frozenset(optional.split()))
    for use, required, optional in (
        ("owner", "subject author submission to", ""),
        ("consent", "subject author submission to compartment epoch", ""),
        ("release", "subject author submission to", ""),
        ("grant", "subject seq prev to", ""),
        ("rekey", "subject seq prev to", ""),
        ("file", "subject record", "compartment epoch"),
        ("answer", "request node index", ""),
        ("key-box", "subject to way", "seq"),
    )
}
"""Each use with the fields its `info` must and may have. A new use is added here and to docs/spec/sealing.md."""


def info(network: str, use: str, **fields: str | int | None) -> bytes:
    """Return the `info` of a message: canonical JSON {v: 1, network, use, …fields}; None: does not apply.

    Raises AssertionError for a use that is not in INFO_FIELDS, or a field missing or not listed there: a bug, because
    a message that is not bound to its place could be laundered through another.
    """
    listed = INFO_FIELDS.get(use)
    if listed is None:
        raise AssertionError(f"{use!r} is no registered use of HPKE; add it to INFO_FIELDS and the specification")
    bound = {name: value for name, value in fields.items() if value is not None}
    required, optional = listed
    if not required <= bound.keys() <= required | optional:
        raise AssertionError(
            f"info of {use!r} needs {sorted(required)} and may have {sorted(optional)}, got {sorted(bound)}"
        )
    return canonical.encode({"v": 1, "network": network, "use": use, **bound})


class SealingPublicKey:
    """A recipient's X-Wing public key, checked once."""

    __slots__ = ("_key", "raw")

    raw: bytes

    def __init__(self, raw: bytes) -> None:
        """Raises MalformedError `bad-key`: not 1216 bytes, ML-KEM coefficients ≥ q, X25519 part of low order."""
        if len(raw) != PUBLIC_SIZE:
            raise MalformedError("bad-key", f"an X-Wing public key has {PUBLIC_SIZE} bytes, not {len(raw)}")
        u = int.from_bytes(raw[_MLKEM_PUBLIC_SIZE:], "little") & ((1 << 255) - 1)
        if u in _LOW_ORDER_U:
            raise MalformedError("bad-key", "the X25519 part of the X-Wing public key is of low order; make a new key")
        try:
            mlkem = MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC_SIZE])
        except ValueError:
            raise MalformedError(
                "bad-key", "the ML-KEM part of the X-Wing public key is not canonical; make a new key"
            ) from None
        self.raw = raw
        self._key = _hpke.MLKEM768X25519PublicKey(mlkem, X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC_SIZE:]))

    def seal(self, plaintext: bytes, *, info: bytes) -> bytes:
        """Return enc ‖ ciphertext (OVERHEAD bytes longer); only the key's holder opens it, with the same `info`."""
        return _SUITE.encrypt(plaintext, self._key, info)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SealingPublicKey) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"SealingPublicKey({self.raw[:8].hex()}…)"


class SealingKey:
    """An X-Wing private key: its 32-byte seed, expanded by SHAKE256 to ML-KEM's 64 and X25519's 32 bytes."""

    __slots__ = ("_key", "public", "seed")

    seed: bytes
    public: bytes

    def __init__(self, seed: bytes) -> None:
        """Raises MalformedError `bad-key` when the seed is not 32 bytes."""
        if len(seed) != SEED_SIZE:
            raise MalformedError("bad-key", f"an X-Wing seed has {SEED_SIZE} bytes, not {len(seed)}")
        expanded = shake_256(seed).digest(96)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
        self.seed = seed
        self.public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        self._key = _hpke.MLKEM768X25519PrivateKey(mlkem, x25519)

    def open(self, wire: bytes, *, info: bytes) -> bytes:
        """Return what was sealed to this key with this `info`.

        Raises VerificationError `not-openable`, always with the same words: which part was wrong would help a forger.
        """
        try:
            return _SUITE.decrypt(wire, self._key, info)
        except (InvalidTag, ValueError):
            raise VerificationError(
                "not-openable", "the sealed message does not open with this key in this place; ask its sender again"
            ) from None

    def __repr__(self) -> str:
        return f"SealingKey(public={self.public[:8].hex()}…)"
