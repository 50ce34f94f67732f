"""Events as messages: signatures, boxes, strict fields."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from careledger import consent
from careledger.errors import Error, MalformedError, VerificationError
from careledger.seal import SigningKey, canonical, dsse


def signed(chain: Any, payload: bytes, *, keyid: str | None = None, key: SigningKey | None = None) -> bytes:
    signer = (keyid or chain.patient.keyid, key or chain.patient.sign)
    return canonical.encode(dsse.sign(consent.CONSENT_TYPE, payload, [signer]))


def payload_of(message: consent.EventMessage) -> bytes:
    return canonical.unb64(canonical.decode(message.envelope, dsse.Envelope).payload)


def test_every_event_keeps_its_bytes_through_decode_and_encode(chain: Any) -> None:
    grant = chain.grant(chain.ada, [chain.about])
    chain.revoke(grant.grant, {})
    for message in chain.messages:
        again = consent.decode_event_message(consent.encode_event_message(message))
        assert again == message
        payload = payload_of(message)
        assert canonical.encode(consent.decode_event(payload)) == payload


@pytest.mark.parametrize("reserved", ["emergency", "guardians", "erase", "same-as", "snapshot", "Grant", ""])
def test_reserved_and_unknown_types_are_refused(chain: Any, reserved: str) -> None:
    event = msgspec.json.decode(payload_of(chain.messages[0]))
    event["type"] = reserved
    with pytest.raises(MalformedError) as refused:
        consent.decode_event(canonical.encode(event))
    assert refused.value.code == "unknown-type"


def change(chain: Any, message: consent.EventMessage, **changes: Any) -> consent.EventMessage:
    """The message with some fields changed, signed again by the subject's own key."""
    event = msgspec.json.decode(payload_of(message))
    event.update(changes)
    return consent.EventMessage(envelope=signed(chain, canonical.encode(event)), boxes=message.boxes)


def test_an_event_for_another_network_is_refused(chain: Any) -> None:
    message = change(chain, chain.grant_message(chain.ada, [chain.about]), network="cd" * 32)
    with pytest.raises(VerificationError) as refused:
        chain.check(message)
    assert refused.value.code == "wrong-network"


def test_an_event_about_another_subject_is_refused_though_signed_by_this_one(chain: Any) -> None:
    message = change(chain, chain.grant_message(chain.ada, [chain.about]), subject=chain.bea.token, role="manager")
    with pytest.raises(VerificationError) as refused:
        chain.check(message)
    assert refused.value.code == "wrong-subject"


def test_a_grantee_cannot_widen_its_own_grant(chain: Any) -> None:
    """A grantee signs a wider copy of its grant with its own key, under its own name or the subject's."""
    message = chain.grant_message(chain.ada, [chain.about])
    event = msgspec.json.decode(payload_of(message))
    event["compartments"] = sorted([chain.about, chain.private])
    wider = canonical.encode(event)
    for keyid in (chain.ada.keyid, chain.patient.keyid):
        forged = consent.EventMessage(
            envelope=signed(chain, wider, keyid=keyid, key=chain.ada.sign), boxes=message.boxes
        )
        with pytest.raises(VerificationError) as refused:
            chain.check(forged)
        assert refused.value.code in ("unknown-key", "bad-signature")


def test_a_manager_signs_as_manager_and_as_nobody_else(chain: Any) -> None:
    message = chain.grant_message(chain.ada, [chain.about])
    event = msgspec.json.decode(payload_of(message))
    keys = {**chain.patient.keys, **chain.clinic.keys}

    def by_clinic(role: str) -> consent.EventMessage:
        payload = canonical.encode({**event, "role": role})
        envelope = signed(chain, payload, keyid=chain.clinic.keyid, key=chain.clinic.sign)
        return consent.EventMessage(envelope=envelope, boxes=message.boxes)

    def check(message: consent.EventMessage) -> Any:
        return consent.check_event(
            message, network=chain.writer.network, subject=chain.patient.token, keys=keys, state=chain.state
        )

    assert check(by_clinic("manager"))[0].role == "manager"
    for wrong in (by_clinic("subject"), change(chain, message, role="manager")):
        with pytest.raises(VerificationError) as refused:
            check(wrong)
        assert refused.value.code == "wrong-signer"


def test_a_payload_that_is_too_large_is_refused(chain: Any) -> None:
    event = msgspec.json.decode(payload_of(chain.grant_message(chain.ada, [chain.about])))
    for size in (1 << 18, 1 << 20):
        with pytest.raises(MalformedError) as refused:
            consent.decode_event(canonical.encode({**event, "policy": "x" * size}))
        assert refused.value.code == "too-large"


@pytest.mark.parametrize("second", ["before", "after"])
def test_two_signatures_are_one_too_many(chain: Any, second: str) -> None:
    message = chain.grant_message(chain.ada, [chain.about])
    other = chain.clinic.keyid if second == "before" else chain.patient.token + "#1"
    assert (other < chain.patient.keyid) is (second == "before")
    signers = [(chain.patient.keyid, chain.patient.sign), (other, chain.clinic.sign)]
    envelope = canonical.encode(dsse.sign(consent.CONSENT_TYPE, payload_of(message), signers))
    with pytest.raises(VerificationError) as refused:
        consent.read_event(
            consent.EventMessage(envelope=envelope, boxes=message.boxes),
            network=chain.writer.network,
            subject=chain.patient.token,
            keys={**chain.patient.keys, other: chain.clinic.keys[chain.clinic.keyid]},
        )
    assert refused.value.code == "wrong-signer"


