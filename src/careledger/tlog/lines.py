"""Numbers, hashes and base64 as C2SP text formats write them: one spelling each, everything else refused."""

from __future__ import annotations

import binascii
import re

from careledger.errors import MalformedError

_DECIMAL = re.compile(rb"0|[1-9][0-9]{0,18}")
SIZE_MAX = 2**63 - 1


def parse_decimal(text: bytes, what: str) -> int:
    """An ASCII decimal below 2^63 without leading zeroes. Raises MalformedError `bad-number` naming `what`."""
    if _DECIMAL.fullmatch(text) is None or (value := int(text)) > SIZE_MAX:
        raise MalformedError("bad-number", f"{what} is not a decimal number below 2^63 without leading zeroes")
    return value


def parse_base64(text: bytes, what: str, *, size: int | None = None) -> bytes:
    """Standard base64 (RFC 4648 section 4) with padding and zero trailing bits. Raises MalformedError `bad-base64`."""
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as problem:
        raise MalformedError("bad-base64", f"{what} is not standard base64") from problem
    # Python accepts trailing bits that aren't zero: two spellings of one value.
    if binascii.b2a_base64(data, newline=False) != text:
        raise MalformedError("bad-base64", f"{what} is not canonical base64")
    if size is not None and len(data) != size:
        raise MalformedError("bad-base64", f"{what} has {len(data)} bytes, not {size}")
    return data


def base64(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False)
