"""What a real CometBFT does when its files are damaged, and what the node says: one validator is enough for that."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def play(comet_net: Any, tmp_path: Path) -> Callable[..., None]:
    def run(story: Callable[[Any, Any], Coroutine[Any, Any, None]], *, timeout_s: float = 240) -> None:
        async def whole() -> None:
            async with asyncio.timeout(timeout_s), comet_net.running(tmp_path, members=1) as net:
                await net.nodes[0].reached(1)
                await story(net, net.nodes[0])

        asyncio.run(whole())

    return run


async def enrol(net: Any, node: Any, count: int = 1) -> list[str]:
    made = [net.enrolment(0) for _ in range(count)]
    for _, envelope in made:
        assert await node.submit(envelope) == ["ok"]
    return [token for token, _ in made]


def home(node: Any) -> Path:
    return Path(node.facts["folder"]) / "home"


def lose_directory(node: Any) -> None:
    for file in Path(node.facts["folder"]).glob("directory.db*"):
        file.unlink()


async def said(node: Any, code: str) -> str:
    """The message of a node whose engine doesn't run, once it has this code."""
    health = await node.until(lambda health: health["code"] == code, timeout_s=90)
    assert health["state"] in ("restarting", "degraded", "failed")
    message: str = health["message"]
    return message


def test_what_a_restart_gets_over_by_itself(play: Any) -> None:
    async def story(net: Any, node: Any) -> None:
        # A lost directory: CometBFT hands over every block again.
        tokens = await enrol(net, node, 3)
        hashes = (await node.do("hashes"))["hashes"]
        await node.stop()
        lose_directory(node)
        await node.start()
        await node.reached(len(hashes))
        assert (await node.do("hashes"))["hashes"][: len(hashes)] == hashes
        assert (await node.do("known", tokens=tokens))["known"] == [True] * 3

        # A damaged write-ahead log: CometBFT repairs it, and the node says so.
        await node.kill()
        log = home(node) / "data" / "cs.wal" / "wal"
        data = bytearray(log.read_bytes())
        data[-40] ^= 0xFF
        log.write_bytes(bytes(data) + b"\x01" * 3000)

        # Another program on the peer port: said, and over once that is gone.
        host, _, port = node.facts["listen"].partition(":")
        server = await asyncio.start_server(lambda *_: None, host, int(port))
        await node.start()
        assert "peer port" in await said(node, "address-in-use")
        server.close()
        health = await node.until(lambda health: health["state"] == "running", timeout_s=90)
        assert health["warning"] == "engine-wal-repaired"
        await enrol(net, node)

    play(story)


def test_old_and_lost_data_of_cometbft_are_refused_with_the_way_out(play: Any, tmp_path: Path) -> None:
    async def story(net: Any, node: Any) -> None:
        await enrol(net, node)
        await node.stop()
        data = home(node) / "data"
        shutil.copytree(data, tmp_path / "old")
        await node.start()
        await enrol(net, node, 2)
        await node.stop()
        state = (data / "priv_validator_state.json").read_bytes()
        shutil.rmtree(data)
        shutil.copytree(tmp_path / "old", data)
        (data / "priv_validator_state.json").write_bytes(state)
        await node.start()
        message = await said(node, "engine-behind-directory")
        assert "priv_validator_state.json" in message
        assert "peers" in message

        # What the message says to do, but for the directory: then that is one that no block leads to.
        await node.stop()
        shutil.rmtree(data)
        data.mkdir()
        (data / "priv_validator_state.json").write_bytes(state)
        await node.start()
        assert "move directory.db away" in await said(node, "app-hash-differs")

    play(story)


def test_a_lost_or_empty_validator_state_is_never_replaced(play: Any) -> None:
    async def story(net: Any, node: Any) -> None:
        await enrol(net, node)
        await node.stop()
        state = home(node) / "data" / "priv_validator_state.json"
        state.write_bytes(b"")
        await node.start()
        assert "new consensus key" in await said(node, "validator-state-damaged")
        await node.stop()
        state.unlink()
        await node.start()
        assert "new consensus key" in await said(node, "validator-state-lost")
        assert not state.exists()

    play(story)


def test_a_damaged_database_and_an_altered_directory_are_refused(play: Any) -> None:
    async def story(net: Any, node: Any) -> None:
        await enrol(net, node)
        await node.stop()
        for file in (home(node) / "data" / "blockstore.db").glob("MANIFEST-*"):
            file.write_bytes(b"\0" * file.stat().st_size)
        await node.start()
        assert "peers" in await said(node, "engine-data-damaged")
        await node.stop()
        with sqlite3.connect(Path(node.facts["folder"]) / "directory.db") as db:
            db.execute("UPDATE commits SET app_hash = zeroblob(32) WHERE height = 2")
        db.close()
        await node.start()
        await node.gone()
        assert "wrong-block" in node.spec.with_suffix(".log").read_text()

    play(story)
