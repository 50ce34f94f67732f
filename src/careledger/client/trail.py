"""The audit trail: who opened what, as all the subject's custodians have it in their logs.

Each custodian's entries are proven to be in its log under a checkpoint that other members' nodes cosigned; each request
in them is proven to be signed by its reader. A trail is *complete* only when all n custodians answered so: fewer than t
false ones can't hide a read then (trust row 4). Otherwise it says who is missing and why.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from careledger.access import AccessRequest, AuditAnswer, EntryBody, ReadAudit, SignedRead, decode_entry, leaf
from careledger.client.keys import HeldKeys, State
from careledger.client.network import Network
from careledger.client.nodes import Node
from careledger.client.spread import spread
from careledger.errors import Error, UnavailableError, VerificationError
from careledger.seal import Envelope, decode, encode, envelope_message_id, sign, verify
from careledger.tlog import Checkpoint, leaf_hash, open_cosigned, verify_inclusion

__all__ = ["LoggedAccess", "NodeTrail", "Trail", "audit", "cosigners_needed"]

_PAGES_MAX: Final = 1000
_COSIGNED_WITHIN_S: Final = 5.0
_PAUSE_S: Final = 0.2
"""A log asks for cosignatures within a second of an entry (DESIGN 5.5)."""
_REQUEST_MAX: Final = 1 << 17
_BREATH: Final = 50
"""Signatures checked before the event loop gets a turn: about 10 ms."""


def cosigners_needed(members: int) -> int:
    """How many *other* members must have cosigned a node's checkpoint, of `members` in all: ⌊2m/3⌋.

    With the log's own member these are ⌊2m/3⌋+1, so at least one honest member saw this checkpoint and none that
    contradicts it while fewer than a third are false.
    """
    return 2 * members // 3


class LoggedAccess(msgspec.Struct, frozen=True, kw_only=True):
    """One request, merged over the custodians that logged it. `records` is None for a list; times in ms UTC.

    `nodes` maps each custodian to (log index, decision, reason): they may differ, as when one was behind.
    """

    request: str
    reader: str
    organisation: str | None
    purpose: str
    basis: str
    reason: str | None
    grant: str | None
    records: list[str] | None
    client: str
    time: int
    received: int
    nodes: dict[str, tuple[int, str, str]]

    @property
    def allowed(self) -> bool:
        """Whether any custodian released anything."""
        return any(decision == "allow" for _, decision, _ in self.nodes.values())


class NodeTrail(msgspec.Struct, frozen=True, kw_only=True):
    """What one custodian proved: its cosigned checkpoint, who cosigned, and (salt, body, proof) of each entry."""

    node: str
    checkpoint: bytes
    size: int
    root: bytes
    cosigners: list[str]
    entries: list[tuple[int, bytes, bytes, list[bytes]]]


class Trail(msgspec.Struct, frozen=True, kw_only=True):
    """The accesses in the order in which they were first received. `missing` names the custodians that did not answer
    provably, and why; `complete` is true only when there are none."""

    accesses: list[LoggedAccess]
    complete: bool
    missing: dict[str, Error]
    trails: list[NodeTrail]


class _Seen(msgspec.Struct, frozen=True, array_like=True):
    size: int
    root: bytes


class _Proven(msgspec.Struct, frozen=True):
    id: str
    request: AccessRequest


async def audit(network: Network, keys: HeldKeys, *, subject: str | None = None, state: State) -> Trail:
    """Read the audit trail of a subject (the keys' own, unless a manager asks) from all its custodians.

    `state` remembers the checkpoints seen, so that a log that got shorter since is named `rolled-back`.
    Raises NotFoundError and others as Network.subject; never because a custodian misbehaves.
    """
    about = subject or keys.token
    who = await network.subject(about)
    seen = state.load("checkpoints", dict[str, _Seen]) or {}
    done = await spread(
        who.custodians,
        lambda node: _node_trail(network, keys, node, about, seen.get(node.token)),
        marks={"complete": who.n},
    )
    trails = [done.acks[node.token] for node in who.custodians if node.token in done.acks]
    missing = dict(done.failures)
    merged: dict[str, LoggedAccess] = {}
    proven: dict[bytes, _Proven] = {}
    good: list[NodeTrail] = []
    for trail in trails:
        try:
            await _merge(network, about, trail, merged, proven)
        except Error as error:
            missing[trail.node] = error
            continue
        good.append(trail)
    seen.update({trail.node: _Seen(trail.size, trail.root) for trail in good})
    state.save("checkpoints", seen)
    accesses = sorted(merged.values(), key=lambda one: (one.received, one.request))
    return Trail(accesses=accesses, complete=not missing, missing=missing, trails=good)


async def _node_trail(network: Network, keys: HeldKeys, node: Node, subject: str, before: _Seen | None) -> NodeTrail:
    """All pages of one custodian, under one checkpoint; asked again while the newest lacks cosignatures."""
    loop = asyncio.get_running_loop()
    end = loop.time() + _COSIGNED_WITHIN_S
    while True:
        try:
            return await _pages(network, keys, node, subject, before)
        except UnavailableError as error:
            if error.code != "not-enough-cosignatures" or loop.time() >= end:
                raise
        await asyncio.sleep(_PAUSE_S)


async def _pages(network: Network, keys: HeldKeys, node: Node, subject: str, before: _Seen | None) -> NodeTrail:
    entries: list[tuple[int, bytes, bytes, list[bytes]]] = []
    since = 0
    for _ in range(_PAGES_MAX):
        answer = await network.post(node, "/v1/audit", _question(network, keys, subject, since), AuditAnswer)
        checkpoint, cosigners = _cosigned(network, node, answer.checkpoint)
        _not_rolled_back(node, checkpoint, before)
        for one in answer.entries:
            if one.index < since:
                raise VerificationError("wrong-entry", "the node showed audit entries out of order; report the node")
            verify_inclusion(
                index=one.index,
                size=checkpoint.size,
                leaf_hash=leaf_hash(leaf("access", one.salt, one.body)),
                proof=one.proof,
                root=checkpoint.root,
            )
            entries.append((one.index, one.salt, one.body, one.proof))
            since = one.index + 1
        if not answer.more or not answer.entries:
            break
    return NodeTrail(
        node=node.token,
        checkpoint=answer.checkpoint,
        size=checkpoint.size,
        root=checkpoint.root,
        cosigners=cosigners,
        entries=entries,
    )


def _question(network: Network, keys: HeldKeys, subject: str, since: int) -> SignedRead:
    read = ReadAudit(
        network=network.id,
        who=keys.token,
        subject=subject,
        since=since,
        time=network.now_ms(),
        nonce=network.rand(16).hex(),
    )
    return SignedRead(request=encode(sign(ReadAudit.TYPE, encode(read), [keys.signer])))


def _cosigned(network: Network, node: Node, note: bytes) -> tuple[Checkpoint, list[str]]:
    """The checkpoint and the members that cosigned it.

    Raises UnavailableError `not-enough-cosignatures`; VerificationError as open_cosigned.
    """
    checkpoint, times = open_cosigned(note, verifier=node.log, witnesses=network.witnesses_of(node))
    members = {other.member for other in network.nodes.values() if other.witness.vkey in times}
    needed = cosigners_needed(len(network.members))
    if len(members - {node.member}) < needed:
        raise UnavailableError(
            "not-enough-cosignatures",
            f"{len(members)} other members cosigned the log of {node.token}, {needed} are needed; try again",
            details={"found": len(members), "needed": needed},
        )
    return checkpoint, sorted(members)


def _not_rolled_back(node: Node, checkpoint: Checkpoint, before: _Seen | None) -> None:
    if before is None:
        return
    if checkpoint.size < before.size or (checkpoint.size == before.size and checkpoint.root != before.root):
        raise VerificationError(
            "rolled-back",
            f"log {node.log.name} had {before.size} entries and now shows {checkpoint.size} that do not continue them: "
            "it was rolled back or forked; keep this folder and run careledger verify",
            details={"size": checkpoint.size, "before": before.size},
        )


async def _merge(
    network: Network, subject: str, trail: NodeTrail, merged: dict[str, LoggedAccess], proven: dict[bytes, _Proven]
) -> None:
    """Add one custodian's entries, each request proven to be its reader's; all or none.

    `proven` has by envelope what other custodians' entries proved already: most requests are in t logs.
    """
    found: list[tuple[_Proven, EntryBody]] = []
    for index, _, body, _ in trail.entries:
        entry = decode_entry(body)
        if entry.node != trail.node or entry.network != network.id or entry.index != index or not entry.envelopes:
            raise VerificationError(
                "wrong-entry", f"the body at index {index} says it is another entry; report the node"
            )
        data = encode(entry.envelopes[0])
        request = proven.get(data)
        if request is None:
            request = proven[data] = await _proven_request(network, entry.envelopes[0])
            if len(proven) % _BREATH == 0:
                await asyncio.sleep(0)
        if request.request.subject != subject:
            raise VerificationError("wrong-entry", f"the request at index {index} is not about the subject; report it")
        found.append((request, entry))
    for one, entry in found:
        known = merged.get(one.id)
        nodes = {} if known is None else dict(known.nodes)
        nodes[trail.node] = (entry.index, entry.decision, entry.reason)
        received = entry.received if known is None else min(known.received, entry.received)
        merged[one.id] = _access(one.id, one.request, entry, received=received, nodes=nodes)


async def _proven_request(network: Network, envelope: Envelope) -> _Proven:
    """A request that its reader, and nobody else, signed. Raises VerificationError; as Network.verify_key."""
    keyids = [signature.keyid for signature in envelope.signatures]
    keys = {name: await network.verify_key(name) for name in keyids}
    payload = verify(envelope, payload_type=AccessRequest.TYPE, keys=keys)
    request = decode(payload, AccessRequest, size_max=_REQUEST_MAX)
    if any(name.partition("#")[0] != request.reader for name in keyids) or request.network != network.id:
        raise VerificationError("wrong-entry", "a logged request is not signed by its reader; report the node")
    return _Proven(envelope_message_id(envelope).hex(), request)


def _access(
    message_id: str,
    request: AccessRequest,
    entry: EntryBody,
    *,
    received: int,
    nodes: dict[str, tuple[int, str, str]],
) -> LoggedAccess:
    grant = entry.grant if entry.grant is not msgspec.UNSET else request.basis.grant
    return LoggedAccess(
        request=message_id,
        reader=request.reader,
        organisation=_or_none(request.for_),
        purpose=request.purpose,
        basis=request.basis.kind,
        reason=_or_none(request.basis.reason),
        grant=_or_none(grant),
        records=None if request.records is msgspec.UNSET else list(request.records),
        client=request.client,
        time=request.time,
        received=received,
        nodes=nodes,
    )


def _or_none(value: str | msgspec.UnsetType) -> str | None:
    return None if value is msgspec.UNSET else value
