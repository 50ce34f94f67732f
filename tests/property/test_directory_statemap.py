"""The state map against a model: a dict. Order does not matter, every key is provable, nothing else is."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from careledger.directory import MapProof, StateMap, map_key, verify_absent, verify_present
from careledger.directory.statemap import OtherLeaf
from careledger.errors import Error, VerificationError

names = st.text(alphabet="abc01", max_size=6)
models = st.dictionaries(names, st.binary(max_size=4), max_size=60)


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def map_of(model: dict[str, bytes]) -> StateMap:
    return StateMap().updated({map_key("k", name): digest(value) for name, value in model.items()})


@given(models, st.randoms(use_true_random=False), st.integers(1, 8))
@settings(max_examples=80, deadline=None)
def test_order_and_batches_do_not_matter(model: dict[str, bytes], random: Any, batches: int) -> None:
    items = list(model.items())
    random.shuffle(items)
    built = StateMap()
    for start in range(batches):
        part = {map_key("k", name): digest(value) for name, value in items[start::batches]}
        built = built.updated(part)
    assert built.root == map_of(model).root


@given(models, models, st.sets(names, max_size=10))
@settings(max_examples=80, deadline=None)
def test_history_does_not_matter(model: dict[str, bytes], before: dict[str, bytes], removed: set[str]) -> None:
    """Whatever was written, overwritten and removed before, the root is that of what is there now."""
    changes: dict[bytes, bytes | None] = {map_key("k", name): None for name in [*before, *sorted(removed)]}
    changes |= {map_key("k", name): digest(value) for name, value in model.items()}
    assert map_of(before).updated(changes).root == map_of(model).root


@given(models, st.lists(names, max_size=20))
@settings(max_examples=60, deadline=None)
def test_every_key_and_every_absence_is_provable(model: dict[str, bytes], asked: list[str]) -> None:
    some = map_of(model)
    for name in [*model, *asked]:
        proof = some.prove("k", name)
        if name in model:
            verify_present(proof, "k", name, model[name], some.root)
            with pytest.raises(VerificationError):
                verify_absent(proof, "k", name, some.root)
        else:
            verify_absent(proof, "k", name, some.root)
            with pytest.raises(VerificationError):
                verify_present(proof, "k", name, b"", some.root)


def check(proof: MapProof, model: dict[str, bytes], name: str, root: bytes) -> None:
    if name in model:
        verify_present(proof, "k", name, model[name], root)
    else:
        verify_absent(proof, "k", name, root)


def flipped(text: str, bit: int) -> str:
    data = bytearray(bytes.fromhex(text))
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    return data.hex()


@given(models.filter(lambda model: len(model) > 1), names, st.integers(0, 255), st.integers(0, 63))
@settings(max_examples=100, deadline=None)
def test_every_one_bit_change_is_refused(model: dict[str, bytes], name: str, bit: int, place: int) -> None:
    some = map_of(model)
    proof = some.prove("k", name)
    altered: list[MapProof] = []
    if proof.siblings:
        siblings = list(proof.siblings)
        at = place % len(siblings)
        siblings[at] = flipped(siblings[at], bit)
        altered.append(msgspec.structs.replace(proof, siblings=siblings))
        altered.append(msgspec.structs.replace(proof, siblings=proof.siblings[:-1]))
        altered.append(msgspec.structs.replace(proof, siblings=proof.siblings[1:]))
    altered.append(msgspec.structs.replace(proof, siblings=[*proof.siblings, "00" * 32]))
    if proof.leaf is not msgspec.UNSET:
        leaf = proof.leaf
        altered.append(msgspec.structs.replace(proof, leaf=OtherLeaf(key=leaf.key, value=flipped(leaf.value, bit))))
        altered.append(msgspec.structs.replace(proof, leaf=OtherLeaf(key=flipped(leaf.key, bit), value=leaf.value)))
        altered.append(msgspec.structs.replace(proof, leaf=msgspec.UNSET))
    for wrong in altered:
        if wrong == proof:
            continue
        with pytest.raises(Error):
            check(wrong, model, name, some.root)
    root = bytes.fromhex(flipped(some.root.hex(), bit))
    with pytest.raises(VerificationError):
        check(proof, model, name, root)
