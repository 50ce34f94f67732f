"""From what a FHIR file holds to the batches that are sealed: what is kept already is left out, what changed replaces.

Pure. The index says by (fullUrl, bytes) which record keeps a resource, and by fullUrl which record has its newest
version, so that importing a file twice changes nothing and importing a newer one amends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec

from careledger.errors import NotPermittedError
from careledger.fhir import RecordDraft, resource_key
from careledger.records import BYTES_ADVISED, RECORDS_ADVISED, RecordPlan

__all__ = ["Batch", "KeptIndex", "Places", "batches", "with_replaced"]

RAW_BYTES_ADVISED: Final = 4 * BYTES_ADVISED
"""FHIR deflates to less than a quarter, so this much gives a message of about BYTES_ADVISED."""


class KeptIndex:
    """Which record keeps which resource of one subject, by this author."""

    def __init__(
        self, resources: Mapping[bytes, bytes] | None = None, urls: Mapping[bytes, bytes] | None = None
    ) -> None:
        self.resources: dict[bytes, bytes] = dict(resources or {})
        self.urls: dict[bytes, bytes] = dict(urls or {})
        self._keys: dict[tuple[str, bytes], bytes] = {}

    def key(self, resource: tuple[str, bytes]) -> bytes:
        """What a (fullUrl, bytes) is known by. Remembered: what travels is asked for with every record it is in."""
        found = self._keys.get(resource)
        if found is None:
            found = self._keys[resource] = bytes.fromhex(resource_key(*resource))
        return found

    def replaced(self, full_url: str) -> bytes | None:
        """The record with an earlier version of what stands under this fullUrl."""
        return self.urls.get(_url(full_url)) if full_url else None

    def add(self, record: bytes, resources: Sequence[tuple[str, bytes]], *, travelling: int) -> None:
        """Note that `record` keeps these resources; the last `travelling` of them only travel along."""
        own = len(resources) - travelling
        for at, resource in enumerate(resources):
            self.resources.setdefault(self.key(resource), record)
            if resource[0] and at < own:
                self.urls[_url(resource[0])] = record


class Places(msgspec.Struct, frozen=True):
    """Where an author may write: compartment (hex) by category, (epoch, key in base64url) by compartment, the inbox,
    and the grant it writes on."""

    by_category: dict[str, str]
    keys: dict[str, tuple[int, str]]
    inbox: str
    grant: str | None

    def of(self, categories: Iterable[str]) -> dict[str, str]:
        """The compartment of each category; the inbox where none was granted.

        Raises NotPermittedError `no-grant`.
        """
        found: dict[str, str] = {}
        for category in set(categories):
            compartment = self.by_category.get(category, self.inbox)
            if compartment not in self.keys:
                raise NotPermittedError(
                    "no-grant", f"no key to write {category} with, nor to the inbox; ask the subject for a grant"
                )
            found[category] = compartment
        return found


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """The records of one submission, still to be sealed: drafts with the resources that are new, and what they amend.

    `waits`: one of them amends a record of an earlier batch, which must have its id first.
    """

    drafts: list[RecordDraft]
    replaces: list[bytes | None]
    waits: bool = False

    def plans(self, places: Mapping[str, str], *, contributors: list[dict[str, Any]]) -> list[RecordPlan]:
        """The records to seal; `places` maps a category to the compartment (hex) it goes to."""
        return [
            RecordPlan(
                compartment=places[draft.compartment],
                header={**_header(draft), "contributors": contributors},
                resources=draft.resources,
                replaces=None if replaced is None else replaced.hex(),
            )
            for draft, replaced in zip(self.drafts, self.replaces, strict=True)
        ]


def batches(drafts: Sequence[RecordDraft], index: KeptIndex) -> tuple[list[Batch], int]:
    """Cut drafts into batches of at most RECORDS_ADVISED records and about BYTES_ADVISED bytes; returns them with the
    number of distinct resources that are kept already.

    A draft that amends another one of the same file goes into a later batch, once the other's id is known: `replaces`
    is looked up when the batch's turn comes (`with_replaced`).
    """
    found: list[list[RecordDraft]] = []
    waiting: set[int] = set()
    size = 0
    already: set[bytes] = set()
    urls: set[str] = set()
    earlier: set[str] = set()
    for draft in drafts:
        fresh = _fresh(draft, index, already)
        if fresh is None:
            continue
        weight = sum(len(data) for _, data in fresh.resources)
        own = [url for url, _ in fresh.resources[: len(fresh.resources) - len(fresh.travelling)] if url]
        full = found and (len(found[-1]) >= RECORDS_ADVISED or size + weight > RAW_BYTES_ADVISED)
        if not found or full or any(url in urls for url in own):
            found.append([])
            earlier |= urls
            size, urls = 0, set()
        if any(url in earlier for url in own):
            waiting.add(len(found) - 1)
        found[-1].append(fresh)
        urls.update(own)
        size += weight
    made = [Batch(drafts=drafts, replaces=[None] * len(drafts), waits=at in waiting) for at, drafts in enumerate(found)]
    return made, len(already)


def with_replaced(batch: Batch, index: KeptIndex) -> Batch:
    """The batch with what each of its drafts amends, as the index knows it now."""
    replaces: list[bytes | None] = []
    for draft in batch.drafts:
        own = draft.resources[: len(draft.resources) - len(draft.travelling)]
        before = [found for url, _ in own if (found := index.replaced(url)) is not None]
        replaces.append(before[0] if before else None)
    return msgspec.structs.replace(batch, replaces=replaces)


def _fresh(draft: RecordDraft, index: KeptIndex, already: set[bytes]) -> RecordDraft | None:
    """The draft without what is kept already; None when nothing of its own is left. Travelling copies stay with it."""
    travelling = set(draft.travelling)
    keys = [index.key(one) for one in draft.resources]
    kept = [at for at, key in enumerate(keys) if key in index.resources]
    already.update(keys[at] for at in kept)
    dropped = set(kept) - travelling
    if not dropped and len(travelling) < len(draft.resources):
        return draft
    left = [at for at in range(len(draft.resources)) if at not in dropped]
    own = [at for at in left if at not in travelling]
    if not own:
        return None
    ordered = own + [at for at in left if at in travelling]
    return RecordDraft(
        compartment=draft.compartment,
        resources=[draft.resources[at] for at in ordered],
        travelling=list(range(len(own), len(ordered))),
        header={**draft.header, "travelling": list(range(len(own), len(ordered)))},
    )


def _header(draft: RecordDraft) -> dict[str, Any]:
    """The draft's fields in the form of records.Header: warnings are one line each."""
    header: dict[str, Any] = dict(draft.header)
    warnings = header.pop("warnings", [])
    lines = [_line(warning) for warning in warnings]
    if lines:
        header["warnings"] = lines
    return {name: value for name, value in header.items() if value not in ("", [])}


def _line(warning: Any) -> str:
    if isinstance(warning, str):
        return warning
    return f"{warning['severity']} {warning['code']} in resource {warning['resource']} {warning['path']}".rstrip()


def _url(full_url: str) -> bytes:
    return sha256(full_url.encode()).digest()[:16]
