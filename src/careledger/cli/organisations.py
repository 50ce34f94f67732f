"""Commands of organisations: founding a network, running a node, staff passes, licences, managed patients."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
import typer

from careledger.cli.people import DAY_MS, show_kit
from careledger.cli.session import (
    KEYS,
    NETWORK,
    JsonOption,
    KeysOption,
    NetworkOption,
    Session,
    ask_passphrase,
    now_ms,
    read_file_bytes,
    say,
)
from careledger.cli.status import show_status
from careledger.client import (
    KeyFolder,
    Manager,
    Organisation,
    claim,
    encode_staff_pass,
    make_organisation,
    network_file,
    publish_organisation,
)
from careledger.directory import ConsensusEntry, ConsensusPart, MemberPart, NodePart, founding, network_of
from careledger.errors import MalformedError
from careledger.identity import parse_operation, token_of
from careledger.node import NodeFolder, create_node, engine_parameters, run_node
from careledger.seal import Envelope, decode, encode, unb64

__all__ = ["register"]

node = typer.Typer(no_args_is_help=True, help="A node of an organisation: create it, join a network, run it.")
network_commands = typer.Typer(no_args_is_help=True, help="Found a network; make the file that clients need.")
organisation = typer.Typer(no_args_is_help=True, help="An organisation: its identity, staff passes and licences.")
managed = typer.Typer(no_args_is_help=True, help="Patients without a device, until they claim their identity.")

NodeFolderArgument = Annotated[Path, typer.Argument(help="The node's folder.")]


class NodePartFile(msgspec.Struct, forbid_unknown_fields=True):
    """A node's public part as `node init` writes it; keys in base64url."""

    inception: Envelope
    url: str
    log_key: str
    witness_key: str
    consensus: ConsensusEntry | None = None

    def part(self) -> NodePart:
        stated = self.consensus
        consensus = None if stated is None else ConsensusPart(unb64(stated.key, size=32), stated.peer)
        keys = unb64(self.log_key, size=32), unb64(self.witness_key, size=32)
        return NodePart(self.inception, self.url, *keys, consensus)


class MemberFile(msgspec.Struct, forbid_unknown_fields=True):
    """A founder's public part: what it sends to the other founders."""

    inception: Envelope
    nodes: list[NodePartFile]
    roles: list[str]


T = TypeVar("T")


