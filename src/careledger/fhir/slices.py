"""Cutting a file into resources without changing a byte.

A resource's bytes run from its `{` to the matching `}` in the source; they are what is signed and hashed, so nothing
is ever decoded and written again. msgspec's `Raw` finds them; because it keeps the *last* of two equal keys, what lies
between the resources (the skeleton) is read a second time by a parser that refuses such keys.
"""

from __future__ import annotations

import json
import re
from typing import Literal

import msgspec

from careledger.errors import MalformedError
from careledger.fhir import faults
from careledger.fhir.reading import refusal

BUNDLE_TYPES = frozenset({"transaction", "batch", "collection", "searchset", "history", "message", "document"})
RESPONSE_TYPES = frozenset({"transaction-response", "batch-response"})

URL_BYTES_MAX = 2048
"""A `fullUrl` rides with its resource in every leaf, with a u16 length; real ones are below 200 bytes."""

_NONE = msgspec.Raw(b"")
_SPACE = re.compile(rb"[ \t\r\n]*+")
_BEFORE_RESOURCE = re.compile(rb'"resource"[ \t\r\n]*+:[ \t\r\n]*+')


class Slice(msgspec.Struct, frozen=True):
    """One resource of a file: its 1-based place, the entry's `fullUrl` ("" if none) and its exact bytes."""

    number: int
    full_url: str
    resource: bytes


class Slices(msgspec.Struct, frozen=True, kw_only=True):
    """What a file holds. `unit` is how its places are named to people: "entry", or "line" in NDJSON."""

    bundle_type: str
    """The Bundle's type, "" for a single resource, an array or NDJSON."""
    unit: str = "entry"
    entries: list[Slice]
    skipped: int = 0
    """Entries without a resource, or whose resource is only a server's remark."""
    more_pages: bool = False


class _Request(msgspec.Struct):
    method: str = ""


class _Search(msgspec.Struct):
    mode: str = ""


class _Entry(msgspec.Struct):
    fullUrl: str = ""
    resource: msgspec.Raw = _NONE
    request: _Request | None = None
    search: _Search | None = None


class _Link(msgspec.Struct):
    relation: str = ""


class _Bundle(msgspec.Struct):
    resourceType: Literal["Bundle"]
    type: str = ""
    entry: list[_Entry] = []
    link: list[_Link] = []


_bundle = msgspec.json.Decoder(_Bundle)
_array = msgspec.json.Decoder(list[msgspec.Raw])
_any = msgspec.json.Decoder(msgspec.Raw)


def cut(data: bytearray, start: int) -> Slices:
    """Cut the text from `start` into its resources.

    Raises MalformedError: `empty`, `not-json`, `truncated`, `trailing-data`, `too-deep`, `duplicate-key`,
    `response-bundle`, `bundle-type`, `structure`.
    """
    text = data[start:] if start else data
    space = _SPACE.match(text)
    assert space is not None
    first = bytes(text[space.end() : space.end() + 1])
    try:
        if first == b"[":
            return _from_array(text)
        if first == b"{":
            return _from_object(text)
        _any.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        if isinstance(error, msgspec.ValidationError):
            raise _not_a_bundle(error) from None
        if first == b"{" and "trailing" in str(error) and _is_ndjson(text):
            return _from_lines(text)
        raise _explained(text, error) from None
    raise refusal("empty", "holds no FHIR resource.")


def _explained(text: bytearray, error: Exception, unit: str = "entry") -> MalformedError:
    fault = faults.scan(text)
    if fault is not None:
        return faults.explain(text, fault, unit=unit)
    if isinstance(error, RecursionError):
        return refusal("too-deep", f"it is nested deeper than {faults.DEPTH_MAX} levels. Ask the sender.")
    return refusal("not-json", "not JSON. Ask the sender for strict JSON.")


def _not_a_bundle(error: msgspec.ValidationError) -> MalformedError:
    path = re.search(r"\$[\w.\[\]]*", str(error))
    where = "Bundle" + (path.group()[1:] if path else "")
    return refusal("structure", f"the Bundle is not built as FHIR R4 says ({where}). Ask the sender to correct it.")


def _from_object(text: bytearray) -> Slices:
    try:
        bundle = _bundle.decode(text)
    except msgspec.ValidationError as error:
        if resource_type(text) == "Bundle":
            raise _not_a_bundle(error) from None
        whole = _exact(text)
        if not whole[1:-1].strip():
            raise refusal("empty", "holds no FHIR resource.") from None
        return Slices(bundle_type="", entries=[Slice(1, "", whole)])
    if bundle.type in RESPONSE_TYPES:
        raise refusal(
            "response-bundle",
            f"is a server's answer ({bundle.type}), not a record. Import what you sent, or GET the resources.",
        )
    if bundle.type not in BUNDLE_TYPES:
        raise refusal("bundle-type", "is a Bundle of no known type. Ask the sender to correct Bundle.type.")
    _check_skeleton(text, bundle.entry)
    if bundle.type == "document":
        return Slices(bundle_type="document", entries=[Slice(1, "", _exact(text))])
    return _from_entries(bundle)


