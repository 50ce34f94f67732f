"""The demo patients hold what they are meant to show (fhir.md section 7), and are valid."""

from __future__ import annotations

import gzip
import json

import pytest

from careledger.fhir import EMERGENCY_SET, SENSITIVE_SET, FileReading, ReadOptions, check, demo_patients, read_file


@pytest.fixture(scope="module")
def readings() -> dict[str, FileReading]:
    return {name: read_file(name, [data], options=ReadOptions()) for name, data in demo_patients()}


def texts(reading: FileReading, compartments: frozenset[str]) -> str:
    return " ".join(
        data.decode() for one in reading.records if one.compartment in compartments for _, data in one.resources
    )


def test_all_valid_without_a_warning(readings: dict[str, FileReading]) -> None:
    for reading in readings.values():
        assert reading.report.rows == []
        for record in reading.records:
            for _, resource in record.resources:
                assert check(resource) == []


def test_small_enough_to_carry() -> None:
    assert sum(len(data) for _, data in demo_patients()) < 1_500_000


def test_three_people_with_an_identity_each(readings: dict[str, FileReading]) -> None:
    assert list(readings) == ["adult.json", "child.json", "elder.json.gz"]
    births = {reading.patient.birth_date for reading in readings.values() if reading.patient}
    assert births == {"1971-08-30", "2019-11-20", "1942-05-17"}


def test_adult_trend_and_closed_part_found_without_labels(readings: dict[str, FileReading]) -> None:
    adult = readings["adult.json"]
    assert texts(adult, frozenset({"results"})).count('"4548-4"') == 9
    assert adult.report.counts.by_compartment["mental"] == 5
    closed = texts(adult, SENSITIVE_SET)
    assert "328670" in closed
    assert "Szymańska" in closed
    assert "Szymańska" not in texts(adult, frozenset({one.compartment for one in adult.records}) - SENSITIVE_SET)


def test_child_carrier_finding_is_closed_by_its_label_only(readings: dict[str, FileReading]) -> None:
    child = readings["child.json"]
    (private,) = [one for one in child.records if one.compartment == "private"]
    assert private.header["labels"] == [
        "http://terminology.hl7.org/CodeSystem/v3-ActCode|GDIS",
        "http://terminology.hl7.org/CodeSystem/v3-Confidentiality|R",
    ]
    assert "not-done" in texts(child, frozenset({"vaccinations"}))


def test_elders_emergency_part_has_allergy_anticoagulant_and_implant_but_not_hiv(
    readings: dict[str, FileReading],
) -> None:
    elder = readings["elder.json.gz"]
    emergency = texts(elder, EMERGENCY_SET)
    for wanted in ("91936005", "855332", "14106009", "Fall risk", "DRG"):
        assert wanted in emergency
    for closed in ("86406008", "25836-8", "1747692", "HIV", "Dlamini"):
        assert closed not in emergency
    assert elder.report.counts.by_compartment["sexual"] == 4
    assert elder.report.counts.by_compartment["medicines"] == 11


def test_odd_spellings_are_all_there(readings: dict[str, FileReading]) -> None:
    files = dict(demo_patients())
    elder = gzip.decompress(files["elder.json.gz"])
    assert b"\r\n  " in files["child.json"]
    assert b"_birthDate" in files["child.json"]
    assert b'"value":1.50,' in elder
    assert b'"comparator":"<"' in elder
    assert b'"contained"' in elder
    assert "𠮷".encode() in elder
    assert "🍽".encode() in files["adult.json"]
    assert "Þóra".encode() in files["adult.json"]
    documents = texts(readings["elder.json.gz"], frozenset({"documents"}))
    assert len(json.dumps(documents)) > 400_000


def test_every_byte_is_the_same_each_time() -> None:
    assert demo_patients() == demo_patients.__wrapped__()
