"""Rules for the nodes' logs: anchors must extend the last one, and a proven fork marks a node for good."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from careledger.directory.genesis import log_origin
from careledger.directory.signers import open_signed, signed_by_node
from careledger.directory.state import Staging
from careledger.directory.transactions import Anchor, ForkEvidence
from careledger.directory.values import AnchorState, ForkMark, NodeState
from careledger.errors import ConflictError, MalformedError, NotFoundError, NotPermittedError, VerificationError
from careledger.seal import Envelope, unb64
from careledger.tlog import EMPTY_ROOT, Checkpoint, Verifier, open_checkpoint, verify_consistency

__all__ = ["apply_anchor", "apply_fork_evidence"]


def apply_anchor(staging: Staging, envelope: Envelope) -> None:
    """A node's checkpoint: signed by its log key, and proven to extend its last anchor."""
    anchor, signer = open_signed(staging, envelope, Anchor)
    node = signed_by_node(staging, signer, anchor.node)
    if staging.fork(node.token) is not None:
        raise NotPermittedError("forked", "the node's log was proven to have forked: its member must replace the node")
    checkpoint = _checkpoint_by(anchor.checkpoint, staging.network, node, [node.log_key])
    last = staging.anchor(node.token)
    old_size, old_root = (0, EMPTY_ROOT) if last is None else (last.size, bytes.fromhex(last.root))
    if checkpoint.size <= old_size:
        raise ConflictError("old-anchor", f"the last anchor has size {old_size}: only a larger checkpoint is news")
    if last is not None and staging.time_ms - last.time < staging.integer("anchor_min_ms"):
        raise NotPermittedError("too-soon", "the node's last anchor is too recent: see the parameter anchor_min_ms")
    verify_consistency(
        old_size=old_size,
        old_root=old_root,
        new_size=checkpoint.size,
        new_root=checkpoint.root,
        proof=[bytes.fromhex(value) for value in anchor.proof],
    )
    after = AnchorState(
        v=1,
        node=node.token,
        size=checkpoint.size,
        root=checkpoint.root.hex(),
        height=staging.height,
        time=staging.time_ms,
    )
    staging.put("anchor", node.token, after)


def apply_fork_evidence(staging: Staging, envelope: Envelope) -> None:
    """Two checkpoints of one log that can't both be true, whoever of the members' nodes found them."""
    evidence, signer = open_signed(staging, envelope, ForkEvidence)
    signed_by_node(staging, signer, signer)
    node = staging.node(evidence.node)
    if node is None:
        raise NotFoundError("not-a-node", f"{evidence.node} is no member's node")
    if staging.fork(node.token) is not None:
        raise ConflictError("exists", "the node's fork is already recorded")
    keys = [node.log_key, *node.former_log_keys]
    one, other = (_checkpoint_by(text, staging.network, node, keys) for text in evidence.checkpoints)
    small, large = sorted((one, other), key=lambda checkpoint: checkpoint.size)
    _check_contradiction(evidence, small, large)
    mark = ForkMark(
        v=1,
        node=node.token,
        member=node.member,
        size=small.size,
        roots=[small.root.hex(), large.root.hex()],
        height=staging.height,
        time=staging.time_ms,
    )
    staging.put("fork", node.token, mark)


def _check_contradiction(evidence: ForkEvidence, small: Checkpoint, large: Checkpoint) -> None:
    """Same size, two roots; or the larger log provably had another root at the smaller size."""
    proof = evidence.proof
    if small.size == large.size:
        if proof is not msgspec.UNSET or small.root == large.root:
            raise VerificationError("no-fork", "two checkpoints of one size contradict each other by their roots alone")
        return
    if proof is msgspec.UNSET:
        raise VerificationError("no-fork", "checkpoints of different sizes need the proof of what the larger one holds")
    true_root = bytes.fromhex(proof.root)
    if true_root == small.root:
        raise VerificationError("no-fork", "the smaller checkpoint is what the larger one's log begins with: no fork")
    verify_consistency(
        old_size=small.size,
        old_root=true_root,
        new_size=large.size,
        new_root=large.root,
        proof=[bytes.fromhex(value) for value in proof.hashes],
    )


def _checkpoint_by(text: str, network: str, node: NodeState, keys: Sequence[str]) -> Checkpoint:
    """The checkpoint, signed with any of the keys under the node's origin. Raises VerificationError, MalformedError."""
    if not text.replace("\n\u2014 ", "\n").isascii():
        # Which other characters a key name may have depends on the Unicode tables of a replica's Python.
        raise MalformedError("bad-note", "a checkpoint for the directory has no other signers than ones named in ASCII")
    origin = log_origin(network, node.token)
    problem: VerificationError | None = None
    for key in keys:
        try:
            return open_checkpoint(text.encode(), verifier=Verifier.ed25519(origin, unb64(key, size=32)))
        except VerificationError as error:
            problem = problem or error
    raise problem or AssertionError("a node has a log key")
