"""Proofs about the directory that travel: a value or its absence, an event of the past, and the checkpoint above them.

A light client trusts members, not replicas: it asks for a checkpoint of the block log that the sequencer signed and
that the nodes of more than two thirds of the members cosigned after executing every block, takes the app hash from it,
and checks everything else against that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, NamedTuple

import msgspec

from careledger.directory.state import Event, app_hash
from careledger.directory.statemap import MapProof, verify_absent, verify_present
from careledger.errors import MalformedError, UnavailableError, VerificationError
from careledger.identity import Token
from careledger.identity.fields import Hash, Version
from careledger.seal import Payload, decode
from careledger.tlog import (
    Checkpoint,
    Verifier,
    leaf_hash,
    open_cosigned,
    parse_unverified_checkpoint,
    verify_inclusion,
)

__all__ = [
    "DirectoryHead",
    "EventProof",
    "StateProof",
    "app_hash_line",
    "check_directory_checkpoint",
    "cosignatures_needed",
    "parse_app_hash",
]

_APP_HASH_PREFIX: Final = "app-hash "
_INCLUSION_HASHES_MAX: Final = 63


class DirectoryHead(NamedTuple):
    """A proven head of the directory. `cosigned` maps each member that vouched to its node's time in POSIX seconds."""

    height: int
    root: bytes
    app_hash: bytes
    cosigned: dict[Token, int]


class StateProof(Payload, frozen=True, kw_only=True):
    """A value of the state map (canonical JSON text; absent: there is none), down from an app hash."""

    v: Version
    kind: str
    id: str
    value: str | msgspec.UnsetType = msgspec.UNSET
    proof: MapProof
    state_root: Hash
    events_root: Hash

    TYPE: ClassVar[str] = "application/vnd.careledger.state-proof+json"

    @classmethod
    def build(
        cls, *, kind: str, ident: str, value: bytes | None, proof: MapProof, state_root: bytes, events_root: bytes
    ) -> StateProof:
        return cls(
            v=1,
            kind=kind,
            id=ident,
            value=msgspec.UNSET if value is None else value.decode(),
            proof=proof,
            state_root=state_root.hex(),
            events_root=events_root.hex(),
        )

    def verify(self, *, kind: str, ident: str, app: bytes) -> bytes | None:
        """The proven canonical value of (kind, ident) under the app hash `app`; None: proven to be absent.

        Raises VerificationError `wrong-proof` (it is about something else), `bad-map-proof`, `bad-app-hash`.
        """
        if (self.kind, self.id) != (kind, ident):
            raise VerificationError("wrong-proof", f"the proof is not about {kind} {ident}")
        state_root = bytes.fromhex(self.state_root)
        if app_hash(state_root, bytes.fromhex(self.events_root)) != app:
            raise VerificationError("bad-app-hash", "the proof's roots do not give the app hash: it is of another head")
        if self.value is msgspec.UNSET:
            verify_absent(self.proof, kind, ident, state_root)
            return None
        value = self.value.encode()
        verify_present(self.proof, kind, ident, value, state_root)
        return value


class EventProof(Payload, frozen=True, kw_only=True):
    """An event (canonical JSON text) with its inclusion proof in the events tree, down from an app hash."""

    v: Version
    event: str
    index: int
    size: int
    hashes: Annotated[list[Hash], msgspec.Meta(max_length=_INCLUSION_HASHES_MAX)]
    state_root: Hash
    events_root: Hash

    TYPE: ClassVar[str] = "application/vnd.careledger.event-proof+json"

    @classmethod
    def build(
        cls, *, event: bytes, index: int, size: int, hashes: Sequence[bytes], state_root: bytes, events_root: bytes
    ) -> EventProof:
        return cls(
            v=1,
            event=event.decode(),
            index=index,
            size=size,
            hashes=[value.hex() for value in hashes],
            state_root=state_root.hex(),
            events_root=events_root.hex(),
        )

    def verify(self, *, app: bytes) -> Event:
        """The proven event under the app hash `app`. Raises VerificationError `bad-app-hash`, `bad-proof`."""
        events_root = bytes.fromhex(self.events_root)
        if app_hash(bytes.fromhex(self.state_root), events_root) != app:
            raise VerificationError("bad-app-hash", "the proof's roots do not give the app hash: it is of another head")
        data = self.event.encode()
        verify_inclusion(
            index=self.index,
            size=self.size,
            leaf_hash=leaf_hash(data),
            proof=[bytes.fromhex(value) for value in self.hashes],
            root=events_root,
        )
        return decode(data, Event)


def cosignatures_needed(members: int) -> int:
    """⌊2m/3⌋+1 of m members: with fewer than a third false, at least one honest member executed every block."""
    return 2 * members // 3 + 1


def app_hash_line(app: bytes) -> str:
    """The extension line of the block log's checkpoints."""
    return _APP_HASH_PREFIX + app.hex()


def parse_app_hash(checkpoint: Checkpoint) -> bytes:
    """The app hash in a checkpoint of the block log. Raises MalformedError `no-app-hash`."""
    if len(checkpoint.extensions) == 1:
        text = checkpoint.extensions[0].removeprefix(_APP_HASH_PREFIX)
        if len(text) == 64 and checkpoint.extensions[0] == _APP_HASH_PREFIX + text:
            try:
                found = bytes.fromhex(text)
            except ValueError:
                found = b""
            if found.hex() == text:
                return found
    raise MalformedError("no-app-hash", "the checkpoint does not carry exactly one app-hash line")


def check_directory_checkpoint(
    note: bytes, *, sequencer: Verifier, witnesses: Mapping[Token, Sequence[Verifier]], needed: int
) -> DirectoryHead:
    """The head that this note proves: signed by the sequencer, cosigned by nodes of at least `needed` members.

    `witnesses` maps each member to its nodes' witness verifiers; several nodes of one member count once.
    Raises VerificationError `no-signature`, `bad-signature`, `wrong-origin`; MalformedError `no-app-hash`, …;
    UnavailableError `not-enough-cosignatures` (details: found, needed).
    """
    verifiers = [verifier for nodes in witnesses.values() for verifier in nodes]
    checkpoint, times = open_cosigned(note, verifier=sequencer, witnesses=verifiers)
    cosigned: dict[Token, int] = {}
    for member, nodes in witnesses.items():
        found = [times[verifier.vkey] for verifier in nodes if verifier.vkey in times]
        if found:
            cosigned[member] = max(found)
    if len(cosigned) < needed:
        raise UnavailableError(
            "not-enough-cosignatures",
            f"{len(cosigned)} of {len(witnesses)} members cosigned the head, {needed} are needed: try later",
            details={"found": len(cosigned), "needed": needed},
        )
    return DirectoryHead(checkpoint.size, checkpoint.root, parse_app_hash(checkpoint), cosigned)


def unverified_height(note: bytes) -> int:
    """The height that a note claims, nothing proven. Raises MalformedError."""
    return parse_unverified_checkpoint(note).size
