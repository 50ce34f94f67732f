from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from careledger.errors import MalformedError, NotFoundError, VerificationError
from careledger.tlog import (
    EMPTY_ROOT,
    Frontier,
    LogTail,
    MemoryTree,
    TileReader,
    decode_entries,
    edge_tiles,
    encode_entries,
    first_difference,
    leaf_hash,
    leaf_hashes_of,
    root_of,
    tail_of_entries,
    tiles_for_growth,
    verified_bundles,
    verify_log,
)


def entries_of(size: int) -> list[bytes]:
    return [b"careledger/entry/v1 keep " + hashlib.sha256(b"%d" % index).hexdigest().encode() for index in range(size)]


def fetch_of(files: dict[str, bytes]) -> Callable[[str], bytes]:
    def fetch(path: str) -> bytes:
        try:
            return files[path]
        except KeyError:
            raise NotFoundError("no-tile", f"{path} is not in this log") from None

    return fetch


SIZE = 1500
ENTRIES = entries_of(SIZE)
TREE = MemoryTree(leaf_hashes_of(ENTRIES))
TAIL, FILES = tail_of_entries(ENTRIES)


def flipped(path: str, at: int) -> dict[str, bytes]:
    data = bytearray(FILES[path])
    data[at] ^= 0x40
    return {**FILES, path: bytes(data)}


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 512, 1000])
@pytest.mark.parametrize("batch", [1, 7, 256, 300])
def test_a_log_grown_in_batches_has_the_files_of_one_built_at_once(size: int, batch: int) -> None:
    entries = ENTRIES[:size]
    tail, written = LogTail(), dict[str, bytes]()
    for start in range(0, size, batch):
        before = tail.size
        proofs, files = tail.append(entries[start : start + batch])
        expected = {tile.path for tile in tiles_for_growth(before, tail.size)}
        assert {path for path, _ in files if not path.startswith("tile/entries/")} == expected
        for path, data in files:
            # A full tile never changes; a partial one of the same width neither.
            assert written.setdefault(path, data) == data
        tree = MemoryTree(leaf_hashes_of(entries[: tail.size]))
        assert tail.root() == tree.root()
        assert proofs.inclusion(tail.size - 1) == tree.inclusion_proof(tail.size - 1)
    whole, files_at_once = tail_of_entries(entries)
    assert whole.root() == tail.root()
    assert files_at_once.items() <= written.items()
    verify_log(fetch_of(written), size=size, root=tail.root())
    assert {tile.path for tile in edge_tiles(size)} <= set(files_at_once)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 1000])
def test_a_tail_restored_from_files_goes_on_as_if_it_had_never_stopped(size: int) -> None:
    tail, files = tail_of_entries(ENTRIES[:size])
    restored = LogTail.restore(fetch_of(files), size=size, root=tail.root())
    assert restored.append(ENTRIES[size:])[1] == tail.append(ENTRIES[size:])[1]
    assert restored.root() == TREE.root()


@pytest.mark.parametrize("batch", [1, 100, 256])
def test_a_tail_that_takes_what_another_frontier_hashed_has_the_same_files(batch: int) -> None:
    frontier, tail, own = Frontier(), LogTail(), LogTail()
    for start in range(0, 700, batch):
        entries = ENTRIES[start : min(700, start + batch)]
        tail.take(entries, frontier.append_batch(leaf_hashes_of(entries)))
        own.take(entries)
        if start // batch % 3 == 0:
            assert tail.changed_files() == own.changed_files()
    assert tail.changed_files() == own.changed_files()
    assert tail.changed_files() == []
    assert tail.root() == own.root() == TREE.root(700)
    # Its own frontier goes on where the other one is.
    assert tail.append(ENTRIES[700:])[1] == own.append(ENTRIES[700:])[1]
    assert (frontier.size, tail.root()) == (700, TREE.root())


def test_a_tail_refuses_a_batch_that_does_not_follow_or_has_another_number_of_entries() -> None:
    tail, frontier = LogTail(), Frontier()
    first = frontier.append_batch(leaf_hashes_of(ENTRIES[:3]))
    second = frontier.append_batch(leaf_hashes_of(ENTRIES[3:5]))
    for entries, batch in ((ENTRIES[3:5], second), (ENTRIES[:2], first)):
        with pytest.raises(AssertionError, match="does not follow"):
            tail.take(entries, batch)
    assert tail.size == 0


