"""From a passphrase to a key: slow and memory-hard, because people's passphrases can be guessed.

Argon2id (RFC 9106) with 64 MiB, 3 passes and 1 lane by default: RFC 9106's second recommendation with the single lane a
browser has. The passphrase is normalised (Unicode NFKC) first, so that it opens from every keyboard.
"""

from __future__ import annotations

import unicodedata
from typing import Final

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from careledger.errors import MalformedError

__all__ = ["ITERATIONS", "LANES", "MEMORY_KIB", "SALT_SIZE", "passphrase_key"]

MEMORY_KIB: Final = 65536
ITERATIONS: Final = 3
LANES: Final = 1
SALT_SIZE: Final = 16

_MEMORY_KIB_MAX: Final = 1 << 20
"""1 GiB: the parameters come with a key box from a node, which must not be able to exhaust this machine."""
_ITERATIONS_MAX: Final = 64
_LANES_MAX: Final = 16
_PASSPHRASE_BYTES_MAX: Final = 4096


def passphrase_key(
    passphrase: str, *, salt: bytes, memory_kib: int = MEMORY_KIB, iterations: int = ITERATIONS, lanes: int = LANES
) -> bytes:
    """Return the 32-byte Argon2id key of `passphrase` (NFKC, UTF-8) with a 16-byte random `salt`.

    Raises MalformedError: `bad-parameters` (a cost beyond what this machine will spend, or a salt that is not 16
    bytes), `bad-passphrase` (empty, not Unicode, or over 4096 bytes). Source: RFC 9106 sections 3.1 and 4.
    """
    if (
        len(salt) != SALT_SIZE
        or not 1 <= lanes <= _LANES_MAX
        or not 1 <= iterations <= _ITERATIONS_MAX
        or not 8 * lanes <= memory_kib <= _MEMORY_KIB_MAX
    ):
        raise MalformedError(
            "bad-parameters",
            f"Argon2id with a {len(salt)}-byte salt, {memory_kib} KiB, {iterations} passes, {lanes} lanes is outside "
            "what this software computes; use the defaults",
        )
    try:
        secret = unicodedata.normalize("NFKC", passphrase).encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedError("bad-passphrase", "the passphrase is not Unicode text; type it again") from None
    if not 0 < len(secret) <= _PASSPHRASE_BYTES_MAX:
        raise MalformedError("bad-passphrase", f"a passphrase has 1 to {_PASSPHRASE_BYTES_MAX} bytes; choose another")
    return Argon2id(salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory_kib).derive(secret)
