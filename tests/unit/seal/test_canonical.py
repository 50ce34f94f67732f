import enum
from typing import Any, Literal

import msgspec
import pytest

from careledger.errors import MalformedError
from careledger.seal import Payload, b64, decode, encode, unb64, unhex
from careledger.seal.canonical import INTEGER_MAX


class Inner(Payload, frozen=True, kw_only=True):
    text: str


class Sample(Payload, frozen=True, kw_only=True):
    v: Literal[1]
    name: str
    count: int
    inner: list[Inner]
    flags: dict[str, bool]
    note: str | msgspec.UnsetType = msgspec.UNSET


SAMPLE = Sample(v=1, name="Zoë", count=7, inner=[Inner(text="a"), Inner(text="")], flags={"b": True, "a": False})
WIRE = '{"count":7,"flags":{"a":false,"b":true},"inner":[{"text":"a"},{"text":""}],"name":"Zoë","v":1}'.encode()


def refused(data: bytes, kind: Any = Sample, **limits: int) -> MalformedError:
    with pytest.raises(MalformedError) as refusal:
        decode(data, kind, **limits)
    return refusal.value


def test_a_struct_has_one_encoding_with_sorted_keys_and_absent_fields_left_out() -> None:
    assert encode(SAMPLE) == WIRE
    assert decode(WIRE, Sample) == SAMPLE
    assert b'"note":"x"' in encode(msgspec.structs.replace(SAMPLE, note="x"))


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b'"v":1}', b'"v":2}', "bad-field"),
        (b'"v":1}', b'"v":1,"w":1}', "unknown-field"),
        (b'{"text":"a"}', b'{"text":"a","x":1}', "unknown-field"),
        (b'"count":7,', b"", "bad-field"),
        (b'"count":7', b'"count":"7"', "bad-field"),
        (b'"count":7', b'"count":null', "bad-field"),
        (b'"count":7', b'"count":7.0', "bad-field"),
        (b'"count":7', b'"count":7.5', "bad-field"),
        (b'"count":7', b'"count":07', "not-json"),
        (b'"count":7', b'"count": 7', "not-canonical"),
        (b'"count":7', b'"count":7,"count":7', "not-canonical"),
        (b'"count":7', b'"count":9007199254740992', "bad-field"),
        (b'"count":7', b'"count":-9007199254740992', "bad-field"),
        (b'"count":7', b'"count":123456789012345678901234567890', "bad-field"),
        (b'"a":false,"b":true', b'"b":true,"a":false', "not-canonical"),
        (b'"a":false', b'"\xc3\xa9":false', "bad-field"),
        (b'"a":false', b'"\\u0061":false', "not-canonical"),
        (b'"name":"Zo\xc3\xab"', b'"name":"Zo\\u00eb"', "not-canonical"),
        (b'"name":"Zo\xc3\xab"', b'"name":"Zo\xeb"', "not-json"),
        (b'"name":"Zo\xc3\xab"', b'"name":"\\ud800"', "not-json"),
        (b'"v":1}', b'"v":1}\n', "not-canonical"),
        (b'"v":1}', b'"v":1', "not-json"),
        (b'"v":1}', b'"v":1}}', "not-json"),
    ],
)
def test_anything_but_the_one_encoding_is_refused(old: bytes, new: bytes, code: str) -> None:
    assert WIRE.count(old) == 1
    assert refused(WIRE.replace(old, new)).code == code


def test_a_refusal_names_the_field_and_quotes_neither_values_nor_unknown_names() -> None:
    wrong = refused(WIRE.replace(b'{"text":"a"}', b'{"text":{"secret":1}}'))
    assert wrong.message == (
        "Sample has a field at $.inner[0].text that is missing or of the wrong type or range; see docs/spec"
    )
    unknown = refused(WIRE.replace(b'"v":1}', b'"v":1,"Jane\\nDoe` - at `$.x":1}'))
    assert unknown.code == "unknown-field"
    assert "Jane" not in unknown.message and "Doe" not in unknown.message
    assert "HIV" not in refused(b'"HIV"', Literal["a"]).message


