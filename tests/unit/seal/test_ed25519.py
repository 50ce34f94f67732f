import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from careledger.errors import MalformedError, VerificationError
from careledger.seal import SigningKey, VerifyKey
from careledger.seal.ed25519 import _L

# RFC 8032 section 7.1, test 2.
SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


class AcceptsEverything:
    """A library that checks nothing, to see which refusals are our own."""

    def verify(self, signature: bytes, message: bytes) -> None:
        pass


def test_signing_is_rfc_8032() -> None:
    key = SigningKey(SEED)
    assert key.public == PUBLIC
    assert key.sign(b"\x72") == SIGNATURE
    VerifyKey(PUBLIC).verify(SIGNATURE, b"\x72")


def test_the_library_accepts_a_forgery_under_a_small_order_key_that_we_refuse() -> None:
    # y = 1 is the neutral element: R = S·B verifies for every message, so anybody can sign. Here S = 0 and R = neutral.
    neutral = (1).to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(neutral).verify(neutral + bytes(32), b"any message at all")
    with pytest.raises(MalformedError) as refusal:
        VerifyKey(neutral)
    assert refusal.value.code == "bad-key"


@pytest.mark.parametrize("s", [_L, _L + 1, 2**256 - 1, int.from_bytes(SIGNATURE[32:], "little") + _L])
def test_s_not_below_the_group_order_is_refused_even_where_the_library_would_take_it(s: int) -> None:
    key = VerifyKey(PUBLIC)
    key._key = AcceptsEverything()  # type: ignore[assignment]
    key.verify(SIGNATURE, b"\x72")
    with pytest.raises(VerificationError) as refusal:
        key.verify(SIGNATURE[:32] + s.to_bytes(32, "little"), b"\x72")
    assert refusal.value.code == "bad-signature"


@pytest.mark.parametrize("signature", [b"", SIGNATURE[:-1], SIGNATURE + b"\x00", SIGNATURE * 2])
def test_a_signature_of_another_length_is_refused_even_where_the_library_would_take_it(signature: bytes) -> None:
    key = VerifyKey(PUBLIC)
    key._key = AcceptsEverything()  # type: ignore[assignment]
    with pytest.raises(VerificationError):
        key.verify(signature, b"\x72")


def test_nothing_verifies_under_bytes_that_are_no_point_of_the_curve() -> None:
    key = VerifyKey((2).to_bytes(32, "little"))
    for signature in (SIGNATURE, bytes(64), (1).to_bytes(32, "little") + bytes(32)):
        with pytest.raises(VerificationError):
            key.verify(signature, b"\x72")


@pytest.mark.parametrize("raw", [PUBLIC[:-1], PUBLIC[1:], PUBLIC + b"\x00", PUBLIC * 2])
def test_public_keys_of_another_size_are_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError) as refusal:
        VerifyKey(raw)
    assert refusal.value.code == "bad-key"


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_seeds_of_another_size_are_refused(size: int) -> None:
    with pytest.raises(MalformedError) as refusal:
        SigningKey(bytes(size))
    assert refusal.value.code == "bad-key"


def test_keys_compare_by_value_and_print_no_secret() -> None:
    assert VerifyKey(PUBLIC) == VerifyKey(PUBLIC)
    assert VerifyKey(PUBLIC) != VerifyKey(SigningKey(bytes(32)).public)
    assert VerifyKey(PUBLIC) != PUBLIC
    assert len({VerifyKey(PUBLIC), VerifyKey(PUBLIC)}) == 1
    assert PUBLIC.hex() in repr(VerifyKey(PUBLIC))
    assert PUBLIC.hex() in repr(SigningKey(SEED))
    assert SEED.hex() not in repr(SigningKey(SEED)) and SEED[:4].hex() not in repr(SigningKey(SEED))
