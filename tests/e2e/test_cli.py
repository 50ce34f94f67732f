"""A whole story through the command line, on four `careledger node run` processes: what people type, and what they see.

Commands run in this process, as the entry point runs them; the nodes are processes of their own.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from careledger.cli import app as commands
from careledger.fhir import demo_patients

CARELEDGER = Path(sys.executable).parent / "careledger"
TOKEN = re.compile(r"cl1[02-9ac-hj-np-z]{46}")


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    """Runs commands in a folder, with a passphrase in the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"CARELEDGER_PASSPHRASE": "correct horse"}

    def __call__(self, *words: str, stdin: str = "", **environment: str) -> Done:
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
        before = os.environ.copy(), sys.argv, sys.stdin, Path.cwd()
        os.environ.update({**self.environment, **environment})
        sys.argv, sys.stdin = ["careledger", *words], io.StringIO(stdin)
        os.chdir(self.folder)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
                commands.run()
        finally:
            os.environ.clear()
            os.environ.update(before[0])
            sys.argv, sys.stdin = before[1], before[2]
            os.chdir(before[3])
        for stream in (out, err):
            stream.flush()
            stream.seek(0)
        code = ended.value.code
        return Done(0 if code is None else int(code), out.read(), err.read())

    def ok(self, *words: str, **more: str) -> Done:
        done = self(*words, **more)
        assert done.code == 0, f"{words}: {done.err or done.out}"
        return done

    def refused(self, code: str, *words: str, exit_code: int = 1, **more: str) -> Done:
        """It ends with one line that names the reason code, and nothing on stdout."""
        done = self(*words, **more)
        # A prompt leaves its last blank on stdout, and no line break when nobody types one.
        assert (done.code, done.out.strip()) == (exit_code, ""), f"{words}: {done}"
        lines = [line for line in done.err.splitlines() if "careledger: " in line]
        assert len(lines) == 1, done.err
        assert lines[0].endswith(f"[{code}]"), done.err
        assert "Traceback" not in done.err
        return done


class Village(Shell):
    """Four organisations with a node each, founded and run by commands alone."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ports = _free_ports(4)
        for number, port in enumerate(self.ports, start=1):
            self.ok("node", "init", f"n{number}", "--url", f"http://127.0.0.1:{port}", "--port", str(port))
            parts = ("organisation", "new", f"n{number}/part.json", "--out", f"m{number}.json", "--licensor")
            self.ok(*parts, "--keys", f"org{number}", "--json")
        self.ok("network", "found", *(f"m{number}.json" for number in range(1, 5)))
        self.ok("network", "file", "genesis.json")
        self.nodes: list[subprocess.Popen[bytes]] = []
        for number in range(1, 5):
            self.ok("node", "join", f"n{number}", "genesis.json")
            with (folder / f"n{number}.log").open("wb") as log:
                self.nodes.append(
                    subprocess.Popen(
                        [CARELEDGER, "node", "run", f"n{number}"],
                        cwd=folder,
                        stderr=log,
                        stdout=log,
                        stdin=subprocess.DEVNULL,
                    )
                )
        for port in self.ports:
            self.wait_for(port)
        for number in range(1, 5):
            done = self.ok("organisation", "publish", "--keys", f"org{number}", "--json")
            assert done.json["nodes"] == 4

    def get(self, port: int, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            data: bytes = answer.read()
        return data.decode()

    def wait_for(self, port: int) -> None:
        """Until the node serves and is in touch with its peers."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if len(json.loads(self.get(port, "/health"))["peers_in_touch"]) == 3:
                    return
            time.sleep(0.05)
        raise AssertionError(f"no node at {port}: {[one.poll() for one in self.nodes]}")

    def stop(self) -> list[int]:
        for node in self.nodes:
            node.terminate()
        return [node.wait(20) for node in self.nodes]


def _resources(bundle: Path) -> set[str]:
    return {json.dumps(one["resource"], sort_keys=True) for one in json.loads(bundle.read_bytes())["entry"]}


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    registered = commands._register_people
    registered()
    commands._register_people = lambda: None
    place = tmp_path_factory.mktemp("village")
    village = Village(place)
    try:
        yield village
    finally:
        commands._register_people = registered
        for node in village.nodes:
            if node.poll() is None:
                node.kill()
                node.wait()


