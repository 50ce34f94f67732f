"""Rules for members: proposals that more than two thirds must support, and a member's own nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from careledger.directory.genesis import MEMBERS_MAX, ConsensusEntry, NodeEntry, check_node_entries
from careledger.directory.parameters import check_parameter
from careledger.directory.signers import open_signed, signed_by_member
from careledger.directory.state import Staging
from careledger.directory.transactions import (
    Admit,
    Change,
    MemberNodes,
    MemberPropose,
    MemberVote,
    ParameterChange,
    Remove,
    RoleChange,
)
from careledger.directory.values import MemberState, NodeState, ParameterState, ProposalState
from careledger.errors import ConflictError, Error, NotFoundError, NotPermittedError, VerificationError
from careledger.identity.fields import ZERO_HASH
from careledger.seal import Envelope, envelope_message_id

__all__ = ["PROPOSAL_MS_MAX", "add_member", "apply_nodes", "apply_propose", "apply_vote"]

PROPOSAL_MS_MAX: Final = 90 * 86_400_000
"""A proposal that nobody decided in 90 days is asked again, so that an old vote doesn't surprise its voter."""

_FORMER_KEYS_MAX: Final = 64


def apply_propose(staging: Staging, envelope: Envelope) -> None:
    """A member's proposal, which is its vote too; a network of one member decides at once."""
    propose, signer = open_signed(staging, envelope, MemberPropose)
    signed_by_member(staging, signer, propose.member)
    ident = envelope_message_id(envelope).hex()
    if staging.proposal(ident) is not None:
        raise ConflictError("exists", "the proposal was already made")
    if not staging.time_ms < propose.expires <= staging.time_ms + PROPOSAL_MS_MAX:
        raise NotPermittedError("expired", "a proposal expires in the future, at most 90 days ahead")
    _check_change(staging, propose.change)
    proposal = ProposalState(
        v=1,
        member=propose.member,
        change=propose.change,
        expires=propose.expires,
        votes=[propose.member],
        status="open",
    )
    _decide(staging, ident, proposal)


def apply_vote(staging: Staging, envelope: Envelope) -> None:
    """A member's vote for an open proposal; the one that makes it more than two thirds carries it out."""
    vote, signer = open_signed(staging, envelope, MemberVote)
    signed_by_member(staging, signer, vote.member)
    proposal = staging.proposal(vote.proposal)
    if proposal is None:
        raise NotFoundError("unknown-proposal", "the directory knows no such proposal")
    if proposal.status != "open":
        raise ConflictError("decided", f"the proposal has {proposal.status} already")
    if staging.time_ms >= proposal.expires:
        raise NotPermittedError("expired", "the proposal has expired: propose it again")
    if vote.member in proposal.votes:
        raise ConflictError("exists", "the member has voted for this proposal already")
    _decide(staging, vote.proposal, msgspec.structs.replace(proposal, votes=[*proposal.votes, vote.member]))


def apply_nodes(staging: Staging, envelope: Envelope) -> None:
    """A member's statement of its own nodes, which replaces the one before."""
    statement, signer = open_signed(staging, envelope, MemberNodes)
    member = signed_by_member(staging, signer, statement.member)
    if statement.prev != member.head:
        raise VerificationError("bad-prev", "the statement does not follow the member's last one: sign again on it")
    _check_nodes(staging, member.token, statement.nodes)
    sequencer = staging.text("sequencer")
    if sequencer in member.nodes and all(node.token != sequencer for node in statement.nodes):
        raise NotPermittedError("is-sequencer", "the node is the network's sequencer: vote for another one first")
    if all(node.consensus is msgspec.UNSET for node in statement.nodes):
        _check_validators_stay(staging, member)
    head = envelope_message_id(envelope).hex()
    _put_nodes(staging, msgspec.structs.replace(member, head=head), statement.nodes)


def add_member(staging: Staging, token: str, roles: Sequence[str], nodes: Sequence[NodeEntry]) -> None:
    """Stage a member with its nodes, at the founding or when admitted.

    Raises NotFoundError `unknown-identity`, NotPermittedError `wrong-kind`, ConflictError `exists`, `node-taken`.
    """
    _check_admission(staging, token, nodes)
    member = MemberState(
        v=1, token=token, roles=list(roles), nodes=[], status="active", since=staging.time_ms, head=ZERO_HASH
    )
    _put_nodes(staging, member, nodes)


def _decide(staging: Staging, ident: str, proposal: ProposalState) -> None:
    members = staging.active_members()
    supporters = sum(1 for member in members if member.token in proposal.votes)
    if 3 * supporters > 2 * len(members):
        try:
            _check_change(staging, proposal.change)
        except Error:
            # What was possible when it was proposed no longer is; the vote is spent all the same.
            proposal = msgspec.structs.replace(proposal, status="failed")
        else:
            proposal = msgspec.structs.replace(proposal, status="passed")
            _carry_out(staging, proposal.change)
    staging.put("proposal", ident, proposal)


def _check_change(staging: Staging, change: Change) -> None:
    if isinstance(change, Admit):
        _check_admission(staging, change.member, change.nodes)
    elif isinstance(change, ParameterChange):
        check_parameter(change.name, change.value)
        if change.name == "sequencer":
            _check_sequencer(staging, change)
        if change.activates != 0 and change.activates < staging.height:
            raise NotPermittedError("expired", "the height at which the parameter would change has passed")
    else:
        member = _active_member(staging, change.member)
        if isinstance(change, Remove):
            if len(staging.active_members()) == 1:
                raise NotPermittedError("last-member", "the last member can't be removed")
            if staging.text("sequencer") in member.nodes:
                raise NotPermittedError("is-sequencer", "the member runs the sequencer: vote for another one first")
            _check_validators_stay(staging, member)


