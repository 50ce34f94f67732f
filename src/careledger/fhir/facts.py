"""What routing needs to know of one resource, in a few hundred bytes, so that its decoded tree can go.

Element names per type come from the R4 definitions: 57 types carry their patient in `subject` or `patient`, the others
are listed; 31 have a top-level `encounter` or `context` (fhir.md sections 2.1 and 3).
"""

from __future__ import annotations

from typing import Any

from careledger.fhir import sensitivity
from careledger.fhir.reading import Issue, PatientIdentity
from careledger.fhir.survey import Survey

_SUBJECT_ELEMENTS = {
    "Coverage": ("beneficiary",),
    "EnrollmentRequest": ("candidate",),
    "ResearchSubject": ("individual",),
    "Task": ("for",),
    "AppointmentResponse": ("actor",),
    "Schedule": ("actor",),
    "SupplyRequest": ("deliverTo", "requester"),
}
_NO_SUBJECT = frozenset({"Patient", "Person", "Linkage", "Provenance", "Group", "Bundle", "Parameters"})

_DATE_ELEMENTS = (
    "effective",
    "occurrence",
    "performed",
    "onset",
    "started",
    "authoredOn",
    "recordedDate",
    "date",
    "issued",
    "created",
)
_NOT_BY_WORDS = frozenset({"Patient", "AllergyIntolerance"})
"""Words alone close neither: who treats an emergency must see an allergy, and "alcohol" is also a cause of some."""

_CHOICE_FORMS = ("", "DateTime", "Instant", "Date")
_DAY_LENGTH = 10


class Reference:
    """A reference as written: `url` ("" if none), `identifier` as `system|value` ("" if none), `type` as stated."""

    __slots__ = ("identifier", "type", "url")

    def __init__(self, url: str, identifier: str, stated_type: str) -> None:
        self.url = url
        self.identifier = identifier
        self.type = stated_type


class Facts:
    """One kept resource: its place and bytes, and what categorising, grouping and the header ask of it."""

    __slots__ = (
        "base",
        "compartment",
        "day",
        "encounter",
        "full_url",
        "goals",
        "id",
        "identifiers",
        "interaction",
        "kind",
        "labels",
        "links",
        "note",
        "number",
        "older",
        "patient",
        "references",
        "resource",
        "resource_type",
        "subjects",
        "targets",
        "updated",
        "version",
        "warnings",
        "word_kind",
    )

    def __init__(self, number: int, full_url: str, resource: bytes, resource_type: str) -> None:
        self.number = number
        self.full_url = full_url
        self.resource = resource
        self.resource_type = resource_type
        self.id = ""
        self.base = ""
        self.identifiers: tuple[str, ...] = ()
        self.references: tuple[str, ...] = ()
        self.links: tuple[str, ...] = ()
        self.subjects: tuple[Reference, ...] = ()
        self.encounter: Reference | None = None
        self.targets: tuple[str, ...] = ()
        self.goals: tuple[str, ...] = ()
        self.labels: frozenset[tuple[str, str]] = frozenset()
        self.kind = ""
        self.word_kind = ""
        self.note = ""
        self.compartment = ""
        self.day = ""
        self.version = ""
        self.updated = ""
        self.older = 0
        self.patient: PatientIdentity | None = None
        self.interaction: dict[str, Any] | None = None
        self.warnings: list[Issue] = []


def gather(facts: Facts, tree: dict[str, Any], found: Survey) -> None:
    """Fill in the facts of a decoded resource and its survey."""
    name = facts.resource_type
    facts.id = _text(tree.get("id"))
    facts.base = base_of(facts.full_url, name)
    facts.references = tuple(dict.fromkeys(found.references))
    facts.links = tuple(found.links)
    facts.labels = frozenset(found.labels)
    facts.kind = sensitivity.kind_of_labels(found.labels) or ("" if name == "Patient" else found.code_kind)
    facts.word_kind = "" if name in _NOT_BY_WORDS else found.word_kind
    facts.day = day_of(tree)
    meta = tree.get("meta")
    if isinstance(meta, dict):
        facts.version, facts.updated = _text(meta.get("versionId")), _text(meta.get("lastUpdated"))
    identifiers = tree.get("identifier")
    if identifiers is not None:
        facts.identifiers = _identifiers(identifiers)
    if name not in _NO_SUBJECT:
        facts.subjects = _subjects(tree, name)
    facts.encounter = _encounter(tree)
    _special(facts, tree)


def base_of(full_url: str, resource_type: str) -> str:
    """The base URL of a RESTful `fullUrl`: `http://x/fhir` of `http://x/fhir/Patient/23`, "" of any other."""
    if not full_url.startswith(("http://", "https://")):
        return ""
    base, marker, _ = full_url.rpartition(f"/{resource_type}/")
    return base if marker else ""


def day_of(tree: dict[str, Any]) -> str:
    """The day as written (no time-zone shift) of the first date element; "" if it has none; partial dates stay partial."""
    for element in _DATE_ELEMENTS:
        for form in _CHOICE_FORMS:
            value = tree.get(element + form)
            if type(value) is str and value[:4].isdigit():
                return value[:_DAY_LENGTH]
        period = tree.get(element + "Period")
        if type(period) is dict and type(period.get("start")) is str:
            return str(period["start"])[:_DAY_LENGTH]
    period = tree.get("period")
    if type(period) is dict and type(period.get("start")) is str:
        return str(period["start"])[:_DAY_LENGTH]
    return ""


