"""What decisions need to know of requests, manifests, log entries and the directory; other parts implement it.

Consent imports none of these parts, so its rules read the same in custodians, auditors and the browser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

__all__ = [
    "ApprovalView",
    "ContributionView",
    "DirectoryView",
    "ManifestView",
    "RecordedDecision",
    "RequestView",
]


class DirectoryView(Protocol):
    """The directory at one height. `time_ms` is the time of its newest block."""

    @property
    def height(self) -> int: ...
    @property
    def time_ms(self) -> int: ...
    def is_active(self, token: str, /) -> bool:
        """Whether the identity is known and not deactivated."""
        ...

    def licensed(self, person: str, now_ms: int, /) -> bool:
        """Whether an active licence of the person covers this moment."""
        ...

    def member(self, organisation: str, /) -> bool:
        """Whether the organisation is an admitted member that was not removed."""
        ...


class ManifestView(Protocol):
    """What a decision needs of a manifest: its own compartment, before any filing."""

    @property
    def record(self) -> str: ...
    @property
    def compartment(self) -> str: ...
    @property
    def recorded(self) -> int: ...


class ApprovalView(Protocol):
    """One approval whose signature holds and which names this request and subject."""

    @property
    def approver(self) -> str: ...
    @property
    def expires(self) -> int: ...


class RequestView(Protocol):
    """An access request whose signature and freshness hold.

    `affiliated` is (organisation, until in ms) of a valid affiliation of the reader, else None; `records` is None for
    a list; `head` is the (number, hash) of the consent chain that the reader knows.
    """

    @property
    def reader(self) -> str: ...
    @property
    def for_(self) -> str | None: ...
    @property
    def affiliated(self) -> tuple[str, int] | None: ...
    @property
    def subject(self) -> str: ...
    @property
    def records(self) -> Sequence[str] | None: ...
    @property
    def purpose(self) -> str: ...
    @property
    def basis(self) -> str: ...
    @property
    def grant(self) -> str | None: ...
    @property
    def head(self) -> tuple[int, str]: ...
    @property
    def approvals(self) -> Sequence[ApprovalView]: ...


class ContributionView(Protocol):
    """A submission whose signature holds: its author and the (compartment, epoch, number of records) it has."""

    @property
    def author(self) -> str: ...
    @property
    def for_(self) -> str | None: ...
    @property
    def affiliated(self) -> tuple[str, int] | None: ...
    @property
    def subject(self) -> str: ...
    @property
    def compartments(self) -> Sequence[tuple[str, int, int]]: ...


class RecordedDecision(Protocol):
    """What a log entry says about a decision (access.EntryBody)."""

    @property
    def received(self) -> int: ...
    @property
    def directory_height(self) -> int: ...
    @property
    def directory_age(self) -> int: ...
    @property
    def consent_seq(self) -> int: ...
    @property
    def consent_hash(self) -> str: ...
    @property
    def decision(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def counters(self) -> Mapping[str, int]: ...
