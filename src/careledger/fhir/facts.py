"""What routing needs to know of one resource, in a few hundred bytes, so that its decoded tree can go.

Element names per type come from the R4 definitions: 57 types carry their patient in `subject` or `patient`, the others
are listed; 31 have a top-level `encounter` or `context` (fhir.md sections 2.1 and 3).
"""

from __future__ import annotations

from typing import Any

import msgspec

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

_DATE_ELEMENT_NAMES = "effective occurrence performed onset started authoredOn recordedDate date issued created"
_DATE_FORMS = ("", "DateTime", "Instant", "Date", "Period")
_DAY_RANKS = {
    key: rank
    for rank, key in enumerate(
        [element + form for element in _DATE_ELEMENT_NAMES.split() for form in _DATE_FORMS] + ["period"]
    )
}
_NOT_BY_WORDS = frozenset({"Patient", "AllergyIntolerance"})
"""Words alone close neither: who treats an emergency must see an allergy, and "alcohol" is also a cause of some."""

_DAY_LENGTH = 10


class Reference(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A reference as written: `url` ("" if none), `identifier` as `system|value` ("" if none), `type` as stated."""

    url: str
    identifier: str = ""
    type: str = ""


class Interaction(msgspec.Struct, frozen=True, eq=False):
    """The parts of an Encounter that a record's header may repeat; `places` are resolved later, `shown` their names."""

    start: str
    end: str
    encounter_class: str
    kind: str
    places: list[Reference]
    shown: list[str]


class Facts(msgspec.Struct, eq=False):
    """One kept resource: its place and bytes, and what categorising, grouping and the header ask of it."""

    number: int
    full_url: str
    resource: bytes
    resource_type: str
    id: str = ""
    base: str = ""
    """Base URL of a RESTful `full_url`, "" of any other."""
    identifiers: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    """URLs of attachments whose data is elsewhere."""
    subjects: tuple[Reference, ...] = ()
    encounter: Reference | None = None
    targets: tuple[str, ...] = ()
    """What a Provenance, List or Binary follows into a compartment."""
    goals: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    kind: str = ""
    """The sensitive compartment that labels or codes ask for, "" for none."""
    word_kind: str = ""
    note: str = ""
    """`adr` for an advance directive, `GE` for genetics, else the LOINC note type of a DiagnosticReport."""
    compartment: str = ""
    day: str = ""
    version: str = ""
    updated: str = ""
    older: int = 0
    """0 for the newest version under a fullUrl, then 1, 2 …"""
    patient: PatientIdentity | None = None
    interaction: Interaction | None = None
    warnings: list[Issue] = []


def gather(facts: Facts, tree: dict[str, Any], found: Survey) -> None:
    """Fill in the facts of a decoded resource and its survey."""
    name = facts.resource_type
    facts.id = _text(tree.get("id"))
    facts.base = base_of(facts.full_url, name)
    if found.references:
        facts.references = tuple(dict.fromkeys(found.references))
    if found.links:
        facts.links = tuple(found.links)
    if found.labels:
        facts.labels = tuple(found.labels)
        facts.kind = sensitivity.kind_of_labels(found.labels)
    if not facts.kind and name != "Patient":
        facts.kind = found.code_kind
    if found.word_kinds and name not in _NOT_BY_WORDS:
        facts.word_kind = found.word_kind
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
    """The day as written (no time-zone shift) of the first date element, "" if there is none.

    A partial date (`2019`, `2019-05`) stays partial.
    """
    best = len(_DAY_RANKS)
    day = ""
    for key in tree.keys() & _DAY_RANKS.keys():
        value = tree[key]
        if type(value) is dict:
            value = value.get("start")
        if type(value) is str and value[:4].isdigit() and _DAY_RANKS[key] < best:
            best, day = _DAY_RANKS[key], value[:_DAY_LENGTH]
    return day


def reference_of(value: Any) -> Reference | None:
    """A Reference element as written, or None if it names nothing (a display alone names nobody)."""
    if type(value) is not dict:
        return None
    url = _text(value.get("reference"))
    if url and len(value) == 1:
        return Reference(url)
    identifier = next(iter(_identifiers(value.get("identifier"))), "")
    return Reference(url, identifier, _text(value.get("type"))) if url or identifier else None


def _references(value: Any) -> tuple[Reference, ...]:
    if type(value) is dict:
        found = reference_of(value)
        return () if found is None else (found,)
    if type(value) is not list:
        return ()
    return tuple(found for item in value if (found := reference_of(item)) is not None)


def _text(value: Any) -> str:
    return value if type(value) is str else ""


def _identifiers(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
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
    if name not in _SPECIAL:
        return
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
        codes = [code for item in _list(tree.get("category")) for code in _codes(item)]
        facts.note = "GE" if "GE" in codes else next((c for c in _codes(tree.get("code")) if c in _NOTE_TYPES), "")


_SPECIAL = frozenset(
    {"Patient", "Encounter", "Provenance", "List", "Binary", "CarePlan", "Consent", "DiagnosticReport"}
)

_NOTE_TYPES = frozenset({"11488-4", "18842-5", "34117-2", "11506-3", "28570-0", "60591-5"})
"""LOINC types of US Core clinical notes and of the patient summary: such a DiagnosticReport is a document."""


def _urls(value: Any) -> tuple[str, ...]:
    return tuple(reference.url for reference in _references(value) if reference.url)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _codes(concept: Any) -> list[str]:
    codings = concept.get("coding") if isinstance(concept, dict) else None
    return [_text(c.get("code")) for c in codings if isinstance(c, dict)] if isinstance(codings, list) else []


def _person(tree: dict[str, Any], identifiers: tuple[str, ...]) -> PatientIdentity:
    names = tree.get("name")
    family = next((_text(n.get("family")) for n in names if isinstance(n, dict)), "") if isinstance(names, list) else ""
    return PatientIdentity(sorted(identifiers), _text(tree.get("birthDate")), family)


def _interaction(tree: dict[str, Any]) -> Interaction:
    period = tree.get("period")
    period = period if isinstance(period, dict) else {}
    encounter_class = tree.get("class")
    kinds = tree.get("type")
    kind = kinds[0] if isinstance(kinds, list) and kinds and isinstance(kinds[0], dict) else {}
    codings = kind.get("coding")
    shown = (
        next((_text(c.get("display")) for c in codings if isinstance(c, dict)), "") if isinstance(codings, list) else ""
    )
    locations = tree.get("location")
    first = locations[0] if isinstance(locations, list) and locations else None
    places = [first.get("location") if isinstance(first, dict) else None, tree.get("serviceProvider")]
    return Interaction(
        start=_text(period.get("start")),
        end=_text(period.get("end")),
        encounter_class=_text(encounter_class.get("code")) if isinstance(encounter_class, dict) else "",
        kind=shown or _text(kind.get("text")),
        places=[reference for place in places if (reference := reference_of(place)) is not None],
        shown=[_text(place.get("display")) for place in places if isinstance(place, dict)],
    )
