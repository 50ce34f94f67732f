"""Kill nodes with SIGKILL at random moments under load, and look for anything acknowledged that is gone.

    python tests/fault/crash.py --kills 300 --networks 4 --seed 1

Each network is a local one of four nodes under a constant load of submissions, opens, grants and revocations. A seed
decides who is killed and when, and what the load does next; the scheduling of the operating system is not ours, so a
seed repeats the run, not every instant of it. Node processes are forked from one that has everything imported, so that
a restart costs tens of milliseconds; what runs in them is `careledger.node.run_node`, as everywhere.

Every answer of a node to a submission, consent event or access request is caught on the wire. After each restart, and
at the end, every receipt that a node ever gave must still be what its log has at that index; a released share without
such an entry is a failure; `careledger.verify` must find the log in order. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from careledger.access import Receipt, decode_access_answer
from careledger.bench.world import Clinician, World, now_ms
from careledger.client import Patient
from careledger.client.network import Network
from careledger.client.nodes import network_file
from careledger.errors import Error
from careledger.fhir import ReadOptions, demo_patients, read_file
from careledger.node import LocalNetwork, LocalNode
from careledger.node.process import run_node
from careledger.tlog import parse_unverified_checkpoint, parse_vkey, verify_log
from careledger.transport import Answer, Transport

_receipt = msgspec.msgpack.Decoder(Receipt)
_consent = msgspec.msgpack.Decoder(tuple[list[Receipt], int, str])


class Nursery:
    """A process that has everything imported and forks nodes on request. Started before any thread or event loop."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            self._serve(theirs)
        theirs.close()
        self._channel = ours.makefile("rw")

    @staticmethod
    def _serve(channel: socket.socket) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        lines = channel.makefile("rw")
        for line in lines:
            folder = Path(line.strip())
            pid = os.fork()
            if pid == 0:
                with (folder / "node.log").open("ab") as output:
                    os.dup2(output.fileno(), 1)
                    os.dup2(output.fileno(), 2)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                channel.close()
                code = 0
                try:
                    run_node(folder, parent=os.getppid())
                except BaseException as error:
                    print(f"careledger: {error!r}", file=sys.stderr, flush=True)
                    code = 1
                os._exit(code)
            lines.write(f"{pid}\n")
            lines.flush()
        os._exit(0)

    def start(self, folder: Path) -> int:
        """Fork a node for a folder; returns its pid."""
        self._channel.write(f"{folder}\n")
        self._channel.flush()
        return int(self._channel.readline())

    def close(self) -> None:
        self._channel.close()
        os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)


class Forked(LocalNode):
    """A node that the nursery forks; the same life as LocalNode's otherwise."""

    def __init__(self, node: LocalNode, nursery: Nursery) -> None:
        super().__init__(node.folder, node.url, node.token)
        self._nursery = nursery
        self.pid = 0

    def start(self, **_: object) -> None:
        self.pid = self._nursery.start(self.folder)

    @property
    def running(self) -> bool:
        return self.pid != 0 and Path(f"/proc/{self.pid}").exists()

    def kill(self) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            while self.running:
                time.sleep(0.0005)
            self.pid = 0


class Given:
    """Everything that nodes acknowledged, by node URL: (log index, salt, body, whether shares came with it)."""

    def __init__(self) -> None:
        self.receipts: dict[str, list[tuple[bytes, bytes, bool]]] = {}
        self.counts = {"submissions": 0, "releases": 0, "consent_events": 0, "denials": 0}

    def add(self, url: str, receipt: Receipt, *, shares: bool, kind: str) -> None:
        self.receipts.setdefault(url, []).append((receipt.salt, receipt.body, shares))
        self.counts[kind] += 1


class WatchedWire(Transport):
    """The client's transport, which notes every acknowledgement before the client sees it."""

    def __init__(self, given: Given) -> None:
        super().__init__(timeout_s=3.0)
        self._given = given

    async def request(
        self, method: str, url: str, path: str, body: bytes, *, content: str = "", timeout_s: float | None = None
    ) -> Answer:
        answer = await super().request(method, url, path, body, content=content, timeout_s=timeout_s)
        if path == "/v1/access" and answer.status in (200, 403) and answer.headers["content-type"].endswith("msgpack"):
            released = decode_access_answer(answer.body)
            kind = "releases" if released.denied is None else "denials"
            self._given.add(url, released.receipt, shares=bool(released.sealed), kind=kind)
        elif path == "/v1/submission" and answer.status == 200:
            self._given.add(url, _receipt.decode(answer.body), shares=False, kind="submissions")
        elif path == "/v1/consent" and answer.status == 200:
            for receipt in _consent.decode(answer.body)[0]:
                self._given.add(url, receipt, shares=False, kind="consent_events")
        return answer


class _Index(msgspec.Struct):
    index: int


def check_node(node: LocalNode, given: Given) -> list[str]:
    """What is wrong with a node's store and published log, given what it acknowledged; empty when nothing is."""
    problems: list[str] = []
    store = sqlite3.connect(f"file:{node.folder / 'store' / 'main.db'}?mode=ro", uri=True)
    try:
        for salt, body, shares in given.receipts.get(node.url, []):
            index = msgspec.json.decode(body, type=_Index).index
            row = store.execute("SELECT salt, body FROM entries WHERE idx = ?", (index,)).fetchone()
            if row != (salt, body):
                what = "a share was released without its entry" if shares else "an acknowledged entry is lost"
                problems.append(f"{node.name}: {what} (index {index})")
    finally:
        store.close()
    log = node.folder / "log"
    try:
        note = (log / "checkpoint").read_bytes()
    except FileNotFoundError:
        return problems
    checkpoint = parse_unverified_checkpoint(note)

    def fetch(path: str) -> bytes:
        from careledger.custody import read_log_file

        return read_log_file(log, path)

    from careledger.tlog import open_checkpoint

    try:
        open_checkpoint(note, verifier=parse_vkey((node.folder / "log.vkey").read_text().strip()))
        verify_log(fetch, size=checkpoint.size, root=checkpoint.root)
    except Error as error:
        problems.append(f"{node.name}: verify: {error}")
    return problems


