"""A node's duties: having its log cosigned, comparing itself before it serves, anchoring, syncing with its peers."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from typing import Any

import msgspec
import pytest

from careledger.custody import Witness
from careledger.directory import Anchor, sign_transaction
from careledger.errors import Error, UnavailableError
from careledger.node import background
from careledger.node.api import Api
from careledger.node.background import Background
from careledger.node.evidence import Evidence
from careledger.node.reports import Metrics
from careledger.node.standing import Standing
from careledger.seal import decode, unb64
from careledger.tlog import Checkpoint, Cosigner, Ed25519SigningKey, Signer, sign_checkpoint
from careledger.transport import Answer


class Member:
    """A node without HTTP: custody, standing and duties; `down` nodes can't be reached, `say` answers for liars."""

    def __init__(self, town: Any, number: int, wire: Any) -> None:
        self.town, self.number, self.wire = town, number, wire
        self.keeper = town.keeper(number)
        self.token = self.keeper.token
        self.url = f"http://node-{number}.example"
        self.witness = Witness(
            self.keeper.folder / "witness.db", signer=self.keeper.cosigner, now_s=lambda: town.clock() // 1000
        )
        self.submitted: list[Any] = []
        self.down = False
        self.say: Any = None
        self.begin()

    def begin(self) -> None:
        keeper = self.keeper
        self.standing = Standing(self.token, self.town.directory, now_ms=self.town.clock)
        self.standing.custodian = keeper.custodian
        self.api = Api(
            keeper.custodian,
            self.standing,
            release=keeper.release,
            acceptance=keeper.acceptance,
            documents=keeper.documents,
            events=keeper.events,
            reading=keeper.reading,
            exchange=keeper.exchange,
            witness=self.witness,
        )

        async def submit(envelopes: list[Any]) -> None:
            self.submitted += envelopes
            self.town.order(*envelopes)

        self.background = Background(
            keeper.custodian,
            self.standing,
            keeper.exchange,
            signer=self.town.node_signer(self.number),
            transport=self.wire,
            metrics=Metrics(),
            submit=submit,
            witnesses=[],
            evidence=Evidence(
                self.witness, self.town.directory, signer=self.town.node_signer(self.number), submit=submit
            ),
        )
        self.standing.pull = self.background.pull

    def restart(self) -> None:
        self.keeper.restart()
        self.begin()

    async def answer(self, path: str, body: bytes) -> Answer:
        if self.down:
            raise UnavailableError("unreachable", "the node is down")
        if self.say is not None and (said := self.say(path, body)) is not None:
            return said  # type: ignore[no-any-return]
        try:
            if path == "/v1/sync":
                answered = await self.api.sync(body)
            elif path == "/witness/add-checkpoint":
                answered = await self.api.add_checkpoint(body)
            else:
                answered = await self.api.cosigned(path.removeprefix("/witness/checkpoint/"))
        except Error as problem:
            return Answer(problem.http_status, b"", {})
        return Answer(answered.status, answered.body, {})

    def compare(self) -> None:
        """The check at start, until it has an outcome."""

        async def main() -> None:
            async with asyncio.timeout(20):
                await self.background._check_rollback()

        self.town.run(main())


class Members(list[Member]):
    def __init__(self, town: Any, wire: Any) -> None:
        super().__init__(Member(town, number, wire) for number in range(4))
        by_url = {one.url: one for one in self}

        async def answer(url: str, path: str, body: bytes) -> Answer:
            return await by_url[url].answer(path, body)

        wire.answer = answer
        for one in self:
            one.standing.rollback = "checked"


@pytest.fixture
def members(town: Any, wire: Any, make_case: Any) -> Any:
    members = Members(town, wire)
    town.keeper, keeper = (lambda *_, **__: members[0].keeper), town.keeper
    members[0].case = make_case(town)  # type: ignore[attr-defined]
    town.keeper = keeper
    yield members
    for one in members:
        one.witness.close()


def publish(member: Member) -> None:
    member.town.run(member.background.publish())


