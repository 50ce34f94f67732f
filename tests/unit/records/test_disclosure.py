"""One resource shown with its author's signature, and what nobody can pass off as one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from careledger.errors import Error, MalformedError, VerificationError
from careledger.records import (
    Resource,
    decode_disclosure,
    disclose,
    encode_disclosure,
    open_record,
    open_records,
    verify_disclosed,
)
from careledger.records.plaintext import INFLATED_MAX, content_hashes, resource_hash
from careledger.seal import SigningKey, VerifyKey
from careledger.tlog import inclusion_proof, leaf_hash


@pytest.fixture(scope="module")
def shown(world: Any) -> Any:
    submission = world.seal(4)
    verified = world.verified(submission)
    opened = open_records(
        verified.records, shares=world.released(submission), threshold=3, secrets=world.secrets(verified)
    )
    return verified, opened.records


def verify(world: Any, disclosure: Any, **changes: Any) -> Any:
    arguments = {"network": world.network, "author_key": VerifyKey(world.author_key.public), **changes}
    return verify_disclosed(disclosure, **arguments)


def refusal(world: Any, disclosure: Any, **changes: Any) -> str:
    with pytest.raises(Error) as refused:
        verify(world, disclosure, **changes)
    return refused.value.code


def test_every_resource_can_be_shown_alone(world: Any, shown: Any) -> None:
    verified, records = shown
    for record in records:
        for index, resource in enumerate(record.resources):
            data = encode_disclosure(disclose(verified, record, index))
            proven = verify(world, decode_disclosure(data))
            assert proven.resource == resource
            assert proven.index == index
            assert proven.manifest == record.manifest
            assert proven.statement.author == world.author
            others = [one.data for one in record.resources if one.data != resource.data]
            assert not any(other in data for other in others)


def test_changed_resources_places_and_proofs_are_refused(world: Any, shown: Any) -> None:
    verified, records = shown
    good = disclose(verified, records[3], 1)
    resource = good.resource
    for changes in (
        {"resource": Resource(resource.salt, resource.full_url, resource.data + b" ")},
        {"resource": Resource(resource.salt, resource.full_url + "x", resource.data)},
        {"resource": Resource(bytes(16), resource.full_url, resource.data)},
        {"index": 2},
        {"content_size": 2},
        {"content_size": 9},
        {"content_proof": good.content_proof[:-1]},
        {"position": good.position ^ 1},
        {"proof": good.proof[::-1]},
        {"manifest": records[2] and verified.records[2].manifest_bytes},
    ):
        assert refusal(world, msgspec.structs.replace(good, **changes)) == "bad-proof", changes
    assert refusal(world, good, network="00" * 32) == "wrong-network"
    assert refusal(world, good, author_key=VerifyKey(SigningKey(bytes(32)).public)) == "bad-signature"


def test_the_header_cannot_pass_for_a_resource(world: Any) -> None:
    """A header can be written so that it is salt, length, URL and data of a resource; its place gives it away."""
    plan = world.plan(1)
    text = "a" * 5 + "  " + "b" * 9000
    crafted = msgspec.structs.replace(plan.records[0], header={"import": text})
    submission = world.seal(1, records=[crafted])
    verified = world.verified(submission)
    opened = open_record(
        verified.records[0], shares=world.released(submission), threshold=3, secrets=world.secrets(verified)
    )
    header = opened.plaintext.header
    size = int.from_bytes(header[16:18])
    posing = Resource(header[:16], header[18 : 18 + size].decode(), header[18 + size :])
    hashes = content_hashes(opened.plaintext)
    assert leaf_hash(resource_hash(posing)) == hashes[0], "it does pass for a resource, by its hash"
    good = disclose(verified, opened, 0)
    proof = inclusion_proof(hashes, 0)
    for index, code in ((-1, "bad-plaintext"), (0, "bad-proof"), (1, "bad-proof")):
        forged = msgspec.structs.replace(good, resource=posing, index=index, content_proof=proof)
        assert refusal(world, forged) == code


def test_salts_of_other_sizes_are_refused(world: Any, shown: Any) -> None:
    """With salts of any size, the border between salt and URL could be moved."""
    verified, records = shown
    good = disclose(verified, records[0], 0)
    for salt in (b"", bytes(15), bytes(17)):
        resource = Resource(salt, "", b"")
        assert refusal(world, msgspec.structs.replace(good, resource=resource)) == "bad-plaintext"
    long = Resource(bytes(16), "u" * 0x10000, b"")
    assert refusal(world, msgspec.structs.replace(good, resource=long)) == "bad-plaintext"


def test_a_signed_manifest_with_a_false_id_is_refused(world: Any) -> None:
    submission = world.seal(1)
    verified = world.verified(submission)
    opened = open_records(
        verified.records, shares=world.released(submission), threshold=3, secrets=world.secrets(verified)
    ).records[0]
    good = disclose(verified, opened, 0)
    lying = world.change_manifest(submission, 0, record="22" * 16)
    view = world.view(lying)
    forged = msgspec.structs.replace(
        good,
        envelope=lying.envelope,
        manifest=lying.manifests[0],
        position=view.records[0].position,
        proof=view.records[0].proof,
    )
    assert refusal(world, forged) == "bad-record-id"


def test_a_record_of_another_submission_is_not_disclosed_under_this_one(world: Any, shown: Any) -> None:
    other = world.verified(world.seal(1))
    with pytest.raises(VerificationError) as refused:
        disclose(other, shown[1][0], 0)
    assert refused.value.code == "wrong-record"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not-msgpack"),
        (b"\xc1", "not-msgpack"),
        (b"\x80", "not-msgpack"),
        (bytes(2 * INFLATED_MAX + 1), "too-large"),
    ],
    ids=["empty", "reserved", "no fields", "large"],
)
def test_what_is_no_disclosure_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(MalformedError) as refused:
        decode_disclosure(data)
    assert refused.value.code == code
