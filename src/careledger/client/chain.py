"""A consent chain as a client knows it: what its subject remembers of its own, and what a grantee is shown of it.

Nothing a custodian sends is believed: every event's signature, number and link is checked, and boxes are opened with
the reader's own keys. Two events with one number (a fork) restrict until they are merged, as custodians decide too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from careledger.consent import (
    EMPTY,
    Compartments,
    ConsentEvent,
    ConsentState,
    EventMessage,
    File,
    Grant,
    GrantBox,
    OwnBox,
    Rekey,
    Revoke,
    Seeds,
    box_for,
    encode_event_message,
    find_box,
    fold,
    fold_fork,
    open_filed,
    open_grant_box,
    open_own_box,
    read_event,
    read_event_view,
    seeds_from_rekeys,
)
from careledger.errors import ConflictError, Error, NotFoundError, VerificationError
from careledger.records import compartment_key
from careledger.seal import Envelope, SealingKey, VerifyKey, decode, parse_keyid

__all__ = ["GrantsView", "OwnChain", "signer_of"]

KeyOf = Callable[[str], SealingKey]
"""The private key of a keyid; raises NotFoundError where it isn't held."""

_ENVELOPE_MAX: Final = 1 << 19
_DERIVED_MAX: Final = 64
"""Private keys held by their seeds: those of a rekey of all compartments, made and then checked, several times over."""


def signer_of(message: EventMessage) -> str:
    """Return the keyid that an event *claims* to be signed by; nothing is proven."""
    signatures = decode(message.envelope, Envelope, size_max=_ENVELOPE_MAX).signatures
    return signatures[0].keyid if len(signatures) == 1 else ""


class _Kept(NamedTuple):
    message: EventMessage
    event: ConsentEvent
    message_id: str
    signer: str
    encoded: bytes


