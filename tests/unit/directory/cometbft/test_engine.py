"""The engine put together, over a process that only pretends: what a node sees of it."""

from __future__ import annotations

import asyncio
import importlib
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from careledger.directory.engines.cometbft import CometbftEngine, EngineKeys, EngineSettings
from careledger.directory.engines.cometbft import messages as abci
from careledger.directory.engines.cometbft.outbox import Outbox
from careledger.directory.engines.cometbft.wire import decode, encode, frame
from careledger.errors import UnavailableError
from careledger.seal import encode as canonical

virtual = importlib.import_module("careledger_virtual")


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
        await asyncio.sleep(0.01)


class Rig:
    """An engine in real time (its sockets are real), and CometBFT's side of the consensus connection."""

    def __init__(self, world: Any, folder: Path, sockets: Path) -> None:
        self.world, self.spawner = world, virtual.Spawner()
        self.commits: list[int] = []
        self.sockets = sockets
        self.engine = CometbftEngine(
            folder,
            genesis=world.genesis,
            node=world.parties[0].node,
            keys=EngineKeys(world.parties[0].consensus_seed, bytes(32)),
            settings=EngineSettings(moniker="n", listen="127.0.0.1:26656"),
            binary=Path("/engine"),
            sockets=sockets,
            on_commit=lambda: self.commits.append(self.engine.height),
            spawn=self.spawner,
        )

    async def connect(self) -> None:
        self.reader, self.writer = await asyncio.open_unix_connection(str(self.sockets / "abci.sock"))

    async def call(self, **call: Any) -> abci.Response:
        self.writer.write(frame(encode(abci.Request(**call))))
        size, shift = 0, 0
        while True:
            byte = (await self.reader.readexactly(1))[0]
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return decode(await self.reader.readexactly(size), abci.Response)

    async def block(self, *envelopes: Any) -> None:
        self.world.now_ms += 1000
        time = abci.Timestamp(self.world.now_ms // 1000, 0)
        txs = tuple(canonical(one) for one in envelopes)
        await self.call(finalize_block=abci.FinalizeBlockRequest(txs, height=self.engine.height + 1, time=time))
        await self.call(commit=abci.Empty())


@pytest.fixture
def play(make_world: Callable[..., Any], tmp_path: Path) -> Iterator[Callable[..., None]]:
    with tempfile.TemporaryDirectory(prefix="cl-") as short:

        def run(story: Callable[[Rig], Coroutine[Any, Any, None]]) -> None:
            async def whole() -> None:
                rig = Rig(make_world(validates=True), tmp_path / "engine", Path(short) / "run")
                async with asyncio.timeout(20):
                    await story(rig)

            asyncio.run(whole())

        yield run


def test_a_submission_is_answered_by_the_own_commit_and_the_directory_has_moved_on(play: Any) -> None:
    async def story(rig: Rig) -> None:
        engine = rig.engine
        assert engine.health().state == "stopped"
        await engine.start()
        await rig.spawner.nth(1)
        await rig.connect()
        assert (await rig.call(info=abci.InfoRequest())).info is not None
        person = rig.world.person()
        envelope = rig.world.enrol(person)
        waiting = asyncio.ensure_future(engine.submit([envelope]))
        await until(lambda: len(engine.outbox) > 0)
        await rig.block(envelope)
        assert [(result.code, result.height) for result in await waiting] == [("ok", 1)]
        assert rig.commits == [1]
        assert engine.directory.identity(person.token) is not None
        assert engine.operations(person.token) == [person.envelope]
        assert engine.block(1) is not None
        health = engine.health()
        assert (health.state, health.height, health.outbox, health.pid) == ("starting", 1, 0, 100)
        rig.writer.close()
        await engine.stop()
        assert engine.health().state == "stopped"

    play(story)


def test_the_folder_names_the_other_members_nodes_as_peers(play: Any, tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        await rig.engine.start()
        await rig.spawner.nth(1)
        await rig.engine.stop()

    play(story)
    config = (tmp_path / "engine" / "home" / "config" / "config.toml").read_text()
    assert f"{3:040x}@127.0.0.1:26656" in config
    assert f"{0:040x}@" not in config


def test_a_failing_application_is_failed_and_says_why(play: Any) -> None:
    async def story(rig: Rig) -> None:
        await rig.engine.start()
        process = await rig.spawner.nth(1)
        await rig.connect()
        response = await rig.call(
            finalize_block=abci.FinalizeBlockRequest(height=7, time=abci.Timestamp(rig.world.now_ms // 1000, 0))
        )
        assert response.exception is not None
        process.end(0)
        await until(lambda: rig.engine.health().state == "failed")
        assert rig.engine.health().code == "bad-height"
        assert len(rig.spawner.started) == 1
        rig.writer.close()
        await rig.engine.stop()

    play(story)


def test_a_duty_that_fails_is_not_silent(
    play: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_self: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(Outbox, "run", broken)

    async def story(rig: Rig) -> None:
        await rig.engine.start()
        await until(lambda: rig.engine.health().state == "failed")
        assert rig.engine.health().code == "application-failed"
        await rig.engine.stop()

    play(story)
    assert "duty-failed" in caplog.text


def test_connections_that_are_gone_start_it_again(play: Any) -> None:
    async def story(rig: Rig) -> None:
        await rig.engine.start()
        first = await rig.spawner.nth(1)
        await rig.connect()
        await rig.call(info=abci.InfoRequest())
        rig.writer.close()
        await asyncio.sleep(0.05)
        first.end(0)
        second = await rig.spawner.nth(2)
        assert rig.engine.health().restarts == 1
        assert rig.engine.health().pid == second.pid
        await rig.engine.stop()
        assert second.signals == ["TERM"]

    play(story)


def test_what_waits_is_told_when_the_node_stops_and_is_still_there_afterwards(play: Any) -> None:
    envelopes: list[Any] = []

    async def story(rig: Rig) -> None:
        await rig.engine.start()
        await rig.spawner.nth(1)
        envelopes.append(rig.world.enrol(rig.world.person()))
        waiting = asyncio.ensure_future(rig.engine.submit(envelopes))
        await until(lambda: len(rig.engine.outbox) > 0)
        await rig.engine.stop()
        with pytest.raises(UnavailableError) as caught:
            await waiting
        assert caught.value.code == "stopping"

    async def later(rig: Rig) -> None:
        assert len(rig.engine.outbox) == 1
        rig.engine.close()

    play(story)
    play(later)


def test_an_outbox_that_does_not_open_leaves_nothing_open(play: Any, tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "outbox.db").write_bytes(b"not a database, but long enough to be read as one" * 100)

    async def story(_rig: Rig) -> None:
        raise AssertionError("it opened")

    with pytest.raises(UnavailableError) as caught:
        play(story)
    assert caught.value.code == "store-failed"
