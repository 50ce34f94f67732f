"""Whom a node has met: with an old directory it lets nobody new in, so the count of new ones must not be too low."""

from __future__ import annotations

import msgspec

from careledger.access import EntryBody
from careledger.access.request import CheckedRequest
from careledger.errors import VerificationError

__all__ = ["Met"]


class Met:
    """Readers, organisations and affiliations of all access entries so far."""

    def __init__(self) -> None:
        self._met: set[str] = set()

    def check(self, entry: EntryBody, checked: CheckedRequest) -> None:
        """Count who is new in this entry. Raises VerificationError `wrong-counters`: the entry counted fewer."""
        ids = [checked.reader, *([checked.for_] if checked.for_ else [])]
        if checked.request.affiliation is not msgspec.UNSET:
            ids.append(checked.request.affiliation)
        new = [one for one in ids if one not in self._met]
        self._met.update(new)
        if entry.counters.get("unseen", 0) < len(new):
            raise VerificationError(
                "wrong-counters",
                f"entry {entry.index} counts {entry.counters.get('unseen', 0)} of its people and affiliations as new, "
                f"the log has not had {len(new)} of them",
            )
