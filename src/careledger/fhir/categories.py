"""The fourteen compartments and where each R4 resource type goes when nothing about it is sensitive.

One table for the whole project (fhir.md section 1): 148 R4 types, of which Resource and DomainResource are abstract.
What is not named here is not understood and lands in `private`. Changing a row needs a new `CATEGORY_TABLE_VERSION`,
since records carry the version that filed them.
"""

from __future__ import annotations

import msgspec

CATEGORY_TABLE_VERSION = 1


class Category(msgspec.Struct, frozen=True):
    """One compartment: its id, plain words for people, and whether it is open in an emergency or closed by default."""

    id: str
    words: str
    emergency: bool = False
    sensitive: bool = False


CATEGORIES = (
    Category("about", "About me", emergency=True),
    Category("warnings", "Allergies and warnings (implants, alerts, advance directives)", emergency=True),
    Category("conditions", "Health problems", emergency=True),
    Category("medicines", "Medicines", emergency=True),
    Category("vaccinations", "Vaccinations"),
    Category("results", "Tests and measurements"),
    Category("procedures", "Operations and procedures"),
    Category("visits", "Visits and plans"),
    Category("documents", "Documents and images"),
    Category("bills", "Insurance and bills"),
    Category("mental", "Mental health", sensitive=True),
    Category("sexual", "Sexual and reproductive health", sensitive=True),
    Category("substance", "Alcohol and drugs", sensitive=True),
    Category(
        "private",
        "Kept private: genes, family, violence, research, anything marked restricted or not recognised",
        sensitive=True,
    ),
)

CATEGORY_IDS = tuple(category.id for category in CATEGORIES)
EMERGENCY_SET = frozenset(category.id for category in CATEGORIES if category.emergency)
SENSITIVE_SET = frozenset(category.id for category in CATEGORIES if category.sensitive)

_BY_CATEGORY = {
    "about": "Patient RelatedPerson Person",
    "warnings": "AllergyIntolerance AdverseEvent DetectedIssue Flag Device DeviceUseStatement",
    "conditions": "Condition ClinicalImpression RiskAssessment",
    "medicines": "MedicationRequest MedicationStatement MedicationDispense MedicationAdministration",
    "vaccinations": "Immunization ImmunizationEvaluation ImmunizationRecommendation",
    "results": "Observation DiagnosticReport Specimen DeviceMetric",
    "procedures": "Procedure BodyStructure SupplyDelivery BiologicallyDerivedProduct",
    "visits": "Encounter EpisodeOfCare Appointment AppointmentResponse CarePlan CareTeam Goal ServiceRequest "
    "RequestGroup DeviceRequest SupplyRequest NutritionOrder VisionPrescription Task Communication "
    "CommunicationRequest GuidanceResponse",
    "documents": "Composition DocumentReference DocumentManifest ImagingStudy Media Binary List QuestionnaireResponse "
    "Bundle",
    "bills": "Account Claim ClaimResponse ExplanationOfBenefit Coverage CoverageEligibilityRequest "
    "CoverageEligibilityResponse EnrollmentRequest EnrollmentResponse ChargeItem Invoice PaymentNotice "
    "PaymentReconciliation Contract",
    "private": "FamilyMemberHistory MolecularSequence ResearchSubject Consent Basic MeasureReport Linkage "
    "VerificationResult Parameters MessageHeader AuditEvent Subscription OperationOutcome Provenance",
}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


CATEGORY_OF_TYPE = {name: category for category, names in _BY_CATEGORY.items() for name in names.split()}
"""Provenance and Consent stand here with what they are when no rule of `filing` moves them."""

TRAVELLING_TYPES = _names(
    "Practitioner PractitionerRole Organization OrganizationAffiliation Location HealthcareService Endpoint Medication "
    "MedicationKnowledge Substance Schedule Slot InsurancePlan ResearchStudy Group"
)
"""Types without a subject: copied into every record that refers to them."""

NOT_CLINICAL_TYPES = _names(
    "ActivityDefinition CapabilityStatement CatalogEntry ChargeItemDefinition CodeSystem CompartmentDefinition "
    "ConceptMap DeviceDefinition EffectEvidenceSynthesis EventDefinition Evidence EvidenceVariable ExampleScenario "
    "GraphDefinition ImplementationGuide Library Measure MedicinalProduct MedicinalProductAuthorization "
    "MedicinalProductContraindication MedicinalProductIndication MedicinalProductIngredient "
    "MedicinalProductInteraction MedicinalProductManufactured MedicinalProductPackaged "
    "MedicinalProductPharmaceutical MedicinalProductUndesirableEffect MessageDefinition NamingSystem "
    "ObservationDefinition OperationDefinition PlanDefinition Questionnaire ResearchDefinition "
    "ResearchElementDefinition RiskEvidenceSynthesis SearchParameter SpecimenDefinition StructureDefinition "
    "StructureMap SubstanceNucleicAcid SubstancePolymer SubstanceProtein SubstanceReferenceInformation "
    "SubstanceSourceMaterial SubstanceSpecification TerminologyCapabilities TestReport TestScript ValueSet"
)
"""Definitions and administration: kept in `private`, with a warning."""

ABSTRACT_TYPES = frozenset({"Resource", "DomainResource"})

R4_TYPES = frozenset(CATEGORY_OF_TYPE) | TRAVELLING_TYPES | NOT_CLINICAL_TYPES