class OwnChain:
    """The subject's own chain: verified messages, the state they make, and the names and seeds in their boxes."""

    def __init__(self, *, network: str, subject: str) -> None:
        self.network = network
        self.subject = subject
        self.claimed_at: int | None = None
        """The operation with which the subject claimed its identity from a manager, which signs nothing after that."""
        self.state: ConsentState = EMPTY
        self.names: dict[str, str] = {}
        self._kept: dict[str, _Kept] = {}
        self._ordered: list[_Kept] = []
        """The same in the order of their numbers."""
        self._sequences: dict[str, int] = {}
        """By message id, the subject's newest signing sequence up to that event; empty after a refusal."""
        self._last: list[EventMessage] = []
        """The messages proven last, byte for byte."""
        self._known: Seeds = {}
        self._seeds: Seeds | None = None
        self._keys: dict[tuple[str, int], SealingKey] = {}
        self._derived: dict[bytes, SealingKey] = {}

    @property
    def messages(self) -> list[EventMessage]:
        """All events, in the order of their numbers."""
        return [kept.message for kept in self._ordered]

    @property
    def encoded(self) -> list[bytes]:
        """All events as they travel and are remembered, in the same order."""
        return [kept.encoded for kept in self._ordered]

    @property
    def events(self) -> list[tuple[ConsentEvent, str]]:
        """All events with their hex message ids, in the order of their numbers."""
        return [(kept.event, kept.message_id) for kept in self._ordered]

    def add(self, messages: Iterable[EventMessage], *, keys: Mapping[str, VerifyKey], key_of: KeyOf) -> int:
        """Verify and take in messages, in any order, all or none; returns how many were new.

        `keys` maps keyid to key for whoever may have signed at any time: the subject's keys of all sequences and its
        manager's. Raises what read_event and fold raise; VerificationError `old-signer`: an event after others is
        signed by keys that those had already replaced.
        """
        fresh: dict[str, _Kept] = {}
        last = self._last
        for message in messages:
            if message in last:
                continue  # t custodians show the same newest event: one proof of it is enough
            event, message_id = read_event(message, network=self.network, subject=self.subject, keys=keys)
            last = [*last[-7:], message]
            if message_id not in self._kept and message_id not in fresh:
                kept = _Kept(message, event, message_id, signer_of(message), encode_event_message(message))
                self._open(kept, keys=keys, key_of=key_of)
                fresh[message_id] = kept
        self._last = last
        if fresh:
            self._kept |= fresh
            self._fold(sorted(fresh.values(), key=_place))
        return len(fresh)

    def seeds(self) -> Seeds:
        """Every seed of every compartment and epoch."""
        if self._seeds is None:
            self._seeds = seeds_from_rekeys(self._known, [event for event, _ in self.events])
            self._known = dict(self._seeds)
        return self._seeds

    def compartment_key(self, compartment: str, epoch: int) -> SealingKey:
        """The private key of a compartment's epoch; raises NotFoundError `no-seed`."""
        found = self._keys.get((compartment, epoch))
        if found is None:
            seed = self.seeds().get((compartment, epoch))
            if seed is None:
                raise NotFoundError(
                    "no-seed", f"the seed of compartment {compartment}, epoch {epoch}, is not known here"
                )
            found = self._keys[compartment, epoch] = self.derived(seed)
        return found

    def derived(self, seed: bytes) -> SealingKey:
        """The private key of a compartment's seed; the last ones are held, since what is made here is checked next."""
        found = self._derived.get(seed)
        if found is None:
            if len(self._derived) >= _DERIVED_MAX:
                self._derived.pop(next(iter(self._derived)))
            found = self._derived[seed] = compartment_key(seed)
        return found

    def compartment_of(self, name: str) -> str:
        """The compartment id of a category; raises NotFoundError `unknown-category`."""
        for compartment, known in self.names.items():
            if known == name:
                return compartment
        raise NotFoundError("unknown-category", f"there is no category {name!r}; categories are {self.categories()}")

    def categories(self) -> list[str]:
        """The names of the categories, sorted."""
        return sorted(self.names.values())

    def _fold(self, fresh: Sequence[_Kept]) -> None:
        """Take in events that were kept just now, in the order of their numbers."""
        if len(self._sequences) != len(self._ordered) or fresh[0].event.seq <= self._last_seq:
            self._ordered = sorted(self._kept.values(), key=_place)
            self._sequences.clear()
            self._check_signers(self._ordered)
            self.state = fold_fork(self.subject, self.events)
            return
        self._ordered += fresh
        self._check_signers(fresh)
        try:
            state = self.state
            for kept in fresh:
                state = fold(state, kept.event, kept.message_id)
            self.state = state
        except ConflictError:  # not simply the next ones: a fork
            self.state = fold_fork(self.subject, self.events)

    @property
    def _last_seq(self) -> int:
        return self._ordered[-1].event.seq if self._ordered else 0

    def _check_signers(self, newest: Sequence[_Kept]) -> None:
        """Along every link the subject's signing sequence never goes back: a stolen old key writes nothing new.

        `newest` are the last events in order; what those before them were signed with is known.
        """
        sequences = dict(self._sequences)
        self._sequences.clear()
        for _, event, message_id, signer, _ in newest:
            token, sequence = parse_keyid(signer)
            before = sequences.get(event.prev, 0)
            managed = token != self.subject
            if managed and self.claimed_at is not None and before >= self.claimed_at:
                raise VerificationError(
                    "old-signer", f"consent event {event.seq} is signed by a manager after the identity was claimed"
                )
            if not managed and sequence < before:
                raise VerificationError(
                    "old-signer", f"consent event {event.seq} is signed by keys that event {event.seq - 1} had replaced"
                )
            sequences[message_id] = before if managed else sequence
        self._sequences = sequences

    def _open(self, kept: _Kept, *, keys: Mapping[str, VerifyKey], key_of: KeyOf) -> None:
        event = kept.event
        if not isinstance(event, Compartments | Rekey):
            return
        box = find_box(kept.message.boxes, event.own)
        own = self._open_own(event, box, _own_keyids(kept.signer, self.subject, keys), key_of)
        self.names.update(own.names)
        for compartment, (epoch, seed) in own.seeds.items():
            self._known[compartment, epoch] = seed
            if self._seeds is not None and (epoch == 1 or (compartment, epoch - 1) in self._seeds):
                self._seeds[compartment, epoch] = seed
            else:
                self._seeds = None  # a step back is missing: the rekeys may hold it

    def _open_own(self, event: ConsentEvent, box: bytes, keyids: Sequence[str], key_of: KeyOf) -> OwnBox:
        refusal: Error = NotFoundError(
            "not-addressed", f"the own box of consent event {event.seq} is for keys not held here"
        )
        for keyid in keyids:
            try:
                return open_own_box(event, box, keyid=keyid, key=key_of(keyid), derive=self.derived)
            except (VerificationError, NotFoundError) as error:
                if error.code not in ("not-openable", "not-addressed"):
                    raise
                refusal = error
        raise refusal


def _place(kept: _Kept) -> tuple[int, str]:
    return kept.event.seq, kept.message_id


def _own_keyids(signer: str, subject: str, keys: Mapping[str, VerifyKey]) -> list[str]:
    """The keyids an own box may be sealed to: the signer's, where that is the subject, else any of the subject's."""
    own = [keyid for keyid in keys if keyid.startswith(subject + "#")]
    own.sort(key=lambda keyid: (keyid != signer, -parse_keyid(keyid)[1]))
    return own


