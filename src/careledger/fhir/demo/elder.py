"""Haruko, 83, no device: twelve medicines, a pacemaker, an emergency card; HIV is labelled and stays closed."""

from __future__ import annotations

from careledger.fhir.demo.building import (
    TERMINOLOGY,
    Json,
    Story,
    attachment,
    concept,
    labels,
    loinc,
    pdf,
    quantity,
    rxnorm,
    snomed,
)
from careledger.fhir.sensitivity import ACT_CODE, RXNORM

_PDF_BYTES = 300_000
_MEDICINES = (
    ("warfarin", "855332", "Warfarin Sodium 5 MG Oral Tablet"),
    ("digoxin", "197604", "Digoxin 0.125 MG Oral Tablet"),
    ("metoprolol", "866414", "24 HR metoprolol succinate 100 MG Extended Release Oral Tablet"),
    ("galantamine", "310436", "Galantamine 4 MG Oral Tablet"),
    ("alendronic", "904419", "Alendronic acid 10 MG Oral Tablet"),
    ("aspirin", "243670", "Aspirin 81 MG Oral Tablet"),
    ("amlodipine", "197361", "Amlodipine 5 MG Oral Tablet"),
    ("simvastatin", "312961", "Simvastatin 20 MG Oral Tablet"),
    ("acetaminophen", "313782", "Acetaminophen 325 MG Oral Tablet"),
    ("b12", "2001499", "Vitamin B 12 5 MG/ML Injectable Solution"),
    ("furosemide", "315971", "Furosemide 40 MG Oral Tablet"),
)


def elder() -> Story:
    """The whole story, Patient first."""
    story = Story("elder")
    _people(story)
    stay = _stay(story)
    _problems(story, stay)
    _results(story, stay)
    medicines = {key: story.medicine(key, rxnorm(code, name), "2025-03-12", stay) for key, code, name in _MEDICINES}
    _warnings(story, medicines)
    story.vaccination("vaccine-121", "121", "Zoster, live", "2018-10-02")
    story.vaccination("vaccine-140", "140", "Influenza, seasonal, injectable, preservative free", "2025-10-09")
    _documents(story, stay)
    _closed(story)
    return story


def _people(story: Story) -> None:
    story.add(
        "Patient", "patient",
        identifier=[{"system": "https://hospital-b.example/mrn", "value": "B-778-1942"}],
        name=[{"use": "official", "family": "Nakagawa", "given": ["Haruko"]},
              {"use": "usual", "text": "中川 春子 𠮷"}],
        gender="female", birthDate="1942-05-17",
        contact=[{"name": {"family": "Nakagawa-Weiss", "given": ["Emi"]},
                  "telecom": [{"system": "phone", "value": "+49 170 5550 0188"}]}],
    )  # fmt: skip
    story.add(
        "RelatedPerson", "daughter", active=True, patient=story.patient,
        relationship=[concept(f"{TERMINOLOGY}/v3-RoleCode", "DAU", "natural daughter")],
        name=[{"family": "Nakagawa-Weiss", "given": ["Emi"]}],
    )  # fmt: skip
    story.add("Organization", "hospital", active=True, name="Sankt-Anna-Krankenhaus (Hospital B)")
    story.add("Location", "ward", status="active", name="Kardiologie, Station 4 Ost",
              managingOrganization={"reference": story.url("hospital")})  # fmt: skip
    story.add("Practitioner", "cardiologist", active=True, name=[{"family": "Ünal-Gerhardt", "given": ["Mehmet"]}])
    story.add("Practitioner", "infectiologist", active=True, name=[{"family": "Dlamini", "given": ["Thandeka"]}])
    story.add(
        "CareTeam", "team", status="active", subject=story.patient, name="Zuhause mit Pflegedienst",
        participant=[{"member": {"reference": story.url("daughter")}},
                     {"member": {"reference": story.url("cardiologist")}}],
    )  # fmt: skip


def _stay(story: Story) -> Json:
    return story.visit(
        "stay", snomed("183452005", "Encounter Inpatient"), "2025-03-05T16:40:00+01:00", "2025-03-12T11:00:00+01:00",
        class_="IMP", participant=[{"individual": {"reference": story.url("cardiologist")}}],
        location=[{"location": {"reference": story.url("ward")}}],
        serviceProvider={"reference": story.url("hospital")},
    )  # fmt: skip


def _problems(story: Story, stay: Json) -> None:
    for key, code, display in (
        ("fibrillation", "49436004", "Atrial Fibrillation"),
        ("heart-failure", "88805009", "Chronic congestive heart failure (disorder)"),
        ("alzheimer", "26929004", "Alzheimer's disease (disorder)"),
        ("osteoporosis", "64859006", "Osteoporosis (disorder)"),
    ):
        story.condition(key, snomed(code, display), "2017", stay)