@pytest.mark.slow
def test_the_whole_story_through_the_command_line(village: Village) -> None:
    shell, folder = village, village.folder
    for name, data in demo_patients():
        (folder / name).write_bytes(data)
    chart = "adult.json"

    # People
    patient = shell.ok("identity", "new", "patient", "--keys", "pat", "--json").json
    doctor = shell.ok("identity", "new", "person", "--keys", "doc", "--json").json["token"]
    shell.refused("folder-in-use", "identity", "new", "person", "--keys", "doc")
    shown = shell.ok("identity", "show", "--keys", "pat", "--json").json
    assert (shown["token"], shown["state"]["status"]) == (patient["token"], "active")
    shell.ok("organisation", "license", doctor, "--role", "physician", "--keys", "org1")
    shell.ok("organisation", "pass", doctor, "--role", "physician", "--out", "pass1", "--keys", "org1")
    clinician = ("--keys", "doc", "--pass", "pass1")

    # Import, twice
    first = shell.ok("import", chart, "--keys", "pat")
    assert re.search(r"\d+ records", first.out)
    assert "free text, scans, images and local codes are in ordinary compartments" in first.out
    second = shell.ok("import", chart, "--keys", "pat")
    assert "already kept" in second.out
    assert "Nothing to do." in second.out
    assert "free text" not in second.out
    misspelt = shell("import", chart, "--default-compartment", "mentals", "--keys", "pat")
    assert misspelt.code == 2
    assert "mental, sexual" in misspelt.err.replace("\n", " ")

    # The network at a glance
    status = shell.ok("network", "status", "--json").json
    assert (status["well"], status["disagree_at"], len(status["nodes"])) == (True, [], 4)
    assert "all well" in shell.ok("network", "status").out

    # Refused, granted, opened
    shell.refused("no-grant", "list", patient["token"], *clinician)
    granted = shell.ok("grant", doctor, "--categories", "all", "--keys", "pat", "--json").json
    assert granted["effective"]
    listed = shell.ok("list", patient["token"], *clinician, "--json").json["records"]
    assert listed
    opened = shell.ok("open", patient["token"], *clinician, "--out", "opened.json")
    assert f"{len(listed)} records" in opened.out
    original = {
        json.dumps(one["resource"], sort_keys=True) for one in json.loads((folder / chart).read_bytes())["entry"]
    }
    bundle = {
        json.dumps(one["resource"], sort_keys=True)
        for one in json.loads((folder / "opened.json").read_bytes())["entry"]
    }
    assert original <= bundle
    one = listed[0]["record"]
    to_stdout = shell.ok("open", patient["token"], one, *clinician)
    assert json.loads(to_stdout.out)["resourceType"] == "Bundle"

    # Revoked
    (standing,) = shell.ok("grants", "--keys", "pat", "--json").json["grants"]
    assert (standing["grant"], standing["status"]) == (granted["grant"], "stands")
    revoked = shell.ok("revoke", granted["grant"], "--keys", "pat", "--json").json
    assert revoked["effective"]
    shell.refused("already-revoked", "revoke", granted["grant"], "--keys", "pat")
    shell.refused("revoked", "open", patient["token"], one, *clinician)
    assert "revoked" in shell.ok("grants", "--keys", "pat").out
    filed = shell.ok("file", one, "private", "--keys", "pat", "--json").json
    assert filed["effective"]

    # Audit and export
    trail = shell.ok("audit", "--keys", "pat", "--json").json
    assert trail["complete"]
    readers = {access["reader"] for access in trail["accesses"]}
    assert doctor in readers
    verdicts = {"/".join(verdict) for access in trail["accesses"] for _, *verdict in access["nodes"].values()}
    assert verdicts >= {"allow/grant", "deny/no-grant", "deny/revoked"}
    assert "REFUSED (no-grant)" in shell.ok("audit", "--keys", "pat").out
    exported = shell.ok("export", "out", "--keys", "pat", "--json").json
    assert exported["records"] == len(listed)
    verified = shell.ok("verify", "out", "--json").json
    assert verified["ok"]
    copy = bytearray((folder / "out" / Path(exported["files"][0]).name).read_bytes())
    copy[len(copy) // 2] ^= 1
    (folder / "out" / Path(exported["files"][0]).name).write_bytes(bytes(copy))
    spoiled = shell("verify", "out", "--json")
    assert spoiled.code == 1
    assert not spoiled.json["ok"]

    # Wrong passphrase, no passphrase, wrong words
    shell.refused("wrong-passphrase", "grants", "--keys", "pat", CARELEDGER_PASSPHRASE="wrong")
    shell.refused("no-keys", "grants", "--keys", "nowhere")
    shell.refused("no-file", "grants", "--keys", "pat", "--network", "nothing.json")
    shell.refused("unknown-category", "grant", doctor, "--categories", "colour", "--keys", "pat")
    shell.refused("unknown-grant", "revoke", "00" * 16, "--keys", "pat")
    for words in (("file", "zz", "private"), ("open", patient["token"], "zz")):
        assert shell(*words, "--keys", "pat").code in (1, 2)
        assert "[bug]" not in shell(*words, "--keys", "pat").err
    unknown = "00" * 16
    assert "[bug]" not in shell("file", unknown, "private", "--keys", "pat").err

    # A patient without a device, who claims the identity later
    managed = shell.ok("managed", "enrol", "--keys", "org1", "--json").json
    shell.refused("wrong-kit", "managed", "claim", managed["token"], "--keys", "claimed", stdin=f"{patient['kit']}\n")
    claimed = shell.ok(
        "managed",
        "claim",
        managed["token"],
        "--provider-keys",
        "org1",
        "--keys",
        "claimed",
        "--json",
        stdin=f"{managed['code']}\n",
        CARELEDGER_PROVIDER_PASSPHRASE="correct horse",
        CARELEDGER_PASSPHRASE="my own",
    ).json
    assert claimed["token"] == managed["token"]
    assert claimed["kit"] != managed["code"]
    shell.ok(
        "import",
        "child.json" if (folder / "child.json").exists() else chart,
        "--keys",
        "claimed",
        CARELEDGER_PASSPHRASE="my own",
    )

    # Rotation
    shell.refused("wrong-kit", "identity", "rotate", "--keys", "pat", stdin=f"{claimed['kit']}\n")
    rotated = shell.ok("identity", "rotate", "--keys", "pat", "--json", stdin=f"{patient['kit']}\n").json
    assert rotated["keyid"].startswith(patient["token"])
    assert not rotated["keyid"].endswith("#0")
    again = shell.ok("grant", doctor, "--categories", "all", "--keys", "pat", "--json").json
    assert again["effective"]
    assert shell.ok("list", patient["token"], *clinician, "--json").json["records"]

    # The logs: served, and offline
    served = shell.ok("verify", f"http://127.0.0.1:{village.ports[0]}/log", "--genesis", "genesis.json", "--json").json
    assert served["report"]["size"] > 10
    people = {patient["token"], doctor, managed["token"]}
    metrics = "".join(village.get(port, "/metrics") + village.get(port, "/health") for port in village.ports)
    assert village.stop() == [0, 0, 0, 0]
    assert "verified" in shell.ok("verify", ".").out
    logs = "".join((folder / f"n{number}.log").read_text() for number in range(1, 5))
    assert '"bug"' not in logs

    # No personal data in what operators see (DESIGN 5.5, issue 4)
    for token in people:
        assert token not in metrics
        assert token not in logs
    records = {row["record"] for row in listed} | {granted["grant"]}
    assert not any(record in metrics or record in logs for record in records)
    nodes = {json.loads((folder / f"n{number}/node.json").read_text())["token"] for number in range(1, 5)}
    members = {
        json.loads(
            shell.ok(
                "network", "found", *(f"m{number}.json" for number in range(1, 5)), "--out", "again.json", "--json"
            ).out
        )["members"][number]
        for number in range(4)
    }
    assert set(TOKEN.findall(metrics + logs)) <= nodes | members


def test_a_node_that_does_not_answer_is_an_error_of_one_line(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.ok("node", "init", "n1", "--url", "http://127.0.0.1:9", "--port", "9")
    shell.ok("organisation", "new", "n1/part.json", "--keys", "org1", "--json")
    shell.ok("network", "found", "member.json")
    shell.ok("network", "file", "genesis.json")
    done = shell("identity", "new", "patient", "--keys", "pat")
    assert done.code == 1
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "pat").exists(), "nobody has seen the kit of these keys, and the next try needs the place"
