"""`careledger engine`: the software that orders the directory by Byzantine agreement, found or built."""

from __future__ import annotations

import typer

__all__ = ["register"]

engine = typer.Typer(no_args_is_help=True, help="CometBFT, which orders the directory of a network of many members.")


@engine.command()
def install() -> None:
    """Build CometBFT for this user, unless the right version is at hand; prints its path. Takes a minute or two."""
    from careledger.directory.engines.cometbft.install import install_engine  # noqa: PLC0415

    typer.echo(install_engine())


@engine.command()
def show() -> None:
    """Print the path of the CometBFT that a node would start."""
    from careledger.directory.engines.cometbft.install import find_engine  # noqa: PLC0415

    typer.echo(find_engine())


def register(app: typer.Typer) -> None:
    """Add the commands to `careledger`."""
    app.add_typer(engine, name="engine")
