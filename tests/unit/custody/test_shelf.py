"""Records on disk: each under its own wrapping key, so that destroying the key erases the record."""

from __future__ import annotations

import pytest

from careledger.custody import shelf
from careledger.custody.shelf import wrap
from careledger.errors import ErasedError, Error, VerificationError
from careledger.seal import open_content


def test_share_and_ciphertext_have_a_half_of_the_key_each_and_are_bound_to_the_record():
    key, record, share, ciphertext = bytes(range(64)), bytes(16), b"s" * 33, b"c" * 100
    wrapped = wrap(key, record=record, share=share, ciphertext=ciphertext)
    assert open_content(key[:32], wrapped.share, aad=record) == share
    assert open_content(key[32:], wrapped.ciphertext, aad=record) == ciphertext
    for half, data, aad in (
        (key[32:], wrapped.share, record),
        (key[:32], wrapped.ciphertext, record),
        (key[:32], wrapped.share, b"x" * 16),
        (key[32:], wrapped.ciphertext, b"x" * 16),
    ):
        with pytest.raises(VerificationError):
            open_content(half, data, aad=aad)


def test_a_record_whose_key_was_destroyed_is_erased_and_its_neighbour_is_not(case):
    gone, left = case.treated(("results", "visits"))
    entry = next(row.entry for row in case.keeper.shelf.all_of(1) if row.record_id == gone)
    case.keeper.store.keys.execute("DELETE FROM wrapping WHERE entry = ?", (entry,))
    with pytest.raises(ErasedError):
        case.keeper.ask(case.ask([gone]))
    assert case.keeper.ask(case.ask([left])).denied is None
    # Backups keep main.db, not keys.db: without the key nothing of the record can be had from it.
    disk = b"".join(path.read_bytes() for path in (case.keeper.folder / "store").iterdir())
    submission = case.seal()
    assert submission.ciphertexts[0] not in disk


def test_ciphertexts_and_shares_are_not_on_disk_as_they_came(case):
    submission = case.seal(("results", "visits"))
    case.keeper.accept(submission)
    case.keeper.store.main.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    disk = b"".join(path.read_bytes() for path in (case.keeper.folder / "store").iterdir())
    for ciphertext in submission.ciphertexts:
        assert ciphertext[:32] not in disk
    for manifest in submission.manifests:
        assert manifest in disk


def test_a_blob_that_was_exchanged_on_disk_does_not_open(case):
    one, _ = case.treated(("results", "visits"))
    rows = case.keeper.store.main
    entries = [row[0] for row in rows.execute("SELECT entry FROM blobs ORDER BY entry")]
    shares = dict(rows.execute("SELECT entry, share FROM blobs").fetchall())
    rows.execute("UPDATE blobs SET share = ? WHERE entry = ?", (shares[entries[1]], entries[0]))
    with pytest.raises(Error) as refusal:
        case.keeper.ask(case.ask([one]))
    assert refusal.value.code == "not-openable"


def test_many_records_come_in_the_order_asked_for(case):
    records = case.treated(("results",) * 130)
    wanted = records[::-1]
    number = case.keeper.custodian.people.subject(case.subject.token)
    rows = case.keeper.shelf.rows(number, [one.hex() for one in [*wanted, bytes(16)]])
    assert [row.record_id for row in rows] == wanted
    answer = case.keeper.ask(case.ask(wanted))
    assert answer.denied is None
    assert len(answer.submissions) == 1


def test_held_submissions_are_bounded(case, monkeypatch):
    monkeypatch.setattr(shelf, "_SUBMISSIONS_HELD", 1)
    for _ in range(3):
        case.keeper.accept(case.seal())
    answer = case.keeper.ask(case.ask(case.records()))
    assert len(answer.submissions) == 3
    assert len(case.keeper.shelf._held) == 1
