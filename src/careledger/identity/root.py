"""The root secret: 32 bytes on paper, the recovery kit, from which only the *next* signing keys come.

It is never on the device. Whoever has the device but not the kit can't rotate; whoever has the kit can rotate, and with
the key box (which custodians keep) also open it.
"""

from __future__ import annotations

from typing import Final

from careledger.errors import MalformedError, NotFoundError
from careledger.identity import bech32m
from careledger.identity.operations import next_hash
from careledger.seal import SigningKey, kdf

__all__ = ["ROOT_BYTES", "find_next_key", "kit_code", "parse_kit_code", "root_signing_key"]

ROOT_BYTES: Final = 32
_HRP: Final = "clkit"
_TEXT_MAX: Final = 200
_LINE_BREAKS: Final = str.maketrans("", "", " -\t\r\n")


def root_signing_key(root: bytes, sequence: int) -> SigningKey:
    """The signing key of `root` meant to sign operation `sequence` (KDF(root, recovery, u32 sequence))."""
    if len(root) != ROOT_BYTES:
        raise AssertionError(f"a root secret has {ROOT_BYTES} bytes")
    return SigningKey(kdf(root, "recovery", sequence))


def find_next_key(root: bytes, *, committed: str, sequence: int) -> SigningKey:
    """The key to which the state (`next` = `committed`, at `sequence`) is committed.

    The commitment was made for the sequence after the last rotation, which the kit alone doesn't know; updates since
    then only raised `sequence`, so it is found by trying downwards.
    Raises NotFoundError `wrong-kit`: this root is not the identity's.
    """
    for number in range(sequence + 1, 0, -1):
        key = root_signing_key(root, number)
        if next_hash(key.public) == committed:
            return key
    raise NotFoundError("wrong-kit", "this recovery kit does not belong to the identity, or a newer kit replaced it")


def kit_code(root: bytes) -> str:
    """The printed form of a root secret: Bech32m with prefix `clkit`, 64 characters."""
    if len(root) != ROOT_BYTES:
        raise AssertionError(f"a root secret has {ROOT_BYTES} bytes")
    return bech32m.encode(_HRP, root)


def parse_kit_code(text: str) -> bytes:
    """The root secret of a printed code; spaces, hyphens, line breaks and all-capitals are forgiven.

    Raises MalformedError `bad-kit-code`; the message never repeats what was typed.
    """
    if len(text) > _TEXT_MAX:
        raise MalformedError("bad-kit-code", "this is too long for the code of a recovery kit: type the 64 characters")
    try:
        root = bech32m.decode(text.translate(_LINE_BREAKS), hrp=_HRP)
    except MalformedError:
        raise MalformedError(
            "bad-kit-code", "this is not the code of a recovery kit, or a character is wrong: compare it with the paper"
        ) from None
    if len(root) != ROOT_BYTES:
        raise MalformedError("bad-kit-code", f"the code of a recovery kit holds {ROOT_BYTES} bytes: use the paper's")
    return root
