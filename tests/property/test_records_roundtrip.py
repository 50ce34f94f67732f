"""Whatever an author seals opens to equal bytes for those who may, and stays closed with one share less."""

from __future__ import annotations

import random
from itertools import combinations
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from careledger.errors import Error, MalformedError, VerificationError
from careledger.records import (
    RecordPlan,
    SubmissionPlan,
    check_submission,
    decode_submission,
    decode_view,
    disclose,
    encode_submission,
    encode_view,
    leaf_tree,
    open_record,
    open_records,
    pack_plaintext,
    padme,
    seal_submission,
    unpack_plaintext,
    verify_disclosed,
    verify_view,
    view_of,
)
from careledger.records.header import header_from
from careledger.records.plaintext import content_root
from careledger.seal import SealingKey, SealingPublicKey, SigningKey, VerifyKey

NETWORK = "5a" * 32
KEYS = [SealingKey(bytes([number]) * 32) for number in range(10)]
AUTHOR = SigningKey(bytes(32))
COMPARTMENTS = {"0a" * 16: (1, KEYS[8]), "0b" * 16: (7, KEYS[9])}

urls = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
resources = st.lists(st.tuples(urls, st.binary(max_size=300)), max_size=6)
records = st.lists(st.tuples(st.sampled_from(sorted(COMPARTMENTS)), resources), min_size=1, max_size=9)


def plan_of(content: list[tuple[str, list[tuple[str, bytes]]]], *, n: int, t: int) -> SubmissionPlan:
    return SubmissionPlan(
        network=NETWORK,
        subject="cl1subject",
        subject_seq=2,
        owner=("cl1subject#2", SealingPublicKey(KEYS[7].public)),
        author="cl1author#0",
        for_=None,
        compartments={name: (epoch, SealingPublicKey(key.public)) for name, (epoch, key) in COMPARTMENTS.items()},
        custodians=[(f"cl1custodian{x}#0", SealingPublicKey(KEYS[x - 1].public)) for x in range(1, n + 1)],
        threshold=t,
        records=[RecordPlan(compartment=name, header={}, resources=each) for name, each in content],
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=records, n=st.integers(1, 5), seed=st.integers(0, 2**32), data=st.data())
def test_any_t_custodians_open_to_equal_bytes_and_no_fewer(
    content: list[tuple[str, list[tuple[str, bytes]]]], n: int, seed: int, data: st.DataObject
) -> None:
    t = data.draw(st.integers(1, n))
    submission = seal_submission(
        plan_of(content, n=n, t=t), signer=AUTHOR, now_ms=5, rand=random.Random(seed).randbytes
    )
    submission = decode_submission(encode_submission(submission))
    checked = [
        check_submission(
            submission,
            network=NETWORK,
            author_key=VerifyKey(AUTHOR.public),
            custodian=f"cl1custodian{x}#0",
            sealing_key=KEYS[x - 1],
            place=x,
            n=n,
            now_ms=5,
        )
        for x in range(1, n + 1)
    ]
    view = view_of(
        envelope=submission.envelope,
        manifest_tree=leaf_tree(submission.manifest_leaves),
        lock_tree=leaf_tree(submission.lock_leaves),
        locks=[(one.lock_bytes, one.position) for one in checked[0].locks if one.lock.use == "consent"],
        records=[(one.manifest_bytes, one.position, one.ciphertext) for one in checked[0].records],
    )
    verified = verify_view(
        decode_view(encode_view(view)),
        network=NETWORK,
        author_key=VerifyKey(AUTHOR.public),
        subject="cl1subject",
    )
    secrets = {
        (name, epoch): verified.open_consent_lock(name, epoch, key)
        for name, (epoch, key) in COMPARTMENTS.items()
        if any(lock.compartment == name for lock in verified.locks)
    }
    for places in combinations(range(n), t):
        shares = {x + 1: {one.record: one.share for one in checked[x].records} for x in places}
        opened = open_records(verified.records, shares=shares, threshold=t, secrets=secrets)
        assert opened.failed == []
        assert [[(one.full_url, one.data) for one in each.resources] for each in opened.records] == [
            each for _, each in content
        ]
    index = data.draw(st.integers(0, len(content) - 1))
    for at, resource in enumerate(opened.records[index].resources):
        shown = verify_disclosed(
            disclose(verified, opened.records[index], at), network=NETWORK, author_key=VerifyKey(AUTHOR.public)
        )
        assert shown.resource == resource
    if t > 1:
        few = {x + 1: {one.record: one.share for one in checked[x].records} for x in range(t - 1)}
        for threshold in (t, t - 1):
            with pytest.raises(Error) as refused:
                open_record(verified.records[0], shares=few, threshold=threshold, secrets=secrets)
            assert refused.value.code in ("not-enough-shares", "bad-seal")


@settings(max_examples=200, deadline=None)
@given(content=resources, source=urls)
def test_plaintexts_round_trip_and_sizes_are_padded(content: list[tuple[str, bytes]], source: str) -> None:
    header = header_from({"source": source}, salt=bytes(16), resources=len(content))
    wire, root = pack_plaintext(header, content, rand=random.Random(1).randbytes)
    assert len(wire) == padme(len(wire))
    opened = unpack_plaintext(wire)
    assert [(one.full_url, one.data) for one in opened.resources] == content
    assert opened.opened_header() == header
    assert content_root(opened) == root


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 40))
@example(0)
def test_padded_sizes_hold_and_leak_little(size: int) -> None:
    padded = padme(size)
    assert size <= padded
    assert padme(padded) == padded
    if size > 1:
        exponent = size.bit_length() - 1
        assert padded - size < 1 << max(0, exponent - exponent.bit_length())


def sealed() -> Any:
    content = [("0a" * 16, [("urn:uuid:1", b'{"a":1}')]), ("0b" * 16, [("", b"{}")])]
    return seal_submission(plan_of(content, n=4, t=3), signer=AUTHOR, now_ms=5, rand=random.Random(9).randbytes)


SUBMISSION = sealed()
PARTS = [
    (name, at)
    for name in ("manifest_leaves", "lock_leaves", "manifests", "locks", "ciphertexts")
    for at in range(len(getattr(SUBMISSION, name)))
] + [("envelope", -1), ("filler", -1)]


@settings(max_examples=300, deadline=None)
@given(part=st.sampled_from(PARTS), position=st.integers(0, 1 << 20), bit=st.integers(0, 7))
def test_every_changed_bit_of_a_submission_is_refused(part: tuple[str, int], position: int, bit: int) -> None:
    import msgspec

    name, at = part
    before: bytes = getattr(SUBMISSION, name) if at < 0 else getattr(SUBMISSION, name)[at]
    changed = bytearray(before)
    changed[position % len(before)] ^= 1 << bit
    value: Any = bytes(changed)
    if at >= 0:
        value = [*getattr(SUBMISSION, name)]
        value[at] = bytes(changed)
    with pytest.raises((VerificationError, MalformedError)):
        check_submission(
            msgspec.structs.replace(SUBMISSION, **{name: value}),
            network=NETWORK,
            author_key=VerifyKey(AUTHOR.public),
            custodian="cl1custodian1#0",
            sealing_key=KEYS[0],
            place=1,
            n=4,
            now_ms=5,
        )
