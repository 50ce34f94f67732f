"""Who votes on blocks of the CometBFT engine: a function of the members in the state, and of nothing else.

A member has one vote, however many nodes it runs: the first of its nodes, in its own order, that has a consensus key.
Source: docs/spec/directory.md section 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from careledger.directory.genesis import ConsensusEntry, Genesis
from careledger.directory.values import MemberState, NodeState
from careledger.seal import unb64

__all__ = ["POWER", "founding_validators", "validator_changes", "validators"]

POWER: Final = 10
"""Of every validator alike; CometBFT's own test networks use the same number, and only proportions matter."""


def validators(members: Mapping[str, MemberState], nodes: Mapping[str, NodeState]) -> dict[bytes, int]:
    """Consensus key → power, in the order of the members."""
    found: dict[bytes, int] = {}
    for member in members.values():
        stated = [nodes[token].consensus for token in member.nodes if token in nodes]
        keys = [entry.key for entry in stated if isinstance(entry, ConsensusEntry)]
        if keys:
            found[unb64(keys[0], size=32)] = POWER
    return found


def founding_validators(genesis: Genesis) -> dict[bytes, int]:
    """The first set, as `validators` has it of the state at height 0, without executing the founding."""
    found: dict[bytes, int] = {}
    for member in genesis.members:
        keys = [node.consensus.key for node in member.nodes if isinstance(node.consensus, ConsensusEntry)]
        if keys:
            found[unb64(keys[0], size=32)] = POWER
    return found


def validator_changes(before: Mapping[bytes, int], after: Mapping[bytes, int]) -> list[tuple[bytes, int]]:
    """What leads from one set to the other, by key; power 0 removes. CometBFT applies it two blocks later."""
    changed = {key: 0 for key in before if key not in after}
    changed.update({key: power for key, power in after.items() if before.get(key) != power})
    return sorted(changed.items())
