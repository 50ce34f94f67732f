import pytest

from careledger.errors import MalformedError
from careledger.seal import passphrase_key
from careledger.seal.passphrase import ITERATIONS, LANES, MEMORY_KIB

SALT = bytes(16)


def quick(passphrase: str, salt: bytes = SALT) -> bytes:
    return passphrase_key(passphrase, salt=salt, memory_kib=8, iterations=1)


def test_defaults_are_those_of_the_specification() -> None:
    assert (MEMORY_KIB, ITERATIONS, LANES) == (65536, 3, 1)


def test_each_passphrase_and_salt_has_its_own_key() -> None:
    keys = {quick("a"), quick("A"), quick("a "), quick("a", b"\x01" * 16)}
    assert len(keys) == 4


def test_one_passphrase_from_two_keyboards_gives_one_key() -> None:
    assert quick("Zoë") == quick("Zoe\u0308")
    assert quick("①") == quick("1")


@pytest.mark.parametrize(
    "costs",
    [
        {"memory_kib": (1 << 20) + 1},
        {"memory_kib": 7},
        {"iterations": 0},
        {"iterations": 65},
        {"lanes": 0},
        {"lanes": 17},
        {"lanes": 2, "memory_kib": 15},
        {"salt": bytes(15)},
        {"salt": bytes(17)},
    ],
)
def test_costs_that_a_hostile_key_box_could_name_are_refused_before_any_work(costs: dict[str, int | bytes]) -> None:
    with pytest.raises(MalformedError) as refusal:
        passphrase_key("a", **{"salt": SALT, "memory_kib": 8, "iterations": 1, **costs})  # type: ignore[arg-type]
    assert refusal.value.code == "bad-parameters"


@pytest.mark.parametrize("passphrase", ["", "\ud800", "a" * 4097])
def test_a_passphrase_that_is_none_is_refused_without_quoting_it(passphrase: str) -> None:
    with pytest.raises(MalformedError) as refusal:
        quick(passphrase)
    assert refusal.value.code == "bad-passphrase"
    assert "aaaa" not in refusal.value.message
