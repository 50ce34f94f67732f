"""Resolving references inside one file (and the support files beside it), without changing any of them.

`urn:` references are global, absolute URLs global, relative ones count within their entry's base URL, conditional ones
and identifier-only ones by identifier (fhir.md 2.2). What does not resolve is normal and kept.
"""

from __future__ import annotations

from collections.abc import Iterable

from careledger.fhir.facts import Facts, Reference

_UUID_LENGTH = 36


class Index:
    """Facts by every spelling under which a reference may name them."""

    def __init__(self, entries: Iterable[Facts]) -> None:
        self._by_url: dict[str, Facts] = {}
        self._by_type_id: dict[str, Facts | None] = {}
        self._by_identifier: dict[str, Facts] = {}
        for facts in entries:
            self._add(facts)

    def _add(self, facts: Facts) -> None:
        # without a fullUrl (NDJSON, arrays) a UUID as id is what `urn:uuid:` references meant where the file came from
        url = facts.full_url or (f"urn:uuid:{facts.id}" if len(facts.id) == _UUID_LENGTH else "")
        if url:
            self._by_url.setdefault(url, facts)
        if facts.id:
            key = f"{facts.resource_type}/{facts.id}"
            other = self._by_type_id.setdefault(key, facts)
            if other is not None and other is not facts and other.full_url != facts.full_url:
                self._by_type_id[key] = None  # two hospitals' resources with one id: a bare id names neither
        for identifier in facts.identifiers:
            self._by_identifier.setdefault(f"{facts.resource_type}?{identifier}", facts)

    def find(self, url: str, base: str = "") -> Facts | None:
        """What a reference in an entry with that base URL names, or None."""
        found = self._by_url.get(url)
        if found is not None or not url or url[0] == "#":
            return found
        if is_conditional(url):
            return self._conditional(url)
        url = without_version(url)
        if "://" in url:
            return self._by_url.get(url) or self._bare(url)
        if url.startswith("urn:"):
            return self._by_url.get(url)
        if base:
            return self._by_url.get(f"{base}/{url}") or self._unplaced(url)
        return self._by_type_id.get(url)

    def find_reference(self, reference: Reference, base: str = "", *, resource_type: str) -> Facts | None:
        """Like `find`, with the reference's identifier as second chance."""
        found = self.find(reference.url, base) if reference.url else None
        if found is None and reference.identifier:
            found = self._by_identifier.get(f"{resource_type}?{reference.identifier}")
        return found

    def _unplaced(self, type_id: str) -> Facts | None:
        """An entry that has no base URL of its own may be meant by any; one of another base may not."""
        found = self._by_type_id.get(type_id)
        return found if found is not None and not found.base else None

    def _bare(self, url: str) -> Facts | None:
        return self._unplaced("/".join(url.rsplit("/", 2)[-2:]))

    def _conditional(self, url: str) -> Facts | None:
        """`Type?identifier=system|value`, as newer Synthea writes."""
        resource_type, _, query = url.partition("?")
        name, _, identifier = query.partition("=")
        return self._by_identifier.get(f"{resource_type}?{identifier}") if name == "identifier" else None


def is_conditional(url: str) -> bool:
    """A search instead of a reference, such as `Practitioner?identifier=http://npi|9`."""
    return url.partition("?")[0].isalpha() and "?" in url


def without_version(url: str) -> str:
    """A reference without its `/_history/…` part."""
    return url.partition("/_history/")[0]