def test_restoring_against_another_root_is_refused() -> None:
    with pytest.raises(VerificationError) as caught:
        LogTail.restore(fetch_of(FILES), size=SIZE, root=TREE.root(SIZE - 1))
    assert caught.value.code == "bad-root"


def test_proofs_read_from_tiles_equal_those_from_hashes() -> None:
    reader = TileReader(fetch_of(FILES), size=SIZE, root=TREE.root())
    for index in (0, 1, 255, 256, 1023, 1024, 1499):
        assert reader.inclusion_proof(index) == TREE.inclusion_proof(index)
        assert reader.entry(index) == ENTRIES[index]
        assert reader.leaf_hash_at(index) == leaf_hash(ENTRIES[index])
    for old in (0, 1, 255, 256, 257, 1024, 1499, 1500):
        assert reader.consistency_proof(old) == TREE.consistency_proof(old)
        assert reader.root_at(old) == TREE.root(old)


def test_a_log_whose_partial_tiles_were_deleted_is_read_from_full_ones() -> None:
    _, bigger = tail_of_entries(entries_of(2048))
    assert not any(".p/" in path for path in bigger if path.startswith(("tile/0/", "tile/entries/")))
    bigger["tile/1/000.p/5"] = bigger["tile/1/000.p/8"][: 5 * 32]
    reader = TileReader(fetch_of(bigger), size=SIZE, root=TREE.root())
    assert reader.entries(5) == ENTRIES[1280:]
    assert reader.inclusion_proof(1499) == TREE.inclusion_proof(1499)


def test_verified_bundles_yield_every_entry_in_order() -> None:
    seen = [entry for _, entries in verified_bundles(fetch_of(FILES), size=SIZE, root=TREE.root()) for entry in entries]
    assert seen == ENTRIES
    first = next(verified_bundles(fetch_of(FILES), size=SIZE, root=TREE.root(), start=600))
    assert first == (512, ENTRIES[512:768])


@pytest.mark.parametrize("index", [0, 1, 255, 256, 700, 1279, 1280, 1499])
@pytest.mark.parametrize("offset", [0, 1, 2, 30, 90])
def test_a_flipped_byte_of_an_entry_is_named_exactly(index: int, offset: int) -> None:
    bundle = index // 256
    path = f"tile/entries/{bundle:03d}" + ("" if bundle < 5 else ".p/220")
    at = len(encode_entries(ENTRIES[bundle * 256 : index])) + offset
    with pytest.raises(VerificationError) as caught:
        verify_log(fetch_of(flipped(path, at)), size=SIZE, root=TREE.root())
    assert caught.value.details["index"] == index
    assert str(index) in caught.value.message


@pytest.mark.parametrize("index", [0, 255, 256, 700, 1280, 1499])
def test_a_flipped_byte_of_a_leaf_hash_is_named_exactly(index: int) -> None:
    bundle = index // 256
    path = f"tile/0/{bundle:03d}" + ("" if bundle < 5 else ".p/220")
    with pytest.raises(VerificationError) as caught:
        verify_log(fetch_of(flipped(path, index % 256 * 32 + 5)), size=SIZE, root=TREE.root())
    assert caught.value.details["index"] == index


@pytest.mark.parametrize("position", range(5))
def test_a_flipped_byte_of_a_higher_tile_names_the_first_entry_under_that_hash(position: int) -> None:
    with pytest.raises(VerificationError) as caught:
        verify_log(fetch_of(flipped("tile/1/000.p/5", position * 32 + 31)), size=SIZE, root=TREE.root())
    assert caught.value.code == "bad-root"
    assert caught.value.details["index"] == position * 256


