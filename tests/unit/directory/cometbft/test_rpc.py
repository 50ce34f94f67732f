"""The RPC client against a server of a few lines that answers as CometBFT does, and as it must not."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from careledger.directory.engines.cometbft import rpc as rpc_module
from careledger.directory.engines.cometbft.rpc import EngineRpc, EngineStatus, RpcRefusedError
from careledger.errors import UnavailableError


class Server:
    """Answers each call with what `answers` has for its method: a result, or raw HTTP bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.connections = 0
        self.chunked = False
        self.close_after = 10**9

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            for _ in range(self.close_after):
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                call = json.loads(await reader.readexactly(size))
                self.asked.append((call["method"], call["params"]))
                found = self.answers[call["method"]]
                found = found(call["params"]) if callable(found) else found
                writer.write(found if isinstance(found, bytes) else self.http(found))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def http(self, found: Any) -> bytes:
        key = "error" if isinstance(found, dict) and "data" in found and "message" in found else "result"
        body = json.dumps({"jsonrpc": "2.0", "id": 1, key: found}).encode()
        if not self.chunked:
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        parts = [body[at : at + 7] for at in range(0, len(body), 7)] + [b""]
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(
            b"%x\r\n" % len(part) + part + b"\r\n" for part in parts
        )


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Callable[[Server, EngineRpc], Coroutine[Any, Any, None]]], None]:
    def run(story: Callable[[Server, EngineRpc], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            made = Server(tmp_path / "rpc.sock")
            server = await asyncio.start_unix_server(made.serve, path=str(made.path))
            rpc = EngineRpc(made.path, timeout_s=0.5)
            async with server:
                async with asyncio.timeout(20):
                    await story(made, rpc)
                await rpc.close()
                await asyncio.sleep(0.01)

        asyncio.run(whole())

    return run


@pytest.mark.parametrize("chunked", [False, True])
def test_calls_keep_their_connection(play: Any, chunked: bool) -> None:
    async def story(server: Server, rpc: EngineRpc) -> None:
        server.chunked = chunked
        sync = {"latest_block_height": "7", "latest_app_hash": "AB" * 32, "catching_up": False, "more": 1}
        server.answers = {"status": {"sync_info": sync, "node_info": {}}, "net_info": {"n_peers": "3", "peers": []}}
        server.answers["num_unconfirmed_txs"] = {"n_txs": "0", "total": "5", "txs": None}
        server.answers["commit"] = {"canonical": False}
        assert await rpc.status() == EngineStatus(7, bytes.fromhex("ab" * 32), False)
        assert await rpc.peers() == 3
        assert await rpc.pending() == 5
        assert await rpc.commit(6) == {"canonical": False}
        assert server.asked[-1] == ("commit", {"height": "6"})
        assert server.connections == 1

    play(story)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"code": 0, "log": "", "hash": "AB"}, "ok"),
        ({"code": 1, "log": "bad-prev", "codespace": "careledger"}, "bad-prev"),
        ({"code": -32603, "message": "Internal error", "data": "tx already exists in cache"}, "ok"),
    ],
)
def test_a_broadcast_says_what_became_of_it(play: Any, answer: Any, expected: str) -> None:
    async def story(server: Server, rpc: EngineRpc) -> None:
        server.answers["broadcast_tx_sync"] = answer
        assert (await rpc.broadcast(b"\x00bytes")).code == expected
        assert b64decode(server.asked[0][1]["tx"]) == b"\x00bytes"

    play(story)


@pytest.mark.parametrize(
    ("data", "code", "kind"),
    [
        ("mempool is full: number of txs 20000 (max: 20000)", "mempool-full", UnavailableError),
        ("Tx too large. Max size is 65536,\nbut got 70000", "engine-refused", RpcRefusedError),
    ],
)
def test_what_cometbft_refuses_is_one_line_with_a_code(play: Any, data: str, code: str, kind: type[Exception]) -> None:
    async def story(server: Server, rpc: EngineRpc) -> None:
        server.answers["broadcast_tx_sync"] = {"code": -32603, "message": "Internal error", "data": data}
        with pytest.raises(kind) as caught:
            await rpc.broadcast(b"tx")
        assert isinstance(caught.value, UnavailableError)
        assert caught.value.code == code

    play(story)


def test_all_pages_of_validators_are_read_at_one_height(play: Any) -> None:
    async def story(server: Server, rpc: EngineRpc) -> None:
        everyone = [{"address": str(number)} for number in range(230)]

        def page(params: dict[str, Any]) -> Any:
            start = (int(params["page"]) - 1) * int(params["per_page"])
            return {"block_height": "9", "total": "230", "validators": everyone[start : start + 100]}

        server.answers["validators"] = page
        assert await rpc.validators() == everyone
        assert [call[1].get("height") for call in server.asked] == [None, "9", "9"]

    play(story)


def test_a_connection_that_was_closed_while_idle_is_replaced(play: Any) -> None:
    async def story(server: Server, rpc: EngineRpc) -> None:
        server.close_after = 1
        server.answers["net_info"] = {"n_peers": "1"}
        for _ in range(3):
            assert await rpc.peers() == 1
        assert server.connections == 3

    play(story)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhtml",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    ],
)
def test_answers_without_form_are_refused(play: Any, raw: bytes) -> None:
    async def story(server: Server, rpc: EngineRpc) -> None:
        server.answers["net_info"] = raw
        with pytest.raises(UnavailableError) as caught:
            await rpc.peers()
        assert caught.value.code == "engine-answer"

    play(story)


def test_no_answer_and_no_server_are_said(play: Any, tmp_path: Path) -> None:
    async def story(server: Server, rpc: EngineRpc) -> None:
        server.answers["net_info"] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nxx"
        with pytest.raises(UnavailableError, match="in time") as caught:
            await rpc.peers()
        assert caught.value.code == "engine-unreachable"
        with pytest.raises(UnavailableError, match="can't be reached") as caught:
            await EngineRpc(tmp_path / "nobody.sock").peers()
        assert caught.value.code == "engine-unreachable"

    play(story)


def test_an_answer_longer_than_allowed_is_refused(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_module, "ANSWER_BYTES_MAX", 50)

    async def story(server: Server, rpc: EngineRpc) -> None:
        for server.chunked in (False, True):
            server.answers["net_info"] = {"n_peers": "1", "more": "x" * 100}
            with pytest.raises(UnavailableError):
                await rpc.peers()

    play(story)
