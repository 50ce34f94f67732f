"""Amélie, 54, diabetes: two organisations, a trend, a correction, and one part she keeps to herself."""

from __future__ import annotations

from careledger.fhir.demo.building import (
    TERMINOLOGY,
    Json,
    Story,
    attachment,
    loinc,
    quantity,
    rxnorm,
    snomed,
)

_HBA1C = ("9.1", "8.7", "8.3", "8.0", "7.7", "7.4", "7.2", "7.0", "6.8")
_QUARTERS = tuple(f"{year}-{month}-14" for year in (2023, 2024, 2025) for month in ("02", "06", "10"))
_MONTHS = tuple(f"{year}-{month:02}" for year in (2023, 2024, 2025) for month in range(1, 13))


def adult() -> Story:
    """The whole story, Patient first."""
    story = Story("adult")
    _people(story)
    visits = _checkups(story)
    _problems(story, visits[0])
    _medicines(story, visits)
    _prevention(story)
    _plans(story, visits)
    _bill(story, "checkup", visits[-1], story.url("diabetes"), "2025-10-14")
    _kept_private(story)
    return story


def _people(story: Story) -> None:
    story.add(
        "Patient", "patient",
        identifier=[{"system": "https://clinic-a.example/mrn", "value": "A-0054-1971"}],
        name=[{"use": "official", "family": "Oñate-Lindqvist", "given": ["Amélie", "Þóra"]}],
        telecom=[{"system": "phone", "value": "+32 470 55 01 42", "use": "mobile"}],
        gender="female", birthDate="1971-08-30",
        address=[{"line": ["Rue des Tanneurs 17"], "city": "Liège-sur-Exemple", "postalCode": "4099", "country": "BE"}],
    )  # fmt: skip
    story.add(
        "Organization", "clinic", active=True, name="Clinique du Pont-Neuf (Clinic A)",
        address=[{"line": ["Quai de l’Ourthe 2"], "city": "Liège-sur-Exemple", "country": "BE"}],
    )  # fmt: skip
    story.add("Organization", "hospital", active=True, name="Sankt-Anna-Krankenhaus (Hospital B)")
    story.add(
        "Practitioner", "gp", active=True,
        identifier=[{"system": "https://clinic-a.example/staff", "value": "GP-11"}],
        name=[{"family": "Vandermeersch", "given": ["Joris"], "prefix": ["Dr."]}],
    )  # fmt: skip
    story.add(
        "PractitionerRole", "gp-role", active=True, practitioner={"reference": story.url("gp")},
        organization={"reference": story.url("clinic")}, code=[snomed("62247001", "Family medicine specialist")],
    )  # fmt: skip
    story.add("Practitioner", "psychiatrist", active=True, name=[{"family": "Szymańska-Okafor", "given": ["Halina"]}])


def _checkups(story: Story) -> list[Json]:
    visits = []
    for number, (day, value) in enumerate(zip(_QUARTERS, _HBA1C, strict=True), 1):
        visit = story.visit(
            f"visit-{number}", snomed("185349003", "Encounter for check up (procedure)"),
            f"{day}T09:00:00+01:00", f"{day}T09:25:00+01:00",
            participant=[{"individual": {"reference": story.url("gp-role")}}],
            serviceProvider={"reference": story.url("clinic")},
        )  # fmt: skip
        visits.append(visit)
        limit = {"low": quantity("4.0", "%"), "high": quantity("5.6", "%")}
        story.observation(
            f"hba1c-{number}", loinc("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood"), f"{day}T08:10:00+01:00",
            visit, valueQuantity=quantity(value, "%"), referenceRange=[limit],
        )  # fmt: skip
        weight = str(96 - number)
        story.observation(
            f"weight-{number}", loinc("29463-7", "Body Weight"), day, visit, kind="vital-signs",
            valueQuantity=quantity(f"{weight}.0", "kg"),
        )  # fmt: skip
    _panels(story, visits)
    for month in _MONTHS:
        _blood_pressure(story, month)
    return visits


