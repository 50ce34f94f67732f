import pytest

from careledger.errors import MalformedError
from careledger.seal import (
    ALG_SEAL,
    ALG_SIGN,
    Key,
    SealingKey,
    SigningKey,
    VerifyKey,
    b64,
    keyid,
    parse_keyid,
    sealing_key,
    signing_keys,
)

SIGN = Key.sign(SigningKey(bytes(32)).public)
SIGN_2 = Key.sign(SigningKey(b"\x01" * 32).public)
SEAL = Key.seal(SealingKey(bytes(32)).public)
SEAL_2 = Key.seal(SealingKey(b"\x01" * 32).public)


def refused(of: object, keys: list[Key]) -> str:
    with pytest.raises(MalformedError) as refusal:
        of(keys)  # type: ignore[operator]
    return refusal.value.code


def test_a_list_gives_its_signing_keys_in_order_and_its_one_sealing_key() -> None:
    keys = [SIGN_2, SEAL, SIGN]
    assert signing_keys(keys) == [VerifyKey(SigningKey(b"\x01" * 32).public), VerifyKey(SigningKey(bytes(32)).public)]
    assert sealing_key(keys).raw == SealingKey(bytes(32)).public


def test_lists_without_the_key_or_with_a_key_twice_are_refused() -> None:
    assert refused(signing_keys, []) == "bad-key"
    assert refused(signing_keys, [SEAL]) == "bad-key"
    assert refused(signing_keys, [SIGN, SIGN]) == "bad-key"
    assert refused(sealing_key, [SIGN]) == "bad-key"
    assert refused(sealing_key, [SEAL, SEAL_2]) == "bad-key"
    assert refused(sealing_key, [SEAL, SEAL]) == "bad-key"
    assert refused(signing_keys, [Key.sign(SigningKey(bytes([i]) * 32).public) for i in range(17)]) == "bad-key"


def test_an_algorithm_that_this_version_does_not_know_is_refused() -> None:
    for of in (signing_keys, sealing_key):
        assert refused(of, [SIGN, SEAL, Key(alg="ML-DSA-65", pub="AA")]) == "unknown-algorithm"
    assert (ALG_SIGN, ALG_SEAL) == ("Ed25519", "X-Wing")


def test_a_weak_key_is_refused_in_a_list_too() -> None:
    assert refused(signing_keys, [Key.sign((1).to_bytes(32, "little"))]) == "bad-key"
    assert refused(sealing_key, [Key(alg=ALG_SEAL, pub=b64(bytes(1216)))]) == "bad-key"
    assert refused(signing_keys, [Key(alg=ALG_SIGN, pub=SIGN.pub + "=")]) == "bad-base64"


def test_keyids_are_written_and_read_one_way() -> None:
    assert keyid("cl1abc", 0) == "cl1abc#0"
    assert parse_keyid("cl1abc#9007199254740991") == ("cl1abc", 2**53 - 1)
    for token, sequence in (("", 0), ("a#b", 0), ("a b", 0), ("é", 0), ("a", -1), ("a", 2**53), ("a" * 201, 0)):
        with pytest.raises(AssertionError):
            keyid(token, sequence)


@pytest.mark.parametrize(
    "text",
    ["", "#", "a", "a#", "#0", "a#00", "a#01", "a#-1", "a#+1", "a#1 ", "a##1", "a#1\n", "a#9007199254740992", "a#٣"],
)
def test_anything_else_is_no_keyid(text: str) -> None:
    with pytest.raises(MalformedError) as refusal:
        parse_keyid(text)
    assert refusal.value.code == "bad-keyid"
