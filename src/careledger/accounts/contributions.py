"""Who created what, and what it was used for: the account behind a person's value statement and "who answers for what".

Pure arithmetic over what a client holds anyway: proven manifests, the headers of records it could open, and the
openings that custodians' logs show. Parts are whole thousandths of a record, so that sums are exact and every node,
browser and auditor gets the same figures. Parts are the author's claim until the contributors countersign.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

import msgspec

from careledger.errors import MalformedError
from careledger.records import Manifest, OpenedRecord

__all__ = ["Account", "Content", "Opening", "account", "content_of"]

_WHOLE = 1000
"""A record is a thousand parts (DESIGN 5.2)."""


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What an opened record says of itself: its own resources (travelling copies not counted) and (who, parts)."""

    resources: int
    parts: list[tuple[str, int]]


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """One record opened by one access request; several custodians' logs show the same one."""

    request: str
    record: str
    reader: str
    purpose: str


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One contributor's account: records and resources it took part in, thousandths of records, openings of them."""

    records: int = 0
    resources: int = 0
    parts: int = 0
    opens: int = 0


def content_of(opened: OpenedRecord) -> Content:
    """Return the content of an opened record; contributors without a token stand as `name:` and a short hash.

    The hash keeps names out of accounts, which are shown and exported more freely than records.
    """
    header = opened.header
    travelling = 0 if header.travelling is msgspec.UNSET else len(header.travelling)
    contributors = [] if header.contributors is msgspec.UNSET else header.contributors
    parts = [
        (one.token if one.token is not msgspec.UNSET else f"name:{_short_hash(str(one.name))}", one.parts)
        for one in contributors
    ]
    return Content(resources=len(opened.resources) - travelling, parts=parts)


def account(
    manifests: Iterable[Manifest], contents: Mapping[str, Content], openings: Sequence[Opening]
) -> dict[str, Account]:
    """Return each contributor's account by token, in the order of tokens.

    `contents` maps a record's hex id to its content. A record without content, or whose header names nobody, counts
    1000 parts for its author, and without content no resources. A record or opening given twice counts once.
    Raises MalformedError `bad-parts` when a record's parts are negative or do not sum to 1000.
    """
    opens: dict[str, int] = {}
    for record, _ in {(one.record, one.request) for one in openings}:
        opens[record] = opens.get(record, 0) + 1
    totals: dict[str, Account] = {}
    for record, author in {one.record: one.author for one in manifests}.items():
        content = contents.get(record)
        parts = _by_contributor(record, content) or {author.partition("#")[0]: _WHOLE}
        for who, share in parts.items():
            before = totals.get(who, Account())
            totals[who] = Account(
                records=before.records + 1,
                resources=before.resources + (content.resources if content else 0),
                parts=before.parts + share,
                opens=before.opens + opens.get(record, 0),
            )
    return dict(sorted(totals.items()))


def _by_contributor(record: str, content: Content | None) -> dict[str, int]:
    if content is None or not content.parts:
        return {}
    parts: dict[str, int] = {}
    for who, share in content.parts:
        parts[who] = parts.get(who, 0) + share
    if sum(parts.values()) != _WHOLE or any(share < 0 for _, share in content.parts):
        raise MalformedError(
            "bad-parts", f"the parts of record {record} are not whole thousandths that sum to {_WHOLE}"
        )
    return parts


def _short_hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]
