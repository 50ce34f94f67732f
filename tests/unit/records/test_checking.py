"""What a custodian refuses before it gives a receipt; each test is an author or carrier who tried."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec
import pytest

from careledger.errors import Error, MalformedError, VerificationError
from careledger.records import (
    RECORDS_MAX,
    SUBMISSION_MAX,
    check_steps,
    decode_submission,
    encode_submission,
)
from careledger.records.checking import FUTURE_MS, SLICE
from careledger.records.locks import Lock, decode_lock, encode_lock
from careledger.seal import SealingKey, SealingPublicKey, SigningKey, VerifyKey, encode, share_commitment, sign


def refusal(world: Any, submission: Any, **changes: Any) -> str:
    with pytest.raises(Error) as refused:
        world.check(submission, **changes)
    return refused.value.code


def replace(value: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(value, **changes)


def test_every_custodian_of_the_document_accepts_what_an_honest_author_sealed(world: Any) -> None:
    submission = decode_submission(encode_submission(world.seal()))
    for place in range(1, world.n + 1):
        checked = world.check(submission, place=place)
        assert [one.share[-1] for one in checked.records] == [place] * 3
        assert [one.manifest_bytes for one in checked.records] == submission.manifests
        assert [one.manifest.recorded for one in checked.records] == [world.now_ms] * 3
        assert len(checked.locks) == 1 + 2 + world.n
        for one in checked.locks:
            assert submission.lock_leaves[one.position] is not None
        assert len(checked.message_id) == 32


def test_checking_pauses_after_the_locks_and_after_each_slice(world: Any) -> None:
    submission = world.seal(2 * SLICE + 1)
    keyid, key = world.custodians[0]
    steps = check_steps(
        submission,
        network=world.network,
        author_key=VerifyKey(world.author_key.public),
        custodian=keyid,
        sealing_key=key,
        place=1,
        n=world.n,
        now_ms=world.now_ms,
    )
    assert sum(1 for _ in steps) == 3


def test_a_signature_by_another_key_is_refused(world: Any) -> None:
    stranger = VerifyKey(SigningKey(bytes(31) + b"\x01").public)
    assert refusal(world, world.seal(), author_key=stranger) == "bad-signature"


def test_a_second_signature_is_refused_even_a_valid_one(world: Any) -> None:
    submission = world.seal()
    statement = world.statement(submission)
    both = sign(
        statement.TYPE, encode(statement), [(world.author, world.author_key), ("cl1zweitens#0", world.author_key)]
    )
    assert refusal(world, replace(submission, envelope=encode(both))) == "no-signature"


def test_an_envelope_of_another_type_is_refused(world: Any) -> None:
    submission = world.seal()
    other = sign(
        "application/vnd.careledger.access+json",
        encode(world.statement(submission)),
        [(world.author, world.author_key)],
    )
    assert refusal(world, replace(submission, envelope=encode(other))) == "wrong-type"


def test_a_submission_of_another_network_is_refused(world: Any) -> None:
    assert refusal(world, world.seal(), network="00" * 32) == "wrong-network"


def test_an_author_cannot_sign_under_anothers_keyid(world: Any) -> None:
    submission = world.seal()
    statement = world.statement(submission)
    envelope = world.sign(statement, keyid="cl1somebody#0")
    assert refusal(world, replace(submission, envelope=envelope)) == "wrong-author"


def test_an_unknown_version_is_refused(world: Any) -> None:
    submission = world.seal()
    assert refusal(world, world.forge(submission, v=2)) == "unknown-version"
    assert refusal(world, world.change_manifest(submission, 0, v=2)) == "unknown-version"


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("submission", "AA" * 16, "bad-hex"),
        ("nonce", "00" * 15, "bad-hex"),
        ("manifests_root", "00" * 31, "bad-hex"),
        ("locks_root", "zz" * 32, "bad-hex"),
        ("subject", "not a token", "bad-keyid"),
        ("author", "cl1author", "bad-keyid"),
    ],
)
def test_malformed_statements_are_refused(world: Any, field: str, value: str, code: str) -> None:
    assert refusal(world, world.forge(world.seal(1), **{field: value})) == code


def test_dates_beyond_the_tolerance_are_refused_and_told_the_nodes_time(world: Any) -> None:
    submission = world.seal()
    assert world.check(submission, now_ms=world.now_ms - FUTURE_MS)
    with pytest.raises(VerificationError) as refused:
        world.check(submission, now_ms=world.now_ms - FUTURE_MS - 1)
    assert refused.value.code == "bad-time"
    assert refused.value.details == {"time": world.now_ms - FUTURE_MS - 1}
    late = world.change_manifest(submission, 1, recorded=world.now_ms + FUTURE_MS + 1)
    assert refusal(world, late) == "bad-time"
    assert refusal(world, world.forge(submission, time=-1)) == "bad-time"


# Trees


@pytest.mark.parametrize("root", ["manifests_root", "locks_root"])
def test_leaves_that_do_not_give_the_signed_root_are_refused(world: Any, root: str) -> None:
    assert refusal(world, world.forge(world.seal(), **{root: "00" * 32})) == "bad-root"


def test_a_leaf_changed_on_the_way_is_refused(world: Any) -> None:
    submission = world.seal()
    for name in ("manifest_leaves", "lock_leaves"):
        leaves = list(getattr(submission, name))
        leaves[3] = bytes(32)
        assert refusal(world, replace(submission, **{name: leaves})) == "bad-root"


def test_a_manifest_signed_but_not_shown_is_refused(world: Any) -> None:
    """Otherwise two custodians could be given different records under one id and one signature."""
    submission = world.seal()
    hidden = world.forge(submission, hidden_manifests=[b"\x07" * 32])
    assert refusal(world, hidden) == "bad-leaf"
    assert refusal(world, world.forge(submission, hidden_locks=[b"\x07" * 32])) == "bad-leaf"


def test_a_manifest_that_is_no_leaf_is_refused(world: Any) -> None:
    submission = world.seal()
    other = world.change_manifest(submission, 0, recorded=5).manifests
    assert refusal(world, replace(submission, manifests=other)) == "bad-leaf"


def test_fillers_from_another_seed_are_refused(world: Any) -> None:
    assert refusal(world, replace(world.seal(), filler=bytes(32))) == "bad-leaf"


def test_a_leaf_standing_twice_is_refused(world: Any) -> None:
    submission = world.seal()
    twice = world.forge(submission, manifests=[*submission.manifests, submission.manifests[0]])
    doubled = replace(twice, ciphertexts=[*submission.ciphertexts, submission.ciphertexts[0]])
    assert refusal(world, doubled) == "duplicate"
    assert refusal(world, world.forge(submission, locks=[*submission.locks, submission.locks[0]])) == "duplicate"
    shown_once = world.forge(submission, hidden_manifests=[sha256(submission.manifests[0]).digest()])
    assert refusal(world, shown_once) == "duplicate"


def test_a_manifest_standing_twice_at_one_leaf_is_refused(world: Any) -> None:
    submission = world.seal()
    again = replace(
        submission,
        manifests=[*submission.manifests, submission.manifests[0]],
        ciphertexts=[*submission.ciphertexts, submission.ciphertexts[0]],
    )
    assert refusal(world, again) == "duplicate"


@pytest.mark.parametrize("size", [0, 4, 9, 12])
def test_trees_that_are_not_full_are_refused(world: Any, size: int) -> None:
    submission = world.seal(1)
    leaves = (submission.manifest_leaves * 2)[:size]
    assert refusal(world, replace(submission, manifest_leaves=leaves)) == "bad-leaves"


def test_leaves_and_seeds_of_other_sizes_are_refused(world: Any) -> None:
    submission = world.seal(1)
    leaves = [bytes(31), *submission.manifest_leaves[1:]]
    assert refusal(world, replace(submission, manifest_leaves=leaves)) == "bad-leaves"
    assert refusal(world, replace(submission, filler=bytes(31))) == "bad-leaves"


# Locks


def other_lock(world: Any, submission: Any, use: str, **changes: Any) -> Any:
    lock = world.lock(submission, use)
    locks = [encode_lock(replace(lock, **changes)) if data == encode_lock(lock) else data for data in submission.locks]
    return world.forge(submission, locks=locks)


def test_exactly_one_owner_lock_to_the_subject_is_asked_for(world: Any) -> None:
    submission = world.seal()
    without = [data for data in submission.locks if data != encode_lock(world.lock(submission, "owner"))]
    assert refusal(world, world.forge(submission, locks=without)) == "bad-lock"
    second = encode_lock(replace(world.lock(submission, "owner"), box=b"another"))
    assert refusal(world, world.forge(submission, locks=[*submission.locks, second])) == "bad-lock"
    assert refusal(world, other_lock(world, submission, "owner", to="cl1author#2")) == "bad-lock"
    others = [
        encode_lock(replace(lock, to="cl1author#2")) if lock.use != "release" else encode_lock(lock)
        for lock in map(decode_lock, submission.locks)
    ]
    assert refusal(world, world.forge(submission, locks=others)) == "bad-lock"


def test_each_custodian_has_exactly_one_release_lock(world: Any) -> None:
    submission = world.seal()
    last = encode_lock(world.lock(submission, "release", place=4))
    without = [data for data in submission.locks if data != last]
    assert refusal(world, world.forge(submission, locks=without)) == "bad-lock"
    second = encode_lock(replace(world.lock(submission, "release", place=1), to="cl1custodian1#0"))
    assert refusal(world, world.forge(submission, locks=[*without, second])) == "bad-lock"
    assert refusal(world, world.forge(submission, locks=[*submission.locks, second])) == "bad-lock"
    assert refusal(world, submission, n=5) == "bad-lock"


def test_consent_locks_match_the_compartments_and_epochs_in_use(world: Any) -> None:
    submission = world.seal()
    lock = world.lock(submission, "consent")
    without = [data for data in submission.locks if data != encode_lock(lock)]
    assert refusal(world, world.forge(submission, locks=without)) == "bad-lock"
    second = encode_lock(replace(lock, epoch=9))
    assert refusal(world, world.forge(submission, locks=[*submission.locks, second])) == "bad-lock"
    assert refusal(world, world.forge(submission, locks=[*without, second])) == "bad-lock"
    twin = encode_lock(replace(lock, box=lock.box[::-1]))
    assert refusal(world, world.forge(submission, locks=[*submission.locks, twin])) == "bad-lock"
    assert refusal(world, other_lock(world, submission, "consent", to="cl1subject#4")) == "bad-lock"


def test_a_custodian_without_a_lock_or_with_another_key_refuses(world: Any) -> None:
    submission = world.seal()
    assert refusal(world, submission, custodian="cl1custodian1#2") == "bad-share"
    assert refusal(world, submission, sealing_key=SealingKey(bytes(32))) == "bad-share"


def test_a_box_sealed_with_another_info_is_refused(world: Any) -> None:
    submission = world.seal()
    lock = world.lock(submission, "release")
    key = SealingPublicKey(world.custodians[0][1].public)
    assert refusal(world, world.replace_lock(submission, replace(lock, box=key.seal(b"x", info=b"{}")))) == "bad-share"


# Shares: an author who would blame custodians later


def test_a_share_that_does_not_match_its_commitment_is_refused(world: Any) -> None:
    submission = world.seal()

    def flipped(rows: list[Any]) -> list[Any]:
        record, compartment, share = rows[1]
        rows[1] = (record, compartment, bytes([share[0] ^ 1]) + share[1:])
        return rows

    for place in range(1, world.n + 1):
        bad = world.false_shares(submission, place, flipped)
        assert refusal(world, bad, place=place) == "bad-share"
        assert world.check(bad, place=place % world.n + 1), "the others have what they need"


def test_a_share_for_another_place_is_refused(world: Any) -> None:
    """Committed or not, two custodians with one x would leave t shares that never combine."""
    submission = world.seal(1)
    second = world.released(submission, (2,))[2]
    swapped = world.false_shares(submission, 1, lambda rows: [(r, c, second[r]) for r, c, _ in rows])
    assert refusal(world, swapped, place=1) == "bad-share"
    commitments = world.manifests(submission)[0].shares
    copied = world.change_manifest(swapped, 0, shares=[commitments[1], *commitments[1:]])
    assert refusal(world, copied, place=1) == "bad-share"


def test_a_share_and_commitment_for_another_record_are_refused(world: Any) -> None:
    """They match each other; but the share would be released under an id that the manifest does not have."""
    submission = world.seal(1)
    other = world.rand(16)
    share = world.rand(32) + b"\x01"
    moved = world.false_shares(submission, 1, lambda rows: [(other, c, share) for _, c, _ in rows])
    commitments = [share_commitment(other, share).hex(), *world.manifests(submission)[0].shares[1:]]
    assert refusal(world, world.change_manifest(moved, 0, shares=commitments)) == "bad-share"


@pytest.mark.parametrize("size", [8, 31, 33, 40])
def test_a_share_of_another_size_is_refused_though_committed(world: Any, size: int) -> None:
    """A reader would take it for the custodian's fault."""
    submission = world.seal(1)
    record = bytes.fromhex(world.manifests(submission)[0].record)
    share = world.rand(size) + b"\x01"
    lying = world.false_shares(submission, 1, lambda rows: [(r, c, share) for r, c, _ in rows])
    commitments = [share_commitment(record, share).hex(), *world.manifests(submission)[0].shares[1:]]
    assert refusal(world, world.change_manifest(lying, 0, shares=commitments)) == "bad-share"


