"""Reading many files together: those about no person first, so that their practitioners and hospitals can travel.

Newer Synthea and bulk exports keep practitioners and hospitals in files without a Patient (fhir.md 0, row 9).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from careledger.errors import Error
from careledger.fhir.facts import Facts
from careledger.fhir.importing import read_file, read_support
from careledger.fhir.reading import FileReading, ReadOptions
from careledger.fhir.references import Index


class FileOutcome(msgspec.Struct, frozen=True):
    """One file of a folder: a reading, or the refusal of this file alone, or neither for a support-only file."""

    file: str
    reading: FileReading | None = None
    refused: Error | None = None
    support: int = 0
    """Resources of a support-only file, which travel with whatever refers to them."""


def read_folder(
    names: Sequence[str], open_chunks: Callable[[str], Iterable[bytes]], *, options: ReadOptions
) -> Iterator[FileOutcome]:
    """Read every file, in the order of `names`, support-only files first; one file's refusal does not stop the others.

    `open_chunks` is called up to twice per file, so that no file is held while others are read. Pure but for it.
    """
    support: list[Facts] = []
    others: list[str] = []
    for name in names:
        try:
            found = read_support(name, open_chunks(name), options=options)
        except Error:
            found = None  # said again, in its turn, by reading it as a person's file
        if found is None:
            others.append(name)
        else:
            support += found
            yield FileOutcome(name, support=len(found))
    index = Index(support)
    for name in others:
        try:
            yield FileOutcome(name, read_file(name, open_chunks(name), options=options, support=index))
        except Error as error:
            yield FileOutcome(name, refused=error)
