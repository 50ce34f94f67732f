"""The log alone, in this process, with the node's own writer, store and files: appending, publishing, verifying."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

from careledger.access import decode_entry, decode_receipt, leaf, request_of
from careledger.bench.figures import Goal, figure, rate
from careledger.bench.sizes import Sizes
from careledger.bench.stage import Kept, Stage
from careledger.bench.world import now_ms
from careledger.consent import ConsentState, replay
from careledger.custody import LogFiles, Store, Writer
from careledger.custody.writer import Batch, Plan
from careledger.identity import Affiliation, check_affiliation
from careledger.records import Manifest
from careledger.seal import Envelope, SigningKey, VerifyKey, decode
from careledger.tlog import (
    EMPTY_ROOT,
    Checkpoint,
    Signer,
    open_checkpoint,
    parse_proof,
    sign_checkpoint,
    tail_of_entries,
    verify_log,
)

__all__ = ["Appending", "Publishing", "Verifying"]

BODY_BYTES = 600
BATCH = 256
WRITERS = 64
_PUBLISHED_EVERY = 16
"""Batches between two writings of tiles, as in a node that publishes a few times a second under this load."""


class _Entries:
    """One job: a batch of entries of the size of an ordinary body."""

    def __init__(self, bodies: Sequence[bytes], *, light: bool) -> None:
        self._bodies = bodies
        self.light = light

    def plan(self, batch: Batch) -> Plan:
        return Plan(entries=[("access", os.urandom(32), body, None) for body in self._bodies], answer=batch.index)


class _Log:
    """A node's writer and files without the node."""

    def __init__(self, folder: Path) -> None:
        self.signer = Signer("bench.example/log", SigningKey(bytes(range(32))))
        self.store = Store(folder / "store")
        self.files = LogFiles(folder / "log", self.store, verifier=self.signer.verifier)
        self.writer = Writer(self.store, checkpoint=self.sign, committed=self.files.add, forget=_nothing_to_forget)

    def sign(self, size: int, root: bytes) -> bytes:
        return sign_checkpoint(Checkpoint(self.signer.name, size, root), signer=self.signer)

    async def close(self) -> None:
        await self.writer.drain()
        self.store.close()


def _nothing_to_forget() -> None:
    """A job of the bench changes nothing but the log."""


class Appending:
    """Batches of 256 entries through the writer, two waiting at any time; tiles written, every batch synced and its
    checkpoint signed."""

    name = "append_entries_per_s"
    goal = Goal(">= 50000", 50_000, at_least=True)

    def __init__(self) -> None:
        self._rates: list[float] = []

    async def round(self, folder: Path, sizes: Sizes) -> None:
        log = _Log(folder)
        batch = min(BATCH, sizes.appended)
        bodies = [os.urandom(BODY_BYTES) for _ in range(batch)]
        count = sizes.appended // batch
        started = time.perf_counter()
        waiting = log.writer.submit(_Entries(bodies, light=False))
        for at in range(1, count):
            coming = log.writer.submit(_Entries(bodies, light=False))
            await waiting
            waiting = coming
            if at % _PUBLISHED_EVERY == 0:
                log.files.write()
        await waiting
        size, root = log.files.write()
        self._rates.append(size / (time.perf_counter() - started))
        log.files.publish(log.sign(size, root))
        await log.close()

    def result(self) -> dict[str, Any]:
        return rate(self._rates, unit="entries/s", goal=self.goal, body_bytes=BODY_BYTES, batch=BATCH)


class Publishing:
    """64 writers of single entries: from handing an entry in to holding a signed checkpoint that covers it, on disk."""

    name = "published"
    goal = Goal("p99 <= 10 ms", 10)

    def __init__(self) -> None:
        self._rounds: list[list[float]] = []

    async def round(self, folder: Path, sizes: Sizes) -> None:
        log = _Log(folder)
        verifier = log.signer.verifier
        took: list[float] = []
        ends = time.perf_counter() + sizes.seconds / 2

        async def one() -> None:
            body = os.urandom(BODY_BYTES)
            while (started := time.perf_counter()) < ends:
                index, committed = await log.writer.submit(_Entries([body], light=True))
                took.append((time.perf_counter() - started) * 1000)
                assert committed is not None
                if len(took) % 97 == 0:
                    assert open_checkpoint(committed.checkpoint, verifier=verifier).size > index
                    assert parse_proof(committed.proof(index)).index == index

        await asyncio.gather(*(one() for _ in range(WRITERS)))
        await log.close()
        self._rounds.append(took)

    def result(self) -> dict[str, Any]:
        return figure(self._rounds, unit="ms", goal=self.goal, by="p99", writers=WRITERS)


