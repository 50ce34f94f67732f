"""What commands of people share: the network file, the key folder with its passphrase, today's staff pass, the output.

Nothing of this is remembered between commands but what the key folder keeps, encrypted.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from rich.console import Console

from careledger.client import KeyFolder, Network, Staff, decode_staff_pass, open_staff_pass
from careledger.errors import MalformedError, NotFoundError
from careledger.seal import unhex
from careledger.transport import Transport

__all__ = [
    "KEYS",
    "NETWORK",
    "JsonOption",
    "KeysOption",
    "NetworkOption",
    "PassOption",
    "Session",
    "ask_passphrase",
    "moment",
    "now_ms",
    "record_id",
    "say",
]

T = TypeVar("T")

NetworkOption = Annotated[
    Path, typer.Option("--network", envvar="CARELEDGER_NETWORK", help="The network file.", show_default=True)
]
KeysOption = Annotated[
    Path, typer.Option("--keys", envvar="CARELEDGER_KEYS", help="The folder with your keys.", show_default=True)
]
PassOption = Annotated[
    Path | None, typer.Option("--pass", envvar="CARELEDGER_PASS", help="Today's staff pass of your organisation.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of words.")]

KEYS = Path("keys")
NETWORK = Path("network.json")

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
"""Without markup: a reason code in brackets is to be read, not to be taken for a style."""


def now_ms() -> int:
    """The wall clock, ms UTC."""
    return time.time_ns() // 1_000_000


def moment(time_ms: int) -> str:
    """A time for people: UTC, to the second."""
    return datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def say(as_json: bool, facts: object, words: str) -> None:
    """Print the result of a command on stdout: facts for machines, or words for people."""
    print(msgspec.json.encode(facts).decode() if as_json else words)


def ask_passphrase(*, new: bool = False) -> str:
    """From CARELEDGER_PASSPHRASE, else asked for on the terminal (twice when new). Raises MalformedError."""
    given = os.environ.get("CARELEDGER_PASSPHRASE")
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise MalformedError(
            "no-passphrase", "there is no terminal to ask for the passphrase on: set CARELEDGER_PASSPHRASE"
        )
    phrase: str = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=new, err=True)
    return phrase


def record_id(text: str) -> bytes:
    """A record's id as people type it; raises MalformedError `bad-record-id`."""
    try:
        return unhex(text, size=16)
    except MalformedError:
        raise MalformedError(
            "bad-record-id", "a record's id has 32 digits 0-9 a-f; careledger list shows them"
        ) from None


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine on uvloop where there is one, as the nodes do."""
    try:
        import uvloop  # noqa: PLC0415 - there is none on Windows
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


def read_file_bytes(path: Path, what: str) -> bytes:
    """A whole file; raises NotFoundError `no-file` with what it should have been."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFoundError("no-file", f"there is no {what} at {path}; name it with its option or variable") from None


class Session:
    """One command at work: `network` is connected, `keys` opened with the passphrase."""

    def __init__(self, network: Network, wire: Transport) -> None:
        self.network = network
        self.wire = wire
        self._folder: KeyFolder | None = None
        self.staff: Staff | None = None

    @property
    def folder(self) -> KeyFolder:
        """The opened key folder."""
        assert self._folder is not None, "a command that needs keys opens them"
        return self._folder

    def open_keys(self, path: Path) -> KeyFolder:
        """Open the key folder with the passphrase; refuses one of another network."""
        self._folder = KeyFolder.open(path, passphrase=ask_passphrase(), rand=os.urandom)
        if self._folder.network not in ("", self.network.id):
            raise MalformedError(
                "wrong-network",
                f"{path} belongs to network {self._folder.network[:16]}, the network file names {self.network.id[:16]}",
            )
        return self._folder

    async def open_pass(self, path: Path | None) -> Staff | None:
        """Open today's staff pass, where there is one."""
        if path is not None:
            data = read_file_bytes(path, "staff pass")
            self.staff = await open_staff_pass(decode_staff_pass(data), self.folder.keys, network=self.network)
        return self.staff

    @staticmethod
    def run(
        network_file: Path,
        work: Callable[[Session], Coroutine[Any, Any, T]],
        *,
        keys: Path | None = None,
        staff_pass: Path | None = None,
    ) -> T:
        """Open what a command needs, do its work, close the connections."""
        data = read_file_bytes(network_file, "network file")

        async def main() -> T:
            wire = Transport()
            try:
                session = Session(Network.from_file(data, wire=wire, now_ms=now_ms, rand=os.urandom), wire)
                if keys is not None:
                    session.open_keys(keys)
                await session.open_pass(staff_pass)
                return await work(session)
            finally:
                await wire.close()

        return run_loop(main())
