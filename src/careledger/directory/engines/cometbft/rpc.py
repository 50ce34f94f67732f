"""CometBFT's JSON-RPC over its Unix socket: the seven calls that a node needs, and no others.

Its own HTTP rather than careledger.transport's, because CometBFT answers in chunks; as small, and as bounded.
Source: CometBFT v0.38 rpc/openapi/openapi.yaml; RFC 9112 section 7.1 (chunked).
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from careledger.directory.transactions import TxResult
from careledger.errors import UnavailableError

__all__ = ["EngineRpc", "EngineStatus", "RpcRefusedError"]

ANSWER_BYTES_MAX: Final = 16 << 20
"""A block of 4 MiB in base64 and JSON."""
_HEAD_BYTES_MAX: Final = 16 << 10
_IDLE_MAX: Final = 8
_PER_PAGE: Final = 100
"""CometBFT's most, and 30 when not asked."""

_IN_CACHE: Final = "tx already exists in cache"
_MEMPOOL_FULL: Final = "mempool is full"

T = TypeVar("T")


class RpcRefusedError(UnavailableError):
    """CometBFT answered a call with an error; `details` has its text."""


class _Failure(msgspec.Struct, frozen=True):
    message: str = ""
    data: str = ""


class _Answer(msgspec.Struct, frozen=True):
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _Failure | None = None


class _Broadcast(msgspec.Struct, frozen=True):
    code: int
    log: str = ""


class _Sync(msgspec.Struct, frozen=True):
    latest_block_height: str
    latest_app_hash: str
    catching_up: bool


class _Status(msgspec.Struct, frozen=True):
    sync_info: _Sync


class _Peers(msgspec.Struct, frozen=True):
    n_peers: str


class _Pending(msgspec.Struct, frozen=True):
    total: str


class _Validators(msgspec.Struct, frozen=True):
    block_height: str
    total: str
    validators: list[dict[str, Any]] = []


class EngineStatus(msgspec.Struct, frozen=True):
    """Where CometBFT stands: `app_hash` is that of the block before `height`, as in its header."""

    height: int
    app_hash: bytes
    catching_up: bool