class TestPublishing:
    def test_a_checkpoint_is_published_with_the_cosignatures_of_all_other_members(self, members: Any) -> None:
        first = members[0]
        publish(first)
        assert first.keeper.published_size == first.keeper.size
        assert sorted(first.standing.cosigned_by) == sorted(one.token for one in members[1:])
        assert len(first.keeper.custodian.published[1].splitlines()) == 4 + 1 + 3
        assert first.standing.faults == {}

    def test_nothing_new_is_not_asked_for_again(self, members: Any, wire: Any) -> None:
        publish(members[0])
        asked = len(wire.asked)
        publish(members[0])
        assert len(wire.asked) == asked

    def test_who_is_down_is_asked_again_until_it_cosigns(self, members: Any) -> None:
        members[3].down = True
        publish(members[0])
        assert members[3].token not in members[0].standing.cosigned_by
        members[3].down = False
        publish(members[0])
        assert members[3].token in members[0].standing.cosigned_by

    @pytest.mark.parametrize(
        "said",
        [
            Answer(200, b"garbage", {}),
            Answer(200, b"\xe2\x80\x94 name AAAA\n", {}),
            Answer(409, b"not a number\n", {}),
            Answer(409, b"99999999999\n", {}),
            Answer(409, b"0\n", {}),
            Answer(422, b"", {}),
            Answer(500, b"", {}),
        ],
    )
    def test_a_witness_that_answers_garbage_is_left_out_and_stops_nobody(self, members: Any, said: Answer) -> None:
        members[2].say = lambda path, body: said if path == "/witness/add-checkpoint" else None
        publish(members[0])
        assert sorted(members[0].standing.cosigned_by) == sorted([members[1].token, members[3].token])
        assert members[0].standing.rollback == "checked"
        assert members[0].keeper.published_size == members[0].keeper.size

    def test_a_cosignature_by_another_key_does_not_count(self, members: Any) -> None:
        members[2].witness._signer = Cosigner(members[2].keeper.cosigner.name, Ed25519SigningKey(bytes(32)))
        publish(members[0])
        assert members[2].token not in members[0].standing.cosigned_by
        assert members[2].token in members[0].standing.faults

    def test_nothing_is_published_before_the_check_or_after_a_rollback(self, members: Any) -> None:
        for state in ("pending", "rolled-back"):
            members[0].standing.rollback = state
            publish(members[0])
            assert members[0].keeper.custodian.published[0] == 0


class TestFinishing:
    """A node that stops leaves nothing that others have cosigned and that its folder does not show."""

    def test_what_peers_cosigned_when_it_started_is_published(self, members: Any) -> None:
        first = members[0]
        first.standing.rollback = "pending"
        first.compare()
        assert first.keeper.custodian.published[0] < first.keeper.size
        first.town.run(first.background.finish())
        assert first.keeper.published_size == first.keeper.size

    def test_otherwise_nothing_is_published_any_more(self, members: Any) -> None:
        first = members[0]
        first.town.run(first.background.finish())
        assert first.keeper.custodian.published[0] == 0

    def test_a_node_that_was_rolled_back_publishes_nothing(self, members: Any) -> None:
        first = members[0]
        first.compare()
        first.standing.rollback = "rolled-back"
        first.town.run(first.background.finish())
        assert first.keeper.custodian.published[0] == 0


