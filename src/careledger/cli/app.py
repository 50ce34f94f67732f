"""The commands of `careledger`, and how their errors end: one line on stderr, exit code 1 for a refusal or failure,
2 for misuse; no traceback unless --debug."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import careledger
from careledger.errors import Error

__all__ = ["app", "run"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A decentralised, tamper-evident network for health records.",
)


# typer carries a click of its own from some version on: its classes are found through what it exports.
_MISUSE: type[Any] = typer.BadParameter.__mro__[2]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"careledger {careledger.__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A decentralised, tamper-evident network for health records."""


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="A FHIR R4 file, or a folder of them (.json, .json.gz); own samples when not given."),
    ] = None,
    nodes: Annotated[int, typer.Option(min=4, max=32, help="How many organisations, with a node each.")] = 4,
    folder: Annotated[Path | None, typer.Option(help="Keep the nodes' files here.")] = None,
    engine: Annotated[
        Literal["embedded", "cometbft"],
        typer.Option(help="Who orders the directory: one node (embedded), or all by agreement (cometbft)."),
    ] = "embedded",
    check: Annotated[
        bool, typer.Option("--check", help="Stop at the end; the last line is the facts as JSON.")
    ] = False,
) -> None:
    """Start a network and play the story: import, grant, open, refuse, revoke, audit, tamper, detect."""
    from careledger.cli.demo import run_demo  # noqa: PLC0415

    raise typer.Exit(run_demo(data=data, nodes=nodes, folder=folder, engine=engine, check=check, out=sys.stdout))


@app.command()
def bench(
    only: Annotated[list[str] | None, typer.Option(help="Only this measurement (may be repeated).")] = None,
    data: Annotated[Path | None, typer.Option(help="FHIR bundles for the import; own ones when not given.")] = None,
    profile: Annotated[bool, typer.Option(help="Also say where the time goes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The last line is one JSON object.")] = False,
) -> None:
    """Measure a network of separate processes on this machine."""
    from careledger.bench.running import run as measure  # noqa: PLC0415

    def progress(line: str) -> None:
        typer.echo(line, err=True)

    found = measure(only, folder=None, data=data, profile=profile, report=progress)
    typer.echo(json.dumps(found) if as_json else json.dumps(found, indent=1))


def _register_people() -> None:
    """The commands against a network; they need the client's libraries, which `demo` and `--help` of it do not."""
    from careledger.cli import engines, organisations, people, records, verifying  # noqa: PLC0415

    people.register(app)
    records.register(app)
    organisations.register(app)
    engines.register(app)
    verifying.register(app)


def run() -> None:
    """Run the command line and end the process with its exit code."""
    debug = "--debug" in sys.argv
    _register_people()
    try:
        code = app(standalone_mode=False, prog_name="careledger")
    except Error as error:
        if debug:
            raise
        _stop(f"careledger: {error}", error.exit_code)
    except _MISUSE as misuse:
        context = getattr(misuse, "ctx", None)
        where = "careledger" if context is None else context.command_path
        what = " ".join(misuse.format_message().split()).rstrip(".") or "name a command"
        _stop(f"careledger: {what}. See {where} --help. [misuse]", 2)
    except (typer.Abort, KeyboardInterrupt):
        _stop("careledger: stopped", 130)
    except OSError as error:
        if debug:
            raise
        where = f" {error.filename}" if error.filename else ""
        _stop(f"careledger:{where}: {error.strerror or type(error).__name__}. Check the path and its rights. [os]", 1)
    except Exception as bug:
        if debug:
            raise
        what = type(bug).__name__
        _stop(f"careledger: this is a bug ({what}); run it again with --debug and report what it prints. [bug]", 1)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _stop(line: str, code: int) -> None:
    print(line, file=sys.stderr)
    sys.exit(code)
