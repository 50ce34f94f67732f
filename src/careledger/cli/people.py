"""Commands about identities and grants."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import segno
import typer

from careledger.cli.session import (
    KEYS,
    NETWORK,
    JsonOption,
    KeysOption,
    NetworkOption,
    Session,
    ask_passphrase,
    moment,
    now_ms,
    record_id,
    say,
)
from careledger.client import (
    Enrolled,
    Owner,
    Patient,
    Published,
    deactivate,
    enrol_patient,
    enrol_person,
    rotate,
)
from careledger.errors import MalformedError, NotFoundError
from careledger.fhir import CATEGORIES

__all__ = ["register"]

DAY_MS = 24 * 3_600_000

identity = typer.Typer(no_args_is_help=True, help="Your identity: enrol, show, rotate, deactivate.")


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
            f"operation  {found.state.sequence}, in force since {moment(found.state.effective_at)} UTC"
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
        secrets = await Owner(patient).consent_keys([record_id(record)])
        if record not in secrets:
            raise NotFoundError("no-record", f"you have no record {record}; careledger list shows those you have")
        (chosen,) = _categories(category)
        published = await patient.file(record, chosen, consent_key=secrets[record])
        return _say_published(
            published, as_json, {"record": record, "category": chosen}, f"{record} is in {chosen} now"
        )

    raise typer.Exit(Session.run(network, work, keys=keys))


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(identity, name="identity")
    app.command()(grant)
    app.command()(grants)
    app.command()(revoke)
    app.command("file")(file_record)