class Load:
    """The clients: one author, one reader, one patient, who try again whatever fails."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.errors: dict[str, int] = {}
        self.bugs: list[str] = []
        self.records: list[bytes] = []

    async def prepare(self) -> None:
        world = self.world
        await world.begin()
        self.author: Clinician = await world.clinician(0)
        self.clinician: Clinician = await world.clinician(1)
        (self.patient,) = await world.patients(1)
        await world.let_write(self.patient, self.author.staff.organisation)
        self.grant = await world.let_read(self.patient, self.clinician.keys.token)
        name, data = demo_patients()[1]
        self.reading = read_file(name, [data], options=ReadOptions())

    async def _try(self, step: str, coroutine: object) -> object:
        try:
            return await coroutine  # type: ignore[misc]
        except Error as error:
            self.errors[f"{step} {error.code}"] = self.errors.get(f"{step} {error.code}", 0) + 1
        except asyncio.CancelledError:
            raise
        except Exception as bug:
            self.bugs.append(f"{step}: {bug!r}")
        await asyncio.sleep(0.01)
        return None

    async def write(self) -> None:
        drafts = list(self.reading.records)
        while True:
            chosen = self.rng.sample(drafts, 3)
            reading = msgspec.structs.replace(self.reading, records=chosen, patient=None)
            self.author.author.state.save(f"kept.{self.patient.subject}", ({}, {}))
            done = await self._try("import", self.author.author.import_reading(self.patient.subject, reading))
            if done is not None:
                self.records += [bytes.fromhex(one) for sent in done.sent for one in sent.records]  # type: ignore[attr-defined]

    async def read(self) -> None:
        while True:
            if not self.records:
                await asyncio.sleep(0.01)
                continue
            chosen = self.rng.sample(self.records, min(3, len(self.records)))
            await self._try("open", self.clinician.reader.open(self.patient.subject, chosen, purpose="TREAT"))

    async def consent(self) -> None:
        patient: Patient = self.patient
        while True:
            await asyncio.sleep(self.rng.uniform(0.0, 0.2))
            granted = await self._try("grant", self.world.let_read(patient, self.clinician.keys.token, ["bills"]))
            if granted is not None:
                await self._try("revoke", patient.revoke(str(granted)))
                await self._try("grants", self.clinician.reader.grants(patient.subject, fresh=True))


async def one_network(folder: Path, nursery: Nursery, *, seed: int, kills: int) -> dict[str, object]:
    """Run one network until `kills` nodes were killed; returns counts and problems."""
    rng = random.Random(seed)
    local = LocalNetwork.found(folder, now_ms=now_ms())
    local.nodes = [Forked(node, nursery) for node in local.nodes]
    given = Given()
    problems: list[str] = []
    done = 0
    try:
        await local.start()
        async with World(local) as world:
            world.wire = WatchedWire(given)
            world.network = Network.from_file(
                network_file(local.genesis), wire=world.wire, now_ms=now_ms, rand=os.urandom
            )
            load = Load(world, rng)
            await load.prepare()
            tasks = [asyncio.create_task(one) for one in (load.write(), load.read(), load.read(), load.consent())]
            while done < kills and not problems:
                await asyncio.sleep(rng.uniform(0.02, 0.6))
                chosen = rng.sample(local.nodes, min(kills - done, rng.choice((1, 1, 1, 2, 2, 4))))
                for node in chosen:
                    node.kill()
                    await asyncio.sleep(rng.uniform(0, 0.02))
                done += len(chosen)
                for node in chosen:
                    problems += check_node(node, given)
                    node.start()
                await local.wait_until_serving()
                for node in chosen:
                    problems += check_node(node, given)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for node in local.nodes:
            node.kill()
            problems += check_node(node, given)
        return {"kills": done, **given.counts, "problems": problems, "bugs": load.bugs[:5], "errors": load.errors}
    finally:
        local.kill()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--networks", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    nursery = Nursery()
    started = time.monotonic()
    total: dict[str, object] = {}
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="careledger-crash-") as scratch:
        for number in range(arguments.networks):
            share = arguments.kills // arguments.networks + (number < arguments.kills % arguments.networks)
            folder = (arguments.folder or Path(scratch)) / f"network-{number}"
            seed = arguments.seed + number
            result = asyncio.run(one_network(folder, nursery, seed=seed, kills=share))
            print(f"seed {seed}: {json.dumps(result)}", flush=True)
            results.append(result)
            if result["problems"] or result["bugs"]:
                break
    nursery.close()
    for name in ("kills", "submissions", "releases", "consent_events", "denials"):
        total[name] = sum(int(str(result[name])) for result in results)
    for name in ("problems", "bugs"):
        total[name] = [one for result in results for one in result[name]]  # type: ignore[attr-defined]
    total |= {"networks": len(results), "seed": arguments.seed, "seconds": round(time.monotonic() - started, 1)}
    print(json.dumps(total))
    return 1 if total["problems"] or total["bugs"] else 0


if __name__ == "__main__":
    sys.exit(main())
