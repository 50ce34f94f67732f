"""Is this resource well built? The only module that knows the structural validator.

`fhirkit` is young and handles plaintext, so nothing but reporting depends on it, and whatever it throws becomes an
`unchecked` warning, never a lost resource. Its messages can quote the file; only sentences of ours leave this module.
"""

from __future__ import annotations

import json
import re
from typing import Any

import fhirkit
import msgspec

from careledger.fhir import faults
from careledger.fhir.categories import R4_TYPES
from careledger.fhir.reading import Issue
from careledger.fhir.survey import TooDeepError, issues, survey

_decoder = msgspec.json.Decoder(float_hook=float)
_QUOTED = re.compile(r'"[^"]*"|\'[^\']*\'')
_UNSAFE = re.compile(r"[^A-Za-z0-9_.\[\]-]")
_MESSAGES = (
    # (what the validator's sentence contains, our code, our sentence)
    ("appears more than once", "duplicate-key", "appears twice"),
    ("required element missing", "missing", "is required and missing"),
    ("unknown element", "unknown-element", "is no element of FHIR R4"),
    ("found an array", "structure", "is a list where one value belongs"),
    ("expected an array", "structure", "is one value where a list belongs"),
    ("expected a single value", "structure", "is a list where one value belongs"),
    ("an empty array", "structure", "is an empty list"),
    ("an empty string", "structure", "is an empty string"),
    ("null", "structure", "is null where FHIR allows none"),
    ("arrays must line up", "structure", "does not line up with the list it extends"),
    ("is not a valid", "bad-value", "has a value that its data type does not allow"),
    ("nested too deeply", "too-deep", f"is nested deeper than {faults.DEPTH_MAX} levels"),
)
PATH_LENGTH_MAX = 200


def decode(resource: bytes) -> Any:
    """The resource as Python values, for looking only: never encoded again. Raises msgspec.DecodeError."""
    return _decoder.decode(resource)


def check(resource: bytes) -> list[Issue]:
    """Every finding about one resource; empty when it is valid FHIR R4 as far as we can tell. Never raises for content.

    Errors are structural (unknown or missing elements, wrong shapes, equal keys, not JSON, deeper than 200 levels, no
    type); everything else, unknown types included, is a warning.
    """
    try:
        tree = decode(resource)
        resource.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        fault = faults.scan(resource)
        code = fault.kind if fault and fault.kind in ("too-deep", "truncated", "trailing-data") else "not-json"
        return [Issue("error", "", code, "is not JSON" if code != "too-deep" else "is nested too deep")]
    if not isinstance(tree, dict) or not isinstance(tree.get("resourceType"), str) or not tree["resourceType"]:
        return [Issue("error", "", "no-type", 'has no "resourceType"')]
    try:
        found = survey(tree)
    except TooDeepError:
        return [Issue("error", "", "too-deep", f"is nested deeper than {faults.DEPTH_MAX} levels")]
    return structure(resource, tree["resourceType"]) + issues(found, tree)


def structure(resource: bytes, resource_type: str) -> list[Issue]:
    """What the structural validator finds in a resource that decodes and names its type."""
    if resource_type not in R4_TYPES:
        repeated = _repeated_key(resource)
        kept = Issue("warning", safe_path(resource_type), "unknown-type", "is no resource type of FHIR R4")
        return [
            kept,
            *([Issue("error", safe_path(resource_type), "duplicate-key", "appears twice")] if repeated else []),
        ]
    try:
        found = fhirkit.validate(resource)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # somebody else's native code, whose panics are no `Exception`: none may lose a resource
        return [Issue("warning", resource_type, "unchecked", "could not be checked")]
    return [_issue(one.severity, one.path, one.message) for one in found] if found else []


def _issue(severity: str, path: str, message: str) -> Issue:
    plain = _QUOTED.sub("", message)
    code, sentence = next(
        ((code, sentence) for part, code, sentence in _MESSAGES if part in plain),
        ("structure", "is not built as FHIR R4 says"),
    )
    return Issue("error" if severity == "error" else "warning", safe_path(path), code, sentence)


def safe_path(path: str) -> str:
    """A path of element names only: a stray key could hold anything."""
    return _UNSAFE.sub("?", path[:PATH_LENGTH_MAX])


def _repeated_key(resource: bytes) -> bool:
    repeated = False

    def look(pairs: list[tuple[str, object]]) -> None:
        nonlocal repeated
        repeated = repeated or len(dict(pairs)) != len(pairs)

    try:
        json.loads(resource, object_pairs_hook=look, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return repeated
