"""What an author's software refuses to seal, and what sealing never repeats."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import careledger.records
from careledger.errors import MalformedError
from careledger.records import RECORDS_MAX, RecordPlan, SubmissionKeys, record_id, seal_submission
from careledger.seal import SealingPublicKey


def refusal(world: Any, **changes: Any) -> str:
    with pytest.raises(MalformedError) as refused:
        world.seal(1, **changes)
    return refused.value.code


def test_plans_that_nobody_could_keep_are_refused(world: Any) -> None:
    plan = world.plan(1)
    record = plan.records[0]
    custodians = list(plan.custodians)
    assert refusal(world, records=[]) == "too-large"
    assert refusal(world, records=[record] * (RECORDS_MAX + 1)) == "too-large"
    assert refusal(world, threshold=0) == "bad-plan"
    assert refusal(world, threshold=5) == "bad-plan"
    assert refusal(world, custodians=[*custodians[:3], ("cl1custodian1#9", custodians[0][1])]) == "bad-plan"
    assert refusal(world, owner=("cl1author#0", plan.owner[1])) == "bad-plan"
    assert refusal(world, compartments={}) == "bad-plan"
    assert refusal(world, custodians=[("custodian", custodians[0][1])] * 4) == "bad-keyid"
    assert refusal(world, network="00" * 31) == "bad-hex"
    other = msgspec.structs.replace(record, header={"colour": "red"})
    assert refusal(world, records=[other]) == "bad-header"


def test_sealing_again_shares_no_key_id_or_ciphertext(world: Any) -> None:
    one, two = world.seal(2), world.seal(2)
    assert not set(one.ciphertexts) & set(two.ciphertexts)
    assert not {m.record for m in world.manifests(one)} & {m.record for m in world.manifests(two)}
    assert not set(one.manifest_leaves) & set(two.manifest_leaves)
    assert one.filler != two.filler


def test_equal_records_in_one_submission_look_different(world: Any) -> None:
    plan = world.plan(1)
    submission = world.seal(1, records=[plan.records[0]] * 4)
    manifests = world.manifests(submission)
    assert len({m.content_root for m in manifests}) == 4
    assert len(set(submission.ciphertexts)) == 4
    assert len({share for m in manifests for share in m.shares}) == 16


def test_one_lock_a_compartment_in_use_however_many_records(world: Any) -> None:
    assert len(world.seal(1).locks) == 1 + 1 + 4
    assert len(world.seal(30).locks) == 1 + 2 + 4


def test_nothing_of_the_content_is_readable_in_the_message(world: Any) -> None:
    plan = world.plan(1)
    header = {"source": "https://plain.example/secret", "encounter": "urn:uuid:encounter-1"}
    secret = RecordPlan(
        compartment=plan.records[0].compartment, header=header, resources=[("urn:uuid:full-url", b'{"name":"Alice"}')]
    )
    data = careledger.records.encode_submission(world.seal(1, records=[secret]))
    for text in (b"plain.example", b"encounter-1", b"full-url", b"Alice"):
        assert text not in data


def test_a_threshold_of_one_and_a_single_custodian_work_too(world: Any) -> None:
    plan = world.plan(2)
    keyid, key = world.custodians[0]
    submission = seal_submission(
        msgspec.structs.replace(plan, custodians=[(keyid, SealingPublicKey(key.public))], threshold=1),
        signer=world.author_key,
        now_ms=world.now_ms,
        rand=world.rand,
    )
    assert len(world.check(submission, n=1).records) == 2


def test_ids_and_secrets_of_wrong_sizes_are_bugs() -> None:
    with pytest.raises(AssertionError):
        record_id(bytes(31), "cl1a", "cl1b", bytes(16), 0)
    with pytest.raises(AssertionError):
        record_id(bytes(32), "cl1a", "cl1b", bytes(15), 0)
    with pytest.raises(AssertionError):
        SubmissionKeys(bytes(31))


def test_the_package_exports_what_it_says() -> None:
    for name in careledger.records.__all__:
        assert getattr(careledger.records, name) is not None
