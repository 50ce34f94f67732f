"""What the state map holds: one struct per kind. Their canonical bytes are the values that proofs prove."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from careledger.directory.genesis import ConsensusEntry, KeyText, Roles, Url
from careledger.directory.parameters import Value
from careledger.directory.transactions import Change
from careledger.identity import IdentityState
from careledger.identity.fields import Hash, Id16, Milliseconds, Name, TokenText, Version
from careledger.seal import Payload

__all__ = [
    "AnchorState",
    "ForkMark",
    "LicenceState",
    "MemberState",
    "NodeState",
    "ParameterState",
    "ProposalState",
    "QuotaState",
    "StateValue",
]


class MemberState(Payload, frozen=True, kw_only=True):
    """Kind `member`, id = organisation token. `head` links its next member-nodes statement."""

    v: Version
    token: TokenText
    roles: Roles
    nodes: list[TokenText]
    status: Literal["active", "removed"]
    since: Milliseconds
    head: Hash

    KIND: ClassVar[str] = "member"


class NodeState(Payload, frozen=True, kw_only=True):
    """Kind `node`, id = software token. Former log keys stay, so that an old fork can still be proven."""

    v: Version
    token: TokenText
    member: TokenText
    url: Url
    log_key: KeyText
    witness_key: KeyText
    former_log_keys: list[KeyText]
    status: Literal["active", "removed"]
    consensus: ConsensusEntry | msgspec.UnsetType = msgspec.UNSET

    KIND: ClassVar[str] = "node"


class LicenceState(Payload, frozen=True, kw_only=True):
    """Kind `licence`, id = 16 random bytes in hex. `head` = message id of the last statement, `changed` its time."""

    v: Version
    licence: Id16
    licensor: TokenText
    person: TokenText
    role: Name
    from_: Milliseconds = msgspec.field(name="from")
    until: Milliseconds
    status: Literal["active", "suspended", "revoked"]
    changed: Milliseconds
    head: Hash

    KIND: ClassVar[str] = "licence"


class ProposalState(Payload, frozen=True, kw_only=True):
    """Kind `proposal`, id = message id of the proposal. `votes` in the order in which they came."""

    v: Version
    member: TokenText
    change: Change
    expires: Milliseconds
    votes: list[TokenText]
    status: Literal["open", "passed", "failed"]

    KIND: ClassVar[str] = "proposal"


class AnchorState(Payload, frozen=True, kw_only=True):
    """Kind `anchor`, id = node token: the largest checkpoint of its log that the directory has seen."""

    v: Version
    node: TokenText
    size: int
    root: Hash
    height: int
    time: Milliseconds

    KIND: ClassVar[str] = "anchor"


class ForkMark(Payload, frozen=True, kw_only=True):
    """Kind `fork`, id = node token: its log was proven to have forked at or before `size`. It never goes away."""

    v: Version
    node: TokenText
    member: TokenText
    size: int
    roots: list[Hash]
    height: int
    time: Milliseconds

    KIND: ClassVar[str] = "fork"


class ParameterState(Payload, frozen=True, kw_only=True):
    """Kind `parameter`, id = name. `value` counts from height `activates` on, `before` until then."""

    v: Version
    name: str
    value: Value
    activates: int
    before: Value

    KIND: ClassVar[str] = "parameter"

    def at(self, height: int) -> Value:
        """The value in force at a block height."""
        return self.value if height >= self.activates else self.before


class QuotaState(Payload, frozen=True, kw_only=True):
    """Kind `quota`, id = member token: inceptions on `day` (days since 1970-01-01 UTC of block time)."""

    v: Version
    day: int
    count: int

    KIND: ClassVar[str] = "quota"


StateValue = (
    IdentityState
    | MemberState
    | NodeState
    | LicenceState
    | ProposalState
    | AnchorState
    | ForkMark
    | ParameterState
    | QuotaState
)
