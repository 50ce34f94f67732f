"""Canonical JSON: one value has exactly one encoding, so that a signature over bytes is a signature over meaning.

Follows RFC 8785 restricted to a subset on which every JSON library agrees: objects with ASCII keys, arrays, strings
(kept as they are, never normalised), booleans, and integers within ±(2^53−1). No floats, no null, no duplicate keys.
Bytes travel as unpadded base64url text, hashes as lower-case hex. An absent field is left out, never null.

A verifier decodes into a typed struct, encodes the result again and compares bytes: one comparison catches white space,
escapes, key order, duplicates, `1.0` for `1` and `-0` for `0`.
"""

from __future__ import annotations

import enum
import re
from base64 import urlsafe_b64encode
from binascii import a2b_base64
from functools import lru_cache
from typing import Any, Final, TypeVar

import msgspec
import msgspec.inspect

from careledger.errors import MalformedError

__all__ = ["INTEGER_MAX", "SIZE_MAX", "Payload", "b64", "decode", "encode", "unb64", "unhex"]

INTEGER_MAX: Final = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly (RFC 7493 section 2.2)."""

SIZE_MAX: Final = 1 << 20
"""Bytes of one canonical object unless the caller says otherwise; larger things travel as MessagePack."""

_TO_STANDARD: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
_LAST_CHARACTERS: Final = {2: frozenset("AQgw"), 3: frozenset("AEIMQUYcgkosw048")}
"""By length modulo 4, the last characters whose unused bits are zero."""
_PATH: Final = re.compile(r" - at `(\$[A-Za-z0-9_.\[\]]{0,100})`$")
_TOO_LARGE: Final = "canonical JSON carries integers within ±(2^53-1) only"
_UNKNOWN_FIELD: Final = "Object contains unknown field"

T = TypeVar("T")


class Payload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every signed payload, body and item of these: immutable, named fields only, unknown fields refused.

    A subclass says `frozen=True, kw_only=True` again, since msgspec does not hand `kw_only` down. A field that may be
    absent is `T | msgspec.UnsetType = msgspec.UNSET`; any other default would make two encodings of one value.
    """


_encoder: Final = msgspec.json.Encoder(order="sorted")
_decoders: Final[dict[Any, msgspec.json.Decoder[Any]]] = {}


def encode(value: object) -> bytes:
    """Return the canonical JSON of `value`: structs, dicts with ASCII keys, lists, tuples, str, int, bool.

    Raises TypeError or AssertionError for what the format cannot carry (a bug of ours), MalformedError `bad-text` for
    text that is not Unicode (a lone surrogate, as command-line arguments can hold).
    Source: RFC 8785; docs/spec/sealing.md section 1.
    """
    _check(value)
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        raise MalformedError(
            "bad-text", "text holds half of a surrogate pair, which is not Unicode; enter it again"
        ) from None


def decode(data: bytes, kind: type[T], *, size_max: int = SIZE_MAX) -> T:
    """Return the value of type `kind` whose canonical encoding is exactly `data`.

    Raises MalformedError: `too-large` (over `size_max` bytes), `not-json`, `unknown-field`, `bad-field` (wrong type,
    missing, out of range), `not-canonical`. The message names the field, never a value.
    Source: RFC 8785; docs/spec/sealing.md section 1.
    """
    if len(data) > size_max:
        raise MalformedError(
            "too-large", f"{_name(kind)} has {len(data)} bytes, more than the {size_max} allowed; split it"
        )
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        value: T = decoder.decode(data)
        _check_decoded(value)
        again = _encoder.encode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _refusal(error, kind) from None
    except (AssertionError, TypeError):
        raise MalformedError(
            "bad-field",
            f"{_name(kind)} holds null, a fraction, an integer beyond 2^53-1 or a non-ASCII key; none is allowed",
        ) from None
    if again != data:
        raise MalformedError(
            "not-canonical",
            f"{_name(kind)} is JSON, but not in canonical form (RFC 8785); encode it again before signing",
        )
    return value


def _refusal(error: Exception, kind: object) -> MalformedError:
    """Turn msgspec's refusal into ours without its text, which can quote values and unknown names."""
    if not isinstance(error, msgspec.ValidationError):
        return MalformedError("not-json", f"{_name(kind)} is not JSON text in UTF-8; send the bytes that were signed")
    text = str(error)
    where = _PATH.search(text)
    place = f" at {where[1]}" if where else ""
    if text.startswith(_UNKNOWN_FIELD):
        return MalformedError(
            "unknown-field",
            f"{_name(kind)} has a field{place} that its version does not define; upgrade or leave it out",
        )
    return MalformedError(
        "bad-field", f"{_name(kind)} has a field{place} that is missing or of the wrong type or range; see docs/spec"
    )


def _name(kind: object) -> str:
    return getattr(kind, "__name__", "value")


