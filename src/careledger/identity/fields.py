"""Field types that the payloads of identities and the directory share: their shape is checked while decoding.

A shape is not a proof: whether a token's checksum holds, or a hash is the right one, is for the rules that use it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

__all__ = ["ZERO_HASH", "Hash", "Id16", "Milliseconds", "Name", "Sequence", "TokenText", "Version"]

Version = Literal[1]
"""The only payload version there is; any other is refused while decoding."""

Hash = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
"""SHA-256 in lower-case hex."""

Id16 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
"""16 random bytes in lower-case hex."""

TokenText = Annotated[str, msgspec.Meta(pattern=r"\Acl1[02-9ac-hj-np-z]{46}\Z")]
"""The shape of a token: `cl1`, 40 characters of data and 6 of checksum in the Bech32 alphabet."""

Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)]
"""Milliseconds since 1970-01-01 UTC."""

Sequence = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
"""The number of an operation; it fits the u32 of the key derivation."""

Name = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9._:/-]{0,63}\Z")]
"""A short machine-readable word such as a role: lower-case ASCII, at most 64 characters."""

ZERO_HASH = "00" * 32
"""Stands where a hash link has nothing before it, or where a tombstone keeps nothing."""
