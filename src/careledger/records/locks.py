"""The locks of a submission: HPKE messages that carry M to the subject, C to a compartment, shares to a custodian.

Each is bound by HPKE's `info` to network, subject, author, submission and recipient, so that a box copied from
somebody else's submission does not open. A lock's bytes are MessagePack, its leaf is their SHA-256.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final, Literal

import msgspec

from careledger.errors import MalformedError, VerificationError
from careledger.records.ids import ID_SIZE
from careledger.records.manifest import SubmissionStatement
from careledger.seal import SealingKey, info, parse_keyid, unhex

__all__ = ["Lock", "decode_lock", "decode_shares", "encode_shares", "lock_info", "lock_leaf", "open_lock"]

LOCK_MAX: Final = 128 << 10
"""Bytes of one lock: a release lock of 1,000 records has 71 kB."""

_SHARE_SIZE: Final = 33


class Lock(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """[use, compartment, epoch, to, box]: `compartment` (hex) and `epoch` are nil but in a consent lock.

    `to` is the recipient's keyid; of owner and consent locks it is the subject's.
    """

    use: Literal["owner", "consent", "release"]
    compartment: str | None
    epoch: int | None
    to: str
    box: bytes


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Lock)
_shares_decoder: Final = msgspec.msgpack.Decoder(list[tuple[bytes, bytes, bytes]])


def encode_lock(lock: Lock) -> bytes:
    """Return the lock's bytes: MessagePack in shortest form."""
    return _encoder.encode(lock)


def decode_lock(data: bytes) -> Lock:
    """Return the lock whose one encoding is `data`; raises MalformedError `too-large`, `bad-lock`, `bad-keyid`."""
    if len(data) > LOCK_MAX:
        raise MalformedError("too-large", f"a lock has {len(data)} bytes, more than {LOCK_MAX}")
    try:
        lock = _decoder.decode(data)
        again = _encoder.encode(lock)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise MalformedError("bad-lock", "a lock is not MessagePack of use, compartment, epoch, to, box") from None
    if again != data:
        raise MalformedError("bad-lock", "a lock is MessagePack, but not in its shortest form")
    if lock.compartment is None or lock.epoch is None:
        if lock.use == "consent" or lock.compartment is not None or lock.epoch is not None:
            raise MalformedError("bad-lock", f"a lock of use {lock.use} has a compartment without epoch, or none")
    else:
        if lock.use != "consent" or not 0 <= lock.epoch < 1 << 32:
            raise MalformedError("bad-lock", f"a lock of use {lock.use} has a compartment or an epoch beyond 32 bits")
        unhex(lock.compartment, size=ID_SIZE)
    parse_keyid(lock.to)
    return lock


def lock_leaf(data: bytes) -> bytes:
    """Return the value of a lock in the tree of its submission: SHA-256 of its bytes."""
    return sha256(data).digest()


def lock_info(
    statement: SubmissionStatement, use: str, *, to: str, compartment: str | None = None, epoch: int | None = None
) -> bytes:
    """Return the HPKE `info` that binds a lock to its submission and recipient."""
    return info(
        statement.network,
        use,
        subject=statement.subject,
        author=statement.author,
        submission=statement.submission,
        to=to,
        compartment=compartment,
        epoch=epoch,
    )


def open_lock(lock: Lock, *, statement: SubmissionStatement, key: SealingKey) -> bytes:
    """Return what the lock carries; raises VerificationError `not-openable` when it is not for this key and place."""
    bound = lock_info(statement, lock.use, to=lock.to, compartment=lock.compartment, epoch=lock.epoch)
    return key.open(lock.box, info=bound)


def encode_shares(rows: Sequence[tuple[bytes, bytes, bytes]]) -> bytes:
    """Return the content of a release lock: MessagePack of [record, compartment, share] in the order of the records."""
    return _encoder.encode(rows)


def decode_shares(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """Return the rows of a release lock; raises VerificationError `bad-share` when they are not what it must carry."""
    try:
        rows = _shares_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        rows = []
    if _encoder.encode(rows) != data or any(len(share) != _SHARE_SIZE for _, _, share in rows):
        raise VerificationError(
            "bad-share", "a custodian's lock opens, but does not carry shares; refuse the submission"
        )
    return rows
