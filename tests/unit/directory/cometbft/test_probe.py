"""The probe: silence of CometBFT, and of the network, is noticed by somebody who waits for neither."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from careledger.directory.engines.cometbft.logs import Problem
from careledger.directory.engines.cometbft.probe import HUNG_S, STALLED_S, Probe
from careledger.directory.engines.cometbft.rpc import EngineRpc, EngineStatus
from careledger.errors import UnavailableError

virtual = importlib.import_module("careledger_virtual")


class Rig:
    """A probe over an RPC that answers what a test says."""

    def __init__(self) -> None:
        self.up, self.running, self.catching_up = True, True, False
        self.height, self.calls, self.waiting, self.in_mempool = 1, 0, 0, 0
        self.hung: list[Problem] = []
        self.probe = Probe(
            cast(EngineRpc, self),
            height=lambda: self.height,
            calls=lambda: self.calls,
            waiting=lambda: self.waiting,
            running=lambda: self.running,
            on_hung=self.hung.append,
        )

    async def status(self) -> EngineStatus:
        if not self.up:
            raise UnavailableError("engine-unreachable", "no answer")
        return EngineStatus(self.height, b"", self.catching_up)

    async def peers(self) -> int:
        return 3

    async def pending(self) -> int:
        return self.in_mempool


@pytest.fixture
def play() -> Callable[[Callable[[Rig], Coroutine[Any, Any, None]]], None]:
    def run(story: Callable[[Rig], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            rig = Rig()
            duty = asyncio.get_running_loop().create_task(rig.probe.run())
            await story(rig)
            duty.cancel()

        virtual.play(whole())

    return run


def test_an_idle_network_is_well(play: Any) -> None:
    async def story(rig: Rig) -> None:
        await asyncio.sleep(600)
        assert rig.probe.problem is None
        assert rig.probe.settled
        assert rig.probe.peers == 3

    play(story)


def test_an_engine_that_answers_nothing_and_calls_nothing_is_ended(play: Any) -> None:
    async def story(rig: Rig) -> None:
        await asyncio.sleep(5)
        rig.up = False
        await asyncio.sleep(HUNG_S - 3)
        assert rig.hung == []
        await asyncio.sleep(6)
        assert [problem.code for problem in rig.hung] == ["engine-hung"]
        assert not rig.probe.settled

    play(story)


def test_an_engine_that_replays_its_blocks_answers_nothing_and_is_left_alone(play: Any) -> None:
    async def story(rig: Rig) -> None:
        rig.up = False
        for _ in range(100):
            rig.calls += 1
            await asyncio.sleep(5)
        assert rig.hung == []

    play(story)


def test_an_engine_that_is_down_is_nobodys_hang(play: Any) -> None:
    async def story(rig: Rig) -> None:
        rig.running = rig.up = False
        await asyncio.sleep(600)
        assert rig.hung == []
        assert rig.probe.problem is None

    play(story)


@pytest.mark.parametrize("where", ["waiting", "in_mempool"])
def test_transactions_that_no_block_takes_are_said_with_what_is_needed(play: Any, where: str) -> None:
    async def story(rig: Rig) -> None:
        setattr(rig, where, 4)
        await asyncio.sleep(STALLED_S - 3)
        assert rig.probe.problem is None
        await asyncio.sleep(6)
        assert rig.probe.problem is not None
        assert rig.probe.problem.code == "directory-waits"
        assert "3 peers" in rig.probe.problem.message
        rig.height += 1
        await asyncio.sleep(3)
        assert rig.probe.problem is None

    play(story)


def test_catching_up_is_not_settled(play: Any) -> None:
    async def story(rig: Rig) -> None:
        rig.catching_up = True
        await asyncio.sleep(5)
        assert not rig.probe.settled

    play(story)
