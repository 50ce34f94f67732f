"""The body of a log entry: what a node did and on what grounds, so that an auditor can decide it all again.

The log itself has only the leaf, a salted commitment: without body and salt it tells the kind of entry and nothing
else. Bodies are canonical JSON. The node builds them by splicing the exact envelopes and manifests it received.
Spec: docs/spec/access.md sections 3 and 4; DESIGN 5.5.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from careledger.access.request import (
    KEY_BYTES,
    AccessMessage,
    CheckedRequest,
    backing_of,
    check_request_envelope,
    with_backing,
)
from careledger.errors import MalformedError, VerificationError
from careledger.identity import Affiliation
from careledger.seal import Envelope, Payload, VerifyKey, canonical

__all__ = [
    "KINDS",
    "EntryBody",
    "EntryKind",
    "build_entry",
    "commitment",
    "decode_entry",
    "leaf",
    "leaf_of_commitment",
    "origin",
    "parse_leaf",
    "request_of",
    "with_manifests",
]

EntryKind: TypeAlias = Literal["keep", "access", "erase", "system"]
KINDS = ("keep", "access", "erase", "system")
LEAF_PREFIX = b"careledger/entry/v1 "
SALT_BYTES = 32
ENTRY_BYTES_MAX = 1 << 20
"""A `compartments` event makes the largest ordinary body, 60 kB."""
INTEGER_MAX = (1 << 53) - 1

_Hex16: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
_Hex32: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Token: TypeAlias = Annotated[str, Meta(pattern=r"\Acl1[02-9ac-hj-np-z]{46}\Z")]
_Count: TypeAlias = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
_Code: TypeAlias = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9-]{0,63}\Z")]

_LEAF_PREFIXES = {kind: LEAF_PREFIX + kind.encode() + b" " for kind in KINDS}
_LEAF = re.compile(rb"careledger/entry/v1 (keep|access|erase|system) ([0-9a-f]{64})")


class _Entry(Payload, frozen=True, kw_only=True):
    v: Literal[1] = 1
    network: _Hex32
    node: _Token
    index: _Count
    received: _Count
    directory_height: _Count
    directory_age: _Count
    consent_seq: _Count
    consent_hash: _Hex32
    kind: EntryKind
    decision: _Code
    reason: _Code
    counters: dict[str, int]
    subject: _Token | UnsetType = UNSET
    grant: _Hex16 | UnsetType = UNSET
    client: Annotated[str, Meta(max_length=100)] | UnsetType = UNSET
    details: dict[str, Any] | UnsetType = UNSET


class EntryBody(_Entry, frozen=True, kw_only=True):
    """An entry's body. Times and ages in ms. `consent_seq` and `consent_hash` name the state of the subject's consent,
    `directory_height` and `directory_age` that of the directory, that the decision was made with.

    `reason` of an access is consent.decide's. `envelopes` starts with the message that the entry is about; for an
    access an affiliation that the log hasn't had yet and the approvals that count follow. `manifest` is a record's.
    """

    envelopes: list[Envelope] | UnsetType = UNSET
    manifest: dict[str, Any] | UnsetType = UNSET


class _SplicedEntry(_Entry, frozen=True, kw_only=True):
    envelopes: list[msgspec.Raw] | UnsetType = UNSET
    manifest: msgspec.Raw | UnsetType = UNSET


_encoder = msgspec.json.Encoder(order="sorted")


def origin(network: str, node: str) -> str:
    """The origin of a node's log, which is also the name in its vkey: `<network, 16 hex>/<node token>` (DESIGN 5.5)."""
    return f"{network[:16]}/{node}"