def test_a_custodian_that_is_told_another_place_refuses(world: Any) -> None:
    assert refusal(world, world.seal(1), place=1, custodian=world.custodians[1][0]) == "bad-share"


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[:-1],
        lambda rows: [*rows, rows[0]],
        lambda rows: rows[::-1],
        lambda rows: [(bytes(16), c, s) for _, c, s in rows],
        lambda rows: [(r, bytes(16), s) for r, _, s in rows],
        lambda rows: [(r, c, s[:-1]) for r, c, s in rows],
        lambda rows: [(r, c, b"\x00" + s) for r, c, s in rows],
        lambda rows: [],
    ],
    ids=["fewer", "more", "order", "record", "compartment", "short", "long", "none"],
)
def test_release_locks_with_other_rows_are_refused(world: Any, change: Any) -> None:
    assert refusal(world, world.false_shares(world.seal(), 1, change)) == "bad-share"


def test_release_locks_that_are_no_messagepack_are_refused(world: Any) -> None:
    submission = world.seal(1)
    keyid, key = world.custodians[0]
    from careledger.records.locks import encode_shares, lock_info

    info = lock_info(world.statement(submission), "release", to=keyid)
    rows = [(r, bytes.fromhex(world.compartment), s) for r, s in world.released(submission, (1,))[1].items()]
    for content in (b"", b"\xc1", encode_shares(rows) + b"\x00", b"\xdc\x00\x01" + encode_shares(rows)[1:]):
        box = SealingPublicKey(key.public).seal(content, info=info)
        bad = world.replace_lock(submission, Lock(use="release", compartment=None, epoch=None, to=keyid, box=box))
        assert refusal(world, bad) == "bad-share"


