"""Folders with support-only files, export of exact bytes, and the strings that a disk scan looks for."""

from __future__ import annotations

import json
from collections.abc import Callable

from careledger.fhir import (
    FileReading,
    ReadOptions,
    demo_patients,
    export_bundle,
    long_strings,
    read_file,
    read_folder,
)

Bundle = Callable[..., bytes]
Read = Callable[..., FileReading]


def test_support_only_files_are_read_first_and_travel(bundle: Bundle) -> None:
    doctor = {"resourceType": "Practitioner", "identifier": [{"system": "http://npi", "value": "9"}]}
    visit = {
        "resourceType": "Encounter", "status": "finished", "class": {"code": "AMB"}, "subject": {"reference": "urn:p"},
        "participant": [{"individual": {"reference": "Practitioner?identifier=http://npi|9"}}],
    }  # fmt: skip
    files = {
        "a-person.json": bundle(("urn:p", {"resourceType": "Patient"}), ("urn:e", visit)),
        "b-broken.json": b"{",
        "c-practitioners.json": bundle(("urn:d", doctor)),
    }
    outcomes = list(read_folder(sorted(files), lambda name: [files[name]], options=ReadOptions()))
    assert [(one.file, one.support) for one in outcomes] == [
        ("c-practitioners.json", 1),
        ("a-person.json", 0),
        ("b-broken.json", 0),
    ]
    reading = outcomes[1].reading
    assert reading is not None
    visits = next(one for one in reading.records if one.compartment == "visits")
    assert [url for url, _ in visits.resources] == ["urn:e", "urn:d"]
    assert visits.travelling == [1]
    assert outcomes[2].refused is not None
    assert outcomes[2].refused.code == "truncated"


def test_exported_bundle_reads_back_to_the_same_resources() -> None:
    for name, data in demo_patients():
        reading = read_file(name, [data], options=ReadOptions())
        resources = [one for record in reading.records for one in record.resources]
        again = read_file("export", [export_bundle(resources)], options=ReadOptions())
        assert {one for record in again.records for one in record.resources} == set(resources)
        assert again.subject_url == reading.subject_url
        assert [one.compartment for one in again.records].count("private") == [
            one.compartment for one in reading.records
        ].count("private")


def test_export_without_patient_gets_a_generated_one_with_the_token_only() -> None:
    observation = b'{"resourceType":"Observation","status":"final","code":{"text":"x"},"subject":{"reference":"urn:p"}}'
    exported = export_bundle([("urn:o", observation)], token="cl1abc", subject_url="urn:p")
    patient = json.loads(exported)["entry"][0]
    assert patient["fullUrl"] == "urn:p"
    assert patient["resource"]["identifier"] == [{"system": "urn:x-careledger:token", "value": "cl1abc"}]
    assert patient["resource"]["meta"]["tag"][0]["code"] == "generated"
    assert observation in exported
    assert read_file("x", [exported], options=ReadOptions()).subject_url == "urn:p"


def test_export_with_patient_adds_none() -> None:
    exported = export_bundle([("urn:p", b'{"resourceType":"Patient"}')], token="cl1abc")
    assert len(json.loads(exported)["entry"]) == 1


def test_long_strings_are_content_and_never_systems_ids_or_codes() -> None:
    resource = {
        "resourceType": "Patient", "id": "04121321-4af5-424c-a0e1-ed3aab1c349d", "birthDate": "1950-12-24",
        "meta": {"lastUpdated": "2024-01-01T00:00:00Z", "profile": ["http://hl7.org/fhir/StructureDefinition/Patient"]},
        "identifier": [{"system": "http://hospital.example", "value": "MRN-0000-1234"}],
        "name": [{"family": "Featherstonehaugh", "given": ["Al"]}], "address": [{"line": ["12 Long Street"]}],
        "text": {"status": "generated", "div": "<div><p>Lives alone</p></div>"},
        "photo": [{"contentType": "image/png", "data": "QUJDREVGR0g="}],
        "maritalStatus": {"coding": [{"code": "M", "display": "Married person"}], "text": "laboratory"},
    }  # fmt: skip
    assert long_strings(json.dumps(resource).encode()) == {
        "MRN-0000-1234",
        "Featherstonehaugh",
        "12 Long Street",
        "Lives alone",
        "Married person",
    }
    assert long_strings(b"not json") == set()