class GrantsView:
    """What a grantee knows of one subject's chain: the grants to it with their keys, and the rekeys since.

    A selection of events can't be checked for gaps; what is missing makes records unreadable, never readable.
    """

    def __init__(self, *, network: str, subject: str) -> None:
        self.network = network
        self.subject = subject
        self.seq = 0
        self.head = ""
        self.grants: dict[str, Grant] = {}
        self.names: dict[str, str] = {}
        self.record_keys: dict[bytes, bytes] = {}
        self.filed: dict[str, File] = {}
        self._revoked: set[str] = set()
        self._events: dict[str, ConsentEvent] = {}
        self._signed: list[tuple[int, int]] = []
        """Of every event its number and the subject's operation whose keys signed it."""
        self._known: Seeds = {}
        self._seeds: Seeds | None = None
        self._keys: dict[tuple[str, int], SealingKey] = {}

    def add(self, messages: Iterable[EventMessage], *, keys: Mapping[str, VerifyKey], key_of: KeyOf) -> int:
        """Verify and take in the events shown; returns how many were new.

        Raises what read_event_view raises, and, before anything is taken in, VerificationError `old-signer`: an event
        is signed by keys of the subject that one with a smaller number had replaced.
        """
        fresh: dict[str, tuple[ConsentEvent, EventMessage]] = {}
        for message in messages:
            event, message_id = read_event_view(message, network=self.network, subject=self.subject, keys=keys)
            if message_id not in self._events:
                fresh[message_id] = (event, message)
        signed = [(event.seq, self._sequence_of(message)) for event, message in fresh.values()]
        for seq, sequence in signed:
            if any(other < seq and 0 <= sequence < newer for other, newer in (*self._signed, *signed)):
                raise VerificationError(
                    "old-signer", f"consent event {seq} is signed by keys that an event before it had replaced"
                )
        self._signed += signed
        for message_id, (event, message) in fresh.items():
            self._events[message_id] = event
            self._take(event, message, key_of)
            self._seeds = None
        return len(fresh)

    def _sequence_of(self, message: EventMessage) -> int:
        """The subject's operation whose keys signed an event; -1 for its manager's."""
        token, sequence = parse_keyid(signer_of(message))
        return sequence if token == self.subject else -1

    def standing(self, now_ms: int) -> list[Grant]:
        """The grants that are neither revoked (as far as shown) nor expired, newest first."""
        grants = [g for g in self.grants.values() if g.grant not in self._revoked and g.expires > now_ms]
        return sorted(grants, key=lambda grant: -grant.seq)

    def public_keys(self) -> tuple[dict[str, tuple[int, str]], str]:
        """Each compartment's newest (epoch, public key in base64url) and the inbox, from signed events alone."""
        newest: dict[str, tuple[int, str]] = {}
        inbox = ""
        for event in self._events.values():
            if isinstance(event, Compartments):
                inbox = event.inbox
            if isinstance(event, Compartments | Rekey):
                for slot in event.slots:
                    if slot.epoch > newest.get(slot.compartment, (0, ""))[0]:
                        newest[slot.compartment] = (slot.epoch, slot.key)
        return newest, inbox

    def compartment_key(self, compartment: str, epoch: int) -> SealingKey:
        """The private key of a compartment's epoch; raises NotFoundError `no-seed`."""
        found = self._keys.get((compartment, epoch))
        if found is None:
            seed = self._all_seeds().get((compartment, epoch))
            if seed is None:
                raise NotFoundError(
                    "no-seed", f"no grant gives the key of compartment {compartment}, epoch {epoch}; ask the subject"
                )
            found = self._keys[compartment, epoch] = compartment_key(seed)
        return found

    def consent_key(self, record: bytes) -> bytes | None:
        """K_consent of a record that was granted by its id or filed into a compartment held here, else None."""
        given = self.record_keys.get(record)
        filed = self.filed.get(record.hex())
        if given is not None or filed is None:
            return given
        seed = self._all_seeds().get((filed.compartment, filed.epoch))
        return None if seed is None else open_filed(filed, seed)

    def _all_seeds(self) -> Seeds:
        if self._seeds is None:
            self._seeds = seeds_from_rekeys(self._known, self._events.values())
        return self._seeds

    def _take(self, event: ConsentEvent, message: EventMessage, key_of: KeyOf) -> None:
        match event:
            case Grant():
                self.grants[event.grant] = event
                if message.boxes:
                    self._take_box(open_grant_box(event, message.boxes[0], keyid=event.to, key=key_of(event.to)))
            case Rekey():
                for named in event.boxes:
                    box = box_for(event, message.boxes, named.to)
                    if box is not None:
                        self._take_addressed(event, box, named.to, key_of)
            case Revoke():
                self._revoked.add(event.grant)
            case File():
                self.filed[event.record] = event
            case _:
                pass

    def _take_addressed(self, event: Rekey, box: bytes, to: str, key_of: KeyOf) -> None:
        try:
            key = key_of(to)
        except NotFoundError:
            return  # a custodian showed a box of somebody else's; harmless
        self._take_box(open_grant_box(event, box, keyid=to, key=key))

    def _take_box(self, box: GrantBox) -> None:
        self.names.update(box.names)
        for compartment, (epoch, seed) in box.seeds.items():
            self._known[compartment, epoch] = seed
        for record, secret in box.records.items():
            self.record_keys[bytes.fromhex(record)] = secret
