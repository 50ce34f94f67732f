"""The node's side of the directory: blocks for all who wait, forwarding, following, and a wrong block that stops it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
import pytest

from careledger.directory import parse_block
from careledger.errors import Error, MalformedError, UnavailableError
from careledger.node.directing import TRANSACTIONS_MAX, Blocks, parse_transactions
from careledger.node.standing import Standing
from careledger.seal import Envelope, encode
from careledger.transport import Answer


def blocks_answer(engine: Any, after: int) -> Answer:
    found = engine.blocks_after(after)
    return Answer(200, msgspec.msgpack.encode(Blocks([], b"") if found is None else Blocks(*found)), {})


async def until(condition: Any) -> None:
    """Let the loop run until it holds; a test that waits for ever is ended by its timeout."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - any state of any object
            await asyncio.sleep(0.001)


def refused(founded: Any, work: Any) -> str:
    with pytest.raises(Error) as refusal:
        founded.run(work)
    return refusal.value.code


class TestTransactions:
    def test_one_or_several_canonical_envelopes(self, founded: Any) -> None:
        one, two = founded.person().envelope, founded.person().envelope
        assert parse_transactions(encode(one)) == [one]
        both = b"[" + encode(one) + b"," + encode(two) + b"]"
        assert parse_transactions(both) == [one, two]

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b"[", b"[1]", b"{}", b"null", b"\xff", b"[[]]", b"[null]", b"[{}]", b"[" * 9000]
    )
    def test_anything_else_is_refused(self, body: bytes) -> None:
        with pytest.raises(MalformedError):
            parse_transactions(body)

    def test_their_number_is_bounded(self, founded: Any) -> None:
        one = encode(founded.person().envelope)
        assert len(parse_transactions(b"[" + b",".join([one] * TRANSACTIONS_MAX) + b"]")) == TRANSACTIONS_MAX
        with pytest.raises(MalformedError) as refusal:
            parse_transactions(b"[" + b",".join([one] * (TRANSACTIONS_MAX + 1)) + b"]")
        assert refusal.value.code == "too-large"


