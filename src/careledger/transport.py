"""HTTP towards nodes: one keep-alive `request`, for people's software and for nodes among themselves.

asyncio streams instead of a full HTTP client, because the client's share of an open is the tightest of all goals
(docs/decisions/0050-own-http-transport.md has the figures). Deliberately small: one request at a time on a
connection, no redirects, no compression, no cookies, bodies with a Content-Length only; every size and time bounded.
"""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import urlsplit

import msgspec

from careledger.errors import UnavailableError

__all__ = ["ANSWER_BYTES_MAX", "Answer", "Transport"]

ANSWER_BYTES_MAX = 64 << 20
"""An answer of 200 records of the largest size fits; more is never asked for at once."""
_HEAD_BYTES_MAX = 16 << 10
_IDLE_MAX = 64
"""Connections kept open to one node."""


class Answer(msgspec.Struct, frozen=True):
    """What a node answered: HTTP status, body, and the headers with lower-case names."""

    status: int
    body: bytes
    headers: dict[str, str]


class _Connection:
    __slots__ = ("reader", "writer")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer


class Transport:
    """A pool of keep-alive connections to nodes, for one event loop.

    `tls` is the context for `https` URLs; None means the system's trust store.
    """

    def __init__(self, *, timeout_s: float = 10.0, tls: ssl.SSLContext | None = None) -> None:
        self._timeout_s = timeout_s
        self._tls = tls
        self._idle: dict[str, list[_Connection]] = {}

    async def post(
        self, url: str, path: str, body: bytes, *, content: str = "application/msgpack", timeout_s: float | None = None
    ) -> Answer:
        """POST `body` to `url` + `path`. Raises UnavailableError (unreachable, no answer in time, or not HTTP)."""
        return await self.request("POST", url, path, body, content=content, timeout_s=timeout_s)

    async def get(self, url: str, path: str, *, timeout_s: float | None = None) -> Answer:
        """GET `url` + `path`. Raises UnavailableError like `post`."""
        return await self.request("GET", url, path, b"", timeout_s=timeout_s)

    async def request(
        self, method: str, url: str, path: str, body: bytes, *, content: str = "", timeout_s: float | None = None
    ) -> Answer:
        """One exchange. A request on a connection that the node had closed meanwhile is repeated once on a fresh one:
        every request of ours may be repeated, since nodes recognise a message they have seen."""
        host = urlsplit(url).netloc
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
        if content:
            head += f"Content-Type: {content}\r\n"
        message = head.encode("ascii") + b"\r\n" + body
        try:
            async with asyncio.timeout(self._timeout_s if timeout_s is None else timeout_s):
                idle = self._idle.get(url)
                while idle:
                    try:
                        return await self._exchange(url, idle.pop(), message)
                    except (ConnectionError, asyncio.IncompleteReadError):
                        continue
                return await self._exchange(url, await self._connect(url), message)
        except TimeoutError:
            raise UnavailableError(
                "no-answer", f"{url} did not answer in time; try again or ask its operator"
            ) from None
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            what = type(error).__name__
            raise UnavailableError("unreachable", f"{url} cannot be reached ({what}); try again later") from None

    async def _connect(self, url: str) -> _Connection:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError("not an http or https URL")
        tls = (self._tls or ssl.create_default_context()) if parts.scheme == "https" else None
        port = parts.port or (443 if tls else 80)
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=tls, limit=1 << 20)
        return _Connection(reader, writer)

    async def _exchange(self, url: str, connection: _Connection, message: bytes) -> Answer:
        done = False
        try:
            connection.writer.write(message)
            head = (await connection.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            if len(head) > _HEAD_BYTES_MAX:
                raise ValueError("answer's head is too long")
            status_line, *lines = head.split("\r\n")
            pairs = (line.partition(":") for line in lines if line)
            headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
            status = int(status_line.partition(" ")[2].partition(" ")[0])
            # RFC 9110 section 8.6: an answer 204 has no Content-Length, and no body.
            length = 0 if status == 204 else int(headers.get("content-length", "-1"))
            if not 0 <= length <= ANSWER_BYTES_MAX:
                raise ValueError("answer without a length, or too long")
            body = await connection.reader.readexactly(length)
            answer = Answer(status, body, headers)
            done = headers.get("connection", "").lower() != "close"
            return answer
        finally:
            idle = self._idle.setdefault(url, [])
            if done and len(idle) < _IDLE_MAX:
                idle.append(connection)
            else:
                connection.writer.close()

    async def close(self) -> None:
        """Close every idle connection."""
        for idle in self._idle.values():
            for connection in idle:
                connection.writer.close()
        self._idle.clear()