def test_a_payload_of_another_type_is_no_event(chain: Any) -> None:
    message = chain.grant_message(chain.ada, [chain.about])
    other = "application/vnd.careledger.access+json"
    envelope = canonical.encode(dsse.sign(other, payload_of(message), [(chain.patient.keyid, chain.patient.sign)]))
    with pytest.raises(VerificationError) as refused:
        chain.check(consent.EventMessage(envelope=envelope, boxes=message.boxes))
    assert refused.value.code == "wrong-type"


def test_an_altered_box_is_refused_byte_by_byte(chain: Any) -> None:
    message = chain.grant_message(chain.ada, [chain.about])
    box = message.boxes[0]
    for at in range(0, len(box), 61):
        altered = box[:at] + bytes([box[at] ^ 1]) + box[at + 1 :]
        with pytest.raises(VerificationError) as refused:
            chain.check(msgspec.structs.replace(message, boxes=[altered]))
        assert refused.value.code == "wrong-box"


def test_a_box_copied_from_another_event_is_refused(chain: Any) -> None:
    earlier = chain.grant_message(chain.ada, [chain.about])
    chain.add(earlier)
    later = chain.grant_message(chain.ada, [chain.private])
    with pytest.raises(VerificationError) as refused:
        chain.check(msgspec.structs.replace(later, boxes=earlier.boxes))
    assert refused.value.code == "wrong-box"


def test_boxes_must_be_complete_in_order_and_no_more(chain: Any) -> None:
    for person in (chain.ada, chain.bea):
        chain.grant(person, [chain.about])
    rekeyed = consent.make_rekey(
        chain.writer,
        chain.state,
        [chain.about],
        seeds=chain.seeds,
        recipients={person.token: person.recipient for person in (chain.ada, chain.bea)},
        now_ms=chain.now,
        rand=chain.rand,
    )
    boxes = rekeyed.message.boxes
    assert len(boxes) == 3
    for wrong in (boxes[:-1], [], [boxes[0], boxes[2], boxes[1]], [*boxes, boxes[0]], [*boxes, b"more"]):
        with pytest.raises(VerificationError) as refused:
            chain.check(msgspec.structs.replace(rekeyed.message, boxes=wrong))
        assert refused.value.code == "wrong-box"
    chain.add(rekeyed.message)


def test_a_grantees_view_may_leave_out_boxes_but_not_bring_others(chain: Any) -> None:
    chain.grant(chain.ada, [chain.about])
    message = chain.messages[-1]
    who = {"network": chain.writer.network, "subject": chain.patient.token, "keys": chain.patient.keys}
    assert consent.read_event_view(msgspec.structs.replace(message, boxes=[]), **who)[0].seq == 2
    for wrong in ([b"other"], [*message.boxes, *message.boxes]):
        with pytest.raises(VerificationError):
            consent.read_event_view(msgspec.structs.replace(message, boxes=wrong), **who)


def test_every_changed_byte_of_an_envelope_is_refused(chain: Any) -> None:
    message = chain.grant_message(chain.ada, [chain.about])
    data = message.envelope
    for at in range(0, len(data), 3):
        for flip in (1, 0x20):
            altered = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
            with pytest.raises(Error):
                chain.check(msgspec.structs.replace(message, envelope=altered))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("grant", "AB" * 16),
        ("grant", "ab" * 15),
        ("grant", "ab" * 16 + "\n"),
        ("grantee", "cl1short"),
        ("to", "cl1short#0"),
        ("rights", []),
        ("rights", ["write"]),
        ("purposes", []),
        ("purposes", ["treat"]),
        ("expires", -1),
        ("expires", 1.5),
        ("seq", 0),
        ("v", 2),
        ("compartments", []),
        ("joint", {"k": 0, "tokens": []}),
        ("range", {"since": 1}),
        ("range", None),
        ("extra", 1),
        ("role", "doctor"),
        ("text_language", "e"),
        ("box", "00"),
    ],
)
def test_fields_are_strict(chain: Any, field: str, value: object) -> None:
    event = msgspec.json.decode(payload_of(chain.grant_message(chain.ada, [chain.about])))
    event[field] = value
    with pytest.raises(MalformedError):
        consent.decode_event(msgspec.json.encode(event, order="sorted"))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x92", b"\x81\xa1a\x01", b"\x93\xc4\x00\x90\x01", b"\xff" * 50])
def test_messages_that_do_not_parse(data: bytes) -> None:
    with pytest.raises(MalformedError) as refused:
        consent.decode_event_message(data)
    assert refused.value.code == "bad-event-message"


def test_the_public_names_are_these() -> None:
    assert sorted(consent.__all__) == sorted(set(consent.__all__))
    for name in consent.__all__:
        assert getattr(consent, name) is not None
