"""Whose file is it: every spelling of one person is one key, two people are refused, nobody is joined by name."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from careledger.errors import ConflictError, MalformedError
from careledger.fhir import FileReading, PatientIdentity, refuse_other_person

Read = Callable[..., FileReading]
Bundle = Callable[..., bytes]


def about(reference: dict[str, Any], **elements: Any) -> dict[str, Any]:
    plain = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": reference}
    return {**plain, **elements}


PATIENT = {"resourceType": "Patient", "id": "23", "identifier": [{"system": "http://x/ids", "value": "7"}]}
URL = "http://x.example/fhir/Patient/23"


@pytest.mark.parametrize(
    "reference",
    [
        {"reference": URL},
        {"reference": "Patient/23"},
        {"reference": "Patient/23/_history/2"},
        {"identifier": {"system": "http://x/ids", "value": "7"}},
        {"reference": "Patient?identifier=http://x/ids|7"},
    ],
)
def test_every_spelling_of_one_person(read: Read, bundle: Bundle, reference: dict[str, Any]) -> None:
    other = ("http://x.example/fhir/Observation/2", about({"reference": URL}))
    reading = read(bundle((URL, PATIENT), ("http://x.example/fhir/Observation/1", about(reference)), other))
    assert reading.subject_url == URL
    assert all(one.header["source"] == "http://x.example/fhir" for one in reading.records)


def test_the_same_id_at_two_servers_is_two_people(read: Read, bundle: Bundle) -> None:
    here = ("http://x.example/fhir/Observation/1", about({"reference": "Patient/23"}))
    there = ("http://y.example/fhir/Observation/1", about({"reference": "Patient/23"}))
    with pytest.raises(MalformedError, match=r"two people \(entries 1 and 3\)"):
        read(bundle((URL, PATIENT), here, there))


def test_mother_and_donor_are_content_not_subjects(read: Read, bundle: Bundle) -> None:
    mother = {"resourceType": "Patient", "id": "mother"}
    child = {"resourceType": "Patient", "id": "c", "link": [{"other": {"reference": "urn:m"}, "type": "seealso"}]}
    graft = about({"reference": "urn:c"}, focus=[{"reference": "urn:m"}])
    reading = read(bundle(("urn:m", mother), ("urn:c", child), ("urn:o", graft)))
    assert reading.subject_url == "urn:c"
    assert reading.report.counts.by_compartment["about"] == 2


def test_subjects_that_are_no_people_do_not_count(read: Read, bundle: Bundle) -> None:
    ward = about({"reference": "Location/4"})
    group = about(
        {"reference": "urn:g"},
    )
    reading = read(bundle((URL, PATIENT), ("", ward), ("urn:g", {"resourceType": "Group", "type": "person",
                                                                   "actual": True}), ("", group)))  # fmt: skip
    assert reading.subject_url == URL


def test_subject_without_its_patient_is_the_reference(read: Read, bundle: Bundle) -> None:
    reading = read(bundle(("http://x.example/fhir/Observation/1", about({"reference": "Patient/9"}))))
    assert reading.subject_url == "http://x.example/fhir/Patient/9"
    assert reading.patient is None


def test_caller_may_say_whose_a_file_without_person_is(read: Read, bundle: Bundle) -> None:
    data = bundle(("urn:s", {"resourceType": "ValueSet", "status": "active"}))
    assert read(data, subject_url="urn:p").subject_url == "urn:p"


def test_hl7_bundle_of_references_speaks_of_several_people(read: Read, shared_data: Path) -> None:
    data = gzip.decompress((shared_data / "hl7-r4-examples" / "Bundle-bundle-references.json.gz").read_bytes())
    with pytest.raises(MalformedError) as refused:
        read(data)
    assert refused.value.code == "two-patients"


@pytest.mark.parametrize(
    ("known", "found", "difference"),
    [
        (
            PatientIdentity(["a|1"], "1950-01-01", "Li"),
            PatientIdentity(["b|2"], "1950-01-02", "Li"),
            "birth date differs",
        ),
        (PatientIdentity([], "1950-01-01", "Li"), PatientIdentity([], "1950-01-01", "Lo"), "family name differs"),
        (PatientIdentity([], "", "Li"), PatientIdentity([], "1950-01-01", "Lo"), "family name differs"),
    ],
)
def test_other_person_is_refused(known: PatientIdentity, found: PatientIdentity, difference: str) -> None:
    with pytest.raises(ConflictError) as refused:
        refuse_other_person(known=known, found=found)
    assert str(refused.value) == f"is about another person than the record you named ({difference}). [other-person]"


@pytest.mark.parametrize(
    "found",
    [
        PatientIdentity(["a|1"], "1999-01-01", "Other"),  # a shared identifier settles it
        PatientIdentity(["b|2"], "1950-01-01", "LI"),
        PatientIdentity([], "", ""),
    ],
)
def test_same_person_passes(found: PatientIdentity) -> None:
    refuse_other_person(known=PatientIdentity(["a|1"], "1950-01-01", "Li"), found=found)
