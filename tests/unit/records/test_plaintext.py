"""The inside of a record: one encoding, bounded, and padded so that sizes say little."""

from __future__ import annotations

import zlib
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from careledger.errors import MalformedError
from careledger.records import Plaintext, Resource, content_root, pack_plaintext, padme, unpack_plaintext
from careledger.records.header import header_from
from careledger.records.plaintext import HEADER_MAX, INFLATED_MAX, RESOURCES_MAX, to_wire


def wire_of(packed: bytes, *, padding: bytes | None = None, extra: bytes = b"", end: bool = True) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflated = compressor.compress(packed) + (compressor.flush() if end else compressor.flush(zlib.Z_SYNC_FLUSH))
    deflated += extra
    used = 4 + len(deflated)
    size = padme(used) - used
    return len(deflated).to_bytes(4) + deflated + (bytes(size) if padding is None else padding)


def packed(header: Any = b"{}", resources: Any = ()) -> bytes:
    return msgspec.msgpack.encode([header, list(resources)])


def refusal(wire: bytes) -> str:
    with pytest.raises(MalformedError) as refused:
        unpack_plaintext(wire)
    return refused.value.code


GOOD = packed(resources=[[bytes(16), "urn:uuid:1", b'{"resourceType":"Patient"}'] for _ in range(8)])


def test_resources_come_back_byte_for_byte() -> None:
    resources = [("", b'{\n  "a": 1.10\r\n}'), ("urn:uuid:ä", '{"text":"ü"}'.encode()), ("", b"")]
    header = header_from({"labels": ["x|R"], "travelling": [1, 2]}, salt=bytes(range(16)), resources=3)
    wire, root = pack_plaintext(header, resources, rand=lambda size: bytes(range(size)))
    opened = unpack_plaintext(wire)
    assert [(one.full_url, one.data) for one in opened.resources] == resources
    assert [one.salt for one in opened.resources] == [bytes(range(at, at + 16)) for at in (0, 16, 32)]
    assert opened.opened_header() == header
    assert content_root(opened) == root
    assert len(wire) == padme(len(wire))


def test_the_root_covers_header_salts_urls_and_bytes_and_their_order() -> None:
    one, two = Resource(b"s" * 16, "a", b"bc"), Resource(b"s" * 16, "ab", b"c")
    roots = {
        content_root(plaintext)
        for plaintext in (
            Plaintext(b"{}", [one, two]),
            Plaintext(b"{}", [two, one]),
            Plaintext(b"{ }", [one, two]),
            Plaintext(b"{}", [one]),
            Plaintext(b"{}", [one, one]),
            Plaintext(b"{}", [two, two]),
            Plaintext(b"{}", [Resource(b"t" * 16, "a", b"bc"), two]),
        )
    }
    assert len(roots) == 7


def test_padding_that_is_not_zero_is_refused() -> None:
    good = wire_of(GOOD)
    used = 4 + int.from_bytes(good[:4])
    assert unpack_plaintext(good)
    assert used < len(good), "the example has padding"
    for at in (used, len(good) - 1):
        assert refusal(good[:at] + b"\x01" + good[at + 1 :]) == "bad-plaintext"


def test_sizes_that_the_length_does_not_give_are_refused() -> None:
    good = wire_of(GOOD)
    for wire in (b"", good[:3], good[:-1], good + b"\0", good + bytes(padme(len(good) + 1) - len(good))):
        assert refusal(wire) == "bad-plaintext"
    assert refusal((len(good) - 3).to_bytes(4) + good[4:]) == "bad-plaintext"
    assert refusal(b"\xff\xff\xff\xff" + good[4:]) == "bad-plaintext"


def test_data_after_the_deflate_stream_is_refused_and_so_is_a_stream_without_end() -> None:
    assert refusal(wire_of(GOOD, extra=b"\0")) == "bad-plaintext"
    assert refusal(wire_of(GOOD, extra=b"more")) == "bad-plaintext"
    assert refusal(wire_of(GOOD, end=False)) == "bad-plaintext"
    assert refusal(wire_of(GOOD, extra=wire_of(GOOD)[4:])) == "bad-plaintext"


def test_what_is_no_deflate_stream_is_refused() -> None:
    for deflated in (b"\xff" * 60, b"", b"\x07" * 30):
        used = 4 + len(deflated)
        assert refusal(len(deflated).to_bytes(4) + deflated + bytes(padme(used) - used)) == "bad-plaintext"


def test_inflating_stops_at_the_limit() -> None:
    assert refusal(wire_of(bytes(INFLATED_MAX + 1))) == "too-large"
    assert refusal(wire_of(bytes(64 << 20))) == "too-large"
    assert refusal(wire_of(bytes(INFLATED_MAX))) == "bad-plaintext", "up to the limit it is read, and is no record"


def test_a_record_up_to_the_limit_is_kept_and_one_beyond_is_refused_when_sealed() -> None:
    header = header_from({}, salt=bytes(16), resources=1)
    room = INFLATED_MAX - 200
    wire, _ = pack_plaintext(header, [("", bytes(room))], rand=bytes)
    assert len(unpack_plaintext(wire).resources[0].data) == room
    with pytest.raises(MalformedError) as refused:
        pack_plaintext(header, [("", bytes(INFLATED_MAX))], rand=bytes)
    assert refused.value.code == "too-large"


