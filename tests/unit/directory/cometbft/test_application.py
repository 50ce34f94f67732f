"""The application: CometBFT's calls in the order in which it makes them, and in orders that faults bring."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from careledger.directory import Directory, Remove, StateProof, parse_block
from careledger.directory.engines.cometbft import messages as abci
from careledger.directory.engines.cometbft import replica as replica_module
from careledger.directory.engines.cometbft.chain import TRANSACTION_BYTES_MAX, milliseconds
from careledger.directory.engines.cometbft.replica import EngineReplica, ExecutionFault
from careledger.directory.rules import Execution
from careledger.directory.validators import POWER
from careledger.errors import ConflictError, Error, MalformedError, UnavailableError, VerificationError
from careledger.seal import decode, encode


def enrolments(chain: Any, count: int) -> list[bytes]:
    return [encode(chain.world.enrol(chain.world.person())) for _ in range(count)]


def test_a_new_chain_begins_with_the_genesis_app_hash(chain: Any) -> None:
    info = chain.info()
    assert (info.last_block_height, info.last_block_app_hash, info.app_version) == (0, b"", 1)
    assert chain.init_chain().app_hash == Directory.from_genesis(chain.world.genesis).app_hash()
    assert chain.info().last_block_height == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chain_id", "careledger-other"),
        ("app_state_bytes", b'"e30"'),
        ("initial_height", 2),
        ("validators", ()),
        ("validators", (abci.ValidatorUpdate(abci.PublicKey(bytes(32)), 10),)),
    ],
)
def test_another_networks_genesis_is_refused(chain: Any, field: str, value: Any) -> None:
    with pytest.raises(VerificationError) as caught:
        chain.init_chain(**{field: value})
    assert caught.value.code == "wrong-genesis"


def test_a_block_is_nothing_until_its_commit(chain: Any) -> None:
    before = chain.directory.app_hash()
    answer = chain.finalize(enrolments(chain, 2))
    assert answer.app_hash != before
    assert (chain.directory.app_hash(), chain.replica.store.height()) == (before, 0)
    chain.call(commit=abci.Empty())
    assert chain.directory.app_hash() == answer.app_hash == chain.replica.store.app_hash(1)
    assert chain.info().last_block_app_hash == answer.app_hash


def test_an_empty_block_changes_no_app_hash(chain: Any) -> None:
    before = chain.directory.app_hash()
    assert chain.run() == []
    assert chain.directory.app_hash() == before
    assert chain.directory.height == 1


def test_refused_transactions_have_their_code_and_no_effect(chain: Any) -> None:
    good = enrolments(chain, 1)[0]
    stranger = chain.world.party()
    person = chain.world.person()
    foreign = encode(stranger.as_node(type_of_enrol(chain, stranger, person)))
    junk = [b"", b"junk", b"{}", good + b" ", good.replace(b"payloadType", b"payloadtype"), b"[" * 60_000]
    codes = chain.run(*junk, good, good, foreign, b"x" * (TRANSACTION_BYTES_MAX + 1))
    assert codes[-4:] == ["ok", "exists", "unknown-identity", "too-large"]
    assert "ok" not in codes[: len(junk)]
    block = parse_block(chain.replica.block(1))
    assert [encode(one) for one in block.transactions] == [good]
    assert encode(block) == chain.replica.block(1)
    alone = Directory.from_genesis(chain.world.genesis)
    alone.apply(block)
    assert alone.app_hash() == chain.directory.app_hash()


def type_of_enrol(chain: Any, party: Any, person: Any) -> Any:
    from careledger.directory import Enrol

    return Enrol(v=1, network=chain.world.network, node=party.node, inception=person.envelope)


def test_results_that_cometbft_hashes_say_accepted_or_refused_and_nothing_else(chain: Any) -> None:
    result = chain.finalize([b"junk"]).tx_results[0]
    assert (result.code, result.codespace, result.log) == (1, "careledger", "not-json")
    assert (result.data, result.gas_wanted, result.gas_used) == (b"", 0, 0)
    assert result.info


def test_block_time_is_cut_to_milliseconds_and_never_goes_back(chain: Any) -> None:
    chain.nanos = 999_999
    chain.run()
    assert chain.directory.time_ms == chain.world.now_ms
    chain.finalize([], time_ms=chain.world.now_ms - 5)
    chain.call(commit=abci.Empty())
    assert chain.directory.time_ms == chain.world.now_ms
    assert milliseconds(abci.Timestamp(1, 999_999_999)) == 1999
    assert milliseconds(abci.Timestamp(-62_135_596_800, 0)) == milliseconds(None) == 0


def test_operations_are_found_by_their_place_among_accepted_ones(chain: Any) -> None:
    people = [chain.world.person() for _ in range(2)]
    chain.run(b"junk", chain.world.enrol(people[0]), b"junk", chain.world.enrol(people[1]))
    assert chain.replica.operations(people[1].token) == [people[1].envelope]
    founder = chain.world.parties[0]
    assert chain.replica.operations(founder.node) == [founder.software.envelope]


def test_a_new_connection_forgets_a_block_that_was_not_committed(chain: Any) -> None:
    transactions = enrolments(chain, 1)
    first = chain.finalize(transactions)
    assert chain.info().last_block_height == 0
    with pytest.raises(AssertionError):
        chain.call(commit=abci.Empty())
    chain.world.now_ms -= 1000
    assert chain.finalize(transactions).app_hash == first.app_hash
    chain.call(commit=abci.Empty())
    assert chain.info().last_block_height == 1


def test_a_restart_executes_the_history_again(chain: Any) -> None:
    for _ in range(5):
        chain.run(*enrolments(chain, 2))
    height, app_hash = chain.replica.height, chain.directory.app_hash()
    chain.restart()
    assert (chain.replica.height, chain.directory.app_hash()) == (height, app_hash)
    assert chain.info().last_block_height == height


def test_an_older_or_lost_store_takes_the_same_blocks_again(chain: Any, tmp_path: Path) -> None:
    blocks = [(enrolments(chain, 2), chain.world.now_ms + 1000 * number) for number in range(1, 5)]
    hashes = []
    for height, (transactions, time_ms) in enumerate(blocks, 1):
        hashes.append(chain.finalize(transactions, height=height, time_ms=time_ms).app_hash)
        chain.call(commit=abci.Empty())
    chain.replica.close()
    chain.path = tmp_path / "fresh.db"
    chain.open()
    assert chain.info().last_block_height == 0
    again = []
    for height, (transactions, time_ms) in enumerate(blocks, 1):
        again.append(chain.finalize(transactions, height=height, time_ms=time_ms).app_hash)
        chain.call(commit=abci.Empty())
    assert again == hashes


def test_a_commit_that_reported_failure_but_was_stored_is_found(chain: Any) -> None:
    answer = chain.finalize(enrolments(chain, 1))
    executed = chain.replica._decided
    store = chain.replica.store
    with store.writing():
        store.add_block(executed.height, executed.block, executed.outcome.operations)
        store.add_commit(executed.height, executed.app_hash)
    assert chain.info().last_block_height == 1
    assert chain.directory.app_hash() == answer.app_hash


def test_a_full_disk_keeps_nothing_and_the_same_block_goes_in_later(
    chain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    transactions = enrolments(chain, 1)
    before = chain.directory.app_hash()

    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(chain.replica.store, "add_commit", full)
        answer = chain.finalize(transactions)
        with pytest.raises(UnavailableError, match="disk is full") as caught:
            chain.call(commit=abci.Empty())
    assert caught.value.code == "store-failed"
    assert (chain.directory.app_hash(), chain.info().last_block_height) == (before, 0)
    chain.world.now_ms -= 1000
    assert chain.finalize(transactions).app_hash == answer.app_hash
    chain.call(commit=abci.Empty())
    assert chain.info().last_block_height == 1


def test_a_store_put_back_under_the_running_node_is_noticed(chain: Any) -> None:
    chain.run()
    chain.run()
    chain.replica.store._db.execute("DELETE FROM blocks WHERE height = 2")
    with pytest.raises(VerificationError) as caught:
        chain.info()
    assert caught.value.code == "store-changed"


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("UPDATE commits SET app_hash = zeroblob(32) WHERE height = 2", "another app hash"),
        ("UPDATE blocks SET data = (SELECT data FROM blocks WHERE height = 1) WHERE height = 2", "block 1 can't"),
        ("UPDATE blocks SET data = CAST(replace(data, ',\"v\":1}', ',\"v\":2}') AS BLOB) WHERE height = 2", "$.v"),
    ],
)
def test_a_store_that_was_altered_is_refused_and_the_way_out_is_named(chain: Any, damage: str, why: str) -> None:
    for _ in range(3):
        chain.run(*enrolments(chain, 1))
    chain.replica.close()
    with sqlite3.connect(chain.path) as db:
        db.execute(damage)
    db.close()
    with pytest.raises(VerificationError, match="move the file away") as caught:
        EngineReplica(chain.path, genesis=chain.world.genesis)
    assert caught.value.code == "wrong-block"
    assert why in caught.value.message
    assert caught.value.details == {"height": 2}


def test_a_row_that_was_altered_inside_a_block_is_noticed(chain: Any) -> None:
    """A chained app hash would not see it; executing the history again does."""
    people = enrolments(chain, 2)
    chain.run(people[0])
    other = people[1]
    chain.replica.close()
    with sqlite3.connect(chain.path) as db:
        data = db.execute("SELECT data FROM blocks").fetchone()[0]
        db.execute("UPDATE blocks SET data = ?", (data.replace(people[0], other),))
    db.close()
    with pytest.raises(VerificationError, match="another app hash"):
        EngineReplica(chain.path, genesis=chain.world.genesis)


def sequenced(chain: Any, tmp_path: Path) -> tuple[list[bytes], bytes]:
    """Some blocks of the embedded engine on the same genesis, and the app hash after them."""
    sequencer = chain.world.sequencer(tmp_path)
    for _ in range(3):
        chain.world.now_ms += 1000
        sequencer.submit([chain.world.enrol(chain.world.person())], now_ms=chain.world.now_ms)
    found = sequencer.blocks_after(0)
    assert found is not None
    app_hash = sequencer.directory.app_hash()
    sequencer.close()
    return found[0], app_hash


def test_a_history_of_the_embedded_engine_is_taken_over_and_goes_on(chain: Any, tmp_path: Path) -> None:
    blocks, app_hash = sequenced(chain, tmp_path)
    chain.replica.take_over(blocks)
    assert chain.directory.app_hash() == app_hash
    assert chain.info().last_block_height == 0
    with pytest.raises(VerificationError):
        chain.init_chain(initial_height=1)
    assert chain.init_chain(initial_height=len(blocks) + 1).app_hash == app_hash
    assert chain.run(*enrolments(chain, 1)) == ["ok"]
    assert chain.info().last_block_height == len(blocks) + 1
    chain.restart()
    assert chain.info().last_block_height == chain.replica.height == len(blocks) + 1
    assert [chain.replica.block(height) for height in range(1, len(blocks) + 1)] == blocks
    with pytest.raises(ConflictError) as caught:
        chain.replica.take_over(blocks)
    assert caught.value.code == "not-empty"


def test_a_history_that_breaks_the_rules_is_not_taken_over(chain: Any, tmp_path: Path) -> None:
    blocks, _ = sequenced(chain, tmp_path)
    with pytest.raises(VerificationError) as caught:
        chain.replica.take_over([*blocks[:2], blocks[1]])
    assert caught.value.code == "wrong-block"
    assert chain.replica.store.height() == 0


def test_another_networks_store_is_refused(chain: Any, make_world: Any) -> None:
    with pytest.raises(ConflictError) as caught:
        EngineReplica(chain.path, genesis=make_world(seed="other", validates=True).genesis)
    assert caught.value.code == "other-network"


def test_validator_updates_follow_the_members(chain: Any) -> None:
    world = chain.world
    newcomer = world.party()
    assert chain.run(world.enrol(newcomer.software), world.enrol(newcomer.organisation)) == ["ok", "ok"]
    from careledger.directory import Admit

    envelope, ident = world.propose(Admit(member=newcomer.token, roles=["provider"], nodes=[newcomer.entry]))
    answer = chain.finalize([encode(one) for one in (envelope, world.vote(ident, 1), world.vote(ident, 2))])
    chain.call(commit=abci.Empty())
    update = abci.ValidatorUpdate(abci.PublicKey(newcomer.consensus_key.public), POWER)
    assert answer.validator_updates == (update,)
    envelope, ident = world.propose(Remove(member=world.parties[3].token))
    votes = [encode(world.vote(ident, by)) for by in (1, 2)]
    assert chain.finalize([encode(envelope), *votes]).validator_updates == ()
    chain.call(commit=abci.Empty())
    world.parties[3] = newcomer
    answer = chain.finalize([encode(world.vote(ident, 3))])
    assert [update.power for update in answer.validator_updates] == [0]


def test_checks_see_what_was_accepted_before_them(chain: Any) -> None:
    from careledger import identity as idy

    person = chain.world.person()
    twin = Directory.from_genesis(chain.world.genesis)
    world = chain.world
    world.directory.apply(world.block(world.enrol(person)))
    state = world.directory.identity(person.token)
    update, *_ = idy.build_update(
        network=world.network,
        token=person.token,
        state=state,
        document=idy.open_document(person.salt, person.document, state.document),
        device=person.secrets.device.signing_key(),
        rand=world.rand,
    )
    first, second = encode(world.enrol(person)), encode(update)
    assert chain.check(second) == "unknown-identity"
    assert [chain.check(first), chain.check(second), chain.check(first)] == ["ok", "ok", "ok"]
    # A block without them resets what checks stand on; what waits still counts.
    chain.run()
    assert twin.app_hash() == chain.directory.app_hash()
    chain.app.admission._waiting.pop(next(reversed(chain.app.admission._waiting)))
    assert chain.check(second) == "ok"
    assert chain.run(first, second) == ["ok", "ok"]
    assert chain.check(first) == "exists"


def test_checks_never_raise_and_a_bug_of_the_rules_is_a_refusal(
    chain: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good, other = enrolments(chain, 2)

    def broken(*_: Any, **__: Any) -> None:
        raise TypeError("a bug")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(Execution, "run", broken)
        assert chain.check(good) == "internal-error"
    assert "check-failed" in caplog.text
    assert chain.check(other) == chain.check(good) == "ok"


def test_a_flood_of_refused_checks_leaves_nothing_behind(chain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from careledger.directory.engines.cometbft import admission

    monkeypatch.setattr(admission, "_RUNS_MAX", 3)
    monkeypatch.setattr(admission, "WAITING_MAX", 2)
    people = enrolments(chain, 4)
    assert [chain.check(one) for one in people] == ["ok"] * 4
    assert len(chain.app.admission._waiting) == 2
    bad = encode(chain.world.person().envelope)
    assert [chain.check(bad) for _ in range(9)] == ["not-enrolled"] * 9
    assert chain.app.admission._runs <= 3 + 2


def test_a_signature_is_checked_once_for_check_proposal_and_block(chain: Any) -> None:
    people = enrolments(chain, 3)
    for one in people:
        chain.check(one)
    checked = chain.replica.proven.checks
    assert checked >= 3
    assert chain.prepare(people) == tuple(people)
    assert chain.process(people) == abci.ACCEPT
    assert chain.run(*people) == ["ok"] * 3
    assert chain.replica.proven.checks == checked


def test_a_block_that_was_proposed_is_not_executed_twice(chain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    people = enrolments(chain, 2)
    assert chain.process(people) == abci.ACCEPT
    monkeypatch.setattr(replica_module.Execution, "run", lambda *_, **__: pytest.fail("executed again"))
    assert chain.run(*people) == ["ok", "ok"]


def test_rounds_leave_a_bounded_number_of_executions(chain: Any) -> None:
    for _ in range(9):
        chain.process(enrolments(chain, 1))
    assert len(chain.replica._executed) <= 4


def test_a_proposal_keeps_order_and_size_and_takes_refused_ones_along(chain: Any) -> None:
    first, second, third = enrolments(chain, 3)
    assert chain.prepare([first, first, second]) == (first, first, second)
    room = len(first) + len(second) + 6
    assert chain.prepare([first, second, third], room=room) == (first, second)
    assert chain.prepare([first, second, third], room=room - 1) == (first,)
    assert chain.prepare([b"junk", first]) == (first,)


def test_a_proposal_with_bytes_that_are_no_transaction_is_rejected_and_its_proposer_named(
    chain: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good = enrolments(chain, 1)
    assert chain.process(good) == abci.ACCEPT
    assert chain.process([*good, *good]) == abci.ACCEPT
    with caplog.at_level(logging.WARNING):
        assert chain.process([*good, b"junk"]) == abci.REJECT
    assert caplog.records[-1].fields == {"height": 1, "proposer": "00" * 20, "why": "not-json"}  # type: ignore[attr-defined]


def test_a_transaction_at_which_the_rules_fail_gets_into_no_block(chain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    good, poison = enrolments(chain, 2)
    run = Execution.run

    def failing(self: Execution, envelope: Any, **more: Any) -> Any:
        if encode(envelope) == poison:
            raise KeyError("a bug")
        return run(self, envelope, **more)

    monkeypatch.setattr(Execution, "run", failing)
    assert chain.prepare([poison, good]) == (poison, good)
    assert chain.process([poison, good]) == abci.REJECT
    assert chain.prepare([poison, good]) == (good,)
    assert chain.process([good]) == abci.ACCEPT
    with pytest.raises(ExecutionFault):
        chain.finalize([poison])
    assert chain.run(good) == ["ok"]


def test_queries_prove_what_the_state_holds(chain: Any) -> None:
    person = chain.world.person()
    chain.run(chain.world.enrol(person))
    answer = chain.call(query=abci.QueryRequest(path=f"/state/identity/{person.token}"))
    assert (answer.code, answer.height) == (0, 1)
    proof = decode(answer.value, StateProof)
    assert (proof.kind, proof.id) == ("identity", person.token)
    assert answer.value == encode(chain.directory.prove_state("identity", person.token))
    for path, height, code in (
        ("/state/identity", 0, "bad-query"),
        ("x", 0, "bad-query"),
        ("/state/a/b", 99, "too-old"),
    ):
        answer = chain.call(query=abci.QueryRequest(path=path, height=height))
        assert (answer.code, answer.log) == (1, code)


def test_calls_that_are_not_needed_are_answered(chain: Any) -> None:
    assert chain.call(echo=abci.Echo("hello")) == abci.Echo("hello")
    assert chain.call(flush=abci.Empty()) == chain.call(extend_vote=abci.Empty()) == abci.Empty()
    assert chain.call(verify_vote_extension=abci.Empty()).status == abci.ACCEPT
    assert chain.call(list_snapshots=abci.Empty()) == chain.call(load_snapshot_chunk=abci.Empty()) == abci.Empty()
    assert chain.call(offer_snapshot=abci.Empty()).result == 3
    assert chain.call(apply_snapshot_chunk=abci.Empty()).result == 2


@pytest.mark.parametrize("call", [{}, {"flush": abci.Empty(), "echo": abci.Echo()}])
def test_a_request_makes_one_call(chain: Any, call: dict[str, Any]) -> None:
    with pytest.raises(MalformedError) as caught:
        chain.app.answer(abci.Request(**call))
    assert caught.value.code == "bad-request"


def test_misbehaviour_names_the_validator(chain: Any, caplog: pytest.LogCaptureFixture) -> None:
    found = abci.Misbehavior(1, abci.Validator(bytes(range(20)), 10), 4)
    with caplog.at_level(logging.ERROR):
        chain.call(finalize_block=abci.FinalizeBlockRequest(height=1, misbehavior=(found,)))
    assert caplog.records[-1].fields["validator"] == bytes(range(20)).hex().upper()  # type: ignore[attr-defined]


def test_a_block_that_is_not_the_next_ends_the_engine(chain: Any) -> None:
    with pytest.raises(Error) as caught:
        chain.finalize([], height=5)
    assert caught.value.code == "bad-height"
