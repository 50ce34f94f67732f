"""A directory that CometBFT ordered, verified: its blocks executed again, and the result compared with what more than
two thirds of the validators committed.

The blocks are the node's own record of accepted transactions; refused ones are in CometBFT's blocks alone. What binds
the two is the app hash, which commits to all of the state and its history. Source: docs/spec/directory.md section 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from careledger.directory import Directory, LightBlock, chain_id, follow
from careledger.directory.transactions import COMMITTED_BLOCK_BYTES_MAX
from careledger.errors import VerificationError
from careledger.seal import decode
from careledger.verify.directory import VerifiedDirectory, executed, wrong_block
from careledger.verify.moments import DirectoryHistory
from careledger.verify.report import DirectoryReport
from careledger.verify.trust import trust_of_genesis

__all__ = ["verify_committed"]

LIGHT_BYTES_MAX: Final = 16 << 20
_NO_TRANSACTIONS: Final = sha256(b"").hexdigest()
"""CometBFT's data hash of a block without transactions: the root of an empty tree."""


def verify_committed(
    blocks: Sequence[bytes],
    light: bytes,
    genesis: bytes,
    *,
    network: str | None = None,
    others: Sequence[bytes] = (),
) -> VerifiedDirectory:
    """Execute the blocks again (`blocks[h - 1]` is block h) up to the head that `light` proves.

    1. the genesis is `network`'s, where the caller knows the name; 2. the light blocks lead from the founders'
    validators to the head; 3. every block follows the one before, none of its transactions breaks a rule, and their
    app hash is the head's; 4. the block that states it counts too where it is proven to be empty. What comes after is
    left out. `others`: other nodes' light blocks, which must state the same history.
    Raises VerificationError `wrong-network`, `wrong-block` (details: height), `fork`, and as directory.follow.
    """
    trust = trust_of_genesis(genesis, network=network)
    found = decode(light, list[LightBlock], size_max=LIGHT_BYTES_MAX)
    head = follow(found, chain=chain_id(trust.network), validators=trust.validators)
    if len(blocks) < head.height:
        raise wrong_block(len(blocks) + 1, f"it is missing, and the validators have committed {head.height}")
    directory = Directory.from_genesis(genesis)
    transactions = 0
    for height, data in enumerate(blocks[: head.height], start=1):
        transactions += executed(directory, data, height, size_max=COMMITTED_BLOCK_BYTES_MAX)
    if directory.app_hash() != head.app_hash:
        raise wrong_block(head.height, "executing the blocks gives another app hash than the validators committed")
    if len(blocks) > head.height and found[-1].header.data == _NO_TRANSACTIONS:
        if executed(directory, blocks[head.height], head.height + 1, size_max=COMMITTED_BLOCK_BYTES_MAX):
            raise wrong_block(head.height + 1, "the validators committed it without transactions")
        if directory.time_ms != head.time_ms:
            raise wrong_block(head.height + 1, "it has another time than the validators committed")
    kept = list(blocks[: directory.height])
    history = DirectoryHistory(genesis, kept, block_bytes_max=COMMITTED_BLOCK_BYTES_MAX)
    for other in others:
        _compare(other, history, trust.network)
    report = DirectoryReport(
        network=directory.network,
        height=directory.height,
        time=directory.time_ms,
        app_hash=directory.app_hash().hex(),
        transactions=transactions,
        members=len(directory.members()),
        cosigned={},
        committed=head.committed,
        needed=0,
    )
    return VerifiedDirectory(report, history.at(directory.height), history)


def _compare(light: bytes, history: DirectoryHistory, network: str) -> None:
    """Another node's proven head is of the same history, as far as it is here. Raises VerificationError `fork`."""
    trust = trust_of_genesis(history.genesis, network=network)
    found = decode(light, list[LightBlock], size_max=LIGHT_BYTES_MAX)
    head = follow(found, chain=chain_id(network), validators=trust.validators)
    if head.height <= history.height and history.at(head.height).app_hash() != head.app_hash:
        raise VerificationError(
            "fork",
            f"validators have committed two directories of {head.height} blocks: keep both folders as evidence",
            details={"height": head.height},
        )
