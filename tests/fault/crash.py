"""Kill nodes with SIGKILL at random moments under load, and look for anything acknowledged that is gone.

    python tests/fault/crash.py --kills 300 --networks 4 --seed 1

Each network is a local one of four nodes under a constant load of submissions, opens, grants and revocations. A seed
decides who is killed and when, and what the load does next; the scheduling of the operating system is not ours, so a
seed repeats the run, not every instant of it. Node processes are forked from one that has everything imported, so that
a restart costs tens of milliseconds; what runs in them is `careledger.node.run_node`, as everywhere. One kill in four
hits a node that is still starting.

Every answer of a node to a submission, consent event or access request is caught on the wire. After each kill, each
restart, and at the end, every receipt that a node ever gave must still be what its log has at that index; a released
share without such an entry is a failure; no record may lack its share, ciphertext or wrapping key; and
`careledger.verify` must find log and bodies in order. At the end of a network it must also find every signature and
decision right, and patient and clinician must open every record that was ever acknowledged. The last line printed is
JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import uvicorn.protocols.http.httptools_impl
import uvloop
from litestar import Litestar

from careledger.access import Receipt, decode_access_answer
from careledger.bench.world import Clinician, World, now_ms
from careledger.client import Owner
from careledger.client.network import Network
from careledger.client.nodes import network_file
from careledger.client.reader import Opened
from careledger.errors import Error, NotFoundError
from careledger.fhir import ReadOptions, demo_patients, read_file
from careledger.node import LocalNetwork, LocalNode
from careledger.node.process import run_node
from careledger.transport import Answer, Transport
from careledger.verify import folder_fetch, load_bodies, trust_of_genesis, verify_log, verify_network_folder

KILLS_A_NETWORK = 100
"""Logs stay short enough to be verified after each restart."""
SETTLE_S = 60.0
STOP_S = 10.0
_WARM = (uvicorn.protocols.http.httptools_impl, uvloop)
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
        Litestar([])  # imports what a node's first application would import
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
        self.cpu_s = 0.0

    def start(self, **_: object) -> None:
        self.pid = self._nursery.start(self.folder)

    @property
    def running(self) -> bool:
        return self.pid != 0 and Path(f"/proc/{self.pid}").exists()

    def kill(self) -> None:
        if self.pid:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
                self.cpu_s += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                os.kill(self.pid, signal.SIGKILL)
            while self.running:
                time.sleep(0.0005)
            self.pid = 0

    def stop(self) -> int:
        """SIGTERM, and wait: a node that may finish leaves a log that others' cosignatures don't run ahead of."""
        os.kill(self.pid, signal.SIGTERM)
        end = time.monotonic() + STOP_S
        while self.running and time.monotonic() < end:
            time.sleep(0.01)
        self.kill()
        return 0


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


class Checker:
    """What is wrong with a node, given what it acknowledged; nothing, if all is well."""

    def __init__(self, local: LocalNetwork, given: Given) -> None:
        self._local = local
        self._given = given
        self._trust = trust_of_genesis(local.genesis, network=local.network)

    def problems(self, node: LocalNode) -> list[str]:
        """Of a node that is dead or runs."""
        return [f"{node.name}: {problem}" for problem in (*self._lost(node), *self._incomplete(node), *self._log(node))]

    def _lost(self, node: LocalNode) -> list[str]:
        found = []
        store = _read_only(node.folder / "store" / "main.db")
        try:
            for salt, body, shares in self._given.receipts.get(node.url, []):
                index = msgspec.json.decode(body, type=_Index).index
                row = store.execute("SELECT salt, body FROM entries WHERE idx = ?", (index,)).fetchone()
                if row != (salt, body):
                    what = "a share was released without its entry" if shares else "an acknowledged entry is lost"
                    found.append(f"{what} (index {index})")
        finally:
            store.close()
        return found

    @staticmethod
    def _incomplete(node: LocalNode) -> list[str]:
        """Half-done effects: entries beside the tree, records without share, ciphertext or key …"""
        store = _read_only(node.folder / "store" / "main.db")
        keys = str(node.folder / "store" / "keys.db")
        try:
            store.execute("ATTACH ? AS k", (f"file:{keys}?mode=ro",))
            found = []
            for what, sql in (
                ("log size", "SELECT coalesce((SELECT size FROM log), 0) != (SELECT count(*) FROM entries)"),
                ("gap", "SELECT coalesce(max(idx) + 1, 0) != count(*) FROM entries"),
                ("blob", "SELECT count(*) FROM records LEFT JOIN blobs USING(entry) WHERE blobs.entry IS NULL"),
                ("key", "SELECT count(*) FROM records LEFT JOIN k.wrapping w USING(entry) WHERE w.entry IS NULL"),
                ("record", "SELECT count(*) FROM records r LEFT JOIN entries e ON e.idx = r.entry WHERE e.idx IS NULL"),
                ("event", "SELECT count(*) FROM consent c LEFT JOIN entries e ON e.idx = c.entry WHERE e.idx IS NULL"),
                ("submission", "SELECT count(*) FROM submissions WHERE id NOT IN (SELECT submission FROM records)"),
            ):
                if store.execute(sql).fetchone()[0]:
                    found.append(f"half done: {what}")
            return found
        finally:
            store.close()

    def _log(self, node: LocalNode) -> list[str]:
        """The published log with its bodies; read once more when a running node published meanwhile."""
        checkpoint = node.folder / "log" / "checkpoint"
        for _ in range(20):
            note = checkpoint.read_bytes() if checkpoint.exists() else b""
            try:
                with load_bodies(node.folder / "store" / "main.db") as store:
                    verify_log(
                        folder_fetch(node.folder / "log"),
                        verifier=self._trust.log(node.token),
                        witnesses=self._trust.witnesses(besides=node.token),
                        bodies=store.bodies,
                    )
            except NotFoundError:
                if not note:
                    return []
                problem = "verify: there is no checkpoint any more"
            except Error as error:
                problem = f"verify: {error}"
            else:
                return []
            if not node.running or (checkpoint.exists() and checkpoint.read_bytes() == note):
                return [problem]
        return ["verify: the log is never the same twice"]


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)


class Load:
    """The clients: one author, two readers, one patient, who try again whatever fails."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.seed = seed
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

    def tasks(self) -> list[asyncio.Task[None]]:
        """Start the load."""
        steps = (self._write, self._read, self._read, self._consent)
        rngs = [random.Random(f"{self.seed} {number}") for number in range(len(steps))]
        return [asyncio.create_task(step(rng)) for step, rng in zip(steps, rngs, strict=True)]

    async def _try(self, step: str, call: Awaitable[object]) -> object:
        try:
            return await call
        except Error as error:
            self.errors[f"{step} {error.code}"] = self.errors.get(f"{step} {error.code}", 0) + 1
        except asyncio.CancelledError:
            raise
        except Exception as bug:
            self.bugs.append(f"{step}: {bug!r}")
        await asyncio.sleep(0.1)
        return None

    async def _write(self, rng: random.Random) -> None:
        drafts = list(self.reading.records)
        while True:
            chosen = rng.sample(drafts, 3)
            reading = msgspec.structs.replace(self.reading, records=chosen, patient=None)
            self.author.author.state.save(f"kept.{self.patient.subject}", ({}, {}))
            done = await self._try("import", self.author.author.import_reading(self.patient.subject, reading))
            if done is not None:
                self.records += [bytes.fromhex(one) for sent in done.sent for one in sent.records]  # type: ignore[attr-defined]

    async def _read(self, rng: random.Random) -> None:
        while True:
            if not self.records:
                await asyncio.sleep(0.01)
                continue
            chosen = rng.sample(self.records, min(3, len(self.records)))
            await self._try("open", self.clinician.reader.open(self.patient.subject, chosen, purpose="TREAT"))

    async def _consent(self, rng: random.Random) -> None:
        while True:
            await asyncio.sleep(rng.uniform(0.0, 0.1))
            granted = await self._try("grant", self.world.let_read(self.patient, self.clinician.keys.token, ["bills"]))
            if granted is not None:
                await self._try("revoke", self.patient.revoke(str(granted)))
                await self._try("grants", self.clinician.reader.grants(self.patient.subject, fresh=True))

    async def opens_again(self) -> list[str]:
        """Once all nodes are up and have synced: every acknowledged record opens, for its subject and for a reader.

        Returns what does not.
        """
        subject, wanted = self.patient.subject, list(dict.fromkeys(self.records))
        owner, reader = Owner(self.patient), self.clinician.reader
        missing = await self._missing(wanted, owner.open)
        missing += await self._missing(wanted, lambda part: reader.open(subject, part, purpose="TREAT"))
        return missing

    @staticmethod
    async def _missing(wanted: Sequence[bytes], call: Callable[[list[bytes]], Awaitable[Opened]]) -> list[str]:
        end = time.monotonic() + SETTLE_S
        left = list(wanted)
        problem = ""
        while left and time.monotonic() < end:
            part = left[:100]
            try:
                opened = await call(part)
            except Error as error:
                problem = str(error)
            else:
                problem = "; ".join(str(error) for _, error in opened.failed)
                got = {record.record for record in opened.records}
                left = [one for one in left if one not in got]
            if problem:
                await asyncio.sleep(0.2)
        return [f"{len(left)} acknowledged records do not open: {problem}"] if left else []


