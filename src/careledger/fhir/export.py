"""Out again: a Bundle of type `collection` with the exact bytes that came in.

`collection`, because it may have open ends: what was not opened is simply not there, and one sentence serves for "not
shared" and "not there". NDJSON is not offered here: source bytes may hold line breaks, and removing them changes bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from careledger.fhir.slices import resource_type

TOKEN_SYSTEM = "urn:x-careledger:token"  # noqa: S105 - a FHIR identifier system, no secret
TAG_SYSTEM = "urn:x-careledger:tag"


def export_bundle(resources: Iterable[tuple[str, bytes]], *, token: str = "", subject_url: str = "") -> bytes:
    """A `collection` of (fullUrl, exact bytes) in the given order, each (fullUrl, bytes) once.

    Where no Patient is among them and a token is given, a generated Patient goes first: the token as its only
    identifier, tagged as generated, under `subject_url` so that references still resolve.
    """
    unique = list(dict.fromkeys(resources))
    if token and not any(resource_type(resource) == "Patient" for _, resource in unique):
        unique.insert(0, (subject_url, _generated_patient(token)))
    return b'{"resourceType":"Bundle","type":"collection","entry":[' + b",".join(map(_entry, unique)) + b"]}"


def _entry(entry: tuple[str, bytes]) -> bytes:
    full_url, resource = entry
    url = b'"fullUrl":' + msgspec.json.encode(full_url) + b"," if full_url else b""
    return b"{" + url + b'"resource":' + resource + b"}"


def _generated_patient(token: str) -> bytes:
    tag = {"system": TAG_SYSTEM, "code": "generated", "display": "Generated: the record was opened without About me"}
    patient = {
        "resourceType": "Patient",
        "meta": {"tag": [tag]},
        "identifier": [{"system": TOKEN_SYSTEM, "value": token}],
    }
    return msgspec.json.encode(patient)
