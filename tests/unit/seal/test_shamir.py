import pytest

from careledger.errors import VerificationError
from careledger.seal import combine, combine_many, share_commitment, split
from careledger.seal.shamir import _multiply, _table

SECRET = bytes(range(32))
COEFFICIENTS = [bytes([j]) * 32 for j in (7, 8)]
SHARES = split(SECRET, n=4, t=3, coefficients=COEFFICIENTS)


def test_multiplication_agrees_with_the_aes_field() -> None:
    assert _multiply(0x57, 0x83) == 0xC1  # FIPS 197 section 4.2
    assert _multiply(0x57, 0x13) == 0xFE  # FIPS 197 section 4.2.1
    for a in range(256):
        assert _table(a) == bytes(_multiply(a, b) for b in range(256))


@pytest.mark.parametrize(
    ("shares", "why"),
    [
        ([], "none"),
        ([b""], "empty"),
        ([b"\x01"], "x only"),
        ([SHARES[0], SHARES[1][1:]], "unequal sizes"),
        ([SHARES[0], SHARES[0]], "one share twice"),
        ([SHARES[0], SHARES[1][:-1] + b"\x01"], "two shares of one place"),
        ([SHARES[0], SHARES[1][:-1] + b"\x00"], "x = 0 is where the secret lies"),
    ],
)
def test_shares_that_cannot_be_of_one_split_are_refused(shares: list[bytes], why: str) -> None:
    with pytest.raises(VerificationError) as refusal:
        combine(shares)
    assert refusal.value.code == "bad-share", why


@pytest.mark.parametrize("place", [0, -1, 256])
def test_places_outside_one_byte_are_refused(place: int) -> None:
    with pytest.raises(VerificationError) as refusal:
        combine_many([(1, SHARES[0][:-1]), (place, SHARES[1][:-1])])
    assert refusal.value.code == "bad-share"


def test_joined_ys_without_a_byte_are_refused() -> None:
    with pytest.raises(VerificationError) as refusal:
        combine_many([(1, b""), (2, b"")])
    assert refusal.value.code == "bad-share"


def test_no_refusal_prints_a_share() -> None:
    with pytest.raises(VerificationError) as refusal:
        combine([SHARES[0], SHARES[0]])
    assert SHARES[0].hex() not in str(refusal.value)


@pytest.mark.parametrize(
    ("n", "t", "coefficients"),
    [
        (0, 0, []),
        (4, 0, []),
        (2, 3, COEFFICIENTS),
        (256, 3, COEFFICIENTS),
        (4, 3, COEFFICIENTS[:1]),
        (4, 2, COEFFICIENTS),
        (4, 3, [bytes(32), bytes(31)]),
    ],
)
def test_numbers_that_do_not_fit_are_a_bug(n: int, t: int, coefficients: list[bytes]) -> None:
    with pytest.raises(AssertionError):
        split(SECRET, n=n, t=t, coefficients=coefficients)


def test_an_empty_secret_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        split(b"", n=1, t=1, coefficients=[])


def test_many_records_are_combined_in_one_pass() -> None:
    secrets = [bytes([i]) * 32 for i in range(10)]
    splits = [split(secret, n=4, t=3, coefficients=COEFFICIENTS) for secret in secrets]
    joined = [(x, b"".join(shares[x - 1][:-1] for shares in splits)) for x in (4, 1, 3)]
    assert combine_many(joined) == b"".join(secrets)


def test_a_commitment_binds_record_place_and_value() -> None:
    record = bytes(16)
    commitments = {
        share_commitment(record, SHARES[0]),
        share_commitment(record, SHARES[1]),
        share_commitment(b"\x01" + record[1:], SHARES[0]),
        share_commitment(record, SHARES[0][:-1] + b"\x02"),
        share_commitment(record, b"\xff" + SHARES[0][1:]),
    }
    assert len(commitments) == 5
    for wrong in ((bytes(15), SHARES[0]), (record, b"\x01")):
        with pytest.raises(AssertionError):
            share_commitment(*wrong)
