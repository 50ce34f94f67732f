"""`check`: structure by the library, the rest by us; never a value in a message, never an exception for content."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import fhirkit
import pytest

from careledger.fhir import check, validation

OBSERVATION: dict[str, Any] = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}


def found(resource: Any) -> list[tuple[str, str, str]]:
    data = resource if isinstance(resource, bytes) else json.dumps(resource).encode()
    return [(issue.severity, issue.path, issue.code) for issue in check(data)]


def test_valid_resource_has_no_issue() -> None:
    assert found(OBSERVATION) == []


@pytest.mark.parametrize(
    ("change", "issue"),
    [
        ({"status": "ended"}, ("warning", "Observation.status", "unknown-code")),
        ({"component": [{"code": {"text": "x"}, "valueQuantity": {"value": 1, "comparator": "~"}}]},
         ("warning", "Observation.component[0].valueQuantity.comparator", "unknown-code")),
        ({"subject": {"identifier": {"use": "mine", "value": "1"}}},
         ("warning", "Observation.subject.identifier.use", "unknown-code")),
        ({"effectiveDateTime": "2019-02-30"}, ("warning", "Observation.effectiveDateTime", "bad-date")),
        ({"effectivePeriod": {"start": "2021-04-31T10:00:00Z"}},
         ("warning", "Observation.effectivePeriod.start", "bad-date")),
        ({"id": "a_b"}, ("warning", "Observation.id", "bad-id")),
        ({"id": "x" * 65}, ("warning", "Observation.id", "bad-id")),
        ({"extension": [{"url": "x"}]}, ("warning", "Observation.extension[0]", "extension")),
        ({"extension": [{"url": "x", "valueString": "a", "extension": [{"url": "y", "valueCode": "b"}]}]},
         ("warning", "Observation.extension[0]", "extension")),
        ({"note": [{"text": "x"}, {}]}, ("warning", "Observation.note[1]", "empty-object")),
        ({"subject": {"reference": "#p"}}, ("warning", "Observation.subject.reference", "reference")),
        ({"subject": {"reference": "not a reference"}}, ("warning", "Observation.subject.reference", "reference")),
        ({"contained": [{"resourceType": "Patient", "id": "p", "contained": [{"resourceType": "Patient"}]}]},
         ("warning", "Observation.contained[0].contained", "nested-contained")),
        ({"text": {"status": "generated", "div": '<div xmlns="x"><script>1</script></div>'}},
         ("warning", "Observation.text.div", "narrative")),
        ({"text": {"status": "generated", "div": '<div xmlns="x"><p>1</div>'}},
         ("warning", "Observation.text.div", "narrative")),
        ({"text": {"status": "generated", "div": '<div xmlns="x"><p onclick="y()">1</p></div>'}},
         ("warning", "Observation.text.div", "narrative")),
    ],
)  # fmt: skip
def test_own_checks_warn(change: dict[str, Any], issue: tuple[str, str, str]) -> None:
    assert issue in found({**OBSERVATION, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"status": "preliminary"},
        {"effectiveDateTime": "2020-02-29"},
        {"effectiveDateTime": "2020"},
        {"contained": [{"resourceType": "Patient", "id": "p"}], "subject": {"reference": "#p"}},
        {"subject": {"reference": "Patient?identifier=http://x|1"}},
        {"subject": {"reference": "http://x/fhir/Patient/1/_history/2"}},
        {"extension": [{"url": "x", "extension": [{"url": "y", "valueCode": "b"}]}]},
        {"text": {"status": "generated", "div": '<div xmlns="x"><p class="a">a &amp; b<br/><img src="#i"/></p></div>'}},
    ],
)
def test_tricky_and_right_is_silent(change: dict[str, Any]) -> None:
    assert found({**OBSERVATION, **change}) == []


def test_bound_concepts_need_a_coding_of_the_set() -> None:
    status = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "ended"}]}
    condition = {"resourceType": "Condition", "subject": {"display": "x"}, "code": {"text": "x"}}
    assert found({**condition, "clinicalStatus": status}) == [("warning", "Condition.clinicalStatus", "unknown-code")]
    status["coding"][0]["code"] = "active"
    assert found({**condition, "clinicalStatus": status}) == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b'{"resourceType":"Patient"', "truncated"),
        (b"[]", "no-type"),
        (b"{}", "no-type"),
        (b'{"resourceType":5}', "no-type"),
        (b'"\xff"', "not-json"),
        (b'{"resourceType":"Patient","name":[' + b"[" * 5000 + b"]" * 5000 + b"]}", "too-deep"),
        (b'{"resourceType":"Patient","name":[' + b"[" * 300 + b"]" * 300 + b"]}", "too-deep"),
        (b'{"resourceType":"Patient","gender":"male","gender":"female"}', "duplicate-key"),
        (b'{"resourceType":"Zebra","a":1,"a":2}', "duplicate-key"),
        (b'{"resourceType":"Patient","colour":"red"}', "unknown-element"),
        (b'{"resourceType":"Patient","birthDate":"soon"}', "bad-value"),
        (b'{"resourceType":"Patient","name":{}}', "structure"),
    ],
)
def test_errors(data: bytes, code: str) -> None:
    assert ("error", code) in {(severity, found_code) for severity, _, found_code in found(data)}


@pytest.mark.parametrize(
    ("change", "issue"),
    [
        ({"resourceType": "Condition", "clinicalStatus": {"coding": [{"system": ["x"], "code": {"a": 1}}]}},
         ("warning", "Condition.clinicalStatus", "unknown-code")),
        ({"contained": [{"resourceType": "Patient", "id": {"a": 1}}], "subject": {"reference": "#p"}},
         ("warning", "Observation.subject.reference", "reference")),
    ],
)  # fmt: skip
def test_objects_where_texts_belong_are_findings_not_exceptions(
    change: dict[str, Any], issue: tuple[str, str, str]
) -> None:
    assert issue in found({**OBSERVATION, **change})


def test_messages_and_paths_carry_no_value_of_the_resource() -> None:
    secret = "Zaphod Beeblebrox"
    resource = {
        "resourceType": "Patient", secret: 1, "gender": secret, "birthDate": secret, "id": secret,
        "name": [{secret: secret, "use": secret}], "text": {"div": secret, "status": secret},
        "link": [{"other": {"reference": secret}, "type": secret}],
    }  # fmt: skip
    issues = check(json.dumps(resource).encode())
    assert len(issues) > 6
    assert not [issue for issue in issues if secret in issue.message or secret in issue.path]


def test_what_the_library_throws_becomes_unchecked_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicError(BaseException):
        """Native panics do not derive from Exception."""

    def throw(_: object) -> None:
        raise PanicError

    monkeypatch.setattr(validation.fhirkit, "validate", throw)
    assert found(OBSERVATION) == [("warning", "Observation", "unchecked")]


def test_hl7_examples_have_no_error(shared_data: Path) -> None:
    files = sorted((shared_data / "hl7-r4-examples").glob("*.json.gz"))
    assert len(files) == 219
    errors = [
        (file.name, issue)
        for file in files
        for issue in check(gzip.decompress(file.read_bytes()))
        if issue.severity == "error"
    ]
    assert errors == []


def test_the_library_is_the_r4_that_the_tables_are_made_for() -> None:
    assert fhirkit.FHIR_VERSION == "4.0.1"
    assert set(fhirkit.RESOURCE_TYPES) == validation.R4_TYPES
