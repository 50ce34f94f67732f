"""The replicated state, and the view through which a block's rules read it and stage what they change.

`State` is only changed by `commit`, with an `Outcome` that was computed without touching it: a follower can compute a
block's outcome, compare it with what the sequencer signed, and throw it away. Besides the authenticated values, the
state keeps what they commit to by hash and what speeds up reads; all of it follows from the same blocks.
"""

from __future__ import annotations

from collections import deque
from hashlib import sha256
from typing import ClassVar, Final, NamedTuple, TypeVar

from careledger.directory.statemap import StateMap, map_key
from careledger.directory.transactions import TxResult
from careledger.directory.values import (
    AnchorState,
    ForkMark,
    LicenceState,
    MemberState,
    NodeState,
    ParameterState,
    ProposalState,
    QuotaState,
    StateValue,
)
from careledger.errors import NotFoundError
from careledger.identity import IdentityState
from careledger.identity.fields import Hash, Milliseconds, Version
from careledger.seal import Key, Payload, decode, encode
from careledger.tlog import Frontier, MemoryTree, leaf_hash

__all__ = ["RECENT_BLOCKS", "Event", "KeyList", "Outcome", "Staging", "State", "app_hash"]

_APP_LABEL: Final = b"careledger/app/v1"
_SILENT_KINDS: Final = frozenset({"quota"})
"""Counters that rules need and nobody asks the history of: in the map once a block, not among the events."""

RECENT_BLOCKS: Final = 1024
"""Blocks that can be taken back or proven from: a head is cosigned within a second or two, so minutes suffice."""

V = TypeVar("V")


class KeyList(NamedTuple):
    """Keys in force from operation `sequence` on, until the next list; empty in a tombstone. `claim` is the provider
    that the operation names as the manager until now, where it was a claim."""

    sequence: int
    keys: tuple[Key, ...]
    claim: str | None = None


class Event(Payload, frozen=True, kw_only=True):
    """One change of one value: `value` is SHA-256 of its canonical bytes. A leaf of the events tree."""

    v: Version
    height: int
    time: Milliseconds
    kind: str
    id: str
    value: Hash

    TYPE: ClassVar[str] = "application/vnd.careledger.event+json"


class Outcome(NamedTuple):
    """What a block does to a state, computed but not yet done."""

    height: int
    time_ms: int
    results: list[TxResult]
    values: dict[str, StateValue]
    keys: dict[str, list[KeyList]]
    events: list[bytes]
    places: list[str]
    """The "kind/id" of each event."""
    operations: list[tuple[str, int]]
    """The token of each identity operation with the place of its transaction in the block."""
    state_map: StateMap
    frontier: Frontier

    @property
    def app_hash(self) -> bytes:
        return app_hash(self.state_map.root, self.frontier.root())


def app_hash(state_root: bytes, events_root: bytes) -> bytes:
    """SHA-256("careledger/app/v1" ‖ state root ‖ events root): what every replica must agree on."""
    return sha256(_APP_LABEL + state_root + events_root).digest()


class _Undo(NamedTuple):
    """What stood before a block: enough to take it back, or to prove what was true at its predecessor."""

    height: int
    time_ms: int
    values: dict[str, StateValue | None]
    tokens: list[str]
    state_map: StateMap
    frontier: Frontier
    members: dict[str, MemberState]
    nodes: dict[str, NodeState]


