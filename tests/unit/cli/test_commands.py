"""The command line: every command explains itself; misuse ends with 2, a refusal or failure with 1, in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from careledger.cli import app as commands
from careledger.errors import NotPermittedError

TREE: Any = None


def _tree() -> Any:
    global TREE  # noqa: PLW0603 - the commands are registered once a process
    if TREE is None:
        commands._register_people()
        TREE = typer.main.get_command(commands.app)
    return TREE


def _paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _paths(child, (*path, name))


COMMANDS = dict(_paths(_tree()))


class Run:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self._monkeypatch.setattr("sys.argv", ["careledger", *words])
        with pytest.raises(SystemExit) as ended:
            commands.run()
        out, err = self._capsys.readouterr()
        code = ended.value.code
        return (0 if code is None else int(code)), out, err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.setattr(commands, "_register_people", lambda: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CARELEDGER_PASSPHRASE", raising=False)
    return Run(monkeypatch, capsys)


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path) or "careledger")
def test_every_command_explains_itself(run: Run, path: tuple[str, ...]) -> None:
    code, out, err = run(*path, "--help")
    assert (code, err) == (0, "")
    assert "Usage:" in out
    assert COMMANDS[path].help, f"{path} has no help"


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path) or "careledger")
def test_every_option_and_argument_is_explained(path: tuple[str, ...]) -> None:
    for parameter in COMMANDS[path].params:
        assert getattr(parameter, "help", None), f"careledger {' '.join(path)}: {parameter.name} is not explained"


def test_the_design_names_these_commands() -> None:
    wanted = {"demo", "node", "identity", "import", "grant", "revoke", "open", "audit", "export", "verify", "bench"}
    assert wanted <= {path[0] for path in COMMANDS if path}
    assert {("node", "init"), ("node", "run")} <= COMMANDS.keys()


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("identity", "nonsense"),
        ("grant",),
        ("demo", "--nodes", "3"),
        ("demo", "--engine", "nothing"),
        ("node", "init", "n1"),
        ("node", "init", "n1", "--url", "http://x", "--port", "70000"),
        ("identity", "new", "robot"),
        ("grants", "--colour"),
        ("verify",),
        ("verify", "--cosignatures", "-1", "x"),
    ],
)
def test_misuse_ends_with_2(run: Run, words: tuple[str, ...]) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("careledger: ")
    assert err.rstrip().endswith(" --help. [misuse]")
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("grants",), "no-file"),
        (("node", "run", "nowhere"), "no-node"),
        (("node", "join", "nowhere", "genesis.json"), "no-file"),
        (("network", "found", "member.json"), "no-file"),
        (("network", "file", "genesis.json"), "no-file"),
        (("verify", "nothing"), "no-file"),
        (("organisation", "new", "part.json"), "no-file"),
        (("identity", "new", "patient"), "no-passphrase"),
    ],
)
def test_a_refusal_is_one_line_that_ends_with_its_code(
    run: Run, words: tuple[str, ...], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", _NoTerminal())
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert err.startswith("careledger: ")
    assert err.rstrip().endswith(f"[{reason}]")
    assert len(err.strip().splitlines()) == 1


class _NoTerminal:
    @staticmethod
    def isatty() -> bool:
        return False


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 5000])
@pytest.mark.parametrize(
    "words",
    [
        ("grants", "--network", "file"),
        ("network", "found", "file"),
        ("organisation", "new", "file"),
        ("network", "file", "file"),
        ("managed", "countersign", "file", "--out", "o"),
    ],
)
def test_a_file_of_something_else_is_refused(run: Run, words: tuple[str, ...], content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    code, out, err = run(*words)
    if words == ("network", "file", "file"):
        assert code in (0, 1)
        return
    assert (code, out) == (1, "")
    assert "[bug]" not in err
    assert len(err.strip().splitlines()) == 1


def test_a_file_that_may_not_be_read_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "genesis.json").mkdir()
    code, _, err = run("network", "file", "genesis.json")
    assert code == 1
    assert "genesis.json" in err
    assert err.rstrip().endswith("[os]")


def test_machines_get_one_json_object(run: Run) -> None:
    code, out, err = run("node", "init", "n1", "--url", "http://127.0.0.1:1", "--json")
    assert (code, err) == (0, "")
    assert set(json.loads(out)) == {"token", "part"}
    code, out, err = run("node", "init", "n1", "--url", "http://127.0.0.1:1", "--json")
    assert (code, out) == (1, "")
    assert "[node-exists]" in err


def test_without_a_command_the_commands_are_shown(run: Run) -> None:
    for words in ((), ("identity",)):
        code, out, err = run(*words)
        assert code == 2
        assert "Usage:" in out
        assert err.startswith("careledger: name a command. See careledger")


def test_the_version_is_shown(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("careledger ")


def _failing(error: BaseException) -> Any:
    def fail(**_: Any) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (NotPermittedError("no-grant", "no"), 1, "careledger: no [no-grant]"),
        (KeyboardInterrupt(), 130, ""),
        (typer.Abort(), 130, "careledger: stopped"),
        (KeyError("Kowalczyk"), 1, "careledger: this is a bug (KeyError); run it again with --debug and"),
    ],
)
def test_what_a_command_raises_becomes_an_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    monkeypatch.setattr("careledger.cli.demo.run_demo", _failing(error))
    found, out, err = run("demo")
    assert (found, out) == (code, "")
    assert err.startswith(line)
    assert "Kowalczyk" not in err


def test_debug_shows_the_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("careledger.cli.demo.run_demo", _failing(KeyError("x")))
    monkeypatch.setattr("sys.argv", ["careledger", "--debug", "demo"])
    with pytest.raises(KeyError):
        commands.run()
