"""Round trips, and: every one-bit change is refused."""

from __future__ import annotations

import hashlib
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from careledger.errors import Error, VerificationError
from careledger.tlog import (
    Checkpoint,
    Cosigner,
    Ed25519SigningKey,
    Frontier,
    LogTail,
    MemoryTree,
    Signer,
    TileReader,
    cosign,
    decode_entries,
    encode_entries,
    format_add_checkpoint,
    format_proof,
    leaf_hash,
    open_checkpoint,
    open_cosigned,
    parse_add_checkpoint,
    parse_proof,
    parse_skey,
    parse_unverified_checkpoint,
    parse_vkey,
    root_of,
    sign_checkpoint,
    skey,
    tail_of_entries,
    verify_consistency,
    verify_inclusion,
    verify_log,
    verify_proof,
)

SIZE = 700
ENTRIES = [hashlib.sha256(b"%d" % index).digest()[: index % 33] for index in range(SIZE)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
TREE = MemoryTree(LEAVES)
LOG = Signer("0123456789abcdef/cl1log", Ed25519SigningKey(bytes(range(32))))
WITNESS = Cosigner("witness.example/w1", Ed25519SigningKey(bytes(range(1, 33))))

sizes = st.integers(1, SIZE)
bits = st.integers(0, 1 << 30)
names = st.text(st.characters(categories=("L", "N", "P", "S", "M"), exclude_characters="+"), min_size=1, max_size=40)
hashes = st.binary(min_size=32, max_size=32)


def flip(data: bytes, bit: int) -> bytes:
    at, shift = divmod(bit % (8 * len(data)), 8)
    return data[:at] + bytes([data[at] ^ 1 << shift]) + data[at + 1 :]


@cache
def files_at(size: int) -> dict[str, bytes]:
    return tail_of_entries(ENTRIES[:size])[1]


@given(size=sizes, where=bits, bit=bits)
def test_an_inclusion_proof_holds_and_every_bit_of_it_matters(size: int, where: int, bit: int) -> None:
    index = where % size
    proof, root = TREE.inclusion_proof(index, size), TREE.root(size)
    verify_inclusion(index=index, size=size, leaf_hash=LEAVES[index], proof=proof, root=root)
    parts = [LEAVES[index], root, *proof]
    changed = bit % len(parts)
    parts[changed] = flip(parts[changed], where)
    with pytest.raises(VerificationError):
        verify_inclusion(index=index, size=size, leaf_hash=parts[0], proof=parts[2:], root=parts[1])


@given(size=sizes, where=bits, other=st.integers(0, SIZE))
def test_an_inclusion_proof_holds_at_no_other_index(size: int, where: int, other: int) -> None:
    index = where % size
    if other != index:
        proof = TREE.inclusion_proof(index, size)
        with pytest.raises(VerificationError):
            verify_inclusion(index=other, size=size, leaf_hash=LEAVES[index], proof=proof, root=TREE.root(size))


@given(sizes=st.tuples(sizes, sizes), bit=bits, where=bits)
def test_a_consistency_proof_holds_and_every_bit_of_it_matters(sizes: tuple[int, int], bit: int, where: int) -> None:
    old, new = sorted(sizes)
    parts = [TREE.root(old), TREE.root(new), *TREE.consistency_proof(old, new)]
    verify_consistency(old_size=old, old_root=parts[0], new_size=new, new_root=parts[1], proof=parts[2:])
    changed = bit % len(parts)
    parts[changed] = flip(parts[changed], where)
    with pytest.raises(VerificationError):
        verify_consistency(old_size=old, old_root=parts[0], new_size=new, new_root=parts[1], proof=parts[2:])


@given(cuts=st.lists(st.integers(0, SIZE), max_size=12))
def test_batches_of_any_size_lead_to_the_same_tree_files_and_proofs(cuts: list[int]) -> None:
    tail, frontier, files = LogTail(), Frontier(), dict[str, bytes]()
    edges = [0, *sorted(cuts), SIZE]
    for start, end in pairwise(edges):
        batch, changed = tail.append(ENTRIES[start:end])
        frontier.append_batch(LEAVES[start:end])
        files.update(changed)
        if end > start:
            for index in {start, (start + end) // 2, end - 1}:
                assert batch.inclusion(index) == TREE.inclusion_proof(index, end)
        assert tail.root() == frontier.root() == TREE.root(end)
    assert files_at(SIZE).items() <= files.items()


@given(size=sizes, where=bits, old=st.integers(0, SIZE))
def test_proofs_from_tiles_equal_proofs_from_hashes(size: int, where: int, old: int) -> None:
    reader = TileReader(files_at(size).__getitem__, size=size, root=TREE.root(size))
    index = where % size
    assert reader.inclusion_proof(index) == TREE.inclusion_proof(index, size)
    assert reader.consistency_proof(min(old, size)) == TREE.consistency_proof(min(old, size), size)
    assert reader.entry(index) == ENTRIES[index]


@settings(max_examples=300)
@given(size=sizes, which=bits, bit=bits)
def test_one_flipped_bit_in_any_file_is_found(size: int, which: int, bit: int) -> None:
    files = dict(files_at(size))
    path = sorted(files)[which % len(files)]
    files[path] = flip(files[path], bit)
    with pytest.raises(VerificationError) as caught:
        verify_log(files.__getitem__, size=size, root=TREE.root(size))
    assert 0 <= caught.value.details["index"] < size  # type: ignore[operator]


@given(st.lists(st.binary(max_size=300), max_size=256))
def test_bundles_come_back(entries: list[bytes]) -> None:
    assert decode_entries(encode_entries(entries)) == entries


@given(st.binary(max_size=2000))
def test_a_bundle_that_is_read_is_written_the_same(data: bytes) -> None:
    try:
        entries = decode_entries(data)
    except Error:
        return
    assert encode_entries(entries) == data


@given(name=names, seed=hashes)
def test_keys_come_back_from_their_text(name: str, seed: bytes) -> None:
    signer = Signer(name, Ed25519SigningKey(seed))
    assert parse_vkey(signer.vkey) == signer.verifier
    assert parse_skey(skey(name, seed)).vkey == signer.vkey
    witness = Cosigner(name, signer.key)
    assert parse_vkey(witness.vkey) == witness.verifier


lines = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=50)


@given(
    origin=names,
    size=st.integers(0, 2**63 - 1),
    root=hashes,
    extensions=st.lists(lines, max_size=3),
    time=st.integers(1, 2**63 - 1),
)
def test_checkpoints_come_back(origin: str, size: int, root: bytes, extensions: list[str], time: int) -> None:
    signer = Signer(origin, LOG.key)
    checkpoint = Checkpoint(origin, size, root, tuple(extensions))
    note = sign_checkpoint(checkpoint, signer=signer)
    assert open_checkpoint(note, verifier=signer.verifier) == parse_unverified_checkpoint(note) == checkpoint
    cosigned = note + cosign(checkpoint.text, signer=WITNESS, now_s=time)
    assert open_cosigned(cosigned, verifier=signer.verifier, witnesses=[WITNESS.verifier]) == (
        checkpoint,
        {WITNESS.vkey: time},
    )


@given(index=st.integers(0, 2**63 - 1), proof=st.lists(hashes, max_size=63), extra=st.binary(max_size=100))
def test_proof_texts_come_back(index: int, proof: list[bytes], extra: bytes) -> None:
    checkpoint = sign_checkpoint(Checkpoint(LOG.name, 1, LEAVES[0]), signer=LOG)
    parsed = parse_proof(format_proof(index, proof, checkpoint, extra))
    assert (parsed.index, list(parsed.hashes), parsed.checkpoint, parsed.extra) == (index, proof, checkpoint, extra)


@given(old=st.integers(0, 100), proof=st.lists(hashes, max_size=63))
def test_requests_to_witnesses_come_back(old: int, proof: list[bytes]) -> None:
    checkpoint = sign_checkpoint(Checkpoint(LOG.name, 100, TREE.root(100)), signer=LOG)
    parsed = parse_add_checkpoint(format_add_checkpoint(old, proof, checkpoint))
    assert (parsed.old_size, list(parsed.proof), parsed.checkpoint) == (old, proof, checkpoint)


@settings(max_examples=400)
@given(size=sizes, where=bits, bit=bits)
def test_every_changed_bit_of_a_receipts_proof_is_refused(size: int, where: int, bit: int) -> None:
    index = where % size
    note = sign_checkpoint(Checkpoint(LOG.name, size, TREE.root(size)), signer=LOG)
    proof = format_proof(index, TREE.inclusion_proof(index, size), note)
    assert verify_proof(proof, leaf=ENTRIES[index], verifier=LOG.verifier)[1] == index
    with pytest.raises(Error):
        verify_proof(flip(proof, bit), leaf=ENTRIES[index], verifier=LOG.verifier)


@given(st.lists(hashes, max_size=300), st.lists(hashes, max_size=50))
def test_a_memory_tree_grows_as_if_built_at_once(first: list[bytes], second: list[bytes]) -> None:
    tree = MemoryTree(first)
    tree.extend(second)
    assert tree.root() == root_of([*first, *second])
    assert tree.root(len(first)) == root_of(first)
