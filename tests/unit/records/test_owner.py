"""The subject's check: an author who told the subject another secret than readers and custodians."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from careledger.errors import VerificationError
from careledger.records import check_owner
from careledger.records.locks import lock_info
from careledger.seal import SealingKey, SealingPublicKey, share_commitment


def owner_lock(world: Any, submission: Any, content: bytes) -> Any:
    lock = world.lock(submission, "owner")
    info = lock_info(world.statement(submission), "owner", to=world.owner)
    box = SealingPublicKey(world.owner_key.public).seal(content, info=info)
    return world.replace_lock(submission, msgspec.structs.replace(lock, box=box))


def finding(world: Any, submission: Any, **changes: Any) -> VerificationError:
    arguments = {"key": world.owner_key, "compartment_keys": world.compartment_keys, "threshold": 3}
    with pytest.raises(VerificationError) as found:
        check_owner(world.verified(submission), **{**arguments, **changes})
    return found.value


def test_an_honest_submission_gives_the_subject_its_secret(world: Any) -> None:
    master = check_owner(
        world.verified(world.seal(5)), key=world.owner_key, compartment_keys=world.compartment_keys, threshold=3
    )
    assert len(master) == 32


def test_another_secret_in_the_owner_lock_is_found(world: Any) -> None:
    submission = world.seal(3)
    lying = owner_lock(world, submission, bytes(32))
    for place in range(1, 5):
        assert world.check(lying, place=place), "no custodian can see it"
    error = finding(world, lying)
    assert error.code == "bad-owner-lock"
    assert error.details == {
        "consent": sorted(world.compartments),
        "shares": [manifest.record for manifest in world.manifests(submission)],
    }


def test_an_owner_lock_that_carries_no_secret_is_found(world: Any) -> None:
    assert finding(world, owner_lock(world, world.seal(1), b"short")).code == "bad-lock"


def test_another_secret_in_a_consent_lock_is_found(world: Any) -> None:
    submission = world.seal(3)
    compartment = world.compartment
    epoch, key = world.compartments[compartment]
    info = lock_info(world.statement(submission), "consent", to=world.owner, compartment=compartment, epoch=epoch)
    lock = world.lock(submission, "consent", compartment=compartment)
    public = SealingPublicKey(key.public)
    for box in (public.seal(bytes(32), info=info), public.seal(b"", info=info), b"\x00" * len(lock.box)):
        lying = world.replace_lock(submission, msgspec.structs.replace(lock, box=box))
        error = finding(world, lying)
        assert error.code == "bad-owner-lock"
        assert error.details == {"consent": [compartment], "shares": []}


def test_a_compartment_that_is_not_the_subjects_is_found(world: Any) -> None:
    others = {place: key for place, key in world.compartment_keys.items() if place[0] != world.compartment}
    error = finding(world, world.seal(2), compartment_keys=others)
    assert error.details == {"consent": [world.compartment], "shares": []}


def test_a_share_that_does_not_follow_is_found(world: Any) -> None:
    submission = world.seal(2)
    manifest = world.manifests(submission)[1]
    commitments = [*manifest.shares[:3], share_commitment(bytes.fromhex(manifest.record), bytes(32) + b"\x04").hex()]
    error = finding(world, world.change_manifest(submission, 1, shares=commitments))
    assert error.details == {"consent": [], "shares": [manifest.record]}


def test_a_split_with_a_lower_threshold_than_the_documents_is_found(world: Any) -> None:
    submission = world.seal(2, threshold=2)
    for place in range(1, 5):
        assert world.check(submission, place=place), "no custodian can see it alone"
    error = finding(world, submission)
    assert error.details == {"consent": [], "shares": [manifest.record for manifest in world.manifests(submission)]}


def test_a_threshold_that_no_split_can_have_is_found(world: Any) -> None:
    assert len(finding(world, world.seal(1), threshold=5).details["shares"]) == 1  # type: ignore[arg-type]


def test_another_persons_key_opens_no_owner_lock(world: Any) -> None:
    assert finding(world, world.seal(1), key=SealingKey(bytes(32))).code == "not-openable"


def test_a_view_without_the_owner_lock_says_so(world: Any) -> None:
    view = world.view(world.seal(1))
    view = msgspec.structs.replace(view, locks=view.locks[1:])
    with pytest.raises(VerificationError) as refused:
        check_owner(world.verify(view), key=world.owner_key, compartment_keys=world.compartment_keys, threshold=3)
    assert refused.value.code == "no-lock"
