"""What a custodian checks before it gives a receipt for a submission: everything it can without reading.

A receipt must mean that this custodian can do its part later: it opens its own release lock and compares each share
with the signed commitment (`bad-share`), so that an author can't hand out shares that don't open and blame custodians.
What only the subject or a reader can see (consent locks, owner lock, content) is theirs to check: owner.py, opening.py.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from hashlib import sha256
from typing import Final

import msgspec

from careledger.errors import MalformedError, VerificationError
from careledger.records.leaves import check_leaves
from careledger.records.locks import Lock, decode_lock, decode_shares, lock_leaf, open_lock
from careledger.records.manifest import Manifest, SubmissionStatement, check_manifest, manifest_leaf, open_statement
from careledger.records.plaintext import INFLATED_MAX, padme
from careledger.records.submission import RECORDS_MAX, Submission
from careledger.seal import Envelope, SealingKey, VerifyKey, decode, envelope_message_id, parse_keyid, share_commitment

__all__ = ["FUTURE_MS", "SLICE", "CheckedLock", "CheckedRecord", "CheckedSubmission", "check_steps", "check_submission"]

FUTURE_MS: Final = 120_000
"""`recorded` and `time` may be this far after the custodian's clock, as for every request (DESIGN 5.2)."""

SLICE: Final = 20
"""Records between two pauses of `check_steps`: about a millisecond (docs/results.md)."""

_TAG_SIZE: Final = 16
_CIPHERTEXT_MAX: Final = padme(INFLATED_MAX + (INFLATED_MAX >> 8)) + _TAG_SIZE
"""Deflate adds at most 5 bytes to each stored block of 64 KiB."""


class CheckedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record that this custodian may keep; `position` is its leaf's, `share` its own 33 bytes (y, then x)."""

    record: bytes
    manifest: Manifest
    manifest_bytes: bytes
    position: int
    share: bytes
    ciphertext: bytes


class CheckedLock(msgspec.Struct, frozen=True, kw_only=True):
    """One lock with its bytes and its leaf's position."""

    lock: Lock
    lock_bytes: bytes
    position: int


class CheckedSubmission(msgspec.Struct, frozen=True, kw_only=True):
    """A submission of which all was proven that a custodian can prove; `message_id` is the statement's."""

    statement: SubmissionStatement
    message_id: bytes
    records: list[CheckedRecord]
    locks: list[CheckedLock]
    submission: Submission


def check_submission(
    submission: Submission,
    *,
    network: str,
    author_key: VerifyKey,
    custodian: str,
    sealing_key: SealingKey,
    place: int,
    n: int,
    now_ms: int,
) -> CheckedSubmission:
    """Check a submission in one go; see `check_steps`."""
    steps = check_steps(
        submission,
        network=network,
        author_key=author_key,
        custodian=custodian,
        sealing_key=sealing_key,
        place=place,
        n=n,
        now_ms=now_ms,
    )
    while True:
        try:
            next(steps)
        except StopIteration as done:
            checked: CheckedSubmission = done.value
            return checked


def check_steps(
    submission: Submission,
    *,
    network: str,
    author_key: VerifyKey,
    custodian: str,
    sealing_key: SealingKey,
    place: int,
    n: int,
    now_ms: int,
) -> Generator[None, None, CheckedSubmission]:
    """Check a submission, pausing after the locks and after every SLICE records; the generator's value is the result.

    `author_key` is the key the directory has for the claimed author's keyid (`claimed_author`), `custodian` this node's
    keyid as the locks name it, `place` its 1-based place among the `n` custodians of the subject's document.
    1. the author's signature, network, time; 2. both trees are exactly what was sent, fillers included; 3. one owner
    lock, n release locks, one consent lock for each compartment and epoch in use; 4. the own release lock opens;
    5. each record: id, fields, ciphertext hash, size, commitments, the own share. Still the caller's: that the author
    may contribute, that epochs are the newest, that no record is known already, that `subject_seq` is the document's.
    Raises VerificationError `bad-signature`, `wrong-network`, `wrong-author`, `bad-time`, `bad-root`, `bad-leaf`,
    `duplicate`, `bad-lock`, `bad-share`, `bad-manifest`, `bad-record-id`, `bad-ciphertext`; MalformedError.
    """
    count = len(submission.manifests)
    if not 0 < count <= RECORDS_MAX or len(submission.ciphertexts) != count:
        raise MalformedError("too-large", f"a submission takes 1 to {RECORDS_MAX} records with a ciphertext each")
    statement = open_statement(submission.envelope, network=network, author_key=author_key)
    _check_time(statement.time, now_ms)
    locks = _check_locks(submission, statement, n=n)
    positions = check_leaves(
        submission.manifest_leaves,
        tree="manifests",
        seed=submission.filler,
        root=bytes.fromhex(statement.manifests_root),
        values=[manifest_leaf(data) for data in submission.manifests],
    )
    rows = _own_shares(locks, statement, custodian=custodian, sealing_key=sealing_key)
    if len(rows) != count:
        raise _bad_share(f"the release lock carries {len(rows)} shares for {count} records")
    yield
    records: list[CheckedRecord] = []
    for index in range(count):
        records.append(
            _check_record(submission, statement, index, position=positions[index], row=rows[index], place=place, n=n)
        )
        _check_time(records[-1].manifest.recorded, now_ms)
        if len(records) % SLICE == 0:
            yield
    _check_compartments(locks, records)
    return CheckedSubmission(
        statement=statement,
        message_id=envelope_message_id(decode(submission.envelope, Envelope)),
        records=records,
        locks=locks,
        submission=submission,
    )


