"""Building blocks of the demo patients: the same input always gives the same bytes."""

from __future__ import annotations

import base64
import hashlib
import uuid
from decimal import Decimal
from typing import Any, TypeAlias

import msgspec

from careledger.fhir.sensitivity import ACT_CODE, CONFIDENTIALITY, LOINC, RXNORM, SNOMED

Json: TypeAlias = "dict[str, Any]"

CVX = "http://hl7.org/fhir/sid/cvx"
UCUM = "http://unitsofmeasure.org"
ICD10 = "http://hl7.org/fhir/sid/icd-10-cm"
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"

_NAMESPACE = uuid.UUID("6f1c2f0e-7d57-4a3c-9a53-1f3f6f0b7c11")
_encoder = msgspec.json.Encoder(decimal_format="number")


class Story:
    """The resources of one demo patient in the order in which they are told, under `urn:uuid` URLs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entries: list[tuple[str, Json]] = []
        self.subject = self.url("patient")

    def url(self, key: str) -> str:
        return f"urn:uuid:{uuid.uuid5(_NAMESPACE, f'{self.name}/{key}')}"

    def add(self, resource_type: str, key: str, /, **elements: Any) -> Json:
        """Add a resource under the key; returns a reference to it. Elements named with a trailing `_` lose it."""
        url = self.url(key)
        resource = {"resourceType": resource_type, "id": url.removeprefix("urn:uuid:")}
        resource |= {name.removesuffix("_"): value for name, value in elements.items()}
        self.entries.append((url, resource))
        return {"reference": url}

    @property
    def patient(self) -> Json:
        return {"reference": self.subject}

    def observation(self, key: str, code: Json, day: str, visit: Json | None = None, /, **elements: Any) -> Json:
        where = {"encounter": visit} if visit else {}
        kind = elements.pop("kind", "laboratory")
        category = [concept(f"{TERMINOLOGY}/observation-category", kind, kind)]
        return self.add(
            "Observation", key, status="final", category=category, code=code, subject=self.patient, **where,
            effectiveDateTime=day, **elements,
        )  # fmt: skip

    def condition(self, key: str, code: Json, day: str, visit: Json | None = None, /, **elements: Any) -> Json:
        where = {"encounter": visit} if visit else {}
        return self.add(
            "Condition", key,
            clinicalStatus=concept(f"{TERMINOLOGY}/condition-clinical", "active", "Active"),
            verificationStatus=concept(f"{TERMINOLOGY}/condition-ver-status", "confirmed", "Confirmed"),
            code=code, subject=self.patient, **where, onsetDateTime=day, **elements,
        )  # fmt: skip

    def medicine(self, key: str, code: Json, day: str, visit: Json | None = None, /, **elements: Any) -> Json:
        where = {"encounter": visit} if visit else {}
        status = elements.pop("status", "active")
        return self.add(
            "MedicationRequest", key, status=status, intent="order", medicationCodeableConcept=code,
            subject=self.patient, **where, authoredOn=day, **elements,
        )  # fmt: skip

    def vaccination(self, key: str, code: str, display: str, day: str, /, **elements: Any) -> Json:
        status = elements.pop("status", "completed")
        return self.add(
            "Immunization", key, status=status, vaccineCode=concept(CVX, code, display), patient=self.patient,
            occurrenceDateTime=day, primarySource=True, **elements,
        )  # fmt: skip

    def visit(self, key: str, kind: Json, start: str, end: str, /, **elements: Any) -> Json:
        code = elements.pop("class_", "AMB")
        return self.add(
            "Encounter", key, status="finished", class_={"system": ACT_CODE, "code": code}, type_=[kind],
            subject=self.patient, period={"start": start, "end": end}, **elements,
        )  # fmt: skip

    def resources(self) -> list[tuple[str, bytes]]:
        """(fullUrl, compact JSON) of every resource."""
        return [(url, _encoder.encode(resource)) for url, resource in self.entries]


def concept(system: str, code: str, display: str) -> Json:
    return {"coding": [{"system": system, "code": code, "display": display}], "text": display}


def snomed(code: str, display: str) -> Json:
    return concept(SNOMED, code, display)


def loinc(code: str, display: str) -> Json:
    return concept(LOINC, code, display)


def rxnorm(code: str, display: str) -> Json:
    return concept(RXNORM, code, display)


def quantity(value: str, unit: str, code: str = "", /, **elements: Any) -> Json:
    """A Quantity with the decimal as written, so that `1.50` stays `1.50`."""
    return {"value": Decimal(value), **elements, "unit": unit, "system": UCUM, "code": code or unit}


def labels(*codes: str) -> Json:
    """`meta` with confidentiality and sensitivity labels."""
    return {
        "security": [
            {"system": CONFIDENTIALITY if len(code) == 1 else ACT_CODE, "code": code} for code in codes
        ]
    }  # fmt: skip


def attachment(content_type: str, title: str, data: bytes) -> Json:
    return {"contentType": content_type, "title": title, "data": base64.b64encode(data).decode()}


def pdf(title: str, *, size: int = 0) -> bytes:
    """A one-page PDF that says `title` (ASCII); about `size` bytes of incompressible data follow, like a scan's."""
    noise = b"".join(hashlib.sha256(f"{title}/{i}".encode()).digest() for i in range(size // 32))
    content = f"BT /F1 18 Tf 72 720 Td ({title}) Tj ET".encode("ascii")
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(noise), noise),
    ]
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)