def _panels(story: Story, visits: list[Json]) -> None:
    panel = (
        ("glucose", "2339-0", "Glucose [Mass/volume] in Blood", "142", "mg/dL"),
        ("creatinine", "38483-4", "Creatinine [Mass/volume] in Blood", "0.9", "mg/dL"),
        ("egfr", "33914-3", "Glomerular filtration rate/1.73 sq M.predicted", "91", "mL/min/{1.73_m2}"),
        ("ldl", "18262-6", "Low Density Lipoprotein Cholesterol", "88", "mg/dL"),
        ("albumin", "14959-1", "Microalbumin/Creatinine [Mass Ratio] in Urine", "24", "mg/g"),
    )
    for number in (1, 5, 9):
        visit, day = visits[number - 1], _QUARTERS[number - 1]
        results = [
            story.observation(
                f"{key}-{number}", loinc(code, display), day, visit, valueQuantity=quantity(value, unit)
            )
            for key, code, display, value, unit in panel
        ]  # fmt: skip
        for key, code, display, members in (
            ("lipids", "57698-3", "Lipid Panel", results[3:4]),
            ("metabolic", "51990-0", "Basic Metabolic Panel", results[:3]),
        ):
            story.add(
                "DiagnosticReport", f"{key}-{number}", status="final", code=loinc(code, display),
                subject=story.patient, encounter=visit, effectiveDateTime=day, result=members,
            )  # fmt: skip
    story.observation(
        "smoking", loinc("72166-2", "Tobacco smoking status NHIS"), _QUARTERS[0], visits[0], kind="social-history",
        valueCodeableConcept=snomed("8517006", "Former smoker"),
    )  # fmt: skip


def _blood_pressure(story: Story, month: str) -> None:
    number = _MONTHS.index(month)
    systolic, diastolic = 152 - number // 2, 94 - number // 3
    story.observation(
        f"pressure-{month}", loinc("85354-9", "Blood Pressure"), f"{month}-03T07:30:00+01:00", kind="vital-signs",
        component=[
            {"code": loinc("8480-6", "Systolic Blood Pressure"),
             "valueQuantity": quantity(str(systolic), "mm[Hg]")},
            {"code": loinc("8462-4", "Diastolic Blood Pressure"),
             "valueQuantity": quantity(str(diastolic), "mm[Hg]")},
        ],
    )  # fmt: skip


def _problems(story: Story, visit: Json) -> None:
    for key, code, display, day in (
        ("diabetes", "44054006", "Diabetes mellitus type 2", "2021-05-04"),
        ("pressure", "38341003", "Hypertension", "2019-03-11"),
        ("lipid", "55822004", "Hyperlipidemia", "2020"),
        ("kidney", "431855005", "Chronic kidney disease stage 1 (disorder)", "2023-02"),
    ):
        story.condition(key, snomed(code, display), day, visit, recorder={"reference": story.url("gp")})
    story.add(
        "AllergyIntolerance", "latex",
        clinicalStatus={"coding": [{"system": f"{TERMINOLOGY}/allergyintolerance-clinical", "code": "active"}]},
        criticality="low", code=snomed("300916003", "Latex allergy"), patient=story.patient,
        recordedDate="2012-04-19",
    )  # fmt: skip


def _medicines(story: Story, visits: list[Json]) -> None:
    gp = {"reference": story.url("gp")}
    story.medicine(
        "metformin", rxnorm("860975", "24 HR Metformin hydrochloride 500 MG Extended Release Oral Tablet"),
        "2023-02-14", visits[0], requester=gp, reasonReference=[{"reference": story.url("diabetes")}],
        dosageInstruction=[{"text": "Une à deux comprimés le soir, avec le repas 🍽"}],
    )  # fmt: skip
    story.medicine(
        "simvastatin", rxnorm("312961", "Simvastatin 20 MG Oral Tablet"), "2023-02-14", visits[0], requester=gp
    )
    earlier = story.medicine(
        "lisinopril-1", rxnorm("314076", "lisinopril 10 MG Oral Tablet"), "2023-02-14", visits[0], requester=gp,
        status="stopped", dosageInstruction=[{"text": "One tablet in the morning"}],
    )  # fmt: skip
    story.medicine(
        "lisinopril-2", rxnorm("314076", "lisinopril 10 MG Oral Tablet"), "2024-06-14", visits[4], requester=gp,
        priorPrescription=earlier, dosageInstruction=[{"text": "Two tablets in the morning"}],
    )  # fmt: skip


