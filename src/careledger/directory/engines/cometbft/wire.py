"""Protocol buffers' wire format, as much of it as ABCI and CometBFT's signed bytes need, with every size bounded.

A message is a frozen struct whose fields carry their number and protobuf type, as a `.proto` file would. Encoding is
deterministic (fields by number, proto3 defaults left out), which protobuf libraries expressly don't promise and which
hashes and signatures over messages need. Why this is written by hand: docs/decisions/0080-own-protobuf-codec.md.
Source: protobuf.dev/programming-guides/encoding; checked against Google's library by vectors/cometbft/abci.json.
"""

from __future__ import annotations

import typing
from functools import lru_cache
from types import UnionType
from typing import Any, Final, Literal, NamedTuple, TypeVar

import msgspec

from careledger.errors import MalformedError

__all__ = ["Field", "Message", "decode", "encode", "frame", "uvarint"]

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5
_VARINT_BYTES_MAX: Final = 10
"""64 bits in groups of seven."""
_FIELD_MAX: Final = (1 << 29) - 1
_BITS64: Final = (1 << 64) - 1

Kind = Literal["uint64", "int64", "bool", "sfixed64", "string", "bytes", "message"]
_WIRE_TYPES: Final[dict[Kind, int]] = {
    "uint64": _VARINT,
    "int64": _VARINT,
    "bool": _VARINT,
    "sfixed64": _FIXED64,
    "string": _BYTES,
    "bytes": _BYTES,
    "message": _BYTES,
}


class Field(NamedTuple):
    """Number and protobuf type of a field; int32, uint32 and enums travel as `int64` and `uint64` do.

    `always`: written even when it has its default, as gogoproto does with what it calls non-nullable.
    """

    number: int
    kind: Kind
    always: bool = False


class Message(msgspec.Struct, frozen=True):
    """Each field is `Annotated[T, Field(…)]`: `tuple[T, ...]` is repeated, `M | None` may be absent."""


M = TypeVar("M", bound=Message)


class _Slot(NamedTuple):
    name: str
    field: Field
    tag: bytes
    repeated: bool
    message: type[Message] | None


@lru_cache(maxsize=256)
def _slots(kind: type[Message]) -> dict[int, _Slot]:
    found: dict[int, _Slot] = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        inner, field = typing.get_args(hint)
        repeated = typing.get_origin(inner) is tuple
        if repeated or isinstance(inner, UnionType):
            inner = typing.get_args(inner)[0]
        message = inner if isinstance(inner, type) and issubclass(inner, Message) else None
        assert isinstance(field, Field)
        assert (message is not None) == (field.kind == "message")
        tag = uvarint(field.number << 3 | _WIRE_TYPES[field.kind])
        found[field.number] = _Slot(name, field, tag, repeated, message)
    return dict(sorted(found.items()))


def uvarint(value: int) -> bytes:
    """A number below 2^64 in groups of seven bits, lowest first."""
    if not 0 <= value <= _BITS64:
        raise AssertionError(f"{value} is no 64-bit number")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def frame(data: bytes) -> bytes:
    """`data` behind its length: a message on a socket, or a length-delimited field."""
    return uvarint(len(data)) + data


def encode(message: Message) -> bytes:
    """The message's bytes: fields by number, defaults left out, elements of repeated fields always there."""
    out = bytearray()
    for slot in _slots(type(message)).values():
        value = getattr(message, slot.name)
        if not value and not slot.field.always:  # a message is never false, not even an empty one
            continue
        for item in value if slot.repeated else (value,):
            out += slot.tag
            out += _encode_value(slot.field.kind, item)
    return bytes(out)


def _encode_value(kind: Kind, value: Any) -> bytes:
    if kind == "message":
        return frame(encode(value))
    if kind == "bytes":
        return frame(value)
    if kind == "string":
        return frame(value.encode())
    if kind == "sfixed64":
        return int(value).to_bytes(8, "little", signed=True)
    return uvarint(int(value) & _BITS64 if kind == "int64" else int(value))


def decode(data: bytes, kind: type[M]) -> M:
    """The message of these bytes. Unknown fields are skipped, the last value of a field counts (both protobuf's rules).

    Depth is the schema's, and everything read is a part of `data`, so that the caller's bound on it bounds all.
    Raises MalformedError `bad-protobuf`: it ends too early, or a field has another wire type than it must.
    """
    slots = _slots(kind)
    values: dict[str, Any] = {}
    at, end = 0, len(data)
    while at < end:
        tag, at = _uvarint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number <= _FIELD_MAX:
            raise _malformed("a field number is out of range")
        raw, at = _value(data, at, wire_type)
        slot = slots.get(number)
        if slot is None:
            continue
        if _WIRE_TYPES[slot.field.kind] != wire_type:
            raise _malformed(f"{kind.__name__}.{slot.name} has another type")
        value = _decode_value(slot, raw)
        if slot.repeated:
            values.setdefault(slot.name, []).append(value)
        else:
            values[slot.name] = value
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _decode_value(slot: _Slot, raw: Any) -> Any:
    kind = slot.field.kind
    if slot.message is not None:
        return decode(raw, slot.message)
    if kind == "string":
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise _malformed(f"{slot.name} is not UTF-8") from None
    if kind == "int64" and raw >> 63:
        return raw - (1 << 64)
    if kind == "sfixed64":
        return int.from_bytes(raw, "little", signed=True)
    return bool(raw) if kind == "bool" else raw


def _value(data: bytes, at: int, wire_type: int) -> tuple[int | bytes, int]:
    if wire_type == _VARINT:
        return _uvarint(data, at)
    if wire_type == _BYTES:
        size, at = _uvarint(data, at)
    elif wire_type == _FIXED64:
        size = 8
    elif wire_type == _FIXED32:
        size = 4
    else:
        raise _malformed(f"wire type {wire_type} is not used any more")
    if size > len(data) - at:
        raise _malformed("it ends in the middle of a field")
    return data[at : at + size], at + size


def _uvarint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_VARINT_BYTES_MAX):
        if at + index >= len(data):
            raise _malformed("it ends in the middle of a number")
        byte = data[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if value > _BITS64:
                break
            return value, at + index + 1
    raise _malformed("a number has more than 64 bits")


def _malformed(why: str) -> MalformedError:
    return MalformedError("bad-protobuf", f"the message is not a protocol buffer of its type: {why}")
