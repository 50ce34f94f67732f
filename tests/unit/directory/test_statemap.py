"""The sparse Merkle map: its shape, its proofs, and what they refuse."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from careledger.directory import MapProof, StateMap, map_key, verify_absent, verify_present
from careledger.directory.statemap import EMPTY, OtherLeaf
from careledger.errors import VerificationError


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def map_of(items: dict[tuple[str, str], bytes]) -> StateMap:
    return StateMap().updated({map_key(kind, ident): digest(value) for (kind, ident), value in items.items()})


def test_empty_map_has_the_zero_root_and_proves_any_absence() -> None:
    empty = StateMap()
    assert empty.root == bytes(32) == EMPTY
    proof = empty.prove("identity", "x")
    assert proof == MapProof(siblings=[])
    verify_absent(proof, "identity", "x", empty.root)


def test_one_leaf_is_the_root() -> None:
    one = map_of({("identity", "x"): b"value"})
    key = digest(b"identity/x")
    assert one.root == digest(b"\x00" + key + digest(b"value"))
    verify_present(one.prove("identity", "x"), "identity", "x", b"value", one.root)


def test_interior_hashes_follow_the_key_s_bits() -> None:
    items = {("k", str(number)): bytes([number]) for number in range(2, 60)}
    pair = next(
        (one, other) for one in items for other in items if map_key(*one)[0] < 0x80 and map_key(*other)[0] >= 0x80
    )
    left, right = (digest(b"\x00" + map_key(*item) + digest(items[item])) for item in pair)
    assert map_of({item: items[item] for item in pair}).root == digest(b"\x01" + left + right)


def test_leaves_with_a_common_prefix_have_empty_siblings_above_them() -> None:
    names = [("k", str(number)) for number in range(200)]
    one, other = next(
        (a, b)
        for a in names
        for b in names
        if a < b and map_key(*a)[0] >> 6 == 1 and map_key(*b)[0] >> 5 == 3 and map_key(*a)[0] >> 5 == 2
    )
    both = map_of({one: b"1", other: b"2"})
    left = digest(b"\x00" + map_key(*one) + digest(b"1"))
    right = digest(b"\x00" + map_key(*other) + digest(b"2"))
    pair = digest(b"\x01" + left + right)
    at_depth_1 = digest(b"\x01" + EMPTY + pair)
    assert both.root == digest(b"\x01" + at_depth_1 + EMPTY)


def test_removing_the_last_but_one_leaf_brings_the_other_back_to_the_top() -> None:
    one, two = ("k", "1"), ("k", "2")
    both = map_of({one: b"1", two: b"2"})
    assert both.updated({map_key(*two): None}).root == map_of({one: b"1"}).root
    assert both.updated({map_key(*one): None, map_key(*two): None}).root == EMPTY
    assert both.updated({}) is both


def test_update_leaves_the_old_map_as_it_was() -> None:
    old = map_of({("k", str(number)): b"v" for number in range(50)})
    root = old.root
    new = old.updated({map_key("k", "7"): digest(b"w")})
    assert old.root == root != new.root
    verify_present(old.prove("k", "7"), "k", "7", b"v", root)
    verify_present(new.prove("k", "7"), "k", "7", b"w", new.root)


def test_proof_of_absence_shows_who_sits_there_instead() -> None:
    some = map_of({("k", str(number)): b"v" for number in range(64)})
    kinds = set()
    for number in range(100, 400):
        proof = some.prove("k", str(number))
        kinds.add(proof.leaf is msgspec.UNSET)
        verify_absent(proof, "k", str(number), some.root)
    assert kinds == {True, False}


def test_present_key_cannot_be_proven_absent_nor_with_another_value() -> None:
    some = map_of({("k", str(number)): b"v" for number in range(64)})
    proof = some.prove("k", "5")
    with pytest.raises(VerificationError, match="root"):
        verify_absent(proof, "k", "5", some.root)
    with pytest.raises(VerificationError, match="root"):
        verify_present(proof, "k", "5", b"w", some.root)
    with pytest.raises(VerificationError, match="root"):
        verify_present(proof, "kk", "5", b"v", some.root)
    itself = OtherLeaf(key=map_key("k", "5").hex(), value=digest(b"v").hex())
    with pytest.raises(VerificationError, match="key itself"):
        verify_absent(msgspec.structs.replace(proof, leaf=itself), "k", "5", some.root)


def test_leaf_from_elsewhere_proves_no_absence() -> None:
    """Deleting the prefix check would let the fold run along the wrong path only if a hash collided; the check says so
    before anything is hashed."""
    some = map_of({("k", str(number)): b"v" for number in range(64)})
    proof = some.prove("k", "5")
    far = next(
        ("k", str(number)) for number in range(64) if map_key("k", str(number))[0] >> 7 != map_key("k", "5")[0] >> 7
    )
    other = OtherLeaf(key=map_key(*far).hex(), value=digest(b"v").hex())
    with pytest.raises(VerificationError, match="elsewhere"):
        verify_absent(msgspec.structs.replace(proof, leaf=other), "k", "5", some.root)


def test_proof_of_absence_is_no_proof_of_presence() -> None:
    some = map_of({("k", str(number)): b"v" for number in range(64)})
    number = next(n for n in range(100, 400) if some.prove("k", str(n)).leaf is not msgspec.UNSET)
    with pytest.raises(VerificationError, match="absence"):
        verify_present(some.prove("k", str(number)), "k", str(number), b"v", some.root)