def _check(value: object) -> None:
    """Refuse what canonical JSON cannot carry; msgspec itself would encode null, floats, bytes and any integer."""
    kind = type(value)
    if kind is str or kind is bool:
        return
    if kind is int:
        if not -INTEGER_MAX <= value <= INTEGER_MAX:  # type: ignore[operator]
            raise AssertionError(_TOO_LARGE)
    elif kind is list or kind is tuple:
        for item in value:  # type: ignore[attr-defined]
            if type(item) is not str:
                _check(item)
    elif hasattr(kind, "__struct_fields__"):
        for item in msgspec.structs.astuple(value):  # type: ignore[arg-type]  # the attribute says so
            kind = type(item)
            if kind is int:
                if not -INTEGER_MAX <= item <= INTEGER_MAX:
                    raise AssertionError(_TOO_LARGE)
            elif kind is not str and item is not msgspec.UNSET:
                _check(item)
    elif kind is dict:
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str or not key.isascii():
                raise TypeError("canonical JSON carries ASCII keys only")
            if type(item) is not str:
                _check(item)
    elif isinstance(value, enum.Enum):
        _check(value.value)
    else:
        raise TypeError(f"canonical JSON does not carry {kind.__name__}")


def _check_decoded(value: object) -> None:
    """As `_check` for what msgspec decoded into its type: only fields whose type lets something refused through.

    Half of decoding an envelope was looking at texts again that the decoder had just found to be texts.
    """
    kind = type(value)
    # By attribute: isinstance of a Struct goes through its metaclass, which costs more than the rest of this.
    if hasattr(kind, "__struct_fields__"):
        for name in _open_fields(kind):  # type: ignore[arg-type]  # the attribute says so
            item = getattr(value, name)
            if type(item) is int:
                if not -INTEGER_MAX <= item <= INTEGER_MAX:
                    raise AssertionError(_TOO_LARGE)
            elif item is not msgspec.UNSET:
                _check_decoded(item)
    elif kind is list:
        for item in value:  # type: ignore[attr-defined]
            _check_decoded(item)
    else:
        _check(value)


@lru_cache(maxsize=1024)
def _open_fields(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """The fields of a struct in which its decoder lets null, a fraction, a large integer or any key pass."""
    described = msgspec.inspect.type_info(kind)
    if not isinstance(described, msgspec.inspect.StructType):
        raise AssertionError(f"{kind} is no struct")
    return tuple(field.name for field in described.fields if _is_open(field.type, (kind,)))


def _is_open(described: msgspec.inspect.Type, within: tuple[type, ...]) -> bool:
    match described:
        case msgspec.inspect.StrType() | msgspec.inspect.BoolType():
            return False
        case msgspec.inspect.LiteralType():
            return False
        case msgspec.inspect.IntType(ge=low, le=high):
            return low is None or high is None or low < -INTEGER_MAX or high > INTEGER_MAX
        case msgspec.inspect.ListType(item_type=item):
            return _is_open(item, within)
        case msgspec.inspect.UnionType(types=types):
            return any(_is_open(one, within) for one in types)
        case msgspec.inspect.StructType(cls=cls, fields=fields):
            return cls in within or any(_is_open(field.type, (*within, cls)) for field in fields)
        case _:
            return True


def b64(data: bytes) -> str:
    """Return unpadded base64url (RFC 4648 section 5)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def unb64(text: str, *, size: int | None = None) -> bytes:
    """Return the bytes of unpadded base64url `text`, exactly `size` of them where given.

    Raises MalformedError `bad-base64`: padding, white space, another alphabet, unused bits that are not zero, another
    size. So no two texts stand for the same bytes.
    """
    tail = len(text) % 4
    try:
        # Strict mode refuses what is outside the alphabet; the table has made "+", "/" and "=" that.
        data = a2b_base64(text.encode("ascii").translate(_TO_STANDARD) + b"=" * (-tail % 4), strict_mode=True)
    except (ValueError, UnicodeEncodeError):
        raise MalformedError(
            "bad-base64", f"text of {len(text)} characters is not unpadded base64url (RFC 4648 section 5)"
        ) from None
    if tail and text[-1] not in _LAST_CHARACTERS[tail]:
        raise MalformedError(
            "bad-base64", f"base64url text of {len(text)} characters has unused bits that are not zero"
        )
    if size is not None and len(data) != size:
        raise MalformedError("bad-base64", f"base64url text holds {len(data)} bytes where {size} are needed")
    return data


def unhex(text: str, *, size: int) -> bytes:
    """Return the `size` bytes of lower-case hex `text`.

    Raises MalformedError `bad-hex`: upper case, white space, another length.
    """
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    # `fromhex` lets upper case and white space pass; writing it again does not. Three to eight times as fast as an
    # expression.
    if len(data) != size or data.hex() != text:
        raise MalformedError("bad-hex", f"text of {len(text)} characters is not the lower-case hex of {size} bytes")
    return data
