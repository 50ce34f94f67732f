"""Custodians that answer garbage, late, falsely or not at all: with t honest ones a read succeeds and names the others,
with fewer it fails and says which nodes and why.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from careledger.access import decode_access_answer, decode_entry, encode_access_answer, seal_answer
from careledger.access import open_answer as open_sealed
from careledger.errors import UnavailableError
from careledger.seal import SealingPublicKey, envelope_message_id
from careledger.transport import Answer, Transport

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def http(
    body: bytes, *, status: str = "200 OK", content: str = "application/msgpack", length: int | None = None
) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\ncontent-type: {content}\r\ncontent-length: {size}\r\n\r\n".encode() + body


async def _noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\xff" * 200 + b"\r\n\r\n")


async def _no_messagepack(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(http(b"\xc1" * 500))


async def _web_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(http(b"<html>502</html>", status="502 Bad Gateway", content="text/html"))


async def _cut_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(http(b"\x94\xc4", length=5000))


async def _endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(http(b"", length=1 << 50))


async def _hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    return


async def _drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in http(b"x" * 100):
        writer.write(bytes([byte]))
        await asyncio.sleep(0.2)


async def _terminal_tricks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    said = {"code": "no-grant\n", "message": "\x1b[2J\nyou have won", "details": {}, "time": 0}
    writer.write(http(msgspec.json.encode(said), status="503 Busy", content="application/json"))


ROGUES: dict[Handler, set[str]] = {
    _noise: {"unreachable"},
    _no_messagepack: {"garbage-answer"},
    _web_page: {"garbage-answer"},
    _cut_off: {"unreachable"},
    _endless: {"unreachable"},
    _hangs_up: {"unreachable"},
    _drips: set(),
    _terminal_tricks: {"refused"},
}


@asynccontextmanager
async def rogue(node: Any, handler: Handler) -> AsyncIterator[None]:
    """A server in a stopped node's place, at its address."""

    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await handler(reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    host, port = node.url.removeprefix("http://").split(":")
    server = await asyncio.start_server(serve, host, int(port))
    try:
        yield
    finally:
        server.close()
        await asyncio.sleep(0.01)  # connections that were just accepted
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # asyncio closes sockets a turn later


@pytest.fixture(scope="module")
def broken(scenes: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A network whose last two nodes come and go."""
    with scenes.Scene.played(tmp_path_factory.mktemp("custodians")) as scene:
        scene.told = scene.run(scene.chart(2))
        yield scene


def both_run(scene: Any) -> None:
    stopped = [node for node in scene.local.nodes if not node.running]
    if stopped:
        scene.restart(*stopped)


@pytest.mark.parametrize("handler", ROGUES, ids=lambda handler: handler.__name__.strip("_"))
def test_with_t_honest_answers_a_read_succeeds_and_names_the_one_that_answers_garbage(
    broken: Any, handler: Handler
) -> None:
    scene, victim = broken, broken.local.nodes[3]
    victim.kill()

    async def read() -> None:
        async with rogue(victim, handler):
            reader = scene.reader(scene.client())
            reader.ask_all = True
            named: set[str] = set()
            for _ in range(4):
                opened = await scene.open(scene.told, reader=reader)
                assert len(opened.records) == 2 and not opened.failed
                assert set(opened.faults) <= {victim.token}
                assert len(opened.receipts) == 3
                named |= {error.code for error in opened.faults.values()}
                assert all("\n" not in str(error) and "\x1b" not in str(error) for error in opened.faults.values())
            assert named <= ROGUES[handler]

    scene.run(read())


def test_with_fewer_than_t_a_read_says_which_nodes_failed_and_why(broken: Any) -> None:
    scene = broken
    both_run(scene)
    absent, garbled = scene.local.nodes[2], scene.local.nodes[3]
    absent.kill()
    garbled.kill()

    async def read() -> None:
        async with rogue(garbled, _no_messagepack):
            with pytest.raises(UnavailableError) as refused:
                await scene.open(scene.told, reader=scene.reader(scene.client()))
        assert refused.value.code == "not-enough-custodians"
        assert refused.value.details["nodes"] == {absent.token: "unreachable", garbled.token: "garbage-answer"}
        assert (refused.value.details["found"], refused.value.details["needed"]) == (2, 3)
        line = str(refused.value)
        assert absent.token[:12] in line and garbled.token[:12] in line
        assert "unreachable" in line and "garbage-answer" in line and "try again" in line

    scene.run(read())
    both_run(scene)
    assert len(scene.run(scene.open(scene.told)).records) == 2


def test_a_frozen_custodian_is_passed_over_within_moments(broken: Any) -> None:
    """SIGSTOP: it takes the connection and never answers. The others are asked instead; a write says who lacks it."""
    scene = broken
    both_run(scene)
    late = scene.local.nodes[2]

    async def read_and_write() -> None:
        reader = scene.reader(scene.client())
        await scene.open(scene.told, reader=reader)
        scene.freeze(late)
        for _ in range(5):
            async with asyncio.timeout(8):
                opened = await scene.open(scene.told, reader=reader)
            assert len(opened.records) == 2
            assert set(opened.faults) <= {late.token}
        author = scene.writer(scene.client(Transport(timeout_s=1.0)))
        done = await scene.add(scene.told, author=author, safe=False)
        assert (done.kept, done.readable, done.safe) == (1, 1, 0)
        assert {node: error.code for sent in done.sent for node, error in sent.failures.items()} == {
            late.token: "no-answer"
        }

    try:
        scene.run(read_and_write())
    finally:
        scene.thaw(late)

    async def whole_again() -> None:
        async def has_it() -> bool:
            found = (
                scene.store(late)
                .execute("SELECT count(*) FROM records WHERE record = ?", (scene.told.records[-1],))
                .fetchone()
            )
            return bool(found[0])

        await scene.until(has_it, "the missed record at the custodian that was late")

    scene.run(whole_again())


# A custodian that keeps to the protocol and hands out a false share, alone or with the wrong place.


def lying(change: Callable[[bytes], bytes], key: list[Any]) -> Callable[..., Awaitable[Answer]]:
    async def lie(path: str, body: bytes, honest: Callable[[], Awaitable[Answer]]) -> Answer:
        answer = await honest()
        if path != "/v1/access" or answer.status != 200:
            return answer
        said = decode_access_answer(answer.body)
        entry = decode_entry(said.receipt.body)
        bound = {
            "network": entry.network,
            "request": envelope_message_id(entry.envelopes[0]),
            "node": entry.node,
            "index": entry.index,
        }
        shares = [(record, change(share)) for record, share in open_sealed(said.sealed, key=key[0], **bound)]
        sealed = seal_answer(shares, key=SealingPublicKey(key[0].public), **bound)
        return Answer(200, encode_access_answer(msgspec.structs.replace(said, sealed=sealed)), answer.headers)

    return lie


def flipped(share: bytes) -> bytes:
    return bytes([share[0] ^ 1]) + share[1:]


def moved(share: bytes) -> bytes:
    return share[:-1] + bytes([share[-1] % 4 + 1])


@pytest.mark.parametrize("change", [flipped, moved], ids=lambda change: change.__name__)
def test_a_false_share_at_release_is_named_and_the_record_opens_with_the_others(
    scene: Any, scenes: Any, change: Callable[[bytes], bytes]
) -> None:
    liar, second = scene.local.nodes[1], scene.local.nodes[2]

    async def read() -> None:
        chart = await scene.chart(1)
        wire = scenes.FaultyWire()
        reader = scene.reader(scene.client(wire))
        reader.ask_all = True
        key: list[Any] = []
        wire.faults = {liar.url: lying(change, key)}
        request = await reader.request(chart.subject, chart.records, purpose="TREAT")
        key.append(request.key)
        opened = await reader.open_asked(request)
        assert len(opened.records) == 1
        assert {node: error.code for node, error in opened.faults.items()} in ({liar.token: "bad-share"}, {})
        # Two liars of four: nothing opens, and both are named.
        wire.faults = {liar.url: lying(change, key), second.url: lying(change, key)}
        request = await reader.request(chart.subject, chart.records, purpose="TREAT")
        key[0] = request.key
        with pytest.raises(UnavailableError) as refused:
            await reader.open_asked(request)
        assert refused.value.details["nodes"] == {liar.token: "bad-share", second.token: "bad-share"}

    scene.run(read())
