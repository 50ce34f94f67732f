"""The rows of an import report, and the one sentence that a refused file gets.

Positions are 1-based; no row carries a value from the file.
"""

from __future__ import annotations

from careledger.errors import MalformedError
from careledger.fhir.facts import Facts
from careledger.fhir.reading import ROWS_MAX, Counts, Issue, Report, ReportRow, Severity

_CORRECT = "Ask the sender to correct it, or keep it as it is with --keep-invalid."


class Rows:
    """Rows of one file, at most `ROWS_MAX`; the first error is what a refusal says."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.unit = "entry"
        self._rows: list[ReportRow] = []
        self._left_out = 0
        self._first_error: ReportRow | None = None
        self._errors = 0

    def add(self, entry: int, path: str, code: str, message: str, severity: Severity) -> None:
        row = ReportRow(self.file, entry, path, code, message, severity)
        if severity == "error":
            self._errors += 1
            self._first_error = self._first_error or row
        if len(self._rows) < ROWS_MAX:
            self._rows.append(row)
        else:
            self._left_out += 1

    def add_issues(self, facts: Facts) -> None:
        """A kept resource's findings: whatever it is, it was kept, so it is a warning."""
        for issue in facts.warnings:
            self.add(facts.number, issue.path, issue.code, f"{self.unit} {facts.number}: {_said(issue)}.", "warning")

    def sentence(self, number: int, issue: Issue) -> str:
        """The sentence of an entry that refuses the file: WHAT. WHAT TO DO."""
        place = f"{self.unit} {number}"
        if issue.code == "no-type":
            return f'{place}: no "resourceType".'
        if issue.code == "too-deep":
            return f"{place} {issue.message}. Ask the sender."
        if issue.code == "fhir-version":
            return (
                f"looks like FHIR {issue.path} ({issue.message}, {place}); only R4 (4.0.x) is read. "
                "Ask for an R4 export."
            )
        if issue.code == "duplicate-key":
            name = issue.path.rpartition(".")[2]
            return f'{place}: "{name}" appears twice. Which one counts is not defined; ask the sender.'
        if issue.code == "not-json":
            return f"{place}: not JSON. Ask the sender for strict JSON."
        return f"{place}: {_said(issue)}. {_CORRECT}"

    def refuse_errors(self, counts: dict[str, int], *, keep_invalid: bool) -> None:
        """Raise the first error, if there is one; its `details` carry the report."""
        first = self._first_error
        if first is None:
            return
        known = Counts(
            entries=counts["entries"],
            skipped=counts["skipped"],
            left_out=counts["left_out"],
            invalid=counts["invalid"],
        )
        raise MalformedError(first.code, first.message, details={"report": self.report(known), "errors": self._errors})

    def report(self, counts: Counts) -> Report:
        return Report(self.file, self._rows, counts, self._left_out)


def _said(issue: Issue) -> str:
    return f"{issue.path} {issue.message}".strip()
