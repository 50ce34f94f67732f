"""Log first, act after: nothing is answered before the commit, and a commit that fails leaves nothing behind."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import threading
from typing import Any

import pytest

from careledger.access import verify_receipt
from careledger.custody.store import disk_error
from careledger.custody.writer import WAITING_MAX, Batch, Plan
from careledger.errors import UnavailableError
from careledger.tlog import leaf_hash, parse_proof


class Note:
    """A job that logs one entry and remembers in which batch it was planned."""

    def __init__(self, text: bytes = b"{}", *, light: bool = True) -> None:
        self.text = text
        self.light = light
        self.batch: Batch | None = None

    def plan(self, batch: Batch) -> Plan:
        self.batch = batch
        return Plan(entries=[("system", bytes(32), self.text, None)], answer=self.text)


class Broken(Note):
    def plan(self, batch: Batch) -> Plan:
        raise TypeError("a bug")


def test_nothing_is_answered_before_the_commit(case, monkeypatch):
    records = case.treated()
    keeper, at_commit = case.keeper, []
    commit = keeper.store.commit

    def watched(*work: Any) -> None:
        at_commit.append((keeper.writer.frontier.size, asked.done()))
        commit(*work)

    monkeypatch.setattr(keeper.store, "commit", watched)

    async def main() -> Any:
        nonlocal asked
        asked = asyncio.ensure_future(keeper.answer(case.ask(records)))
        return await asked

    asked: Any = None
    size = keeper.size
    answer = case.town.run(main())
    assert at_commit == [(size, False)]
    assert answer.denied is None
    assert keeper.size == size + 1


def test_shares_are_unwrapped_only_after_the_commit(case, monkeypatch):
    records = case.treated()
    order = []
    commit, shares = case.keeper.store.commit, case.keeper.shelf.shares
    monkeypatch.setattr(case.keeper.store, "commit", lambda *work: (commit(*work), order.append("commit")))
    monkeypatch.setattr(case.keeper.shelf, "shares", lambda rows: (order.append("shares"), shares(rows))[1])
    case.keeper.ask(case.ask(records))
    assert order == ["commit", "shares"]


@pytest.mark.parametrize("error", [sqlite3.OperationalError("database or disk is full"), sqlite3.DatabaseError("x")])
def test_a_failed_commit_refuses_forgets_and_changes_nothing(case, monkeypatch, error):
    records = case.treated()
    keeper, asked = case.keeper, case.ask(records)
    size, state = keeper.size, keeper.store.log_state()
    commit = keeper.store.commit

    def failing(*work: Any) -> None:
        raise error

    monkeypatch.setattr(keeper.store, "commit", failing)
    assert case.town.refused(keeper.answer(asked)) == disk_error(error).code
    assert keeper.writer.failed == disk_error(error).code
    assert (keeper.size, keeper.store.log_state()) == (size, state)
    assert keeper.release.seen.get(asked.id) is None
    monkeypatch.setattr(keeper.store, "commit", commit)
    answer = keeper.ask(asked)
    assert answer.denied is None
    assert keeper.writer.failed is None
    assert keeper.size == size + 1


def test_a_failed_commit_of_events_leaves_the_chain_where_it_was(case, monkeypatch):
    keeper, before = case.keeper, case.subject.state
    revoked = case.subject.revoke()
    commit = keeper.store.commit
    monkeypatch.setattr(keeper.store, "commit", _fail)
    assert case.town.refused(keeper.events.keep([revoked], subject=case.subject.token)) == "store-failed"
    monkeypatch.setattr(keeper.store, "commit", commit)
    number = keeper.custodian.people.subject(case.subject.token)
    assert keeper.custodian.chains.state(number).head == before.head
    keeper.tell(case.subject, revoked)
    assert keeper.custodian.chains.state(number).head == case.subject.state.head


def test_a_failed_commit_of_a_document_does_not_make_a_subject(town, monkeypatch):
    keeper, subject, other = town.keeper(), town.subject(), town.subject()
    commit = keeper.store.commit
    monkeypatch.setattr(keeper.store, "commit", _fail)
    assert town.refused(keeper.documents.keep(subject.message)) == "store-failed"
    assert keeper.custodian.people.subject(subject.token) is None
    monkeypatch.setattr(keeper.store, "commit", commit)
    keeper.keep(other)
    keeper.keep(subject)
    numbers = {keeper.custodian.people.subject(one.token) for one in (subject, other)}
    assert numbers == {1, 2}


def test_a_failed_commit_of_a_submission_takes_its_number_back(case, monkeypatch):
    keeper, submission = case.keeper, case.seal()
    before = keeper.acceptance.next_id
    commit = keeper.store.commit
    monkeypatch.setattr(keeper.store, "commit", _fail)
    assert case.town.refused(keeper.acceptance.accept(submission)) == "store-failed"
    monkeypatch.setattr(keeper.store, "commit", commit)
    assert keeper.acceptance.next_id == before
    keeper.accept(submission)
    assert len(case.records()) == 1


def _fail(*_: Any) -> None:
    raise sqlite3.OperationalError("locked")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("database or disk is full", "disk-full"),
        ("disk I/O error", "disk-full"),
        ("attempt to write a readonly database", "store-failed"),
    ],
)
def test_disk_errors_are_passing_refusals(text, code):
    problem = disk_error(sqlite3.OperationalError(text))
    assert isinstance(problem, UnavailableError)
    assert problem.code == code
    assert text not in problem.message


def test_concurrent_jobs_share_one_commit_and_get_indexes_in_order(town, monkeypatch):
    keeper, commits = town.keeper(), []
    commit = keeper.store.commit

    def counted(entries: Any, *rest: Any) -> None:
        entries = list(entries)
        commits.append(len(entries))
        commit(entries, *rest)

    monkeypatch.setattr(keeper.store, "commit", counted)
    jobs = [Note(b'{"n":%d}' % number) for number in range(40)]

    async def main() -> Any:
        return await asyncio.gather(*(keeper.writer.submit(job) for job in jobs))

    done = town.run(main())
    assert commits == [40]
    assert [committed.index for _, committed in done] == list(range(40))
    assert [row[0] for row in keeper.store.bodies(0, 40)] == list(range(40))
    assert {job.batch.now_ms for job in jobs} == {town.clock()}


def test_proofs_of_a_shared_batch_hold_for_every_job(case):
    records = case.treated()
    asked = [case.ask(records) for _ in range(12)]
    answers = case.town.together(*(case.keeper.answer(one) for one in asked))
    indexes = [
        verify_receipt(
            answer.receipt,
            network=case.town.network,
            node=case.keeper.token,
            log_verifier=case.keeper.log_signer.verifier,
            kind="access",
        ).index
        for answer in answers
    ]
    assert sorted(indexes) == list(range(case.keeper.size - 12, case.keeper.size))
    assert len({parse_proof(answer.receipt.proof).checkpoint for answer in answers}) == 1


def test_one_heavy_job_a_batch_so_that_opens_do_not_wait_for_imports(town, monkeypatch):
    keeper, batches = town.keeper(), []
    commit = keeper.store.commit

    def noted(entries: Any, *rest: Any) -> None:
        entries = list(entries)
        batches.append([one[4] for one in entries])
        commit(entries, *rest)

    monkeypatch.setattr(keeper.store, "commit", noted)
    heavy = [Note(b'"heavy"', light=False) for _ in range(3)]
    light = [Note(b'"light"') for _ in range(3)]

    async def main() -> None:
        await asyncio.gather(*(keeper.writer.submit(job) for job in [*heavy, *light]))

    town.run(main())
    assert batches == [[b'"light"'] * 3 + [b'"heavy"'], [b'"heavy"'], [b'"heavy"']]


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 70])
def test_a_batch_of_any_size_is_stored_whole_and_in_order(town, count):
    keeper = town.keeper()
    bodies = [b'{"n":%d}' % number for number in range(count)]

    class Many(Note):
        def plan(self, batch: Batch) -> Plan:
            return Plan(entries=[("system", bytes(32), body, None) for body in bodies])

    town.run(_one(keeper, Note()))
    town.run(_one(keeper, Many(light=False)))
    stored = list(keeper.store.bodies(0, 2 * count + 2))
    assert [(index, body) for index, _, _, _, body in stored] == list(enumerate([b"{}", *bodies]))
    keeper.publish()
    assert keeper.published_size == count + 1


def test_a_revocation_does_not_wait_behind_imports_that_came_before_it(case):
    keeper, size = case.keeper, case.keeper.size
    revocation = case.subject.revoke()

    async def main() -> None:
        imports = [keeper.writer.submit(Note(b'{"kind":"import"}', light=False)) for _ in range(3)]
        await asyncio.gather(keeper.events.keep([revocation], subject=case.subject.token), *imports)

    case.town.run(main())
    # The first one was under way when it came.
    assert [one.get("reason", "import") for one in keeper.entries(size)] == ["import", "consent", "import", "import"]


def test_a_lone_access_is_committed_in_place_and_anything_else_on_the_commit_thread(town, monkeypatch):
    keeper, threads = town.keeper(), []
    commit = keeper.store.commit
    monkeypatch.setattr(
        keeper.store, "commit", lambda *work: (threads.append(threading.current_thread()), commit(*work))
    )
    town.run(_one(keeper, Note()))
    town.run(_one(keeper, Note(light=False)))
    assert threads[0] is threading.main_thread()
    assert threads[1] is not threading.main_thread()


def test_the_commit_of_a_waiting_heavy_job_begins_before_the_batch_before_is_answered(town, monkeypatch):
    keeper, order = town.keeper(), []
    run = asyncio.BaseEventLoop.run_in_executor

    def begun(loop: Any, executor: Any, *work: Any) -> Any:
        order.append("begins")
        return run(loop, executor, *work)

    monkeypatch.setattr(asyncio.BaseEventLoop, "run_in_executor", begun)

    async def main() -> None:
        jobs = [keeper.writer.submit(Note(light=False)) for _ in range(3)]
        for job in jobs:
            job.add_done_callback(lambda _: order.append("answered"))
        await asyncio.gather(*jobs)

    town.run(main())
    assert order == ["begins", "begins", "answered", "begins", "answered", "answered"]


def test_heavy_jobs_that_are_all_refused_take_a_turn_of_the_loop_each(town):
    """However many wait: refusing one must not go deeper into the stack."""

    class Refused(Note):
        def plan(self, batch: Batch) -> Plan:
            raise UnavailableError("no", "no")

    keeper = town.keeper()

    async def main() -> list[Any]:
        jobs = [Refused(light=False) for _ in range(WAITING_MAX)]
        return await asyncio.gather(*(keeper.writer.submit(job) for job in jobs), return_exceptions=True)

    assert {type(one) for one in town.run(main())} == {UnavailableError}
    assert keeper.size == 0


async def _one(keeper: Any, job: Note) -> Any:
    return await keeper.writer.submit(job)


def test_too_many_waiting_jobs_are_refused_as_busy(town):
    keeper = town.keeper()

    async def main() -> list[Any]:
        futures = [keeper.writer.submit(Note()) for _ in range(WAITING_MAX + 3)]
        return await asyncio.gather(*futures, return_exceptions=True)

    done = town.run(main())
    refused = [one for one in done if isinstance(one, UnavailableError)]
    assert [one.code for one in refused] == ["busy"] * 3
    assert keeper.size == WAITING_MAX


def test_a_bug_in_one_job_fails_that_job_alone(town):
    keeper = town.keeper()

    async def main() -> list[Any]:
        jobs = [Note(), Broken(), Note()]
        return await asyncio.gather(*(keeper.writer.submit(job) for job in jobs), return_exceptions=True)

    first, bug, last = town.run(main())
    assert isinstance(bug, TypeError)
    assert (first[1].index, last[1].index, keeper.size) == (0, 1, 2)


def test_a_bug_in_the_commit_is_not_swallowed_and_the_next_job_is_fine(town, monkeypatch):
    keeper, commit = town.keeper(), town.keepers[0].store.commit

    def broken(*_: Any) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr(keeper.store, "commit", broken)
    for light in (False, True):
        with pytest.raises(TypeError):
            town.run(_one(keeper, Note(light=light)))
    monkeypatch.setattr(keeper.store, "commit", commit)
    town.run(_one(keeper, Note()))
    assert keeper.size == 1


def test_a_job_whose_asker_is_gone_is_not_done(town):
    keeper = town.keeper()

    async def main() -> None:
        future = keeper.writer.submit(Note())
        future.cancel()
        await keeper.writer.submit(Note(b'{"n":1}'))

    town.run(main())
    assert [row[4] for row in keeper.store.bodies(0, keeper.size)] == [b'{"n":1}']


def test_closing_waits_for_what_is_under_way(town):
    keeper = town.keeper()

    async def main() -> None:
        futures = [keeper.writer.submit(Note(light=False)) for _ in range(3)]
        await keeper.writer.drain()
        assert all(future.done() for future in futures)

    town.run(main())
    keeper.store.close()
    keeper.is_open = False
    keeper.open()
    assert keeper.size == 3


def test_the_log_goes_on_after_a_restart_with_the_same_tree(town):
    keeper = town.keeper()
    for number in range(5):
        town.run(_one(keeper, Note(b'{"n":%d}' % number)))
    before = keeper.writer.frontier.root()
    keeper.restart()
    assert (keeper.size, keeper.writer.frontier.root()) == (5, before)
    _, committed = town.run(_one(keeper, Note(b'{"n":5}')))
    keeper.files.write()
    assert keeper.files.tail.root() == keeper.writer.frontier.root()
    assert committed.index == 5


def test_keys_are_synced_before_the_entries_that_need_them(case, monkeypatch):
    store, order = case.keeper.store, []
    run = type(store)._run
    monkeypatch.setattr(
        type(store), "_run", staticmethod(lambda connection, *rest: (order.append(connection), run(connection, *rest)))
    )
    case.keeper.accept(case.seal())
    assert order == [store.keys, store.main]


def test_leaves_commit_to_salt_and_body(town):
    keeper = town.keeper()
    town.run(_one(keeper, Note(b'{"n":1}')))
    keeper.publish()
    ((_, _, digest, salt, body),) = keeper.store.bodies(0, 1)
    text = b"careledger/entry/v1 system " + digest.hex().encode()
    assert keeper.files.tail.root() == leaf_hash(text)
    assert hashlib.sha256(salt + body).digest() == digest
