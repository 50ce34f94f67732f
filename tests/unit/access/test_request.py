"""Requests: who asks, that it is fresh, and what stands behind it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from careledger import access
from careledger.errors import Error, MalformedError, VerificationError
from careledger.seal import canonical, dsse

replace = msgspec.structs.replace


def refusal(world: Any, message: access.AccessMessage, **changes: Any) -> str:
    with pytest.raises(Error) as refused:
        world.check(message, **changes)
    return refused.value.code


def test_a_request_that_holds_is_what_decide_reads(world: Any) -> None:
    message = world.message()
    assert access.decode_access_message(access.encode_access_message(message)) == message
    checked = world.check(message)
    assert checked.reader == world.ada.token
    assert checked.for_ == world.clinic.token
    assert checked.affiliated == (world.clinic.token, world.now + 3_600_000)
    assert checked.records == ("cd" * 16, "ef" * 16)
    assert (checked.basis, checked.grant, checked.head) == ("grant", "12" * 16, (3, "aa" * 32))
    assert checked.envelopes == (message.request, message.affiliation)
    assert checked.id == dsse.envelope_message_id(canonical.decode(message.request, dsse.Envelope))


@pytest.mark.parametrize("offset", [-120_000, 0, 120_000])
def test_fresh_enough_either_way(world: Any, offset: int) -> None:
    assert world.check(world.message(world.request(time=world.now + offset))).reader == world.ada.token


@pytest.mark.parametrize("offset", [-120_001, 120_001, -86_400_000])
def test_a_stale_request_is_told_the_nodes_time(world: Any, offset: int) -> None:
    with pytest.raises(VerificationError) as refused:
        world.check(world.message(world.request(time=world.now + offset)))
    assert refused.value.code == "stale-request"
    assert refused.value.details == {"time": world.now}


def test_a_request_for_another_network_is_refused(world: Any) -> None:
    assert refusal(world, world.message(world.request(network="cd" * 32))) == "wrong-network"


def test_a_request_signed_by_somebody_else_is_refused(world: Any) -> None:
    assert refusal(world, world.message(signer=world.bea.signer)) == "wrong-signer"
    assert refusal(world, world.message(signer=(world.ada.keyid, world.bea.sign))) == "bad-signature"
    assert refusal(world, world.message(signer=(world.ada.token + "#1", world.ada.sign))) == "unknown-key"


@pytest.mark.parametrize("sorts", ["before", "after"])
def test_a_request_signed_by_two_is_refused(world: Any, sorts: str) -> None:
    second = "cl1" + "0" * 46 + "#0" if sorts == "before" else world.ada.token + "#1"
    assert (second < world.ada.keyid) is (sorts == "before")
    payload = canonical.encode(world.request())
    signers = [world.ada.signer, (second, world.bea.sign)]
    envelope = canonical.encode(dsse.sign(access.AccessRequest.TYPE, payload, signers))
    keys = {**world.keys, second: world.bea.verify}
    assert refusal(world, replace(world.message(), request=envelope), keys=keys) == "wrong-signer"


def test_an_answer_key_that_was_not_signed_for_is_refused(world: Any) -> None:
    """A man in the middle puts its own HPKE key beside the envelope."""
    message = world.message()
    other = message.key[:-1] + bytes([message.key[-1] ^ 1])
    assert refusal(world, replace(message, key=other)) == "wrong-key"


def test_every_changed_byte_of_the_envelope_is_refused(world: Any) -> None:
    message = world.message()
    for at in range(0, len(message.request), 2):
        changed = bytearray(message.request)
        changed[at] ^= 1
        assert refusal(world, replace(message, request=bytes(changed)))


@pytest.mark.parametrize(
    "changes",
    [
        {"list_": True},
        {"list_": False},
        {"records": UNSET},
        {"records": UNSET, "list_": False},
        {"records": ["cd" * 16, "cd" * 16]},
        {"records": []},
        {"records": ["CD" * 16]},
        {"for_": UNSET},
        {"purpose": "treat"},
        {"purpose": ""},
        {"client": ""},
        {"nonce": "34" * 15},
        {"basis": access.Basis(kind="because")},  # type: ignore[arg-type]
        {"basis": access.Basis(kind="emergency", reason="")},
        {"head": access.Head(seq=-1, hash="aa" * 32)},
        {"time": -1},
        {"v": 2},
        {"subject": "cl1x"},
    ],
)
def test_fields_that_do_not_fit_are_malformed(world: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError) as refused:
        world.check(world.message(world.request(**changes)))
    assert refused.value.code == "bad-field"


def test_a_list_has_no_records(world: Any) -> None:
    checked = world.check(world.message(world.request(records=UNSET, list_=True)))
    assert checked.records is None


def test_alone_without_organisation(world: Any) -> None:
    request = world.request(for_=UNSET, affiliation=UNSET)
    checked = world.check(world.message(request, affiliation=None))
    assert (checked.for_, checked.affiliated) == (None, None)


def test_an_affiliation_is_sent_once_and_then_named_by_hash(world: Any) -> None:
    first = world.check(world.message())
    known = {world.request().affiliation: first.affiliation}
    again = world.check(world.message(affiliation=None), affiliations=known)
    assert again.affiliated == first.affiliated
    assert again.envelopes == first.envelopes[:1], "the log has it already"
    assert world.check(world.message(affiliation=None)).affiliated is None


def test_a_known_affiliation_that_ended_or_is_anothers_does_not_count(world: Any) -> None:
    first = world.check(world.message())
    known = {world.request().affiliation: first.affiliation}
    late = world.request(time=world.now + 3_600_000)
    assert world.check(world.message(late), affiliations=known, now_ms=world.now + 3_600_000).affiliated is None
    for changes in ({"for_": world.hospital.token}, {"reader": world.bea.token}):
        signer = world.bea.signer if "reader" in changes else world.ada.signer
        message = world.message(world.request(**changes), signer=signer)
        assert world.check(message, affiliations=known).affiliated is None


@pytest.mark.parametrize("forged", ["other-person", "other-organisation", "own-signature", "ended", "not-named"])
def test_an_affiliation_that_does_not_hold_leaves_the_reader_unaffiliated(world: Any, forged: str) -> None:
    affiliation = {
        "other-person": world.affiliate(world.clinic, world.bea),
        "other-organisation": world.affiliate(world.hospital, world.ada),
        "own-signature": world.affiliation.replace(world.clinic.keyid.encode(), world.ada.keyid.encode()),
        "ended": world.affiliate(world.clinic, world.ada, until=world.now),
        "not-named": world.affiliate(world.clinic, world.ada, until=world.now + 1_800_000),
    }[forged]
    request = world.request()
    if forged != "not-named":
        message_id = dsse.envelope_message_id(canonical.decode(affiliation, dsse.Envelope)).hex()
        request = world.request(affiliation=message_id)
    checked = world.check(world.message(request, affiliation=affiliation))
    assert checked.affiliated is None
    assert len(checked.envelopes) == 1


def approve(world: Any, who: Any, request: bytes, **changes: Any) -> bytes:
    fields = {
        "network": world.network,
        "request": request,
        "subject": world.patient.token,
        "approver": who.token,
        "expires": world.now + 60_000,
        "signer": who.signer,
    }
    fields.update(changes)
    return access.sign_approval(**fields)


def test_approvals_of_this_request_count_and_no_others(world: Any) -> None:
    _, message_id = access.sign_request(world.request(), world.ada.signer)
    good = approve(world, world.bea, message_id)
    others = [
        approve(world, world.bea, b"\x00" * 32),
        approve(world, world.bea, message_id, subject=world.ada.token),
        approve(world, world.bea, message_id, network="cd" * 32),
        approve(world, world.bea, message_id, approver=world.hospital.token),
        approve(world, world.bea, message_id, signer=(world.bea.keyid, world.ada.sign)),
        world.affiliation,
    ]
    message = world.message(approvals=[*others, good])
    checked = world.check(message)
    assert [approval.approver for approval in checked.approvals] == [world.bea.token]
    assert checked.envelopes[-1] == good
    assert len(checked.envelopes) == 3


def test_an_approval_does_not_carry_over_to_a_changed_request(world: Any) -> None:
    _, message_id = access.sign_request(world.request(), world.ada.signer)
    wider = world.request(records=["cd" * 16, "ef" * 16, "00" * 16])
    checked = world.check(world.message(wider, approvals=[approve(world, world.bea, message_id)]))
    assert checked.approvals == ()


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x95\x01", b"\x92\xc4\x00\xc4\x00", b"\x80"])
def test_messages_that_do_not_parse(data: bytes) -> None:
    with pytest.raises(MalformedError) as refused:
        access.decode_access_message(data)
    assert refused.value.code == "bad-access-message"


def test_the_public_names_are_these() -> None:
    assert sorted(access.__all__) == sorted(set(access.__all__))
    for name in access.__all__:
        assert getattr(access, name) is not None