def reference_of(value: Any) -> Reference | None:
    """A Reference element as written, or None if it names nothing (a display alone names nobody)."""
    if not isinstance(value, dict):
        return None
    url = _text(value.get("reference"))
    identifier = next(iter(_identifiers(value.get("identifier"))), "")
    return Reference(url, identifier, _text(value.get("type"))) if url or identifier else None


def _references(value: Any) -> tuple[Reference, ...]:
    items = value if isinstance(value, list) else [value]
    return tuple(found for item in items if (found := reference_of(item)) is not None)


def _text(value: Any) -> str:
    return value if type(value) is str else ""


def _identifiers(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    return tuple(
        f"{_text(item.get('system'))}|{item['value']}"
        for item in items
        if isinstance(item, dict) and _text(item.get("value"))
    )


def _subjects(tree: dict[str, Any], name: str) -> tuple[Reference, ...]:
    if name == "Appointment":
        participants = tree.get("participant")
        items = participants if isinstance(participants, list) else []
        return _references([item.get("actor") for item in items if isinstance(item, dict)])
    for element in _SUBJECT_ELEMENTS.get(name, ("subject", "patient")):
        found = _references(tree.get(element))
        if found:
            return found
    return ()


def _encounter(tree: dict[str, Any]) -> Reference | None:
    """`encounter`, `context`, `context.encounter[0]`, `item[].encounter[0]`."""
    found = reference_of(tree.get("encounter"))
    if found is not None:
        return found
    context = tree.get("context")
    if isinstance(context, dict):
        inner = context.get("encounter")
        found = reference_of(context) or reference_of(inner[0] if isinstance(inner, list) and inner else None)
        if found is not None:
            return found
    items = tree.get("item")
    for item in items if isinstance(items, list) else ():
        encounters = item.get("encounter") if isinstance(item, dict) else None
        if isinstance(encounters, list) and encounters:
            found = reference_of(encounters[0])
            if found is not None:
                return found
    return None


def _special(facts: Facts, tree: dict[str, Any]) -> None:
    """What single types need: targets that decide their place, their note type, their person or their interaction."""
    name = facts.resource_type
    if name == "Patient":
        facts.patient = _person(tree, facts.identifiers)
    elif name == "Encounter":
        facts.interaction = _interaction(tree)
    elif name == "Provenance":
        facts.targets = _urls(tree.get("target"))
    elif name == "List":
        entries = tree.get("entry")
        items = [entry.get("item") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        facts.targets = _urls(items[:1])
    elif name == "Binary":
        facts.targets = _urls(tree.get("securityContext"))
    elif name == "CarePlan":
        facts.goals = _urls(tree.get("goal"))
    elif name == "Consent":
        facts.note = "adr" if "adr" in _codes(tree.get("scope")) else ""
    elif name == "DiagnosticReport":
        codes = [code for item in tree.get("category") or () for code in _codes(item)]
        facts.note = "GE" if "GE" in codes else next((c for c in _codes(tree.get("code")) if c in _NOTE_TYPES), "")


_NOTE_TYPES = frozenset({"11488-4", "18842-5", "34117-2", "11506-3", "28570-0", "60591-5"})
"""LOINC types of US Core clinical notes and of the patient summary: such a DiagnosticReport is a document."""


def _urls(value: Any) -> tuple[str, ...]:
    return tuple(reference.url for reference in _references(value) if reference.url)


def _codes(concept: Any) -> list[str]:
    codings = concept.get("coding") if isinstance(concept, dict) else None
    return [_text(c.get("code")) for c in codings if isinstance(c, dict)] if isinstance(codings, list) else []


def _person(tree: dict[str, Any], identifiers: tuple[str, ...]) -> PatientIdentity:
    names = tree.get("name")
    family = next((_text(n.get("family")) for n in names if isinstance(n, dict)), "") if isinstance(names, list) else ""
    return PatientIdentity(sorted(identifiers), _text(tree.get("birthDate")), family)


def _interaction(tree: dict[str, Any]) -> dict[str, Any]:
    """The parts of an Encounter that a record's header may repeat; `place` holds references, resolved later."""
    period = tree.get("period")
    period = period if isinstance(period, dict) else {}
    encounter_class = tree.get("class")
    kinds = tree.get("type")
    kind = kinds[0] if isinstance(kinds, list) and kinds else None
    coding = next((c for c in kind.get("coding") or () if isinstance(c, dict)), {}) if isinstance(kind, dict) else {}
    places = tree.get("location")
    first = places[0].get("location") if isinstance(places, list) and places and isinstance(places[0], dict) else None
    return {
        "start": _text(period.get("start")),
        "end": _text(period.get("end")),
        "class": _text(encounter_class.get("code")) if isinstance(encounter_class, dict) else "",
        "kind": _text(coding.get("display")) or (_text(kind.get("text")) if isinstance(kind, dict) else ""),
        "place": [r for r in (reference_of(first), reference_of(tree.get("serviceProvider"))) if r is not None],
        "shown": [_text(x.get("display")) for x in (first, tree.get("serviceProvider")) if isinstance(x, dict)],
    }
