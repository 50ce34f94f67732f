"""HTTP towards nodes: what a server may do to a client, and what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from careledger.errors import UnavailableError
from careledger.transport import ANSWER_BYTES_MAX, Answer, Transport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-More: a: b\r\n\r\nbody"


class Server:
    """Answers each request on a connection with the next of `answers`; closes the connection after the last."""

    def __init__(self, *answers: bytes, then: Callable[[asyncio.StreamWriter], Awaitable[None]] | None = None) -> None:
        self.answers = answers
        self.then = then
        self.requests: list[bytes] = []
        self.connections = 0
        self.serving: list[asyncio.Task[Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.serving.append(task)
        self.connections += 1
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in self.answers:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or b"0")
            self.requests.append(head + await reader.readexactly(length))
            writer.write(answer)
            await writer.drain()
        if self.then is not None:
            await self.then(writer)

    def ask(self, work: Callable[[Transport, str], Awaitable[Any]], **options: Any) -> Any:
        async def main() -> Any:
            server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            transport = Transport(**options)
            try:
                return await work(transport, url)
            finally:
                await transport.close()
                server.close()
                await asyncio.gather(*self.serving, return_exceptions=True)
                await server.wait_closed()

        return asyncio.run(main())


async def get(transport: Transport, url: str) -> Answer:
    return await transport.get(url, "/x")


def refused(server: Server, **options: Any) -> str:
    with pytest.raises(UnavailableError) as refusal:
        server.ask(get, **options)
    assert "\n" not in refusal.value.message
    return refusal.value.code


def test_an_answer_has_status_body_and_lower_case_headers() -> None:
    server = Server(OK)
    answer = server.ask(get)
    assert (answer.status, answer.body) == (200, b"body")
    assert answer.headers == {"content-length": "4", "x-more": "a: b"}
    assert server.requests[0].startswith(b"GET /x HTTP/1.1\r\nHost: 127.0.0.1:")


def test_a_post_carries_its_length_and_kind() -> None:
    server = Server(OK)

    async def post(transport: Transport, url: str) -> Answer:
        return await transport.post(url, "/x", b"\x00body", content="application/x")

    server.ask(post)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert body == b"\x00body"
    assert b"Content-Length: 5\r\nContent-Type: application/x" in head


def test_a_connection_is_kept_and_used_again() -> None:
    server = Server(OK, OK, OK)

    async def three(transport: Transport, url: str) -> list[int]:
        return [(await get(transport, url)).status for _ in range(3)]

    assert server.ask(three) == [200, 200, 200]
    assert server.connections == 1


def test_a_connection_that_the_node_closed_meanwhile_is_opened_again() -> None:
    server = Server(OK)

    async def twice(transport: Transport, url: str) -> int:
        await get(transport, url)
        await asyncio.sleep(0)
        return (await get(transport, url)).status

    assert server.ask(twice) == 200
    assert server.connections == 2


def test_a_connection_is_closed_where_the_node_says_so() -> None:
    closing = OK.replace(b"X-More: a: b", b"Connection: Close")
    server = Server(closing, closing)

    async def twice(transport: Transport, url: str) -> int:
        await get(transport, url)
        return (await get(transport, url)).status

    assert server.ask(twice) == 200
    assert server.connections == 2


def test_an_answer_without_content_has_none() -> None:
    answer = Server(b"HTTP/1.1 204 No Content\r\n\r\n").ask(get)
    assert (answer.status, answer.body) == (204, b"")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n\r\n",
        b"<html>\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (ANSWER_BYTES_MAX + 1),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2_000_000,
    ],
)
def test_what_is_no_answer_is_unreachable(answer: bytes) -> None:
    assert refused(Server(answer)) == "unreachable"


def test_a_node_that_never_answers_is_given_up() -> None:
    async def wait(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)

    assert refused(Server(b"HTTP/1.1 200", then=wait), timeout_s=0.05) == "no-answer"


@pytest.mark.parametrize("url", ["ftp://node.example", "http://", "node.example", "http://127.0.0.1:99999"])
def test_what_is_no_address_is_unreachable(url: str) -> None:
    async def main() -> None:
        await Transport().get(url, "/")

    with pytest.raises(UnavailableError) as refusal:
        asyncio.run(main())
    assert refusal.value.code == "unreachable"


def test_nobody_at_the_address_is_unreachable() -> None:
    async def main() -> None:
        await Transport().get("http://127.0.0.1:9", "/")

    with pytest.raises(UnavailableError) as refusal:
        asyncio.run(main())
    assert refusal.value.code == "unreachable"


def test_a_certificate_nobody_vouches_for_is_unreachable() -> None:
    """Plain HTTP on the other end: the handshake fails, and nothing is sent in the clear."""
    server = Server(OK)

    async def over_tls(transport: Transport, url: str) -> Answer:
        return await transport.get(url.replace("http:", "https:"), "/secret")

    with pytest.raises(UnavailableError):
        server.ask(over_tls, timeout_s=0.5)
    assert not any(b"secret" in request for request in server.requests)