class TestSequencer:
    @pytest.fixture
    def directing(self, founded: Any, wire: Any) -> Any:
        directing = founded.directing(founded.sequencer(), wire)
        directing._compared.set()
        return directing

    def test_what_waits_at_one_moment_goes_into_one_block(self, founded: Any, directing: Any) -> None:
        people = [founded.person() for _ in range(5)]

        async def main() -> list[Any]:
            return await asyncio.gather(*(directing.submit([one.envelope]) for one in people))

        results = founded.run(main())
        assert [[one.code for one in several] for several in results] == [["ok"]] * 5
        assert directing.directory.height == 2
        assert all(directing.directory.is_active(one.token) for one in people)

    def test_each_gets_its_own_results(self, founded: Any, directing: Any) -> None:
        good, bad = founded.person().envelope, founded.organisations[1].envelope

        async def main() -> list[Any]:
            return await asyncio.gather(directing.submit([good, bad]), directing.submit([founded.person().envelope]))

        first, second = founded.run(main())
        assert first[0].code == "ok"
        assert first[1].code != "ok"
        assert first[1].height is None or first[1].message
        assert [one.code for one in second] == ["ok"]

    def test_an_inception_is_brought_in_under_the_nodes_name(self, founded: Any, directing: Any) -> None:
        founded.run(directing.submit([founded.person().envelope]))
        block = parse_block(directing.engine.blocks_after(1)[0][0])
        (sent,) = block.transactions
        assert sent.payloadType == "application/vnd.careledger.enrol+json"
        assert [one.keyid for one in sent.signatures] == [founded.signer(0)[0]]

    def test_a_failed_store_refuses_all_who_wait(self, founded: Any, directing: Any, monkeypatch: Any) -> None:
        def failing(*_: Any, **__: Any) -> Any:
            raise UnavailableError("store-failed", "no")

        monkeypatch.setattr(directing.engine, "submit", failing)

        async def main() -> list[Any]:
            several = (directing.submit([founded.person().envelope]) for _ in range(3))
            return await asyncio.gather(*several, return_exceptions=True)

        assert [one.code for one in founded.run(main())] == ["store-failed"] * 3
        monkeypatch.undo()
        assert founded.run(directing.submit([founded.person().envelope]))[0].code == "ok"

    def test_a_bug_while_a_block_is_made_leaves_nobody_waiting(
        self, founded: Any, directing: Any, monkeypatch: Any
    ) -> None:
        def broken(*_: Any, **__: Any) -> Any:
            raise TypeError("a bug")

        monkeypatch.setattr(directing.engine, "submit", broken)

        async def main() -> list[Any]:
            async with asyncio.timeout(5):
                several = (directing.submit([founded.person().envelope]) for _ in range(2))
                return await asyncio.gather(*several, return_exceptions=True)

        assert all(isinstance(one, TypeError) for one in founded.run(main()))

    def test_blocks_are_waited_for_until_one_is_made_or_the_node_stops(self, founded: Any, directing: Any) -> None:
        async def main() -> Any:
            waiting = asyncio.ensure_future(directing.blocks(1, wait=True))
            await asyncio.sleep(0)
            assert not waiting.done()
            await directing.submit([founded.person().envelope])
            found = await waiting
            later = asyncio.ensure_future(directing.blocks(2, wait=True))
            await asyncio.sleep(0)
            directing.stop()
            assert await later == Blocks([], b"")
            assert await directing.blocks(2, wait=True) == Blocks([], b"")
            return found

        found = founded.run(main())
        assert len(found.blocks) == 1
        assert found.checkpoint

    def test_the_head_is_that_of_the_newest_block(self, founded: Any, directing: Any) -> None:
        founded.run(directing.submit([founded.person().envelope]))
        head = directing.head()
        assert (head["height"], head["fault"]) == (2, "")
        assert head["app_hash"] == directing.directory.app_hash().hex()
        assert head["app_hash"] in head["checkpoint"]

    def test_it_orders_nothing_while_its_history_is_in_doubt(self, founded: Any, wire: Any) -> None:
        directing = founded.directing(founded.sequencer(), wire)

        async def main() -> None:
            async with asyncio.timeout(0.05):
                await directing.submit([founded.person().envelope])

        with pytest.raises(TimeoutError):
            founded.run(main())
        assert directing.directory.height == 1

    def test_a_sequencer_that_was_put_back_to_an_older_copy_orders_nothing(self, founded: Any, wire: Any) -> None:
        """A follower's head, signed by this sequencer, is further than the store."""
        newer = founded.sequencer("newer.db")
        newer.submit([], now_ms=founded.ms)
        newer.heartbeat(now_ms=founded.ms + 100_000)
        head = msgspec.json.encode({"checkpoint": newer.checkpoint().decode()})
        directing = founded.directing(founded.sequencer(), wire)
        wire.answer = lambda url, path, body: Answer(200, head, {})
        founded.run(directing.run())
        assert directing.fault
        assert refused(founded, directing.submit([founded.person().envelope])) == "directory-rolled-back"


