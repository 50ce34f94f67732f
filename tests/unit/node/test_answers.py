"""The ASGI edge: bodies are bounded whatever the headers say; refusals are one JSON shape; a bug says nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from careledger.errors import (
    ConflictError,
    ErasedError,
    Error,
    MalformedError,
    NotFoundError,
    NotPermittedError,
    UnavailableError,
    VerificationError,
)
from careledger.node.answers import read_body, refuse, reply
from careledger.node.application import Route, _answer
from careledger.node.reports import Metrics


def scope(**headers: str) -> dict[str, Any]:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": "POST", "path": "/x", "headers": pairs}


class Sender:
    """The client's side of an ASGI call: hands out parts of a body, and keeps what is sent back."""

    def __init__(self, *parts: bytes, gone: bool = False) -> None:
        self.parts = list(parts) or [b""]
        self.gone = gone
        self.asked = 0
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        self.asked += 1
        if not self.parts:
            return {"type": "http.disconnect"}
        part = self.parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(self.parts) or self.gone}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


def body_of(sender: Sender, headers: dict[str, Any], limit: int) -> bytes:
    return asyncio.run(read_body(headers, sender.receive, size_max=limit))


@pytest.mark.parametrize(
    "parts", [(b"12345678",), (b"1234", b"5678"), (b"", b"1", b"2345678"), (b"1234", b"5678", b"")]
)
def test_a_body_up_to_the_limit_is_read_whole(parts: tuple[bytes, ...]) -> None:
    assert body_of(Sender(*parts), scope(content_length="8"), 8) == b"12345678"
    assert body_of(Sender(*parts), scope(), 8) == b"12345678"


@pytest.mark.parametrize("length", ["9", "99999999999999999999", "-1", "abc", "8 ", "", "0x8"])
def test_a_declared_length_is_refused_before_anything_is_read(length: str) -> None:
    sender = Sender(b"1")
    with pytest.raises(MalformedError) as refusal:
        body_of(sender, scope(content_length=length), 8)
    assert refusal.value.code == "too-large"
    assert sender.asked == 0


@pytest.mark.parametrize("parts", [(b"123456789",), (b"12345678", b"9"), (b"1",) * 20])
def test_an_undeclared_or_false_length_is_refused_as_soon_as_it_is_passed(parts: tuple[bytes, ...]) -> None:
    for headers in (scope(), scope(content_length="2"), scope(transfer_encoding="chunked")):
        sender = Sender(*parts)
        with pytest.raises(MalformedError) as refusal:
            body_of(sender, headers, 8)
        assert refusal.value.code == "too-large"
        assert sender.asked <= 9


def test_a_client_that_goes_away_is_no_request() -> None:
    with pytest.raises(MalformedError) as refusal:
        body_of(Sender(b"123", gone=True), scope(), 8)
    assert refusal.value.code == "truncated"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (MalformedError, 400),
        (NotPermittedError, 403),
        (NotFoundError, 404),
        (ConflictError, 409),
        (ErasedError, 410),
        (VerificationError, 422),
        (Error, 500),
        (UnavailableError, 503),
    ],
)
def test_a_refusal_is_json_with_code_message_details_and_time(kind: type[Error], status: int) -> None:
    sender = Sender()
    details: dict[str, object] = {"time": 5, "names": ["a"], "more": {"b": 1}, "secret": b"bytes", "nothing": None}
    asyncio.run(refuse(sender.send, kind("some-code", "what, why, what to do", details=details)))
    assert sender.status == status
    assert sender.headers[b"content-type"] == b"application/json"
    assert int(sender.headers[b"content-length"]) == len(sender.body)
    said = msgspec.json.decode(sender.body)
    assert said.pop("time") > 1_700_000_000_000
    assert said == {
        "code": "some-code",
        "message": "what, why, what to do",
        "details": {"time": 5, "names": ["a"], "more": {"b": 1}},
    }
    assert (b"retry-after" in sender.headers) == (status == 503)


def test_a_reply_is_whole() -> None:
    sender = Sender()
    asyncio.run(reply(sender.send, b"\x90"))
    assert (sender.status, sender.body) == (200, b"\x90")
    assert sender.headers == {b"content-type": b"application/msgpack", b"content-length": b"1"}


def test_a_bug_is_counted_logged_and_says_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_: bytes) -> Any:
        raise KeyError("Kowalczyk")

    metrics, sender = Metrics(), Sender(b"x")
    asyncio.run(_answer(scope(), sender.receive, sender.send, metrics, Route("/x", "x", broken)))
    assert sender.status == 500
    assert msgspec.json.decode(sender.body)["code"] == "bug"
    assert b"Kowalczyk" not in sender.body
    assert b'careledger_requests_total{code="bug",route="x"} 1.0' in metrics.text()
    assert [record.message for record in caplog.records] == ["bug"]


def test_a_refusal_is_counted_by_its_code() -> None:
    async def refusing(_: bytes) -> Any:
        raise NotPermittedError("no-grant", "no")

    metrics, sender = Metrics(), Sender(b"x")
    asyncio.run(_answer(scope(), sender.receive, sender.send, metrics, Route("/x", "x", refusing)))
    assert sender.status == 403
    assert b'careledger_requests_total{code="no-grant",route="x"} 1.0' in metrics.text()


def test_a_body_that_is_too_large_never_reaches_its_route() -> None:
    async def reached(_: bytes) -> Any:
        raise AssertionError("the body was handed on")

    sender = Sender(b"x" * 10)
    asyncio.run(_answer(scope(), sender.receive, sender.send, Metrics(), Route("/x", "x", reached, 9)))
    assert sender.status == 400
