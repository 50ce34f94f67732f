"""Noah, 6, with two guardians: asthma, a peanut allergy, growth, vaccinations, and a carrier finding kept private."""

from __future__ import annotations

from careledger.fhir.demo.building import (
    TERMINOLOGY,
    Json,
    Story,
    attachment,
    labels,
    loinc,
    pdf,
    quantity,
    rxnorm,
    snomed,
)

_GROWTH = (
    # day, length in cm, weight in kg
    ("2019-11-20", "51.0", "3.4"),
    ("2020-02-20", "61.5", "6.1"),
    ("2020-05-22", "67.0", "7.6"),
    ("2020-11-23", "75.5", "9.4"),
    ("2021-05-20", "81.0", "10.8"),
    ("2021-11-22", "87.5", "12.2"),
    ("2022-11-21", "96.0", "14.5"),
    ("2023-11-20", "103.5", "16.6"),
    ("2024-11-18", "110.0", "18.9"),
    ("2025-11-17", "116.5", "21.3"),
)
_VACCINES = (
    ("08", "Hep B, adolescent or pediatric", "2019-11-21"),
    ("119", "Rotavirus, monovalent", "2020-01-20"),
    ("20", "DTaP", "2020-01-20"),
    ("49", "Hib (PRP-OMP)", "2020-01-20"),
    ("10", "IPV", "2020-01-20"),
    ("133", "Pneumococcal conjugate PCV 13", "2020-01-20"),
    ("03", "MMR", "2020-11-23"),
    ("21", "Varicella", "2020-11-23"),
)


def child() -> Story:
    """The whole story, Patient first."""
    story = Story("child")
    _family(story)
    visits = [_visit(story, number, *row) for number, row in enumerate(_GROWTH, 1)]
    _care(story, visits)
    for code, display, day in _VACCINES:
        story.vaccination(f"vaccine-{code}", code, display, day)
    story.vaccination(
        "vaccine-refused", "140", "Influenza, seasonal, injectable, preservative free", "2023-11-20",
        status="not-done", statusReason=snomed("443390004", "Refused"),
    )  # fmt: skip
    story.observation(
        "carrier", {"text": "Newborn genetic finding, carrier status"}, "2019-12-02",
        meta=labels("R", "GDIS"), valueString="Carrier of one altered copy; no disease expected",
    )  # fmt: skip
    return story


def _family(story: Story) -> None:
    precise = "http://hl7.org/fhir/StructureDefinition/patient-birthTime"
    story.add(
        "Patient", "patient",
        identifier=[{"system": "https://clinic-a.example/mrn", "value": "A-2019-0611"}],
        name=[{"use": "official", "family": "Kovács-Møller", "given": ["Noah"]}],
        gender="male", birthDate="2019-11-20",
        _birthDate={"extension": [{"url": precise, "valueDateTime": "2019-11-20T04:12:00+01:00"}]},
    )  # fmt: skip
    for key, code, display, given, gender in (
        ("mother", "MTH", "mother", "Eszter", "female"),
        ("father", "FTH", "father", "Søren", "male"),
    ):
        story.add(
            "RelatedPerson", key, active=True, patient=story.patient,
            relationship=[{"coding": [{"system": f"{TERMINOLOGY}/v3-RoleCode", "code": code, "display": display}]}],
            name=[{"family": "Kovács-Møller", "given": [given]}], gender=gender,
        )  # fmt: skip
    story.add("Organization", "clinic", active=True, name="Kinderpraxis am Deich (Clinic C)")
    story.add("Practitioner", "paediatrician", active=True, name=[{"family": "Brønsted", "given": ["Ingrid"]}])


def _visit(story: Story, number: int, day: str, length: str, weight: str) -> Json:
    visit = story.visit(
        f"visit-{number}", snomed("410620009", "Well child visit (procedure)"),
        f"{day}T10:00:00+01:00", f"{day}T10:20:00+01:00",
        participant=[{"individual": {"reference": story.url("paediatrician")}}],
        serviceProvider={"reference": story.url("clinic")},
    )  # fmt: skip
    for key, code, display, value, unit in (
        ("height", "8302-2", "Body Height", length, "cm"),
        ("weight", "29463-7", "Body Weight", weight, "kg"),
    ):
        story.observation(
            f"{key}-{number}", loinc(code, display), day, visit, kind="vital-signs",
            valueQuantity=quantity(value, unit),
        )  # fmt: skip
    if number <= 4:
        story.observation(
            f"head-{number}", loinc("9843-4", "Head Occipital-frontal circumference"), day, visit, kind="vital-signs",
            valueQuantity=quantity(str(33 + 3 * number), "cm"),
        )  # fmt: skip
    return visit


def _care(story: Story, visits: list[Json]) -> None:
    story.condition("asthma", snomed("233678006", "Childhood asthma"), "2022-11-21", visits[6])
    story.condition("otitis", snomed("65363002", "Otitis media"), "2021-05-20", visits[4])
    story.add(
        "AllergyIntolerance", "peanut",
        clinicalStatus={"coding": [{"system": f"{TERMINOLOGY}/allergyintolerance-clinical", "code": "active"}]},
        criticality="high", code=snomed("91935009", "Allergy to peanuts"), patient=story.patient,
        recordedDate="2022-03-08", reaction=[{"manifestation": [snomed("39579001", "Anaphylaxis")]}],
    )  # fmt: skip
    for key, code, display, index in (
        ("albuterol", "745679", "200 ACTUAT Albuterol 0.09 MG/ACTUAT Metered Dose Inhaler", 6),
        ("fluticasone", "895994", "120 ACTUAT Fluticasone propionate 0.044 MG/ACTUAT Metered Dose Inhaler", 7),
        ("epinephrine", "1870230", "0.3 ML Epinephrine 1 MG/ML Auto-Injector", 7),
    ):
        story.medicine(key, rxnorm(code, display), _GROWTH[index][0], visits[index])
    story.add(
        "CarePlan", "plan", status="active", intent="plan", subject=story.patient, encounter=visits[7],
        category=[snomed("699728000", "Asthma self management")], addresses=[{"reference": story.url("asthma")}],
        activity=[{"detail": {"status": "in-progress", "description": "Two puffs before sport, with a spacer"}}],
    )  # fmt: skip
    story.add(
        "DocumentReference", "screening", status="current", type=loinc("57128-1", "Newborn Screening Report"),
        subject=story.patient, date="2019-11-25T08:00:00+01:00", context={"encounter": [visits[0]]},
        content=[{"attachment": attachment("application/pdf", "Newborn screening", pdf("Newborn screening"))}],
    )  # fmt: skip
