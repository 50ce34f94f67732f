"""The directory, verified: all its blocks executed again from the genesis, or one value proven from a cosigned head.

Executing everything needs nobody's word but the sequencer's for the order; a light proof rests on the members that
cosigned. Source: DESIGN 5.6; docs/spec/directory.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from careledger.directory import (
    BLOCK_BYTES_MAX,
    Directory,
    LightBlock,
    LightProof,
    StateProof,
    apply_block,
    chain_id,
    check_directory_checkpoint,
    cosignatures_needed,
    directory_origin,
    follow,
    parse_app_hash,
    parse_block,
)
from careledger.errors import Error, MalformedError, UnavailableError, VerificationError
from careledger.seal import decode, encode
from careledger.tlog import (
    CHECKPOINT_PATH,
    Checkpoint,
    Verifier,
    open_checkpoint,
    parse_unverified_checkpoint,
    verified_bundles,
)
from careledger.verify.history import Fetch, narrowing
from careledger.verify.moments import DirectoryHistory
from careledger.verify.report import DirectoryProofReport, DirectoryReport
from careledger.verify.trust import Trust, trust_of_genesis

__all__ = ["VerifiedDirectory", "check_state_proof", "verify_directory", "verify_directory_proof"]

PROOF_BYTES_MAX: Final = 1 << 20


class VerifiedDirectory(NamedTuple):
    """A directory that was executed again: `directory` at its newest height, `history` for any other."""

    report: DirectoryReport
    directory: Directory
    history: DirectoryHistory


class DirectoryProof(msgspec.Struct, frozen=True, kw_only=True):
    """The file of a directory proof, and the answer of GET /v1/directory/proof/{kind}/{id}."""

    proof: StateProof
    checkpoint: str


_proof_decoder: Final = msgspec.json.Decoder(DirectoryProof)


def verify_directory(
    fetch: Fetch,
    genesis: bytes,
    *,
    network: str | None = None,
    needed: int | None = None,
    more_notes: Sequence[bytes] = (),
) -> VerifiedDirectory:
    """Execute a directory's whole block log again.

    1. the genesis is `network`'s, where the caller knows the name; 2. the log's origin is the network's directory;
    3. every block is in the log, follows the one before, and none of its transactions breaks a rule; 4. the checkpoint
    is signed by the sequencer in force; 5. the app hash is the one in the checkpoint; 6. the nodes of `needed` members
    (None: ⌊2m/3⌋+1) cosigned it. `more_notes`: the same checkpoint as other nodes have it, with other cosignatures.
    Raises VerificationError `wrong-network`, `wrong-origin`, `wrong-block` and tlog's codes, details {index, height}
    where known; `fork`: a note of `more_notes` states another root at this size; UnavailableError
    `not-enough-cosignatures`; MalformedError.
    """
    trust_of_genesis(genesis, network=network)
    fetch = narrowing(fetch)
    note = fetch(CHECKPOINT_PATH)
    stated = parse_unverified_checkpoint(note)
    directory = Directory.from_genesis(genesis)
    if stated.origin != directory_origin(directory.network):
        raise VerificationError(
            "wrong-origin", f'log "{stated.origin}" is not the directory of network {directory.network[:16]}'
        )
    blocks: list[bytes] = []
    transactions = 0
    sequencer = directory.sequencer_verifier()
    for _, entries in verified_bundles(fetch, size=stated.size, root=stated.root):
        for data in entries:
            sequencer = directory.sequencer_verifier()
            transactions += executed(directory, data, len(blocks) + 1)
            blocks.append(data)
    signer = _check_head(stated, note, directory, sequencer)
    cosigned = _cosigned(directory, note, more_notes, signer)
    members = len(directory.members())
    wanted = cosignatures_needed(members) if needed is None else needed
    if len(cosigned) < wanted:
        raise UnavailableError(
            "not-enough-cosignatures",
            f"{len(cosigned)} of {members} members cosigned the directory at height {stated.size}, {wanted} are "
            "needed: get the checkpoint of more nodes, or a newer copy",
            details={"found": len(cosigned), "needed": wanted},
        )
    report = DirectoryReport(
        network=directory.network,
        height=directory.height,
        time=directory.time_ms,
        app_hash=directory.app_hash().hex(),
        transactions=transactions,
        members=members,
        cosigned=cosigned,
        needed=wanted,
    )
    return VerifiedDirectory(report, directory, DirectoryHistory(genesis, blocks))


def executed(directory: Directory, data: bytes, height: int, *, size_max: int = BLOCK_BYTES_MAX) -> int:
    """Execute one block; returns its number of transactions. Raises VerificationError `wrong-block`."""
    try:
        block = parse_block(data, size_max=size_max)
        outcome = apply_block(directory.state, block)
    except Error as problem:
        raise wrong_block(height, problem.message) from problem
    for place, result in enumerate(outcome.results):
        if not result.ok:
            raise wrong_block(height, f"transaction {place} breaks the rules ({result.code})")
    directory.commit(outcome)
    return len(block.transactions)


def wrong_block(height: int, why: str) -> VerificationError:
    """The refusal of a block."""
    return VerificationError(
        "wrong-block",
        f"block {height} of the directory is wrong: {why}; keep it and report whoever ordered it",
        details={"index": height - 1, "height": height},
    )


def _check_head(stated: Checkpoint, note: bytes, directory: Directory, sequencer: Verifier | None) -> Verifier:
    """Signature and app hash of the newest checkpoint; returns the sequencer that signed it."""
    if sequencer is None:
        raise VerificationError("no-sequencer", "the directory names no sequencer whose checkpoint could be checked")
    open_checkpoint(note, verifier=sequencer)
    if parse_app_hash(stated) != directory.app_hash():
        raise wrong_block(directory.height, "executing the blocks gives another app hash than the checkpoint's")
    return sequencer


def _cosigned(directory: Directory, note: bytes, more: Sequence[bytes], sequencer: Verifier) -> dict[str, int]:
    """Members that cosigned the checkpoint, by any of the notes that state the same."""
    witnesses = directory.witnesses()
    stated = parse_unverified_checkpoint(note)
    found: dict[str, int] = {}
    for other in (note, *more):
        claimed = parse_unverified_checkpoint(other)
        if claimed.origin != stated.origin or claimed.size != stated.size:
            continue
        head = check_directory_checkpoint(other, sequencer=sequencer, witnesses=witnesses, needed=0)
        if claimed.text != stated.text:
            raise VerificationError(
                "fork",
                f"the sequencer signed two directories of {stated.size} blocks: keep both notes as evidence",
                details={"size": stated.size},
            )
        found = {**head.cosigned, **found}
    return found


def verify_directory_proof(
    data: bytes, *, genesis: bytes, network: str | None = None, trust: Trust | None = None, needed: int | None = None
) -> DirectoryProofReport:
    """Verify a proof of one value of the directory, or of its absence: JSON {proof, checkpoint} under a checkpoint that
    members cosigned, or {blocks, proof, v} under blocks that CometBFT's validators committed.

    `trust`: the keys of a newer moment than the genesis, where members or keys changed since. Raises MalformedError
    `bad-proof-file`; VerificationError and UnavailableError as `check_state_proof`; VerificationError as
    `directory.follow`.
    """
    founders = trust_of_genesis(genesis, network=network)
    if trust is not None and trust.network != founders.network:
        raise VerificationError("wrong-network", "the keys given are another network's than the genesis")
    if data.startswith(b'{"blocks":'):
        found = decode(data, LightProof, size_max=PROOF_BYTES_MAX)
        proof, above = found.proof, encode(found.blocks)
    else:
        shown = parse_directory_proof(data)
        proof, above = shown.proof, shown.checkpoint.encode()
    head, value = check_state_proof(proof, above, trust=trust or founders, needed=needed)
    return DirectoryProofReport(
        network=founders.network,
        kind=proof.kind,
        id=proof.id,
        value=None if value is None else value.decode(),
        height=head.height,
        app_hash=head.app_hash.hex(),
        cosigned=head.cosigned,
        committed=head.committed,
    )


def parse_directory_proof(data: bytes) -> DirectoryProof:
    """The parts of a proof file, nothing verified. Raises MalformedError `bad-proof-file`."""
    if len(data) <= PROOF_BYTES_MAX:
        try:
            return _proof_decoder.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass
    raise MalformedError("bad-proof-file", "this is not the JSON of a directory proof ({proof, checkpoint})")


class ProvenHead(NamedTuple):
    """A head of the directory, and who vouched for it: members that cosigned it (-> POSIX seconds), or validators that
    committed the block which states it (consensus key -> power)."""

    height: int
    app_hash: bytes
    cosigned: dict[str, int]
    committed: dict[str, int]


def check_state_proof(
    proof: StateProof, above: bytes, *, trust: Trust, needed: int | None = None
) -> tuple[ProvenHead, bytes | None]:
    """The head that `above` proves (a checkpoint note, or light blocks as a canonical JSON array) and the value that a
    proof proves under it (None: absent).

    Raises VerificationError `no-sequencer`, `bad-app-hash`, `bad-proof`, …, as directory.follow; UnavailableError
    `not-enough-cosignatures`.
    """
    head = _committed_head(above, trust) if above.startswith(b"[") else _cosigned_head(above, trust, needed)
    return head, proof.verify(kind=proof.kind, ident=proof.id, app=head.app_hash)


def _committed_head(above: bytes, trust: Trust) -> ProvenHead:
    if not trust.validators:
        raise VerificationError("no-validators", "the network has no validators that could have committed a block")
    blocks = decode(above, list[LightBlock], size_max=PROOF_BYTES_MAX)
    head = follow(blocks, chain=chain_id(trust.network), validators=trust.validators)
    return ProvenHead(head.height, head.app_hash, {}, head.committed)


def _cosigned_head(above: bytes, trust: Trust, needed: int | None) -> ProvenHead:
    if trust.sequencer is None:
        raise VerificationError("no-sequencer", "the network names no sequencer whose checkpoint could be checked")
    head = check_directory_checkpoint(
        above,
        sequencer=trust.sequencer,
        witnesses=trust.witnesses(),
        needed=trust.directory_needed if needed is None else needed,
    )
    return ProvenHead(head.height, head.app_hash, head.cosigned, {})
