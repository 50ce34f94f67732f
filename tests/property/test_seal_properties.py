"""What holds for all inputs of careledger.seal: round trips, any t of n, nothing from t−1, one-bit changes refused."""

import contextlib
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

import careledger.seal as seal
from careledger.errors import Error, MalformedError, VerificationError
from careledger.seal.canonical import INTEGER_MAX
from careledger.seal.kdf import USES

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
KEY = st.text(st.characters(max_codepoint=127), max_size=10)
INTEGER = st.integers(-INTEGER_MAX, INTEGER_MAX)
VALUE = st.recursive(
    st.booleans() | INTEGER | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEY, inner, max_size=4),
    max_leaves=12,
)
SEED = st.binary(min_size=32, max_size=32)


class Sample(seal.Payload, frozen=True, kw_only=True):
    name: str
    count: int
    items: list[str]
    more: dict[str, Any]


SAMPLE = st.builds(Sample, name=TEXT, count=INTEGER, items=st.lists(TEXT, max_size=4), more=st.dictionaries(KEY, VALUE))


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@given(VALUE)
def test_canonical_round_trip_and_its_keys_are_in_code_unit_order(value: Any) -> None:
    data = seal.encode(value)
    assert seal.decode(data, Any) == value
    if isinstance(value, dict):
        assert list(seal.decode(data, Any)) == sorted(value, key=lambda key: key.encode("utf-16-be"))


@given(SAMPLE)
def test_struct_round_trip(value: Sample) -> None:
    assert seal.decode(seal.encode(value), Sample) == value


@given(SAMPLE, st.data())
def test_a_changed_bit_is_refused_or_is_another_value(value: Sample, data: st.DataObject) -> None:
    wire = seal.encode(value)
    changed = flipped(wire, data.draw(st.integers(0, 8 * len(wire) - 1)))
    with contextlib.suppress(MalformedError):
        assert seal.decode(changed, Sample) != value


@given(st.binary(max_size=200) | TEXT.map(lambda text: text.encode()))
def test_whatever_decodes_is_its_own_encoding(data: bytes) -> None:
    try:
        value = seal.decode(data, Any)
    except MalformedError:
        return
    assert seal.encode(value) == data


@given(st.binary(max_size=100))
def test_base64url_round_trip(data: bytes) -> None:
    assert seal.unb64(seal.b64(data), size=len(data)) == data


@given(st.text("ABCDwxyz0189-_+/= \n", max_size=12))
def test_no_two_texts_stand_for_the_same_bytes(text: str) -> None:
    with contextlib.suppress(MalformedError):
        assert seal.b64(seal.unb64(text)) == text


@given(
    st.binary(max_size=100),
    st.sampled_from(sorted(USES)),
    st.lists(st.binary(max_size=40) | st.integers(0, 2**32 - 1), max_size=4),
)
def test_kdf_is_the_library_hkdf(ikm: bytes, use: str, parts: list[bytes | int]) -> None:
    info = b"careledger/" + use.encode() + b"/v1"
    for part in parts:
        raw = part.to_bytes(4) if isinstance(part, int) else part
        info += len(raw).to_bytes(2) + raw
    assert seal.kdf(ikm, use, *parts) == HKDF(hashes.SHA256(), 32, b"", info).derive(ikm)


@st.composite
def splits(draw: st.DrawFn) -> tuple[bytes, int, list[bytes], list[bytes]]:
    n = draw(st.integers(1, 20))
    t = draw(st.integers(1, n))
    size = draw(st.integers(1, 40))
    secret = draw(st.binary(min_size=size, max_size=size))
    coefficients = draw(st.lists(st.binary(min_size=size, max_size=size), min_size=t - 1, max_size=t - 1))
    return secret, t, coefficients, seal.split(secret, n=n, t=t, coefficients=coefficients)


@given(splits(), st.data())
def test_any_t_shares_or_more_in_any_order_give_the_secret_back(
    case: tuple[bytes, int, list[bytes], list[bytes]], data: st.DataObject
) -> None:
    secret, t, _, shares = case
    chosen = data.draw(st.permutations(shares))[: data.draw(st.integers(t, len(shares)))]
    assert seal.combine(chosen) == secret


@given(st.integers(2, 8), st.data())
def test_t_minus_1_shares_fit_every_secret_equally_well(t: int, data: st.DataObject) -> None:
    """For each of the 256 secrets exactly one polynomial goes through the t−1 shares: they say nothing about it."""
    n = data.draw(st.integers(t, 12))
    coefficients = data.draw(st.lists(st.binary(min_size=1, max_size=1), min_size=t - 1, max_size=t - 1))
    shares = seal.split(data.draw(st.binary(min_size=1, max_size=1)), n=n, t=t, coefficients=coefficients)
    seen = data.draw(st.permutations(shares))[: t - 1]
    missing = next(x for x in range(1, n + 1) if x not in {share[-1] for share in seen})
    possible = {seal.combine([*seen, bytes([y, missing])]) for y in range(256)}
    assert len(possible) == 256


