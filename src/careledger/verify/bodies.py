"""The bodies behind a log's leaves: each is the one its leaf commits to, says so itself, or was lawfully erased.

Only `keep` bodies can be erased, by a later `erase` entry that was accepted and names the index in `details.erased`
(docs/spec/verify.md section 3). What the bodies mean, and whether the decisions in them are right, is replay.py's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

from careledger.access import EntryBody, decode_entry
from careledger.access.entry import KINDS, SALT_BYTES
from careledger.errors import Error, MalformedError, VerificationError
from careledger.verify.replay import Replay
from careledger.verify.report import at_index, wrong_entry

__all__ = ["Bodies", "BodyAudit", "LeafForms", "bodies_of"]

Bodies = Callable[[int, int], Sequence[tuple[bytes, bytes] | None]]
"""(start, end) -> (salt, body) of the entries start..end-1, None for a body that is missing."""

_PREFIXES: Final = {f"careledger/entry/v1 {kind} ".encode(): kind for kind in KINDS}
_HEX: Final = b"0123456789abcdef"
_ERASE: Final = b"careledger/entry/v1 erase "


def bodies_of(one: Callable[[int], tuple[bytes, bytes] | None]) -> Bodies:
    """Bodies from a function of one index."""
    return lambda start, end: [one(index) for index in range(start, end)]


class LeafForms:
    """Checks that entries are leaves of a careledger node (`careledger/entry/v1 <kind> <64 hex>`), and counts them."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(KINDS, 0)

    def take(self, first: int, entries: Sequence[bytes]) -> tuple[list[bytes], bytes]:
        """Kinds (as the prefix before the hash) and joined commitments (in hex) of a bundle's entries.

        Raises VerificationError `bad-leaf`, details {index}.
        """
        prefixes = [entry[:-64] for entry in entries]
        text = b"".join([entry[-64:] for entry in entries])
        kinds = set(prefixes)
        if not _PREFIXES.keys() >= kinds or text.translate(None, _HEX):
            raise _bad_leaf(first, entries)
        for prefix in kinds:
            self.counts[_PREFIXES[prefix]] += prefixes.count(prefix)
        return prefixes, text


def _bad_leaf(first: int, entries: Sequence[bytes]) -> VerificationError:
    for offset, entry in enumerate(entries):
        text = entry[-64:]
        if entry[:-64] not in _PREFIXES or text.translate(None, _HEX):
            index = first + offset
            return VerificationError(
                "bad-leaf",
                f"entry {index} is not one of a careledger node ({len(entry)} bytes)",
                details={"index": index},
            )
    raise AssertionError("a bundle was refused, but none of its entries is wrong")


class BodyAudit:
    """Takes a log's bodies bundle by bundle, in order; `finish` when the log ends."""

    def __init__(self, *, origin: str, bodies: Bodies, replay: Replay | None) -> None:
        self._origin = origin
        self._bodies = bodies
        self._replay = replay
        self._kinds = bytearray()
        self.missing: list[int] = []
        self.erased: set[int] = set()
        self.checked = 0

    @property
    def taken(self) -> int:
        """Entries of the bundles taken so far."""
        return len(self._kinds)

    def take(self, first: int, prefixes: Sequence[bytes], hashes: bytes) -> None:
        """The bodies of one bundle, whose leaves are proven: what LeafForms.take gave.

        Raises VerificationError and MalformedError with details {index}: `bad-body` (not what the leaf
        commits to), `wrong-entry`, and replay's.
        """
        self._kinds += bytes(KINDS.index(_PREFIXES[prefix]) for prefix in prefixes)
        found = self._bodies(first, first + len(prefixes))
        commitments = bytes.fromhex(hashes.decode("ascii"))
        if len(found) != len(prefixes):
            raise AssertionError("the source of bodies gives one item for each index")
        for offset, item in enumerate(found):
            index, kind = first + offset, _PREFIXES[prefixes[offset]]
            if item is None:
                self._miss(index)
                continue
            entry = self.entry(index, kind, commitments[32 * offset : 32 * offset + 32], item)
            self.checked += 1
            if kind == "erase":
                self._erase(index, entry)
            if self._replay is not None:
                try:
                    self._replay.take(index, entry)
                except Error as problem:
                    raise at_index(problem, index) from problem

    def entry(self, index: int, kind: str, commitment: bytes, item: tuple[bytes, bytes]) -> EntryBody:
        """One body, proven to be its leaf's and to say that it is this entry of this log."""
        salt, body = item
        if len(salt) != SALT_BYTES or hashlib.sha256(salt + body).digest() != commitment:
            raise VerificationError(
                "bad-body",
                f"entry {index}: the stored body is not the one its leaf commits to: it was changed after it was "
                "logged; keep the store and report the node",
                details={"index": index},
            )
        try:
            entry = decode_entry(body)
        except MalformedError as problem:
            raise at_index(problem, index) from problem
        if f"{entry.network[:16]}/{entry.node}" != self._origin:
            raise wrong_entry(index, "the body is of another network or node than the log")
        if entry.index != index or entry.kind != kind:
            raise wrong_entry(index, f"the body says it is entry {entry.index} of kind {entry.kind}")
        return entry

    def _miss(self, index: int) -> None:
        self.missing.append(index)
        if self._replay is not None:
            try:
                self._replay.miss(index)
            except Error as problem:
                raise at_index(problem, index) from problem

    def _erase(self, index: int, entry: EntryBody) -> None:
        if entry.decision != "accept":
            return
        for at in erased_by(index, entry):
            if KINDS[self._kinds[at]] != "keep":
                raise wrong_entry(index, f"it erases entry {at}, which is of kind {KINDS[self._kinds[at]]}")
            self.erased.add(at)

    def excuses(self, first: int, entries: Sequence[bytes]) -> set[int]:
        """The indexes that erase entries in an unproven bundle name, as far as their bodies hold."""
        found: set[int] = set()
        for offset, leaf in enumerate(entries):
            if not leaf.startswith(_ERASE):
                continue
            index = first + offset
            try:
                (item,) = self._bodies(index, index + 1)
                if item is not None:
                    entry = self.entry(index, "erase", bytes.fromhex(leaf[-64:].decode("ascii")), item)
                    found |= set(erased_by(index, entry)) if entry.decision == "accept" else set()
            except (Error, ValueError):
                continue
        return found

    def unexcused(self) -> int | None:
        """The first missing body that nothing has erased so far."""
        return next((index for index in self.missing if index not in self.erased), None)

    def finish(self) -> None:
        """Raises VerificationError `missing-body`; what replay's last entry raises."""
        if self._replay is not None:
            self._replay.finish()
        index = self.unexcused()
        if index is not None:
            raise missing_body(index, "no erase entry names it")


def erased_by(index: int, entry: EntryBody) -> list[int]:
    """The earlier indexes that an erase entry names. Raises VerificationError `wrong-entry`."""
    details = entry.details if isinstance(entry.details, dict) else {}
    named = details.get("erased", [])
    if not isinstance(named, list):
        raise wrong_entry(index, "details.erased is not a list of indexes")
    for at in named:
        if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at < index:
            raise wrong_entry(index, "it erases an entry that does not come before it")
    return named


def missing_body(index: int, why: str) -> VerificationError:
    return VerificationError(
        "missing-body",
        f"entry {index}: its body is missing and {why}; keep the store and report the node",
        details={"index": index},
    )
