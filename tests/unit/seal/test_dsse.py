import msgspec
import pytest

from careledger.errors import Error
from careledger.seal import (
    Envelope,
    Signature,
    SigningKey,
    VerifyKey,
    b64,
    decode,
    encode,
    envelope_message_id,
    message_id,
    sign,
    verify,
)
from careledger.seal.dsse import SIGNATURES_MAX

TYPE = "application/vnd.careledger.test+json"
SIGNERS = [(f"cl1{name}#0", SigningKey(name.encode() * 32)) for name in "abc"]
KEYS = {keyid: VerifyKey(key.public) for keyid, key in SIGNERS}


def refused(envelope: Envelope, keys: dict[str, VerifyKey] = KEYS) -> str:
    with pytest.raises(Error) as refusal:
        verify(envelope, payload_type=TYPE, keys=keys)
    return refusal.value.code


def test_the_exact_bytes_come_back_whoever_signed_first() -> None:
    envelope = sign(TYPE, b"\x00any bytes", SIGNERS)
    assert envelope == sign(TYPE, b"\x00any bytes", SIGNERS[::-1])
    assert verify(envelope, payload_type=TYPE, keys=KEYS) == b"\x00any bytes"
    assert decode(encode(envelope), Envelope) == envelope


def test_a_message_keeps_its_identity_when_signatures_are_added() -> None:
    one, three = sign(TYPE, b"{}", SIGNERS[:1]), sign(TYPE, b"{}", SIGNERS)
    assert envelope_message_id(one) == envelope_message_id(three) == message_id(TYPE, b"{}")
    assert message_id(TYPE, b"{}") != message_id(TYPE + "2", b"{}") != message_id(TYPE, b"{} ")


def test_pae_cannot_be_shifted_between_type_and_payload() -> None:
    assert message_id("a", b"b 1 c") != message_id("a 5 b", b"c")


def test_every_signature_is_checked_not_only_enough_of_them() -> None:
    envelope = sign(TYPE, b"{}", SIGNERS)
    for i in range(3):
        signatures = list(envelope.signatures)
        signatures[i] = Signature(keyid=signatures[i].keyid, sig=b64(bytes(64)))
        assert refused(msgspec.structs.replace(envelope, signatures=signatures)) == "bad-signature"
        keyid = signatures[i].keyid
        assert refused(envelope, {k: v for k, v in KEYS.items() if k != keyid}) == "unknown-key"


def test_a_signature_cannot_be_passed_off_as_another_keys() -> None:
    envelope = sign(TYPE, b"{}", SIGNERS[:1])
    claimed = Signature(keyid="cl1b#0", sig=envelope.signatures[0].sig)
    assert refused(msgspec.structs.replace(envelope, signatures=[claimed])) == "bad-signature"


def test_no_keys_means_no() -> None:
    assert refused(sign(TYPE, b"{}", SIGNERS), {}) == "unknown-key"
    assert refused(Envelope(payload="", payloadType=TYPE, signatures=[])) == "no-signature"


def test_an_unnamed_signature_is_refused() -> None:
    signature = Signature(keyid="", sig=sign(TYPE, b"{}", SIGNERS[:1]).signatures[0].sig)
    envelope = Envelope(payload=b64(b"{}"), payloadType=TYPE, signatures=[signature])
    assert refused(envelope, {"": KEYS["cl1a#0"]}) == "not-canonical"


def test_the_number_of_signatures_is_bounded() -> None:
    many = [(f"cl1x{i:03}#0", SIGNERS[0][1]) for i in range(SIGNATURES_MAX + 1)]
    keys = {keyid: VerifyKey(key.public) for keyid, key in many}
    assert verify(sign(TYPE, b"{}", many[:-1]), payload_type=TYPE, keys=keys) == b"{}"
    with pytest.raises(AssertionError):
        sign(TYPE, b"{}", many)
    extra = sign(TYPE, b"{}", many[-1:]).signatures
    envelope = sign(TYPE, b"{}", many[:-1])
    assert refused(msgspec.structs.replace(envelope, signatures=envelope.signatures + extra), keys) == "too-large"


def test_signing_with_nobody_or_twice_is_a_bug() -> None:
    for signers in ([], [SIGNERS[0], SIGNERS[0]]):
        with pytest.raises(AssertionError):
            sign(TYPE, b"{}", signers)


def test_no_refusal_quotes_the_payload_or_a_keyid_from_outside() -> None:
    envelope = sign(TYPE, b"Jane Doe", [("cl1\nJane#0", SIGNERS[0][1])])
    with pytest.raises(Error) as refusal:
        verify(envelope, payload_type=TYPE, keys=KEYS)
    assert "Jane" not in str(refusal.value)
    with pytest.raises(Error) as refusal:
        verify(msgspec.structs.replace(envelope, payloadType="Jane\nDoe"), payload_type=TYPE, keys=KEYS)
    assert refusal.value.code == "wrong-type" and "Jane" not in str(refusal.value)
