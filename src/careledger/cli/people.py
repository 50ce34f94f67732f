"""Commands of patients, clinicians and authors."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import segno
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from careledger.cli.session import (
    JsonOption,
    KeysOption,
    NetworkOption,
    PassOption,
    Session,
    ask_passphrase,
    console,
    now_ms,
    say,
)
from careledger.client import (
    Author,
    Enrolled,
    LoggedAccess,
    Owner,
    Patient,
    Published,
    Reader,
    audit,
    deactivate,
    enrol_patient,
    enrol_person,
    export_record,
    rotate,
    write_export,
)
from careledger.client import Progress as ImportProgress
from careledger.errors import Error, MalformedError
from careledger.fhir import CATEGORIES, ReadOptions, export_bundle, read_folder

__all__ = ["register"]

DAY_MS = 24 * 3_600_000
KEYS = Path("keys")
NETWORK = Path("network.json")
_CHUNK = 1 << 20

identity = typer.Typer(no_args_is_help=True, help="Your identity: enrol, show, rotate, deactivate.")


def _moment(time_ms: int) -> str:
    return datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def show_kit(enrolled: Enrolled, as_json: bool) -> None:
    """Print token and recovery kit; the kit also as a QR code, for paper."""
    if as_json:
        say(True, {"token": enrolled.token, "kit": enrolled.kit}, "")
        return
    print(f"token  {enrolled.token}")
    print(f"kit    {enrolled.kit}")
    print("Print the kit and keep it away from this device: it is the only way back, and nobody else has it.")
    segno.make(enrolled.kit, error="m").terminal(border=2, compact=True)


@identity.command("new")
def identity_new(
    kind: Annotated[Literal["patient", "person"], typer.Argument(help="patient: keeps a record; person: a clinician.")],
    network: NetworkOption = NETWORK,
    keys: KeysOption = KEYS,
    as_json: JsonOption = False,
) -> None:
    """Enrol, with keys in a new folder that a passphrase protects."""
    phrase = ask_passphrase(new=True)

    async def work(session: Session) -> Enrolled:
        if kind == "person":
            return await enrol_person(session.network, keys, passphrase=phrase)
        enrolled, _ = await enrol_patient(session.network, keys, passphrase=phrase)
        return enrolled

    show_kit(Session.run(network, work), as_json)


@identity.command("show")
def identity_show(
    token: Annotated[str | None, typer.Argument(help="Somebody's token; your own when not given.")] = None,
    network: NetworkOption = NETWORK,
    keys: KeysOption = KEYS,
    as_json: JsonOption = False,
) -> None:
    """Show what the directory proves about an identity."""

    async def work(session: Session) -> None:
        wanted = token or session.open_keys(keys).token
        found = await session.network.identity(wanted, fresh=True)
        state = msgspec.to_builtins(found.state)
        words = (
            f"token      {wanted}\nkind       {found.state.kind}\nstatus     {found.state.status}\n"
            f"operation  {found.state.sequence}, in force since {_moment(found.state.effective_at)} UTC"
        )
        say(as_json, {"token": wanted, "state": state}, words)

    Session.run(network, work)


@identity.command("rotate")
def identity_rotate(network: NetworkOption = NETWORK, keys: KeysOption = KEYS, as_json: JsonOption = False) -> None:
    """Draw new keys, with the recovery kit: after a device was lost, or when somebody saw the passphrase."""
    kit: str = typer.prompt("Recovery kit code", err=True)
    phrase = ask_passphrase()

    async def work(session: Session) -> None:
        await rotate(session.network, session.folder, kit=kit, passphrase=phrase)
        token = session.folder.token
        say(
            as_json,
            {"token": token, "keyid": session.folder.keys.keyid},
            f"{token} has new keys; old ones sign nothing",
        )

    Session.run(network, work, keys=keys)


@identity.command("deactivate")
def identity_deactivate(network: NetworkOption = NETWORK, keys: KeysOption = KEYS, as_json: JsonOption = False) -> None:
    """End the identity for good, with the recovery kit. Nothing can follow."""
    kit: str = typer.prompt("Recovery kit code", err=True)

    async def work(session: Session) -> None:
        await deactivate(session.network, session.folder, kit=kit)
        say(as_json, {"token": session.folder.token, "status": "deactivated"}, f"{session.folder.token} is deactivated")

    Session.run(network, work, keys=keys)


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
    other_person: Annotated[
        bool, typer.Option(help="The file is about the subject although it names another.")
    ] = False,
    network: NetworkOption = NETWORK,
    keys: KeysOption = KEYS,
    staff_pass: PassOption = None,
    as_json: JsonOption = False,
) -> None:
    """Seal FHIR files as records of a person and hand them to all its custodians. Repeating it changes nothing."""
    sources = _files(files)
    options = ReadOptions(keep_invalid=keep_invalid, skip_too_large=skip_too_large, as_document=as_document)

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
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            with Progress(*columns, console=console, transient=True, disable=as_json) as progress:
                task = progress.add_task(Path(outcome.file).name, total=len(outcome.reading.records))
                try:
                    done = await author.import_reading(
                        about, outcome.reading, on_progress=_shown_by(progress, task), confirmed=other_person
                    )
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
            say(True, {"files": results}, "")
        return 1 if failed else 0

    raise typer.Exit(Session.run(network, work, keys=keys, staff_pass=staff_pass))


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


def _categories(names: str) -> list[str]:
    known = [category.id for category in CATEGORIES]
    chosen = known if names == "all" else [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in known:
            raise MalformedError(
                "unknown-category", f"there is no category {name!r}: choose of {', '.join(known)}, or all"
            )
    return chosen


def _say_published(published: Published, as_json: bool, facts: dict[str, object], words: str) -> int:
    """Say how far a change is known; 1 when too few custodians took it for it to hold."""
    facts |= {
        "effective": published.effective,
        "complete": published.complete,
        "reached_ms": published.reached,
        "missing": {node: error.code for node, error in published.failures.items()},
    }
    effective, complete = published.reached.get("effective"), published.reached.get("complete")
    if effective is None:
        words += f": NOT yet in force, only {len(published.receipts)} of {published.n} custodians took it. Repeat it."
    else:
        words += f": in force after {effective:.0f} ms"
        words += f", known to all custodians after {complete:.0f} ms" if complete is not None else ""
    say(as_json, facts, words)
    return 0 if published.effective else 1


def grant(
    grantee: Annotated[str, typer.Argument(help="The person's or organisation's token.")],
    categories: Annotated[str, typer.Option(help="Names separated by commas, or all.")],
    write: Annotated[bool, typer.Option("--write", help="Let them add records, too.")] = False,
    only_write: Annotated[bool, typer.Option("--only-write", help="Let them add records, not read.")] = False,
    days: Annotated[int, typer.Option(min=1, max=36_500, help="For how many days.")] = 365,
    purposes: Annotated[str, typer.Option(help="HL7 purposes of use, separated by commas.")] = "TREAT",
    network: NetworkOption = NETWORK,
    keys: KeysOption = KEYS,
    as_json: JsonOption = False,
) -> None:
    """Let somebody read categories of your record until a day, for purposes."""

    async def work(session: Session) -> int:
        patient = Patient(session.network, session.folder.keys, state=session.folder)
        rights: list[Literal["read", "contribute"]] = [] if only_write else ["read"]
        if write or only_write:
            rights.append("contribute")
        granted = await patient.grant(
            grantee,
            categories=_categories(categories),
            rights=rights,
            purposes=[one.strip() for one in purposes.split(",")],
            expires_ms=now_ms() + days * DAY_MS,
        )
        return _say_published(granted.published, as_json, {"grant": granted.grant}, f"grant {granted.grant}")

    raise typer.Exit(Session.run(network, work, keys=keys))


def grants(network: NetworkOption = NETWORK, keys: KeysOption = KEYS, as_json: JsonOption = False) -> None:
    """Show the grants you gave."""

    async def work(session: Session) -> None:
        patient = Patient(session.network, session.folder.keys, state=session.folder)
        await patient.refresh()
        rows: list[dict[str, object]] = []
        lines: list[str] = []
        for given in patient.grants():
            terms = given.terms
            status = "revoked" if given.revoked else "expired" if terms.expires <= now_ms() else "stands"
            names = [patient.chain.names.get(one, one) for one in terms.compartments or ()]
            what = ", ".join(names) if names else f"{len(terms.records or ())} records"
            rows.append(
                {
                    "grant": terms.grant,
                    "grantee": terms.grantee,
                    "status": status,
                    "rights": terms.rights,
                    "purposes": terms.purposes,
                    "categories": names,
                    "expires": terms.expires,
                }
            )
            lines.append(f"{terms.grant}  {status:8} {'+'.join(terms.rights):16} {terms.grantee}\n    {what}")
        say(as_json, {"grants": rows}, "\n".join(lines) or "You gave no grants.")

    Session.run(network, work, keys=keys)


def revoke(
    grant_id: Annotated[str, typer.Argument(metavar="GRANT", help="The grant's id, see careledger grants.")],
    network: NetworkOption = NETWORK,
    keys: KeysOption = KEYS,
    as_json: JsonOption = False,
) -> None:
    """End a grant at once, and move what it covered to new keys."""

    async def work(session: Session) -> int:
        patient = Patient(session.network, session.folder.keys, state=session.folder)
        published = await patient.revoke(grant_id)
        return _say_published(published, as_json, {"grant": grant_id}, f"grant {grant_id} is revoked")

    raise typer.Exit(Session.run(network, work, keys=keys))


def file_record(
    record: Annotated[str, typer.Argument(help="The record's id.")],
    category: Annotated[str, typer.Argument(help="Where it shall stand from now on.")],
    network: NetworkOption = NETWORK,
    keys: KeysOption = KEYS,
    as_json: JsonOption = False,
) -> None:
    """Move a record into another category for all later decisions."""

    async def work(session: Session) -> int:
        patient = Patient(session.network, session.folder.keys, state=session.folder)
        secrets = await Owner(patient).consent_keys([bytes.fromhex(record)])
        (chosen,) = _categories(category)
        published = await patient.file(record, chosen, consent_key=secrets[record])
        return _say_published(
            published, as_json, {"record": record, "category": chosen}, f"{record} is in {chosen} now"
        )

    raise typer.Exit(Session.run(network, work, keys=keys))


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
        lines = [f"{row['record']}  {_moment(int(str(row['recorded'])))}  {row['category']}" for row in rows]
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
            opened = await (owner.open([bytes.fromhex(one) for one in records]) if records else owner.open_all())
        else:
            reader = Reader(session.network, session.folder.keys, staff=session.staff)
            wanted = records or [one.record for one in (await reader.list(subject, purpose=purpose)).manifests]
            opened = await reader.open(subject, [bytes.fromhex(one) for one in wanted], purpose=purpose)
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
    return f"{_moment(one.received)}  {verdict}  {what}, {one.purpose}\n    by {who}"


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
    app.add_typer(identity, name="identity")
    app.command("import")(import_files)
    app.command()(grant)
    app.command()(grants)
    app.command()(revoke)
    app.command("file")(file_record)
    app.command("list")(list_records)
    app.command("open")(open_records)
    app.command("audit")(audit_trail)
    app.command()(export)
