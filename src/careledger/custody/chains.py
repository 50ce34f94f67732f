"""The consent chains that a custodian replicates: every event kept as it came, the state derived by `consent.fold`.

Events arrive from the subject or from peers, in any order and more than once. The next one of an unbroken chain is
folded; one that is here already is answered again; another one with a number that is taken is kept too, and the state
becomes what `fold_fork` says until a merge (DESIGN 5.3).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

from careledger.consent import (
    EMPTY,
    ConsentEvent,
    ConsentState,
    EventMessage,
    decode_event,
    decode_event_message,
    encode_event_message,
    fold,
    fold_fork,
    read_event,
)
from careledger.custody.store import Row, Store
from careledger.errors import ConflictError, NotPermittedError, VerificationError
from careledger.seal import Envelope, VerifyKey, decode, unb64

__all__ = ["Chains"]

_STATES_MAX = 2000
"""Subjects whose state is held; another one is folded from its events again."""
EVENTS_MAX = 20_000
"""Events of one subject: a change a day for 50 years."""


class Chains:
    """Consent states by subject's row id. Changes are in memory at once and durable with the writer's batch."""

    def __init__(self, store: Store, network: str) -> None:
        self._store = store
        self._network = network
        self._states: OrderedDict[int, ConsentState] = OrderedDict()
        self._uncommitted: dict[int, list[tuple[ConsentEvent, str, int]]] = {}

    def settle(self) -> None:
        """The batch is durable: the store has every event."""
        self._uncommitted.clear()

    def forget(self) -> None:
        """Drop what a failed commit may have left ahead of the store."""
        self._states.clear()
        self._uncommitted.clear()

    def state(self, subject: int | None) -> ConsentState:
        """The state after all events kept; EMPTY for a subject without consent."""
        if subject is None:
            return EMPTY
        state = self._states.get(subject)
        if state is None:
            state = self._fold_all(subject)
            self._hold(subject, state)
        return state

    def undo(self, subject: int, before: ConsentState, taken: int) -> None:
        """Take back the last `taken` events of a job that is refused as a whole."""
        self._hold(subject, before)
        if taken:
            del self._uncommitted[subject][-taken:]

    def _hold(self, subject: int, state: ConsentState) -> None:
        self._states[subject] = state
        self._states.move_to_end(subject)
        if len(self._states) > _STATES_MAX:
            self._states.popitem(last=False)

    def stored(self, subject: int, *, from_seq: int = 0) -> list[tuple[int, str, EventMessage, int]]:
        """(number, hex message id, message, log index) of the events kept from that number on, in their order."""
        rows = self._store.reading.execute(
            "SELECT seq, message, event, entry FROM consent WHERE subject = ? AND seq >= ? ORDER BY seq, message",
            (subject, from_seq),
        )
        return [(seq, message.hex(), decode_event_message(event), entry) for seq, message, event, entry in rows]

    def known(self, subject: int, message_id: str) -> int | None:
        """The log index of an event that is kept already."""
        for _, pending_id, entry in self._uncommitted.get(subject, ()):
            if pending_id == message_id:
                return entry
        row = self._store.reading.execute(
            "SELECT entry FROM consent WHERE subject = ? AND message = ?", (subject, bytes.fromhex(message_id))
        ).fetchone()
        return None if row is None else int(row[0])

    def _events(self, subject: int) -> tuple[str, list[tuple[ConsentEvent, str]]]:
        events: list[tuple[ConsentEvent, str]] = []
        for _, message_id, message, _ in self.stored(subject):
            envelope = decode(message.envelope, Envelope, size_max=1 << 20)
            events.append((decode_event(unb64(envelope.payload)), message_id))
        events += [(event, message_id) for event, message_id, _ in self._uncommitted.get(subject, ())]
        return (events[0][0].subject if events else ""), events

    def _newest_rank_before(self, subject: int, seq: int, rank: Callable[[str], int]) -> int:
        """Of the events with the largest number below `seq`: they can't be signed with older keys than those before."""
        rows = self._store.reading.execute(
            "SELECT event FROM consent WHERE subject = ? AND seq = "
            "(SELECT max(seq) FROM consent WHERE subject = ? AND seq < ?)",
            (subject, subject, seq),
        )
        return max((_rank_of(decode_event_message(event), rank) for (event,) in rows), default=0)

    def _fold_all(self, subject: int) -> ConsentState:
        """The signatures were checked when the events were kept; here only their order counts."""
        name, events = self._events(subject)
        return fold_fork(name, events) if events else EMPTY

    def take(
        self,
        subject: int,
        token: str,
        message: EventMessage,
        *,
        keys: Mapping[str, VerifyKey],
        entry: int,
        rank: Callable[[str], int] | None = None,
    ) -> tuple[int, str, list[Row]]:
        """Check one event and fold it in; returns (its number, its hex message id, what to store: nothing if known).

        `keys` are those of the subject and its manager alone. `entry` is the log index it will have if it is new.
        `rank` (of a keyid) where superseded keys count: an older key can't follow what a newer one has signed, or a
        stolen one could go on with the chain by way of a dishonest peer.
        Raises what `consent.read_event` and `fold` raise; NotPermittedError `wrong-signer`; VerificationError
        `superseded-key`.
        """
        event, message_id = read_event(message, network=self._network, subject=token, keys=keys)
        if event.role == "guardian":
            raise NotPermittedError("wrong-signer", "this subject has no guardian who may sign its consent")
        if self.known(subject, message_id) is not None:
            return event.seq, message_id, []
        if rank is not None and self._newest_rank_before(subject, event.seq, rank) > _rank_of(message, rank):
            raise VerificationError(
                "superseded-key", f"event {event.seq} is signed with an older key than the event before it"
            )
        state = self.state(subject)
        if event.seq > EVENTS_MAX:
            raise ConflictError("too-many-events", f"a chain has at most {EVENTS_MAX} events")
        try:
            after = fold(state, event, message_id)
        except ConflictError as problem:
            if problem.code == "bad-sequence" and event.seq > state.seq + 1:
                raise
            _, events = self._events(subject)
            after = fold_fork(token, [*events, (event, message_id)])
        self._hold(subject, after)
        self._uncommitted.setdefault(subject, []).append((event, message_id, entry))
        stored = encode_event_message(message)
        row: Row = (
            "INSERT INTO consent VALUES(?,?,?,?,?)",
            (subject, event.seq, bytes.fromhex(message_id), stored, entry),
        )
        return event.seq, message_id, [row]


def _rank_of(message: EventMessage, rank: Callable[[str], int]) -> int:
    envelope = decode(message.envelope, Envelope, size_max=1 << 20)
    return max(rank(signature.keyid) for signature in envelope.signatures)