def _prevention(story: Story) -> None:
    for code, display, day in (
        ("140", "Influenza, seasonal, injectable, preservative free", "2023-10-14"),
        ("140", "Influenza, seasonal, injectable, preservative free", "2025-10-14"),
        ("33", "Pneumococcal polysaccharide vaccine, 23 valent", "2024-06-14"),
        ("113", "Td (adult), preservative free", "2019-09-02"),
    ):
        story.vaccination(f"vaccine-{code}-{day}", code, display, day)


def _plans(story: Story, visits: list[Json]) -> None:
    goal = story.add(
        "Goal", "goal", lifecycleStatus="active", description={"text": "Hemoglobin A1c below 7 percent"},
        subject=story.patient,
        target=[{"measure": loinc("4548-4", "Hemoglobin A1c"), "detailQuantity": quantity("7", "%", comparator="<")}],
    )  # fmt: skip
    story.add(
        "CarePlan", "plan", status="active", intent="plan", subject=story.patient, encounter=visits[0],
        category=[snomed("698360004", "Diabetes self management plan")], period={"start": "2023-02-14"},
        addresses=[{"reference": story.url("diabetes")}], goal=[goal],
        activity=[{"detail": {"status": "in-progress", "description": "Walk half an hour on five days a week"}}],
    )  # fmt: skip
    note = "Femme de 54 ans. Contrôle glycémique en nette amélioration. Poursuivre le même traitement."
    story.add(
        "DocumentReference", "note", status="current", type=loinc("11506-3", "Progress note"), subject=story.patient,
        date="2025-10-14T09:30:00+01:00", author=[{"reference": story.url("gp")}],
        context={"encounter": [visits[-1]]},
        content=[{"attachment": attachment("text/plain; charset=utf-8", "Note de suivi", note.encode())}],
    )  # fmt: skip


def _bill(story: Story, key: str, visit: Json, diagnosis: str, day: str) -> None:
    organisation = {"reference": story.url("clinic")}
    insurance = [{"sequence": 1, "focal": True, "coverage": {"display": "Mutualité Exemple"}}]
    kind = {"coding": [{"system": f"{TERMINOLOGY}/claim-type", "code": "professional"}]}
    item = {"sequence": 1, "productOrService": {"text": "Consultation"}}
    claim = story.add(
        "Claim", f"claim-{key}", status="active", type=kind, use="claim", patient=story.patient, created=day,
        provider=organisation, insurance=insurance,
        priority={"coding": [{"system": f"{TERMINOLOGY}/processpriority", "code": "normal"}]},
        diagnosis=[{"sequence": 1, "diagnosisReference": {"reference": diagnosis}}],
        item=[{**item, "encounter": [visit]}],
    )  # fmt: skip
    story.add(
        "ExplanationOfBenefit", f"benefit-{key}", status="active", type=kind, use="claim", patient=story.patient,
        created=day, insurer={"display": "Mutualité Exemple"}, provider=organisation, claim=claim,
        outcome="complete", insurance=[{"focal": True, "coverage": {"display": "Mutualité Exemple"}}],
        diagnosis=[{"sequence": 1, "diagnosisReference": {"reference": diagnosis}}],
        item=[{**item, "encounter": [visit]}],
        total=[{"category": {"text": "Submitted"}, "amount": {"value": 62, "currency": "EUR"}}],
    )  # fmt: skip


def _kept_private(story: Story) -> None:
    """Nothing here is labelled: it is found by code, by reference and by the visit."""
    visit = story.visit(
        "psychiatry", snomed("79094001", "Initial psychiatric interview with mental status evaluation"),
        "2024-09-05T14:00:00+02:00", "2024-09-05T15:00:00+02:00",
        participant=[{"individual": {"reference": story.url("psychiatrist")}}],
        serviceProvider={"reference": story.url("hospital")},
    )  # fmt: skip
    trauma = story.condition("trauma", snomed("47505003", "Posttraumatic stress disorder"), "2024-09-05", visit)
    story.medicine(
        "sertraline", rxnorm("328670", "sertraline 100 MG"), "2024-09-05", visit, reasonReference=[trauma],
        requester={"reference": story.url("psychiatrist")},
    )  # fmt: skip
    _bill(story, "psychiatry", visit, story.url("trauma"), "2024-09-06")
