"""The protobuf codec: what it refuses, what it skips, and that encoding is one function of the value."""

from __future__ import annotations

import contextlib
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from careledger.directory.engines.cometbft.messages import (
    CheckTxRequest,
    ExecTxResult,
    Request,
    Timestamp,
    ValidatorUpdate,
)
from careledger.directory.engines.cometbft.wire import Field, Message, decode, encode, frame, uvarint
from careledger.errors import MalformedError


class Vote(Message, frozen=True):
    """As CometBFT's CanonicalVote: fixed-size numbers, a part that is written even when empty."""

    height: Annotated[int, Field(2, "sfixed64")] = 0
    time: Annotated[Timestamp, Field(5, "message")] = Timestamp()
    flag: Annotated[bool, Field(6, "bool")] = False
    part: Annotated[str, Field(7, "string", always=True)] = ""


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x0a", "ends in the middle of a number"),
        (b"\x0a\x05abc", "ends in the middle of a field"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "more than 64 bits"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "more than 64 bits"),
        (b"\x00\x00", "field number"),
        (b"\x0b", "wire type 3"),
        (b"\x0f", "wire type 7"),
        (b"\x0d\x00\x00", "ends in the middle of a field"),
        (b"\x08\x01", "CheckTxRequest.tx has another type"),
        (b"\x12\x01a", "CheckTxRequest.type has another type"),
    ],
)
def test_bytes_that_are_no_message_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(MalformedError, match=why) as caught:
        decode(data, CheckTxRequest)
    assert caught.value.code == "bad-protobuf"


def test_text_must_be_utf8() -> None:
    with pytest.raises(MalformedError, match="UTF-8"):
        decode(b"\x1a\x01\xff", ExecTxResult)


def test_unknown_fields_are_skipped_whatever_their_type() -> None:
    known = encode(CheckTxRequest(b"tx", 1))
    unknown = b"\x50\x07" + b"\x59" + bytes(8) + b"\x62\x02ab" + b"\x6d" + bytes(4)
    assert decode(unknown + known, CheckTxRequest) == CheckTxRequest(b"tx", 1)


def test_the_last_value_of_a_field_counts() -> None:
    assert decode(b"\x10\x01\x10\x00", CheckTxRequest) == CheckTxRequest(b"", 0)


def test_fixed_numbers_and_parts_that_are_always_written() -> None:
    vote = Vote(height=-2, time=Timestamp(), flag=True)
    assert encode(vote).hex() == "11feffffffffffffff" + "2a00" + "3001" + "3a00"
    assert decode(encode(vote), Vote) == vote


def test_a_number_that_does_not_fit_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        uvarint(1 << 64)
    with pytest.raises(AssertionError):
        encode(CheckTxRequest(type=-1))


@given(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=300), st.text(max_size=40), st.integers(0, 2**64 - 1))
def test_what_was_encoded_decodes(power: int, data: bytes, text: str, code: int) -> None:
    result = ExecTxResult(code=code, data=data, log=text, gas_used=power)
    assert decode(encode(result), ExecTxResult) == result
    update = ValidatorUpdate(power=power)
    assert decode(encode(update), ValidatorUpdate) == update
    assert frame(data) == uvarint(len(data)) + data


@given(st.binary(max_size=200))
def test_any_bytes_give_a_message_or_a_refusal(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        assert isinstance(decode(data, Request), Request)
