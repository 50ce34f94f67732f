"""Raw ASGI at the edge of a node: bounded bodies in, bytes or one-line refusals out.

The hot routes (access, submission, consent, tiles, witness) are dispatched here before litestar sees them; a framework
costs about 250 µs a request, a fifth of a node's work for an open (docs/decisions/0051-raw-asgi-on-hot-routes.md).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from careledger.errors import Error, MalformedError
from careledger.seal import encode

__all__ = ["BODY_BYTES_MAX", "Asgi", "Receive", "Scope", "Send", "read_body", "refuse", "reply"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_BYTES_MAX = 24 << 20
"""A submission of one record of the largest size (16 MiB inflated) with its locks; nothing else comes near."""

MSGPACK = b"application/msgpack"
JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"
OCTETS = b"application/octet-stream"


async def read_body(scope: Scope, receive: Receive, *, size_max: int) -> bytes:
    """The whole body. Raises MalformedError `too-large` as soon as the limit is passed, declared or not."""
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or int(value) > size_max):
            raise MalformedError("too-large", f"the request is larger than {size_max} bytes; send less at once")
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > size_max:
            raise MalformedError("too-large", f"the request is larger than {size_max} bytes; send less at once")
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise MalformedError("truncated", "the request ended in the middle; send it again")
        part = message.get("body", b"")
        size += len(part)
        if size > size_max:
            raise MalformedError("too-large", f"the request is larger than {size_max} bytes; send less at once")
        parts.append(part)
    return b"".join(parts)


async def reply(
    send: Send,
    body: bytes,
    *,
    status: int = 200,
    content: bytes = MSGPACK,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    """Send one whole answer."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", content), (b"content-length", b"%d" % len(body)), *headers],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, error: Error) -> None:
    """Send a refusal: {code, message, details, time}. The node's time lets a client see that its clock is off."""
    details = {name: value for name, value in error.details.items() if isinstance(value, str | int | list | dict)}
    body = encode(
        {"code": error.code, "message": error.message, "details": details, "time": time.time_ns() // 1_000_000}
    )
    headers = ((b"retry-after", b"1"),) if error.http_status == 503 else ()
    await reply(send, body, status=error.http_status, content=JSON, headers=headers)