def test_an_entry_rewritten_with_its_leaf_hash_is_still_found() -> None:
    entries = list(ENTRIES)
    entries[300] = ENTRIES[301]
    _, forged = tail_of_entries(entries)
    # An operator rewrites the bundle and its tile of level 0, but not the tile above.
    files = {**FILES, "tile/entries/001": forged["tile/entries/001"], "tile/0/001": forged["tile/0/001"]}
    with pytest.raises(VerificationError) as caught:
        verify_log(fetch_of(files), size=SIZE, root=TREE.root())
    assert caught.value.code == "bad-tile"
    assert caught.value.details["index"] == 256


def test_a_log_rewritten_throughout_has_another_root_than_the_checkpoint() -> None:
    entries = list(ENTRIES)
    entries[300] = ENTRIES[301]
    _, forged = tail_of_entries(entries)
    with pytest.raises(VerificationError) as caught:
        verify_log(fetch_of(forged), size=SIZE, root=TREE.root())
    assert caught.value.code == "bad-root"
    assert first_difference(fetch_of(forged), size=SIZE) is None


def test_entries_dropped_at_the_end_do_not_lead_to_the_root() -> None:
    _, shorter = tail_of_entries(ENTRIES[:-1])
    with pytest.raises(NotFoundError):
        verify_log(fetch_of(shorter), size=SIZE, root=TREE.root())
    with pytest.raises(VerificationError):
        verify_log(fetch_of(shorter), size=SIZE - 1, root=TREE.root())


def test_exchanged_bundles_are_found() -> None:
    files = {**FILES, "tile/entries/001": FILES["tile/entries/002"], "tile/entries/002": FILES["tile/entries/001"]}
    with pytest.raises(VerificationError) as caught:
        verify_log(fetch_of(files), size=SIZE, root=TREE.root())
    assert caught.value.details["index"] == 256


def test_an_entry_appended_to_a_bundle_is_found() -> None:
    path = "tile/entries/005.p/220"
    files = {**FILES, path: FILES[path] + encode_entries([b"more"])}
    with pytest.raises(VerificationError) as caught:
        verify_log(fetch_of(files), size=SIZE, root=TREE.root())
    assert caught.value.code == "bad-entry"


def test_a_tile_that_is_cut_or_too_long_is_refused() -> None:
    reader = TileReader(
        fetch_of({**FILES, "tile/1/000.p/5": FILES["tile/1/000.p/5"] + bytes(32)}), size=SIZE, root=TREE.root()
    )
    with pytest.raises(MalformedError) as caught:
        reader.inclusion_proof(0)
    assert caught.value.code == "bad-tile"


def test_a_tile_of_a_hostile_log_is_not_believed_for_a_proof() -> None:
    reader = TileReader(fetch_of(flipped("tile/0/002", 0)), size=SIZE, root=TREE.root())
    assert reader.inclusion_proof(0) == TREE.inclusion_proof(0)
    with pytest.raises(VerificationError) as caught:
        reader.inclusion_proof(600)
    assert caught.value.details["tile"] == "tile/0/002"
    assert caught.value.details["first"] == 512
    assert caught.value.details["last"] == 767


def test_an_empty_log_has_the_empty_root_and_no_other() -> None:
    verify_log(fetch_of({}), size=0, root=EMPTY_ROOT)
    with pytest.raises(VerificationError):
        verify_log(fetch_of({}), size=0, root=root_of([leaf_hash(b"")]))


def test_a_bundle_of_another_number_of_entries_is_refused() -> None:
    bundle = encode_entries(ENTRIES[:3])
    assert decode_entries(bundle, width=3) == ENTRIES[:3]
    for width in (2, 4):
        with pytest.raises(MalformedError) as caught:
            decode_entries(bundle, width=width)
        assert caught.value.code == "bad-bundle"


def test_an_entry_too_long_for_a_bundle_is_our_own_bug() -> None:
    encode_entries([bytes(0xFFFF)])
    with pytest.raises(AssertionError):
        encode_entries([bytes(0x10000)])


def test_only_as_many_tiles_are_read_as_a_proof_needs() -> None:
    entries = entries_of(70_000)
    tail, files = tail_of_entries(entries)
    read: list[str] = []

    def fetch(path: str) -> bytes:
        read.append(path)
        return files[path]

    reader = TileReader(fetch, size=70_000, root=tail.root())
    reader.inclusion_proof(12_345)
    assert sorted(read) == ["tile/0/048", "tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"]
