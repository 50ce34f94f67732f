"""The node owns its CometBFT: writes its folder, starts it, watches, restarts and stops it, and says how it is.

Two habits of CometBFT shape this: it exits with code 0 when the application's socket closes, and once in a while it
hangs in its shutdown for ever, holding its database, so that no other can start. So every end is one to restart from,
and whoever doesn't end in the grace time is killed, which harmed nothing in any test.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

from careledger.directory.engines.cometbft import child
from careledger.directory.engines.cometbft.logs import EngineLog, Problem
from careledger.directory.engines.cometbft.restarts import Restarts
from careledger.errors import Error, UnavailableError

__all__ = ["STOP_GRACE_S", "Process", "Supervisor"]

STOP_GRACE_S: Final = 5.0
"""For an ordered stop; it takes 0.03 s."""
LOST_GRACE_S: Final = 2.0
"""For CometBFT to end by itself once the application's connections are gone; it takes 0.04 s."""

_log: Final = logging.getLogger("careledger.directory.cometbft")


class Process(Protocol):
    """What is used of asyncio.subprocess.Process."""

    stdout: asyncio.StreamReader | None
    stderr: asyncio.StreamReader | None

    @property
    def pid(self) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    async def wait(self) -> int: ...


Spawn = Callable[[Path, Path], Awaitable[Process]]


class Supervisor:
    """Runs one CometBFT on `home`. `prepare` is called before each start: it writes the folder."""

    def __init__(
        self, binary: Path, home: Path, *, rpc_socket: Path, prepare: Callable[[], None], spawn: Spawn = child.spawn
    ) -> None:
        self._binary = binary
        self._home = home
        self._rpc_socket = rpc_socket
        self._prepare = prepare
        self._spawn = spawn
        self._stop = asyncio.Event()
        self._process: Process | None = None
        self._escalation: asyncio.Task[None] | None = None
        self._restarts = Restarts()
        self._reason: Problem | None = None
        self.log: EngineLog | None = None
        """Of the current start, or the last one."""
        self.fatal: Problem | None = None
        """The application failed: it isn't started again until the node is."""

    @property
    def pid(self) -> int | None:
        """Of the running CometBFT."""
        return None if self._process is None else self._process.pid

    @property
    def restarts(self) -> int:
        """Ends that nobody asked for."""
        return self._restarts.count

    @property
    def problem(self) -> Problem | None:
        """What is wrong and what to do, once starting it again doesn't help by itself."""
        return self.fatal or self._restarts.degraded

    @property
    def waiting(self) -> Problem | None:
        """Why it ended last, while it is down."""
        return self._reason if self._process is None else None

    def progressed(self) -> None:
        """The application committed a block."""
        self._restarts.progressed()
        self._reason = None

    async def run(self) -> None:
        """Keep CometBFT running until `stop`; returns once it is gone. What is wrong meanwhile is in `problem`."""
        if child.end_stale(self._pid_file, self._home):
            _log.warning("engine-left-over", extra={"fields": {"home": str(self._home)}})
        while not self._stop.is_set() and self.fatal is None:
            delay = await self._run_once()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stop.wait()

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after the grace time; no more starts. `run` returns soon after."""
        self._stop.set()
        if self._process is not None:
            self._process.terminate()
            await self._end_within(self._process, STOP_GRACE_S)

    def lost(self, *, why: Problem | None = None) -> None:
        """The application's connections closed, or CometBFT hangs: it is killed unless it ends by itself at once."""
        process = self._process
        if process is None or self._escalation is not None or self._stop.is_set():
            return
        self._reason = why
        self._escalation = asyncio.get_running_loop().create_task(self._end_within(process, LOST_GRACE_S))

    def failed(self, error: Error) -> None:
        """The application could not answer a call.

        A full disk may heal: then it is started again, later and later. Anything else is a fault to look at first.
        """
        problem = Problem(error.code, error.message)
        if not isinstance(error, UnavailableError):
            self.fatal = problem
        self.lost(why=problem)

    @property
    def _pid_file(self) -> Path:
        return self._home / "cometbft.pid"

    async def _run_once(self) -> float:
        """One start until its end; returns how long to wait before the next."""
        try:
            self._prepare()
            self._rpc_socket.unlink(missing_ok=True)  # CometBFT doesn't, and then can't bind it
            process = await self._spawn(self._binary, self._home)
        except (Error, OSError) as error:
            self._reason = _start_problem(error)
            _log.error("engine-not-started", extra={"fields": {"problem": self._reason.code, "why": str(error)}})
            return self._restarts.ended(1, self._reason)
        loop = asyncio.get_running_loop()
        self.log, self._process, self._reason = EngineLog(clock=loop.time), process, None
        with contextlib.suppress(OSError):  # on a full disk the death signal must do
            self._pid_file.write_text(f"{process.pid}\n", encoding="ascii")
        _log.info("engine-started", extra={"fields": {"pid": process.pid}})
        drains = [loop.create_task(_drain(pipe, self.log)) for pipe in (process.stdout, process.stderr) if pipe]
        try:
            if self._stop.is_set():
                process.terminate()
                await self._end_within(process, STOP_GRACE_S)
            code = await process.wait()
        finally:
            self._process = None
            await self._end_escalation()
            await asyncio.wait(drains, timeout=LOST_GRACE_S)
            for drain in drains:
                drain.cancel()
        self._pid_file.unlink(missing_ok=True)
        return self._ended(code)

    def _ended(self, code: int) -> float:
        assert self.log is not None
        if self._stop.is_set():
            _log.info("engine-stopped", extra={"fields": {"exit": code}})
            return 0.0
        self._reason = self._reason or self.log.problem
        delay = self._restarts.ended(code, self._reason)
        fields: dict[str, object] = {"exit": code, "again_in_s": delay, "last": list(self.log.lines)[-3:]}
        if self._reason is not None:
            fields |= {"problem": self._reason.code, "why": self._reason.message}
        _log.error("engine-ended", extra={"fields": fields})
        return delay

    async def _end_escalation(self) -> None:
        if self._escalation is not None:
            self._escalation.cancel()
            await asyncio.gather(self._escalation, return_exceptions=True)
            self._escalation = None

    async def _end_within(self, process: Process, grace_s: float) -> None:
        try:
            async with asyncio.timeout(grace_s):
                await process.wait()
        except TimeoutError:
            _log.error("engine-killed", extra={"fields": {"pid": process.pid, "after_s": grace_s}})
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _drain(pipe: asyncio.StreamReader, log: EngineLog) -> None:
    """Read to the end, whatever comes: a full pipe would stop CometBFT."""
    while True:
        try:
            line = await pipe.readline()
        except ValueError:  # a line beyond the reader's limit; its rest follows
            continue
        if not line:
            return
        log.take(line)


def _start_problem(error: Error | OSError) -> Problem:
    if isinstance(error, Error):
        return Problem(error.code, error.message)
    return Problem("engine-missing", f"CometBFT can't be started ({error.strerror}): run careledger engine install")
