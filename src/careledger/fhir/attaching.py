"""A C-CDA document attached whole, as a DocumentReference, when the person asks for that. Never parsed."""

from __future__ import annotations

import base64

import msgspec


def ccda_as_document(document: bytes, *, subject_url: str) -> bytes:
    """The JSON of a DocumentReference that holds the XML (LOINC 34133-9); the same bytes give the same JSON."""
    resource: dict[str, object] = {
        "resourceType": "DocumentReference",
        "status": "current",
        "type": {
            "coding": [{"system": "http://loinc.org", "code": "34133-9", "display": "Summarization of Episode Note"}]
        },
    }
    if subject_url:
        resource["subject"] = {"reference": subject_url}
    data = base64.b64encode(document).decode()
    resource["content"] = [{"attachment": {"contentType": "application/xml", "data": data}}]
    return msgspec.json.encode(resource)
