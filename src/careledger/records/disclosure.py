"""Showing one resource of a record to somebody, with its author's signature intact and the rest still sealed.

The proof has two steps: the resource is a leaf of the content root that a manifest names, and this manifest is a leaf
of the root that the author signed. Salts keep the leaves that are not shown from being guessed.
"""

from __future__ import annotations

from typing import Final

import msgspec

from careledger.errors import MalformedError, VerificationError
from careledger.records.ids import ID_SIZE
from careledger.records.leaves import verify_leaf
from careledger.records.manifest import Manifest, SubmissionStatement, check_manifest, manifest_leaf, open_statement
from careledger.records.opening import OpenedRecord
from careledger.records.plaintext import INFLATED_MAX, Resource, content_hashes, resource_hash
from careledger.records.view import VerifiedRecord, VerifiedSubmission
from careledger.seal import VerifyKey
from careledger.tlog import inclusion_proof, leaf_hash, verify_inclusion

__all__ = [
    "DisclosedResource",
    "Disclosure",
    "decode_disclosure",
    "disclose",
    "encode_disclosure",
    "verify_disclosed",
]


class Disclosure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One resource with its proof (MessagePack map). `index` is the 0-based place among the record's resources.

    `content_size` is the number of leaves of the content tree: the header's and one for each resource.
    """

    envelope: bytes
    manifest: bytes
    position: int
    proof: list[bytes]
    resource: Resource
    index: int
    content_size: int
    content_proof: list[bytes]


class DisclosedResource(msgspec.Struct, frozen=True, kw_only=True):
    """A resource proven to be part of a record that its author signed."""

    statement: SubmissionStatement
    manifest: Manifest
    resource: Resource
    index: int


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Disclosure)


def disclose(submission: VerifiedSubmission, opened: OpenedRecord, index: int) -> Disclosure:
    """Return the disclosure of the resource at 0-based `index` of an opened record of this submission."""
    shown = _record_of(submission, opened)
    hashes = content_hashes(opened.plaintext)
    return Disclosure(
        envelope=submission.envelope,
        manifest=shown.manifest_bytes,
        position=shown.position,
        proof=shown.proof,
        resource=opened.resources[index],
        index=index,
        content_size=len(hashes),
        content_proof=inclusion_proof(hashes, index + 1),
    )


def encode_disclosure(disclosure: Disclosure) -> bytes:
    """Return the disclosure's bytes."""
    return _encoder.encode(disclosure)


def decode_disclosure(data: bytes) -> Disclosure:
    """Return an unchecked disclosure; raises MalformedError `too-large`, `not-msgpack`."""
    if len(data) > 2 * INFLATED_MAX:
        raise MalformedError("too-large", f"a disclosure has {len(data)} bytes, more than {2 * INFLATED_MAX}")
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise MalformedError("not-msgpack", "a disclosure is not the MessagePack map of docs/spec/records.md") from None


def verify_disclosed(disclosure: Disclosure, *, network: str, author_key: VerifyKey) -> DisclosedResource:
    """Return the resource once it is proven to be in a record that its author signed.

    Raises VerificationError `bad-proof` and those of `open_statement` and `check_manifest`; MalformedError.
    Not proven: what else the record holds, and that it was not replaced later.
    """
    resource, index = disclosure.resource, disclosure.index
    if len(resource.salt) != ID_SIZE or len(resource.full_url.encode()) > 0xFFFF or index < 0:
        raise MalformedError("bad-plaintext", "a disclosed resource has no salt of 16 bytes, or no index")
    statement = open_statement(disclosure.envelope, network=network, author_key=author_key)
    root = bytes.fromhex(statement.manifests_root)
    verify_leaf(manifest_leaf(disclosure.manifest), position=disclosure.position, proof=disclosure.proof, root=root)
    manifest = check_manifest(disclosure.manifest, statement=statement)
    # Leaf 0 is the header, whose proof no other place has: header bytes can't pass for a resource.
    verify_inclusion(
        index=index + 1,
        size=disclosure.content_size,
        leaf_hash=leaf_hash(resource_hash(resource)),
        proof=disclosure.content_proof,
        root=bytes.fromhex(manifest.content_root),
    )
    return DisclosedResource(statement=statement, manifest=manifest, resource=resource, index=index)


def _record_of(submission: VerifiedSubmission, opened: OpenedRecord) -> VerifiedRecord:
    for one in submission.records:
        if one.record == opened.record:
            return one
    raise VerificationError("wrong-record", f"record {opened.record.hex()} is not of this submission")
