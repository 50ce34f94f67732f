"""`careledger verify`: offline verification of what lies at a path, or of a log at a URL. Exit 0 only if all holds."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from careledger.cli.session import JsonOption
from careledger.errors import Error, MalformedError, NotFoundError, UnavailableError
from careledger.tlog import Verifier, parse_unverified_checkpoint, parse_vkey
from careledger.verify import (
    Form,
    LogReport,
    NetworkReport,
    NodeReport,
    Trust,
    describe_file,
    describe_folder,
    folder_fetch,
    index_of,
    network_above,
    node_folders,
    trust_of_genesis,
    verify_checkpoint,
    verify_directory,
    verify_directory_proof,
    verify_export,
    verify_log,
    verify_network_folder,
    verify_node_folder,
    verify_receipt_file,
)

__all__ = ["register"]

Fetch = Callable[[str], bytes]
_FETCHED_MAX = 64 << 20
_TIMEOUT_S = 20


def _url_fetch(base: str) -> Fetch:
    """Files below a URL, read one by one."""

    def fetch(path: str) -> bytes:
        try:
            with urllib.request.urlopen(f"{base.rstrip('/')}/{path}", timeout=_TIMEOUT_S) as answer:  # noqa: S310
                data: bytes = answer.read(_FETCHED_MAX)
                return data
        except urllib.error.HTTPError as problem:
            if problem.code == 404:
                raise NotFoundError("not-found", f"{path} is not at {base}") from None
            raise UnavailableError("unreachable", f"{base} answered {problem.code} for {path}; try again") from None
        except OSError as problem:
            raise UnavailableError("unreachable", f"{base} cannot be read ({type(problem).__name__})") from None

    return fetch


class _Request(msgspec.Struct, frozen=True):
    """What to verify, and what the caller trusts."""

    target: str
    vkey: str | None
    genesis: bytes | None
    network: str | None
    cosignatures: int | None

    def trust(self) -> Trust | None:
        return None if self.genesis is None else trust_of_genesis(self.genesis, network=self.network)

    def needed_genesis(self, what: str) -> bytes:
        if self.genesis is None:
            raise typer.BadParameter(f"{what} is verified against a network: give its genesis with --genesis")
        return self.genesis

    def log_keys(self, origin: str, beside: Path | None) -> tuple[Verifier, dict[str, list[Verifier]], int]:
        """A log's key, its witnesses, and how many must have cosigned: by genesis, --vkey, or the file beside."""
        trust = self.trust()
        if trust is not None and self.vkey is None:
            node = origin.partition("/")[2]
            needed = trust.log_needed if self.cosignatures is None else self.cosignatures
            return trust.log(node), trust.witnesses(besides=node), needed
        text = self.vkey
        if text is None and beside is not None and beside.exists():
            text = beside.read_text(encoding="ascii").strip()
        if text is None:
            raise typer.BadParameter(
                "a log is verified with its key: give --vkey, or the network's genesis with --genesis"
            )
        return parse_vkey(text), {}, self.cosignatures or 0


