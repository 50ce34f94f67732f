"""Taking a record along: the FHIR bundle with exact bytes, and the proofs that somebody else can verify offline.

The bundle is for people and other software; the proof file has what authorship and logging rest on: the genesis, the
identities' operations, what authors signed, the plaintexts those signatures cover, and receipts of the reads that made
the export. Format: docs/spec/export.md. `careledger verify` reads it with no network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from careledger.access import decode_entry, decode_receipt
from careledger.client.network import Network
from careledger.client.opening import Opened
from careledger.client.trail import Trail
from careledger.errors import Error, MalformedError, UnavailableError
from careledger.fhir import export_bundle
from careledger.records import OpenedRecord, decode_view, encode_view
from careledger.seal import encode, parse_keyid

__all__ = ["Exported", "Proofs", "decode_proofs", "encode_proofs", "export_record", "write_export"]

BUNDLE: Final = "bundle.json"
PROOFS: Final = "proofs.careledger"
MAGIC: Final = b"careledger/export/v1\n"
"""The proof file begins with this line, so that it can be told from anything else."""
PROOFS_BYTES_MAX: Final = 1 << 30


class ProofRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One record: its 16-byte id, and its plaintext, MessagePack [header, [[salt, fullUrl, bytes], …]]."""

    record: bytes
    plaintext: bytes


class ProofNode(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One custodian's part of the audit trail: token, cosigned checkpoint, [index, salt, body, proof] of entries."""

    node: str
    checkpoint: bytes
    entries: list[tuple[int, bytes, bytes, list[bytes]]]


class Proofs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of a proof file after its first line (MessagePack map). See docs/spec/export.md for what proves what.

    `identities`: canonical operation envelopes by token, of the subject and every author, organisation and reader in
    it. `directory`: [kind, id, canonical proof, checkpoint note]. `submissions`: SubmissionViews without ciphertexts.
    """

    v: int
    genesis: bytes
    subject: str
    exported: int
    identities: dict[str, list[bytes]]
    directory: list[tuple[str, str, bytes, bytes]]
    submissions: list[bytes]
    records: list[ProofRecord]
    receipts: list[bytes]
    trail: list[ProofNode]


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """An export in memory: the bundle's bytes and the proofs; `failed` are records that did not open, and why."""

    bundle: bytes
    proofs: Proofs
    failed: list[tuple[str, Error]]


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Proofs)


def encode_proofs(proofs: Proofs) -> bytes:
    """The bytes of a proof file."""
    return MAGIC + _encoder.encode(proofs)


def decode_proofs(data: bytes) -> Proofs:
    """Parse a proof file, nothing verified. Raises MalformedError `bad-export`."""
    if data.startswith(MAGIC) and len(data) <= PROOFS_BYTES_MAX:
        try:
            return _decoder.decode(data[len(MAGIC) :])
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass
    raise MalformedError("bad-export", "this is not a careledger proof file, or a part of one; export again")


async def export_record(network: Network, opened: Opened, *, subject: str, trail: Trail | None = None) -> Exported:
    """Make an export of what was opened (Owner.open_all for the whole record), with an audit trail where given.

    Raises as Network.identity for an identity named in it; VerificationError `stale-directory`.
    """
    ordered = sorted(opened.records, key=_place)
    resources = [(one.full_url, one.data) for record in ordered for one in record.resources]
    subject_url = next((str(r.header.subject_url) for r in ordered if r.header.subject_url is not msgspec.UNSET), "")
    receipts = [opened.receipts[node] for node in sorted(opened.receipts)]
    trails = [] if trail is None else [ProofNode(one.node, one.checkpoint, one.entries) for one in trail.trails]
    bodies = [decode_receipt(data).body for data in receipts] + [one[2] for part in trails for one in part.entries]
    identities, directory = await _identities(network, _tokens(subject, ordered, bodies))
    proofs = Proofs(
        v=1,
        genesis=network.genesis_bytes,
        subject=subject,
        exported=network.now_ms(),
        identities=identities,
        directory=directory,
        submissions=[_without_ciphertexts(view) for view in opened.views],
        records=[ProofRecord(one.record, _encoder.encode(one.plaintext)) for one in ordered],
        receipts=receipts,
        trail=trails,
    )
    return Exported(
        bundle=export_bundle(resources, token=subject, subject_url=subject_url), proofs=proofs, failed=opened.failed
    )


def _place(one: OpenedRecord) -> tuple[int, str, int]:
    return one.manifest.recorded, one.manifest.submission, one.manifest.index


def _tokens(subject: str, records: Sequence[OpenedRecord], bodies: Iterable[bytes]) -> set[str]:
    """Everybody whose signature is in the export: the subject, authors, and readers in receipts and trail."""
    tokens = {subject} | {parse_keyid(one.manifest.author)[0] for one in records}
    tokens |= {one.manifest.for_ for one in records if one.manifest.for_ is not msgspec.UNSET}
    for body in bodies:
        envelopes = decode_entry(body).envelopes
        for envelope in [] if envelopes is msgspec.UNSET else envelopes[:1]:
            tokens |= {parse_keyid(signature.keyid)[0] for signature in envelope.signatures}
    return tokens


async def _identities(
    network: Network, tokens: set[str]
) -> tuple[dict[str, list[bytes]], list[tuple[str, str, bytes, bytes]]]:
    """Operations and a directory proof of each identity, and of the managers that claims in them name."""
    identities: dict[str, list[bytes]] = {}
    directory: list[tuple[str, str, bytes, bytes]] = []
    waiting = sorted(tokens)
    while waiting:
        token = waiting.pop(0)
        identity, shown = await network.identity_with_proof(token)
        identities[token] = [encode(envelope) for envelope in identity.operations]
        directory.append(("identity", token, encode(shown.proof), shown.above))
        waiting += [manager for manager in identity.managers() if manager not in identities and manager not in waiting]
    return identities, directory


def write_export(folder: Path, exported: Exported) -> list[Path]:
    """Write the two files into a folder (mode 0600: this is the record in the clear); returns their paths.

    Raises UnavailableError `disk`.
    """
    written = []
    for name, data in ((BUNDLE, exported.bundle), (PROOFS, encode_proofs(exported.proofs))):
        file = folder / name
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.touch(mode=0o600)
            file.write_bytes(data)
        except OSError as error:
            what = type(error).__name__
            raise UnavailableError("disk", f"{file} can't be written ({what}); check space and permissions") from None
        written.append(file)
    return written


def _without_ciphertexts(data: bytes) -> bytes:
    view = decode_view(data)
    records = [msgspec.structs.replace(one, ciphertext=None) for one in view.records]
    return encode_view(msgspec.structs.replace(view, records=records))
