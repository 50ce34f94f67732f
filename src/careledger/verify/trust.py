"""Whom to believe: the keys of a network's logs, witnesses and sequencer, from its genesis or from its directory.

A network's name is the hash of its genesis, so who knows the name can trust the founders' keys in it. Members that came
later, and keys that changed, are known from a directory that was verified (`trust_of_directory`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from careledger.directory import (
    Directory,
    LightValidator,
    cosignatures_needed,
    directory_origin,
    log_origin,
    network_of,
    parse_genesis,
    validator_set,
)
from careledger.directory.validators import founding_validators, validators
from careledger.errors import NotFoundError, VerificationError
from careledger.seal import unb64
from careledger.tlog import Verifier

__all__ = ["NodeKeys", "Trust", "others_needed", "trust_of_directory", "trust_of_genesis"]


class NodeKeys(NamedTuple):
    """A node's log key and witness key, and the member whose node it is."""

    member: str
    log: Verifier
    witness: Verifier


class Trust(NamedTuple):
    """The keys of one network at one moment. `sequencer` signs the block log's checkpoints, where there is one; else
    `validators` commit its blocks, as the set was at the genesis or at that moment."""

    network: str
    nodes: Mapping[str, NodeKeys]
    members: int
    sequencer: Verifier | None
    validators: Sequence[LightValidator] = ()

    def log(self, node: str) -> Verifier:
        """The key of a node's log. Raises NotFoundError `unknown-node`."""
        found = self.nodes.get(node)
        if found is None:
            raise NotFoundError("unknown-node", f"{node} is no node of network {self.network[:16]} as it is known here")
        return found.log

    def witnesses(self, *, besides: str | None = None) -> dict[str, list[Verifier]]:
        """Each member's witness keys; for a node's log without those of its own member (`besides` = the node)."""
        known = None if besides is None else self.nodes.get(besides)
        own = None if known is None else known.member
        found: dict[str, list[Verifier]] = {}
        for keys in self.nodes.values():
            if keys.member != own:
                found.setdefault(keys.member, []).append(keys.witness)
        return found

    @property
    def directory_needed(self) -> int:
        """Members that must have cosigned a head of the directory: ⌊2m/3⌋+1."""
        return cosignatures_needed(self.members)

    @property
    def log_needed(self) -> int:
        """Other members that must have cosigned a node's log: ⌊2m/3⌋ (with its own member ⌊2m/3⌋+1)."""
        return others_needed(self.members)


def others_needed(members: int) -> int:
    """⌊2m/3⌋ other members besides the log's own: with fewer than a third false, one honest member saw it."""
    return 2 * members // 3


def trust_of_genesis(genesis: bytes, *, network: str | None = None) -> Trust:
    """The founders' keys. `network`: the name that the genesis must have, where the caller knows it (it should).

    Raises VerificationError `wrong-network`; MalformedError `bad-genesis` and others of directory.parse_genesis.
    """
    name = network_of(genesis)
    if network is not None and name != network:
        raise VerificationError(
            "wrong-network", f"the genesis is of network {name[:16]}, not of {network[:16]}: get the right one"
        )
    parsed = parse_genesis(genesis)
    nodes = {
        node.token: _keys(name, node.token, member.token, node.log_key, node.witness_key)
        for member in parsed.members
        for node in member.nodes
    }
    sequencer = nodes.get(str(parsed.parameters.get("sequencer", "")))
    verifier = None if sequencer is None else Verifier.ed25519(directory_origin(name), sequencer.log.public)
    return Trust(name, nodes, len(parsed.members), verifier, validator_set(founding_validators(parsed)))


def trust_of_directory(directory: Directory) -> Trust:
    """The keys in force at a directory's height; nodes proven to have forked witness nothing."""
    name = directory.network
    nodes = {
        node.token: _keys(name, node.token, node.member, node.log_key, node.witness_key) for node in directory.nodes()
    }
    powers = validators(directory.state.members, directory.state.nodes)
    return Trust(name, nodes, len(directory.members()), directory.sequencer_verifier(), validator_set(powers))


def _keys(network: str, token: str, member: str, log_key: str, witness_key: str) -> NodeKeys:
    origin = log_origin(network, token)
    return NodeKeys(
        member,
        Verifier.ed25519(origin, unb64(log_key, size=32)),
        Verifier.cosignature(origin, unb64(witness_key, size=32)),
    )


def members_of(times: Mapping[str, int], witnesses: Mapping[str, Sequence[Verifier]]) -> dict[str, int]:
    """Which members cosigned, from the times by vkey that tlog.open_cosigned gives: several nodes of one count once."""
    found: dict[str, int] = {}
    for member, verifiers in witnesses.items():
        at = [times[verifier.vkey] for verifier in verifiers if verifier.vkey in times]
        if at:
            found[member] = max(at)
    return found
