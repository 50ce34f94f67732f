"""Whatever a file holds: exact bytes in, exact bytes out, nothing lost, and never another exception."""

from __future__ import annotations

import gzip
import json
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from careledger.errors import Error
from careledger.fhir import ReadOptions, check, demo_patients, export_bundle, read_file, resource_key
from careledger.fhir.faults import scan

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)
TYPES = st.sampled_from(["Patient", "Observation", "Encounter", "Practitioner", "Claim", "List", "Binary", "Zebra"])
ELEMENTS = st.sampled_from(
    ["subject", "encounter", "code", "meta", "extension", "contained", "identifier", "id", "entry", "item", "period"]
)
RESOURCES = st.builds(
    lambda kind, elements: {"resourceType": kind, **elements}, TYPES, st.dictionaries(ELEMENTS, JSON, max_size=4)
)


def bundle(resources: list[Any], indent: int | None) -> bytes:
    entries = [{"fullUrl": f"urn:x:{number}", "resource": one} for number, one in enumerate(resources)]
    return json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}, indent=indent).encode()


@settings(max_examples=80, deadline=None)
@given(st.lists(RESOURCES, min_size=1, max_size=6), st.none() | st.integers(0, 3))
def test_what_is_kept_is_the_files_own_bytes_and_all_of_it(resources: list[Any], indent: int | None) -> None:
    data = bundle(resources, indent)
    try:
        reading = read_file("f", [data], options=ReadOptions(keep_invalid=True, subject_url=""))
    except Error as error:
        assert error.code in {"two-patients", "fhir-version", "too-deep", "not-json"}  # noqa: PT017
        return
    kept = {one for record in reading.records for one in record.resources}
    assert len(kept) == reading.report.counts.kept == len(resources)
    assert all(resource in data for _, resource in kept)
    assert {json.dumps(json.loads(resource)) for _, resource in kept} == {json.dumps(one) for one in resources}


@settings(max_examples=60, deadline=None)
@given(st.lists(RESOURCES, min_size=1, max_size=5))
def test_export_reads_back_to_the_same_keys(resources: list[Any]) -> None:
    options = ReadOptions(keep_invalid=True, subject_url="")
    try:
        first = read_file("f", [bundle(resources, None)], options=options)
    except Error:
        return
    kept = [one for record in first.records for one in record.resources]
    again = read_file("f", [export_bundle(kept)], options=options)
    assert {resource_key(*one) for record in again.records for one in record.resources} == {
        resource_key(*one) for one in kept
    }


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_read_or_refused(data: bytes) -> None:
    for one in (data, b"\x1f\x8b" + data, b'{"resourceType":"Bundle","type":"collection","entry":[' + data):
        try:
            read_file("f", [one], options=ReadOptions())
        except Error as error:
            assert error.message  # noqa: PT017
    check(data)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_one_changed_byte_never_crashes(data: st.DataObject) -> None:
    file = demo_patients()[1][1]
    start = data.draw(st.integers(0, len(file) - 1))
    changed = bytearray(file)
    changed[start] = data.draw(st.integers(0, 255))
    try:
        read_file("f", [bytes(changed)], options=ReadOptions(keep_invalid=True))
    except Error as error:
        assert error.code  # noqa: PT017


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5_000))
def test_any_cut_is_called_truncated(cut: int) -> None:
    file = demo_patients()[1][1]
    text = file[: len(file) - 4 - cut]
    for one in (text, gzip.compress(file)[: -1 - cut % 500]):
        try:
            read_file("f", [one], options=ReadOptions())
        except Error as error:
            assert error.code in {"truncated", "encoding"}  # noqa: PT017
        else:
            raise AssertionError("read a file that was cut off")


@settings(max_examples=150, deadline=None)
@given(JSON, st.none() | st.integers(0, 2))
def test_scanner_finds_no_fault_in_json_with_distinct_keys(value: Any, indent: int | None) -> None:
    assert scan(json.dumps(value, indent=indent).encode()) is None
    assert scan(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) is None


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='[]{}",:0123456789eE.+-truefalsn \\u"ad', max_size=30))
def test_scanner_agrees_with_a_parser_on_what_is_json(text: str) -> None:
    def refuse(_: str) -> None:
        raise ValueError

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        assert scan(text.encode()) is not None
    else:
        fault = scan(text.encode())
        assert fault is None or fault.kind in {"duplicate-key", "surrogate"}
