"""Laundering: getting custodians to release somebody else's record as one's own.

Mallory is an author and a subject in one person, with the same custodians as the victim. The custodians would gladly
release to Mallory whatever Mallory's own submissions hold; so nothing of the victim's may fit into them.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from careledger.errors import VerificationError
from careledger.records.locks import Lock, decode_lock, encode_lock, lock_info, open_lock
from careledger.records.manifest import Manifest, SubmissionStatement
from careledger.seal import SealingKey, SealingPublicKey, decode, encode


class Laundry:
    """A victim's submission, and a thief's with the same custodians and compartments."""

    def __init__(self, make_world: Any) -> None:
        self.victim = make_world(7)
        self.thief = make_world(8)
        self.thief.author, self.thief.subject, self.thief.owner = "cl1mallory#0", "cl1mallory", "cl1mallory#0"
        self.thief.custodians = self.victim.custodians
        self.thief.compartments = self.victim.compartments
        self.stolen = self.victim.seal(2)
        self.own = self.thief.seal(2)

    def refusal(self, submission: Any) -> str:
        with pytest.raises(VerificationError) as refused:
            self.thief.check(submission)
        return refused.value.code


@pytest.fixture(scope="module")
def laundry(make_world: Any) -> Laundry:
    return Laundry(make_world)


def test_both_submissions_are_good_by_themselves(laundry: Laundry) -> None:
    assert laundry.victim.check(laundry.stolen)
    assert laundry.thief.check(laundry.own)


def test_copied_manifests_are_refused(laundry: Laundry) -> None:
    copied = laundry.thief.forge(
        laundry.own, manifests=laundry.stolen.manifests, ciphertexts=laundry.stolen.ciphertexts
    )
    assert laundry.refusal(copied) == "bad-manifest"


def rewritten(laundry: Laundry, **keep: bool) -> list[bytes]:
    """The victim's manifests with the thief's names; `record` keeps the victim's record ids."""
    manifests = []
    for data, own in zip(laundry.stolen.manifests, laundry.own.manifests, strict=True):
        mine = decode(own, Manifest)
        names = {name: getattr(mine, name) for name in ("subject", "subject_seq", "author", "submission", "for_")}
        if not keep.get("record"):
            names["record"] = mine.record
        manifests.append(encode(msgspec.structs.replace(decode(data, Manifest), **names)))
    return manifests


def test_the_victims_record_ids_are_refused_under_another_name(laundry: Laundry) -> None:
    copied = laundry.thief.forge(
        laundry.own, manifests=rewritten(laundry, record=True), ciphertexts=laundry.stolen.ciphertexts
    )
    assert laundry.refusal(copied) == "bad-record-id"


def test_the_victims_boxes_do_not_open_in_the_thiefs_submission(laundry: Laundry) -> None:
    releases = [data for data in laundry.stolen.locks if decode_lock(data).use == "release"]
    own = [data for data in laundry.own.locks if decode_lock(data).use != "release"]
    copied = laundry.thief.forge(
        laundry.own,
        manifests=rewritten(laundry),
        ciphertexts=laundry.stolen.ciphertexts,
        locks=[*own, *releases],
    )
    assert laundry.refusal(copied) == "bad-share"


def test_the_victims_commitments_bind_the_victims_record_ids(laundry: Laundry) -> None:
    """Even a thief who learns a share cannot use it: a commitment covers the record id it was made for."""
    copied = laundry.thief.forge(laundry.own, manifests=rewritten(laundry), ciphertexts=laundry.stolen.ciphertexts)
    assert laundry.refusal(copied) == "bad-share"
    mine = [bytes.fromhex(decode(data, Manifest).record) for data in laundry.own.manifests]
    shares = list(laundry.victim.released(laundry.stolen, (1,))[1].values())
    for_real = laundry.thief.false_shares(
        copied, 1, lambda rows: [(mine[at], rows[at][1], share) for at, share in enumerate(shares)]
    )
    assert laundry.refusal(for_real) == "bad-share"


def test_a_victims_submission_cannot_be_signed_again(laundry: Laundry) -> None:
    """Another author's signature needs that author's name in the statement, and the boxes open under the victim's."""
    statement = laundry.victim.statement(laundry.stolen)
    renamed = msgspec.structs.replace(statement, author="cl1mallory#0")
    copied = msgspec.structs.replace(laundry.stolen, envelope=laundry.thief.sign(renamed))
    assert laundry.refusal(copied) == "bad-share"


def statement_of(**changes: Any) -> SubmissionStatement:
    fields: dict[str, Any] = {
        "v": 1,
        "network": "01" * 32,
        "subject": "cl1a",
        "subject_seq": 1,
        "author": "cl1b#0",
        "submission": "02" * 16,
        "manifests_root": "",
        "locks_root": "",
        "time": 0,
        "nonce": "",
    }
    return SubmissionStatement(**{**fields, **changes})


@pytest.mark.parametrize("use", ["owner", "consent", "release"])
@pytest.mark.parametrize(
    "change",
    [
        {"network": "ff" * 32},
        {"subject": "cl1c"},
        {"author": "cl1b#1"},
        {"author": "cl1c#0"},
        {"submission": "03" * 16},
        {"to": "cl1d#1"},
        {"use": "other"},
        {"compartment": "05" * 16},
        {"epoch": 3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_box_opens_only_in_the_place_it_was_sealed_for(use: Any, change: dict[str, Any]) -> None:
    key = SealingKey(bytes(32))
    consent = use == "consent"
    if not consent and change.keys() & {"compartment", "epoch"}:
        change = {"use": "other"}
    place = {"to": "cl1d#0", "compartment": "04" * 16 if consent else None, "epoch": 2 if consent else None}
    box = SealingPublicKey(key.public).seal(b"secret", info=lock_info(statement_of(), use, **place))
    lock = Lock(use=use, box=box, **place)
    assert open_lock(lock, statement=statement_of(), key=key) == b"secret"
    if "use" in change:
        other = "release" if use == "owner" else "owner"
        moved = Lock(use=other, compartment=None, epoch=None, to="cl1d#0", box=box)
    else:
        moved = msgspec.structs.replace(lock, **{name: value for name, value in change.items() if name in place})
    renamed = {name: value for name, value in change.items() if name in ("network", "subject", "author", "submission")}
    with pytest.raises(VerificationError) as refused:
        open_lock(moved, statement=statement_of(**renamed), key=key)
    assert refused.value.code == "not-openable"


def test_locks_have_one_encoding() -> None:
    lock = Lock(use="owner", compartment=None, epoch=None, to="cl1d#0", box=b"box")
    assert decode_lock(encode_lock(lock)) == lock
