"""Is it another version of FHIR? Asked only about entries that are no valid R4: a plain Patient looks alike in all."""

from __future__ import annotations

from typing import Any

_R5_TYPES = frozenset(
    {
        "ActorDefinition",
        "DeviceAssociation",
        "DeviceUsage",
        "EncounterHistory",
        "FormularyItem",
        "GenomicStudy",
        "ImagingSelection",
        "InventoryItem",
        "InventoryReport",
        "NutritionIntake",
        "Permission",
        "Requirements",
        "SubscriptionTopic",
        "TestPlan",
        "Transport",
        "ArtifactAssessment",
        "BiologicallyDerivedProductDispense",
        "ConditionDefinition",
    }
)
_STU3_TYPES = frozenset(
    {
        "ProcedureRequest",
        "ReferralRequest",
        "ProcessRequest",
        "ProcessResponse",
        "EligibilityRequest",
        "EligibilityResponse",
        "ImagingManifest",
        "DeviceComponent",
        "BodySite",
        "Sequence",
        "DataElement",
        "ServiceDefinition",
        "ExpansionProfile",
    }
)
_DSTU2_TYPES = frozenset(
    {
        "MedicationOrder",
        "DiagnosticOrder",
        "ImagingObjectSelection",
        "DeviceUseRequest",
        "Order",
        "OrderResponse",
        "Conformance",
    }
)


def other_version(tree: dict[str, Any]) -> tuple[str, str]:
    """(version, evidence) such as ("R5", "Encounter.class is a list"); ("", "") when nothing speaks for another one."""
    name = tree.get("resourceType")
    if not isinstance(name, str):
        return "", ""
    for version, types in (("R5", _R5_TYPES), ("STU3", _STU3_TYPES), ("DSTU2", _DSTU2_TYPES)):
        if name in types:
            return version, f"{name} is one of its types"
    return _by_element(tree, name) or _by_statement(tree, name) or ("", "")


def _by_element(tree: dict[str, Any], name: str) -> tuple[str, str] | None:
    medication = tree.get("medication")
    reasons = tree.get("reason")
    first = reasons[0] if isinstance(reasons, list) and reasons else None
    if name == "Encounter" and isinstance(tree.get("class"), list):
        return "R5", "Encounter.class is a list"
    if isinstance(medication, dict) and ("concept" in medication or "reference" in medication):
        return "R5", f"{name}.medication has a concept"
    if "triggeredBy" in tree:
        return "R5", f"{name}.triggeredBy"
    if name == "Procedure":
        occurrence = next((key for key in tree if key.startswith("occurrence")), "")
        if occurrence in (
            "occurrenceDateTime",
            "occurrencePeriod",
            "occurrenceString",
            "occurrenceAge",
            "occurrenceRange",
            "occurrenceTiming",
        ):
            return "R5", f"Procedure.{occurrence}"
    if isinstance(tree.get("clinicalStatus"), str):
        return "STU3", f"{name}.clinicalStatus is a string"
    if name == "MedicationStatement" and "taken" in tree:
        return "STU3", "MedicationStatement.taken"
    if name == "DocumentReference" and "indexed" in tree:
        return "STU3", "DocumentReference.indexed"
    if name == "Encounter" and isinstance(first, dict):
        return ("R5", "Encounter.reason has a value") if "value" in first else ("STU3", "Encounter.reason")
    return None


def _by_statement(tree: dict[str, Any], name: str) -> tuple[str, str] | None:
    stated = tree.get("fhirVersion")
    versions = [stated] if isinstance(stated, str) else []
    meta = tree.get("meta")
    profiles = meta.get("profile") if isinstance(meta, dict) else None
    versions += (
        [
            p.rpartition("|")[2]
            for p in profiles or ()
            if isinstance(p, str) and p.startswith("http://hl7.org/fhir/") and "|" in p
        ]
        if isinstance(profiles, list)
        else []
    )
    for version in versions:
        for start, label in (("5.", "R5"), ("3.", "STU3"), ("1.", "DSTU2")):
            if version.startswith(start):
                return label, f"{name} says version {label}"
    return None
