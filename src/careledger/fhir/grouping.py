"""From filed resources to drafts of records: one per compartment and interaction (fhir.md section 3).

An interaction is an encounter; where a resource names none, the day it was written down for; where it has none, the
import. Resources without a subject travel: a copy in each record that refers to them, directly or through another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from careledger.fhir.categories import CATEGORY_TABLE_VERSION, TRAVELLING_TYPES
from careledger.fhir.facts import Facts, Interaction
from careledger.fhir.filing import Filing
from careledger.fhir.reading import RECORD_RESOURCES_MAX, HeaderValue, Issue, RecordDraft
from careledger.fhir.sensitivity import BASIS_CODES

_PER_RESOURCE_BYTES = 64
"""Salt, framing and lengths of one resource in a plaintext."""

HEADER_WARNINGS_MAX = 100

_VIRTUAL = "VR"
_HOME = "HH"


class Origin(msgspec.Struct, frozen=True):
    """What every header of one import repeats."""

    import_id: str
    source: str
    subject_url: str


class _Group:
    __slots__ = ("compartment", "encounter", "key", "members")

    def __init__(self, compartment: str, key: str, encounter: Facts | None) -> None:
        self.compartment = compartment
        self.key = key
        self.encounter = encounter
        self.members: list[Facts] = []


def group(filing: Filing, *, origin: Origin, bytes_max: int) -> list[RecordDraft]:
    """The drafts in the order in which their first resource stands in the file, older versions first.

    A record that would not fit into `bytes_max` is divided, in order, into several of the same interaction.
    """
    travels = _travellers(filing)
    groups: dict[tuple[str, str, int], _Group] = {}
    goals = _goals(filing)
    for facts in sorted(filing.entries, key=lambda f: -f.older):
        if facts.resource_type in TRAVELLING_TYPES and facts not in travels.unreferenced:
            continue
        key = _interaction_key(facts, filing, goals)
        compartment = facts.compartment or "private"
        place = (compartment, key, facts.older)
        if place not in groups:
            groups[place] = _Group(compartment, key, filing.encounter.get(goals.get(facts, facts)))
        groups[place].members.append(facts)
    drafts: list[RecordDraft] = []
    older: dict[str, list[int]] = {}
    for one in groups.values():
        for members in _parts(one, travels, bytes_max):
            replaces = sorted({i for f in members for i in older.get(f.full_url, ()) if f.full_url})
            draft = _draft(one, members, travels, filing, origin)
            drafts.append(msgspec.structs.replace(draft, replaces=replaces) if replaces else draft)
            for facts in members:
                if facts.older:
                    older.setdefault(facts.full_url, []).append(len(drafts) - 1)
    return drafts


class _Travels:
    __slots__ = ("of", "unreferenced")

    def __init__(self, of: Mapping[Facts, list[Facts]], unreferenced: set[Facts]) -> None:
        self.of = of
        self.unreferenced = unreferenced


def _travellers(filing: Filing) -> _Travels:
    """For each resource the travelling ones it needs, transitively; and those of this file that nobody needs."""
    of: dict[Facts, list[Facts]] = {}
    seen: set[Facts] = set()
    for facts in filing.entries:
        if facts.resource_type in TRAVELLING_TYPES:
            continue
        reached: dict[Facts, None] = {}
        waiting = [] if filing.is_bare(facts) else filing.travelling(facts)
        while waiting:
            one = waiting.pop()
            if one not in reached:
                reached[one] = None
                waiting += filing.travelling(one)
        of[facts] = list(reached)
        seen.update(reached)
    unreferenced = {f for f in filing.entries if f.resource_type in TRAVELLING_TYPES and f not in seen}
    for facts in unreferenced:
        of[facts] = []
        facts.warnings.append(
            Issue("warning", facts.resource_type, "unreferenced", "is referred to by nothing: kept in private")
        )
    return _Travels(of, unreferenced)


def _goals(filing: Filing) -> dict[Facts, Facts]:
    """Goal -> the CarePlan that names it."""
    plans: dict[Facts, Facts] = {}
    for plan in filing.entries:
        for url in plan.goals:
            goal = filing.index.find(url, plan.base)
            if goal is not None and goal.resource_type == "Goal":
                plans.setdefault(goal, plan)
    return plans


def _interaction_key(facts: Facts, filing: Filing, goals: Mapping[Facts, Facts]) -> str:
    """`e…` the encounter in the file, `r…` a reference to one that is not, `d…` a day, "" the import."""
    if facts.resource_type == "Provenance":
        targets = [f for url in facts.targets if (f := filing.index.find(url, facts.base)) is not None]
        owner = next((t for t in targets if t.compartment == facts.compartment and t is not facts), None)
        if owner is not None and owner.resource_type != "Provenance":
            return _interaction_key(owner, filing, goals)
    if facts.resource_type == "Goal":
        plan = goals.get(facts)
        return _interaction_key(plan, filing, {}) if plan is not None else ""
    encounter = filing.encounter.get(facts)
    if encounter is not None:
        return f"e{encounter.number}"
    if facts.encounter is not None:
        return f"r{facts.encounter.url or facts.encounter.identifier}"
    return f"d{facts.day}" if facts.day else ""


def _parts(one: _Group, travels: _Travels, bytes_max: int) -> list[list[Facts]]:
    whole = sum(1 + len(travels.of[f]) for f in one.members) <= RECORD_RESOURCES_MAX
    if whole and sum(_size(f) + sum(map(_size, travels.of[f])) for f in one.members) <= bytes_max:
        return [one.members]
    parts: list[list[Facts]] = []
    size = 0
    carried: set[Facts] = set()
    for facts in one.members:
        needed = {facts, *travels.of[facts]}
        more = sum(map(_size, needed - carried))
        if not parts or size + more > bytes_max or len(carried | needed) > RECORD_RESOURCES_MAX:
            parts.append([])
            size, carried = 0, set()
            more = sum(map(_size, needed))
        parts[-1].append(facts)
        size += more
        carried |= needed
    return parts


def _size(facts: Facts) -> int:
    return len(facts.resource) + len(facts.full_url) * 3 + _PER_RESOURCE_BYTES


def _draft(one: _Group, members: Sequence[Facts], travels: _Travels, filing: Filing, origin: Origin) -> RecordDraft:
    own = set(members)
    companions = sorted({t for facts in members for t in travels.of[facts]} - own, key=lambda f: (f.number, f.full_url))
    resources = [*members, *companions]
    travelling = list(range(len(members), len(resources)))
    header = _header(one, resources, filing, origin, bare=any(filing.is_bare(facts) for facts in members))
    header["travelling"] = list[HeaderValue](travelling)
    return RecordDraft(one.compartment, [(facts.full_url, facts.resource) for facts in resources], travelling, header)


def _header(
    one: _Group, resources: Sequence[Facts], filing: Filing, origin: Origin, *, bare: bool
) -> dict[str, HeaderValue]:
    """The fields of fhir.md section 6; absent ones are left out. `bare` leaves kind, place and encounter out."""
    header: dict[str, HeaderValue] = {
        "import": origin.import_id,
        "source": origin.source,
        "subject_url": origin.subject_url,
        "category": CATEGORY_TABLE_VERSION,
        "labels": list[HeaderValue](sorted({f"{s}|{c}" for f in resources for s, c in f.labels})),
        "basis": list[HeaderValue](sorted({c for f in resources for _, c in f.labels if c in BASIS_CODES})),
        "warnings": _warnings(resources),
    }
    if not bare and one.encounter is not None:
        header["encounter"] = one.encounter.full_url or f"Encounter/{one.encounter.id}"
    elif not bare and one.key.startswith("r"):
        header["encounter"] = one.key[1:]
    interaction = _interaction(one, filing, bare=bare)
    if interaction:
        header["interaction"] = interaction
    return header


def _warnings(resources: Sequence[Facts]) -> list[HeaderValue]:
    found: list[HeaderValue] = [
        {"resource": index, "code": issue.code, "path": issue.path, "severity": issue.severity}
        for index, facts in enumerate(resources)
        for issue in facts.warnings
    ]
    return found[:HEADER_WARNINGS_MAX]


def _interaction(one: _Group, filing: Filing, *, bare: bool) -> dict[str, HeaderValue]:
    if one.encounter is None or one.encounter.interaction is None:
        return {"start": one.key[1:]} if one.key.startswith("d") else {}
    stored = one.encounter.interaction
    shown = {"start": stored.start, "end": stored.end}
    if not bare:
        shown |= {"class": stored.encounter_class, "kind": stored.kind}
    interaction: dict[str, HeaderValue] = {name: value for name, value in shown.items() if value}
    places = {} if bare else _places(stored, one.encounter, filing)
    if places:
        interaction["places"] = places
    return interaction


def _places(stored: Interaction, encounter: Facts, filing: Filing) -> dict[str, HeaderValue]:
    """Where the clinician was, and the patient too unless the visit was virtual: references, or names as written."""
    found = [filing.index.find(reference.url, encounter.base) for reference in stored.places if reference.url]
    urls = [facts.full_url for facts in found if facts is not None] + [reference.url for reference in stored.places]
    place = next((text for text in urls + stored.shown if text), "")
    if not place:
        return {}
    if stored.encounter_class == _VIRTUAL:
        return {"clinician": place}
    if stored.encounter_class == _HOME:
        return {"patient": "home", "clinician": "home"}
    return {"patient": place, "clinician": place}
