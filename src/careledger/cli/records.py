"""Commands that move records: import, list, open, audit, export."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from careledger.cli.session import (
    KEYS,
    NETWORK,
    JsonOption,
    KeysOption,
    NetworkOption,
    PassOption,
    Session,
    console,
    moment,
    record_id,
    say,
)
from careledger.client import Author, Imported, LoggedAccess, Owner, Patient, Reader, audit, export_record, write_export
from careledger.client import Progress as ImportProgress
from careledger.errors import Error
from careledger.fhir import CATEGORIES, FileReading, ReadOptions, export_bundle, read_folder

__all__ = ["register"]

_CHUNK = 1 << 20
_FAILS_OPEN = (
    "Sensitive content was recognised by security labels, listed codes and words only: free text, scans, images and "
    "local codes are in ordinary compartments. For a source known to be sensitive, use --default-compartment."
)
"""Said with every import of a file that has no default compartment (docs/spec/fhir.md)."""


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _files(paths: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        inside = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]
        found |= {str(one): one for one in inside}
    return found


def import_files(
    files: Annotated[list[Path], typer.Argument(help="FHIR R4 files or folders (.json, .ndjson, gzip or plain).")],
    subject: Annotated[str | None, typer.Option(help="Whose record it is; your own when not given.")] = None,
    keep_invalid: Annotated[bool, typer.Option(help="Keep entries with structural errors, with a warning.")] = False,
    skip_too_large: Annotated[bool, typer.Option(help="Leave out what is larger than a record may be.")] = False,
    as_document: Annotated[bool, typer.Option(help="Attach C-CDA files whole.")] = False,
    default_compartment: Annotated[
        str | None, typer.Option(help="For a source known to be sensitive: where everything ordinary goes.")
    ] = None,
    other_person: Annotated[
        bool, typer.Option(help="The file is about the subject although it names another.")
    ] = False,
    network: NetworkOption = NETWORK,
    keys: KeysOption = KEYS,
    staff_pass: PassOption = None,
    as_json: JsonOption = False,
) -> None:
    """Seal FHIR files as records of a person and hand them to all its custodians. Repeating it changes nothing."""
    names = [category.id for category in CATEGORIES]
    if default_compartment is not None and default_compartment not in names:
        raise typer.BadParameter(f"there is no compartment {', '.join(names)}")
    sources = _files(files)
    options = ReadOptions(
        keep_invalid=keep_invalid,
        skip_too_large=skip_too_large,
        as_document=as_document,
        default_compartment=default_compartment or "",
    )

    async def work(session: Session) -> int:
        author, about = await _author(session, subject)
        results: list[dict[str, object]] = []
        failed = False
        for outcome in read_folder(list(sources), lambda name: _chunks(sources[name]), options=options):
            if outcome.reading is None:
                failed = failed or outcome.refused is not None
                results.append({"file": outcome.file, "refused": getattr(outcome.refused, "code", None)})
                if outcome.refused is not None:
                    console.print(f"careledger: {outcome.file}: {outcome.refused}", soft_wrap=True)
                continue
            try:
                done = await _handed_over(author, about, outcome.reading, quiet=as_json, confirmed=other_person)
            except Error as refused:
                failed = True
                results.append({"file": outcome.file, "refused": refused.code})
                console.print(f"careledger: {outcome.file}: {refused}", soft_wrap=True)
                continue
            report = outcome.reading.report
            for row in report.rows:
                where = f"entry {row.entry} " if row.entry else ""
                console.print(f"  {row.severity}: {where}{row.path} {row.message} [{row.code}]", soft_wrap=True)
            failed = failed or bool(done.refused)
            results.append(
                {
                    "file": outcome.file,
                    "records": done.records,
                    "resources": done.resources,
                    "already": done.already,
                    "safe": done.safe,
                    "warnings": len(report.rows),
                    "refused": [one.code for one in done.refused],
                }
            )
            if not as_json:
                _say_imported(outcome.file, done.resources, done.records, done.safe, done.already)
        if as_json:
            say(True, {"files": results, "fails_open": default_compartment is None}, "")
        elif default_compartment is None and any(one.get("records") for one in results):
            print(_FAILS_OPEN)
        return 1 if failed else 0

    raise typer.Exit(Session.run(network, work, keys=keys, staff_pass=staff_pass))


async def _handed_over(author: Author, about: str, reading: FileReading, *, quiet: bool, confirmed: bool) -> Imported:
    """Seal and send what one file holds, with a progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        task = progress.add_task(Path(reading.report.file).name, total=len(reading.records))
        return await author.import_reading(about, reading, on_progress=_shown_by(progress, task), confirmed=confirmed)


def _shown_by(bar: Progress, task: TaskID) -> Callable[[ImportProgress], None]:
    return lambda state: bar.update(task, total=state.records, completed=state.kept)


def _say_imported(file: str, resources: int, records: int, safe: int, already: int) -> None:
    if not records and already:
        print(f"{file}: already kept: {already} of {already} resources. Nothing to do.")
    else:
        kept = f", {already} resources were kept before" if already else ""
        print(f"{file}: {resources} resources as {records} records, {safe} safe at every custodian{kept}")


async def _author(session: Session, subject: str | None) -> tuple[Author, str]:
    folder = session.folder
    if subject is None or subject == folder.token:
        patient = Patient(session.network, folder.keys, state=folder)
        return Author(session.network, folder.keys, state=folder, own=patient), folder.token
    return Author(session.network, folder.keys, state=folder, staff=session.staff), subject


