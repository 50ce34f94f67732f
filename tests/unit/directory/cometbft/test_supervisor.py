"""The supervisor: every end is answered, nobody hangs, and what is wrong is said with what to do."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from careledger.directory.engines.cometbft import child
from careledger.directory.engines.cometbft.logs import Problem
from careledger.directory.engines.cometbft.restarts import Restarts
from careledger.directory.engines.cometbft.supervisor import Supervisor
from careledger.errors import Error, UnavailableError, VerificationError

virtual = importlib.import_module("careledger_virtual")


class Rig:
    """A supervisor over pretended processes."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.spawner = virtual.Spawner()
        self.prepared = 0
        self.unprepared: Error | None = None
        self.rpc_socket = home / "rpc.sock"
        self.supervisor = Supervisor(
            Path("/engine"), home, rpc_socket=self.rpc_socket, prepare=self.prepare, spawn=self.spawner
        )
        self.task = asyncio.get_running_loop().create_task(self.supervisor.run())

    def prepare(self) -> None:
        self.prepared += 1
        if self.unprepared is not None:
            raise self.unprepared

    async def stop(self) -> None:
        await self.supervisor.stop()
        await self.task


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Callable[[Rig], Coroutine[Any, Any, None]]], None]:
    def run(story: Callable[[Rig], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            await story(Rig(tmp_path))

        virtual.play(whole())

    return run


def test_it_writes_the_folder_and_removes_the_stale_socket_before_each_start(play: Any) -> None:
    async def story(rig: Rig) -> None:
        rig.rpc_socket.write_bytes(b"")
        process = await rig.spawner.nth(1)
        assert (rig.prepared, rig.rpc_socket.exists()) == (1, False)
        assert (rig.home / "cometbft.pid").read_text() == f"{process.pid}\n"
        assert rig.supervisor.pid == process.pid
        await rig.stop()
        assert process.signals == ["TERM"]
        assert not (rig.home / "cometbft.pid").exists()
        assert rig.supervisor.pid is None

    play(story)


def test_exit_code_zero_is_started_again_at_once_and_others_ever_later(play: Any) -> None:
    async def story(rig: Rig) -> None:
        codes = [0, 1, 1, 2, 1, 1, 1, 1]
        for number, code in enumerate(codes, 1):
            process = await rig.spawner.nth(number)
            process.end(code)
        await rig.spawner.nth(len(codes) + 1)
        times = rig.spawner.times
        assert [later - before for before, later in pairwise(times)] == [0, 2, 4, 8, 16, 30, 30, 30]
        assert rig.supervisor.restarts == len(codes)
        await rig.stop()

    play(story)


def test_an_engine_that_exits_with_zero_again_and_again_is_not_started_in_a_tight_loop(play: Any) -> None:
    async def story(rig: Rig) -> None:
        for number in range(1, 5):
            (await rig.spawner.nth(number)).end(0)
        await rig.spawner.nth(5)
        assert rig.spawner.times == [0, 0, 2, 6, 14]
        await rig.stop()

    play(story)


def test_three_equal_ends_without_a_block_are_degraded_and_a_block_heals_that(play: Any) -> None:
    async def story(rig: Rig) -> None:
        for number in range(1, 4):
            assert rig.supervisor.problem is None
            process = await rig.spawner.nth(number)
            process.say("ERROR: failed to create node: app block height (83) is higher than core (68)", error=True)
            await asyncio.sleep(0.1)
            process.end(1)
        await rig.spawner.nth(4)
        assert rig.supervisor.problem is not None
        assert rig.supervisor.problem.code == "engine-behind-directory"
        assert "priv_validator_state.json" in rig.supervisor.problem.message
        rig.supervisor.progressed()
        assert rig.supervisor.problem is None
        process = await rig.spawner.nth(4)
        process.end(0)
        await rig.spawner.nth(5)
        assert rig.spawner.times[4] == rig.spawner.times[3]
        await rig.stop()

    play(story)


def test_an_engine_that_ignores_the_order_to_stop_is_killed(play: Any) -> None:
    async def story(rig: Rig) -> None:
        rig.spawner.deaf = True
        process = await rig.spawner.nth(1)
        await rig.stop()
        assert process.signals == ["TERM", "KILL"]
        assert virtual.now() == pytest.approx(5.0)

    play(story)


def test_an_engine_that_hangs_when_its_connections_are_gone_is_killed_and_started_again(play: Any) -> None:
    async def story(rig: Rig) -> None:
        process = await rig.spawner.nth(1)
        rig.supervisor.lost()
        rig.supervisor.lost()
        await rig.spawner.nth(2)
        assert process.signals == ["KILL"]
        assert rig.spawner.times[1] == pytest.approx(2.0 + 1.0)
        await rig.stop()

    play(story)


def test_an_engine_that_ends_by_itself_when_its_connections_are_gone_is_not_killed(play: Any) -> None:
    async def story(rig: Rig) -> None:
        process = await rig.spawner.nth(1)
        rig.supervisor.lost()
        await asyncio.sleep(0.04)
        process.end(0)
        second = await rig.spawner.nth(2)
        assert process.signals == []
        await asyncio.sleep(10)
        assert second.signals == []
        await rig.stop()

    play(story)


def test_a_fault_of_the_application_ends_the_engine_for_good(play: Any) -> None:
    async def story(rig: Rig) -> None:
        process = await rig.spawner.nth(1)
        rig.supervisor.failed(VerificationError("store-changed", "the file was put back: restart the node"))
        await rig.task
        assert process.signals == ["KILL"]
        assert len(rig.spawner.started) == 1
        assert rig.supervisor.problem == Problem("store-changed", "the file was put back: restart the node")

    play(story)


def test_a_full_disk_is_tried_again(play: Any) -> None:
    async def story(rig: Rig) -> None:
        for number in range(1, 4):
            await rig.spawner.nth(number)
            rig.supervisor.failed(UnavailableError("store-failed", "the disk is full"))
        await rig.spawner.nth(4)
        assert rig.supervisor.problem is not None
        assert rig.supervisor.problem.code == "store-failed"
        await rig.stop()

    play(story)


def test_a_folder_that_cannot_be_prepared_and_a_missing_engine_are_said(play: Any) -> None:
    async def story(rig: Rig) -> None:
        rig.unprepared = UnavailableError("validator-state-lost", "make a new key")
        await asyncio.sleep(8)
        assert rig.supervisor.problem == Problem("validator-state-lost", "make a new key")
        assert rig.spawner.started == []
        rig.unprepared, rig.spawner.missing = None, True
        await asyncio.sleep(100)
        assert rig.supervisor.problem is not None
        assert rig.supervisor.problem.code == "engine-missing"
        assert "careledger engine install" in rig.supervisor.problem.message
        rig.spawner.missing = False
        await rig.spawner.nth(1)
        await rig.stop()

    play(story)


def test_a_stop_while_waiting_to_start_again_does_not_wait(play: Any) -> None:
    async def story(rig: Rig) -> None:
        for number in range(1, 7):
            (await rig.spawner.nth(number)).end(2)
        await asyncio.sleep(1)
        at = virtual.now()
        await rig.stop()
        assert virtual.now() == at
        assert len(rig.spawner.started) == 6

    play(story)


def test_everything_that_is_written_is_read(play: Any) -> None:
    async def story(rig: Rig) -> None:
        process = await rig.spawner.nth(1)
        for number in range(2000):
            process.say(f'{{"level":"info","_msg":"block {number}"}}')
        process.say("x" * (1 << 17))
        process.say("panic: goodbye", error=True)
        await asyncio.sleep(1)
        assert rig.supervisor.log is not None
        assert rig.supervisor.log.problem is not None
        assert rig.supervisor.log.problem.code == "engine-panicked"
        assert len(rig.supervisor.log.lines) == 200
        await rig.stop()

    play(story)


def test_delays_are_bounded_whatever_happens() -> None:
    restarts = Restarts()
    assert max(restarts.ended(1, None) for _ in range(5000)) == 30.0
    assert restarts.degraded is not None


SLEEPER = "import sys, time; print('up', flush=True); time.sleep(60)"


def _sleeper(*arguments: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", SLEEPER, *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return process


def test_an_engine_left_by_a_dead_node_is_ended_and_nobody_else(tmp_path: Path) -> None:
    pid_file = tmp_path / "cometbft.pid"
    assert not child.end_stale(pid_file, tmp_path)
    pid_file.write_text("not a number")
    assert not child.end_stale(pid_file, tmp_path)
    other = _sleeper("node", "--home", str(tmp_path / "elsewhere"))
    stale = _sleeper("node", "--home", str(tmp_path))
    try:
        pid_file.write_text(str(other.pid))
        assert not child.end_stale(pid_file, tmp_path)
        pid_file.write_text(str(stale.pid))
        assert child.end_stale(pid_file, tmp_path)
        assert stale.wait(5) == -signal.SIGKILL
        assert other.poll() is None
        assert not child.end_stale(pid_file, tmp_path)
    finally:
        other.kill()
        other.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_the_engine_dies_with_its_node(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    engine.chmod(0o755)
    parent = (
        "import asyncio, os, sys\nfrom pathlib import Path\n"
        "from careledger.directory.engines.cometbft.child import spawn\n"
        "async def main():\n"
        "    process = await spawn(Path(sys.argv[1]), Path('/nowhere'))\n"
        "    print(process.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    node = subprocess.Popen([sys.executable, "-c", parent, str(engine)], stdout=subprocess.PIPE)
    assert node.stdout is not None
    pid = int(node.stdout.readline())
    os.kill(pid, 0)
    node.kill()
    node.wait()
    node.stdout.close()
    for _ in range(500):
        if not child._is_alive(pid):
            break
        time.sleep(0.01)
    assert not child._is_alive(pid)