@pytest.mark.parametrize(
    "resources", [[("u" * 0x10000, b"")], [("ä" * 0x8000, b"")], [("", b"")] * (RESOURCES_MAX + 1)], ids=["a", "ä", "n"]
)
def test_urls_and_numbers_beyond_the_limits_are_refused_when_sealed(resources: list[tuple[str, bytes]]) -> None:
    header = header_from({}, salt=bytes(16), resources=1)
    with pytest.raises(MalformedError) as refused:
        pack_plaintext(header, resources, rand=bytes)
    assert refused.value.code == "too-large"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xc0",
        b"\x80",
        packed() + b"\0",
        packed(header="{}"),
        packed(resources=[[bytes(15), "", b""]]),
        packed(resources=[[bytes(17), "", b""]]),
        packed(resources=[[bytes(16), "u" * 0x10000, b""]]),
        packed(resources=[[bytes(16), "", b"", b""]]),
        packed(resources=[[bytes(16), ""]]),
        packed(resources=[[bytes(16), b"", b""]]),
        msgspec.msgpack.encode([b"{}", [], 1]),
        b"\xdc\x00\x02" + packed()[1:],
        packed().replace(b"\xc4\x02{}", b"\xc5\x00\x02{}"),
        b"\x92\xc4\x02{}\x91\x93\xc4\x10" + bytes(16) + b"\xa2\xc3\x28\xc4\x00",
    ],
)
def test_messagepack_of_another_shape_or_length_is_refused(content: bytes) -> None:
    assert refusal(wire_of(content)) == "bad-plaintext"


def test_more_resources_or_header_than_allowed_are_refused_when_read() -> None:
    assert refusal(wire_of(packed(resources=[[bytes(16), "", b""]] * (RESOURCES_MAX + 1)))) == "too-large"
    assert refusal(wire_of(packed(header=bytes(HEADER_MAX + 1)))) == "too-large"
    with pytest.raises(MalformedError):
        to_wire(Plaintext(header=bytes(HEADER_MAX + 1), resources=[]))


@pytest.mark.parametrize(
    "fields",
    [
        {"unknown": 1},
        {"v": 1},
        {"salt": "A" * 22},
        {"source": None},
        {"travelling": [2]},
        {"travelling": [-1]},
        {"travelling": [1, 0]},
        {"travelling": [1, 1]},
        {"contributors": []},
        {"contributors": [{"token": "cl1a", "parts": 999}]},
        {"contributors": [{"token": "cl1a", "parts": 1001}, {"token": "cl1b", "parts": -1}]},
        {"contributors": [{"token": "cl1a", "name": "A", "parts": 1000}]},
        {"contributors": [{"parts": 1000}]},
        {"interaction": {"since": "2020"}},
        {"interaction": "visit"},
        {"warnings": ["text"]},
        {"warnings": [{"resource": 2, "code": "a", "path": "b", "severity": "warning"}]},
    ],
    ids=str,
)
def test_headers_that_say_the_impossible_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedError) as refused:
        header_from(fields, salt=bytes(16), resources=2)
    assert refused.value.code in ("bad-header", "bad-base64")


def test_a_header_on_the_wire_is_canonical_and_checked() -> None:
    def read(header: bytes) -> str:
        with pytest.raises(MalformedError) as refused:
            Plaintext(header=header, resources=[]).opened_header()
        return refused.value.code

    good = b'{"salt":"AAAAAAAAAAAAAAAAAAAAAA","v":1}'
    assert Plaintext(header=good, resources=[]).opened_header().v == 1
    assert read(good.replace(b",", b", ")) == "not-canonical"
    assert read(good.replace(b"1", b"2")) == "bad-header"
    assert read(good.replace(b"AAAA", b"AAA", 1)) == "bad-base64"
    assert read(b'{"other":1,' + good[1:]) == "unknown-field"
    assert read(good[:-1] + b',"travelling":[0]}').startswith("not-canonical")
    assert read(b'{"salt":"AAAAAAAAAAAAAAAAAAAAAA","travelling":[0],"v":1}') == "bad-header"


def test_padding_never_adds_more_than_an_eighth() -> None:
    for size in range(8, 70_000):
        padded = padme(size)
        assert size <= padded <= size + size / 8
        assert padme(padded) == padded
    sizes = {padme(size) for size in range(1 << 16, 1 << 17)}
    assert len(sizes) == 32 + 1, "a size between 64 and 128 KiB is one of 32, and the next power"


def test_the_same_resource_twice_has_two_hashes() -> None:
    header = header_from({}, salt=bytes(16), resources=2)
    counter = iter(range(10))
    wire, _ = pack_plaintext(
        header,
        [("u", b"{}")] * 2,
        rand=lambda size: sha256(bytes([next(counter)])).digest()[:16] * (size // 16 - 1) + bytes(16),
    )
    one, two = unpack_plaintext(wire).resources
    assert one.salt != two.salt
