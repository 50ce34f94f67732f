"""Transactions and blocks: what may be put before the directory's rules, each a signed envelope.

Identity operations (update, rotate, deactivate) and licences are transactions as they are; their formats are
identity's. Anything whose replay could do harm carries a sequence, a `prev` or a nonce.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, NamedTuple

import msgspec

from careledger.directory.genesis import Nodes, Roles
from careledger.directory.parameters import Value
from careledger.identity.fields import Hash, Id16, Milliseconds, TokenText, Version
from careledger.seal import Envelope, Payload, SigningKey, decode, encode, sign

__all__ = [
    "BLOCK_BYTES_MAX",
    "TRANSACTION_BYTES_MAX",
    "Admit",
    "Anchor",
    "Block",
    "Change",
    "Enrol",
    "ForkEvidence",
    "ForkProof",
    "MemberNodes",
    "MemberPropose",
    "MemberVote",
    "ParameterChange",
    "Remove",
    "RoleChange",
    "TxResult",
    "parse_block",
    "sign_transaction",
]

BLOCK_BYTES_MAX: Final = 65_535
"""A block is an entry of the block log, and the tile format gives an entry's length 16 bits."""

ORDERED_BYTES_MAX: Final = 4 << 20
"""Of a block's transactions under CometBFT, its consensus parameter block.max_bytes: a thousand are half a MiB."""

COMMITTED_BLOCK_BYTES_MAX: Final = ORDERED_BYTES_MAX + (64 << 10)
"""Of such a block as it is kept: CometBFT's limit covers its transactions, the rest is our own few fields."""

TRANSACTION_BYTES_MAX: Final = 49_152
"""Of the envelope's text fields together: it must fit a block with room for the block's own fields."""

_CHECKPOINT_TEXT_MAX: Final = 16_384
_PROOF_HASHES_MAX: Final = 64

CheckpointText = Annotated[str, msgspec.Meta(max_length=_CHECKPOINT_TEXT_MAX)]
ProofHashes = Annotated[list[Hash], msgspec.Meta(max_length=_PROOF_HASHES_MAX)]


class Enrol(Payload, frozen=True, kw_only=True):
    """A member's node brings in an identity's inception; signed by the node's software identity."""

    v: Version
    network: Hash
    node: TokenText
    inception: Envelope

    TYPE: ClassVar[str] = "application/vnd.careledger.enrol+json"


class Admit(Payload, frozen=True, kw_only=True, tag_field="change", tag="admit"):
    """An organisation becomes a member, with these roles and nodes (already enrolled as software)."""

    member: TokenText
    roles: Roles
    nodes: Nodes


class Remove(Payload, frozen=True, kw_only=True, tag_field="change", tag="remove"):
    """A member and its nodes leave."""

    member: TokenText


class RoleChange(Payload, frozen=True, kw_only=True, tag_field="change", tag="roles"):
    """A member's roles become these."""

    member: TokenText
    roles: Roles


class ParameterChange(Payload, frozen=True, kw_only=True, tag_field="change", tag="parameter"):
    """A parameter takes this value from block height `activates` on; 0: from the block that decides."""

    name: str
    value: Value
    activates: Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)]


Change = Admit | Remove | RoleChange | ParameterChange


class MemberPropose(Payload, frozen=True, kw_only=True):
    """A member proposes a change and thereby votes for it; the proposal's id is this message's id."""

    v: Version
    network: Hash
    member: TokenText
    nonce: Id16
    expires: Milliseconds
    change: Change

    TYPE: ClassVar[str] = "application/vnd.careledger.member-propose+json"


class MemberVote(Payload, frozen=True, kw_only=True):
    """A member's consent to a proposal; it can't be withdrawn, the proposal expires."""

    v: Version
    network: Hash
    member: TokenText
    proposal: Hash

    TYPE: ClassVar[str] = "application/vnd.careledger.member-vote+json"


class MemberNodes(Payload, frozen=True, kw_only=True):
    """A member's own nodes become these; `prev` is the message id of its last such statement, zeros at first."""

    v: Version
    network: Hash
    member: TokenText
    prev: Hash
    nodes: Nodes

    TYPE: ClassVar[str] = "application/vnd.careledger.member-nodes+json"


class Anchor(Payload, frozen=True, kw_only=True):
    """A node's signed checkpoint, with the consistency proof from its last anchor; signed by its software identity."""

    v: Version
    network: Hash
    node: TokenText
    checkpoint: CheckpointText
    proof: ProofHashes

    TYPE: ClassVar[str] = "application/vnd.careledger.anchor+json"


class ForkProof(Payload, frozen=True, kw_only=True):
    """For checkpoints of different sizes: the root that the larger one's log really had at the smaller size, proven."""

    root: Hash
    hashes: ProofHashes


class ForkEvidence(Payload, frozen=True, kw_only=True):
    """Two checkpoints signed by `node`'s log key that can't both be true; signed by any member's node."""

    v: Version
    network: Hash
    node: TokenText
    checkpoints: Annotated[list[CheckpointText], msgspec.Meta(min_length=2, max_length=2)]
    proof: ForkProof | msgspec.UnsetType = msgspec.UNSET

    TYPE: ClassVar[str] = "application/vnd.careledger.fork-evidence+json"


class Block(Payload, frozen=True, kw_only=True):
    """Transactions in their order. Height 1 follows the genesis; `time` never runs backwards."""

    v: Version
    network: Hash
    height: Annotated[int, msgspec.Meta(ge=1, le=(1 << 53) - 1)]
    time: Milliseconds
    transactions: list[Envelope]

    TYPE: ClassVar[str] = "application/vnd.careledger.block+json"


class TxResult(NamedTuple):
    """What became of a transaction: `ok`, or the stable reason code of its refusal with a line for people."""

    code: str
    message: str

    @property
    def ok(self) -> bool:
        return self.code == "ok"


def parse_block(data: bytes, *, size_max: int = BLOCK_BYTES_MAX) -> Block:
    """The block of exactly these bytes, at most its engine's `size_max`. Raises MalformedError as seal.decode."""
    return decode(data, Block, size_max=size_max)


def sign_transaction(payload: Payload, *, signers: list[tuple[str, SigningKey]]) -> Envelope:
    """The signed envelope of one of this module's payloads; `signers` = (keyid, key) of who must sign it."""
    kind: str | None = getattr(type(payload), "TYPE", None)
    if kind is None:
        raise AssertionError("only payloads with a type can be signed")
    return sign(kind, encode(payload), signers)