def build_entry(
    *,
    network: str,
    node: str,
    index: int,
    received: int,
    directory_height: int,
    directory_age: int,
    consent_seq: int,
    consent_hash: str,
    kind: EntryKind,
    decision: str,
    reason: str,
    counters: Mapping[str, int],
    envelopes: Sequence[bytes] = (),
    manifest: bytes | None = None,
    subject: str | None = None,
    grant: str | None = None,
    client: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> bytes:
    """The canonical bytes of an EntryBody.

    `envelopes` and `manifest` must be canonical already (they were checked on arrival): they are spliced, not read.
    Empty and None arguments are left out. `details` holds what canonical JSON can (no floats, no null).
    """
    if not all(
        0 <= number <= INTEGER_MAX for number in (index, received, directory_height, directory_age, consent_seq)
    ):
        raise AssertionError("a number of an entry body is out of range")
    if details is not None:
        canonical.encode(details)
    return _encoder.encode(
        _SplicedEntry(
            network=network,
            node=node,
            index=index,
            received=received,
            directory_height=directory_height,
            directory_age=directory_age,
            consent_seq=consent_seq,
            consent_hash=consent_hash,
            kind=kind,
            decision=decision,
            reason=reason,
            counters=counters if type(counters) is dict else dict(counters),
            envelopes=[msgspec.Raw(envelope) for envelope in envelopes] if envelopes else UNSET,
            manifest=UNSET if manifest is None else msgspec.Raw(manifest),
            subject=UNSET if subject is None else subject,
            grant=UNSET if grant is None else grant,
            client=UNSET if client is None else client,
            details=UNSET if details is None else dict(details),
        )
    )


def with_manifests(body: bytes, *, index: int, manifests: Sequence[bytes]) -> list[tuple[bytes, int]]:
    """The bodies of entries `index`, `index` + 1, … that differ from `body`, which is the first, in number and manifest
    alone; each with the place of its manifest in it. A submission has one for each record: this is ten times as fast as
    building each. `body` is of `build_entry`, with `manifests[0]` and without details, envelopes or client.
    """
    start, number, rest = body.partition(b'"index":%d,' % index)
    middle, manifest, end = rest.partition(manifests[0])
    if not (number and manifest) or index > INTEGER_MAX - len(manifests):
        raise AssertionError("a body without that index and manifest, or an index out of range")
    bodies = []
    for at, manifest in enumerate(manifests, start=index):
        before = b'%b"index":%d,%b' % (start, at, middle)
        bodies.append((b"%b%b%b" % (before, manifest, end), len(before)))
    return bodies


def decode_entry(body: bytes) -> EntryBody:
    """Parse a body strictly. Raises MalformedError with canonical.decode's codes."""
    return canonical.decode(body, EntryBody, size_max=ENTRY_BYTES_MAX)


def leaf(kind: str, salt: bytes, body: bytes) -> bytes:
    """The log entry of a body: ASCII `careledger/entry/v1 <kind> <hex SHA-256(salt ‖ body)>` (DESIGN 5.5)."""
    if kind not in KINDS:
        raise AssertionError(f"a leaf is of one of the kinds {KINDS}")
    return leaf_of_commitment(kind, commitment(salt, body))


def commitment(salt: bytes, body: bytes) -> bytes:
    """SHA-256(salt ‖ body), all that the log itself says of an entry."""
    if len(salt) != SALT_BYTES:
        raise AssertionError(f"an entry needs a salt of {SALT_BYTES} bytes")
    return hashlib.sha256(salt + body).digest()


def leaf_of_commitment(kind: str, commitment: bytes) -> bytes:
    """The log entry of a body of which only SHA-256(salt ‖ body) is left: the inverse of `parse_leaf`."""
    return _LEAF_PREFIXES[kind] + commitment.hex().encode()


def parse_leaf(data: bytes) -> tuple[EntryKind, bytes]:
    """(kind, commitment) of a log entry. Raises MalformedError `bad-leaf`."""
    match = _LEAF.fullmatch(data)
    if match is None:
        raise MalformedError("bad-leaf", f"a log entry of {len(data)} bytes is not one of a careledger node")
    kind: EntryKind = match[1].decode()  # type: ignore[assignment]  # the expression lists KINDS
    return kind, bytes.fromhex(match[2].decode())


def request_of(
    body: EntryBody, *, keys: Mapping[str, VerifyKey], affiliations: Mapping[str, Affiliation]
) -> CheckedRequest:
    """The request that an access entry records, proven again as of when it was received, for consent.replay.

    `keys` are those in force at that moment; `affiliations` by hex message id those that earlier entries of this log
    hold. The fresh HPKE key isn't kept, so `key` of the result is zeros.
    Raises VerificationError `not-an-access` and as `check_request`; MalformedError.
    """
    if body.kind != "access" or not body.envelopes:
        raise VerificationError("not-an-access", f"entry {body.index} is not about an access request")
    envelopes = [canonical.encode(envelope) for envelope in body.envelopes]
    affiliation, approvals = backing_of(envelopes)
    request, message_id = check_request_envelope(envelopes[0], keys=keys, network=body.network, now_ms=body.received)
    message = AccessMessage(
        request=envelopes[0], key=bytes(KEY_BYTES), affiliation=affiliation, approvals=approvals, content=False
    )
    return with_backing(request, message_id, message, keys=keys, now_ms=body.received, affiliations=affiliations)
