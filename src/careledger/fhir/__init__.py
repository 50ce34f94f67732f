"""FHIR R4 in and out: parsing, validation, categorising, grouping into records; export."""

from careledger.fhir.categories import CATEGORIES, CATEGORY_TABLE_VERSION, EMERGENCY_SET, SENSITIVE_SET, Category
from careledger.fhir.demo import demo_patients, demo_spellings
from careledger.fhir.export import export_bundle
from careledger.fhir.folder import FileOutcome, read_folder
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
from careledger.fhir.strings import long_strings
from careledger.fhir.validation import check

__all__ = [
    "CATEGORIES",
    "CATEGORY_TABLE_VERSION",
    "EMERGENCY_SET",
    "SENSITIVE_SET",
    "Category",
    "Counts",
    "FileOutcome",
    "FileReading",
    "Issue",
    "PatientIdentity",
    "ReadOptions",
    "RecordDraft",
    "Report",
    "ReportRow",
    "check",
    "demo_patients",
    "demo_spellings",
    "export_bundle",
    "long_strings",
    "read_file",
    "read_folder",
    "refuse_other_person",
    "resource_key",
]