class Verifying:
    """A whole log in memory: entries, leaf hashes, tiles of every level, root. Bodies apart: with signatures of the
    requests, and their decisions."""

    name = "verify_entries_per_s"
    goal = Goal(">= 500000", 500_000, at_least=True)

    def __init__(self) -> None:
        self._rates: list[float] = []
        self._bodies: list[float] = []
        self._decisions: list[float] = []
        self._files: dict[str, bytes] = {}
        self._size = 0
        self._root = EMPTY_ROOT
        self._replays = _Replays()

    async def prepare(self, stage: Stage, sizes: Sizes) -> None:
        """Make the log, and read some records so that there are real bodies of accesses."""
        entries = [leaf("access", bytes(32), b"%d" % number) for number in range(sizes.verified)]
        tail, self._files = tail_of_entries(entries)
        self._size, self._root = tail.size, tail.root()
        kept = await stage.patient()
        await stage.store(kept, sizes.stored)
        await self._replays.collect(stage, kept, sizes.bodies)

    async def round(self, stage: Stage, sizes: Sizes) -> None:
        started = time.perf_counter()
        verify_log(self._files.__getitem__, size=self._size, root=self._root)
        self._rates.append(self._size / (time.perf_counter() - started))
        with_signatures, decisions = self._replays.run()
        self._bodies.append(with_signatures)
        self._decisions.append(decisions)

    def result(self) -> dict[str, Any]:
        return rate(
            self._rates,
            unit="entries/s",
            goal=self.goal,
            entries=self._size,
            bodies_per_s=round(median(self._bodies)),
            decisions_per_s=round(median(self._decisions)),
        )


class _Directory:
    """The directory's view as of the opens: everybody in them is enrolled, licensed and of a member."""

    def __init__(self, height: int, time_ms: int) -> None:
        self.height = height
        self.time_ms = time_ms

    def is_active(self, token: str, /) -> bool:
        return True

    def licensed(self, person: str, now_ms: int, /) -> bool:
        return True

    def member(self, organisation: str, /) -> bool:
        return True


class _Replays:
    """Bodies of real access entries, and what it takes to prove and decide them again."""

    def __init__(self) -> None:
        self._entries: list[tuple[bytes, bytes]] = []
        self._manifests: dict[str, Manifest] = {}
        self._keys: dict[str, VerifyKey] = {}
        self._state: ConsentState | None = None
        self._affiliations: dict[str, Affiliation] = {}

    async def collect(self, stage: Stage, kept: Kept, count: int) -> None:
        while len(self._entries) < count:
            wanted = kept.records[len(self._entries) % len(kept.records)]
            opened = await stage.reader.reader.open(kept.subject, [wanted], purpose="TREAT")
            for data in opened.receipts.values():
                receipt = decode_receipt(data)
                self._entries.append((receipt.salt, receipt.body))
            for record in opened.records:
                self._manifests[record.manifest.record] = record.manifest
        keys, staff = stage.reader.keys, stage.reader.staff
        self._keys = (await stage.world.network.identity(keys.token)).verify_keys()
        self._keys |= (await stage.world.network.identity(staff.organisation)).verify_keys()
        self._state = kept.patient.chain.state
        affiliation = check_affiliation(
            decode(staff.affiliation, Envelope),
            keys=self._keys,
            network=stage.world.network.id,
            person=keys.token,
            organisation=staff.organisation,
            now_ms=now_ms(),
        )
        self._affiliations = {staff.affiliation_id: affiliation}

    def run(self) -> tuple[float, float]:
        """Bodies a second through hash, canonical decoding, signatures; decisions a second."""
        assert self._state is not None
        proven = []
        started = time.perf_counter()
        for salt, body in self._entries:
            sha256(salt + body).digest()
            entry = decode_entry(body)
            proven.append((entry, request_of(entry, keys=self._keys, affiliations=self._affiliations)))
        signed = len(proven) / (time.perf_counter() - started)
        started = time.perf_counter()
        for entry, request in proven:
            manifests = [self._manifests[record] for record in request.records or ()]
            view = _Directory(entry.directory_height, entry.received - entry.directory_age)
            replay(entry, request, self._state, view, manifests)
        return signed, len(proven) / (time.perf_counter() - started)
