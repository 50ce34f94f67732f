"""The words of a resource that must never be found on a node's disk: what the demo's scan looks for.

Names, addresses, telephone numbers, identifiers, displays, notes and texts; never systems, URLs, ids, codes, dates or
base64, nor single words written like codes, which may also stand in files that hold nothing of this person.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from careledger.fhir.validation import decode

_NOT_CONTENT = frozenset(
    [
        *("system", "url", "reference", "id", "fullUrl", "profile", "source", "implicitRules", "instantiatesUri"),
        *("versionId", "lastUpdated", "resourceType", "type", "code", "unit", "status", "use", "contentType", "data"),
        *("hash", "language", "uid", "start", "end", "intent", "priority", "mode", "criticality", "currency", "uri"),
    ]
)
_NO_CONTENT_VALUE = re.compile(
    r"[a-z-]+|[A-Za-z][A-Za-z0-9+.-]*:\S*|\d{4}-\d\d(?:-\d\d.*)?|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|[0-9.]+"
)
_TAG = re.compile(r"<[^>]*>")


def long_strings(resource: bytes, *, length_min: int = 8) -> set[str]:
    """The distinct personal and clinical strings of a resource with at least `length_min` characters.

    Narrative is cut at its tags. An unreadable resource has none.
    """
    try:
        tree = decode(resource)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return set()
    found: set[str] = set()
    waiting: list[tuple[str, Any]] = [("", tree)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += [(key, item) for item in value]
        elif isinstance(value, str) and key not in _NOT_CONTENT:
            pieces = _TAG.split(value) if key == "div" else [value]
            found.update(piece.strip() for piece in pieces)
    return {text for text in found if len(text) >= length_min and not _NO_CONTENT_VALUE.fullmatch(text)}
