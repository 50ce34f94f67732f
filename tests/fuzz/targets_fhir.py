"""What of careledger.fhir reads bytes from outside: only careledger.errors.Error may come out of it.

Where something is accepted, the target also asserts what acceptance promises: exact bytes, nothing lost, canonical
headers, and an export that reads back.
"""

import gzip
from collections.abc import Callable

from careledger.errors import Error
from careledger.fhir import (
    FileReading,
    ReadOptions,
    check,
    demo_patients,
    export_bundle,
    long_strings,
    read_file,
)
from careledger.fhir.faults import scan
from careledger.fhir.narrative import narrative_fault
from careledger.records.header import header_from
from careledger.seal import decode, encode

_LIMITS = {"inflated_bytes_max": 1 << 22, "resource_bytes_max": 1 << 20}


def _read(data: bytes, **options: bool) -> FileReading | None:
    try:
        return read_file("fuzz", [data], options=ReadOptions(subject_url="", **_LIMITS, **options))
    except Error as error:
        if "\n" in error.message:
            raise AssertionError("a refusal of two lines") from error
        return None


def _promises(reading: FileReading, data: bytes) -> None:
    counts = reading.report.counts
    assert counts.entries == counts.kept + counts.repeated + counts.skipped + counts.left_out
    assert counts.distinct == counts.kept
    for record in reading.records:
        header = header_from(record.header, salt=bytes(16), resources=len(record.resources))
        assert decode(encode(header), type(header), size_max=1 << 20) == header
        if not data.startswith(b"\x1f\x8b"):
            assert all(resource in data for _, resource in record.resources)


def read(data: bytes) -> None:
    """A file as it comes, strictly and keeping what is invalid."""
    for options in ({}, {"keep_invalid": True, "skip_too_large": True}):
        reading = _read(data, **options)
        if reading is not None:
            _promises(reading, data)
            resources = [one for record in reading.records for one in record.resources]
            again = _read(export_bundle(resources), keep_invalid=True)
            assert again is None or again.report.counts.kept == reading.report.counts.kept


def read_compressed(data: bytes) -> None:
    """The same bytes behind gzip, and as a C-CDA document."""
    _read(gzip.compress(data, 1))
    _read(b"\x1f\x8b" + data)
    _read(b"<ClinicalDocument>" + data, as_document=True)


def check_resource(data: bytes) -> None:
    """`check` and what looks at one resource."""
    for issue in check(data):
        assert issue.code
        assert "\n" not in issue.message
    long_strings(data)


def scan_text(data: bytes) -> None:
    """The scanner of faults, and narrative."""
    fault = scan(data)
    assert fault is None or 0 <= fault.offset <= len(data)
    narrative_fault("<div" + data.decode("utf-8", "replace"))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "fhir-read": read,
    "fhir-read-compressed": read_compressed,
    "fhir-check": check_resource,
    "fhir-scan": scan_text,
}

_RESOURCE = b'{"resourceType":"Observation","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/1"}}'
SEEDS: dict[str, list[bytes]] = {
    "fhir-read": [
        demo_patients()[1][1][:6000],
        b'{"resourceType":"Bundle","type":"collection","entry":[{"fullUrl":"urn:x:1","resource":' + _RESOURCE + b"}]}",
        _RESOURCE + b"\n" + _RESOURCE.replace(b"final", b"amended"),
        b"[" + _RESOURCE + b"]",
        b'{"resourceType":"Bundle","type":"document","entry":[{"resource":' + _RESOURCE + b"}]}",
    ],
    "fhir-read-compressed": [_RESOURCE],
    "fhir-check": [_RESOURCE],
    "fhir-scan": [_RESOURCE, b' xmlns="http://www.w3.org/1999/xhtml"><p>x</p></div>'],
}
