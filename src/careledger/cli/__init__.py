"""The command line: parses, calls, prints. The one place that writes to the terminal and sets the exit code."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """The entry point of `careledger`."""
    from careledger.cli.app import run  # noqa: PLC0415 - keeps `import careledger.cli` free of the terminal's libraries

    run()
