"""Entries: invalid, too large, repeated, in several versions; and what the report says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from careledger.errors import MalformedError
from careledger.fhir import FileReading, Report
from careledger.fhir.reading import RECORD_RESOURCES_MAX, ROWS_MAX

Read = Callable[..., FileReading]
Bundle = Callable[..., bytes]

PATIENT = ("urn:p", {"resourceType": "Patient"})


def observation(**elements: Any) -> dict[str, Any]:
    plain = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": "urn:p"}}
    return {**plain, **elements}


def test_one_invalid_entry_refuses_the_file_with_every_row(read: Read, bundle: Bundle) -> None:
    data = bundle(PATIENT, ("urn:1", observation(colour=1)), ("urn:2", observation()), ("urn:3", observation(taste=1)))
    with pytest.raises(MalformedError) as refused:
        read(data)
    report = refused.value.details["report"]
    assert isinstance(report, Report)
    assert [(row.entry, row.path, row.severity) for row in report.rows] == [
        (2, "Observation.colour", "error"),
        (4, "Observation.taste", "error"),
    ]
    assert report.counts.invalid == 2


def test_keep_invalid_keeps_it_in_its_compartment_with_the_warning_in_the_header(read: Read, bundle: Bundle) -> None:
    reading = read(bundle(PATIENT, ("urn:1", observation(colour=1))), keep_invalid=True)
    record = next(one for one in reading.records if one.compartment == "results")
    assert record.header["warnings"] == [
        {"resource": 0, "code": "unknown-element", "path": "Observation.colour", "severity": "error"}
    ]
    assert reading.report.counts.invalid == 1
    assert [row.severity for row in reading.report.rows] == ["warning"]


def test_keep_invalid_still_refuses_what_has_no_type(read: Read, bundle: Bundle) -> None:
    with pytest.raises(MalformedError, match=r'entry 2: no "resourceType"'):
        read(bundle(PATIENT, ("urn:1", {"status": "final"})), keep_invalid=True)


def test_too_large_entry_is_left_out_when_asked_for(read: Read, bundle: Bundle) -> None:
    big = {"resourceType": "Binary", "contentType": "text/plain", "data": "QUJD" * 400}
    reading = read(bundle(PATIENT, ("urn:b", big)), resource_bytes_max=1000, skip_too_large=True)
    assert reading.report.counts.left_out == 1
    assert [(row.entry, row.code, row.severity) for row in reading.report.rows] == [(2, "too-large", "warning")]


def test_binary_of_21_megabytes_says_so(read: Read, bundle: Bundle) -> None:
    big = {"resourceType": "Binary", "contentType": "image/jpeg", "data": "QUJD" * (21 << 18)}
    with pytest.raises(MalformedError) as refused:
        read(bundle(*[PATIENT] * 8, ("urn:b", big)))
    assert str(refused.value) == (
        "entry 9 (Binary) is 21 MB; the limit is 16 MB in this version. "
        "Left out; the rest can be imported with --skip-too-large. [too-large]"
    )


def test_equal_entries_count_once(read: Read, bundle: Bundle) -> None:
    reading = read(bundle(PATIENT, ("urn:1", observation()), ("urn:1", observation()), ("", observation())))
    counts = reading.report.counts
    assert (counts.entries, counts.kept, counts.distinct, counts.repeated) == (4, 3, 3, 1)


def test_versions_under_one_full_url_become_a_record_that_replaces(read: Read, bundle: Bundle) -> None:
    old = observation(meta={"versionId": "1", "lastUpdated": "2024-01-01T00:00:00Z"}, status="preliminary")
    new = observation(meta={"versionId": "2", "lastUpdated": "2024-02-01T00:00:00Z"})
    reading = read(bundle(PATIENT, ("urn:1", old), ("urn:1", new)))
    statuses = [
        (json.loads(one.resources[0][1])["status"], one.replaces)
        for one in reading.records
        if one.compartment == "results"
    ]
    assert statuses == [("preliminary", []), ("final", [reading.records.index(reading.records[0])])]


def test_history_takes_the_newest_first_entry_without_version_ids(read: Read, bundle: Bundle) -> None:
    versions = [("urn:1", observation(status=status)) for status in ("final", "preliminary", "registered")]
    reading = read(bundle(PATIENT, *versions, kind="history"))
    results = [one for one in reading.records if one.compartment == "results"]
    assert [json.loads(one.resources[0][1])["status"] for one in results] == ["registered", "preliminary", "final"]
    assert results[-1].replaces == [0, 1]


def test_unknown_type_is_kept_closed_with_a_warning(read: Read, bundle: Bundle) -> None:
    reading = read(bundle(PATIENT, ("urn:z", {"resourceType": "Zebra", "stripes": 7})))
    assert reading.report.counts.by_compartment["private"] == 1
    assert [(row.entry, row.code) for row in reading.report.rows] == [(2, "unknown-type")]
    assert reading.report.rows[0].message == "entry 2: Zebra is no resource type of FHIR R4."


def test_attachment_by_url_only_is_kept_with_a_warning(read: Read, bundle: Bundle) -> None:
    note = {
        "resourceType": "DocumentReference", "status": "current", "subject": {"reference": "urn:p"},
        "content": [{"attachment": {"contentType": "application/pdf", "url": "https://x.example/1.pdf"}}],
    }  # fmt: skip
    reading = read(bundle(PATIENT, ("urn:d", note)))
    assert [row.message for row in reading.report.rows] == [
        "entry 2: DocumentReference points to data that is not in the file."
    ]


def test_a_record_too_big_for_its_limit_is_divided_in_order(read: Read, bundle: Bundle) -> None:
    many = [(f"urn:{i}", observation(effectiveDateTime="2024-01-01", valueString="x" * 300)) for i in range(20)]
    reading = read(bundle(PATIENT, *many), resource_bytes_max=2000)
    results = [one for one in reading.records if one.compartment == "results"]
    assert len(results) > 5
    assert [url for one in results for url, _ in one.resources] == [url for url, _ in many]
    assert all(sum(len(data) for _, data in one.resources) <= 2000 for one in results)


def test_a_record_holds_at_most_so_many_resources(read: Read, bundle: Bundle) -> None:
    many = [(f"urn:{i}", observation(effectiveDateTime="2024-01-01")) for i in range(RECORD_RESOURCES_MAX + 1)]
    reading = read(bundle(PATIENT, *many))
    assert [len(one.resources) for one in reading.records if one.compartment == "results"] == [RECORD_RESOURCES_MAX, 1]


def test_a_report_is_bounded(read: Read, bundle: Bundle) -> None:
    bad = [(f"urn:{i}", observation(id="_")) for i in range(ROWS_MAX + 5)]
    report = read(bundle(PATIENT, *bad)).report
    assert (len(report.rows), report.rows_left_out) == (ROWS_MAX, 5)


def test_default_compartment_of_a_sensitive_source_closes_what_no_rule_closes_further(
    read: Read, bundle: Bundle, compartments: Callable[[FileReading], dict[str, str]]
) -> None:
    hiv = observation(code={"coding": [{"system": "http://snomed.info/sct", "code": "86406008"}]})
    reading = read(bundle(PATIENT, ("urn:1", observation()), ("urn:2", hiv)), default_compartment="substance")
    assert compartments(reading) == {"urn:p": "about", "urn:1": "substance", "urn:2": "sexual"}


def test_header_has_no_kind_and_place_of_a_sensitive_encounter(read: Read, bundle: Bundle) -> None:
    visit = {
        "resourceType": "Encounter", "status": "finished", "class": {"code": "AMB"},
        "subject": {"reference": "urn:p"}, "period": {"start": "2024-01-01"}, "serviceProvider": {"reference": "urn:o"},
        "type": [{"coding": [{"system": "http://snomed.info/sct", "code": "79094001", "display": "Psychiatry"}]}],
    }  # fmt: skip
    allergy = {
        "resourceType": "AllergyIntolerance", "patient": {"reference": "urn:p"}, "code": {"text": "Latex"},
        "encounter": {"reference": "urn:e"}, "recorder": {"reference": "urn:d"},
    }  # fmt: skip
    people = [("urn:o", {"resourceType": "Organization", "name": "x"}), ("urn:d", {"resourceType": "Practitioner"})]
    reading = read(bundle(PATIENT, ("urn:e", visit), ("urn:a", allergy), *people))
    of = {one.compartment: one for one in reading.records}
    assert of["mental"].header["interaction"] == {
        "start": "2024-01-01",
        "class": "AMB",
        "kind": "Psychiatry",
        "places": {"patient": "urn:o", "clinician": "urn:o"},
    }
    assert of["warnings"].header["interaction"] == {"start": "2024-01-01"}
    assert "encounter" not in of["warnings"].header
    assert [url for url, _ in of["warnings"].resources] == ["urn:a"]
    assert [url for url, _ in of["private"].resources] == ["urn:d"]  # nothing is lost


def test_basis_of_a_label_travels_with_the_record(read: Read, bundle: Bundle) -> None:
    basis = {
        "url": "http://hl7.org/fhir/uv/security-label-ds4p/StructureDefinition/extension-sec-label-basis",
        "valueCoding": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "42CFRPart2"},
    }
    label = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "SUD", "extension": [basis]}
    reading = read(bundle(PATIENT, ("urn:1", observation(meta={"security": [label]}))))
    record = next(one for one in reading.records if one.compartment == "substance")
    assert record.header["basis"] == ["42CFRPart2"]
    assert record.header["labels"] == [
        "http://terminology.hl7.org/CodeSystem/v3-ActCode|42CFRPart2",
        "http://terminology.hl7.org/CodeSystem/v3-ActCode|SUD",
    ]
