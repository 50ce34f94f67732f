import struct

import pytest

from careledger.seal import Kdf, kdf


def test_one_secret_gives_each_use_and_each_list_of_parts_its_own_key() -> None:
    kept = Kdf(bytes(32))
    keys = [
        kept.derive("release"),
        kept.derive("content"),
        kept.derive("release", b""),
        kept.derive("release", b"", b""),
        kept.derive("release", b"ab", b"c"),
        kept.derive("release", b"a", b"bc"),
        kept.derive("release", b"abc"),
        kept.derive("release", 0),
        kept.derive("release", 1),
        kdf(bytes(33), "release"),
        kdf(b"", "release"),
    ]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {32}


def test_keys_derived_together_are_those_derived_one_by_one() -> None:
    kept, items = Kdf(b"ikm"), [b"a" * 16, b"b" * 16]
    assert kept.derive_each("release", items) == [kept.derive("release", item) for item in items]
    assert kept.derive_each("shamir", items, 2, 3) == [kept.derive("shamir", item, 2, 3) for item in items]
    assert kept.derive_each("release", []) == []
    with pytest.raises(AssertionError):
        kept.derive_each("release", [b"a", b"bc"])


def test_an_unregistered_use_is_a_bug() -> None:
    for use in ("", "Release", "release/v1", "releas"):
        with pytest.raises(AssertionError):
            kdf(bytes(32), use)
        with pytest.raises(AssertionError):
            Kdf(bytes(32)).derive_each(use, [b"a"])


@pytest.mark.parametrize("part", [-1, 2**32, bytes(1 << 16)])
def test_a_part_out_of_range_is_a_bug(part: bytes | int) -> None:
    with pytest.raises(struct.error):
        kdf(bytes(32), "release", part)


def test_repr_keeps_the_secret() -> None:
    assert repr(Kdf(b"secret")) == "Kdf(…)"
    assert not hasattr(Kdf(b"x"), "__dict__")
