"""The ABCI server: CometBFT's four connections over a Unix socket, each a row of length-prefixed requests.

A request is answered before the next of its connection is read. What goes wrong while answering is answered by an
exception, ends every connection, and is told to the owner: CometBFT then ends itself, and must not be started again
before somebody has looked. CometBFT waits for an answer without a limit of its own.
Source: CometBFT v0.38 spec/abci/abci++_client_server.md; abci/server/socket_server.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from careledger.directory.engines.cometbft.messages import ExceptionResponse, Request, Response
from careledger.directory.engines.cometbft.wire import decode, encode, frame
from careledger.errors import Error, MalformedError, UnavailableError

__all__ = ["CONNECTIONS_MAX", "REQUEST_BYTES_MAX", "SOCKET_PATH_MAX", "AbciServer"]

REQUEST_BYTES_MAX: Final = 8 << 20
"""FinalizeBlock carries a block of 4 MiB and the votes on it; InitChain a genesis of 1 MiB as text."""

CONNECTIONS_MAX: Final = 8
"""CometBFT opens four: consensus, mempool, query, snapshot. A restarted one may overlap with its predecessor's."""

SOCKET_PATH_MAX: Final = 107
"""Bytes of a Unix socket's path on Linux, sockaddr_un.sun_path less its final zero."""

_LENGTH_BYTES_MAX: Final = 5

_log: Final = logging.getLogger("careledger.directory.cometbft")


class AbciServer:
    """Serves `answer` on the socket at `path`.

    `on_fault` is called once with what went wrong while answering, `on_lost` whenever a connection ended otherwise.
    """

    def __init__(
        self,
        path: Path,
        answer: Callable[[Request], Response],
        *,
        on_fault: Callable[[Error], None] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self._path = path
        self._answer = answer
        self._on_fault = on_fault
        self._on_lost = on_lost
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self.fault: Error | None = None
        """What ended the connections; nothing is answered any more."""
        self.answered = 0
        """Requests, since the start: it grows while CometBFT lives and works."""

    @property
    def connections(self) -> int:
        """How many are open: 4 while CometBFT runs."""
        return len(self._writers)

    async def start(self) -> None:
        """Bind the socket, in place of one that a dead process left. Raises UnavailableError `bad-socket-path`."""
        _check_path(self._path)
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._connected, path=str(self._path), limit=1 << 20)
        self._path.chmod(0o600)

    async def close(self) -> None:
        """End every connection and remove the socket."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            self._drop()
            await asyncio.gather(*self._serving, return_exceptions=True)
            await server.wait_closed()
        self._path.unlink(missing_ok=True)

    def _drop(self) -> None:
        for writer in self._writers:
            writer.close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if len(self._writers) < CONNECTIONS_MAX:
                self._writers.add(writer)
                await self._answer_all(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while self.fault is None:
                request = decode(await _read_frame(reader), Request)
                writer.write(frame(encode(self._answer(request))))
                self.answered += 1
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            if self._on_lost is not None and self._server is not None and self.fault is None:
                self._on_lost()
        except Error as error:
            await self._fail(error, writer)
        except Exception as bug:
            _log.error("application-failed", exc_info=bug)
            await self._fail(_of_bug(bug), writer)

    async def _fail(self, error: Error, writer: asyncio.StreamWriter) -> None:
        first, self.fault = self.fault is None, self.fault or error
        _log.error("abci-fault", extra={"fields": {"problem": error.code, "why": error.message}})
        try:
            writer.write(frame(encode(Response(exception=ExceptionResponse(str(error))))))
            await writer.drain()
        except ConnectionError:
            pass
        self._drop()
        if first and self._on_fault is not None:
            self._on_fault(error)

    def forgive(self) -> None:
        """Answer again: whatever was wrong has been looked at."""
        self.fault = None


def _check_path(path: Path) -> None:
    """Raises UnavailableError `bad-socket-path`: the operating system takes no path of that length."""
    if len(str(path).encode()) > SOCKET_PATH_MAX:
        raise UnavailableError(
            "bad-socket-path",
            f"{path} is longer than the {SOCKET_PATH_MAX} bytes that a Unix socket's path may have: use another",
        )


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    """The next request's bytes. Raises MalformedError `bad-frame`, `too-large`; IncompleteReadError at the end."""
    size = 0
    for index in range(_LENGTH_BYTES_MAX):
        byte = (await reader.readexactly(1))[0]
        size |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            break
    else:
        raise MalformedError("bad-frame", "the length before an ABCI request has more than five bytes")
    if size > REQUEST_BYTES_MAX:
        raise MalformedError("too-large", f"an ABCI request has {size} bytes, more than {REQUEST_BYTES_MAX}")
    return await reader.readexactly(size)


def _of_bug(bug: Exception) -> Error:
    """What the owner is told of a bug; the log has its trace."""
    return Error(
        "application-failed",
        f"the directory's application failed ({type(bug).__name__}): its log says where; report it, restart the node",
    )
