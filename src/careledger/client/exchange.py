"""One exchange with one node: bytes out, a typed answer or one of our errors in.

A node is not trusted to be well-behaved: its answer may be garbage, its refusal may be a page of HTML, its time may be
an hour off. Here all of that becomes an error with a code and one line. What an answer *says* is checked elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import msgspec

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
from careledger.transport import Answer

__all__ = ["CLOCK_OFF_MS", "Wire", "decoded", "gist", "refusal"]

CLOCK_OFF_MS: Final = 120_000
"""How far a request's time may be from the node's (DESIGN 5.4)."""

_MESSAGE_MAX: Final = 400
_CODE: Final = re.compile(r"[a-z0-9-]{1,64}")

T = TypeVar("T")

_CLASSES: Final[dict[int, type[Error]]] = {
    kind.http_status: kind
    for kind in (
        MalformedError,
        VerificationError,
        NotPermittedError,
        NotFoundError,
        ErasedError,
        ConflictError,
        UnavailableError,
    )
}
_decoders: Final[dict[Any, msgspec.msgpack.Decoder[Any]]] = {}


class Wire(Protocol):
    """What the client needs of a transport; careledger.transport.Transport is the one for real nodes."""

    async def post(self, url: str, path: str, body: bytes, *, content: str = "application/msgpack") -> Answer: ...

    async def get(self, url: str, path: str) -> Answer: ...


class _Refusal(msgspec.Struct):
    code: str
    message: str
    time: int
    details: dict[str, Any] = {}


_refusal_decoder: Final = msgspec.json.Decoder(_Refusal)


def decoded(answer: Answer, kind: type[T], *, now_ms: Callable[[], int]) -> T:
    """Return the MessagePack body of a 200 answer as `kind`.

    Raises the node's own refusal as one of our errors (see `refusal`); MalformedError `garbage-answer`.
    """
    if answer.status != 200:
        raise refusal(answer, now_ms=now_ms())
    return unpacked(answer.body, kind)


def unpacked(body: bytes, kind: type[T]) -> T:
    """Return a MessagePack body as `kind`; raises MalformedError `garbage-answer`."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        value: T = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise MalformedError(
            "garbage-answer", f"the node's answer of {len(body)} bytes is not what was asked for; report the node"
        ) from None
    return value


def refusal(answer: Answer, *, now_ms: int) -> Error:
    """Return the error that a node's answer other than 200 stands for.

    A `stale-request` whose node time differs from ours by more than two minutes becomes `clock-off`, which says by how
    much: no retry helps until somebody sets a clock.
    """
    try:
        said = _refusal_decoder.decode(answer.body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return UnavailableError(
            "garbage-answer",
            f"the node answered HTTP {answer.status} without saying why; try again or ask its operator",
        )
    code = said.code if _CODE.fullmatch(said.code) else "refused"
    message = _line(said.message)
    details: dict[str, object] = {**said.details, "time": said.time}
    if code == "stale-request" and abs(said.time - now_ms) > CLOCK_OFF_MS:
        return clock_off(node_ms=said.time, now_ms=now_ms)
    return _CLASSES.get(answer.status, Error)(code, message, details=details)


def clock_off(*, node_ms: int, now_ms: int) -> UnavailableError:
    """Return the error of a clock that differs from a node's by more than a request may be old."""
    minutes = max(1, round(abs(node_ms - now_ms) / 60_000))
    side = "behind" if node_ms > now_ms else "ahead of"
    return UnavailableError(
        "clock-off",
        f"this computer's clock is {minutes} minutes {side} the node's; set it (or ask the node's operator), try again",
        details={"time": node_ms, "here": now_ms},
    )


def gist(failures: dict[str, Error]) -> str:
    """Return in one line which nodes failed and why, shortest names first: for messages of several nodes' failures."""
    return "; ".join(f"{node[:12]}… {error.code}" for node, error in sorted(failures.items())) or "none answered"


def _line(text: str) -> str:
    """A node's words in one printable line: it must not be able to write on somebody's terminal."""
    words = " ".join(text.split())[:_MESSAGE_MAX]
    return "".join(character if character.isprintable() else "?" for character in words) or "the node gave no reason"
