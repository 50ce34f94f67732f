"""Fifty Synthea people and the HL7 examples: the figures of fhir.md sections 1.5 and 3."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from careledger.errors import Error
from careledger.fhir import SENSITIVE_SET, FileReading, ReadOptions, read_file
from careledger.fhir.sensitivity import kind_of_words
from careledger.fhir.strings import long_strings


@pytest.fixture(scope="module")
def synthea(shared_data: Path) -> list[FileReading]:
    files = sorted((shared_data / "synthea").glob("*.json.gz"))
    assert len(files) == 50
    return [read_file(file.name, [file.read_bytes()], options=ReadOptions()) for file in files]


def test_every_resource_is_kept_once_or_travels(synthea: list[FileReading]) -> None:
    counts = [reading.report.counts for reading in synthea]
    assert sum(one.entries for one in counts) == 14_575
    assert sum(one.kept for one in counts) == 14_575
    assert sum(one.distinct for one in counts) == 14_575
    assert sum(one.travelling for one in counts) == 160
    assert sum(one.copies for one in counts) == 5_438
    assert all(not reading.report.rows for reading in synthea)


def test_records_per_compartment(synthea: list[FileReading]) -> None:
    """As measured before, but for visits: there a Goal made a record of its own, here it goes with its CarePlan."""
    assert Counter(record.compartment for reading in synthea for record in reading.records) == {
        "visits": 1_236 - 14, "bills": 1_208, "results": 715, "procedures": 409, "vaccinations": 408,
        "conditions": 276, "medicines": 230, "sexual": 166, "about": 50, "documents": 21, "mental": 19,
        "substance": 13, "warnings": 2,
    }  # fmt: skip


def test_sensitive_resources(synthea: list[FileReading]) -> None:
    closed: Counter[str] = Counter()
    for reading in synthea:
        closed.update({k: v for k, v in reading.report.counts.by_compartment.items() if k in SENSITIVE_SET})
    assert closed == {"sexual": 1_003, "mental": 45, "substance": 40}


def test_no_ordinary_resource_says_a_listed_word_or_refers_to_a_sensitive_one(synthea: list[FileReading]) -> None:
    for reading in synthea:
        closed = {
            url
            for record in reading.records
            if record.compartment in SENSITIVE_SET
            for index, (url, _) in enumerate(record.resources)
            if index not in record.travelling
        }
        for record in reading.records:
            if record.compartment not in SENSITIVE_SET:
                for _, resource in record.resources:
                    assert not [text for text in long_strings(resource) if kind_of_words(text)]
                    assert not closed & set(re.findall(r'"reference": ?"([^"]*)"', resource.decode()))


def test_hl7_bundles_and_examples_are_read_or_refused_in_words(shared_data: Path) -> None:
    codes: Counter[str] = Counter()
    for file in sorted((shared_data / "hl7-r4-examples").glob("*.json.gz")):
        try:
            reading = read_file(file.name, [file.read_bytes()], options=ReadOptions())
        except Error as error:
            codes[error.code] += 1
        else:
            codes["read"] += 1
            assert reading.report.counts.kept >= 1
    assert sum(codes.values()) == 219
    assert set(codes) == {"read", "no-subject", "two-patients", "response-bundle", "empty"}
    assert codes["read"] == 157


def test_ccda_files_are_recognised_without_parsing(shared_data: Path) -> None:
    files = sorted((shared_data / "ccda-examples").glob("*.gz"))
    codes: Counter[str] = Counter()
    for file in files:
        with pytest.raises(Error) as refused:
            read_file(file.name, [file.read_bytes()], options=ReadOptions())
        codes[refused.value.code] += 1
    assert set(codes) <= {"ccda", "not-fhir"}
    assert codes["ccda"] > 0.95 * len(files)
