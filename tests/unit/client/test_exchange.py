"""What a node answers, become errors: with a code, in one line, never writing on somebody's terminal."""

from __future__ import annotations

import pytest

from careledger.client.exchange import gist, refusal, unpacked
from careledger.errors import (
    ConflictError,
    Error,
    MalformedError,
    NotFoundError,
    NotPermittedError,
    UnavailableError,
    VerificationError,
)
from careledger.seal import encode
from careledger.transport import Answer

NOW = 1_790_000_000_000


def said(status: int, code: str, message: str = "why", *, time: int = NOW) -> Error:
    body = encode({"code": code, "message": message, "details": {"sequence": 4}, "time": time})
    return refusal(Answer(status, body, {"content-type": "application/json"}), now_ms=NOW)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, MalformedError),
        (422, VerificationError),
        (403, NotPermittedError),
        (404, NotFoundError),
        (409, ConflictError),
        (503, UnavailableError),
        (500, Error),
    ],
)
def test_status_gives_the_class_and_the_rest_is_kept(status: int, kind: type[Error]) -> None:
    error = said(status, "some-code")
    assert type(error) is kind
    assert (error.code, error.message) == ("some-code", "why")
    assert error.details == {"sequence": 4, "time": NOW}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"code":1}', b"\xff", b"[" * 100_000])
def test_a_refusal_that_does_not_parse_is_garbage(body: bytes) -> None:
    assert refusal(Answer(502, body, {}), now_ms=NOW).code == "garbage-answer"


def test_a_nodes_words_stay_on_one_line_and_off_the_terminal() -> None:
    error = said(403, "x", "one\ntwo\x1b[31m red\x07")
    assert error.message == "one two?[31m red?"
    assert len(said(403, "x", "a" * 5000).message) == 400
    assert said(403, "x", "\n").message == "the node gave no reason"


@pytest.mark.parametrize(
    ("node", "words"), [(NOW + 3_600_000, "60 minutes behind"), (NOW - 600_000, "10 minutes ahead of")]
)
def test_clock_off_says_by_how_much_and_which_way(node: int, words: str) -> None:
    error = said(422, "stale-request", time=node)
    assert error.code == "clock-off"
    assert words in error.message


def test_a_stale_request_with_clocks_that_agree_stays_what_it_is() -> None:
    assert said(422, "stale-request", time=NOW + 1000).code == "stale-request"


def test_msgpack_of_another_shape_is_garbage() -> None:
    with pytest.raises(MalformedError) as refused:
        unpacked(b"\x93\x01\x02\x03", dict[str, int])
    assert refused.value.code == "garbage-answer"


def test_gist_names_nodes_and_codes() -> None:
    failures: dict[str, Error] = {"cl1abcdefghijklmn": UnavailableError("unreachable", "x")}
    assert gist(failures) == "cl1abcdefghi… unreachable"
    assert gist({}) == "none answered"