class TestFollower:
    @pytest.fixture
    def sequencer(self, founded: Any) -> Any:
        return founded.sequencer()

    @pytest.fixture
    def directing(self, founded: Any, wire: Any) -> Any:
        return founded.directing(founded.follower(), wire, 1)

    def follow(self, founded: Any, directing: Any, condition: Any) -> None:
        async def main() -> None:
            following = asyncio.ensure_future(directing.run())
            try:
                await until(condition)
            finally:
                following.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await following

        founded.run(main())

    def test_it_follows_and_cosigns(self, founded: Any, sequencer: Any, directing: Any, wire: Any) -> None:
        sequencer.submit([], now_ms=founded.ms)
        sequencer.heartbeat(now_ms=founded.ms + 100_000)
        founded.ms += 100_000

        def answer(url: str, path: str, body: bytes) -> Answer:
            if path.startswith("/v1/directory/cosignature"):
                sequencer.add_cosignature(int(path.rpartition("=")[2]), body)
                return Answer(204, b"", {})
            return blocks_answer(sequencer, directing.engine.height)

        wire.answer = answer
        self.follow(founded, directing, lambda: sequencer.newest_cosigned() is not None or len(wire.asked) > 3)
        assert directing.directory.app_hash() == sequencer.directory.app_hash()
        assert {url for url, _, _ in wire.asked} == {founded.url(0)}
        posted = [path for _, path, body in wire.asked if body]
        assert posted[0] == f"/v1/directory/cosignature?size={sequencer.height}"

    def test_it_forwards_and_answers_once_it_has_the_block_itself(
        self, founded: Any, sequencer: Any, directing: Any, wire: Any
    ) -> None:
        person = founded.person()

        def answer(url: str, path: str, body: bytes) -> Answer:
            if path == "/v1/directory/transaction":
                (sent,) = parse_transactions(body)
                assert sent.payloadType == "application/vnd.careledger.enrol+json"
                results = sequencer.submit([sent], now_ms=founded.ms)
                said = [{"code": one.code, "message": one.message, "height": one.height} for one in results]
                return Answer(200, msgspec.json.encode({"results": said, "height": sequencer.height}), {})
            if path.startswith("/v1/directory/blocks"):
                return blocks_answer(sequencer, directing.engine.height)
            return Answer(204, b"", {})

        wire.answer = answer

        async def main() -> Any:
            following = asyncio.ensure_future(directing.run())
            try:
                async with asyncio.timeout(20):
                    return await directing.submit([person.envelope])
            finally:
                following.cancel()

        (result,) = founded.run(main())
        assert (result.code, result.height) == ("ok", 2)
        assert directing.directory.is_active(person.token)

    @pytest.mark.parametrize(
        ("answer", "code"),
        [
            (Answer(503, b"", {}), "sequencer-refused"),
            (Answer(200, b"<html>", {}), "sequencer-refused"),
            (Answer(200, b"\xff", {}), "sequencer-refused"),
            (Answer(200, b'{"results":[{"code":"ok","message":"","height":9}],"height":9}', {}), "directory-behind"),
        ],
    )
    def test_a_sequencer_that_does_not_do_its_part_is_unavailability(
        self, founded: Any, directing: Any, wire: Any, monkeypatch: Any, answer: Answer, code: str
    ) -> None:
        reached = directing.reached
        monkeypatch.setattr(directing, "reached", lambda height: reached(height, timeout_s=0.01))
        wire.answer = lambda *_: answer
        assert refused(founded, directing.submit([founded.person().envelope])) == code

    def test_a_wrong_block_stops_it_where_it_was_and_is_said_in_health(
        self, founded: Any, sequencer: Any, directing: Any, wire: Any
    ) -> None:
        """Trust row 6: followers execute every block themselves."""
        sequencer.submit([], now_ms=founded.ms)
        sequencer.heartbeat(now_ms=founded.ms + 100_000)
        founded.ms += 100_000
        blocks, checkpoint = sequencer.blocks_after(0)
        forged = encode(msgspec.structs.replace(parse_block(blocks[0]), time=founded.ms - 1))
        wire.answer = lambda *_: Answer(200, msgspec.msgpack.encode(Blocks([forged], checkpoint)), {})
        before = directing.directory.app_hash()
        self.follow(founded, directing, lambda: directing.fault)
        assert (directing.directory.height, directing.directory.app_hash()) == (0, before)
        assert not any(body for _, _, body in wire.asked)
        standing = Standing(founded.software[1].token, directing.directory, now_ms=founded.now_ms)
        standing.directory_fault = lambda: directing.fault
        assert standing.health()["directory_fault"] == directing.fault
        assert directing.head()["fault"] == directing.fault
        # The right blocks later end the fault.
        wire.answer = lambda url, path, body: (
            Answer(204, b"", {}) if body else blocks_answer(sequencer, directing.engine.height)
        )
        self.follow(founded, directing, lambda: directing.directory.height and not directing.fault)
        assert directing.directory.app_hash() == sequencer.directory.app_hash()

    @pytest.mark.parametrize("answer", [Answer(500, b"", {}), Answer(200, b"\xc1", {}), Answer(200, b"\x90", {})])
    def test_garbage_from_the_sequencer_is_survived(
        self, founded: Any, directing: Any, wire: Any, answer: Answer
    ) -> None:
        wire.answer = lambda *_: answer
        self.follow(founded, directing, lambda: len(wire.asked) >= 1)
        assert directing.directory.height == 0

    def test_a_sequencer_that_is_gone_is_waited_for(self, founded: Any, directing: Any, wire: Any) -> None:
        def gone(*_: Any) -> Any:
            raise UnavailableError("unreachable", "no")

        wire.answer = gone
        self.follow(founded, directing, lambda: len(wire.asked) >= 1)
        assert directing.fault == ""
        assert refused(founded, directing.submit([founded.person().envelope])) == "unreachable"


def test_no_sequencer_is_said(founded: Any, wire: Any, monkeypatch: Any) -> None:
    directing = founded.directing(founded.follower(), wire, 1)
    monkeypatch.setattr(type(directing.directory), "node", lambda *_: None)
    assert refused(founded, directing.submit([founded.person().envelope])) == "no-sequencer"


def test_an_envelope_of_another_shape_is_no_transaction() -> None:
    with pytest.raises(MalformedError):
        parse_transactions(encode({"payload": "", "payloadType": "x", "signatures": [], "more": 1}))
    assert Envelope.__struct_fields__ == ("payload", "payloadType", "signatures")
