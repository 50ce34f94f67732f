"""Submissions in a log: who signed them, what they hold, and whether they might be kept.

A submission's entry is followed at once by its manifests' entries; only then is known what was decided about, so it
is decided again when the last of them has been taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from careledger.access import EntryBody
from careledger.consent import ConsentState, decide_contribution, overtaken
from careledger.directory import Directory
from careledger.errors import Error, VerificationError
from careledger.identity import Affiliation, check_affiliation
from careledger.records import Manifest, SubmissionStatement, claimed_author, open_statement
from careledger.records.manifest import check_manifest
from careledger.seal import Envelope, decode, encode, parse_keyid, unb64
from careledger.verify.moments import DirectoryHistory, ViewAt
from careledger.verify.report import wrong_entry

__all__ = ["Contribution", "check_limits", "open_contribution", "replay_contribution"]

_DAY_MS: Final = 86_400_000
_LIMITS: Final = {"stale_max_ms": "stale_max_ms", "head_fresh_ms": "head_fresh_ms"}
_AFFILIATION_MAX: Final = 16 << 10


class Contribution:
    """A submission whose manifests are being taken. `state` is the subject's consent when it was decided."""

    def __init__(
        self,
        entry: EntryBody,
        statement: SubmissionStatement,
        state: ConsentState,
        affiliated: tuple[str, int] | None,
        via: str | None,
    ) -> None:
        self.entry = entry
        self.statement = statement
        self.state = state
        self.affiliated = affiliated
        self.via = via
        self.manifests: list[Manifest] = []
        self._next = entry.index + 1
        self.incomplete = False

    @property
    def author(self) -> str:
        """The author's token."""
        return parse_keyid(self.statement.author)[0]

    @property
    def accepted(self) -> bool:
        return self.entry.decision == "accept"

    def add(self, index: int, entry: EntryBody) -> Manifest:
        """The next manifest, which must be of this submission. Raises as records.check_manifest."""
        if index != self._next or (entry.received, entry.directory_height) != (
            self.entry.received,
            self.entry.directory_height,
        ):
            raise wrong_entry(index, "the manifest does not follow its submission")
        self._next += 1
        manifest = check_manifest(encode(entry.manifest), statement=self.statement)
        self.manifests.append(manifest)
        return manifest

    def miss(self, index: int) -> None:
        """A body that is missing: one of the manifests, as far as can be told."""
        if index == self._next:
            self._next += 1
            self.incomplete = True

    # consent.ContributionView

    @property
    def for_(self) -> str | None:
        return None if self.statement.for_ is msgspec.UNSET else self.statement.for_

    @property
    def subject(self) -> str:
        return self.statement.subject

    @property
    def compartments(self) -> Sequence[tuple[str, int, int]]:
        counts: dict[tuple[str, int], int] = {}
        for manifest in self.manifests:
            place = (manifest.compartment, manifest.epoch)
            counts[place] = counts.get(place, 0) + 1
        return [(compartment, epoch, count) for (compartment, epoch), count in sorted(counts.items())]


def open_contribution(
    index: int, entry: EntryBody, state: ConsentState, history: DirectoryHistory, *, via: str | None
) -> Contribution:
    """A submission's entry with its author's signature proven as of when it was received.

    Raises VerificationError and MalformedError as records.open_statement; `unknown-key`.
    """
    assert entry.envelopes is not msgspec.UNSET
    data = encode(entry.envelopes[0])
    author = claimed_author(data)
    keys = history.keys(entry.directory_height, entry.received, superseded=via is not None)
    key = keys.get(author)
    if key is None:
        raise VerificationError("unknown-key", f"the directory had no key {author} in force then")
    statement = open_statement(data, network=entry.network, author_key=key)
    if statement.subject != entry.subject:
        raise wrong_entry(index, "the submission is about another subject than the entry says")
    now = statement.time if via is not None else entry.received
    affiliated = _affiliated(entry.envelopes[1:], statement, entry, history, now)
    return Contribution(entry, statement, state, affiliated, via)


def _affiliated(
    envelopes: Sequence[Envelope],
    statement: SubmissionStatement,
    entry: EntryBody,
    history: DirectoryHistory,
    now: int,
) -> tuple[str, int] | None:
    """The affiliation that the entry holds because it was good when the submission arrived."""
    if not envelopes or statement.for_ is msgspec.UNSET:
        return None
    keys = history.keys(entry.directory_height, entry.received, statement.for_, superseded=True)
    claimed = decode(unb64(envelopes[0].payload), Affiliation, size_max=_AFFILIATION_MAX)
    found = check_affiliation(
        envelopes[0],
        keys=keys,
        network=entry.network,
        person=parse_keyid(statement.author)[0],
        organisation=statement.for_,
        # Its end counts when the decision is made; here it is only proven.
        now_ms=max(claimed.from_, min(now, claimed.until - 1)),
    )
    return found.organisation, found.until


def replay_contribution(
    contribution: Contribution, directory: Directory, *, manager: str | None, taken: Sequence[tuple[int, int]]
) -> None:
    """Decide again whether a submission may be kept.

    `taken`: (received, records) of what this author left in this subject's inbox before.
    Raises VerificationError `wrong-decision`, `wrong-counters`, details {index} of the submission.
    """
    entry = contribution.entry
    try:
        check_limits(entry, directory, {"inbox_records_max": "inbox_quota"})
        used = sum(count for received, count in taken if received > entry.received - _DAY_MS)
        if entry.counters.get("inbox_records", 0) < used:
            raise VerificationError(
                "wrong-counters",
                f"entry {entry.index} counts {entry.counters.get('inbox_records', 0)} records of its author in the "
                f"inbox that day, the log has {used}",
            )
        now = contribution.statement.time if contribution.via is not None else entry.received
        decision = decide_contribution(
            contribution.state, ViewAt(directory), contribution, entry.counters, now, manager=manager
        )
        allowed = decision.allow or (contribution.via is not None and overtaken(contribution.state, decision))
        grant = entry.grant if entry.grant is not msgspec.UNSET else None
        if not allowed or (entry.reason, grant) != (decision.reason, decision.grant):
            verdict = "accept" if allowed else "deny"
            raise VerificationError(
                "wrong-decision",
                f"entry {entry.index} says {entry.decision} ({entry.reason}), the rules say {verdict} "
                f"({decision.reason})",
            )
    except Error as problem:
        details = {**problem.details, "index": entry.index}
        raise type(problem)(problem.code, problem.message, details=details) from problem


def check_limits(entry: EntryBody, directory: Directory, more: Mapping[str, str]) -> None:
    """The limits in an entry's counters must be the directory's parameters of that height.

    `more`: counter -> parameter, besides those of every decision. Raises VerificationError `wrong-counters`.
    """
    for counter, parameter in {**_LIMITS, **more}.items():
        limit = directory.integer(parameter)
        if entry.counters.get(counter) != limit:
            raise VerificationError(
                "wrong-counters", f"entry {entry.index} was decided with another {counter} than the directory's {limit}"
            )