class Killer:
    """Decides whom to kill and when; kills, checks, starts again."""

    def __init__(self, local: LocalNetwork, checker: Checker, seed: int) -> None:
        self._local = local
        self._checker = checker
        self._rng = random.Random(f"{seed} kills")
        self.done = 0
        self.problems: list[str] = []

    async def kill(self, nodes: Sequence[LocalNode]) -> None:
        """Kill these, a few milliseconds apart, and check what they leave."""
        for node in nodes:
            node.kill()
            await asyncio.sleep(self._rng.uniform(0, 0.02))
        self.done += len(nodes)
        self.check(nodes)

    def check(self, nodes: Sequence[LocalNode]) -> None:
        """Note what is wrong with these."""
        for node in nodes:
            self.problems += self._checker.problems(node)

    async def run(self, kills: int) -> None:
        """Until `kills` are done, or something is wrong."""
        rng, nodes = self._rng, self._local.nodes
        while self.done < kills and not self.problems:
            await asyncio.sleep(rng.uniform(0.02, 0.5))
            chosen = rng.sample(nodes, min(kills - self.done, rng.choice((1, 1, 2, 2, 3, 4))))
            await self.kill(chosen)
            for node in chosen:
                node.start()
            if self.done < kills and rng.random() < 0.5:
                await asyncio.sleep(rng.uniform(0.0, 0.4))
                again = rng.choice(chosen)
                await self.kill([again])
                again.start()
            await self._local.wait_until_serving()
            self.check(chosen)


