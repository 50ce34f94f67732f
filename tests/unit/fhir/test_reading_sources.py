"""What works although it looks odd: encodings, line ends, gzip, NDJSON, arrays, every Bundle type."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator

import pytest

from careledger.errors import MalformedError
from careledger.fhir import FileReading, ReadOptions, demo_patients, demo_spellings, read_file

Read = Callable[..., FileReading]
Bundle = Callable[..., bytes]

PATIENT = b'{"resourceType":"Patient","id":"1"}'
OBSERVATION = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"text": "x"},
    "subject": {"reference": "Patient/1"},
}


def kept(reading: FileReading) -> set[tuple[str, bytes]]:
    return {one for record in reading.records for one in record.resources}


def test_byte_order_mark_crlf_and_tabs_leave_the_bytes_alone(read: Read) -> None:
    pretty = json.dumps(json.loads(PATIENT), indent="\t").replace("\n", "\r\n").encode()
    assert kept(read(b"\xef\xbb\xbf" + pretty + b"\r\n")) == {("", pretty)}


def test_exact_bytes_survive_decimals_escapes_and_key_order(read: Read, bundle: Bundle) -> None:
    odd = (
        b'{ "subject":{"reference":"urn:p"},"status":"final","resourceType":"Observation",'
        b'"code":{"text":"\\u00e9 \xf0\x9f\xa9\xba"},"valueQuantity":{"value":1.50} }'
    )
    reading = read(bundle(("urn:p", {"resourceType": "Patient"}), ("urn:o", odd)))
    assert ("urn:o", odd) in kept(reading)


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_gzip_of_several_members_with_padding_in_any_pieces(piece: int) -> None:
    data = gzip.compress(PATIENT[:10]) + gzip.compress(PATIENT[10:]) + bytes(300)

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(data), piece):
            yield data[start : start + piece]

    assert kept(read_file("f", pieces(), options=ReadOptions())) == {("", PATIENT)}


def test_gzip_bomb_stops_at_the_limit_and_not_after_inflating() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with pytest.raises(MalformedError) as refused:
        read_file("f", [bomb], options=ReadOptions(inflated_bytes_max=2 << 20))
    assert str(refused.value) == "unpacks to more than 2 MB. Split it, or raise --max-size. [too-large]"


def test_ndjson_with_blank_lines_crlf_and_no_last_line_end(read: Read) -> None:
    line = json.dumps(OBSERVATION).encode()
    assert kept(read(b"\n" + PATIENT + b"\r\n\r\n" + line)) == {("", PATIENT), ("", line)}


def test_array_of_resources(read: Read) -> None:
    line = json.dumps(OBSERVATION).encode()
    assert kept(read(b"[ " + PATIENT + b" , " + line + b" ]")) == {("", PATIENT), ("", line)}


@pytest.mark.parametrize("kind", ["transaction", "batch", "collection", "searchset", "history", "message"])
def test_every_bundle_type_with_contents(read: Read, bundle: Bundle, kind: str) -> None:
    reading = read(bundle(("urn:p", PATIENT), ("urn:o", {**OBSERVATION, "subject": {"reference": "urn:p"}}), kind=kind))
    assert reading.report.counts.kept == 2
    assert reading.subject_url == "urn:p"


def test_requests_without_resource_and_outcomes_are_skipped_and_counted(read: Read) -> None:
    outcome = b'{"resourceType":"OperationOutcome","issue":[{"severity":"warning","code":"processing"}]}'
    data = (
        b'{"resourceType":"Bundle","type":"searchset","link":[{"relation":"next","url":"http://x/?page=2"}],"entry":['
        b'{"resource":%s},{"request":{"method":"GET","url":"x"}},{"search":{"mode":"outcome"},"resource":%s}]}'
        % (PATIENT, outcome)
    )
    reading = read(data)
    counts = reading.report.counts
    assert (counts.entries, counts.kept, counts.skipped) == (3, 1, 2)
    assert [(row.code, row.entry, row.severity) for row in reading.report.rows] == [("more-pages", 0, "warning")]


def test_document_is_kept_whole_under_its_compositions_subject(read: Read) -> None:
    document = (
        b'{"resourceType":"Bundle","type":"document","identifier":{"value":"1"},"timestamp":"2024-01-01T00:00:00Z",'
        b'"entry":[{"fullUrl":"urn:c","resource":{"resourceType":"Composition","status":"final","type":{"text":"x"},'
        b'"subject":{"reference":"urn:p"},"date":"2024-01-01","author":[{"display":"x"}],"title":"x"}},'
        b'{"fullUrl":"urn:p","resource":{"resourceType":"Patient","birthDate":"1950-01-01"}}]}'
    )
    reading = read(document + b"\n")
    assert [(one.compartment, one.resources) for one in reading.records] == [("documents", [("", document)])]
    assert reading.subject_url == "urn:p"
    assert reading.patient is not None
    assert reading.patient.birth_date == "1950-01-01"


def test_ccda_is_attached_whole_when_asked_for(read: Read) -> None:
    xml = b'<?xml version="1.0"?><ClinicalDocument xmlns="urn:hl7-org:v3"><title>x</title></ClinicalDocument>'
    reading = read(xml, as_document=True, subject_url="urn:p")
    (record,) = reading.records
    (_, resource) = record.resources[0]
    attachment = json.loads(resource)["content"][0]["attachment"]
    assert record.compartment == "documents"
    assert attachment["contentType"] == "application/xml"
    assert reading.subject_url == "urn:p"


def test_the_same_person_in_three_spellings_has_the_same_resources() -> None:
    wanted = {resource for _, resource in kept(read_file("a", [demo_patients()[0][1]], options=ReadOptions()))}
    for name, data in demo_spellings():
        reading = read_file(name, [data], options=ReadOptions())
        assert {resource for _, resource in kept(reading)} == wanted
        assert reading.report.counts.by_compartment["mental"] == 5
        assert not reading.report.rows


def test_reading_twice_gives_the_same_drafts() -> None:
    for name, data in demo_patients():
        first, second = (read_file(name, [data], options=ReadOptions()) for _ in range(2))
        assert first == second
