"""Which compartment every resource of a file goes to: a pure function of the whole file (fhir.md 1.3 to 1.5).

In this order: (a) a resource's own labels and codes, else its type; (b) what refers to something sensitive takes its
compartment; (c) everything of a sensitive Encounter does; then the same with the words of what is still ordinary. (b)
and (c) repeat until nothing moves. An allergy is never moved by (c): whoever treats an emergency must see it, so its
record only loses what its header would say about the visit, and the people it would take along.
"""

from __future__ import annotations

from collections.abc import Sequence

from careledger.fhir.categories import (
    CATEGORY_OF_TYPE,
    NOT_CLINICAL_TYPES,
    SENSITIVE_SET,
    TRAVELLING_TYPES,
)
from careledger.fhir.facts import Facts
from careledger.fhir.reading import Issue
from careledger.fhir.references import Index
from careledger.fhir.sensitivity import CLOSING_ORDER, most_closed

_SPREADING_TYPES = frozenset(
    {"Condition", "Procedure", "Observation", "DiagnosticReport", "MedicationRequest", "CarePlan", "Medication"}
)
"""What makes a resource that refers to it sensitive too. Medication, since a prescription may name its drug only so."""

_UNMOVED_TYPES = frozenset({"Patient"}) | TRAVELLING_TYPES
_KEPT_OPEN_IN_ENCOUNTER = frozenset({"AllergyIntolerance"})


class Filing:
    """The references of a file resolved once: `refers[i]` and `encounter[i]` for each entry."""

    def __init__(self, entries: Sequence[Facts], index: Index, support: Index) -> None:
        self.entries = entries
        self.index = index
        self._support = support
        self.refers: dict[Facts, list[Facts]] = {}
        self.encounter: dict[Facts, Facts] = {}
        self._travelling: dict[Facts, list[Facts]] = {}
        for facts in entries:
            self._resolve(facts)
            if facts.resource_type == "Encounter":
                self.encounter[facts] = facts
            elif facts.encounter is not None:
                found = index.find_reference(facts.encounter, facts.base, resource_type="Encounter")
                if found is not None and found.resource_type == "Encounter":
                    self.encounter[facts] = found

    def _resolve(self, facts: Facts) -> None:
        found: list[Facts] = []
        for url in facts.references:
            target = self.index.find(url, facts.base) or self._support.find(url, facts.base)
            if target is not None:
                found.append(target)
        self.refers[facts] = found
        self._travelling[facts] = [target for target in found if target.resource_type in TRAVELLING_TYPES]

    def travelling(self, facts: Facts) -> list[Facts]:
        """The travelling resources that one refers to itself, in this file or in the support files."""
        if facts not in self._travelling:
            self._resolve(facts)
        return list(self._travelling[facts])

    def file(self, *, default: str = "") -> None:
        """Set every entry's `compartment`; travelling types get one only by a sensitive mark of their own."""
        for facts in self.entries:
            _warn_about_type(facts)
            facts.compartment = facts.kind or _by_type(facts, default)
        for facts in self.entries:
            if not facts.kind and facts.targets:
                self._by_targets(facts)
        self._binaries_by_what_links_to_them()
        self._spread()
        if self._close_by_words():
            self._spread()

    def _by_targets(self, facts: Facts) -> None:
        targets = [f for url in facts.targets if (f := self.index.find(url, facts.base)) is not None]
        compartments = [target.compartment for target in targets if target.resource_type not in TRAVELLING_TYPES]
        if compartments:
            facts.compartment = most_closed(compartments) or compartments[0]

    def _binaries_by_what_links_to_them(self) -> None:
        for facts in self.entries:
            for url in facts.links:
                binary = self.index.find(url, facts.base)
                if binary is not None and binary.resource_type == "Binary" and not binary.targets and not binary.kind:
                    binary.compartment = facts.compartment
                    self.refers[binary] = [*self.refers[binary], facts]
                    if facts in self.encounter:
                        self.encounter.setdefault(binary, self.encounter[facts])

    def _close_by_words(self) -> bool:
        """Words come last: where a code, a reference or the visit has already said more, they add nothing."""
        moved = False
        for facts in self.entries:
            if facts.word_kind and facts.compartment not in SENSITIVE_SET and facts.resource_type not in _UNMOVED_TYPES:
                facts.compartment = facts.word_kind
                moved = True
        return moved

    def _spread(self) -> None:
        while self._spread_once():
            pass

    def _spread_once(self) -> bool:
        moved = False
        for facts in self.entries:
            if facts.compartment in SENSITIVE_SET or facts.resource_type in _UNMOVED_TYPES:
                continue
            kinds = {f.compartment for f in self.refers[facts] if self._spreads(f, facts)}
            encounter = self.encounter.get(facts)
            if encounter is not None and facts.resource_type not in _KEPT_OPEN_IN_ENCOUNTER:
                kinds.add(encounter.compartment)
            kind = most_closed(kinds)
            if kind:
                facts.compartment = kind
                moved = True
        return moved

    def _spreads(self, target: Facts, facts: Facts) -> bool:
        return target.resource_type in _SPREADING_TYPES or (
            facts.resource_type in ("Provenance", "Binary") and target.resource_type not in TRAVELLING_TYPES
        )

    def is_bare(self, facts: Facts) -> bool:
        """An ordinary resource of a sensitive encounter: its record tells nothing of the visit, takes nobody along."""
        encounter = self.encounter.get(facts)
        return (
            encounter is not None and encounter.compartment in SENSITIVE_SET and facts.compartment not in SENSITIVE_SET
        )


def _by_type(facts: Facts, default: str) -> str:
    name = facts.resource_type
    if name in TRAVELLING_TYPES:
        return ""
    category = CATEGORY_OF_TYPE.get(name, "private")
    if name == "Consent" and facts.note == "adr":
        category = "warnings"
    elif name == "DiagnosticReport" and facts.note:
        category = "private" if facts.note == "GE" else "documents"
    if default and category not in CLOSING_ORDER and name != "Patient":
        return default
    return category


def _warn_about_type(facts: Facts) -> None:
    name = facts.resource_type
    if name in NOT_CLINICAL_TYPES:
        facts.warnings.append(Issue("warning", name, "not-clinical", "is a definition, not care: kept in private"))