def _results(story: Story, stay: Json) -> None:
    story.observation(
        "lvef", loinc("10230-1", "Left ventricular Ejection fraction"), "2025-03-06", stay, kind="imaging",
        valueQuantity=quantity("38", "%"),
    )  # fmt: skip
    story.observation("bnp", loinc("33762-6", "NT-proBNP"), "2025-03-06", stay, valueQuantity=quantity("2410", "pg/mL"))
    story.observation(
        "mmse", loinc("72106-8", "Total score [MMSE]"), "2025-03-10", stay, kind="survey",
        valueQuantity=quantity("19", "{score}"),
    )  # fmt: skip
    story.observation("inr", loinc("6301-6", "INR in Platelet poor plasma"), "2025-03-11", stay,
                      valueQuantity=quantity("1.50", "{INR}"))  # fmt: skip
    story.observation(
        "troponin", loinc("67151-1", "Troponin T.cardiac [Mass/volume] by High sensitivity method"), "2025-03-05",
        stay, valueQuantity=quantity("14", "ng/L", comparator="<"),
        contained=[{"resourceType": "Specimen", "id": "blood", "type": {"text": "Venous blood"}}],
        specimen={"reference": "#blood"},
    )  # fmt: skip


def _warnings(story: Story, medicines: dict[str, Json]) -> None:
    story.add(
        "AllergyIntolerance", "penicillin",
        clinicalStatus={"coding": [{"system": f"{TERMINOLOGY}/allergyintolerance-clinical", "code": "active"}]},
        criticality="high", code=snomed("91936005", "Allergy to penicillin"), patient=story.patient,
        recordedDate="1988",
    )  # fmt: skip
    pacemaker = story.add(
        "Device", "pacemaker", status="active", type=snomed("14106009", "Cardiac pacemaker, device"),
        patient=story.patient, serialNumber="PM-20190611-07",
    )  # fmt: skip
    story.add(
        "DeviceUseStatement", "pacemaker-use", status="active", subject=story.patient, device=pacemaker,
        timingPeriod={"start": "2019-06-11"},
    )  # fmt: skip
    story.add(
        "DetectedIssue", "interaction", status="final",
        code=concept(ACT_CODE, "DRG", "Drug Interaction Alert"), severity="high", patient=story.patient,
        identifiedDateTime="2025-03-12", implicated=[medicines["warfarin"], medicines["aspirin"]],
        detail="Warfarin together with aspirin: higher risk of bleeding",
    )  # fmt: skip
    story.add(
        "Flag", "falls", status="active", code={"text": "Fall risk: needs a second person on stairs"},
        subject=story.patient, period={"start": "2025-03-12"},
    )  # fmt: skip
    story.add(
        "Consent", "directive", status="active",
        scope=concept(f"{TERMINOLOGY}/consentscope", "adr", "Advance Care Directive"),
        category=[loinc("42348-3", "Advance directives")], patient=story.patient, dateTime="2023-01-30",
        policyRule={"text": "No resuscitation, comfort care"},
    )  # fmt: skip


def _documents(story: Story, stay: Json) -> None:
    letter = pdf("Discharge summary", size=_PDF_BYTES)
    story.add(
        "DocumentReference", "discharge", status="current", type=loinc("18842-5", "Discharge summary"),
        subject=story.patient, date="2025-03-12T10:00:00+01:00", context={"encounter": [stay]},
        content=[{"attachment": attachment("application/pdf", "Entlassungsbrief Kardiologie", letter)}],
    )  # fmt: skip
    story.add(
        "ImagingStudy", "echo", status="available", subject=story.patient, encounter=stay, started="2025-03-06",
        description="Transthorakale Echokardiographie",
        series=[{"uid": "1.2.826.0.1.3680043.8.498.1", "modality":
                 {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "US"}}],
    )  # fmt: skip


def _closed(story: Story) -> None:
    """HIV: one part labelled, one found by code, one by its drug, one by the bill that refers to it."""
    day = "2025-06-18"
    visit = story.visit(
        "infectiology", snomed("390906007", "Follow-up encounter"), f"{day}T08:30:00+02:00", f"{day}T09:00:00+02:00",
        participant=[{"individual": {"reference": story.url("infectiologist")}}],
        serviceProvider={"reference": story.url("hospital")},
    )  # fmt: skip
    condition = story.condition(
        "hiv", snomed("86406008", "Human immunodeficiency virus infection"), "1996", meta=labels("R", "HIV")
    )
    story.observation(
        "viral-load", loinc("25836-8", "HIV 1 RNA [#/volume] in Plasma by Probe and amplification"), day, visit,
        valueQuantity=quantity("20", "{copies}/mL", comparator="<"),
    )  # fmt: skip
    drug = {"coding": [{"system": RXNORM, "code": "1747692"}], "text": "Antiretroviral combination tablet"}
    story.medicine("antiretroviral", drug, day, visit)
    story.add(
        "Claim", "claim", status="active", type={"text": "professional"}, use="claim", patient=story.patient,
        created="2025-06-20", provider={"reference": story.url("hospital")},
        priority={"coding": [{"system": f"{TERMINOLOGY}/processpriority", "code": "normal"}]},
        insurance=[{"sequence": 1, "focal": True, "coverage": {"display": "Krankenkasse Beispiel"}}],
        diagnosis=[{"sequence": 1, "diagnosisReference": condition}],
        item=[{"sequence": 1, "productOrService": {"text": "Laboratory control"}, "encounter": [visit]}],
    )  # fmt: skip
