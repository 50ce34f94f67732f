"""An event loop whose clock jumps to whatever is waited for next, and processes that only pretend."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

T0 = 1000.0


class _Jumping(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Never waits: time passes instead."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self.passed += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return T0 + self._jumping.passed


def play(story: Coroutine[Any, Any, Any]) -> Any:
    """Run a story in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story)


def now() -> float:
    return asyncio.get_running_loop().time() - T0


class FakeProcess:
    """A CometBFT that does as told. `deaf`: SIGTERM doesn't end it."""

    def __init__(self, pid: int, *, deaf: bool = False) -> None:
        self._pid = pid
        self.deaf = deaf
        self.stdout: asyncio.StreamReader | None = asyncio.StreamReader()
        self.stderr: asyncio.StreamReader | None = asyncio.StreamReader()
        self.signals: list[str] = []
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def pid(self) -> int:
        return self._pid

    def say(self, line: str, *, error: bool = False) -> None:
        pipe = self.stderr if error else self.stdout
        assert pipe is not None
        pipe.feed_data(line.encode() + b"\n")

    def end(self, code: int) -> None:
        for pipe in (self.stdout, self.stderr):
            assert pipe is not None
            pipe.feed_eof()
        self._code.set_result(code)

    def terminate(self) -> None:
        self.signals.append("TERM")
        if not self.deaf and not self._code.done():
            self.end(0)

    def kill(self) -> None:
        self.signals.append("KILL")
        if not self._code.done():
            self.end(-9)

    async def wait(self) -> int:
        return await asyncio.shield(self._code)


class Spawner:
    """Starts fake processes, and remembers when."""

    def __init__(self) -> None:
        self.started: list[tuple[float, FakeProcess]] = []
        self.deaf = False
        self.missing = False
        self._news = asyncio.Event()

    async def __call__(self, _binary: Path, _home: Path) -> FakeProcess:
        if self.missing:
            raise FileNotFoundError(2, "No such file or directory")
        process = FakeProcess(100 + len(self.started), deaf=self.deaf)
        self.started.append((now(), process))
        self._news.set()
        self._news = asyncio.Event()
        return process

    async def nth(self, count: int) -> FakeProcess:
        """The process of the start with this number, once it was started."""
        while len(self.started) < count:
            await self._news.wait()
        await asyncio.sleep(0)
        return self.started[count - 1][1]

    @property
    def times(self) -> list[float]:
        return [round(at, 3) for at, _ in self.started]
