"""What everybody may know of a record, and what its author signed: the manifest and the submission's statement.

A manifest names no person, code or date of care: tokens, an opaque compartment, hashes and lengths. It is a leaf of its
own, so that it can be kept, shown and erased for itself. The statement binds all manifests and locks of one submission
by two roots under one signature.
"""

from __future__ import annotations

from hashlib import sha256
from typing import ClassVar, Final

import msgspec

from careledger.errors import MalformedError, VerificationError
from careledger.records.ids import ID_SIZE, record_id
from careledger.seal import Envelope, Payload, VerifyKey, decode, parse_keyid, unhex, verify

__all__ = ["Manifest", "SubmissionStatement", "check_manifest", "claimed_author", "manifest_leaf", "open_statement"]

MANIFEST_MAX: Final = 64 << 10
"""Bytes of one manifest: 255 share commitments take 17 kB."""

ENVELOPE_MAX: Final = 16 << 10


class Manifest(Payload, frozen=True, kw_only=True):
    """One record's description; times in ms UTC, hashes and ids in lower-case hex (docs/spec/records.md section 5).

    `shares` are the commitments in the order of the custodians of the subject's document number `subject_seq`.
    """

    v: int
    network: str
    record: str
    subject: str
    subject_seq: int
    author: str
    submission: str
    index: int
    compartment: str
    epoch: int
    recorded: int
    ciphertext_hash: str
    ciphertext_length: int
    content_root: str
    shares: list[str]
    for_: str | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="for")
    replaces: str | msgspec.UnsetType = msgspec.UNSET


class SubmissionStatement(Payload, frozen=True, kw_only=True):
    """What the author signs for all records and locks of a submission; `author` is the keyid that signs."""

    TYPE: ClassVar[str] = "application/vnd.careledger.submission+json"

    v: int
    network: str
    subject: str
    subject_seq: int
    author: str
    submission: str
    manifests_root: str
    locks_root: str
    time: int
    nonce: str
    for_: str | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="for")


def claimed_author(envelope: bytes) -> str:
    """Return the keyid that an envelope *claims* to be signed by, so that its key can be looked up: nothing is proven.

    Raises MalformedError; VerificationError `no-signature` unless there is exactly one signature.
    """
    signatures = decode(envelope, Envelope, size_max=ENVELOPE_MAX).signatures
    if len(signatures) != 1:
        raise VerificationError("no-signature", f"a submission has one signature, its author's, not {len(signatures)}")
    return signatures[0].keyid


def open_statement(envelope: bytes, *, network: str, author_key: VerifyKey) -> SubmissionStatement:
    """Return a submission's statement once its author's signature is proven and it is of this network.

    1. the one signature is by `author_key`, under the keyid it claims; 2. the payload is canonical; 3. its author is
    that keyid. That this keyid's key *is* `author_key` is the caller's knowledge from the directory.
    Raises VerificationError `bad-signature`, `no-signature`, `wrong-type`, `wrong-network`, `wrong-author`;
    MalformedError.
    """
    decoded = decode(envelope, Envelope, size_max=ENVELOPE_MAX)
    if len(decoded.signatures) != 1:
        raise VerificationError(
            "no-signature", f"a submission has one signature, its author's, not {len(decoded.signatures)}"
        )
    keyid = decoded.signatures[0].keyid
    payload = verify(decoded, payload_type=SubmissionStatement.TYPE, keys={keyid: author_key})
    statement = decode(payload, SubmissionStatement, size_max=ENVELOPE_MAX)
    if statement.v != 1:
        raise MalformedError("unknown-version", f"a submission of version {statement.v}; upgrade to read it")
    if statement.network != network:
        raise VerificationError(
            "wrong-network", f"the submission is for network {statement.network[:16]}, not {network[:16]}"
        )
    if statement.author != keyid:
        raise VerificationError("wrong-author", "the submission names another author than the key that signed it")
    unhex(statement.submission, size=ID_SIZE)
    unhex(statement.nonce, size=ID_SIZE)
    unhex(statement.manifests_root, size=32)
    unhex(statement.locks_root, size=32)
    parse_keyid(keyid)
    parse_keyid(f"{statement.subject}#0")
    return statement


def manifest_leaf(manifest: bytes) -> bytes:
    """Return the value of a manifest in the tree of its submission: SHA-256 of its canonical bytes."""
    return sha256(manifest).digest()


def check_manifest(data: bytes, *, statement: SubmissionStatement) -> Manifest:
    """Return the manifest in canonical `data` once it says nothing that its submission's statement contradicts.

    That `data` is a leaf of the statement's tree is still the caller's to prove. Raises MalformedError;
    VerificationError `bad-manifest` (another network, subject, author or submission), `bad-record-id`.
    """
    manifest = decode(data, Manifest, size_max=MANIFEST_MAX)
    if manifest.v != 1:
        raise MalformedError("unknown-version", f"a manifest of version {manifest.v}; upgrade to read it")
    if (
        manifest.network != statement.network
        or manifest.subject != statement.subject
        or manifest.subject_seq != statement.subject_seq
        or manifest.author != statement.author
        or manifest.submission != statement.submission
        or manifest.for_ != statement.for_
    ):
        raise VerificationError(
            "bad-manifest", f"the manifest of record {manifest.record[:32]} belongs to another submission; report it"
        )
    if not 0 <= manifest.index < 1 << 32 or not 0 <= manifest.epoch < 1 << 32:
        raise MalformedError("bad-field", "a manifest's index or epoch is not within 32 bits")
    expected = record_id(
        bytes.fromhex(statement.network),
        statement.subject,
        parse_keyid(statement.author)[0],
        bytes.fromhex(statement.submission),
        manifest.index,
    )
    if manifest.record != expected.hex():
        raise VerificationError(
            "bad-record-id", f"record {manifest.index} of the submission should be {expected.hex()}; it was copied"
        )
    _check_hashes([manifest.ciphertext_hash, manifest.content_root, *manifest.shares])
    unhex(manifest.compartment, size=ID_SIZE)
    if manifest.replaces is not msgspec.UNSET:
        unhex(manifest.replaces, size=ID_SIZE)
    return manifest


def _check_hashes(hashes: list[str]) -> None:
    """Check each to be the hex of 32 bytes: all at once, since every record of an import passes here."""
    if set(map(len, hashes)) != {64}:
        raise MalformedError("bad-hex", "a hash in a manifest is not the lower-case hex of 32 bytes")
    unhex("".join(hashes), size=32 * len(hashes))
