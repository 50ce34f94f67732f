"""What an import reads out of one file: options in; a report, the subject and drafts of records out.

Plain frozen values. Nothing here is signed or sealed: `records` turns a draft into a plaintext. The patient's identity
stays on the client; it exists only to notice that a file is about somebody else than the record the caller named.
"""

from __future__ import annotations

import hashlib
from typing import Literal, TypeAlias

import msgspec

from careledger.errors import ConflictError, MalformedError

Severity = Literal["error", "warning", "information"]

HeaderValue: TypeAlias = "str | int | list[HeaderValue] | dict[str, HeaderValue]"

INFLATED_BYTES_MAX = 512 * 1024 * 1024
"""What one file may hold after inflating; a gzip bomb of 194 kB holds 200 MB."""

RECORD_BYTES_MAX = 16 * 1024 * 1024
"""What one record may inflate to (design, section 5.2)."""

RECORD_OVERHEAD_BYTES = 64 * 1024
"""Room that a record keeps for its header, salts and framing inside `RECORD_BYTES_MAX`."""

RECORD_RESOURCES_MAX = 1000
"""Resources in one record, copies included: more than any encounter has, well below what `records` takes (10,000)."""

RESOURCE_BYTES_MAX = RECORD_BYTES_MAX - RECORD_OVERHEAD_BYTES

ROWS_MAX = 1000
"""Rows kept in one report: a file in which everything is wrong is not explained better by more of them."""


class Issue(msgspec.Struct, frozen=True):
    """One finding of `check` about one resource. Neither path nor message carries a value of the resource."""

    severity: Literal["error", "warning"]
    path: str
    code: str
    message: str


class ReadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to read. The defaults refuse whatever would leave something half done."""

    subject_url: str | None = None
    """The caller says who the subject is: its `fullUrl` in this file, or "" when the file does not have one."""
    source: str = ""
    """Where the file comes from (base URL or software); "" takes the base of the subject's `fullUrl`, if it has one."""
    import_id: str = ""
    """Names this import in the headers; "" takes the first 16 bytes of the file's SHA-256 in hex."""
    default_compartment: str = ""
    """For a source known to be sensitive: the compartment of everything that no rule closes further."""
    keep_invalid: bool = False
    skip_too_large: bool = False
    as_document: bool = False
    """Attach a C-CDA document whole, as a `DocumentReference`, instead of refusing it."""
    inflated_bytes_max: int = INFLATED_BYTES_MAX
    resource_bytes_max: int = RESOURCE_BYTES_MAX


class ReportRow(msgspec.Struct, frozen=True):
    """One line of an import report; `entry` is 1-based (a line of an NDJSON file), 0 = the file as a whole."""

    file: str
    entry: int
    path: str
    code: str
    message: str
    severity: Severity


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file's entries.

    entries = kept + repeated + skipped + left_out. `distinct` counts (fullUrl, SHA-256 of the bytes) over everything
    kept, support files' resources included; `copies` counts how often travelling resources were copied.
    """

    entries: int = 0
    kept: int = 0
    distinct: int = 0
    repeated: int = 0
    skipped: int = 0
    left_out: int = 0
    invalid: int = 0
    travelling: int = 0
    copies: int = 0
    records: int = 0
    by_compartment: dict[str, int] = {}
    """Resources without their travelling copies, by compartment."""


class Report(msgspec.Struct, frozen=True):
    file: str
    rows: list[ReportRow]
    counts: Counts
    rows_left_out: int = 0


class PatientIdentity(msgspec.Struct, frozen=True):
    """What tells two people apart. Personal data: never leaves the client."""

    identifiers: list[str]
    """`system|value`, sorted."""
    birth_date: str
    family: str


class RecordDraft(msgspec.Struct, frozen=True):
    """The resources of one compartment from one interaction, before an author signs and seals them.

    `resources` are (fullUrl, exact bytes); `travelling` indexes those that only travel along. `header` holds canonical
    JSON values under ASCII keys (docs/spec/fhir.md, section 5). `replaces` indexes earlier drafts of the same reading
    that hold older versions of a resource in this one.
    """

    compartment: str
    resources: list[tuple[str, bytes]]
    travelling: list[int]
    header: dict[str, HeaderValue]
    replaces: list[int] = []


class FileReading(msgspec.Struct, frozen=True):
    report: Report
    subject_url: str
    patient: PatientIdentity | None
    records: list[RecordDraft]


def resource_key(full_url: str, resource: bytes) -> str:
    """The identity of a kept resource: hex SHA-256 over its `fullUrl` (u16 big-endian length first) and exact bytes.

    Two imports of the same bytes have the same keys, so that a client can skip what it already keeps. A client that
    also remembers the key under the `fullUrl` "" recognises the same bytes in NDJSON, which has no `fullUrl`.
    """
    url = full_url.encode()
    return hashlib.sha256(len(url).to_bytes(2, "big") + url + resource).hexdigest()


def refuse_other_person(*, known: PatientIdentity, found: PatientIdentity) -> None:
    """Raise `other-person` when a file's patient cannot be the person whose record the caller named.

    One shared identifier settles it; otherwise birth date and family name must not differ. What either side lacks
    proves nothing. A name alone never makes two people one.
    """
    if set(known.identifiers) & set(found.identifiers):
        return
    if known.birth_date and found.birth_date and known.birth_date != found.birth_date:
        difference = "birth date differs"
    elif known.family and found.family and known.family.casefold() != found.family.casefold():
        difference = "family name differs"
    else:
        return
    raise ConflictError("other-person", f"is about another person than the record you named ({difference}).")


def refusal(code: str, message: str) -> MalformedError:
    """A refusal of a file; `message` says what is wrong and what to do, the caller puts the file's name in front."""
    return MalformedError(code, message)
