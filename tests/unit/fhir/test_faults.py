"""The scanner agrees with a real parser on what is JSON, and never recurses."""

from __future__ import annotations

import json

import pytest

from careledger.fhir import faults


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", '{"a":[1,-0.5e+3,true,false,null,"\\ud83d\\ude00","\\\\u"]}', ' [ { } , "x" ] ', "0", '""'],
)
def test_json_has_no_fault(text: str) -> None:
    json.loads(text)
    assert faults.scan(text.encode()) is None


@pytest.mark.parametrize("text", ["", "[", '{"a"', '{"a":', '["x', '["\\', '["\\u12', "[tru", "-", '{"a":1,', "[1"])
def test_text_that_could_go_on_is_truncated(text: str) -> None:
    fault = faults.scan(text.encode())
    assert fault is not None
    assert fault.kind == "truncated"


@pytest.mark.parametrize(
    ("text", "offset"),
    [("[1,]", 2), ("[01]", 1), ("[1 2]", 3), ('{"a" 1}', 5), ("[nul]", 1), ('["\x01"]', 2), ("[1.]", 1), ("{1:2}", 1)],
)
def test_fault_is_where_it_is(text: str, offset: int) -> None:
    with pytest.raises(ValueError, match=r".+"):
        json.loads(text)
    fault = faults.scan(text.encode())
    assert fault is not None
    assert (fault.kind, fault.offset) == ("not-json", offset)


def test_columns_count_characters_not_bytes() -> None:
    assert faults.position('x\n"é𠮷" !'.encode(), 11) == (2, 6)


def test_depth_stops_the_scan_without_recursion() -> None:
    fault = faults.scan(b"[" * 1_000_000)
    assert fault is not None
    assert fault.kind == "too-deep"


def test_one_level_above_the_limit_is_not_too_deep_for_the_scanner() -> None:
    resource = b'{"x":' + b"[" * (faults.DEPTH_MAX - 1) + b"]" * (faults.DEPTH_MAX - 1) + b"}"
    assert faults.scan(b'{"entry":[{"resource":' + resource + b"}]}") is None