class TestComparing:
    """Trust row 5: a node put back to an older copy of its disk serves nobody, and no liar can make one stop."""

    def older(self, members: Any) -> Member:
        """A node whose peers have cosigned more than it has."""
        first = members[0]
        publish(first)
        first.keeper.close()
        for name in ("store", "log"):
            _copy(first.keeper.folder / name, first.keeper.folder / f"{name}.older")
        first.keeper.open()
        first.begin()
        first.standing.rollback = "checked"
        first.keeper.tell(first.case.subject, first.case.subject.revoke())
        publish(first)
        first.keeper.close()
        for name in ("store", "log"):
            _copy(first.keeper.folder / f"{name}.older", first.keeper.folder / name)
        first.keeper.open()
        first.begin()
        return first  # type: ignore[no-any-return]

    def test_a_node_as_its_peers_know_it_serves(self, members: Any) -> None:
        publish(members[0])
        members[0].restart()
        members[0].compare()
        assert members[0].standing.rollback == "checked"

    def test_an_older_copy_serves_nobody(self, members: Any) -> None:
        first = self.older(members)
        first.compare()
        assert first.standing.rollback == "rolled-back"
        assert "restore" in first.standing.problem
        with pytest.raises(UnavailableError):
            first.standing.require_service()

    def test_one_honest_peer_is_enough_to_prove_it(self, members: Any) -> None:
        first = self.older(members)
        members[1].down = members[2].down = True
        first.compare()
        assert first.standing.rollback == "rolled-back"

    def test_a_peer_that_comes_up_later_still_proves_it(self, members: Any) -> None:
        first = self.older(members)
        for one in members[1:]:
            one.down = True
        first.standing.rollback = "rollback-unchecked"
        publish(first)
        members[3].down = False
        first.keeper.custodian.published = (0, b"")
        publish(first)
        assert first.standing.rollback == "rolled-back"

    @pytest.mark.parametrize("said", [Answer(409, b"99999\n", {}), Answer(422, b"", {})])
    @pytest.mark.parametrize("proof", ["none", "garbage", "own", "forged", "older"])
    def test_a_liar_stops_nobody(self, members: Any, said: Answer, proof: str) -> None:
        first = members[0]
        publish(first)
        older = first.keeper.custodian.published[1]
        first.keeper.tell(first.case.subject, first.case.subject.revoke())
        publish(first)
        first.restart()
        name = first.keeper.log_signer.name
        checkpoint = Checkpoint(name, 99_999, bytes(32))
        shown = {
            "none": Answer(404, b"", {}),
            "garbage": Answer(200, b"\xff", {}),
            "own": Answer(200, members[2].keeper.custodian.sign(99_999, bytes(32)), {}),
            "forged": Answer(200, sign_checkpoint(checkpoint, signer=_stranger(name)), {}),
            "older": Answer(200, older, {}),
        }[proof]
        members[2].say = lambda path, body: said if path == "/witness/add-checkpoint" else shown
        first.compare()
        assert first.standing.rollback == "checked"
        publish(first)
        assert first.standing.rollback == "checked"
        assert first.standing.faults.get(members[2].token) in ("unproven", None)

    def test_another_history_of_the_same_length_is_proven_too(self, members: Any) -> None:
        first = members[0]
        publish(first)
        other = first.keeper.custodian.sign(first.keeper.size, bytes(32))
        members[2].say = lambda path, body: (
            Answer(422, b"", {}) if path == "/witness/add-checkpoint" else Answer(200, other, {})
        )
        first.restart()
        first.compare()
        assert first.standing.rollback == "rolled-back"

    def test_a_store_that_is_not_what_was_published_serves_nobody(self, members: Any) -> None:
        first = members[0]
        publish(first)
        first.keeper.writer.frontier.append_batch([bytes(32)])
        first.compare()
        assert first.standing.rollback == "rolled-back"

    def test_an_anchor_beyond_the_log_serves_nobody(self, members: Any) -> None:
        first = self.older(members)
        newest = members[1].witness.last(first.keeper.log_signer.name)
        assert newest is not None
        payload = Anchor(v=1, network=first.town.network, node=first.token, checkpoint=newest[2].decode(), proof=[])
        first.town.order(sign_transaction(payload, signers=[first.town.node_signer(0)]))
        for one in members[1:]:
            one.down = True
        first.compare()
        assert first.standing.rollback == "rolled-back"

    def test_when_nobody_answers_it_serves_unchecked_and_goes_on_asking(
        self, members: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(background, "ROLLBACK_WAIT_S", 0.01)
        first = members[0]
        for one in members[1:]:
            one.down = True
        first.begin()

        async def main() -> None:
            checking = asyncio.ensure_future(first.background._check_rollback())
            async with asyncio.timeout(20):
                while first.standing.rollback != "rollback-unchecked":  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
                first.standing.require_service()
                members[1].down = False
                await checking

        first.town.run(main())
        assert first.standing.rollback == "checked"


class TestAnchoring:
    def test_the_published_checkpoint_is_anchored_when_it_changed(self, members: Any) -> None:
        first, town = members[0], members[0].town
        town.run(first.background.anchor())
        assert first.submitted == []
        publish(first)
        town.run(first.background.anchor())
        (sent,) = first.submitted
        assert decode(unb64(sent.payload), Anchor).node == first.token
        assert town.directory.anchor(first.token).size == first.keeper.published_size
        town.run(first.background.anchor())
        assert len(first.submitted) == 1
        first.keeper.tell(first.case.subject, first.case.subject.revoke())
        publish(first)
        town.run(first.background.anchor())
        assert len(first.submitted) == 1, "no oftener than the network's parameter says"
        town.clock.ms += 2_000
        town.run(first.background.anchor())
        assert len(first.submitted) == 2
        assert town.directory.anchor(first.token).size == first.keeper.size

    def test_a_node_that_was_rolled_back_anchors_nothing(self, members: Any) -> None:
        publish(members[0])
        members[0].standing.rollback = "rolled-back"
        members[0].town.run(members[0].background.anchor())
        assert members[0].submitted == []


class TestSync:
    def test_everybody_gets_what_one_was_told(self, members: Any) -> None:
        first = members[0]
        records = first.case.treated(("results", "visits"))
        town = first.town
        for one in members[1:]:
            town.run(one.background.sync_all())
        for one in members[1:]:
            number = one.keeper.custodian.people.subject(first.case.subject.token)
            assert [row.record_id for row in one.keeper.shelf.all_of(number)] == records
            assert one.keeper.exchange.cursor(first.token) > 0
            assert one.standing.compared.keys() == {other.token for other in members if other is not one}

    def test_a_peer_that_is_down_was_not_compared_with(self, members: Any) -> None:
        members[2].down = True
        members[0].town.run(members[0].background.sync_all())
        assert members[2].token not in members[0].standing.compared

    @pytest.mark.parametrize(
        "said", [Answer(200, b"\xc1", {}), Answer(200, msgspec.msgpack.encode([]), {}), Answer(503, b"", {})]
    )
    def test_a_peer_that_answers_garbage_was_not_compared_with(self, members: Any, said: Answer) -> None:
        members[2].say = lambda *_: said
        members[0].town.run(members[0].background.sync_all())
        assert members[2].token not in members[0].standing.compared
        assert members[1].token in members[0].standing.compared

    def test_a_node_that_was_rolled_back_does_not_sync(self, members: Any, wire: Any) -> None:
        members[0].standing.rollback = "rolled-back"
        asked = len(wire.asked)
        members[0].town.run(members[0].background.sync_all())
        assert len(wire.asked) == asked

    def test_a_request_that_knows_a_newer_head_pulls_the_subjects_chain(self, members: Any) -> None:
        first, other = members[0], members[1]
        town, subject = first.town, first.case.subject
        town.run(other.background.sync_all())
        first.keeper.tell(subject, subject.revoke())
        state = subject.state
        town.run(other.standing.catch_up(subject.token, state.seq, state.head))
        number = other.keeper.custodian.people.subject(subject.token)
        assert other.keeper.custodian.chains.state(number).head == state.head

    def test_what_cannot_be_kept_yet_is_asked_for_again(self, members: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A block that this node lacks makes a document look wrong for a moment; the cursor waits for it."""
        first, other = members[0], members[1]
        keep = other.keeper.documents.keep

        async def not_yet(message: Any) -> Any:
            raise Error("unknown-identity", "no block yet")

        monkeypatch.setattr(other.keeper.documents, "keep", not_yet)
        first.town.run(other.background.sync_all())
        assert other.keeper.exchange.cursor(first.token) == 0
        monkeypatch.setattr(other.keeper.documents, "keep", keep)
        first.town.run(other.background.sync_all())
        assert other.keeper.exchange.cursor(first.token) > 0
        assert other.keeper.custodian.people.subject(first.case.subject.token) is not None


def test_a_duty_survives_a_bug_and_says_trouble_once(members: Any, caplog: pytest.LogCaptureFixture) -> None:
    first, rounds = members[0], []

    async def work() -> None:
        rounds.append(len(rounds))
        if len(rounds) == 1:
            raise TypeError("a bug")
        if len(rounds) <= 3:
            raise UnavailableError("unreachable", "no")
        if len(rounds) == 4:
            raise OSError(28, "full")

    async def main() -> None:
        duty = asyncio.ensure_future(first.background._every(0.001, "test", work))
        async with asyncio.timeout(20):
            while len(rounds) < 6:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        duty.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await duty

    first.town.run(main())
    said = [(record.message, record.fields.get("problem")) for record in caplog.records]  # type: ignore[attr-defined]
    assert said == [("bug", None), ("duty", "unreachable"), ("duty", "OSError"), ("duty", "over")]


def _copy(source: Any, target: Any) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def _stranger(name: str) -> Any:
    return Signer(name, Ed25519SigningKey(bytes(32)))
