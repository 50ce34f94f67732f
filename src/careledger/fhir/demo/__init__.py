"""Three demo patients of our own making (fhir.md section 7): nobody's data, every label and spelling that must work.

They are written by this code, deterministically, instead of being carried as files: the facts stay readable, and the
bytes cannot drift from them.
"""

from __future__ import annotations

import functools
import gzip
from collections.abc import Sequence

import msgspec

from careledger.fhir.demo.adult import adult
from careledger.fhir.demo.child import child
from careledger.fhir.demo.elder import elder

__all__ = ["demo_patients", "demo_spellings"]


@functools.cache
def demo_patients() -> list[tuple[str, bytes]]:
    """(file name, bytes): an adult (transaction), a child (collection, pretty-printed with CRLF), an elder (gzip)."""
    return [
        ("adult.json", _bundle("transaction", adult().resources())),
        ("child.json", _pretty(_bundle("collection", child().resources()))),
        ("elder.json.gz", gzip.compress(_bundle("transaction", elder().resources()), mtime=0)),
    ]


@functools.cache
def demo_spellings() -> list[tuple[str, bytes]]:
    """The adult twice more, in the same bytes for each resource: NDJSON, and the answer to a FHIR search."""
    resources = adult().resources()
    return [
        ("adult.ndjson", b"\n".join(resource for _, resource in resources) + b"\n"),
        ("adult-everything.json", _bundle("searchset", resources)),
    ]


def _bundle(kind: str, resources: Sequence[tuple[str, bytes]]) -> bytes:
    entries = []
    for url, resource in resources:
        name = msgspec.json.decode(resource)["resourceType"]
        after = {"transaction": f',"request":{{"method":"POST","url":"{name}"}}', "collection": ""}
        tail = after.get(kind, ',"search":{"mode":"match"}').encode()
        entries.append(b'{"fullUrl":"%s","resource":%s%s}' % (url.encode(), resource, tail))
    return b'{"resourceType":"Bundle","type":"%s","entry":[%s]}' % (kind.encode(), b",".join(entries))


def _pretty(bundle: bytes) -> bytes:
    """The same Bundle, indented, with CRLF line ends and unescaped characters."""
    text = msgspec.json.format(bundle, indent=2).decode()
    return text.replace("\n", "\r\n").encode()
