"""The id of a record, which nobody can choose: it follows from network, subject, author, submission and place in it.

Whoever sees a manifest recomputes it, so a record copied into another subject's or author's submission has another id,
and neither its locks nor its shares fit there (docs/spec/records.md section 2).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

__all__ = ["ID_SIZE", "record_id"]

ID_SIZE: Final = 16
"""Bytes of record, submission and compartment ids: 128 random or hashed bits, so that none meet by chance."""

_LABEL: Final = b"careledger/record/v1"
_NETWORK_SIZE: Final = 32


def record_id(network: bytes, subject: str, author: str, submission: bytes, index: int) -> bytes:
    """Return the 16-byte id of the record at 0-based `index` of a submission.

    `network` is 32 raw bytes, `submission` 16 raw bytes; `subject` and `author` are tokens, hashed as ASCII.
    Source: docs/spec/records.md section 2; vectors/records/ids.json.
    """
    hashed = _before_index(network, subject, author, submission).copy()
    hashed.update(index.to_bytes(4))
    return hashed.digest()[:ID_SIZE]


@lru_cache(maxsize=64)
def _before_index(network: bytes, subject: str, author: str, submission: bytes) -> hashlib._Hash:
    """The hash over what all records of a submission share; kept, since each of them is checked by everybody."""
    if len(network) != _NETWORK_SIZE or len(submission) != ID_SIZE:
        raise AssertionError(f"a network has 32 bytes and a submission 16, got {len(network)} and {len(submission)}")
    return hashlib.sha256(_LABEL + network + subject.encode("ascii") + author.encode("ascii") + submission)