def list_records(
    subject: Annotated[str | None, typer.Argument(help="Whose record; your own when not given.")] = None,
    purpose: Annotated[str, typer.Option(help="An HL7 purpose of use.")] = "TREAT",
    network: NetworkOption = NETWORK,
    keys: KeysOption = KEYS,
    staff_pass: PassOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the records that you may open. The request is logged."""

    async def work(session: Session) -> None:
        if subject is None or subject == session.folder.token:
            owner = Owner(Patient(session.network, session.folder.keys, state=session.folder))
            listing = await owner.list()
        else:
            reader = Reader(session.network, session.folder.keys, staff=session.staff)
            listing = await reader.list(subject, purpose=purpose)
        rows = [
            {"record": one.record, "category": listing.names.get(one.compartment, ""), "recorded": one.recorded}
            for one in listing.manifests
        ]
        lines = [f"{row['record']}  {moment(int(str(row['recorded'])))}  {row['category']}" for row in rows]
        lines.append(f"{len(rows)} records. There may be parts you can't see.")
        say(as_json, {"records": rows, "faults": {n: e.code for n, e in listing.faults.items()}}, "\n".join(lines))

    Session.run(network, work, keys=keys, staff_pass=staff_pass)


def open_records(
    subject: Annotated[str | None, typer.Argument(help="Whose record; your own when not given.")] = None,
    records: Annotated[
        list[str] | None, typer.Argument(help="Record ids; all that you may open when not given.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the FHIR Bundle here; stdout when not given.")] = None,
    purpose: Annotated[str, typer.Option(help="An HL7 purpose of use.")] = "TREAT",
    network: NetworkOption = NETWORK,
    keys: KeysOption = KEYS,
    staff_pass: PassOption = None,
) -> None:
    """Open records, as a FHIR Bundle with the exact bytes. The request is logged before anything opens."""

    async def work(session: Session) -> None:
        if subject is None or subject == session.folder.token:
            owner = Owner(Patient(session.network, session.folder.keys, state=session.folder))
            opened = await (owner.open([record_id(one) for one in records]) if records else owner.open_all())
        else:
            reader = Reader(session.network, session.folder.keys, staff=session.staff)
            wanted = records or [one.record for one in (await reader.list(subject, purpose=purpose)).manifests]
            opened = await reader.open(subject, [record_id(one) for one in wanted], purpose=purpose)
        for node, fault in opened.faults.items():
            console.print(f"careledger: custodian {node} failed: {fault}", soft_wrap=True)
        resources = [(one.full_url, one.data) for record in opened.records for one in record.resources]
        bundle = export_bundle(resources, token=subject or session.folder.token, subject_url="")
        if out is None:
            typer.get_binary_stream("stdout").write(bundle + b"\n")
        else:
            out.write_bytes(bundle)
            print(f"{len(opened.records)} records, {len(resources)} resources: {out}")

    Session.run(network, work, keys=keys, staff_pass=staff_pass)


def _describe(one: LoggedAccess) -> str:
    what = "a list" if one.records is None else f"{len(one.records)} records"
    verdict = "opened" if one.allowed else f"REFUSED ({next(iter(one.nodes.values()))[2]})"
    who = one.reader if one.organisation is None else f"{one.reader} for {one.organisation}"
    return f"{moment(one.received)}  {verdict}  {what}, {one.purpose}\n    by {who}"


def audit_trail(network: NetworkOption = NETWORK, keys: KeysOption = KEYS, as_json: JsonOption = False) -> None:
    """Show who asked for your records, what for, and what the custodians answered."""

    async def work(session: Session) -> int:
        trail = await audit(session.network, session.folder.keys, state=session.folder)
        lines = [_describe(one) for one in trail.accesses]
        if trail.complete:
            lines.append(f"{len(trail.accesses)} requests. Complete: every custodian proved its part.")
        else:
            lines.append(f"{len(trail.accesses)} requests. NOT complete; no proof from:")
            lines += [f"    {node}: {error}" for node, error in trail.missing.items()]
        facts = {
            "complete": trail.complete,
            "missing": {node: error.code for node, error in trail.missing.items()},
            "accesses": [msgspec.to_builtins(one) for one in trail.accesses],
        }
        say(as_json, facts, "\n".join(lines))
        return 0 if trail.complete else 1

    raise typer.Exit(Session.run(network, work, keys=keys))


def export(
    out: Annotated[Path, typer.Argument(help="A new folder: a FHIR Bundle, and its proofs for careledger verify.")],
    network: NetworkOption = NETWORK,
    keys: KeysOption = KEYS,
    as_json: JsonOption = False,
) -> None:
    """Take your whole record along: exact bytes, and the proofs that anyone can verify offline."""

    async def work(session: Session) -> None:
        patient = Patient(session.network, session.folder.keys, state=session.folder)
        opened = await Owner(patient).open_all()
        trail = await audit(session.network, session.folder.keys, state=session.folder)
        exported = await export_record(session.network, opened, subject=session.folder.token, trail=trail)
        files = [str(path) for path in write_export(out, exported)]
        for record, error in exported.failed:
            console.print(f"careledger: record {record}: {error}", soft_wrap=True)
        words = f"{len(opened.records)} records: {', '.join(files)}. Check them with: careledger verify {out}"
        say(as_json, {"records": len(opened.records), "files": files}, words)

    Session.run(network, work, keys=keys)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("import")(import_files)
    app.command("list")(list_records)
    app.command("open")(open_records)
    app.command("audit")(audit_trail)
    app.command()(export)