class _Head(msgspec.Struct):
    resourceType: msgspec.Raw = _NONE


_head = msgspec.json.Decoder(_Head)


def resource_type(text: bytes | bytearray) -> str:
    """The stated type of a resource, "" if it states none."""
    try:
        return msgspec.json.decode(_head.decode(text).resourceType, type=str)
    except msgspec.DecodeError:
        return ""


def _exact(text: bytearray) -> bytes:
    return bytes(_any.decode(text))


def document_entries(document: bytes) -> list[Slice]:
    """The resources inside a Bundle that is kept whole, to find its subject; the Bundle's own bytes are the resource.

    Raises MalformedError `structure`.
    """
    try:
        bundle = _bundle.decode(document)
    except msgspec.ValidationError as error:
        raise _not_a_bundle(error) from None
    return _from_entries(bundle).entries


def _from_entries(bundle: _Bundle) -> Slices:
    entries: list[Slice] = []
    skipped = 0
    for number, entry in enumerate(bundle.entry, 1):
        method = entry.request.method if entry.request else ""
        remark = entry.search is not None and entry.search.mode == "outcome"
        resource = bytes(entry.resource)
        if not resource or resource == b"null" or remark or method not in ("", "POST", "PUT"):
            skipped += 1
            continue
        if len(entry.fullUrl.encode()) > URL_BYTES_MAX:
            raise refusal("structure", f"entry {number}: fullUrl is longer than {URL_BYTES_MAX} bytes. Ask the sender.")
        entries.append(Slice(number, entry.fullUrl, resource))
    more = any(link.relation == "next" for link in bundle.link)
    return Slices(bundle_type=bundle.type, entries=entries, skipped=skipped, more_pages=more)


def _from_array(text: bytearray) -> Slices:
    entries = [Slice(number, "", bytes(raw)) for number, raw in enumerate(_array.decode(text), 1)]
    return Slices(bundle_type="", entries=entries)


def _is_ndjson(text: bytearray) -> bool:
    """The first line holds a whole value by itself."""
    first = text.lstrip().split(b"\n", 1)[0]
    try:
        _any.decode(first)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _from_lines(text: bytearray) -> Slices:
    entries: list[Slice] = []
    start = 0
    number = 0
    while start < len(text):
        end = text.find(b"\n", start)
        end = len(text) if end < 0 else end
        number += 1
        line = bytes(text[start:end]).strip(b" \t\r\n")
        if line:
            try:
                entries.append(Slice(number, "", bytes(_any.decode(line))))
            except (msgspec.DecodeError, RecursionError) as error:
                raise _line_fault(text, line, text.index(line, start), number, error) from None
        start = end + 1
    return Slices(bundle_type="", unit="line", entries=entries)


def _line_fault(text: bytearray, line: bytes, start: int, number: int, error: Exception) -> MalformedError:
    fault = faults.scan(line)
    if fault is None:
        return _explained(bytearray(line), error)
    moved = msgspec.structs.replace(fault, offset=start + fault.offset, entry=number, complete=0)
    if fault.kind == "truncated":
        return refusal("truncated", f"ends in the middle (line {number}). Download it again.")
    return faults.explain(text, moved, unit="line")


def _check_skeleton(text: bytearray, entries: list[_Entry]) -> None:
    """Refuse two equal keys in the Bundle or in an entry.

    `"resource"` twice would hide one of the two from us and not from another reader.
    """
    skeleton = _skeleton(text, entries)
    if skeleton is not None and not _repeats_a_key(skeleton):
        return
    fault = faults.scan(text)
    if fault is not None:
        raise faults.explain(text, fault)
    # equal keys below an entry's own level, such as inside `request`
    raise refusal(
        "duplicate-key", "one key of the Bundle appears twice. Which one counts is not defined; ask the sender."
    )


def _skeleton(text: bytearray, entries: list[_Entry]) -> bytes | None:
    """The Bundle with each resource replaced by 0; None when one is not where its entry should have it."""
    pieces: list[bytes] = []
    cursor = 0
    for entry in entries:
        resource = bytes(entry.resource)
        if not resource:
            continue
        found = _BEFORE_RESOURCE.search(text, cursor)
        if found is None or not text.startswith(resource, found.end()):
            return None
        pieces.append(bytes(text[cursor : found.end()]))
        cursor = found.end() + len(resource)
    pieces.append(bytes(text[cursor:]))
    return b"0".join(pieces)


def _repeats_a_key(skeleton: bytes) -> bool:
    repeats = False

    def look(pairs: list[tuple[str, object]]) -> None:
        nonlocal repeats
        if len(dict(pairs)) != len(pairs):
            repeats = True

    json.loads(skeleton, object_pairs_hook=look, parse_int=str, parse_float=str)
    return repeats