class State:
    """The values by "kind/id", the map and events tree over them, key lists, and the indexes of reads."""

    def __init__(self, network: str) -> None:
        self.network = network
        self.height = -1
        self.time_ms = 0
        self.values: dict[str, StateValue] = {}
        self.keys: dict[str, list[KeyList]] = {}
        self.state_map = StateMap()
        self.frontier = Frontier()
        self.events: list[bytes] = []
        self.members: dict[str, MemberState] = {}
        self.nodes: dict[str, NodeState] = {}
        self.licences: dict[str, dict[str, LicenceState]] = {}
        self.event_places: dict[str, list[int]] = {}
        self._event_tree = MemoryTree()
        self._undo: deque[_Undo] = deque(maxlen=RECENT_BLOCKS)

    def commit(self, outcome: Outcome) -> None:
        """Make the outcome of the next block the state."""
        self._undo.append(
            _Undo(
                self.height,
                self.time_ms,
                {place: self.values.get(place) for place in outcome.values},
                [token for token, lists in outcome.keys.items() for _ in lists],
                self.state_map,
                self.frontier,
                self.members,
                self.nodes,
            )
        )
        self.members, self.nodes = self.membership_after(outcome)
        self.height, self.time_ms = outcome.height, outcome.time_ms
        self.values.update(outcome.values)
        for token, lists in outcome.keys.items():
            self.keys.setdefault(token, []).extend(lists)
        self.state_map, self.frontier = outcome.state_map, outcome.frontier
        for offset, place in enumerate(outcome.places):
            self.event_places.setdefault(place, []).append(len(self.events) + offset)
        self.events.extend(outcome.events)
        for value in outcome.values.values():
            if isinstance(value, LicenceState):
                self.licences.setdefault(value.person, {})[value.licence] = value

    def membership_after(self, outcome: Outcome) -> tuple[dict[str, MemberState], dict[str, NodeState]]:
        """Active members and nodes once this outcome is the state.

        Others than `members` and `nodes` if it changes or marks any: an undo and the cache of witnesses hold the old.
        """
        if not any(isinstance(value, MemberState | NodeState | ForkMark) for value in outcome.values.values()):
            return self.members, self.nodes
        members, nodes = dict(self.members), dict(self.nodes)
        for value in outcome.values.values():
            if isinstance(value, MemberState):
                _keep_active(members, value.token, value, active=value.status == "active")
            elif isinstance(value, NodeState):
                _keep_active(nodes, value.token, value, active=value.status == "active")
        return members, nodes

    def take_back(self, height: int) -> None:
        """Return to an earlier height, at most RECENT_BLOCKS back, as if the blocks since had never been."""
        while self.height > height:
            undo = self._undo.pop()
            self.height, self.time_ms = undo.height, undo.time_ms
            self.state_map, self.frontier = undo.state_map, undo.frontier
            self.members, self.nodes = undo.members, undo.nodes
            for token in undo.tokens:
                self.keys[token].pop()
                if not self.keys[token]:
                    del self.keys[token]
            for place, before in undo.values.items():
                self._restore(place, before)
            for event in reversed(range(self.frontier.size, len(self.events))):
                kind_id = _place_of(self.events[event])
                self.event_places[kind_id].pop()
                if not self.event_places[kind_id]:
                    del self.event_places[kind_id]
            del self.events[self.frontier.size :]
            if self._event_tree.size > self.frontier.size:
                self._event_tree = MemoryTree()

    def roots_at(self, height: int) -> tuple[StateMap, Frontier]:
        """The state map and the events' frontier as they were after block `height`.

        Raises NotFoundError `too-old`: more than RECENT_BLOCKS back, or not yet reached.
        """
        if height == self.height:
            return self.state_map, self.frontier
        undo = next((undo for undo in self._undo if undo.height == height), None)
        if undo is None or height < 0:
            raise NotFoundError("too-old", f"the state after block {height} is not kept: ask for a newer one")
        return undo.state_map, undo.frontier

    def value_at(self, place: str, height: int) -> StateValue | None:
        """The value of "kind/id" after block `height`, one of the recent ones."""
        for undo in self._undo:
            if undo.height >= height and place in undo.values:
                return undo.values[place]
        return self.values.get(place)

    def event_tree(self) -> MemoryTree:
        """The tree over all events; brought up to date when somebody asks, since few do."""
        missing = self.events[self._event_tree.size :]
        self._event_tree.extend([leaf_hash(event) for event in missing])
        return self._event_tree

    def _restore(self, place: str, before: StateValue | None) -> None:
        after = self.values[place]
        if before is None:
            del self.values[place]
        else:
            self.values[place] = before
        if isinstance(after, LicenceState):
            if isinstance(before, LicenceState):
                self.licences[after.person][after.licence] = before
            else:
                del self.licences[after.person][after.licence]


def _place_of(event: bytes) -> str:
    found = decode(event, Event)
    return f"{found.kind}/{found.id}"


def _keep_active(table: dict[str, V], token: str, value: V, *, active: bool) -> None:
    if active:
        table[token] = value
    else:
        table.pop(token, None)


