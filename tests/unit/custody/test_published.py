"""The published log: derived from the store, mended from it, and never ahead of it. Crashes are in tests/fault."""

from __future__ import annotations

import shutil

import pytest

from careledger.access import verify_receipt
from careledger.custody.published import read_log_file
from careledger.custody.writer import Batch, Plan
from careledger.errors import NotFoundError, VerificationError
from careledger.tlog import EMPTY_ROOT, Checkpoint, Ed25519SigningKey, Signer, sign_checkpoint
from careledger.verify import folder_fetch, verify_log


def verified(keeper):
    return verify_log(folder_fetch(keeper.folder / "log"), verifier=keeper.log_signer.verifier)


@pytest.mark.parametrize(
    "path",
    [
        "../store/main.db",
        "tile/../../store/main.db",
        "/etc/passwd",
        "..",
        "",
        "tile",
        "nothing",
        "checkpoint/x",
        "a\0b",
    ],
)
def test_nothing_outside_the_folder_is_read(case, path):
    case.keeper.publish()
    with pytest.raises(NotFoundError):
        read_log_file(case.keeper.folder / "log", path)


def test_the_log_that_is_published_verifies_and_follows_the_store(case):
    case.treated()
    case.keeper.publish()
    assert verified(case.keeper).size == case.keeper.size
    case.keeper.ask(case.ask())
    assert case.keeper.published_size == case.keeper.size - 1
    assert case.keeper.files.size == case.keeper.size
    case.keeper.publish()
    assert verified(case.keeper).size == case.keeper.size


def test_entries_from_before_a_restart_are_published_after_it(case):
    case.treated()
    case.keeper.restart()
    case.keeper.publish()
    assert verified(case.keeper).size == case.keeper.size
    case.keeper.ask(case.ask())
    case.keeper.restart()
    assert case.keeper.files.size == case.keeper.size
    case.keeper.publish()
    assert verified(case.keeper).size == case.keeper.size


def test_an_empty_log_has_an_empty_tree(town):
    keeper = town.keeper()
    assert keeper.files.write() == (0, EMPTY_ROOT)
    assert keeper.custodian.published == (0, b"")


def test_a_folder_that_was_deleted_is_built_again(case):
    case.treated()
    case.keeper.publish()
    case.keeper.close()
    shutil.rmtree(case.keeper.folder / "log")
    case.keeper.open()
    assert case.keeper.custodian.published == (0, b"")
    case.keeper.publish()
    assert verified(case.keeper).size == case.keeper.size


def test_a_checkpoint_newer_than_the_store_stops_the_node(case):
    """An older copy of the store was put back (trust row 5)."""
    case.treated()
    case.keeper.close()
    shutil.copytree(case.keeper.folder / "store", case.keeper.folder / "copy")
    case.keeper.open()
    case.keeper.ask(case.ask())
    case.keeper.publish()
    case.keeper.close()
    shutil.rmtree(case.keeper.folder / "store")
    (case.keeper.folder / "copy").rename(case.keeper.folder / "store")
    with pytest.raises(VerificationError) as refusal:
        case.keeper.open()
    assert refusal.value.code == "rolled-back"


def test_a_checkpoint_of_another_key_promises_nothing(case):
    case.treated()
    case.keeper.publish()
    name = case.keeper.log_signer.name
    forger = Signer(name, Ed25519SigningKey(bytes(32)))
    case.keeper.close()
    (case.keeper.folder / "log" / "checkpoint").write_bytes(
        sign_checkpoint(Checkpoint(name, 10_000, bytes(32)), signer=forger)
    )
    case.keeper.open()
    assert case.keeper.custodian.published == (0, b"")
    case.keeper.publish()
    assert verified(case.keeper).size == case.keeper.size


def test_a_full_disk_interrupts_the_writing_and_a_repeated_call_goes_on(case, monkeypatch):
    case.treated()
    replace, calls = case.keeper.files._replace, []

    def failing(path, data):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        replace(path, data)

    monkeypatch.setattr(case.keeper.files, "_replace", failing)
    with pytest.raises(OSError, match="space"):
        case.keeper.files.write()
    assert case.keeper.files.size == case.keeper.size
    case.keeper.publish()
    assert verified(case.keeper).size == case.keeper.size


def test_a_full_disk_while_a_commit_is_under_way_counts_no_entry_twice(case, monkeypatch):
    """The writer's thread has committed and its leaves are still to come when the files are begun again."""
    case.treated()
    late = []
    monkeypatch.setattr(case.keeper.custodian.writer, "_committed", lambda *batch: late.append(batch))
    case.keeper.ask(case.ask())
    monkeypatch.undo()

    def full(path, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(case.keeper.files, "_replace", full)
        with pytest.raises(OSError, match="space"):
            case.keeper.files.write()
    for batch in late:
        case.keeper.files.add(*batch)
    assert case.keeper.files.size == case.keeper.size
    case.keeper.publish()
    assert verified(case.keeper).size == case.keeper.size


def test_a_receipt_of_an_old_entry_is_proven_without_a_published_checkpoint(case):
    receipt = case.town.run(case.keeper.custodian.receipt_of(1))
    body = verify_receipt(
        receipt,
        network=case.town.network,
        node=case.keeper.token,
        log_verifier=case.keeper.log_signer.verifier,
        kind="keep",
    )
    assert body.index == 1
    assert case.town.refused(case.keeper.custodian.receipt_of(10_000)) == "not-found"


def test_old_partial_tiles_go_once_a_full_one_is_published(case, monkeypatch):
    class Many:
        light = False

        def plan(self, batch: Batch) -> Plan:
            return Plan(entries=[("system", bytes(32), b"%d" % (batch.index + at), None) for at in range(200)])

    async def some():
        await case.keeper.writer.submit(Many())

    case.town.run(some())
    case.keeper.publish()
    partial = case.keeper.folder / "log/tile/0/000.p"
    assert partial.is_dir()
    case.town.run(some())
    case.keeper.publish()
    assert not partial.exists()
    assert verified(case.keeper).size == case.keeper.size
