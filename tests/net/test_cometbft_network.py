"""Four real validators on this machine: they agree, whoever dies and whenever; nothing accepted is lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from careledger.directory.engines.cometbft.replica import transaction_id
from careledger.seal import encode, envelope_message_id

pytestmark = pytest.mark.slow


@pytest.fixture
def play(comet_net: Any, tmp_path: Path) -> Callable[..., None]:
    def run(story: Callable[[Any], Coroutine[Any, Any, None]], *, members: int = 4, timeout_s: float = 300) -> None:
        async def whole() -> None:
            async with asyncio.timeout(timeout_s), comet_net.running(tmp_path, members=members) as net:
                await story(net)

        asyncio.run(whole())

    return run


async def everyone_knows(net: Any, tokens: list[str], nodes: Any = None) -> None:
    for node in nodes or net.nodes:
        assert all((await node.do("known", tokens=tokens))["known"])


def test_four_validators_agree_and_go_on_when_nodes_and_engines_die(comet_net: Any, play: Any) -> None:
    """One network, told as one story, since starting it is the dearest part of each chapter."""

    async def story(net: Any) -> None:
        first, second, third, fourth = net.nodes
        await asyncio.gather(*(node.reached(1) for node in net.nodes))

        # Transactions from every member's node, and refused ones, are the same everywhere.
        made = [net.enrolment(by % 4) for by in range(12)]
        codes = await asyncio.gather(*(net.nodes[by % 4].submit(envelope) for by, (_, envelope) in enumerate(made)))
        assert codes == [["ok"]] * len(made)
        tokens = [token for token, _ in made]
        assert await first.submit(made[0][1]) == ["exists"]
        await net.agree()
        await everyone_knows(net, tokens)

        # CometBFT says the same: four equal validators, and each header carries the app hash of the block before.
        validators = (await first.do("rpc", call="validators"))["answer"]
        assert {entry["voting_power"] for entry in validators} == {"10"}
        assert len(validators) == 4
        hashes = (await first.do("hashes"))["hashes"]
        header = (await second.do("rpc", call="commit", arguments=[len(hashes)]))["answer"]["signed_header"]["header"]
        assert header["chain_id"].startswith("careledger-")
        assert header["app_hash"].lower() == hashes[-2]
        block = (await second.do("rpc", call="block", arguments=[len(hashes)]))["answer"]["block"]
        assert block["header"]["height"] == str(len(hashes))

        # A member takes its validator out and puts it back: CometBFT follows two heights later, and the node all along.
        entry = net.world.parties[3].entry
        out = net.world.nodes(3, [msgspec.structs.replace(entry, consensus=msgspec.UNSET)])
        back = net.world.nodes(3, [entry], prev=envelope_message_id(out).hex())
        for statement, expected in ((out, 3), (back, 4)):
            assert await fourth.submit(statement) == ["ok"]
            token, envelope = net.enrolment(3)
            assert await fourth.submit(envelope) == ["ok"]
            tokens.append(token)
            await net.agree()
            assert len((await fourth.do("rpc", call="validators"))["answer"]) == expected

        # A node that is killed at the worst moments catches up, its engine never outlives it.
        for point in ("mid-finalize", "end-of-finalize", "before-commit", "after-commit"):
            pid = (await second.until(lambda health: health["pid"] is not None))["pid"]
            second.die_at(point)
            token, envelope = net.enrolment(0)
            assert await first.submit(envelope) == ["ok"]
            assert await second.gone() == -signal.SIGKILL, point
            comet_net.wait_gone(pid)
            second.live()
            await second.start()
            await second.until(lambda health: health["state"] == "running")
            tokens.append(token)
            await net.agree()
            await everyone_knows(net, tokens, [second])

        # An engine that is killed is started again by its node.
        before = await third.do("health")
        comet_net.signal_engine(before["pid"], signal.SIGKILL)
        after = await third.until(lambda health: health["restarts"] == 1 and health["state"] == "running")
        assert after["pid"] != before["pid"]
        token, envelope = net.enrolment(2)
        assert await third.submit(envelope) == ["ok"]
        tokens.append(token)

        # Two of four gone: what comes in is kept, and said so; it goes on alone when one is back.
        await third.kill()
        await fourth.kill()
        token, envelope = net.enrolment(0)
        assert await first.submit(envelope, timeout_s=1.0) == ["directory-waits"]
        tokens.append(token)
        health = await first.until(lambda health: health["state"] == "waiting", timeout_s=40)
        assert health["code"] == "directory-waits"
        assert health["outbox"] == 1
        await third.start()
        await first.until(lambda health: health["outbox"] == 0, timeout_s=60)
        await fourth.start()
        await net.agree(timeout_s=60)
        await everyone_knows(net, tokens)

        # A stop is in order and leaves no process behind, not even an engine that hangs.
        pids = [(await node.do("health"))["pid"] for node in net.nodes]
        comet_net.signal_engine(pids[3], signal.SIGSTOP)
        assert await asyncio.gather(*(node.stop() for node in net.nodes)) == [0, 0, 0, 0]
        for pid in pids:
            assert not comet_net.is_alive(pid)

    play(story)


def test_a_network_takes_over_the_history_of_the_embedded_engine(comet_net: Any, tmp_path: Path) -> None:
    tokens: list[str] = []

    def history(world: Any) -> list[bytes]:
        sequencer = world.sequencer(tmp_path)
        for _ in range(5):
            person = world.person()
            tokens.append(person.token)
            world.now_ms += 1000
            sequencer.submit([world.enrol(person)], now_ms=world.now_ms)
        blocks: list[bytes] = sequencer.blocks_after(0)[0]
        sequencer.close()
        return blocks

    async def whole() -> None:
        async with asyncio.timeout(180), comet_net.running(tmp_path, members=1, history=history) as net:
            node = net.nodes[0]
            await node.reached(7)
            token, envelope = net.enrolment(0)
            assert await node.submit(envelope) == ["ok"]
            await node.kill()
            await node.start()
            await node.until(lambda health: health["state"] == "running")
            await everyone_knows(net, [*tokens, token])

    asyncio.run(whole())


def test_what_was_accepted_reaches_the_state_once_while_nodes_are_killed_in_turn(comet_net: Any, play: Any) -> None:
    async def story(net: Any) -> None:
        await asyncio.gather(*(node.reached(1) for node in net.nodes))
        accepted: dict[str, Any] = {}
        over = asyncio.Event()

        async def load(by: int) -> None:
            """One member's clients: enrol, and ask again with the same bytes until there is an answer."""
            while not over.is_set():
                token, envelope = net.enrolment(by)
                while True:
                    try:
                        codes = await net.nodes[by].submit(envelope, timeout_s=2.0)
                    except comet_net.NodeGoneError:
                        await asyncio.sleep(0.1)
                        continue
                    if codes == ["directory-waits"]:
                        accepted[token] = envelope
                    elif codes in (["ok"], ["exists"]):
                        # "exists": it was decided while the node that would have said so was dead.
                        accepted[token] = envelope
                        break
                    elif over.is_set():
                        break
                await asyncio.sleep(0.05)

        clients = [asyncio.create_task(load(by)) for by in range(4)]
        for node in net.nodes:
            enough = len(accepted) + 4
            while len(accepted) < enough:  # noqa: ASYNC110 - however fast this machine is
                await asyncio.sleep(0.05)
            await node.kill()
            await node.start()
        over.set()
        await asyncio.wait_for(asyncio.gather(*clients), 60)
        for node in net.nodes:
            await node.until(lambda health: health["state"] == "running" and health["outbox"] == 0, timeout_s=60)
        await net.agree(timeout_s=60)
        assert len(accepted) >= 16
        await everyone_knows(net, list(accepted))
        history = (await net.nodes[0].do("history"))["ids"]
        assert len(history) == len(set(history))
        assert set(history) >= {transaction_id(encode(envelope)).hex() for envelope in accepted.values()}

    play(story)