def _check_sequencer(staging: Staging, change: ParameterChange) -> None:
    node = staging.node(change.value) if isinstance(change.value, str) and change.value else None
    if change.value and (node is None or node.status != "active"):
        raise NotFoundError("not-a-node", "the sequencer must be a member's node")
    if change.activates != 0:
        # The keys of a node that leaves before its hour would leave the network without a sequencer.
        raise NotPermittedError("bad-parameter", "the sequencer changes with the block that decides it")


def _carry_out(staging: Staging, change: Change) -> None:
    if isinstance(change, Admit):
        add_member(staging, change.member, change.roles, change.nodes)
    elif isinstance(change, Remove):
        member = _active_member(staging, change.member)
        _put_nodes(staging, msgspec.structs.replace(member, status="removed"), [])
    elif isinstance(change, RoleChange):
        member = _active_member(staging, change.member)
        staging.put("member", member.token, msgspec.structs.replace(member, roles=change.roles))
    else:
        before = staging.parameter(change.name)
        if before is None:
            raise AssertionError("the genesis has every parameter")
        after = ParameterState(
            v=1,
            name=change.name,
            value=change.value,
            activates=max(change.activates, staging.height),
            before=before.at(staging.height),
        )
        staging.put("parameter", change.name, after)


def _active_member(staging: Staging, token: str) -> MemberState:
    member = staging.member(token)
    if member is None or member.status != "active":
        raise NotFoundError("not-a-member", f"{token} is no member of the network")
    return member


def _check_admission(staging: Staging, token: str, nodes: Sequence[NodeEntry]) -> None:
    known = staging.member(token)
    if known is not None and known.status == "active":
        raise ConflictError("exists", "the organisation is already a member")
    if len(staging.active_members()) >= MEMBERS_MAX:
        raise NotPermittedError("too-many-members", f"a network has at most {MEMBERS_MAX} members")
    _check_identity(staging, token, "organisation")
    _check_nodes(staging, token, nodes)


def _check_identity(staging: Staging, token: str, kind: str) -> None:
    identity = staging.identity(token)
    if identity is None or identity.status != "active":
        raise NotFoundError("unknown-identity", f"the directory knows no active identity {token}: enrol it first")
    if identity.kind != kind:
        raise NotPermittedError("wrong-kind", f"{token} is of kind {identity.kind}, not {kind}")


def _check_nodes(staging: Staging, member: str, nodes: Sequence[NodeEntry]) -> None:
    check_node_entries(nodes)
    for entry in nodes:
        _check_identity(staging, entry.token, "software")
        known = staging.node(entry.token)
        if known is not None and known.member != member:
            raise ConflictError("node-taken", f"the node {entry.token} belongs to another member")
        if known is not None and known.log_key != entry.log_key and len(known.former_log_keys) >= _FORMER_KEYS_MAX:
            raise NotPermittedError("too-many-keys", "the node has changed its log key too often: use a new node")
    _check_consensus_keys(staging, member, nodes)


def _check_consensus_keys(staging: Staging, member: str, nodes: Sequence[NodeEntry]) -> None:
    """No two members' nodes have one consensus key: CometBFT stops at a validator that is named twice."""
    stated = [node.consensus.key for node in nodes if isinstance(node.consensus, ConsensusEntry)]
    if not stated:
        return
    for other in staging.active_members():
        if other.token != member and any(key in stated for key in _consensus_keys(staging, other)):
            raise ConflictError("key-taken", "the consensus key belongs to another member's node: make a new one")


def _consensus_keys(staging: Staging, member: MemberState) -> list[str]:
    found = [staging.node(token) for token in member.nodes]
    return [node.consensus.key for node in found if node is not None and isinstance(node.consensus, ConsensusEntry)]


def _check_validators_stay(staging: Staging, leaving: MemberState) -> None:
    """A network that CometBFT orders keeps a validator: without any it could decide nothing, not even a new one."""
    others = [member for member in staging.active_members() if member.token != leaving.token]
    if _consensus_keys(staging, leaving) and not any(_consensus_keys(staging, member) for member in others):
        raise NotPermittedError("last-validator", "the network's last validator can't leave: name another one first")


def _put_nodes(staging: Staging, member: MemberState, nodes: Sequence[NodeEntry]) -> None:
    """Stage the member with exactly these active nodes; those it had before stay known as removed."""
    kept = [entry.token for entry in nodes]
    for token in member.nodes:
        known = staging.node(token)
        if token not in kept and known is not None:
            staging.put("node", token, msgspec.structs.replace(known, status="removed"))
    for entry in nodes:
        known = staging.node(entry.token)
        former: list[str] = []
        if known is not None:
            former = [*known.former_log_keys]
            if known.log_key != entry.log_key:
                former.append(known.log_key)
        after = NodeState(
            v=1,
            token=entry.token,
            member=member.token,
            url=entry.url,
            log_key=entry.log_key,
            witness_key=entry.witness_key,
            former_log_keys=former,
            status="active",
            consensus=entry.consensus,
        )
        if after != known:
            staging.put("node", entry.token, after)
    staging.put("member", member.token, msgspec.structs.replace(member, nodes=kept))