def test_as_many_commitments_as_custodians_are_asked_for(world: Any) -> None:
    submission = world.seal(1)
    shares = world.manifests(submission)[0].shares
    assert refusal(world, world.change_manifest(submission, 0, shares=[*shares, shares[0]])) == "bad-share"
    assert refusal(world, world.change_manifest(submission, 0, shares=shares[:3])) == "bad-share"


# Manifests


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("network", "00" * 32),
        ("subject", "cl1other"),
        ("subject_seq", 6),
        ("author", "cl1author#1"),
        ("submission", "00" * 16),
        ("for_", "cl1elsewhere"),
        ("for_", msgspec.UNSET),
    ],
)
def test_a_manifest_that_contradicts_the_statement_is_refused(world: Any, field: str, value: object) -> None:
    assert refusal(world, world.change_manifest(world.seal(), 1, **{field: value})) == "bad-manifest"


def test_a_chosen_record_id_is_refused(world: Any) -> None:
    submission = world.seal()
    assert refusal(world, world.change_manifest(submission, 1, record="00" * 16)) == "bad-record-id"
    assert refusal(world, world.change_manifest(submission, 1, index=2)) == "bad-record-id"
    assert refusal(world, world.change_manifest(submission, 1, index=1 << 32)) == "bad-field"