def _parsed(data: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise MalformedError("bad-part", f"this is not a {what} as careledger writes it; ask for it again") from None


@node.command("init")
def node_init(
    folder: NodeFolderArgument,
    url: Annotated[str, typer.Option(help="Where others reach it, for instance https://node.example:8443.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8443,
    consensus: Annotated[
        str, typer.Option(help="host:port of its CometBFT, for a network that its members order by agreement.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Draw a node's keys; its public part for the founding is then in part.json."""
    part = create_node(folder, url=url, host=host, port=port, rand=os.urandom, consensus=consensus)
    token = token_of(unb64(part.inception.payload))
    say(
        as_json,
        {"token": token, "part": str(folder / "part.json")},
        f"node {token}\npublic part: {folder / 'part.json'}",
    )


@node.command("join")
def node_join(
    folder: NodeFolderArgument,
    genesis: Annotated[Path, typer.Argument(help="The network's genesis.json.")],
    as_json: JsonOption = False,
) -> None:
    """Give a node its network."""
    data = read_file_bytes(genesis, "genesis")
    place = NodeFolder(folder)
    network = network_of(data)
    place.join(data, network=network)
    say(
        as_json,
        {"network": network, "node": place.settings.token},
        f"{place.settings.token} belongs to network {network}",
    )


@node.command("run")
def node_run(folder: NodeFolderArgument) -> None:
    """Run a node until it is told to stop (SIGTERM or Ctrl-C); its log lines are JSON on stderr."""
    run_node(folder)


@organisation.command("new")
def organisation_new(
    parts: Annotated[list[Path], typer.Argument(help="part.json of each of its nodes.")],
    out: Annotated[Path, typer.Option(help="Where the public part for the founding goes.")] = Path("member.json"),
    licensor: Annotated[bool, typer.Option(help="Propose it as one that attests licences, too.")] = False,
    keys: KeysOption = KEYS,
    as_json: JsonOption = False,
) -> None:
    """Make an organisation's identity, before its network is founded."""
    files = [_parsed(read_file_bytes(path, "node's part"), NodePartFile, "node's part.json") for path in parts]
    tokens = [token_of(unb64(one.inception.payload)) for one in files]
    enrolled, inception = make_organisation(keys, nodes=tokens, passphrase=ask_passphrase(new=True), rand=os.urandom)
    roles = ["licensor", "provider"] if licensor else ["provider"]
    member = MemberFile(inception=inception, nodes=files, roles=roles)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(member)))
    show_kit(enrolled, as_json)
    if not as_json:
        print(f"public part for the founders: {out}")


@network_commands.command("found")
def network_found(
    members: Annotated[list[Path], typer.Argument(help="Every founder's member.json; the first one's node sequences.")],
    out: Annotated[Path, typer.Option(help="Where the genesis goes; every founder must get these exact bytes.")] = Path(
        "genesis.json"
    ),
    engine: Annotated[
        Literal["embedded", "cometbft"],
        typer.Option(help="Who orders the directory: one node (embedded), or all by agreement (cometbft)."),
    ] = "embedded",
    as_json: JsonOption = False,
) -> None:
    """Found a network of these members. No key leaves its owner: only public parts go in."""
    parameters = engine_parameters(engine)
    parts = []
    for path in members:
        member = _parsed(read_file_bytes(path, "member's part"), MemberFile, "member.json")
        parts.append(MemberPart(member.inception, [one.part() for one in member.nodes], member.roles))
    genesis = founding(parts, time_ms=now_ms(), nonce=os.urandom(16), parameters=parameters)
    out.write_bytes(genesis)
    names = [parse_operation(part.inception).token for part in parts]
    words = f"network {network_of(genesis)}\n{len(names)} founders\ngenesis: {out}"
    say(as_json, {"network": network_of(genesis), "members": names, "genesis": str(out)}, words)


@network_commands.command("status")
def network_show_status(network: NetworkOption = NETWORK, as_json: JsonOption = False) -> None:
    """Members, nodes, heights, lag and faults at a glance; exit code 1 when something needs attention."""
    raise typer.Exit(Session.run(network, lambda session: show_status(session, as_json=as_json)))


@network_commands.command("file")
def network_write(
    genesis: Annotated[Path, typer.Argument(help="The network's genesis.json.")],
    out: Annotated[Path, typer.Option(help="Where the network file goes.")] = NETWORK,
    as_json: JsonOption = False,
) -> None:
    """Make the network file that clients are configured with. Nothing in it is secret."""
    data = read_file_bytes(genesis, "genesis")
    out.write_bytes(network_file(data))
    say(as_json, {"network": network_of(data), "file": str(out)}, f"network {network_of(data)}: {out}")


@organisation.command("publish")
def organisation_publish(
    network: NetworkOption = NETWORK, keys: KeysOption = KEYS, as_json: JsonOption = False
) -> None:
    """After the founding: give the organisation's document, with its reading key, to the nodes."""

    async def work(session: Session) -> None:
        session.folder.join(session.network.id)
        done = await publish_organisation(session.network, session.folder)
        facts = {"token": session.folder.token, "nodes": len(done.acks)}
        say(as_json, facts, f"{len(done.acks)} nodes have the document of {session.folder.token}")

    Session.run(network, work, keys=keys)


@organisation.command("pass")
def organisation_pass(
    person: Annotated[str, typer.Argument(help="The person's token.")],
    role: Annotated[str, typer.Option(help="As what the person acts, for instance physician.")],
    out: Annotated[Path, typer.Option(help="Where the pass goes.")],
    hours: Annotated[int, typer.Option(min=1, max=24, help="For how many hours, 24 at most.")] = 12,
    network: NetworkOption = NETWORK,
    keys: KeysOption = KEYS,
    as_json: JsonOption = False,
) -> None:
    """Give a person today's pass: the affiliation, and the reading key for grants to the organisation."""

    async def work(session: Session) -> None:
        desk = Organisation(session.network, session.folder.keys, state=session.folder)
        out.write_bytes(encode_staff_pass(await desk.staff_pass(person, role=role, hours=hours)))
        say(as_json, {"person": person, "pass": str(out), "hours": hours}, f"pass for {person}, {hours} hours: {out}")

    Session.run(network, work, keys=keys)


@organisation.command("license")
def organisation_license(
    person: Annotated[str, typer.Argument(help="The person's token.")],
    role: Annotated[str, typer.Option(help="As what the person may practise, for instance physician.")],
    days: Annotated[int, typer.Option(min=1, max=3660, help="For how many days.")] = 365,
    network: NetworkOption = NETWORK,
    keys: KeysOption = KEYS,
    as_json: JsonOption = False,
) -> None:
    """Attest that a person may practise (members with the role licensor)."""

    async def work(session: Session) -> None:
        desk = Organisation(session.network, session.folder.keys, state=session.folder)
        licence = await desk.license(person, role=role, until_ms=now_ms() + days * DAY_MS)
        say(as_json, {"person": person, "licence": licence}, f"licence {licence}: {person} as {role}, {days} days")

    Session.run(network, work, keys=keys)


def _manager(session: Session) -> Manager:
    folder = session.folder
    return Manager(session.network, folder.keys, organisation=folder.token, state=folder, staff=session.staff)


@managed.command("enrol")
def managed_enrol(network: NetworkOption = NETWORK, keys: KeysOption = KEYS, as_json: JsonOption = False) -> None:
    """Enrol a patient without a device; print the code with which the patient claims the identity one day."""

    async def work(session: Session) -> None:
        token, code = await _manager(session).enrol()
        if as_json:
            say(True, {"token": token, "code": code}, "")
            return
        import segno  # noqa: PLC0415

        print(f"token  {token}\ncode   {code}\nPrint the code for the patient, and keep no copy of it.")
        segno.make(code, error="m").terminal(border=2, compact=True)

    Session.run(network, work, keys=keys)


@managed.command("countersign")
def managed_countersign(
    request: Annotated[Path, typer.Argument(help="The claim to sign, from the patient's claim command.")],
    out: Annotated[Path, typer.Option(help="Where the signed claim goes.")],
    network: NetworkOption = NETWORK,
    keys: KeysOption = KEYS,
    as_json: JsonOption = False,
) -> None:
    """Sign a patient's claim: from then on the organisation's keys open nothing of it any more."""
    envelope = decode(read_file_bytes(request, "claim"), Envelope)

    async def work(session: Session) -> None:
        out.write_bytes(encode(await _manager(session).countersign(envelope)))
        say(as_json, {"signed": str(out)}, f"signed: {out}")

    Session.run(network, work, keys=keys)


@managed.command("claim")
def managed_claim(
    token: Annotated[str, typer.Argument(help="The token on the printed code's sheet.")],
    provider_keys: Annotated[
        Path | None, typer.Option(help="The provider's key folder, when the claim happens at its desk.")
    ] = None,
    exchange: Annotated[
        Path | None, typer.Option(help="A folder through which the provider countersigns (claim.json, signed.json).")
    ] = None,
    network: NetworkOption = NETWORK,
    keys: KeysOption = KEYS,
    as_json: JsonOption = False,
) -> None:
    """Take over your identity from the provider that managed it, with the printed code."""
    code: str = typer.prompt("Printed code", err=True)
    phrase = ask_passphrase(new=True)

    async def work(session: Session) -> None:
        async def countersign(envelope: Envelope) -> Envelope:
            if provider_keys is not None:
                folder = KeyFolder.open(provider_keys, passphrase=_provider_passphrase(), rand=os.urandom)
                desk = Manager(session.network, folder.keys, organisation=folder.token, state=folder)
                return await desk.countersign(envelope)
            if exchange is None:
                raise MalformedError(
                    "no-provider", "name --provider-keys or --exchange: the provider must sign the claim"
                )
            (exchange / "claim.json").write_bytes(encode(envelope))
            typer.prompt(
                f"Let the provider sign {exchange / 'claim.json'} into signed.json, then press Enter", default=""
            )
            return decode(read_file_bytes(exchange / "signed.json", "signed claim"), Envelope)

        enrolled, _ = await claim(
            session.network, keys, token=token, code=code, passphrase=phrase, countersign=countersign
        )
        show_kit(enrolled, as_json)

    Session.run(network, work)


def _provider_passphrase() -> str:
    given = os.environ.get("CARELEDGER_PROVIDER_PASSPHRASE")
    if given is not None:
        return given
    phrase: str = typer.prompt("Provider's passphrase", hide_input=True, err=True)
    return phrase


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(node, name="node")
    app.add_typer(network_commands, name="network")
    app.add_typer(organisation, name="organisation")
    app.add_typer(managed, name="managed")
