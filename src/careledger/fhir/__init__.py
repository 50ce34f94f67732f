"""FHIR R4 in and out: parsing, validation, categorising, grouping into records; export."""

from careledger.fhir.categories import CATEGORIES, CATEGORY_TABLE_VERSION, EMERGENCY_SET, SENSITIVE_SET, Category
from careledger.fhir.importing import read_file
from careledger.fhir.reading import (
    Counts,
    FileReading,
    Issue,
    PatientIdentity,
    ReadOptions,
    RecordDraft,
    Report,
    ReportRow,
    refuse_other_person,
    resource_key,
)
from careledger.fhir.validation import check

__all__ = [
    "CATEGORIES",
    "CATEGORY_TABLE_VERSION",
    "EMERGENCY_SET",
    "SENSITIVE_SET",
    "Category",
    "Counts",
    "FileReading",
    "Issue",
    "PatientIdentity",
    "ReadOptions",
    "RecordDraft",
    "Report",
    "ReportRow",
    "check",
    "read_file",
    "refuse_other_person",
    "resource_key",
]