async def one_network(folder: Path, nursery: Nursery, *, seed: int, kills: int) -> dict[str, object]:
    """Run one network until `kills` nodes were killed; returns counts and problems."""
    local = LocalNetwork.found(folder, now_ms=now_ms())
    nodes = [Forked(node, nursery) for node in local.nodes]
    local.nodes = list(nodes)
    given = Given()
    killer = Killer(local, Checker(local, given), seed)
    try:
        await local.start()
        async with World(local) as world:
            world.wire = WatchedWire(given)
            world.network = Network.from_file(
                network_file(local.genesis), wire=world.wire, now_ms=now_ms, rand=os.urandom
            )
            load = Load(world, seed)
            await load.prepare()
            tasks = load.tasks()
            await killer.run(kills)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            problems = killer.problems
            if not problems:
                problems += await load.opens_again()
        for node in nodes:
            node.stop()
        killer.check(nodes)
        if not problems:
            try:
                verify_network_folder(folder, network=local.network)
            except Error as error:
                problems.append(f"verify: {error}")
        return {
            "kills": killer.done,
            **given.counts,
            "records": len(load.records),
            "problems": problems,
            "bugs": load.bugs[:5],
            "errors": load.errors,
            "nodes_cpu_s": round(sum(node.cpu_s for node in nodes), 1),
        }
    finally:
        local.kill()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--networks", type=int, help=f"default: 4, and one for every {KILLS_A_NETWORK} kills")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep the networks' files here")
    arguments = parser.parse_args()
    networks = arguments.networks or max(4, -(-arguments.kills // KILLS_A_NETWORK))
    nursery = Nursery()
    started = time.monotonic()
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="careledger-crash-") as scratch:
        for number in range(networks):
            share = arguments.kills // networks + (number < arguments.kills % networks)
            folder = (arguments.folder or Path(scratch)) / f"network-{number}"
            seed = arguments.seed + number
            result = asyncio.run(one_network(folder, nursery, seed=seed, kills=share))
            print(f"seed {seed}: {json.dumps(result)}", flush=True)
            results.append(result)
            if result["problems"] or result["bugs"]:
                break
            if arguments.folder is None:
                shutil.rmtree(folder)
    nursery.close()
    total: dict[str, object] = {}
    for name in ("kills", "submissions", "releases", "consent_events", "denials", "records"):
        total[name] = sum(int(str(result[name])) for result in results)
    for name in ("problems", "bugs"):
        total[name] = [one for result in results for one in result[name]]  # type: ignore[attr-defined]
    nodes_cpu_s = sum(float(str(result["nodes_cpu_s"])) for result in results)
    total |= {
        "networks": len(results),
        "seed": arguments.seed,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(nodes_cpu_s + time.process_time(), 1),
    }
    print(json.dumps(total))
    return 1 if total["problems"] or total["bugs"] else 0


if __name__ == "__main__":
    sys.exit(main())
