from __future__ import annotations

import hashlib

import pytest

from careledger.errors import VerificationError
from careledger.tlog import (
    EMPTY_ROOT,
    Frontier,
    MemoryTree,
    consistency_proof,
    inclusion_proof,
    interior_hash,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [leaf_hash(b"%d" % index) for index in range(70)]


def mth(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return interior_hash(mth(leaves[:split]), mth(leaves[split:]))


def path(index: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962 section 2.1.1, word for word."""
    if len(leaves) == 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return [*path(index, leaves[:split]), mth(leaves[split:])]
    return [*path(index - split, leaves[split:]), mth(leaves[:split])]


def test_roots_and_proofs_are_those_the_rfc_defines() -> None:
    assert root_of([]) == EMPTY_ROOT == MemoryTree().root() == Frontier().root()
    for size in range(1, len(LEAVES) + 1):
        leaves = LEAVES[:size]
        assert root_of(leaves) == mth(leaves)
        assert MemoryTree(leaves).inclusion_proofs() == [path(index, leaves) for index in range(size)]


def test_every_consistency_proof_up_to_70_verifies_and_no_other_old_root_does() -> None:
    tree = MemoryTree(LEAVES)
    for new in range(len(LEAVES) + 1):
        for old in range(new + 1):
            proof = tree.consistency_proof(old, new)
            verify_consistency(
                old_size=old, old_root=tree.root(old), new_size=new, new_root=tree.root(new), proof=proof
            )
            if old:
                with pytest.raises(VerificationError):
                    verify_consistency(
                        old_size=old, old_root=LEAVES[-1], new_size=new, new_root=tree.root(new), proof=proof
                    )


def test_leaves_and_interior_hashes_are_told_apart() -> None:
    left, right = LEAVES[0], LEAVES[1]
    assert leaf_hash(left + right) != interior_hash(left, right)


def test_an_interior_hash_cannot_pass_as_a_leaf_of_a_smaller_tree() -> None:
    tree = MemoryTree(LEAVES[:4])
    proof = tree.inclusion_proof(0)
    interior = interior_hash(LEAVES[0], LEAVES[1])
    with pytest.raises(VerificationError):
        verify_inclusion(index=0, size=4, leaf_hash=interior, proof=proof[1:], root=tree.root())


@pytest.mark.parametrize(("index", "size"), [(-1, 4), (4, 4), (0, 0), (5, 3)])
def test_an_index_outside_the_tree_is_refused(index: int, size: int) -> None:
    with pytest.raises(VerificationError) as caught:
        verify_inclusion(index=index, size=size, leaf_hash=LEAVES[0], proof=[], root=LEAVES[0])
    assert caught.value.code == "bad-proof"


def test_a_shrunken_log_is_refused() -> None:
    tree = MemoryTree(LEAVES)
    with pytest.raises(VerificationError, match="shrank from 70 to 60"):
        verify_consistency(old_size=70, old_root=tree.root(), new_size=60, new_root=tree.root(60), proof=[])


def test_an_empty_log_with_another_root_is_refused() -> None:
    with pytest.raises(VerificationError, match="empty log"):
        verify_consistency(old_size=0, old_root=LEAVES[0], new_size=1, new_root=LEAVES[0], proof=[])


def test_two_roots_at_one_size_are_called_a_fork() -> None:
    with pytest.raises(VerificationError, match="forked"):
        verify_consistency(old_size=5, old_root=LEAVES[0], new_size=5, new_root=LEAVES[1], proof=[])


def test_a_proof_where_none_is_needed_is_refused() -> None:
    tree = MemoryTree(LEAVES)
    for old, new in ((0, 5), (5, 5)):
        with pytest.raises(VerificationError, match="no proof is needed"):
            verify_consistency(
                old_size=old, old_root=tree.root(old), new_size=new, new_root=tree.root(new), proof=[LEAVES[0]]
            )


def test_hashes_of_another_length_are_refused() -> None:
    with pytest.raises(VerificationError, match="31 bytes"):
        verify_inclusion(index=0, size=2, leaf_hash=LEAVES[0], proof=[LEAVES[1][:31]], root=root_of(LEAVES[:2]))


def test_one_call_proofs_equal_the_trees() -> None:
    assert inclusion_proof(LEAVES, 13) == MemoryTree(LEAVES).inclusion_proof(13)
    assert consistency_proof(LEAVES, 13) == MemoryTree(LEAVES).consistency_proof(13)


def test_a_frontier_proves_each_batch_from_memory_alone() -> None:
    for old in range(40):
        for new in range(old, 70):
            frontier = Frontier()
            for leaf in LEAVES[:old]:
                frontier.append(leaf)
            batch = frontier.append_batch(LEAVES[old:new])
            assert frontier.root() == root_of(LEAVES[:new])
            assert (frontier.size, batch.old_size, batch.size) == (new, old, new)
            tree = MemoryTree(LEAVES[:new])
            for index in range(old, new):
                assert batch.inclusion(index) == tree.inclusion_proof(index)


def test_a_batch_does_not_prove_leaves_of_others() -> None:
    frontier = Frontier()
    frontier.append_batch(LEAVES[:5])
    batch = frontier.append_batch(LEAVES[5:9])
    for index in (4, 9):
        with pytest.raises(AssertionError):
            batch.inclusion(index)


def test_a_frontier_is_restored_from_its_hashes_and_refuses_a_wrong_number() -> None:
    frontier = Frontier()
    for leaf in LEAVES:
        frontier.append(leaf)
        again = Frontier(frontier.size, frontier.hashes)
        assert again.root() == frontier.root()
    copy = frontier.copy()
    copy.append(LEAVES[0])
    assert frontier.size == 70
    for size, hashes in ((3, LEAVES[:1]), (4, LEAVES[:2]), (1, [b"short"]), (-1, [])):
        with pytest.raises(VerificationError) as caught:
            Frontier(size, hashes)
        assert caught.value.code == "bad-frontier"
