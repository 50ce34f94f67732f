"""Histories in the shape of Synthea's for measuring imports: the same mix, sizes and references, made from a number.

The bytes depend on the number alone, so that two machines import the same. Mix and mean sizes follow the fifty
bundles of Synthea that the project tests with: 290 resources a person of 3.7 kB as indented JSON, half of them
Observations, the most bytes in ExplanationOfBenefit; about three resources in a record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from careledger.fhir.demo.building import Story, concept, loinc, quantity, rxnorm, snomed

__all__ = ["VISITS", "history"]

VISITS = 27
"""Encounters of one person; each brings about eleven resources."""

_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
_NAMES = ("Adler", "Birk", "Clausen", "Dorn", "Ebner", "Falk", "Gruber", "Hartl", "Immel", "Jansen")
_GIVEN = ("Anna", "Bela", "Cora", "Davi", "Elin", "Fjodor", "Gesa", "Hugo", "Ida", "Jonas")
_VITALS = (
    ("8302-2", "Body Height", "cm", 150, 50),
    ("29463-7", "Body Weight", "kg", 50, 60),
    ("8867-4", "Heart rate", "/min", 55, 60),
    ("9279-1", "Respiratory rate", "/min", 11, 9),
    ("2339-0", "Glucose [Mass/volume] in Blood", "mg/dL", 65, 70),
    ("6299-2", "Urea nitrogen [Mass/volume] in Blood", "mg/dL", 7, 13),
    ("38483-4", "Creatinine [Mass/volume] in Blood", "mg/dL", 0, 3),
    ("2947-0", "Sodium [Moles/volume] in Blood", "mmol/L", 134, 10),
    ("6298-4", "Potassium [Moles/volume] in Blood", "mmol/L", 3, 2),
    ("2085-9", "Cholesterol in HDL [Mass/volume] in Serum or Plasma", "mg/dL", 30, 50),
)
_PROBLEMS = (("195662009", "Acute viral pharyngitis (disorder)"), ("10509002", "Acute bronchitis (disorder)"))
_ACTS = (("430193006", "Medication Reconciliation (procedure)"), ("710824005", "Assessment of health and social needs"))
_ITEMS = ("General examination of patient (procedure)", "Laboratory panel", "Medication", "Immunization", "Report")


class _Numbers:
    """Digits that follow from a seed: SHA-256 in counter mode, so that no Python version changes them."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._count = 0

    def below(self, bound: int) -> int:
        self._count += 1
        digest = hashlib.sha256(f"{self._seed}/{self._count}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % bound


def history(number: int, *, visits: int = VISITS) -> tuple[str, bytes]:
    """(File name, bytes) of the transaction bundle of person `number`, indented as Synthea writes it."""
    below = _Numbers(f"careledger bench/{number}").below
    story = Story(f"bench-{number}")
    family, given = _NAMES[number % 10], _GIVEN[number // 10 % 10]
    story.add(
        "Patient", "patient",
        name=[{"use": "official", "family": f"{family}{number}", "given": [given]}],
        identifier=[{"system": "urn:careledger:bench", "value": f"bench-{number:06}"}],
        gender="female" if number % 2 else "male", birthDate=f"{1940 + below(70)}-0{1 + below(9)}-1{below(10)}",
        address=[{"line": [f"{1 + below(199)} {_NAMES[below(10)]} street"], "city": "Springfield", "country": "US"}],
        communication=[{"language": concept("urn:ietf:bcp:47", "en-US", "English")}],
    )  # fmt: skip
    doctor = story.add("Practitioner", "doctor", active=True, name=[{"family": _NAMES[below(10)], "prefix": ["Dr."]}])
    clinic = story.add(
        "Organization", "clinic", active=True, name="Springfield general practice",
        telecom=[{"system": "phone", "value": "5551234567"}],
    )  # fmt: skip
    for at in range(visits):
        _visit(story, at, below, doctor, clinic)
    return f"bench-{number}.json", _bundle(story)


def _visit(story: Story, at: int, below: Callable[[int], int], doctor: Any, clinic: Any) -> None:
    day = f"{1995 + at}-0{1 + below(9)}-{10 + below(18)}"
    hour = 8 + below(10)
    start, end = f"{day}T{hour:02}:05:{below(50) + 10}+01:00", f"{day}T{hour:02}:35:00+01:00"
    seen = story.visit(
        f"visit-{at}", snomed("162673000", "General examination of patient (procedure)"), start, end,
        participant=[{"individual": {**doctor, "display": "Dr. Example"}, "period": {"start": start, "end": end}}],
        serviceProvider={**clinic, "display": "Springfield general practice"},
    )  # fmt: skip
    results = []
    for n in range(7 + below(3) if at % 5 < 3 else 0):
        code, name, unit, low, span = _VITALS[(at + n) % len(_VITALS)]
        value = f"{low + below(span)}.{below(10_000_000_000):010}"
        kind = "vital-signs" if (at + n) % len(_VITALS) < 4 else "laboratory"
        results.append(
            story.observation(
                f"value-{at}-{n}",
                loinc(code, name),
                start,
                seen,
                kind=kind,
                issued=start,
                valueQuantity=quantity(value, unit),
            )
        )
    if results and at % 2 == 0:
        story.add(
            "DiagnosticReport", f"report-{at}", status="final", code=loinc("51990-0", "Basic Metabolic Panel"),
            category=[concept(f"{_TERMINOLOGY}/v2-0074", "LAB", "Laboratory")], subject=story.patient, encounter=seen,
            effectiveDateTime=start, issued=start, performer=[doctor], result=results,
        )  # fmt: skip
    if at % 4 == 0:
        code, name = _PROBLEMS[below(2)]
        story.condition(f"problem-{at}", snomed(code, name), start, seen, recordedDate=start)
        story.medicine(
            f"medicine-{at}", rxnorm("313782", "Acetaminophen 325 MG Oral Tablet"), start, seen, requester=doctor
        )
    for n in range(2 if at % 4 == 1 else 0):
        story.vaccination(f"shot-{at}-{n}", "140", "Influenza, seasonal, injectable, preservative free", start)
    for n in range(2 if at % 5 in {1, 3} else 0):
        code, name = _ACTS[below(2)]
        story.add(
            "Procedure", f"act-{at}-{n}", status="completed", code=snomed(code, name), subject=story.patient,
            encounter=seen, performedPeriod={"start": start, "end": end},
        )  # fmt: skip
    _bills(story, at, below, seen, doctor, clinic, start, end)


def _bills(  # noqa: PLR0917
    story: Story, at: int, below: Callable[[int], int], seen: Any, doctor: Any, clinic: Any, start: str, end: str
) -> None:
    """A claim and the explanation of its benefits: the largest resources of any Synthea history."""
    period = {"start": start, "end": end}
    shared = {
        "status": "active",
        "type_": concept(f"{_TERMINOLOGY}/claim-type", "professional", "Professional"),
        "use": "claim",
        "patient": story.patient,
        "billablePeriod": period,
        "created": end,
        "provider": doctor,
    }
    cover = {"focal": True, "coverage": {"display": "Springfield health plan"}}
    lines = [
        {
            "sequence": n + 1,
            "productOrService": snomed("162673000", name),
            "encounter": [seen],
            "net": {"value": quantity(f"{50 + below(900)}.{below(100):02}", "USD")["value"], "currency": "USD"},
        }
        for n, name in enumerate(_ITEMS[: 2 + below(3)])
    ]
    priority = concept(f"{_TERMINOLOGY}/processpriority", "normal", "Normal")
    claim = story.add(
        "Claim",
        f"claim-{at}",
        **shared,
        insurance=[{"sequence": 1, **cover}],
        priority=priority,
        facility=clinic,
        item=lines,
    )
    told = [
        {**{name: value for name, value in line.items() if name != "net"}, "category": priority,
         "servicedPeriod": period, "adjudication": [_amount(kind, below) for kind in _KINDS]}
        for line in lines
    ]  # fmt: skip
    story.add(
        "ExplanationOfBenefit", f"benefit-{at}", **shared, insurance=[cover], insurer=cover["coverage"],
        outcome="complete", claim=claim, item=told,
        payment={"amount": {"value": quantity(f"{below(900)}.{below(100):02}", "USD")["value"], "currency": "USD"}},
    )  # fmt: skip


_KINDS = (
    ("line_coinsurance_amount", "Line Beneficiary Coinsurance Amount"),
    ("line_processing_indicator_code", "Line Processing Indicator Code"),
    ("line_submitted_charge_amount", "Line Submitted Charge Amount"),
    ("line_allowed_charge_amount", "Line Allowed Charge Amount"),
    ("line_provider_payment_amount", "Line Provider Payment Amount"),
    ("line_beneficiary_part_b_deductible", "Line Beneficiary Part B Deductible Amount"),
)


def _amount(kind: tuple[str, str], below: Callable[[int], int]) -> dict[str, Any]:
    value = quantity(f"{below(900)}.{below(100):02}", "USD")["value"]
    category = concept("https://bluebutton.cms.gov/resources/codesystem/adjudication", *kind)
    return {"category": category, "amount": {"value": value, "currency": "USD"}}


def _bundle(story: Story) -> bytes:
    entries = [
        b'{"fullUrl":"%s","resource":%s,"request":{"method":"POST","url":"%s"}}'
        % (url.encode(), data, resource["resourceType"].encode())
        for (url, data), (_, resource) in zip(story.resources(), story.entries, strict=True)
    ]
    whole = b'{"resourceType":"Bundle","type":"transaction","entry":[%s]}' % b",".join(entries)
    return msgspec.json.format(whole, indent=2)
