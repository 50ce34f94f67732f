import pytest

from careledger.errors import MalformedError, VerificationError
from careledger.seal import SealingKey, SealingPublicKey, hpke, info
from careledger.seal.hpke import INFO_FIELDS, OVERHEAD

NETWORK = "a" * 64
KEY = SealingKey(bytes(range(32)))
PUBLIC = SealingPublicKey(KEY.public)
OWNER = {"subject": "cl1s", "author": "cl1a", "submission": "x", "to": "cl1s#0"}


def test_each_sealing_draws_its_own_ephemeral_and_opens_to_the_same() -> None:
    first, second = (PUBLIC.seal(b"plaintext", info=b"i") for _ in range(2))
    assert len(first) == len(b"plaintext") + OVERHEAD
    assert first[:1120] != second[:1120]
    assert KEY.open(first, info=b"i") == KEY.open(second, info=b"i") == b"plaintext"


def test_every_failure_to_open_says_the_same_words() -> None:
    wire = PUBLIC.seal(b"plaintext", info=b"i")
    other = SealingKey(bytes(32))
    tries = [
        (KEY, wire, b"j"),
        (other, wire, b"i"),
        (KEY, wire[:-1], b"i"),
        (KEY, wire + b"\x00", b"i"),
        (KEY, b"", b"i"),
        (KEY, wire[:1120], b"i"),
        (KEY, wire[:1088] + bytes(32) + wire[1120:], b"i"),
        (KEY, bytes(len(wire)), b"i"),
        (KEY, wire[:1119] + bytes([wire[1119] ^ 0x80]) + wire[1120:], b"i"),  # the bit that X25519 itself ignores
    ]
    said = set()
    for key, bytes_, bound in tries:
        with pytest.raises(VerificationError) as refusal:
            key.open(bytes_, info=bound)
        said.add((refusal.value.code, refusal.value.message, str(refusal.value.__cause__)))
    assert len(said) == 1 and said.pop()[0] == "not-openable"


def test_an_error_of_the_library_is_a_refusal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def decrypt(self, *_: object) -> bytes:
            raise ValueError

    monkeypatch.setattr(hpke, "_SUITE", Failing())
    with pytest.raises(VerificationError) as refusal:
        KEY.open(bytes(1136), info=b"i")
    assert refusal.value.code == "not-openable"


P = 2**255 - 19
U8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)


@pytest.mark.parametrize("u", [0, 1, *U8, P - 1, P, P + 1])
@pytest.mark.parametrize("top_bit", [0, 1 << 255])
def test_a_public_key_whose_curve_part_adds_nothing_is_refused(u: int, top_bit: int) -> None:
    with pytest.raises(MalformedError) as refusal:
        SealingPublicKey(KEY.public[:1184] + (u | top_bit).to_bytes(32, "little"))
    assert refusal.value.code == "bad-key"


def test_the_low_order_points_are_all_that_the_library_refuses_too() -> None:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    private = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    for u in (0, 1, *U8, P - 1, P, P + 1):
        with pytest.raises(ValueError):
            private.exchange(X25519PublicKey.from_public_bytes(u.to_bytes(32, "little")))


def test_a_public_key_with_coefficients_not_below_q_is_refused() -> None:
    with pytest.raises(MalformedError) as refusal:
        SealingPublicKey(b"\xff" * 3 + KEY.public[3:])
    assert refusal.value.code == "bad-key"


@pytest.mark.parametrize("size", [0, 32, 1215, 1217])
def test_keys_of_another_size_are_refused(size: int) -> None:
    with pytest.raises(MalformedError):
        SealingPublicKey(KEY.public[:size] if size < 1216 else KEY.public + b"\x00")
    with pytest.raises(MalformedError):
        SealingKey(bytes(size + 1))


def test_info_leaves_out_what_does_not_apply_and_sorts_the_rest() -> None:
    assert info(NETWORK, "owner", **OWNER) == info(NETWORK, "owner", **dict(reversed(OWNER.items())))
    bound = info("n", "key-box", subject="cl1s", to="cl1c#0", way="managed", seq=None)
    assert bound == b'{"network":"n","subject":"cl1s","to":"cl1c#0","use":"key-box","v":1,"way":"managed"}'


def test_info_refuses_a_message_that_is_not_bound_to_its_place() -> None:
    for use, (required, _) in INFO_FIELDS.items():
        fields: dict[str, str | int | None] = dict.fromkeys(required, "x")
        assert info(NETWORK, use, **fields)
        for name in required:
            with pytest.raises(AssertionError):
                info(NETWORK, use, **{**fields, name: None})
        with pytest.raises(AssertionError):
            info(NETWORK, use, **fields, extra="x")
    with pytest.raises(AssertionError):
        info(NETWORK, "owners", **OWNER)


def test_two_uses_of_the_same_fields_have_different_info() -> None:
    assert info(NETWORK, "owner", **OWNER) != info(NETWORK, "release", **OWNER)


def test_keys_compare_by_value_and_print_no_secret() -> None:
    assert SealingPublicKey(KEY.public) == PUBLIC
    assert SealingPublicKey(SealingKey(bytes(32)).public) != PUBLIC
    assert KEY.public != PUBLIC
    assert len({PUBLIC, SealingPublicKey(KEY.public)}) == 1
    assert KEY.seed[:4].hex() not in repr(KEY)
    assert KEY.public[:8].hex() in repr(KEY) and KEY.public[:8].hex() in repr(PUBLIC)
