"""Whose file is it? Every spelling of a reference to one Patient is one key; exactly one key is the subject.

fhir.md 2.1. Patients that nobody has as *subject* (a mother by `Patient.link`) are content. An identity is never made
from a file, and two people are never told apart or joined by name.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from careledger.fhir.categories import R4_TYPES
from careledger.fhir.facts import Facts, Reference
from careledger.fhir.reading import PatientIdentity, refusal
from careledger.fhir.references import Index, is_conditional, without_version


class Subject(msgspec.Struct, frozen=True):
    """The person a file is about: the url that references to them use ("" unknown) and what the Patient entry says."""

    url: str
    patient: PatientIdentity | None


def subject_of(entries: Sequence[Facts], index: Index, *, stated: str | None, unit: str) -> Subject:
    """The one subject of the entries. Raises MalformedError `two-patients` or `no-subject`.

    `stated` is what the caller says it is ("" = somebody whose url the file does not show), None when nothing is said.
    """
    keys: dict[str, int] = {}
    seen: set[tuple[str, str, str]] = set()
    for facts in entries:
        for reference in facts.subjects:
            spelling = (reference.url, reference.type, facts.base)
            if spelling in seen and not reference.identifier:
                continue
            seen.add(spelling)
            key, patient = _key(reference, facts, index)
            if key:
                keys.setdefault(key, patient.number if patient else facts.number)
    keys = _merged(keys)
    patients = {_url(facts): facts for facts in entries if facts.resource_type == "Patient" and not facts.older}
    if not keys and (stated is None or len(patients) == 1):
        keys = {url: facts.number for url, facts in patients.items()}
    if len(keys) > 1:
        raise _two(sorted(keys.values()), unit)
    if keys:
        url = next(iter(keys))
        entry = patients.get(url)
        return Subject("" if url.startswith("#") else url, entry.patient if entry else None)
    if stated is None:
        raise refusal(
            "no-subject", "no resource says whose record this is. Give --patient, or import it with the patient's file."
        )
    return Subject(stated, None)


def _two(numbers: list[int], unit: str) -> Exception:
    first, second = numbers[0], numbers[1]
    if first == second:
        return refusal("two-patients", f"speaks of two people ({unit} {first}). Split it by patient.")
    units = "entries" if unit == "entry" else f"{unit}s"
    return refusal("two-patients", f"speaks of two people ({units} {first} and {second}). Split it by patient.")


def _url(patient: Facts) -> str:
    return patient.full_url or (f"Patient/{patient.id}" if patient.id else f"#{patient.number}")


def _key(reference: Reference, facts: Facts, index: Index) -> tuple[str, Facts | None]:
    """The person a subject reference names: the Patient entry's url, else the reference made absolute; else ""."""
    found = index.find_reference(reference, facts.base, resource_type="Patient")
    if found is not None:
        return (_url(found), found) if found.resource_type == "Patient" else ("", None)
    if reference.type not in ("", "Patient"):
        return "", None
    url = without_version(reference.url)
    if url.startswith("#"):
        return "", None
    if not url:
        return f"Patient?identifier={reference.identifier}", None
    if url.startswith("urn:"):
        return url, None
    conditional = is_conditional(url)
    stated_type = url.partition("?")[0] if conditional else url.rstrip("/").rpartition("/")[0].rpartition("/")[2]
    if stated_type != "Patient" and stated_type in R4_TYPES:
        return "", None
    return (f"{facts.base}/{url}" if facts.base and not conditional and "://" not in url else url), None


def _merged(keys: dict[str, int]) -> dict[str, int]:
    """`Patient/23` from an entry without base URL and one absolute `…/Patient/23` are one person."""
    absolute = [key for key in keys if "://" in key]
    for key in [key for key in keys if "://" not in key and key.startswith("Patient/")]:
        same = [other for other in absolute if other.endswith(f"/{key}")]
        if len(same) == 1:
            keys[same[0]] = min(keys[same[0]], keys.pop(key))
    return keys