@given(splits(), st.data())
def test_a_changed_bit_in_any_of_t_shares_changes_secret_or_is_refused(
    case: tuple[bytes, int, list[bytes], list[bytes]], data: st.DataObject
) -> None:
    secret, t, _, shares = case
    which = data.draw(st.integers(0, t - 1))
    bit = data.draw(st.integers(0, 8 * (len(secret)) - 1))
    record = bytes(16)
    wrong = flipped(shares[which], bit)
    assert seal.combine([*shares[:which], wrong, *shares[which + 1 : t]]) != secret
    assert seal.share_commitment(record, wrong) != seal.share_commitment(record, shares[which])


@given(SEED, st.binary(max_size=200), st.data())
@settings(max_examples=50)
def test_a_changed_bit_in_signature_message_or_key_is_refused(seed: bytes, message: bytes, data: st.DataObject) -> None:
    key = seal.SigningKey(seed)
    signature = key.sign(message)
    seal.VerifyKey(key.public).verify(signature, message)
    with pytest.raises(VerificationError):
        seal.VerifyKey(key.public).verify(flipped(signature, data.draw(st.integers(0, 511))), message)
    if message:
        with pytest.raises(VerificationError):
            seal.VerifyKey(key.public).verify(
                signature, flipped(message, data.draw(st.integers(0, 8 * len(message) - 1)))
            )
    with pytest.raises(Error):
        seal.VerifyKey(flipped(key.public, data.draw(st.integers(0, 255)))).verify(signature, message)


@given(st.binary(max_size=60), st.data())
@settings(max_examples=50)
def test_a_changed_bit_in_an_envelope_is_refused(payload: bytes, data: st.DataObject) -> None:
    kind = "application/vnd.careledger.test+json"
    signers = [(f"cl1{name}#0", seal.SigningKey(name.encode() * 32)) for name in "ab"]
    keys = {keyid: seal.VerifyKey(key.public) for keyid, key in signers}
    wire = seal.encode(seal.sign(kind, payload, signers))
    assert seal.verify(seal.decode(wire, seal.Envelope), payload_type=kind, keys=keys) == payload
    changed = flipped(wire, data.draw(st.integers(0, 8 * len(wire) - 1)))
    with pytest.raises(Error):
        seal.verify(seal.decode(changed, seal.Envelope), payload_type=kind, keys=keys)


@given(SEED, st.binary(max_size=100), st.binary(max_size=100), st.data())
@settings(max_examples=40)
def test_a_changed_bit_in_wire_or_info_does_not_open(
    seed: bytes, plaintext: bytes, info: bytes, data: st.DataObject
) -> None:
    key = seal.SealingKey(seed)
    wire = seal.SealingPublicKey(key.public).seal(plaintext, info=info)
    assert key.open(wire, info=info) == plaintext
    bit = data.draw(st.integers(0, 8 * len(wire) - 1))
    with pytest.raises(VerificationError):
        key.open(flipped(wire, bit), info=info)
    if info:
        with pytest.raises(VerificationError):
            key.open(wire, info=flipped(info, data.draw(st.integers(0, 8 * len(info) - 1))))


@given(SEED, st.binary(max_size=100), st.binary(max_size=40), st.data())
def test_a_changed_bit_in_ciphertext_or_aad_does_not_open(
    key: bytes, plaintext: bytes, aad: bytes, data: st.DataObject
) -> None:
    nonce = data.draw(st.binary(min_size=12, max_size=12))
    for sealed, opened in (
        (seal.seal_content(key, plaintext, aad=aad), seal.open_content),
        (seal.seal_random(key, plaintext, aad=aad, rand=lambda _: nonce), seal.open_random),
    ):
        assert opened(key, sealed, aad=aad) == plaintext
        with pytest.raises(VerificationError):
            opened(key, flipped(sealed, data.draw(st.integers(0, 8 * len(sealed) - 1))), aad=aad)
        if aad:
            with pytest.raises(VerificationError):
                opened(key, sealed, aad=flipped(aad, data.draw(st.integers(0, 8 * len(aad) - 1))))


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), min_size=1),
    st.integers(0, INTEGER_MAX),
)
def test_keyid_round_trip(token: str, sequence: int) -> None:
    assert seal.parse_keyid(seal.keyid(token, sequence)) == (token, sequence)
