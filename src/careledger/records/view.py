"""What one custodian shows of one submission: the records asked for, the locks they need, and nothing of the rest.

The custodian makes a view, the reader proves it against the author's signature by inclusion proofs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import msgspec

from careledger.errors import MalformedError, VerificationError
from careledger.records.leaves import prove_leaf, verify_leaf
from careledger.records.locks import Lock, decode_lock, lock_leaf, open_lock
from careledger.records.manifest import Manifest, SubmissionStatement, check_manifest, manifest_leaf, open_statement
from careledger.records.submission import RECORDS_MAX, SUBMISSION_MAX
from careledger.seal import SealingKey, VerifyKey
from careledger.tlog import MemoryTree, leaf_hashes_of

__all__ = [
    "LockView",
    "RecordView",
    "SubmissionView",
    "VerifiedRecord",
    "VerifiedSubmission",
    "decode_view",
    "encode_view",
    "leaf_tree",
    "verify_view",
    "view_of",
]

_SECRET_SIZE: Final = 32


class LockView(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """[lock bytes, position of its leaf, inclusion proof]."""

    lock: bytes
    position: int
    proof: list[bytes]


class RecordView(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """[manifest bytes, position of its leaf, inclusion proof, ciphertext]; no ciphertext (nil) in a list."""

    manifest: bytes
    position: int
    proof: list[bytes]
    ciphertext: bytes | None


class SubmissionView(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A submission as a reader gets it (MessagePack map)."""

    envelope: bytes
    locks: list[LockView]
    records: list[RecordView]


class VerifiedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record whose manifest is proven to be the author's and whose ciphertext, where shown, is the manifest's."""

    record: bytes
    manifest: Manifest
    manifest_bytes: bytes
    position: int
    proof: list[bytes]
    ciphertext: bytes | None


class VerifiedSubmission(msgspec.Struct, frozen=True, kw_only=True):
    """A view of which everything shown is proven to be what the author signed."""

    statement: SubmissionStatement
    envelope: bytes
    locks: list[Lock]
    records: list[VerifiedRecord]

    def open_consent_lock(self, compartment: str, epoch: int, key: SealingKey) -> bytes:
        """Return C of a compartment (hex id) and epoch, opened with that epoch's compartment key.

        Raises VerificationError `no-lock` (the view lacks it), `not-openable` (another key, or not what was sealed).
        """
        for lock in self.locks:
            if lock.use == "consent" and lock.compartment == compartment and lock.epoch == epoch:
                return _secret(open_lock(lock, statement=self.statement, key=key))
        raise VerificationError("no-lock", f"no consent lock for compartment {compartment}; ask another custodian")

    def open_owner_lock(self, key: SealingKey) -> bytes:
        """Return M, opened with the subject's sealing key; raises VerificationError `no-lock`, `not-openable`."""
        for lock in self.locks:
            if lock.use == "owner":
                return _secret(open_lock(lock, statement=self.statement, key=key))
        raise VerificationError("no-lock", "the view has no owner lock; ask another custodian")


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(SubmissionView)


def encode_view(view: SubmissionView) -> bytes:
    """Return the view's bytes."""
    return _encoder.encode(view)


def decode_view(data: bytes) -> SubmissionView:
    """Return an unchecked view; raises MalformedError `too-large`, `not-msgpack`."""
    if len(data) > SUBMISSION_MAX:
        raise MalformedError("too-large", f"a view has {len(data)} bytes, more than {SUBMISSION_MAX}; ask for less")
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise MalformedError("not-msgpack", "a view is not the MessagePack map of docs/spec/records.md") from None


def leaf_tree(leaves: Sequence[bytes]) -> MemoryTree:
    """Return the tree over a submission's leaf values, for `view_of`; a custodian may keep it for the next request."""
    return MemoryTree(leaf_hashes_of(leaves))


def view_of(
    *,
    envelope: bytes,
    manifest_tree: MemoryTree,
    lock_tree: MemoryTree,
    locks: Sequence[tuple[bytes, int]],
    records: Sequence[tuple[bytes, int, bytes | None]],
) -> SubmissionView:
    """Return a view of (lock bytes, position) and (manifest bytes, position, ciphertext), each with its proof."""
    return SubmissionView(
        envelope=envelope,
        locks=[LockView(lock=data, position=at, proof=prove_leaf(lock_tree, at)) for data, at in locks],
        records=[
            RecordView(manifest=data, position=at, proof=prove_leaf(manifest_tree, at), ciphertext=ciphertext)
            for data, at, ciphertext in records
        ],
    )


def verify_view(view: SubmissionView, *, network: str, author_key: VerifyKey, subject: str) -> VerifiedSubmission:
    """Return the view's content once all of it is proven to be what the author signed for this subject.

    `author_key` is the key the directory has for `claimed_author(view.envelope)`. Shares, consent and content are still
    unproven: `open_records`. Raises VerificationError `wrong-subject`, `bad-proof`, `bad-ciphertext`, `duplicate` and
    those of `open_statement` and `check_manifest`; MalformedError.
    """
    statement = open_statement(view.envelope, network=network, author_key=author_key)
    if statement.subject != subject:
        raise VerificationError("wrong-subject", "a custodian showed a submission about somebody else; report it")
    if len(view.records) > RECORDS_MAX or len(view.locks) > 2 * RECORDS_MAX:
        raise MalformedError("too-large", f"a view of {len(view.records)} records is larger than any submission")
    locks_root = bytes.fromhex(statement.locks_root)
    for one in view.locks:
        verify_leaf(lock_leaf(one.lock), position=one.position, proof=one.proof, root=locks_root)
    records = [_verified_record(one, statement) for one in view.records]
    if len({one.record for one in records}) != len(records):
        raise VerificationError("duplicate", "a view shows a record twice; ask another custodian")
    return VerifiedSubmission(
        statement=statement,
        envelope=view.envelope,
        locks=[decode_lock(one.lock) for one in view.locks],
        records=records,
    )


def _verified_record(shown: RecordView, statement: SubmissionStatement) -> VerifiedRecord:
    verify_leaf(
        manifest_leaf(shown.manifest),
        position=shown.position,
        proof=shown.proof,
        root=bytes.fromhex(statement.manifests_root),
    )
    manifest = check_manifest(shown.manifest, statement=statement)
    ciphertext = shown.ciphertext
    if ciphertext is not None and (
        len(ciphertext) != manifest.ciphertext_length or sha256(ciphertext).hexdigest() != manifest.ciphertext_hash
    ):
        raise VerificationError(
            "bad-ciphertext", f"a custodian showed another ciphertext for record {manifest.record}; ask another one"
        )
    return VerifiedRecord(
        record=bytes.fromhex(manifest.record),
        manifest=manifest,
        manifest_bytes=shown.manifest,
        position=shown.position,
        proof=shown.proof,
        ciphertext=ciphertext,
    )


def _secret(opened: bytes) -> bytes:
    if len(opened) != _SECRET_SIZE:
        raise VerificationError(
            "bad-lock", f"a lock carries {len(opened)} bytes, not a secret of 32; report its author"
        )
    return opened