def test_size_is_bounded_before_parsing() -> None:
    assert decode(WIRE, Sample, size_max=len(WIRE)) == SAMPLE
    assert refused(WIRE, size_max=len(WIRE) - 1).code == "too-large"
    assert refused(b'"' + b"a" * (1 << 20) + b'"', str).code == "too-large"


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_nesting_is_refused_not_a_crash(opening: bytes) -> None:
    assert refused(opening * 100_000, Any).code == "not-json"


@pytest.mark.parametrize(
    "value",
    [
        None,
        1.5,
        float("nan"),
        b"bytes",
        {1: "a"},
        {"é": 1},
        {"a": None},
        ["a", None],
        {"a"},
        INTEGER_MAX + 1,
        -INTEGER_MAX - 1,
        msgspec.Raw(b"{ }"),
        msgspec.structs.replace(SAMPLE, count=1.5),
        msgspec.structs.replace(SAMPLE, name=None),
        msgspec.structs.replace(SAMPLE, inner=[[2**53]]),
    ],
)
def test_encode_refuses_what_the_format_cannot_carry_as_our_own_bug(value: object) -> None:
    with pytest.raises((TypeError, AssertionError)):
        encode(value)


@pytest.mark.parametrize("value", [INTEGER_MAX, -INTEGER_MAX, True, "", [], {}, ("a", ["b"]), "\u2028/\x7f"])
def test_encode_takes_every_value_of_the_subset(value: object) -> None:
    assert decode(encode(value), Any) == (list(value) if isinstance(value, tuple) else value)


def test_an_enumeration_is_its_value() -> None:
    class Colour(enum.Enum):
        RED = "red"
        BAD = 1.5

    assert encode([Colour.RED]) == b'["red"]'
    with pytest.raises(TypeError):
        encode([Colour.BAD])


@pytest.mark.parametrize("value", ["\ud800", ["a\udcff"], {"a": "\udfff"}])
def test_text_that_is_not_unicode_is_refused_with_words(value: object) -> None:
    with pytest.raises(MalformedError) as refusal:
        encode(value)
    assert refusal.value.code == "bad-text"


def test_payloads_are_immutable() -> None:
    with pytest.raises(AttributeError):
        SAMPLE.name = "other"  # type: ignore[misc]


def test_unb64_checks_the_size() -> None:
    assert unb64(b64(bytes(16)), size=16) == bytes(16)
    for size in (15, 17):
        with pytest.raises(MalformedError) as refusal:
            unb64(b64(bytes(16)), size=size)
        assert refusal.value.code == "bad-base64"


@pytest.mark.parametrize("text", ["", "0", "000", "0A", "0g", " 00", "00 ", "0x00", "00\n", "٠٠", "0000", "0 0 "])
def test_unhex_takes_only_lower_case_hex_of_the_size(text: str) -> None:
    assert unhex("0f", size=1) == b"\x0f"
    with pytest.raises(MalformedError) as refusal:
        unhex(text, size=1)
    assert refusal.value.code == "bad-hex"


class _Inner(Payload, frozen=True, kw_only=True):
    number: int


class _Outer(Payload, frozen=True, kw_only=True):
    text: str
    items: list[_Inner]
    any: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


@pytest.mark.parametrize(
    "data",
    [
        b'{"items":[{"number":9007199254740992}],"text":"x"}',
        b'{"any":{"a":null},"items":[],"text":"x"}',
        b'{"any":{"a":1.5},"items":[],"text":"x"}',
        b'{"any":{"a":[9007199254740992]},"items":[],"text":"x"}',
        '{"any":{"é":1},"items":[],"text":"x"}'.encode(),
    ],
)
def test_what_a_decoder_lets_through_deep_inside_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError) as refused:
        decode(data, _Outer)
    assert refused.value.code == "bad-field"