def verify(
    target: Annotated[str, typer.Argument(help="A log, node, network or export folder, a receipt, a proof, or a URL.")],
    vkey: Annotated[
        str | None, typer.Option(help="The log's key; else log.vkey beside the folder, or --genesis.")
    ] = None,
    genesis: Annotated[Path | None, typer.Option(help="The network's genesis.json: whose keys to believe.")] = None,
    network: Annotated[str | None, typer.Option(help="The network's name, when you know it (you should).")] = None,
    cosignatures: Annotated[
        int | None, typer.Option(min=0, help="How many other members must have cosigned a log.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify without believing anybody's server; names the first entry that is wrong."""
    data = genesis.read_bytes() if genesis is not None else None
    request = _Request(target, vkey, data, network, cosignatures)
    try:
        form, report = _verified(request)
    except Error as problem:
        if not as_json:
            raise
        facts = {"ok": False, "code": problem.code, "message": problem.message, "index": index_of(problem)}
        print(msgspec.json.encode(facts).decode())
        raise typer.Exit(1) from None
    if as_json:
        print(msgspec.json.encode({"ok": True, "form": form, "report": report}).decode())
    else:
        print(_words(form, report))


def _verified(request: _Request) -> tuple[Form, object]:
    if request.target.startswith(("http://", "https://")):
        fetch = _url_fetch(request.target)
        return "log", _log(request, fetch, None)
    path = Path(request.target)
    if path.is_dir():
        form = describe_folder([one.name for one in path.iterdir()], lambda name: (path / name).read_bytes())
        return form, _folder(request, path, form)
    if not path.exists():
        raise NotFoundError("no-file", f"there is nothing at {path}; name a folder, a file or a URL")
    content = path.read_bytes()
    form = describe_file(content[:4096])
    return form, _file(request, path, content, form)


def _folder(request: _Request, path: Path, form: Form) -> object:
    if form in ("log", "node"):
        node = path if form == "node" else path.absolute().parent
        others = _others(node)
        # A copy is judged by the network it lies in, unless the caller says whose keys to believe.
        own_keys = request.vkey is not None or request.genesis is not None
        if not own_keys and (form == "node" or path.name == "log") and (others or (node / "genesis.json").exists()):
            return verify_node_folder(
                node, others=others, network=request.network, cosignatures_needed=request.cosignatures
            )
        return _log(request, folder_fetch(node / "log" if form == "node" else path), node / "log.vkey")
    if form == "network":
        return verify_network_folder(path, network=request.network, cosignatures_needed=request.cosignatures)
    if form == "export":
        return verify_export(folder_fetch(path), network=request.network)
    if form == "directory":
        genesis = request.needed_genesis("a directory")
        return verify_directory(
            folder_fetch(path), genesis, network=request.network, needed=request.cosignatures
        ).report
    raise MalformedError("unknown-form", f"{path} is not a folder that careledger can verify; see verify --help")


def _others(node: Path) -> list[Path]:
    """The folders of the network's nodes that lie beside a node's folder or above it, but for itself."""
    above = network_above(node)
    beside = [] if above is None else node_folders(above)
    return [one for one in beside if one.absolute() != node.absolute()]


def _file(request: _Request, path: Path, content: bytes, form: Form) -> object:
    if form == "export":
        return verify_export(folder_fetch(path.parent), network=request.network)
    if form == "receipt":
        trust = request.trust()
        if trust is None and request.vkey is None:
            raise typer.BadParameter("a receipt is verified with its log's key: give --genesis or --vkey")
        return verify_receipt_file(
            content, trust=trust, verifier=None if request.vkey is None else parse_vkey(request.vkey)
        )
    if form == "directory-proof":
        return verify_directory_proof(
            content, genesis=request.needed_genesis("a directory proof"), network=request.network
        )
    if form == "checkpoint":
        verifier, witnesses, _ = request.log_keys(parse_unverified_checkpoint(content).origin, None)
        return verify_checkpoint(content, verifier=verifier, witnesses=witnesses)
    raise MalformedError("unknown-form", f"{path} is not a file that careledger can verify; see verify --help")


def _log(request: _Request, fetch: Fetch, beside: Path | None) -> LogReport:
    origin = parse_unverified_checkpoint(fetch("checkpoint")).origin
    verifier, witnesses, needed = request.log_keys(origin, beside)
    return verify_log(fetch, verifier=verifier, witnesses=witnesses, cosignatures_needed=needed)


def _log_words(report: LogReport) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.items() if count)
    words = f"log {report.origin}: {report.size} entries ({kinds}), root {report.root[:16]}…, every one in its place"
    words += f"; cosigned by {len(report.cosigned)} others"
    if report.bodies:
        words += f"; {report.bodies} bodies, {report.signatures} signatures, {report.decisions} decisions again"
    return words


def _words(form: Form, report: object) -> str:
    if isinstance(report, LogReport):
        return f"verified: {_log_words(report)}"
    if isinstance(report, NodeReport):
        return f"verified: {_log_words(report.log)}"
    if isinstance(report, NetworkReport):
        return "\n".join(f"verified: {_log_words(one.log)}" for one in report.nodes)
    facts = msgspec.to_builtins(report)
    lines = [f"  {name}: {value}" for name, value in facts.items() if not isinstance(value, list | dict)]
    return "\n".join([f"verified: {form}", *lines])


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(verify)