class Staging:
    """A state with one block's changes on top. Each transaction's changes are kept or dropped as a whole."""

    def __init__(self, base: State, *, height: int, time_ms: int) -> None:
        self.base = base
        self.network = base.network
        self.height = height
        self.time_ms = time_ms
        self._values: dict[str, StateValue] = {}
        self._hashes: dict[bytes, bytes | None] = {}
        self._keys: dict[str, list[KeyList]] = {}
        self._events: list[bytes] = []
        self._places: list[str] = []
        self._operations: list[tuple[str, int]] = []
        self._tx_values: dict[str, StateValue] = {}
        self._tx_keys: dict[str, list[KeyList]] = {}

    def keep(self, index: int = 0) -> None:
        """End transaction `index`, which was accepted: its changes become the block's, each with its event."""
        for place, value in self._tx_values.items():
            self._values[place] = value
            kind, _, ident = place.partition("/")
            if kind in _SILENT_KINDS:
                continue
            digest = sha256(encode(value))
            self._hashes[map_key(kind, ident)] = digest.digest()
            if kind == "identity":
                self._operations.append((ident, index))
            event = Event(v=1, height=self.height, time=self.time_ms, kind=kind, id=ident, value=digest.hexdigest())
            self._events.append(encode(event))
            self._places.append(place)
        for token, lists in self._tx_keys.items():
            self._keys.setdefault(token, []).extend(lists)
        self.drop()

    def drop(self) -> None:
        """End a transaction that was refused: nothing of it stays."""
        self._tx_values = {}
        self._tx_keys = {}

    def outcome(self, results: list[TxResult]) -> Outcome:
        """What the kept transactions do to the base state."""
        hashes = dict(self._hashes)
        for place, value in self._values.items():
            kind, _, ident = place.partition("/")
            if kind in _SILENT_KINDS:
                hashes[map_key(kind, ident)] = sha256(encode(value)).digest()
        frontier = self.base.frontier.copy()
        for event in self._events:
            frontier.append(leaf_hash(event))
        return Outcome(
            self.height,
            self.time_ms,
            results,
            self._values,
            self._keys,
            self._events,
            self._places,
            self._operations,
            self.base.state_map.updated(hashes),
            frontier,
        )

    def put(self, kind: str, ident: str, value: StateValue) -> None:
        self._tx_values[f"{kind}/{ident}"] = value

    def put_keys(self, token: str, sequence: int, keys: tuple[Key, ...], claim: str | None = None) -> None:
        self._tx_keys.setdefault(token, []).append(KeyList(sequence, keys, claim))

    def identity(self, token: str) -> IdentityState | None:
        return self._get("identity", token, IdentityState)

    def member(self, token: str) -> MemberState | None:
        return self._get("member", token, MemberState)

    def node(self, token: str) -> NodeState | None:
        return self._get("node", token, NodeState)

    def licence(self, ident: str) -> LicenceState | None:
        return self._get("licence", ident, LicenceState)

    def proposal(self, ident: str) -> ProposalState | None:
        return self._get("proposal", ident, ProposalState)

    def anchor(self, node: str) -> AnchorState | None:
        return self._get("anchor", node, AnchorState)

    def fork(self, node: str) -> ForkMark | None:
        return self._get("fork", node, ForkMark)

    def quota(self, member: str) -> QuotaState | None:
        return self._get("quota", member, QuotaState)

    def parameter(self, name: str) -> ParameterState | None:
        return self._get("parameter", name, ParameterState)

    def integer(self, name: str) -> int:
        """An integer parameter in force at this height."""
        found = self.parameter(name)
        value = None if found is None else found.at(self.height)
        if not isinstance(value, int):
            raise AssertionError(f"the genesis has the integer parameter {name}")
        return value

    def text(self, name: str) -> str:
        """A text parameter in force at this height."""
        found = self.parameter(name)
        value = None if found is None else found.at(self.height)
        if not isinstance(value, str):
            raise AssertionError(f"the genesis has the text parameter {name}")
        return value

    def formats(self) -> dict[str, list[int]]:
        """Which versions of which payload types may be written at this height."""
        found = self.parameter("formats")
        value = None if found is None else found.at(self.height)
        if not isinstance(value, dict):
            raise AssertionError("the genesis has the parameter formats")
        return value

    def keys_in_force(self, token: str) -> KeyList | None:
        for lists in (self._tx_keys.get(token), self._keys.get(token), self.base.keys.get(token)):
            if lists:
                return lists[-1]
        return None

    def active_members(self) -> list[MemberState]:
        """All members of this moment, founders first, then in the order of their admission."""
        found = dict(self.base.members)
        for staged in (self._values, self._tx_values):
            for value in staged.values():
                if isinstance(value, MemberState):
                    _keep_active(found, value.token, value, active=value.status == "active")
        return list(found.values())

    def _get(self, kind: str, ident: str, expected: type[V]) -> V | None:
        place = f"{kind}/{ident}"
        value = self._tx_values.get(place)
        if value is None:
            value = self._values.get(place)
        if value is None:
            value = self.base.values.get(place)
        if value is None:
            return None
        if not isinstance(value, expected):
            raise AssertionError(f"a value of kind {kind} has another type")
        return value