def test_manifests_stand_in_the_order_of_their_index(world: Any) -> None:
    submission = world.seal()
    order = world.forge(submission, manifests=submission.manifests[::-1], ciphertexts=submission.ciphertexts[::-1])
    assert refusal(world, order) == "bad-manifest"


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("compartment", "00" * 15, "bad-hex"),
        ("ciphertext_hash", "00" * 31, "bad-hex"),
        ("content_root", "0G" * 32, "bad-hex"),
        ("shares", ["00" * 32, "00" * 32, "00" * 32, "00" * 31 + "  "], "bad-hex"),
        ("shares", ["00" * 32, "00" * 33, "00" * 31, "00" * 32], "bad-hex"),
        ("replaces", "00" * 17, "bad-hex"),
        ("epoch", 1 << 32, "bad-field"),
        ("epoch", -1, "bad-field"),
    ],
)
def test_malformed_manifests_are_refused(world: Any, field: str, value: object, code: str) -> None:
    assert refusal(world, world.change_manifest(world.seal(1), 0, **{field: value})) == code


def test_a_ciphertext_that_is_not_the_signed_one_is_refused(world: Any) -> None:
    submission = world.seal()
    for ciphertext in (submission.ciphertexts[1][:-1] + b"\x00", submission.ciphertexts[2]):
        ciphertexts = [submission.ciphertexts[0], ciphertext, submission.ciphertexts[2]]
        assert refusal(world, replace(submission, ciphertexts=ciphertexts)) == "bad-ciphertext"
    length = world.manifests(submission)[0].ciphertext_length
    assert refusal(world, world.change_manifest(submission, 0, ciphertext_length=length + 1)) == "bad-ciphertext"


