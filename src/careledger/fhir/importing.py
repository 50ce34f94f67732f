"""Reading one FHIR file: bytes in, drafts of records and a report out, or one refusal in plain words.

The steps: unpack, cut, look at each resource alone (validate, survey, keep a few facts, drop the tree), then at the
file as a whole (repeats and versions, the subject, compartments, records). Pure: the same bytes and options always give
the same reading, so that importing twice changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from careledger.fhir import faults, slices, source, validation
from careledger.fhir.attaching import ccda_as_document
from careledger.fhir.categories import CATEGORY_IDS, R4_TYPES, TRAVELLING_TYPES
from careledger.fhir.facts import Facts, gather
from careledger.fhir.filing import Filing
from careledger.fhir.grouping import Origin, group
from careledger.fhir.reading import Counts, FileReading, Issue, ReadOptions, RecordDraft, refusal
from careledger.fhir.references import Index
from careledger.fhir.reporting import Rows
from careledger.fhir.slices import Slice, Slices
from careledger.fhir.subject import Subject, subject_of
from careledger.fhir.survey import TooDeepError, issues, survey
from careledger.fhir.versions import other_version

_NO_SUPPORT = Index(())
_FATAL = frozenset({"no-type", "not-json", "too-deep"})
"""Findings that leave nothing to keep, whatever the options say."""


def read_file(
    name: str, data_chunks: Iterable[bytes], *, options: ReadOptions, support: Index = _NO_SUPPORT
) -> FileReading:
    """Read one file (`name` appears only in the report's rows).

    Raises MalformedError with a code and sentence of docs/spec/fhir.md section 6, and `details["report"]` with all
    rows found up to then: for the file as a whole, and by default also when any entry is structurally wrong
    (`keep_invalid` keeps such entries with a warning). `support` are the resources of files without a person.
    """
    if options.default_compartment and options.default_compartment not in CATEGORY_IDS:
        raise AssertionError(f"no compartment {options.default_compartment!r}")
    rows = Rows(name)
    data = source.unpack(data_chunks, bytes_max=options.inflated_bytes_max)
    import_id = options.import_id or hashlib.sha256(data).hexdigest()[:32]
    if options.as_document and source.is_ccda(data):
        data = bytearray(ccda_as_document(bytes(data), subject_url=options.subject_url or ""))
    cut = slices.cut(data, source.text_start(data))
    del data
    entries, counts = _look(cut, rows, options)
    if not entries:
        rows.refuse_errors(counts, keep_invalid=options.keep_invalid)
        raise refusal("empty", "holds no FHIR resource.")
    entries = _repeats(entries, cut, counts)
    rows.refuse_errors(counts, keep_invalid=options.keep_invalid)
    index = Index(facts for facts in entries if not facts.older)
    subject = _subject(cut, entries, index, options)
    filing = Filing(entries, index, support)
    filing.file(default=options.default_compartment)
    _warn_about_links(entries, index)
    origin = Origin(import_id, options.source or _base(subject, entries), subject.url)
    bytes_max = options.resource_bytes_max
    records = group(filing, origin=origin, bytes_max=bytes_max)
    for facts in entries:
        rows.add_issues(facts)
    if cut.more_pages:
        rows.add(0, "", "more-pages", "is only page 1 of several. Import the other pages too.", "warning")
    return FileReading(rows.report(_counted(counts, entries, records)), subject.url, subject.patient, records)


def read_support(name: str, data_chunks: Iterable[bytes], *, options: ReadOptions) -> list[Facts] | None:
    """The resources of a file that holds only travelling types (practitioners, hospitals); None for any other file.

    Raises MalformedError like `read_file`.
    """
    data = source.unpack(data_chunks, bytes_max=options.inflated_bytes_max)
    cut = slices.cut(data, source.text_start(data))
    if not all(slices.resource_type(one.resource) in TRAVELLING_TYPES for one in cut.entries):
        return None
    rows = Rows(name)
    entries, counts = _look(cut, rows, options)
    rows.refuse_errors(counts, keep_invalid=options.keep_invalid)
    return entries or None


def _look(cut: Slices, rows: Rows, options: ReadOptions) -> tuple[list[Facts], dict[str, int]]:
    """Each resource alone: errors become rows, what can be kept becomes facts."""
    counts = {"entries": len(cut.entries) + cut.skipped, "skipped": cut.skipped, "invalid": 0, "left_out": 0}
    entries: list[Facts] = []
    rows.unit = cut.unit
    for one in cut.entries:
        if len(one.resource) > options.resource_bytes_max:
            _too_large(one, rows, options)
            counts["left_out"] += 1
            continue
        found, errors = look_at(one, whole=cut.bundle_type == "document")
        tree_errors = [issue for issue in errors if issue.severity == "error"]
        if tree_errors:
            counts["invalid"] += 1
            _entry_errors(one, tree_errors, rows, options)
        if found is None:
            counts["left_out"] += 1
            continue
        found.warnings += errors
        entries.append(found)
    return entries, counts


def look_at(one: Slice, *, whole: bool = False) -> tuple[Facts | None, list[Issue]]:
    """One resource's facts (None when it cannot be kept at all) and every finding about it."""
    try:
        tree = validation.decode(one.resource)
    except (msgspec.DecodeError, RecursionError):
        return None, [issue for issue in validation.check(one.resource) if issue.severity == "error"]
    resource_type = tree.get("resourceType") if isinstance(tree, dict) else None
    if not isinstance(resource_type, str) or not resource_type:
        return None, [Issue("error", "", "no-type", 'no "resourceType"')]
    try:
        found = survey(tree)
    except TooDeepError:
        return None, [Issue("error", "", "too-deep", f"is nested deeper than {faults.DEPTH_MAX} levels")]
    facts = Facts(one.number, one.full_url, one.resource, resource_type)
    gather(facts, tree, found)
    findings = _document_findings(one) if whole else validation.structure(one.resource, resource_type)
    if findings and any(issue.severity == "error" or issue.code == "unknown-type" for issue in findings):
        version, evidence = other_version(tree)
        if version:
            findings = [Issue("error", version, "fhir-version", evidence), *findings]
    return facts, findings + issues(found, tree)


def _document_findings(document: Slice) -> list[Issue]:
    """A Bundle kept whole is validated entry by entry: in one piece a validator takes ten times its size."""
    findings: list[Issue] = []
    for one in slices.document_entries(document.resource):
        resource_type = slices.resource_type(one.resource)
        prefix = f"Bundle.entry[{one.number - 1}].resource"
        if not resource_type:
            findings.append(Issue("error", prefix, "no-type", 'no "resourceType"'))
            continue
        findings += [
            msgspec.structs.replace(issue, path=f"{prefix}.{issue.path}")
            for issue in validation.structure(one.resource, resource_type)
        ]
    return findings


def _entry_errors(one: Slice, errors: Sequence[Issue], rows: Rows, options: ReadOptions) -> None:
    for issue in errors:
        kept = options.keep_invalid and issue.code not in _FATAL
        if not kept:
            rows.add(one.number, issue.path, issue.code, rows.sentence(one.number, issue), "error")


def _too_large(one: Slice, rows: Rows, options: ReadOptions) -> None:
    kind = slices.resource_type(one.resource)
    name = kind if kind in R4_TYPES else "a resource"
    rows.add(
        one.number,
        "",
        "too-large",
        f"{rows.unit} {one.number} ({name}) is {source.megabytes(len(one.resource))} MB; the limit is "
        f"{source.megabytes(options.resource_bytes_max)} MB in this version. "
        "Left out; the rest can be imported with --skip-too-large.",
        "warning" if options.skip_too_large else "error",
    )


def _repeats(entries: list[Facts], cut: Slices, counts: dict[str, int]) -> list[Facts]:
    """One of several equal entries; of several versions under one fullUrl the newest, the others marked `older`.

    Versions are told apart as R4 does (bdl-7): in a history by place, elsewhere by `meta.versionId`.
    Raises MalformedError `duplicate-entry`.
    """
    counts["repeated"] = 0
    seen: dict[tuple[str, bytes | str], list[Facts]] = {}
    kept: list[Facts] = []
    for facts in entries:
        key: tuple[str, bytes | str] = (facts.full_url, "" if facts.full_url else facts.resource)
        same = seen.setdefault(key, [])
        if any(other.resource == facts.resource for other in same):
            counts["repeated"] += 1
            continue
        clash = next((other for other in same if not _versions(other, facts, cut)), None)
        if clash is not None:
            units = "entries" if cut.unit == "entry" else "lines"
            raise refusal(
                "duplicate-entry",
                f"{units} {clash.number} and {facts.number} have the same fullUrl and differ. Ask the sender.",
            )
        same.append(facts)
        kept.append(facts)
    for same in seen.values():
        if len(same) > 1:
            for age, facts in enumerate(sorted(same, key=_newest_first)):
                facts.older = age
    return kept


def _versions(one: Facts, other: Facts, cut: Slices) -> bool:
    return cut.bundle_type == "history" or bool(one.version and other.version and one.version != other.version)


def _newest_first(facts: Facts) -> tuple[Any, ...]:
    """Newest `lastUpdated` (compared as text, as written), then highest numeric version, then first in the file."""
    number = int(facts.version) if facts.version.isascii() and facts.version.isdigit() else -1
    inverted = "".join(chr(0x10FFFF - ord(character)) for character in facts.updated)
    return (not facts.updated, inverted, -number, facts.number)


def _subject(cut: Slices, entries: Sequence[Facts], index: Index, options: ReadOptions) -> Subject:
    if cut.bundle_type != "document":
        return subject_of(entries, index, stated=options.subject_url, unit=cut.unit)
    inner = [facts for one in slices.document_entries(entries[0].resource) if (facts := look_at(one)[0]) is not None]
    return subject_of(inner, Index(inner), stated=options.subject_url, unit=cut.unit)


def _warn_about_links(entries: Sequence[Facts], index: Index) -> None:
    for facts in entries:
        if any(index.find(url, facts.base) is None for url in facts.links):
            facts.warnings.append(
                Issue("warning", facts.resource_type, "external-data", "points to data that is not in the file")
            )


def _base(subject: Subject, entries: Sequence[Facts]) -> str:
    return next((facts.base for facts in entries if facts.base and facts.full_url == subject.url), "")


def _counted(counts: dict[str, int], entries: Sequence[Facts], records: Sequence[RecordDraft]) -> Counts:
    by_compartment = dict.fromkeys(CATEGORY_IDS, 0)
    distinct: set[int] = set()  # copies share one bytes object, and repeated entries are gone
    for record in records:
        by_compartment[record.compartment] += len(record.resources) - len(record.travelling)
        distinct.update(id(resource) for _, resource in record.resources)
    return Counts(
        entries=counts["entries"],
        kept=len(entries),
        distinct=len(distinct),
        repeated=counts["repeated"],
        skipped=counts["skipped"],
        left_out=counts["left_out"],
        invalid=counts["invalid"],
        travelling=sum(1 for facts in entries if facts.resource_type in TRAVELLING_TYPES),
        copies=sum(len(record.travelling) for record in records),
        records=len(records),
        by_compartment={name: count for name, count in by_compartment.items() if count},
    )
