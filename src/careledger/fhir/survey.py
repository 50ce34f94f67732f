"""One walk over a decoded resource: own structural checks, and the few facts that routing needs.

The checks are those of fhir.md 4.1 that the structural validator does not make; all but depth are warnings. The facts
are what categorising, grouping and the report need, so that the decoded tree can be dropped at once: a file of 70,000
entries is never held decoded.
"""

from __future__ import annotations

import calendar
import re
from typing import Any

from careledger.fhir import sensitivity
from careledger.fhir.bindings import BoundConcept, Trie, tries
from careledger.fhir.faults import DEPTH_MAX
from careledger.fhir.narrative import narrative_fault
from careledger.fhir.reading import Issue

_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_REFERENCE = re.compile(
    r"#\S*|[A-Za-z][A-Za-z0-9+.-]*:\S+|"
    r"[A-Z][A-Za-z]*/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?|[A-Z][A-Za-z]*\?\S+"
)
_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:T.*)?")
_TEXT_KEYS = frozenset({"display", "text", "valueString", "description", "comment", "title", "name", "div", "data"})
_ATTACHMENT_KEYS = frozenset(
    {"attachment", "content", "presentedForm", "photo", "valueAttachment", "image", "sourceAttachment"}
)
_CODING_KEYS = frozenset({"system", "version", "code", "display", "userSelected"})
_META_KEYS = frozenset({"versionId", "lastUpdated", "source", "profile", "tag"})
_NO_TRIE: Trie = {}
_EXTENSION_KEYS = frozenset({"extension", "modifierExtension"})


class Survey:
    """What one walk collects. `faults` are (object, key, code, message); paths are worked out for the few found."""

    __slots__ = (
        "code_kind",
        "contained",
        "depth",
        "faults",
        "labels",
        "links",
        "local",
        "references",
        "tries",
        "word_kinds",
    )

    def __init__(self) -> None:
        self.tries = tries()
        self.references: list[str] = []
        self.links: list[str] = []
        self.local: list[tuple[dict[str, Any], str]] = []
        self.labels: list[tuple[str, str]] = []
        self.code_kind = ""
        self.word_kinds: list[str] = []
        self.contained = False
        self.depth = 0
        self.faults: list[tuple[dict[str, Any], str, str, str]] = []

    @property
    def word_kind(self) -> str:
        return sensitivity.most_closed(self.word_kinds)


class TooDeepError(Exception):
    """A resource nested deeper than `DEPTH_MAX`; caught where resources are read."""


def survey(tree: dict[str, Any]) -> Survey:
    """Walk a decoded resource. Raises TooDeepError beyond `DEPTH_MAX` levels; never for other content."""
    found = Survey()
    _resource(found, tree, 1)
    if found.local:
        _check_local(found, tree)
    return found


def issues(found: Survey, tree: dict[str, Any]) -> list[Issue]:
    """The walk's faults with their paths."""
    if not found.faults:
        return []
    paths = {id(node): "" for node, *_ in found.faults}
    name = tree.get("resourceType")
    _locate(tree, name if isinstance(name, str) and _ID.fullmatch(name) else "Resource", paths)
    return [
        Issue("warning", f"{paths[id(node)]}.{key}" if key else paths[id(node)], code, message)
        for node, key, code, message in found.faults
    ]


def _locate(node: Any, path: str, paths: dict[int, str]) -> None:
    if isinstance(node, dict):
        if id(node) in paths:
            paths[id(node)] = path
        for key, value in node.items():
            if isinstance(value, dict | list):
                _locate(value, f"{path}.{key}", paths)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            _locate(value, f"{path}[{index}]", paths)


def _resource(found: Survey, tree: dict[str, Any], depth: int) -> None:
    name = tree.get("resourceType")
    trie = found.tries.get(name, _NO_TRIE) if isinstance(name, str) else _NO_TRIE
    identifier = tree.get("id")
    if identifier is not None and not (isinstance(identifier, str) and _ID.fullmatch(identifier)):
        found.faults.append((tree, "id", "bad-id", "is not 1 to 64 letters, digits, hyphens or dots"))
    meta = tree.get("meta")
    if isinstance(meta, dict):
        _labels(found, meta.get("security"))
    if name == "Composition":
        code = tree.get("confidentiality")
        if isinstance(code, str):
            found.labels.append((sensitivity.CONFIDENTIALITY, code))
    elif name == "DocumentReference":
        labels = tree.get("securityLabel")
        for concept in labels if isinstance(labels, list) else ():
            if isinstance(concept, dict):
                _labels(found, concept.get("coding"))
    _visit(found, tree, trie, depth)


