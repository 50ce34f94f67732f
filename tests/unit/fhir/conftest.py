"""Small Bundles for the FHIR tests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from careledger.fhir import FileReading, ReadOptions, read_file

Entry = tuple[str, dict[str, Any]]


def _as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@pytest.fixture
def bundle() -> Callable[..., bytes]:
    """bundle((fullUrl, resource), ..., type="collection") -> bytes; a resource may be given as exact bytes."""

    def build(*entries: tuple[str, Any], kind: str = "collection") -> bytes:
        parts = [
            b"{"
            + (b'"fullUrl":' + json.dumps(url).encode() + b"," if url else b"")
            + b'"resource":'
            + _as_bytes(one)
            + b"}"
            for url, one in entries
        ]
        return b'{"resourceType":"Bundle","type":"' + kind.encode() + b'","entry":[' + b",".join(parts) + b"]}"

    return build


@pytest.fixture
def read() -> Callable[..., FileReading]:
    def reading(data: bytes, **options: Any) -> FileReading:
        return read_file("file.json", [data], options=ReadOptions(**options))

    return reading


@pytest.fixture
def compartments() -> Callable[[FileReading], dict[str, str]]:
    """fullUrl (or Type/id) -> compartment, without travelling copies."""

    def of(reading: FileReading) -> dict[str, str]:
        found = {}
        for record in reading.records:
            for index, (url, resource) in enumerate(record.resources):
                if index not in record.travelling:
                    tree = json.loads(resource)
                    found[url or f"{tree['resourceType']}/{tree.get('id', '')}"] = record.compartment
        return found

    return of


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data folder that lies beside the repository, or at CARELEDGER_DATA; it is not part of the repository."""
    given = os.environ.get("CARELEDGER_DATA")
    folder = Path(given) if given else Path(__file__).parents[4] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}: set CARELEDGER_DATA to the folder with synthea and hl7-r4-examples")
    return folder
