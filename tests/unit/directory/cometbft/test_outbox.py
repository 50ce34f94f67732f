"""The outbox: what was answered for is sent until the own application has it, and takes effect once."""

from __future__ import annotations

import asyncio
import importlib
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from careledger.directory.engines.cometbft import outbox as outbox_module
from careledger.directory.engines.cometbft.outbox import Outbox
from careledger.directory.transactions import TxResult
from careledger.errors import ConflictError, UnavailableError
from careledger.seal import encode

virtual = importlib.import_module("careledger_virtual")


class Engine:
    """A mempool that takes everything, loses it when told to, and can be down."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, bytes]] = []
        self.up = True

    async def __call__(self, data: bytes) -> TxResult:
        if not self.up:
            raise UnavailableError("engine-unreachable", "down")
        self.sent.append((round(virtual.now(), 1), data))
        return TxResult("ok", "accepted")

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.sent]


class Rig:
    def __init__(self, chain: Any, path: Path) -> None:
        self.chain, self.path = chain, path
        self.engine, self.other = Engine(), Engine()
        self.settled = True
        self.outbox: Outbox | None = None

    def open(self) -> Outbox:
        self.outbox = Outbox(
            self.path,
            network=self.chain.replica.network,
            admission=self.chain.app.admission,
            send=[self.engine, self.other],
            settled=lambda: self.settled,
        )
        self.chain.app.on_commit = self.outbox.decided
        return self.outbox

    def enrolment(self) -> Any:
        return self.chain.world.enrol(self.chain.world.person())

    def play(self, story: Callable[[Outbox], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            outbox = self.open()
            duty = asyncio.get_running_loop().create_task(outbox.run())
            try:
                await story(outbox)
            finally:
                duty.cancel()
                outbox.close()

        virtual.play(whole())


@pytest.fixture
def rig(chain: Any, tmp_path: Path) -> Iterator[Rig]:
    return Rig(chain, tmp_path / "outbox.db")


def test_a_waiter_is_told_by_the_own_commit(rig: Rig) -> None:
    async def story(outbox: Outbox) -> None:
        envelope = rig.enrolment()
        waiting = asyncio.ensure_future(outbox.submit([envelope], timeout_s=60))
        await asyncio.sleep(1)
        assert rig.engine.sent == [(0.0, encode(envelope))]
        assert not waiting.done()
        rig.chain.run(envelope)
        results = await waiting
        assert [(result.code, result.height) for result in results] == [("ok", 1)]
        assert len(outbox) == 0

    rig.play(story)


def test_the_same_bytes_go_out_again_until_a_block_has_them(rig: Rig) -> None:
    async def story(outbox: Outbox) -> None:
        envelope = rig.enrolment()
        waiting = asyncio.ensure_future(outbox.submit([envelope], timeout_s=600))
        await asyncio.sleep(120)
        everything = sorted(rig.engine.sent + rig.other.sent)
        assert {data for _, data in everything} == {encode(envelope)}
        times = [at for at, _ in everything]
        assert times[:4] == [0.0, 2.0, 4.0, 8.0]
        assert max(after - before for before, after in pairwise(times)) <= 31
        assert rig.other.sent
        rig.chain.run(envelope)
        assert (await waiting)[0].ok
        count = len(rig.engine.sent)
        await asyncio.sleep(60)
        assert len(rig.engine.sent) == count

    rig.play(story)


def test_what_the_rules_refuse_is_refused_at_once_and_never_sent(rig: Rig) -> None:
    async def story(outbox: Outbox) -> None:
        person = rig.chain.world.person()
        results = await outbox.submit([person.envelope], timeout_s=60)
        assert [result.code for result in results] == ["not-enrolled"]
        assert (rig.engine.sent, len(outbox)) == ([], 0)

    rig.play(story)


def test_other_nodes_get_it_when_the_own_engine_is_down(rig: Rig) -> None:
    async def story(outbox: Outbox) -> None:
        rig.engine.up = False
        waiting = asyncio.ensure_future(outbox.submit([rig.enrolment()], timeout_s=60))
        await asyncio.sleep(0.1)
        assert len(rig.other.sent) == 1
        waiting.cancel()

    rig.play(story)


def test_a_submission_that_is_not_decided_in_time_stays_and_the_same_one_waits_again(rig: Rig) -> None:
    async def story(outbox: Outbox) -> None:
        rig.engine.up = rig.other.up = False
        envelope = rig.enrolment()
        with pytest.raises(UnavailableError, match="go on by themselves") as caught:
            await outbox.submit([envelope], timeout_s=10)
        assert caught.value.code == "directory-waits"
        assert len(outbox) == 1
        rig.engine.up = True
        again = asyncio.ensure_future(outbox.submit([envelope], timeout_s=100))
        await asyncio.sleep(40)
        assert len(rig.engine.sent) + len(rig.other.sent) >= 1
        rig.chain.run(envelope)
        assert (await again)[0].ok
        assert len(outbox) == 0

    rig.play(story)


def test_what_was_accepted_survives_a_restart(rig: Rig) -> None:
    envelope = rig.enrolment()

    async def first(outbox: Outbox) -> None:
        rig.engine.up = rig.other.up = False
        waiting = asyncio.ensure_future(outbox.submit([envelope], timeout_s=600))
        await asyncio.sleep(1)
        outbox.close()
        with pytest.raises(UnavailableError, match="node stops"):
            await waiting

    async def second(outbox: Outbox) -> None:
        assert len(outbox) == 1
        rig.engine.up = True
        await asyncio.sleep(3)
        assert {data for _, data in rig.engine.sent} == {encode(envelope)}
        assert rig.chain.run(envelope) == ["ok"]
        assert len(outbox) == 0

    rig.play(first)
    rig.chain.restart()
    rig.play(second)


def test_a_commit_that_was_not_noticed_is_forgotten_at_the_next_start(rig: Rig) -> None:
    envelope = rig.enrolment()

    async def first(outbox: Outbox) -> None:
        waiting = asyncio.ensure_future(outbox.submit([envelope], timeout_s=600))
        await asyncio.sleep(0.1)
        rig.chain.app.on_commit = None
        rig.chain.run(envelope)
        waiting.cancel()

    async def second(outbox: Outbox) -> None:
        assert len(outbox) == 1
        outbox.forget(rig.chain.replica.newest_ids())
        assert len(outbox) == 0

    rig.play(first)
    rig.play(second)
    rig.play(_is_empty)


async def _is_empty(outbox: Outbox) -> None:
    assert len(outbox) == 0


def test_a_refusal_in_the_block_reaches_the_waiter(rig: Rig) -> None:
    async def story(outbox: Outbox) -> None:
        world = rig.chain.world
        person = world.person()
        mine, theirs = world.enrol(person, 0), world.enrol(person, 1)
        waiting = asyncio.ensure_future(outbox.submit([mine], timeout_s=60))
        await asyncio.sleep(0.1)
        assert rig.chain.run(theirs, mine) == ["ok", "exists"]
        assert [(result.code, result.height) for result in await waiting] == [("exists", 1)]
        assert len(outbox) == 0

    rig.play(story)


def test_a_refusal_by_an_unlucky_order_is_sent_again(rig: Rig) -> None:
    from careledger import identity as idy
    from careledger.directory import Directory

    world = rig.chain.world
    person = world.person()
    enrolment = world.enrol(person)
    elsewhere = Directory.from_genesis(world.genesis)
    elsewhere.apply(world.block(enrolment))
    state = elsewhere.identity(person.token)
    assert state is not None
    update, *_ = idy.build_update(
        network=world.network,
        token=person.token,
        state=state,
        document=idy.open_document(person.salt, person.document, state.document),
        device=person.secrets.device.signing_key(),
        rand=world.rand,
    )

    async def story(outbox: Outbox) -> None:
        waiting = asyncio.ensure_future(outbox.submit([enrolment, update], timeout_s=600))
        await asyncio.sleep(0.1)
        assert rig.chain.run(update, enrolment) == ["unknown-identity", "ok"]
        await asyncio.sleep(3)
        assert [data for _, data in rig.engine.sent + rig.other.sent].count(encode(update)) == 2
        assert rig.chain.run(update) == ["ok"]
        assert [result.code for result in await waiting] == ["ok", "ok"]

    rig.play(story)


def test_the_same_transaction_twice_in_a_block_counts_as_accepted(rig: Rig) -> None:
    async def story(outbox: Outbox) -> None:
        envelope = rig.enrolment()
        waiting = asyncio.ensure_future(outbox.submit([envelope, envelope], timeout_s=60))
        await asyncio.sleep(0.1)
        assert rig.chain.run(envelope, envelope) == ["ok", "exists"]
        assert [result.code for result in await waiting] == ["ok", "ok"]
        assert len(rig.engine.sent) == 1

    rig.play(story)


def test_what_can_no_longer_be_accepted_is_given_up_but_not_while_catching_up(rig: Rig) -> None:
    async def story(outbox: Outbox) -> None:
        world = rig.chain.world
        person = world.person()
        mine, theirs = world.enrol(person, 0), world.enrol(person, 1)
        waiting = asyncio.ensure_future(outbox.submit([mine], timeout_s=6000))
        await asyncio.sleep(0.1)
        rig.chain.app.admission._waiting.clear()
        rig.chain.run(theirs)
        rig.settled = False
        await asyncio.sleep(600)
        assert len(outbox) == 1
        rig.settled = True
        assert [result.code for result in await waiting] == ["exists"]
        assert len(outbox) == 0

    rig.play(story)


def test_the_outbox_is_bounded_and_takes_all_of_a_submission_or_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "OUTBOX_MAX", 3)

    async def story(outbox: Outbox) -> None:
        waiting = asyncio.ensure_future(outbox.submit([rig.enrolment(), rig.enrolment()], timeout_s=60))
        await asyncio.sleep(0.1)
        with pytest.raises(UnavailableError) as caught:
            await outbox.submit([rig.enrolment(), rig.enrolment()], timeout_s=60)
        assert caught.value.code == "outbox-full"
        assert len(outbox) == 2
        waiting.cancel()

    rig.play(story)


def test_a_round_sends_a_bounded_number_and_a_dead_engine_ends_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "_ROUND_MAX", 5)

    async def story(outbox: Outbox) -> None:
        many = [rig.enrolment() for _ in range(12)]
        waiting = asyncio.ensure_future(outbox.submit(many, timeout_s=600))
        await asyncio.sleep(2.5)
        assert outbox.resent == 5
        rig.engine.up = rig.other.up = False
        await asyncio.sleep(30)
        assert outbox.resent <= 5 + 5
        waiting.cancel()

    rig.play(story)


def test_under_steady_load_what_got_lost_is_still_sent_again(rig: Rig) -> None:
    async def story(outbox: Outbox) -> None:
        lost = rig.enrolment()
        waiting = [asyncio.ensure_future(outbox.submit([lost], timeout_s=600))]
        for _ in range(12):
            envelope = rig.enrolment()
            waiting.append(asyncio.ensure_future(outbox.submit([envelope], timeout_s=600)))
            await asyncio.sleep(0.25)
            rig.chain.run(envelope)
        assert [data for _, data in rig.engine.sent + rig.other.sent].count(encode(lost)) >= 2
        rig.chain.run(lost)
        assert all([(await one)[0].ok for one in waiting])

    rig.play(story)


def test_a_disk_that_refuses_takes_nothing(rig: Rig) -> None:
    async def story(outbox: Outbox) -> None:
        outbox._db.execute("DROP TABLE outbox")
        with pytest.raises(UnavailableError) as caught:
            await outbox.submit([rig.enrolment()], timeout_s=60)
        assert caught.value.code == "store-failed"
        assert (len(outbox), rig.engine.sent) == (0, [])

    rig.play(story)


def test_another_networks_outbox_is_refused(rig: Rig) -> None:
    with sqlite3.connect(rig.path) as db:
        db.execute("CREATE TABLE meta (network TEXT PRIMARY KEY) STRICT")
        db.execute("INSERT INTO meta VALUES ('other')")
    db.close()
    with pytest.raises(ConflictError) as caught:
        rig.open()
    assert caught.value.code == "other-network"