def _labels(found: Survey, codings: Any) -> None:
    for coding in codings if isinstance(codings, list) else ():
        if isinstance(coding, dict):
            system, code = coding.get("system"), coding.get("code")
            if isinstance(system, str) and isinstance(code, str):
                found.labels.append((system, code))
            extensions = coding.get("extension")
            for extension in extensions if isinstance(extensions, list) else ():
                if isinstance(extension, dict) and extension.get("url") == sensitivity.LABEL_BASIS_URL:
                    _labels(found, [extension.get("valueCoding")])


def _visit(found: Survey, node: dict[str, Any], trie: Trie, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise TooDeepError
    if not node:
        found.faults.append((node, "", "empty-object", "is an empty object"))
        return
    for key, value in node.items():
        kind = type(value)
        if kind is str:
            if key in trie:
                _bound(found, node, key, value, trie)
            handle = _STRING_HANDLERS.get(key)
            if handle is not None:
                handle(found, node, value)
            elif value[4:5] == "-" and value[8:10] > "28" and key not in _TEXT_KEYS:
                _date(found, node, key, value)
        elif kind is dict:
            if len(value) == 1 and "reference" in value and type(value["reference"]) is str:
                _reference(found, value, value["reference"])
                continue
            if key == "meta" and not _has_more_than_tags(value):
                continue
            below = trie.get(key, _NO_TRIE)
            if type(below) is not dict:
                _bound(found, node, key, value, trie)
                below = _NO_TRIE
            if key in _ATTACHMENT_KEYS:
                _attachment(found, value)
            _visit(found, value, below, depth + 1)
        elif kind is list:
            if key == "coding":
                _codings(found, value, depth)
            else:
                _items(found, node, key, value, trie, depth)


def _has_more_than_tags(meta: dict[str, Any]) -> bool:
    """Labels are taken from `meta` before the walk; tags, profile and times say nothing about care."""
    return not meta or not meta.keys() <= _META_KEYS


def _codings(found: Survey, codings: list[Any], depth: int) -> None:
    """The commonest list of all, without a call for each element; anything unusual goes the ordinary way."""
    for coding in codings:
        if type(coding) is not dict:
            continue
        if not coding or not coding.keys() <= _CODING_KEYS or depth >= DEPTH_MAX:
            _visit(found, coding, _NO_TRIE, depth + 1)
            continue
        system, code, display = coding.get("system"), coding.get("code"), coding.get("display")
        if type(code) is str and type(system) is str and (type(display) is str or display is None):
            code_kind, word_kind = sensitivity.kinds_of_coding(system, code, display or "")
            if code_kind:
                found.code_kind = sensitivity.most_closed((found.code_kind, code_kind))
            if word_kind:
                found.word_kinds.append(word_kind)
        else:
            _visit(found, coding, _NO_TRIE, depth + 1)


def _items(  # noqa: PLR0917 - called for every list of every resource: keyword arguments cost a tenth of the walk
    found: Survey, node: dict[str, Any], key: str, items: list[Any], trie: Trie, depth: int
) -> None:
    if key == "contained":
        _contained(found, node, items, depth)
        return
    if key in _EXTENSION_KEYS:
        for item in items:
            if type(item) is dict:
                _extension(found, item, depth)
        return
    below = trie.get(key, _NO_TRIE)
    if type(below) is not dict:
        for item in items:
            _bound(found, node, key, item, trie)
        below = _NO_TRIE
    attachments = key in _ATTACHMENT_KEYS
    for item in items:
        kind = type(item)
        if kind is dict:
            if attachments:
                _attachment(found, item)
            if "resourceType" in item or "resource" in item:
                _nested(found, item, depth)
            else:
                _visit(found, item, below, depth + 1)
        elif kind is list:
            if depth > DEPTH_MAX:
                raise TooDeepError
            _items(found, node, key, item, _NO_TRIE, depth + 1)


def _nested(found: Survey, item: dict[str, Any], depth: int) -> None:
    """An entry of a Bundle, or a part of Parameters, inside a resource that is kept whole."""
    resource = item.get("resource")
    if isinstance(resource, dict):
        _resource(found, resource, depth + 2)
        item = {key: value for key, value in item.items() if key != "resource"}
        if not item:
            return
    _visit(found, item, _NO_TRIE, depth + 1)


def _contained(found: Survey, node: dict[str, Any], items: list[Any], depth: int) -> None:
    if found.contained:
        found.faults.append((node, "contained", "nested-contained", "is contained in a contained resource"))
    before, found.contained = found.contained, True
    for item in items:
        if type(item) is dict:
            _resource(found, item, depth + 1)
    found.contained = before


def _extension(found: Survey, extension: dict[str, Any], depth: int) -> None:
    values = sum(1 for key in extension if key.startswith(("value", "_value")))
    inner = "extension" in extension
    if inner + min(values, 1) != 1 and not (values and inner and _only_primitive_extra(extension)):
        found.faults.append((extension, "", "extension", "needs exactly one of a value or inner extensions"))
    if extension.get("url") == sensitivity.INLINE_LABEL_URL:
        _labels(found, [extension.get("valueCoding")])
    _visit(found, extension, _NO_TRIE, depth + 1)


def _only_primitive_extra(extension: dict[str, Any]) -> bool:
    return not any(key.startswith("value") for key in extension)


def _code(found: Survey, node: dict[str, Any], code: str) -> None:
    system = node.get("system")
    if type(system) is str:
        kind, _ = sensitivity.kinds_of_coding(system, code, "")
        if kind:
            found.code_kind = sensitivity.most_closed((found.code_kind, kind))


def _words(found: Survey, node: dict[str, Any], text: str) -> None:
    kind = sensitivity.kind_of_words(text[: sensitivity.WORDS_LENGTH_MAX])
    if kind:
        found.word_kinds.append(kind)


def _reference(found: Survey, node: dict[str, Any], value: str) -> None:
    if value[:1] == "#":
        found.local.append((node, value))
        return
    found.references.append(value)
    if value[:9] != "urn:uuid:" and not _REFERENCE.fullmatch(value):
        found.faults.append((node, "reference", "reference", "is not a well-formed reference"))


def _bound(found: Survey, node: dict[str, Any], key: str, value: Any, trie: Trie) -> None:
    bound = trie[key]
    if type(bound) is frozenset:
        if type(value) is str and value not in bound:
            found.faults.append((node, key, "unknown-code", "is not in the required value set"))
    elif type(bound) is BoundConcept and type(value) is dict:
        codings = value.get("coding")
        listed = [c for c in codings if type(c) is dict] if type(codings) is list else []
        if not any(_text(c, "code") in bound.get(_text(c, "system"), ()) for c in listed):
            found.faults.append((node, key, "unknown-code", "has no coding of the required value set"))


def _text(node: dict[str, Any], key: str) -> str:
    value = node.get(key)
    return value if type(value) is str else ""


def _date(found: Survey, node: dict[str, Any], key: str, value: str) -> None:
    date = _DATE.fullmatch(value)
    if date is None:
        return
    year, month, day = (int(part) for part in date.groups())
    if not (year >= 1 and 1 <= month <= 12 and day <= calendar.monthrange(year, month)[1]):
        found.faults.append((node, key, "bad-date", "is not a day of the calendar"))


def _narrative(found: Survey, node: dict[str, Any], div: str) -> None:
    fault = narrative_fault(div)
    if fault:
        found.faults.append((node, "div", "narrative", fault))


_STRING_HANDLERS = {"code": _code, "display": _words, "text": _words, "reference": _reference, "div": _narrative}


def _attachment(found: Survey, value: dict[str, Any]) -> None:
    url = value.get("url")
    if type(url) is str and "data" not in value:
        found.links.append(url)


def _check_local(found: Survey, tree: dict[str, Any]) -> None:
    contained = tree.get("contained")
    ids = {_text(item, "id") for item in contained if type(item) is dict} if type(contained) is list else set()
    for node, reference in found.local:
        if reference != "#" and reference[1:] not in ids:
            found.faults.append((node, "reference", "reference", "points at a contained resource that is not there"))
