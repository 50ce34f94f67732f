"""Deciding again: from a log's own bodies and the directory's blocks, every signature and decision in it.

Whatever a decision took into account is in the log, in the directory, or in the entry itself: consent events, manifests
and documents are `keep` entries that came before, so their state is rebuilt in index order by the same functions that
custodians use. What can't be rebuilt (erased manifests, documents kept elsewhere) is counted, never guessed.
Not verifiable from one log: how often a reader asked before a restart, and when heads were compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from careledger.access import EntryBody, SyncRequest, request_of
from careledger.access.request import FRESH_MS, CheckedRequest
from careledger.consent import (
    CONSENT_TYPE,
    EMPTY,
    ConsentEvent,
    ConsentState,
    EventMessage,
    fold,
    fold_fork,
    read_event_view,
    replay,
)
from careledger.directory import Directory
from careledger.errors import ConflictError, VerificationError
from careledger.identity import Affiliation, open_document
from careledger.records import Manifest, SubmissionStatement
from careledger.seal import Envelope, decode, encode, verify
from careledger.verify.contributions import Contribution, check_limits, open_contribution, replay_contribution
from careledger.verify.moments import GRACE_MS, DirectoryHistory, ViewAt
from careledger.verify.report import wrong_entry
from careledger.verify.seen import Met

__all__ = ["Documents", "Replay"]

Documents = Callable[[str, int], tuple[bytes, bytes] | None]
"""(token, sequence of the identity's operation) -> (salt, document bytes) as kept beside the log, None if not kept."""

_SYNC_BYTES_MAX = 1 << 16


class Replay:
    """Takes a log's bodies in index order. Errors have no index yet, but where they are about an earlier entry."""

    def __init__(self, history: DirectoryHistory, *, documents: Documents | None = None) -> None:
        self._history = history
        self._documents_source = documents
        self._states: dict[str, ConsentState] = {}
        self._events: dict[str, list[tuple[ConsentEvent, str]]] = {}
        self._signers: dict[str, list[tuple[int, list[str]]]] = {}
        """Of every consent event its number and the keyids that signed it."""
        self._documents: dict[str, dict[int, str]] = {}
        self._records: dict[str, dict[str, Manifest]] = {}
        self._affiliations: dict[str, Affiliation] = {}
        self._managers: dict[tuple[str, str], str | None] = {}
        self._met = Met()
        self._pending: Contribution | None = None
        self._accepted: dict[tuple[str, str], list[tuple[int, int]]] = {}
        self._missing = 0
        self.signatures = 0
        self.decisions = 0
        self.not_replayed: Counter[str] = Counter()

    def take(self, index: int, entry: EntryBody) -> None:
        """The next body. Raises VerificationError `wrong-decision`, `wrong-moment`, `wrong-counters`,
        `wrong-document`, `wrong-entry`, and what the checks of the envelopes in it raise."""
        if entry.network != self._history.network:
            raise wrong_entry(index, "the body is of another network than the directory")
        is_manifest = entry.kind == "keep" and entry.manifest is not msgspec.UNSET
        if not is_manifest:
            self.finish()
        if entry.directory_height > self._history.height:
            self.not_replayed["no-block"] += 1
            return
        if is_manifest:
            self._manifest(index, entry)
        elif entry.kind == "keep":
            self._keep(index, entry)
        elif entry.kind == "access":
            self._access(index, entry)
        elif entry.kind == "system":
            self._system(index, entry)

    def miss(self, index: int) -> None:
        """A body that is not there (any more)."""
        self._missing += 1
        if self._pending is not None:
            self._pending.miss(index)

    def finish(self) -> None:
        """Decide the submission whose manifests have all been taken."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if pending.incomplete:
            self.not_replayed["erased-manifest"] += 1
            return
        if not pending.accepted:
            self.not_replayed["denied-contribution"] += 1
            return
        directory = self._history.at(pending.entry.directory_height)
        known, manager = self._manager(pending.statement.subject, directory)
        if not known and pending.entry.reason == "managed":
            self.not_replayed["no-document"] += 1
            return
        place = (pending.statement.subject, pending.author)
        taken = self._accepted.setdefault(place, [])
        replay_contribution(pending, directory, manager=manager, taken=taken)
        if pending.entry.reason == "inbox":
            taken.append((pending.entry.received, len(pending.manifests)))
        self.decisions += 1

    # What is kept

    def _keep(self, index: int, entry: EntryBody) -> None:
        envelopes = entry.envelopes
        if envelopes is msgspec.UNSET:
            if entry.reason == "document":
                self._document(index, entry)
            else:
                self.not_replayed["unknown-entry"] += 1
        elif envelopes[0].payloadType == CONSENT_TYPE:
            self._consent(index, entry, envelopes[0])
        elif envelopes[0].payloadType == SubmissionStatement.TYPE:
            self._submission(index, entry)
        else:
            self.not_replayed["unknown-entry"] += 1

    def _document(self, index: int, entry: EntryBody) -> None:
        token = _subject(index, entry)
        self._check_state(index, entry, self._states.get(token, EMPTY))
        directory = self._moment(index, entry)
        state = directory.identity(token)
        details = entry.details if isinstance(entry.details, dict) else {}
        if state is None or (details.get("document"), details.get("sequence")) != (state.document, state.sequence):
            raise VerificationError("wrong-document", "the document kept is not the one the directory had then")
        if self._documents_source is not None:
            found = self._documents_source(token, state.sequence)
            if found is not None:
                document = open_document(found[0], found[1], state.document)
                if state.kind == "person" and entry.node not in document.custodians:
                    raise VerificationError("wrong-decision", "a document was kept that names other custodians")
        self._documents.setdefault(token, {})[state.sequence] = state.document

    def _consent(self, index: int, entry: EntryBody, envelope: Envelope) -> None:
        subject = _subject(index, entry)
        before = self._states.get(subject, EMPTY)
        self._check_state(index, entry, before)
        directory = self._moment(index, entry)
        known, manager = self._manager(subject, directory)
        signers = {signature.keyid.partition("#")[0] for signature in envelope.signatures}
        if not known and signers != {subject}:
            # Whether this signer manages the subject is in a document that isn't at hand.
            self.not_replayed["no-document"] += 1
            allowed = {subject, *signers}
        else:
            allowed = {subject} if manager is None else {subject, manager}
        if _via(entry) is not None:
            # A peer hands on what a manager signed before the claim that ended its part.
            allowed |= {former for _, former in directory.claims(subject)}
        keys = self._history.keys(entry.directory_height, entry.received, *allowed, superseded=_via(entry) is not None)
        message = EventMessage(envelope=encode(envelope), boxes=[])
        event, message_id = read_event_view(message, network=entry.network, subject=subject, keys=keys)
        if event.role == "guardian" or entry.decision != "accept":
            raise VerificationError("wrong-decision", "a consent event is entered that no custodian takes")
        self.signatures += 1
        self._check_rank(entry, event, [one.keyid for one in envelope.signatures], directory)
        events = self._events.setdefault(subject, [])
        events.append((event, message_id))
        try:
            self._states[subject] = fold(before, event, message_id)
        except ConflictError as problem:
            if problem.code == "bad-sequence" and event.seq > before.seq + 1:
                raise
            self._states[subject] = fold_fork(subject, events)

    def _check_rank(self, entry: EntryBody, event: ConsentEvent, keyids: list[str], directory: Directory) -> None:
        """What a peer handed on isn't signed with an older key than the events before it (docs/spec/consent.md)."""
        signed = self._signers.setdefault(event.subject, [])

        def rank(names: list[str]) -> int:
            return max(directory.signing_rank(name, subject=event.subject) for name in names)

        before = max((seq for seq, _ in signed if seq < event.seq), default=0)
        if _via(entry) is not None and any(rank(names) > rank(keyids) for seq, names in signed if seq == before):
            raise VerificationError(
                "superseded-key", f"consent event {event.seq} is signed with an older key than the event before it"
            )
        signed.append((event.seq, keyids))

    def _submission(self, index: int, entry: EntryBody) -> None:
        subject = _subject(index, entry)
        state = self._states.get(subject, EMPTY)
        self._check_state(index, entry, state)
        self._moment(index, entry)
        self._pending = open_contribution(index, entry, state, self._history, via=_via(entry))
        self.signatures += 1

    def _manifest(self, index: int, entry: EntryBody) -> None:
        pending = self._pending
        if pending is None or not pending.accepted:
            raise wrong_entry(index, "a manifest stands there without its submission before it")
        self._check_state(index, entry, pending.state)
        manifest = pending.add(index, entry)
        kept = self._records.setdefault(manifest.subject, {})
        if manifest.record in kept:
            raise wrong_entry(index, "the record was kept before")
        kept[manifest.record] = manifest

    # What is opened

    def _access(self, index: int, entry: EntryBody) -> None:
        directory = self._moment(index, entry)
        checked = self._request(entry)
        if _subject(index, entry) != checked.subject:
            raise wrong_entry(index, "the request is about another subject than the entry says")
        self.signatures += len(checked.envelopes)
        check_limits(entry, directory, {"requests_max": "requests_per_hour"})
        self._met.check(entry, checked)
        if checked.affiliation is not None and checked.request.affiliation is not msgspec.UNSET:
            self._affiliations[checked.request.affiliation] = checked.affiliation
        state = self._states.get(checked.subject, EMPTY)
        kept = self._records.get(checked.subject, {})
        if checked.records is None:
            manifests = list(kept.values())
        else:
            manifests = [kept[record] for record in checked.records if record in kept]
            if self._missing and len(manifests) < len(checked.records):
                self._check_state(index, entry, state)
                self.not_replayed["erased-manifest"] += 1
                return
        known, manager = self._manager(checked.subject, directory)
        if checked.basis == "managed" and not known:
            self.not_replayed["no-document"] += 1
            return
        decision = replay(entry, checked, state, ViewAt(directory), manifests, manager=manager)
        if (entry.grant if entry.grant is not msgspec.UNSET else None) != decision.grant:
            raise VerificationError("wrong-decision", "the entry names another grant than the rules used")
        self.decisions += 1

    def _request(self, entry: EntryBody) -> CheckedRequest:
        keys = self._history.keys(entry.directory_height, entry.received)
        try:
            return request_of(entry, keys=keys, affiliations=self._affiliations)
        except VerificationError as problem:
            # It was fresh when it arrived; what passed until it was entered is the node's queue.
            if problem.code != "stale-request":
                raise
            late = msgspec.structs.replace(entry, received=entry.received - GRACE_MS)
            if entry.received < FRESH_MS:
                raise
            return request_of(late, keys=keys, affiliations=self._affiliations)

    def _system(self, index: int, entry: EntryBody) -> None:
        if entry.envelopes is msgspec.UNSET or entry.envelopes[0].payloadType != SyncRequest.TYPE:
            self.not_replayed["unknown-entry"] += 1
            return
        self._moment(index, entry)
        keys = self._history.keys(entry.directory_height, entry.received)
        payload = verify(entry.envelopes[0], payload_type=SyncRequest.TYPE, keys=keys)
        request = decode(payload, SyncRequest, size_max=_SYNC_BYTES_MAX)
        signers = {signature.keyid.partition("#")[0] for signature in entry.envelopes[0].signatures}
        if (request.network, request.to) != (entry.network, entry.node) or signers != {request.node}:
            raise wrong_entry(index, "the sync request is for another node, or not signed by who asks")
        self.signatures += 1

    # What stood at an entry

    def _moment(self, index: int, entry: EntryBody) -> Directory:
        """The directory at the entry's height, whose age the entry must state."""
        directory = self._history.at(entry.directory_height)
        if entry.directory_age != max(0, entry.received - directory.time_ms):
            raise VerificationError(
                "wrong-moment",
                f"entry {index} says block {directory.height} was {entry.directory_age} ms old; by its time it was not",
            )
        return directory

    def _check_state(self, index: int, entry: EntryBody, state: ConsentState) -> None:
        if (entry.consent_seq, entry.consent_hash) != (state.seq, state.head):
            raise VerificationError(
                "wrong-moment",
                f"entry {index} says the subject's consent was at event {entry.consent_seq}, the log has {state.seq}",
            )

    def _manager(self, subject: str, directory: Directory) -> tuple[bool, str | None]:
        """(whether it can be known, who managed the subject as this node knew it)."""
        state = directory.identity(subject)
        kept = self._documents.get(subject, {})
        sequences = [sequence for sequence in kept if state is not None and sequence <= state.sequence]
        if state is None or not sequences:
            return True, None
        newest = max(sequences)
        if state.status == "active" and kept[newest] != state.document:
            return True, None
        place = (subject, kept[newest])
        if place not in self._managers:
            found = None if self._documents_source is None else self._documents_source(subject, newest)
            if found is None:
                return False, None
            manager = open_document(found[0], found[1], kept[newest]).manager
            self._managers[place] = None if manager is msgspec.UNSET else manager
        return True, self._managers[place]


def _subject(index: int, entry: EntryBody) -> str:
    if entry.subject is msgspec.UNSET:
        raise wrong_entry(index, "it names no subject")
    return entry.subject


def _via(entry: EntryBody) -> str | None:
    """The peer that kept this before and handed it on."""
    details = entry.details if isinstance(entry.details, dict) else {}
    via = details.get("via")
    return via if isinstance(via, str) else None