@pytest.mark.parametrize("size", [0, 16, 16 + 97])
def test_ciphertexts_of_unpadded_sizes_are_refused(world: Any, size: int) -> None:
    submission = world.seal(1)
    ciphertext = bytes(size)
    changed = world.change_manifest(
        submission, 0, ciphertext_hash=sha256(ciphertext).hexdigest(), ciphertext_length=size
    )
    assert refusal(world, replace(changed, ciphertexts=[ciphertext])) == "bad-ciphertext"


def test_each_manifest_has_its_ciphertext(world: Any) -> None:
    submission = world.seal()
    assert refusal(world, replace(submission, ciphertexts=submission.ciphertexts[:2])) == "too-large"
    assert refusal(world, replace(submission, manifests=[], ciphertexts=[])) == "too-large"


def test_messages_beyond_the_limits_are_refused(world: Any) -> None:
    submission = world.seal(1)
    many = replace(
        submission,
        manifests=submission.manifests * (RECORDS_MAX + 1),
        ciphertexts=submission.ciphertexts * (RECORDS_MAX + 1),
    )
    assert refusal(world, many) == "too-large"
    locks = submission.locks * (RECORDS_MAX // len(submission.locks) + 2)
    assert refusal(world, replace(submission, locks=locks)) == "too-large"
    with pytest.raises(MalformedError) as refused:
        decode_submission(bytes(SUBMISSION_MAX + 1))
    assert refused.value.code == "too-large"


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", b"\x91\x00", b"{}"])
def test_what_is_no_submission_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError) as refused:
        decode_submission(data)
    assert refused.value.code == "not-msgpack"
