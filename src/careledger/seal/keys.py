"""How public keys are written down: lists of {alg, pub}, and keyids that say whose and which.

A list instead of fields, so that another algorithm can stand beside today's without a new format; until a version of
the format names it, an unknown algorithm is refused like an unknown field.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from careledger.errors import MalformedError
from careledger.seal.canonical import INTEGER_MAX, Payload, b64, unb64
from careledger.seal.ed25519 import VerifyKey
from careledger.seal.hpke import SealingPublicKey

__all__ = ["ALG_SEAL", "ALG_SIGN", "Key", "keyid", "parse_keyid", "sealing_key", "signing_keys"]

ALG_SIGN: Final = "Ed25519"
ALG_SEAL: Final = "X-Wing"

_KEYID: Final = re.compile(r"([!-\"$-~]{1,200})#(0|[1-9][0-9]{0,15})")
_KEYS_MAX: Final = 16


class Key(Payload, frozen=True, kw_only=True):
    """One public key: `alg` as above, `pub` the raw key in unpadded base64url."""

    alg: str
    pub: str

    @classmethod
    def sign(cls, public: bytes) -> Key:
        """The item for a raw 32-byte Ed25519 public key."""
        return cls(alg=ALG_SIGN, pub=b64(public))

    @classmethod
    def seal(cls, public: bytes) -> Key:
        """The item for a raw 1216-byte X-Wing public key."""
        return cls(alg=ALG_SEAL, pub=b64(public))


def signing_keys(keys: Sequence[Key]) -> list[VerifyKey]:
    """Return the Ed25519 keys of a list, at least one, in its order.

    Raises MalformedError `unknown-algorithm`, `bad-base64`, `bad-key` (none, one twice, over 16, not strict Ed25519).
    """
    found = [VerifyKey(unb64(key.pub)) for key in _known(keys) if key.alg == ALG_SIGN]
    if not found:
        raise MalformedError("bad-key", f"the list of {len(keys)} keys has no {ALG_SIGN} key; add one")
    return found


def sealing_key(keys: Sequence[Key]) -> SealingPublicKey:
    """Return the one X-Wing key of a list.

    Raises MalformedError `unknown-algorithm`, `bad-key` (none, several, or not an X-Wing key), `bad-base64`.
    """
    found = [key for key in _known(keys) if key.alg == ALG_SEAL]
    if len(found) != 1:
        raise MalformedError(
            "bad-key", f"the list of {len(keys)} keys has {len(found)} {ALG_SEAL} keys; exactly one is needed"
        )
    return SealingPublicKey(unb64(found[0].pub))


def keyid(token: str, sequence: int) -> str:
    """Return token#sequence: the keys of `token` as its operation number `sequence` left them."""
    text = f"{token}#{sequence}"
    if _KEYID.fullmatch(text) is None or sequence > INTEGER_MAX:
        raise AssertionError("a keyid needs a token of visible ASCII without '#' and a sequence within 0 to 2^53-1")
    return text


@lru_cache(maxsize=1024)
def parse_keyid(text: str) -> tuple[str, int]:
    """Return (token, sequence) of a keyid; the token's own form is identity's to check.

    Raises MalformedError `bad-keyid`: no '#', white space, leading zeros, a sequence beyond 2^53−1.
    """
    match = _KEYID.fullmatch(text)
    if match is None or int(match[2]) > INTEGER_MAX:
        raise MalformedError("bad-keyid", f"a keyid of {len(text)} characters is not token#sequence")
    return match[1], int(match[2])


def _known(keys: Sequence[Key]) -> Sequence[Key]:
    if len(keys) > _KEYS_MAX or len({key.pub for key in keys}) != len(keys):
        raise MalformedError("bad-key", f"a list of {len(keys)} keys has a key twice or more than {_KEYS_MAX} keys")
    for key in keys:
        if key.alg not in (ALG_SIGN, ALG_SEAL):
            raise MalformedError(
                "unknown-algorithm", f"a key is neither {ALG_SIGN} nor {ALG_SEAL}; upgrade this software"
            )
    return keys