def _check_time(time: int, now_ms: int) -> None:
    if not 0 <= time <= now_ms + FUTURE_MS:
        raise VerificationError(
            "bad-time",
            f"the submission is dated {time - now_ms} ms after this node's clock; set the clock and seal again",
            details={"time": now_ms},
        )


def _check_locks(submission: Submission, statement: SubmissionStatement, *, n: int) -> list[CheckedLock]:
    """Return the locks once they are the signed ones: one owner lock, n release locks to n tokens, consent locks."""
    if len(submission.locks) > 1 + n + RECORDS_MAX:
        raise MalformedError("too-large", f"a submission has {len(submission.locks)} locks, more than it can need")
    locks = [decode_lock(data) for data in submission.locks]
    positions = check_leaves(
        submission.lock_leaves,
        tree="locks",
        seed=submission.filler,
        root=bytes.fromhex(statement.locks_root),
        values=[lock_leaf(data) for data in submission.locks],
    )
    owners = [lock for lock in locks if lock.use == "owner"]
    released = {parse_keyid(lock.to)[0] for lock in locks if lock.use == "release"}
    releases = sum(lock.use == "release" for lock in locks)
    if len(owners) != 1 or parse_keyid(owners[0].to)[0] != statement.subject:
        raise VerificationError("bad-lock", "a submission needs exactly one owner lock, sealed to its subject")
    if not len(released) == releases == n:
        raise VerificationError("bad-lock", f"a submission needs one release lock for each of {n} custodians")
    if any(lock.to != owners[0].to for lock in locks if lock.use == "consent"):
        raise VerificationError("bad-lock", "a consent lock names another recipient than the owner lock")
    return [
        CheckedLock(lock=lock, lock_bytes=data, position=position)
        for lock, data, position in zip(locks, submission.locks, positions, strict=True)
    ]


def _check_compartments(locks: Sequence[CheckedLock], records: Sequence[CheckedRecord]) -> None:
    locked = [(one.lock.compartment, one.lock.epoch) for one in locks if one.lock.use == "consent"]
    used = {(one.manifest.compartment, one.manifest.epoch) for one in records}
    if len(locked) != len(used) or set(locked) != used:
        raise VerificationError(
            "bad-lock", f"{len(used)} compartments are in use, but {len(locked)} consent locks do not match them"
        )


def _own_shares(
    locks: Sequence[CheckedLock], statement: SubmissionStatement, *, custodian: str, sealing_key: SealingKey
) -> list[tuple[bytes, bytes, bytes]]:
    own = [one.lock for one in locks if one.lock.use == "release" and one.lock.to == custodian]
    if not own:
        raise _bad_share("no release lock is sealed to this custodian's current key")
    try:
        opened = open_lock(own[0], statement=statement, key=sealing_key)
    except VerificationError:
        raise _bad_share("the release lock does not open with this custodian's key in this submission") from None
    return decode_shares(opened)


def _check_record(
    submission: Submission,
    statement: SubmissionStatement,
    index: int,
    *,
    position: int,
    row: tuple[bytes, bytes, bytes],
    place: int,
    n: int,
) -> CheckedRecord:
    data, ciphertext = submission.manifests[index], submission.ciphertexts[index]
    manifest = check_manifest(data, statement=statement)
    if manifest.index != index:
        raise VerificationError("bad-manifest", f"manifest {manifest.index} stands at place {index} of the submission")
    size = len(ciphertext)
    if size != manifest.ciphertext_length or sha256(ciphertext).hexdigest() != manifest.ciphertext_hash:
        raise VerificationError("bad-ciphertext", f"the ciphertext of record {manifest.record} is not the signed one")
    if not _TAG_SIZE < size <= _CIPHERTEXT_MAX or padme(size - _TAG_SIZE) != size - _TAG_SIZE:
        raise VerificationError("bad-ciphertext", f"the ciphertext of record {manifest.record} is not of a padded size")
    record, compartment, share = row
    if record.hex() != manifest.record or compartment.hex() != manifest.compartment:
        raise _bad_share(f"share {index} of the release lock is not for record {manifest.record} in its compartment")
    if len(manifest.shares) != n:
        raise _bad_share(f"record {manifest.record} has {len(manifest.shares)} commitments for {n} custodians")
    if share[-1] != place:
        raise _bad_share(f"the share of record {manifest.record} is for place {share[-1]}, this custodian's is {place}")
    if share_commitment(record, share).hex() != manifest.shares[place - 1]:
        raise _bad_share(f"the share of record {manifest.record} does not match its commitment")
    return CheckedRecord(
        record=record,
        manifest=manifest,
        manifest_bytes=data,
        position=position,
        share=share,
        ciphertext=ciphertext,
    )


def _bad_share(what: str) -> VerificationError:
    return VerificationError("bad-share", f"{what}: its author must seal again")
