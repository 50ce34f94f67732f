"""Genesis: the founders, their nodes and the network's parameters. Its hash is the network's name, so it can't change.

`network` = SHA-256 of the genesis bytes. A node's log has the origin `<network, 16 hex>/<node token>`, the block log of
the embedded engine `<network, 16 hex>/directory`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, NamedTuple

import msgspec

from careledger.directory.parameters import Value, check_parameter, default_parameters
from careledger.errors import MalformedError
from careledger.identity import Token, parse_operation
from careledger.identity.fields import Id16, Milliseconds, Name, TokenText, Version
from careledger.seal import Envelope, Payload, VerifyKey, b64, decode, encode, unb64

__all__ = [
    "GENESIS_BYTES_MAX",
    "ConsensusEntry",
    "ConsensusPart",
    "Genesis",
    "GenesisMember",
    "MemberPart",
    "NodeEntry",
    "NodePart",
    "check_node_entries",
    "directory_origin",
    "founding",
    "log_origin",
    "network_of",
    "parse_genesis",
]

GENESIS_BYTES_MAX: Final = 1 << 20
NODES_PER_MEMBER_MAX: Final = 16
MEMBERS_MAX: Final = 256
_ROLES_MAX: Final = 8

Url = Annotated[str, msgspec.Meta(pattern=r"\Ahttps?://[!-~]{1,500}\Z")]
KeyText = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{43}\Z")]
Peer = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{40}@[0-9A-Za-z.:\[\]-]{1,255}:[0-9]{1,5}\Z")]
Roles = Annotated[list[Name], msgspec.Meta(max_length=_ROLES_MAX)]


class ConsensusEntry(Payload, frozen=True, kw_only=True):
    """What makes a node a validator of the CometBFT engine: its consensus key, and the peer that others dial.

    `key` signs votes and nothing else. `peer` is CometBFT's `id@host:port`, id = 40 hex of its transport key's address.
    """

    key: KeyText
    peer: Peer


class NodeEntry(Payload, frozen=True, kw_only=True):
    """A node of a member: its software identity, where it answers, its log's and its witness's Ed25519 keys (b64)."""

    token: TokenText
    url: Url
    log_key: KeyText
    witness_key: KeyText
    consensus: ConsensusEntry | msgspec.UnsetType = msgspec.UNSET


Nodes = Annotated[list[NodeEntry], msgspec.Meta(max_length=NODES_PER_MEMBER_MAX)]


class GenesisMember(Payload, frozen=True, kw_only=True):
    """A founder: an organisation, its roles (`provider`, `licensor`, …) and its nodes."""

    token: TokenText
    roles: Roles
    nodes: Nodes


class Genesis(Payload, frozen=True, kw_only=True):
    """The beginning of a network; `inceptions` are those of all founders and their nodes."""

    v: Version
    nonce: Id16
    time: Milliseconds
    parameters: dict[str, Value]
    members: Annotated[list[GenesisMember], msgspec.Meta(min_length=1, max_length=MEMBERS_MAX)]
    inceptions: list[Envelope]


class ConsensusPart(NamedTuple):
    """A validator's raw 32-byte Ed25519 public key and its peer `id@host:port`."""

    key: bytes
    peer: str


class NodePart(NamedTuple):
    """The public part of a node that its operator hands to the founding: keys are raw 32-byte Ed25519 public keys."""

    inception: Envelope
    url: str
    log_key: bytes
    witness_key: bytes
    consensus: ConsensusPart | None = None

    def entry(self) -> NodeEntry:
        """As genesis and statements of a member's nodes carry it."""
        consensus = self.consensus
        return NodeEntry(
            token=parse_operation(self.inception).token,
            url=self.url,
            log_key=b64(self.log_key),
            witness_key=b64(self.witness_key),
            consensus=msgspec.UNSET
            if consensus is None
            else ConsensusEntry(key=b64(consensus.key), peer=consensus.peer),
        )


class MemberPart(NamedTuple):
    """The public part of a founder."""

    inception: Envelope
    nodes: Sequence[NodePart]
    roles: Sequence[str] = ("provider",)


def network_of(genesis: bytes) -> str:
    """The network's name: hex SHA-256 of the exact genesis bytes."""
    return hashlib.sha256(genesis).hexdigest()


def log_origin(network: str, node: Token) -> str:
    """The origin of a node's log, and the name of its log key and of its witness key."""
    return f"{network[:16]}/{node}"


def directory_origin(network: str) -> str:
    """The origin of the block log."""
    return f"{network[:16]}/directory"


def parse_genesis(data: bytes) -> Genesis:
    """The genesis of exactly these bytes; whether its founders' signatures hold is proven when it is applied.

    Raises MalformedError as seal.decode and `bad-genesis`, `bad-parameter`.
    """
    genesis = decode(data, Genesis, size_max=GENESIS_BYTES_MAX)
    for name, value in genesis.parameters.items():
        check_parameter(name, value)
    missing = [name for name in default_parameters() if name not in genesis.parameters]
    if missing:
        raise MalformedError("bad-genesis", f"the genesis lacks the parameter {missing[0]}")
    tokens = [member.token for member in genesis.members]
    if len(set(tokens)) != len(tokens):
        raise MalformedError("bad-genesis", "the genesis names the same founder twice")
    check_node_entries([node for member in genesis.members for node in member.nodes])
    return genesis


def check_node_entries(nodes: Sequence[NodeEntry]) -> None:
    """Every node once, every key once and valid. Raises MalformedError `bad-nodes`, `bad-key`, `bad-base64`."""
    keys = [key for node in nodes for key in (node.log_key, node.witness_key)]
    keys += [node.consensus.key for node in nodes if isinstance(node.consensus, ConsensusEntry)]
    if len({node.token for node in nodes}) != len(nodes) or len(set(keys)) != len(keys):
        raise MalformedError("bad-nodes", "a node or one of its keys is named twice: each key has one use")
    for key in keys:
        VerifyKey(unb64(key, size=32))


def founding(
    members: Sequence[MemberPart], *, time_ms: int, nonce: bytes, parameters: Mapping[str, Value] | None = None
) -> bytes:
    """The genesis bytes of a network of these founders: the same parts, in the same order, give the same network.

    Parameters not given have their defaults; `sequencer` is the first founder's first node.
    Raises MalformedError `bad-genesis` and others when the parts don't make a valid genesis.
    """
    if not members or not members[0].nodes:
        raise MalformedError("bad-genesis", "a network needs a founder with a node")
    entries: list[GenesisMember] = []
    inceptions: list[Envelope] = []
    for member in members:
        nodes = [part.entry() for part in member.nodes]
        token = parse_operation(member.inception).token
        entries.append(GenesisMember(token=token, roles=sorted(member.roles), nodes=nodes))
        inceptions += [member.inception, *(part.inception for part in member.nodes)]
    chosen = default_parameters() | {"sequencer": entries[0].nodes[0].token} | dict(parameters or {})
    genesis = Genesis(v=1, nonce=nonce.hex(), time=time_ms, parameters=chosen, members=entries, inceptions=inceptions)
    data = encode(genesis)
    parse_genesis(data)
    return data