class EngineRpc:
    """Calls over the socket at `path`. Every one raises UnavailableError `engine-unreachable`, `engine-answer`."""

    def __init__(self, path: Path, *, timeout_s: float = 5.0) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def broadcast(self, data: bytes) -> TxResult:
        """Hand a transaction to the mempool. `ok` promises nothing: the mempool is memory (broadcast_tx_sync).

        A transaction that is there already is `ok`; a refusal by CheckTx has its reason code.
        Raises UnavailableError `mempool-full`, RpcRefusedError `engine-refused`.
        """
        try:
            answer = await self._call("broadcast_tx_sync", _Broadcast, tx=b64encode(data).decode())
        except RpcRefusedError as refused:
            text = str(refused.details["data"])
            if _IN_CACHE in text:
                return TxResult("ok", "known already")
            if _MEMPOOL_FULL in text:
                raise UnavailableError(
                    "mempool-full", "too many transactions wait to be ordered: try again in some seconds"
                ) from None
            raise
        return TxResult("ok", "accepted") if answer.code == 0 else TxResult(answer.log or "refused", "refused")

    async def status(self) -> EngineStatus:
        """Height, app hash, and whether it is still catching up."""
        found = (await self._call("status", _Status)).sync_info
        return EngineStatus(int(found.latest_block_height), bytes.fromhex(found.latest_app_hash), found.catching_up)

    async def peers(self) -> int:
        """How many peers are connected (net_info)."""
        return int((await self._call("net_info", _Peers)).n_peers)

    async def pending(self) -> int:
        """How many transactions wait in the mempool (num_unconfirmed_txs)."""
        return int((await self._call("num_unconfirmed_txs", _Pending)).total)

    async def commit(self, height: int | None = None) -> dict[str, Any]:
        """Header and signatures of a height, the newest when not given; as CometBFT's JSON."""
        return await self._at("commit", height)

    async def block(self, height: int | None = None) -> dict[str, Any]:
        """A block with the transactions that CometBFT ordered, refused ones too; as CometBFT's JSON."""
        return await self._at("block", height)

    async def validators(self, height: int | None = None) -> list[dict[str, Any]]:
        """All validators of a height, whatever their number; as CometBFT's JSON, in its order."""
        found: list[dict[str, Any]] = []
        at = {} if height is None else {"height": str(height)}
        while True:
            number = str(len(found) // _PER_PAGE + 1)
            page = await self._call("validators", _Validators, page=number, per_page=str(_PER_PAGE), **at)
            found += page.validators
            if len(found) >= int(page.total) or not page.validators:
                return found
            at = {"height": page.block_height}

    async def _at(self, method: str, height: int | None) -> dict[str, Any]:
        found: dict[str, Any] = await self._call(
            method, dict[str, Any], **({} if height is None else {"height": str(height)})
        )
        return found

    async def _call(self, method: str, kind: type[T], **params: str) -> T:
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        data = await self._post(body)
        try:
            answer = msgspec.json.decode(data, type=_Answer)
            if answer.error is None:
                return msgspec.json.decode(answer.result, type=kind)
        except (msgspec.DecodeError, RecursionError, ValueError):
            raise UnavailableError("engine-answer", f"CometBFT answered {method} with something else") from None
        text = (answer.error.data or answer.error.message).replace("\n", " ")[:200]
        raise RpcRefusedError("engine-refused", f"CometBFT refused {method}: {text}", details={"data": text})

    async def _post(self, body: bytes) -> bytes:
        head = (
            f"POST / HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        message = head.encode("ascii") + body
        try:
            async with asyncio.timeout(self._timeout_s):
                while self._idle:
                    try:
                        return await self._exchange(*self._idle.pop(), message)
                    except (ConnectionError, asyncio.IncompleteReadError):
                        continue  # it was closed while idle; every call here may be repeated
                return await self._exchange(*await self._connect(), message)
        except TimeoutError:
            raise UnavailableError("engine-unreachable", "CometBFT did not answer in time; it may be busy") from None
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            what = type(error).__name__
            raise UnavailableError("engine-unreachable", f"CometBFT's socket can't be reached ({what})") from None
        except ValueError:
            raise UnavailableError("engine-answer", "CometBFT's answer is not the HTTP that it should be") from None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self._path), limit=1 << 20)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes) -> bytes:
        done = False
        try:
            writer.write(message)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            if len(head) > _HEAD_BYTES_MAX:
                raise ValueError("the head is too long")
            pairs = (line.partition(":") for line in head.split("\r\n")[1:])
            headers = {name.strip(): value.strip() for name, _, value in pairs}
            if headers.get("transfer-encoding") == "chunked":
                body = await _read_chunks(reader)
            else:
                body = await _read_sized(reader, int(headers.get("content-length", "-1")))
            done = headers.get("connection") != "close"
            return body
        finally:
            if done and len(self._idle) < _IDLE_MAX:
                self._idle.append((reader, writer))
            else:
                writer.close()

    async def close(self) -> None:
        """Close every idle connection."""
        while self._idle:
            self._idle.pop()[1].close()


async def _read_sized(reader: asyncio.StreamReader, size: int) -> bytes:
    if not 0 <= size <= ANSWER_BYTES_MAX:
        raise ValueError("an answer without a length, or too long")
    return await reader.readexactly(size)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        size = int((await reader.readuntil(b"\r\n")).partition(b";")[0].strip(), 16)
        if not 0 <= size <= ANSWER_BYTES_MAX - len(body):
            raise ValueError("the answer is too long")
        body += await reader.readexactly(size)
        await reader.readexactly(2)  # no trailers: Go's server sends none unless it announced them
        if size == 0:
            return bytes(body)
