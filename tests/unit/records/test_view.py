"""What a reader refuses of what a custodian shows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from careledger.errors import Error, MalformedError, VerificationError
from careledger.records import RECORDS_MAX, SUBMISSION_MAX, claimed_author, decode_view, encode_view
from careledger.records.locks import Lock, decode_lock, encode_lock
from careledger.seal import SealingKey, SigningKey, VerifyKey, encode, sign


def replace(value: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(value, **changes)


def refusal(world: Any, view: Any, **changes: Any) -> str:
    with pytest.raises(Error) as refused:
        world.verify(view, **changes)
    return refused.value.code


def test_a_view_survives_the_wire_and_shows_what_was_sealed(world: Any) -> None:
    submission = world.seal()
    view = decode_view(encode_view(world.view(submission)))
    verified = world.verify(view)
    assert [one.manifest_bytes for one in verified.records] == submission.manifests
    assert [one.ciphertext for one in verified.records] == submission.ciphertexts
    assert verified.statement == world.statement(submission)
    assert {lock.use for lock in verified.locks} == {"owner", "consent"}


def test_a_view_of_one_record_tells_only_the_order_of_size_of_the_rest(world: Any) -> None:
    """1 to 8 records look alike: the proof has three hashes."""
    for records in (1, 5, 8):
        view = world.view(world.seal(records))
        assert {len(one.proof) for one in view.records} == {3}


def test_the_claimed_author_is_who_must_be_looked_up(world: Any) -> None:
    submission = world.seal(1)
    assert claimed_author(submission.envelope) == world.author
    statement = world.statement(submission)
    two = sign(statement.TYPE, b"{}", [(world.author, world.author_key), ("cl1x#0", world.author_key)])
    with pytest.raises(VerificationError) as refused:
        claimed_author(encode(two))
    assert refused.value.code == "no-signature"
    for data in (b"", b"{}", submission.envelope + b" "):
        with pytest.raises(MalformedError):
            claimed_author(data)


def test_another_subject_network_or_author_is_refused(world: Any) -> None:
    view = world.view(world.seal(1))
    assert refusal(world, view, subject="cl1other") == "wrong-subject"
    assert refusal(world, view, network="00" * 32) == "wrong-network"
    assert refusal(world, view, author_key=VerifyKey(SigningKey(bytes(32)).public)) == "bad-signature"


def test_manifests_and_locks_that_the_author_did_not_sign_are_refused(world: Any) -> None:
    view = world.view(world.seal())
    other = world.view(world.seal())
    assert refusal(world, replace(view, records=[*view.records, other.records[0]])) == "bad-proof"
    assert refusal(world, replace(view, locks=[*view.locks, other.locks[0]])) == "bad-proof"
    moved = replace(view.records[0], position=view.records[0].position ^ 1)
    assert refusal(world, replace(view, records=[moved])) == "bad-proof"
    lock = decode_lock(view.locks[1].lock)
    forged = replace(view.locks[1], lock=encode_lock(replace(lock, box=bytes(len(lock.box)))))
    assert refusal(world, replace(view, locks=[forged])) == "bad-proof"


def test_a_lock_cannot_be_shown_as_a_manifest(world: Any) -> None:
    """Each tree has its own root: a leaf of one proves nothing in the other."""
    view = world.view(world.seal())
    lock = view.locks[0]
    shown = replace(view.records[0], manifest=lock.lock, position=lock.position, proof=lock.proof)
    assert refusal(world, replace(view, records=[shown])) == "bad-proof"


def test_another_ciphertext_is_refused(world: Any) -> None:
    view = world.view(world.seal())
    first, second = view.records[0], view.records[1]
    for ciphertext in (second.ciphertext, first.ciphertext[:-1], b""):
        changed = replace(view, records=[replace(first, ciphertext=ciphertext)])
        assert refusal(world, changed) == "bad-ciphertext"
    longer = world.change_manifest(world.seal(1), 0, ciphertext_length=9)
    assert refusal(world, world.view(longer)) == "bad-ciphertext"
    listed = replace(view, records=[replace(first, ciphertext=None)])
    assert world.verify(listed).records[0].ciphertext is None


def test_a_record_shown_twice_is_refused(world: Any) -> None:
    view = world.view(world.seal())
    assert refusal(world, replace(view, records=[view.records[0], view.records[0]])) == "duplicate"


def test_a_signed_manifest_of_another_submission_or_id_is_refused(world: Any) -> None:
    """An author may sign anything; the reader recomputes ids as a custodian does."""
    submission = world.seal()
    assert refusal(world, world.view(world.change_manifest(submission, 0, record="11" * 16))) == "bad-record-id"
    assert refusal(world, world.view(world.change_manifest(submission, 0, subject="cl1other"))) == "bad-manifest"


def test_views_beyond_the_limits_are_refused(world: Any) -> None:
    view = world.view(world.seal(1))
    assert refusal(world, replace(view, records=view.records * (RECORDS_MAX + 1))) == "too-large"
    assert refusal(world, replace(view, locks=view.locks * (RECORDS_MAX + 1))) == "too-large"
    with pytest.raises(MalformedError) as refused:
        decode_view(bytes(SUBMISSION_MAX + 1))
    assert refused.value.code == "too-large"
    for data in (b"", b"\xc1", b"\x80"):
        with pytest.raises(MalformedError) as refused:
            decode_view(data)
        assert refused.value.code == "not-msgpack"


def test_a_lock_that_is_missing_or_for_another_key_says_so(world: Any) -> None:
    verified = world.verified(world.seal(1))
    epoch, key = world.compartments[world.compartment]
    assert len(verified.open_consent_lock(world.compartment, epoch, key)) == 32
    for arguments, code in (
        ((world.compartment, epoch + 1, key), "no-lock"),
        (("00" * 16, epoch, key), "no-lock"),
        ((world.compartment, epoch, SealingKey(bytes(32))), "not-openable"),
    ):
        with pytest.raises(VerificationError) as refused:
            verified.open_consent_lock(*arguments)
        assert refused.value.code == code


@pytest.mark.parametrize(
    "lock",
    [
        ("owner", "00" * 16, 1, "cl1a#0", b""),
        ("owner", None, 1, "cl1a#0", b""),
        ("release", "00" * 16, None, "cl1a#0", b""),
        ("consent", None, None, "cl1a#0", b""),
        ("consent", "00" * 16, None, "cl1a#0", b""),
        ("consent", "00" * 16, -1, "cl1a#0", b""),
        ("consent", "00" * 16, 1 << 32, "cl1a#0", b""),
        ("consent", "00" * 15, 1, "cl1a#0", b""),
        ("grant", None, None, "cl1a#0", b""),
        ("owner", None, None, "cl1a", b""),
        ("owner", None, None, "cl1a#01", b""),
        ("owner", None, None, "cl1a#0"),
        ("owner", None, None, "cl1a#0", b"", b""),
        ("owner", None, None, "cl1a#0", "text"),
        ("owner", None, None, "cl1a#0", bytes(1 << 17)),
    ],
    ids=str,
)
def test_locks_of_another_shape_are_refused(lock: Any) -> None:
    with pytest.raises(MalformedError):
        decode_lock(msgspec.msgpack.encode(lock))


def test_locks_in_another_encoding_are_refused() -> None:
    good = encode_lock(Lock(use="owner", compartment=None, epoch=None, to="cl1a#0", box=b"x"))
    for data in (good + b"\0", b"\xdc\x00\x05" + good[1:], good.replace(b"\xc4\x01x", b"\xc5\x00\x01x")):
        with pytest.raises(MalformedError) as refused:
            decode_lock(data)
        assert refused.value.code == "bad-lock"
