"""Round trips and one-bit changes of what identities are written as."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from careledger.errors import Error, MalformedError
from careledger.identity import (
    apply_operation,
    bech32m,
    build_rotate,
    check_token,
    kit_code,
    new_person,
    open_document,
    parse_kit_code,
    renewed_secrets,
    split_account_key,
    token_of,
)
from careledger.seal import b64, combine, unb64

NETWORK = "ab" * 32


def seeded(name: str) -> Callable[[int], bytes]:
    count = 0

    def draw(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{name} {count}".encode()).digest(size)

    return draw


@given(st.binary(max_size=40), st.sampled_from(["a", "cl", "clkit", "?"]))
def test_bech32m_round_trips(data: bytes, hrp: str) -> None:
    text = bech32m.encode(hrp, data)
    assert bech32m.decode(text, hrp=hrp) == data
    assert bech32m.decode(text.upper(), hrp=hrp) == data


@given(st.binary(), st.lists(st.tuples(st.integers(3, 48), st.integers(0, 31)), min_size=1, max_size=4))
def test_up_to_four_changed_characters_of_a_token_are_always_noticed(
    payload: bytes, changes: list[tuple[int, int]]
) -> None:
    """BIP-350's promise within 90 characters."""
    token = token_of(payload)
    typed = list(token)
    for place, word in changes:
        typed[place] = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"[word]
    text = "".join(typed)
    if text != token:
        with pytest.raises(MalformedError):
            check_token(text)


@given(st.binary(min_size=32, max_size=32), st.integers(1, 12), st.booleans())
def test_kit_codes_round_trip_however_grouped(root: bytes, group: int, capitals: bool) -> None:
    code = kit_code(root)
    typed = " ".join(code[start : start + group] for start in range(0, len(code), group))
    assert parse_kit_code(typed.upper() if capitals else typed) == root


@given(st.text(max_size=120))
def test_no_text_makes_the_parsers_fail_otherwise_than_they_promise(text: str) -> None:
    for parse in (check_token, parse_kit_code):
        with pytest.raises(MalformedError):
            parse(text)


PERSON = new_person(custodians=[], rand=seeded("property"))
STATE = apply_operation(None, PERSON.envelope, network=NETWORK, now_ms=1).state
ROTATION = build_rotate(
    network=NETWORK,
    token=PERSON.token,
    state=STATE,
    root=PERSON.secrets.root,
    device=renewed_secrets(PERSON.secrets.device, sequence=1, rand=seeded("rotation")),
    document=open_document(PERSON.salt, PERSON.document, STATE.document),
    rand=seeded("rotation 2"),
)


@given(st.integers(0, 1 << 20), st.booleans())
@settings(max_examples=200)
def test_every_one_bit_change_of_a_rotation_is_refused(bit: int, in_signature: bool) -> None:
    envelope = ROTATION.envelope
    text = envelope.signatures[0].sig if in_signature else envelope.payload
    data = bytearray(unb64(text))
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    if in_signature:
        signature = msgspec.structs.replace(envelope.signatures[0], sig=b64(bytes(data)))
        altered = msgspec.structs.replace(envelope, signatures=[signature])
    else:
        altered = msgspec.structs.replace(envelope, payload=b64(bytes(data)))
    with pytest.raises(Error):
        apply_operation(STATE, altered, network=NETWORK, now_ms=2)


@given(st.integers(0, 1 << 20))
@settings(max_examples=150)
def test_every_one_bit_change_of_an_inception_makes_it_nobody_s(bit: int) -> None:
    """It may have another token then, but the signature names the old one and covers the old bytes."""
    data = bytearray(unb64(PERSON.envelope.payload))
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    with pytest.raises(Error):
        apply_operation(
            None, msgspec.structs.replace(PERSON.envelope, payload=b64(bytes(data))), network=NETWORK, now_ms=2
        )


@given(st.integers(1, 9), st.data())
@settings(max_examples=60)
def test_any_t_custodians_give_their_half_and_fewer_do_not(n: int, data: st.DataObject) -> None:
    t = data.draw(st.integers(1, n))
    rand = seeded(f"{n} {t} {data.draw(st.integers(0, 10**6))}")
    made = split_account_key(rand(32), token=PERSON.token, manager=PERSON.token, n=n, threshold=t, rand=rand)
    places = data.draw(st.permutations(range(n)))
    whole = combine([made.custodian_shares[place] for place in places[:t]])
    assert combine(made.custodian_shares) == whole
    if t > 1:
        assert combine([made.custodian_shares[place] for place in places[: t - 1]]) != whole
