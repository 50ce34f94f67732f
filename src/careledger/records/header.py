"""The sealed header of a record: everything about it that is not a FHIR resource and not for custodians to see.

Canonical JSON inside the plaintext, hashed as the first leaf of the content root. Its salt keeps that hash, and so the
root that custodians see, from being guessed. Field by field: docs/spec/records.md section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from careledger.errors import MalformedError
from careledger.records.ids import ID_SIZE
from careledger.seal import Payload, b64, unb64

__all__ = ["PARTS_WHOLE", "Contributor", "Finding", "Header", "Interaction", "Places", "check_header", "header_from"]

PARTS_WHOLE: Final = 1000
"""Contributors' parts are per thousand: integers that sum to this."""


class Contributor(Payload, frozen=True, kw_only=True):
    """Who took part in a record, with `parts` per thousand.

    Named by `token` where the network knows them, else by `name`: the source's own reference or text.
    """

    parts: int
    token: str | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET
    role: str | msgspec.UnsetType = msgspec.UNSET


class Places(Payload, frozen=True, kw_only=True):
    """Where patient and clinician were, as the source says it."""

    patient: str | msgspec.UnsetType = msgspec.UNSET
    clinician: str | msgspec.UnsetType = msgspec.UNSET


class Interaction(Payload, frozen=True, kw_only=True):
    """The encounter, or the day where there is none; `start` and `end` are FHIR dateTimes, verbatim."""

    start: str | msgspec.UnsetType = msgspec.UNSET
    end: str | msgspec.UnsetType = msgspec.UNSET
    class_: str | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="class")
    kind: str | msgspec.UnsetType = msgspec.UNSET
    places: Places | msgspec.UnsetType = msgspec.UNSET


class Finding(Payload, frozen=True, kw_only=True):
    """A warning of the import about the resource at 0-based place `resource`; never quotes a value."""

    resource: int
    code: str
    path: str
    severity: str


class Header(Payload, frozen=True, kw_only=True):
    """The sealed header, version 1. `labels` are `system|code`; `travelling` are 0-based places among the resources."""

    v: int
    salt: str
    import_: str | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="import")
    source: str | msgspec.UnsetType = msgspec.UNSET
    subject_url: str | msgspec.UnsetType = msgspec.UNSET
    encounter: str | msgspec.UnsetType = msgspec.UNSET
    interaction: Interaction | msgspec.UnsetType = msgspec.UNSET
    contributors: list[Contributor] | msgspec.UnsetType = msgspec.UNSET
    travelling: list[int] | msgspec.UnsetType = msgspec.UNSET
    labels: list[str] | msgspec.UnsetType = msgspec.UNSET
    basis: list[str] | msgspec.UnsetType = msgspec.UNSET
    category: int | msgspec.UnsetType = msgspec.UNSET
    warnings: list[Finding] | msgspec.UnsetType = msgspec.UNSET


def header_from(fields: Mapping[str, Any], *, salt: bytes, resources: int) -> Header:
    """Return the header with an author's `fields` (all but `v` and `salt`), checked against the number of resources.

    Raises MalformedError `bad-header`: unknown or mistyped fields, parts that do not sum to 1000, bad indexes.
    """
    if not fields.keys().isdisjoint(("v", "salt")):
        raise MalformedError("bad-header", "`v` and `salt` of a header are not the author's to choose; leave them out")
    try:
        header = msgspec.convert({"v": 1, "salt": b64(salt), **fields}, Header)
    except msgspec.ValidationError as error:
        # msgspec's text ends with the path of the field; what stands before it can quote a value.
        where = str(error).rpartition(" - at ")[2] if " - at " in str(error) else "an unknown field"
        raise MalformedError(
            "bad-header", f"{where} of the header is unknown or of the wrong type; see docs/spec/records.md section 4"
        ) from None
    check_header(header, resources=resources)
    return header


def check_header(header: Header, *, resources: int) -> None:
    """Check what types cannot say; raises MalformedError `bad-header` naming the field."""
    if header.v != 1:
        raise MalformedError("bad-header", "the header's version is not 1; upgrade to read it")
    unb64(header.salt, size=ID_SIZE)
    if header.travelling is not msgspec.UNSET:
        rising = header.travelling
        if any(not 0 <= index < resources for index in rising) or sorted(set(rising)) != rising:
            raise MalformedError("bad-header", f"`travelling` is not rising indexes below {resources}")
    if header.warnings is not msgspec.UNSET and any(not 0 <= one.resource < resources for one in header.warnings):
        raise MalformedError("bad-header", f"a warning is about a resource beyond the record's {resources}")
    if header.contributors is not msgspec.UNSET:
        people = header.contributors
        if any((one.token is msgspec.UNSET) == (one.name is msgspec.UNSET) or one.parts < 0 for one in people):
            raise MalformedError(
                "bad-header", "a contributor needs a token or a name, not both, and parts of 0 or more"
            )
        total = sum(one.parts for one in people)
        if total != PARTS_WHOLE:
            raise MalformedError("bad-header", f"the contributors' parts sum to {total}, not to {PARTS_WHOLE}")
