"""Key derivation: each use of a secret gets a key of its own, so that no two parts of the system ever share one.

HKDF-SHA256 (RFC 5869) with an empty salt; the info is "careledger/<use>/v1" and then each part behind its length, so
that no two lists of parts give the same bytes. What each use binds is a table in docs/spec/sealing.md section 2.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

__all__ = ["USES", "Kdf", "kdf"]

USES: Final = frozenset(
    {
        "release",
        "consent-compartment",
        "consent-record",
        "content",
        "shamir",
        "prev",
        "key-box",
        "recovery",
        "emergency",
    }
)
"""Every use there is. A new one is added here and to the table in docs/spec/sealing.md, never spelled ad hoc."""

_LABELS: Final = {use: f"careledger/{use}/v1".encode("ascii") for use in USES}
_U16: Final = struct.Struct(">H").pack
_U32_PART: Final = struct.Struct(">HI").pack
_IPAD: Final = bytes(byte ^ 0x36 for byte in range(256))
_OPAD: Final = bytes(byte ^ 0x5C for byte in range(256))
_NO_SALT_INNER: Final = sha256(b"\x36" * 64)
_NO_SALT_OUTER: Final = sha256(b"\x5c" * 64)
_PADDING: Final = bytes(32)


class Kdf:
    """Derives many keys from one secret; the HMAC states are kept, which makes each derivation about 1 us.

    `ikm` is secret key material of any length, full of entropy: never a passphrase (see passphrase.py).
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, ikm: bytes) -> None:
        # HKDF-Extract: an empty salt is HashLen zero bytes (RFC 5869 section 2.2), padded to SHA-256's block of 64.
        inner = _NO_SALT_INNER.copy()
        inner.update(ikm)
        outer = _NO_SALT_OUTER.copy()
        outer.update(inner.digest())
        block = outer.digest() + _PADDING
        self._inner = sha256(block.translate(_IPAD))
        self._outer = sha256(block.translate(_OPAD))

    def derive(self, use: str, *parts: bytes | int) -> bytes:
        """Return the 32-byte key of `use` for `parts`: raw bytes (each below 64 KiB) or integers (u32 big-endian).

        Raises AssertionError for a use that is not in USES, struct.error for a part out of range: both are bugs.
        """
        info = [_label(use)]
        for part in parts:
            if isinstance(part, int):
                info.append(_U32_PART(4, part))
            else:
                info.append(_U16(len(part)))
                info.append(part)
        return self._expand(b"".join(info))

    def derive_each(self, use: str, items: Sequence[bytes], *parts: int) -> list[bytes]:
        """Return `derive(use, item, *parts)` of each item, in half the time. Raises AssertionError unless they have one
        size: a bug."""
        if not items:
            return []
        size = len(items[0])
        if any(len(item) != size for item in items):
            raise AssertionError("items to derive keys for have one size")
        before = _label(use) + _U16(size)
        after = b"".join([_U32_PART(4, part) for part in parts]) + b"\x01"
        inner_start, outer_start = self._inner.copy, self._outer.copy
        keys = []
        for item in items:
            inner, outer = inner_start(), outer_start()
            inner.update(before + item + after)
            outer.update(inner.digest())
            keys.append(outer.digest())
        return keys

    def _expand(self, info: bytes) -> bytes:
        """HKDF-Expand to one block: T(1) = HMAC(PRK, info ‖ 0x01) (RFC 5869 section 2.3)."""
        inner = self._inner.copy()
        inner.update(info + b"\x01")
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()

    def __repr__(self) -> str:
        return "Kdf(…)"


def _label(use: str) -> bytes:
    label = _LABELS.get(use)
    if label is None:
        raise AssertionError(f"{use!r} is no registered use of the KDF; add it to USES and the specification")
    return label


def kdf(ikm: bytes, use: str, *parts: bytes | int) -> bytes:
    """Return one 32-byte key; for several from the same secret, keep a Kdf."""
    return Kdf(ikm).derive(use, *parts)
