"""The ABCI server: frames of every shape, limits, several connections, and what a failure does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from careledger.directory.engines.cometbft import messages as abci
from careledger.directory.engines.cometbft import server as server_module
from careledger.directory.engines.cometbft.server import CONNECTIONS_MAX, REQUEST_BYTES_MAX, AbciServer
from careledger.directory.engines.cometbft.wire import decode, encode, frame, uvarint
from careledger.errors import Error, UnavailableError


class Engine:
    """One connection of CometBFT's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, **call: Any) -> None:
        self.writer.write(frame(encode(abci.Request(**call))))

    async def answer(self) -> abci.Response:
        size, shift = 0, 0
        while True:
            byte = (await self.reader.readexactly(1))[0]
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return decode(await self.reader.readexactly(size), abci.Response)

    async def ended(self) -> bool:
        return await self.reader.read() == b""


def answer(request: abci.Request) -> abci.Response:
    if request.echo is not None:
        if request.echo.message == "bug":
            raise KeyError("secret detail")
        if request.echo.message == "disk":
            raise UnavailableError("store-failed", "the disk is full")
        return abci.Response(echo=request.echo)
    return abci.Response(flush=abci.Empty())


class Harness:
    def __init__(self, path: Path) -> None:
        self.faults: list[Error] = []
        self.path = path
        self.server = AbciServer(path, answer, on_fault=self.faults.append)
        self.engines: list[Engine] = []

    async def connect(self) -> Engine:
        self.engines.append(Engine(*await asyncio.open_unix_connection(str(self.path))))
        return self.engines[-1]

    async def close(self) -> None:
        await self.server.close()
        for engine in self.engines:
            engine.writer.close()
            with contextlib.suppress(ConnectionError):
                await engine.writer.wait_closed()


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path / "run" / "abci.sock")


def play(harness: Harness, story: Callable[[], Any]) -> None:
    async def run() -> None:
        await harness.server.start()
        try:
            async with asyncio.timeout(20):
                await story()
        finally:
            await harness.close()

    asyncio.run(run())


def test_requests_are_answered_in_order_on_each_of_several_connections(harness: Harness) -> None:
    async def story() -> None:
        engines = [await harness.connect() for _ in range(4)]
        for engine in engines:
            for number in range(50):
                engine.send(echo=abci.Echo(str(number) * number))
            engine.send(flush=abci.Empty())
        for engine in engines:
            for number in range(50):
                assert (await engine.answer()).echo == abci.Echo(str(number) * number)
            assert (await engine.answer()).flush == abci.Empty()
        assert harness.server.connections == 4

    play(harness, story)
    assert not harness.path.exists()


def test_a_frame_may_come_byte_by_byte(harness: Harness) -> None:
    async def story() -> None:
        engine = await harness.connect()
        for byte in frame(encode(abci.Request(echo=abci.Echo("x" * 200)))):
            engine.writer.write(bytes([byte]))
            await engine.writer.drain()
        assert (await engine.answer()).echo == abci.Echo("x" * 200)

    play(harness, story)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (uvarint(REQUEST_BYTES_MAX + 1), "too-large"),
        (b"\xff" * 6, "bad-frame"),
        (frame(b"\x0a\x05"), "bad-protobuf"),
    ],
)
def test_what_is_no_request_ends_the_engine_with_a_reason(harness: Harness, data: bytes, code: str) -> None:
    async def story() -> None:
        engine = await harness.connect()
        engine.writer.write(data)
        response = await engine.answer()
        assert response.exception is not None
        assert response.exception.error.endswith(f"[{code}]")
        assert await engine.ended()

    play(harness, story)
    assert [fault.code for fault in harness.faults] == [code]


def test_the_largest_request_is_read(harness: Harness) -> None:
    async def story() -> None:
        engine = await harness.connect()
        text = "x" * (REQUEST_BYTES_MAX - 20)
        engine.send(echo=abci.Echo(text))
        assert (await engine.answer()).echo == abci.Echo(text)

    play(harness, story)


@pytest.mark.parametrize(("message", "code"), [("bug", "application-failed"), ("disk", "store-failed")])
def test_a_failure_is_an_exception_ends_all_connections_and_is_told_once(
    harness: Harness, message: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        first, second = await harness.connect(), await harness.connect()
        second.send(echo=abci.Echo("fine"))
        await second.answer()
        first.send(echo=abci.Echo(message))
        response = await first.answer()
        assert response.exception is not None
        assert f"[{code}]" in response.exception.error
        assert "secret" not in response.exception.error
        assert await first.ended()
        assert await second.ended()
        late = await harness.connect()
        assert await late.ended()
        assert harness.server.fault is not None
        harness.server.forgive()
        again = await harness.connect()
        again.send(flush=abci.Empty())
        await again.answer()

    play(harness, story)
    assert [fault.code for fault in harness.faults] == [code]
    assert any(record.message == "abci-fault" for record in caplog.records)


def test_an_engine_that_goes_away_in_the_middle_of_a_frame_harms_nothing(harness: Harness) -> None:
    async def story() -> None:
        engine = await harness.connect()
        engine.writer.write(b"\x50abc")
        engine.writer.close()
        other = await harness.connect()
        other.send(flush=abci.Empty())
        await other.answer()

    play(harness, story)
    assert harness.faults == []


def test_connections_are_bounded(harness: Harness) -> None:
    async def story() -> None:
        engines = [await harness.connect() for _ in range(CONNECTIONS_MAX)]
        for engine in engines:
            engine.send(flush=abci.Empty())
            await engine.answer()
        late = await harness.connect()
        assert await late.ended()

    play(harness, story)


def test_a_socket_left_by_a_dead_process_is_replaced_and_nobody_else_may_use_ours(harness: Harness) -> None:
    harness.path.parent.mkdir()
    harness.path.write_bytes(b"")

    async def story() -> None:
        assert harness.path.stat().st_mode & 0o777 == 0o600
        engine = await harness.connect()
        engine.send(flush=abci.Empty())
        await engine.answer()

    play(harness, story)


def test_a_path_that_no_socket_may_have_is_refused(tmp_path: Path) -> None:
    long = AbciServer(tmp_path / ("x" * server_module.SOCKET_PATH_MAX), answer)
    with pytest.raises(UnavailableError, match="107 bytes") as caught:
        asyncio.run(long.start())
    assert caught.value.code == "bad-socket-path"
