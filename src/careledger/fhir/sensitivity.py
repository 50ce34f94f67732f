"""What marks a resource as sensitive: labels first, then codes, then words (fhir.md 1.4 and 1.5). All in this place.

A rule of thumb, curated and not complete: without label, listed code or listed word it fails *open*; an unknown label
of a known system fails *closed*. Free text, scans, images and local codes are never recognised.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
INLINE_LABEL_URL = "http://hl7.org/fhir/uv/security-label-ds4p/StructureDefinition/extension-inline-sec-label"
LABEL_BASIS_URL = "http://hl7.org/fhir/uv/security-label-ds4p/StructureDefinition/extension-sec-label-basis"

CLOSING_ORDER = ("substance", "sexual", "mental", "private")
"""Which one wins when several apply; also what "most closed" means."""

_ACT_CODES = {
    "substance": "ETH SUD ETHUD OPIOIDUD 42CFRPart2",
    "sexual": "SEX HIV STD PREGNANT",
    "mental": "PSY MH BH PSYTHPN COGN DVD EMOTDIS",
    "private": "GDIS SCA SICKLE SDV VIO MST TBOO SPI PHY PRS PDS ADOL CEL EMP EMPL DIA DRGIS LOCIS SSP B GENDER RACE "
    "REL MARST LIVARG DEMO DOB",
}
_KIND_OF_ACT_CODE = {code: kind for kind, codes in _ACT_CODES.items() for code in codes.split()}
_KIND_OF_OLD_CONFIDENTIALITY = {
    "ETH": "substance",
    "HIV": "sexual",
    "PSY": "mental",
    "SDV": "private",
    "S": "private",
    "T": "private",
    "C": "private",
}
_ORDINARY = frozenset({"U", "L", "M", "N"})

WORDS_LENGTH_MAX = 4096
"""Words are looked for in the first so many characters of a text: enough for a display, bounded for a book."""

BASIS_CODES = frozenset({"42CFRPart2"})
"""Policies whose name must travel with the record."""

SNOMED = "http://snomed.info/sct"
LOINC = "http://loinc.org"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"

_CODES: dict[str, dict[str, str]] = {
    SNOMED: {
        "substance": "7200002 6525002 5602001 56876005 60112009 61480009 266707007 55680006 1149222004",
        "mental": "171207006 35489007 370143000 231504006 47505003 310496002 79094001 225337009 718347000 736254008",
        "sexual": "86406008 72892002 19169002 79586000 714812005 169553002 65200003 31676001 310861008 165829005 "
        "269828009 76272004 "
        # pregnancy and birth: visits, care plan, pre-eclampsia, test, scan, induction, delivery, mother's exam
        "424441002 424619006 169762003 183460006 134435003 398254007 252160004 169230002 31208007 66348005 5880005 "
        # ending a pregnancy; contraception: tubal ligation, implant and device removed or replaced
        "51116004 386394001 10383002 287664005 301807007 755621000000101 68254000",
        "private": "190905008",
    },
    LOINC: {
        "substance": "74013-4",
        "mental": "44249-1 44261-6 89204-2 34785-6 78263-1 78306-8 78472-8 34904-3 34788-0 34102-4 34791-4 75443-2 "
        "84215-3",
        "sexual": "25836-8 80203-3 82810-3 11778-8",
        "private": "81247-9 48018-6",
    },
    RXNORM: {
        "substance": "352364",
        "mental": "315952",
        # an HIV drug; contraceptive pills, patch, implant, injection and devices
        "sexual": "1747692 748856 748962 749762 751905 757594 831533 978950 1534809 389221 1000126 1856546 807283",
    },
}
SENSITIVE_CODES = {
    code: (system, kind) for system, kinds in _CODES.items() for kind, codes in kinds.items() for code in codes.split()
}
"""code -> (system, kind). No code stands in two systems here, so that one look-up settles almost every coding."""

_ICD10 = {
    "substance": "F10 F11 F12 F13 F14 F15 F16 F18 F19 T40 Z71.41 Z71.51 K70 O99.31 O99.32 P96.1",
    "mental": "F00-F09 F20-F51 F53-F63 F66-F99 X60-X84 Z91.5 T14.91 Z13.3 R45.851",
    "sexual": "B20-B24 Z21 Z20.6 A50-A64 N46 N97 F52 F64 F65 O P00-P04 Z30-Z39 Z72.5 Z11.3 Z11.4",
    "private": "T74 T76 Y07 Z69 Z62.81 Z14 Z15 Q90-Q99 D57 E84 G10",
}


def _icd10_prefixes() -> dict[str, str]:
    prefixes: dict[str, str] = {}
    for kind in reversed(CLOSING_ORDER):
        for entry in _ICD10[kind].split():
            first, _, last = entry.partition("-")
            numbers = range(int(first[1:]), int(last[1:]) + 1) if last else ()
            for prefix in [f"{first[0]}{number:02}" for number in numbers] or [first]:
                prefixes[prefix.replace(".", "")] = kind
    return prefixes


_ICD10_PREFIXES = _icd10_prefixes()
_ICD10_SYSTEM = re.compile(r"icd-?10|2\.16\.840\.1\.113883\.6\.(?:90|3)$", re.IGNORECASE)

_WORDS = {
    "substance": r"overdos|addict|alcohol|drug abuse|substance abuse|opioid (?:abuse|use disorder|dependence)|"
    r"buprenorphine|methadone|naltrexone|disulfiram|acamprosate|drug dependence|heroin|cocaine",
    "sexual": r"pregnan|contracep|abortion|\bHIV\b|human immunodeficiency|miscarriage|infertil|"
    r"sexually transmitted|gonorrh|syphilis|chlamydia|prenatal|antenatal",
    "mental": r"psychiatr|(?<!respiratory )(?<!marrow )(?<!\bST )depressi|suicid|self[- ]harm|schizo|bipolar|psychos|"
    r"psychot|post-?traumatic stress",
    "private": r"domestic (?:violence|abuse)|sexual (?:abuse|assault)|child abuse|intimate partner|\brape\b",
}
_WORD = re.compile("|".join(f"(?P<{kind}>{words})" for kind, words in _WORDS.items()), re.IGNORECASE)


def most_closed(kinds: Iterable[str]) -> str:
    """The kind that wins among several, "" for none."""
    found = set(kinds)
    return next((kind for kind in CLOSING_ORDER if kind in found), "")


def kind_of_labels(labels: Iterable[tuple[str, str]]) -> str:
    """The compartment that (system, code) labels ask for, "" when they leave the resource ordinary."""
    kinds = set()
    for system, code in labels:
        if system == ACT_CODE:
            kinds.add(_KIND_OF_ACT_CODE.get(code, "private"))
        elif system == CONFIDENTIALITY:
            if code in _KIND_OF_OLD_CONFIDENTIALITY:
                kinds.add(_KIND_OF_OLD_CONFIDENTIALITY[code])
            elif code not in _ORDINARY:  # R, V, and whatever this system may still bring
                kinds.add("private")
    return most_closed(kinds)


@functools.lru_cache(maxsize=8192)
def kinds_of_coding(system: str, code: str, display: str) -> tuple[str, str]:
    """(kind by code, kind by the words of its display) of one coding, "" for none; remembered, since codings repeat."""
    listed = SENSITIVE_CODES.get(code)
    if listed is not None and listed[0] == system:
        by_code = listed[1]
    else:
        by_code = kind_of_icd10(code) if is_icd10(system) else ""
    return by_code, kind_of_words(display[:WORDS_LENGTH_MAX])


def kind_of_icd10(code: str) -> str:
    """The kind of an ICD-10 or ICD-10-CM code by its longest listed prefix, "" for others."""
    plain = code.replace(".", "").upper()
    for length in range(min(len(plain), 5), 0, -1):
        kind = _ICD10_PREFIXES.get(plain[:length])
        if kind:
            return kind
    return ""


def is_icd10(system: str) -> bool:
    """Whether a coding's system is ICD-10 or one of its national editions."""
    return _ICD10_SYSTEM.search(system) is not None


@functools.lru_cache(maxsize=8192)
def kind_of_words(text: str) -> str:
    """The kind of the most closed listed word in a display or text, "" if there is none."""
    return most_closed(match.lastgroup or "" for match in _WORD.finditer(text))
