"""The single writer: takes waiting jobs as one batch, lets each decide in index order, commits once, then answers.

The order is the promise of DESIGN 5.4: a job decides and appends, and nothing of its answer exists before the disk
sync. A batch is whatever waits when the writer becomes idle; there is no timer, the sync itself is the wait. One light
job (an access, a consent event) alone is committed in place (no thread hop); anything else commits on a one-thread
executor while the loop goes on parsing and verifying.

If the process dies before the commit, nothing happened and nobody was told otherwise; after it, the message can be
repeated and is answered again. A failed commit leaves the log as it was: the jobs are refused, and what they had
changed in memory is dropped by `forget`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from careledger.access import commitment, leaf_of_commitment
from careledger.custody.store import KINDS, EntryRow, Row, Store, disk_error
from careledger.errors import Error, UnavailableError
from careledger.tlog import BatchProofs, Frontier, format_proof, leaf_hashes_of

__all__ = ["WAITING_MAX", "Batch", "Committed", "Plan", "Writer"]

WAITING_MAX = 512
"""Jobs that may wait; beyond it a node says 503 instead of letting memory and answer times follow the load."""
_BATCH_MAX = 128
_KIND_NUMBERS = {kind: number for number, kind in enumerate(KINDS)}


@dataclass(slots=True)
class Plan:
    """What one job adds to the batch: entries (kind, salt, body, subject's row id), their effects, wrapping keys."""

    entries: list[tuple[str, bytes, bytes, int | None]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    keys: list[tuple[int, bytes]] = field(default_factory=list)
    answer: Any = None
    """Handed back to whoever submitted the job, beside what was committed."""


@dataclass(slots=True, frozen=True)
class Batch:
    """What a job may know when it plans: the index its first entry will have, and the time it was received."""

    index: int
    now_ms: int


class Job(Protocol):
    """A request, parsed and verified on arrival. `plan` decides; an Error it raises refuses without an entry."""

    light: bool
    """True for one access request, or an event or two: before all heavy ones, and committed in place when alone."""

    def plan(self, batch: Batch) -> Plan: ...


@dataclass(slots=True, frozen=True)
class Committed:
    """A durable batch as seen by one of its jobs."""

    index: int
    """Index of the job's first entry."""
    checkpoint: bytes
    proofs: BatchProofs

    def proof(self, index: int) -> bytes:
        """The C2SP tlog-proof of one of the batch's entries."""
        return format_proof(index, self.proofs.inclusion(index), self.checkpoint)


class Writer:
    """One per node. `checkpoint` signs (size, root); `committed` is told every batch's leaves and what proves them,
    after the commit."""

    def __init__(
        self,
        store: Store,
        *,
        checkpoint: Callable[[int, bytes], bytes],
        committed: Callable[[list[bytes], BatchProofs], None],
        forget: Callable[[], None],
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._store = store
        self._checkpoint = checkpoint
        self._committed = committed
        self._forget = forget
        self._now_ms = now_ms
        size, hashes = store.log_state()
        self.frontier = Frontier(size, hashes)
        self._light: deque[tuple[Job, asyncio.Future[tuple[Any, Committed | None]]]] = deque()
        self._heavy: deque[tuple[Job, asyncio.Future[tuple[Any, Committed | None]]]] = deque()
        self._busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self.failed: str | None = None
        """Why the last commit failed; None once one succeeded."""

    @property
    def busy(self) -> bool:
        """Whether a batch is being decided or committed."""
        return self._busy

    @property
    def waiting(self) -> int:
        return len(self._light) + len(self._heavy)

    def submit(self, job: Job) -> asyncio.Future[tuple[Any, Committed | None]]:
        """Queue a job; resolves, once durable, to (the plan's answer, the batch; None if it appended nothing).

        Raises (through the future) the Error of `plan`, or UnavailableError `busy`, `disk-full`, `store-failed`.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[Any, Committed | None]] = loop.create_future()
        if self.waiting >= WAITING_MAX:
            future.set_exception(
                UnavailableError("busy", f"{WAITING_MAX} requests wait already; try again in a second")
            )
            return future
        (self._light if job.light else self._heavy).append((job, future))
        if not self._busy:
            self._busy = True
            self._idle.clear()
            loop.call_soon(self._start)
        return future

    def _start(self) -> None:
        batch: list[tuple[Job, asyncio.Future[tuple[Any, Committed | None]]]] = []
        while self._light and len(batch) < _BATCH_MAX:
            batch.append(self._light.popleft())
        # One heavy job a batch: an import must not make an open wait for more than one submission's inserts.
        if self._heavy:
            batch.append(self._heavy.popleft())
        if not batch:
            self._rest()
            return
        index, now_ms = self.frontier.size, self._now_ms()
        entries: list[EntryRow] = []
        leaves: list[bytes] = []
        rows: list[Row] = []
        keys: list[tuple[int, bytes]] = []
        planned: list[tuple[asyncio.Future[tuple[Any, Committed | None]], Any, int, int]] = []
        for job, future in batch:
            if future.cancelled():
                continue
            try:
                plan = job.plan(Batch(index, now_ms))
            except Error as error:
                future.set_exception(error)
                continue
            except Exception as bug:  # a bug fails its own request, loudly, and no other
                future.set_exception(bug)
                continue
            for offset, (kind, salt, body, subject) in enumerate(plan.entries):
                digest = commitment(salt, body)
                leaves.append(leaf_of_commitment(kind, digest))
                entries.append((index + offset, _KIND_NUMBERS[kind], digest, salt, body, subject))
            rows += plan.rows
            keys += plan.keys
            planned.append((future, plan.answer, index, len(plan.entries)))
            index += len(plan.entries)
        if not entries and not rows:
            self._settle(planned, None, b"")
            self._next()
            return
        grown = self.frontier.copy()
        proofs = grown.append_batch(leaf_hashes_of(leaves))
        work = (entries, rows, keys, (grown.size, b"".join(grown.hashes)) if entries else None)
        if len(batch) == 1 and batch[0][0].light:
            try:
                self._store.commit(*work)
            except Exception as error:
                self._failed(planned, error)
            else:
                self._done(planned, grown, leaves, proofs)
            self._next()
            return
        loop = asyncio.get_running_loop()
        task = loop.run_in_executor(self._executor, self._store.commit, *work)
        task.add_done_callback(lambda ended: self._ended(ended, planned, grown, leaves, proofs))

    def _ended(
        self,
        ended: asyncio.Future[None],
        planned: list[tuple[asyncio.Future[tuple[Any, Committed | None]], Any, int, int]],
        grown: Frontier,
        leaves: list[bytes],
        proofs: BatchProofs,
    ) -> None:
        error = ended.exception()
        if error is None:
            self._done(planned, grown, leaves, proofs)
        else:
            self._failed(planned, error)
        if self._heavy:
            # Its commit takes long: let the disk begin while the loop makes the answers of the batch before.
            self._start()
        else:
            self._next()

    def _done(
        self,
        planned: list[tuple[asyncio.Future[tuple[Any, Committed | None]], Any, int, int]],
        grown: Frontier,
        leaves: list[bytes],
        proofs: BatchProofs,
    ) -> None:
        self.frontier = grown
        self.failed = None
        self._committed(leaves, proofs)
        checkpoint = self._checkpoint(grown.size, grown.root()) if leaves else b""
        self._settle(planned, proofs, checkpoint)

    def _settle(
        self,
        planned: list[tuple[asyncio.Future[tuple[Any, Committed | None]], Any, int, int]],
        proofs: BatchProofs | None,
        checkpoint: bytes,
    ) -> None:
        for future, answer, index, count in planned:
            if not future.done():
                committed = Committed(index, checkpoint, proofs) if count and proofs is not None else None
                future.set_result((answer, committed))

    def _failed(
        self, planned: list[tuple[asyncio.Future[tuple[Any, Committed | None]], Any, int, int]], error: BaseException
    ) -> None:
        """Refuse the batch's jobs and go on with the next; a bug is theirs to report, and stops nobody else."""
        if isinstance(error, sqlite3.Error):
            refusal = disk_error(error)
            self.failed, error = refusal.code, refusal
        self._forget()
        for future, *_ in planned:
            if not future.done():
                future.set_exception(error)

    def _next(self) -> None:
        if self._light or self._heavy:
            asyncio.get_running_loop().call_soon(self._start)
        else:
            self._rest()

    def _rest(self) -> None:
        self._busy = False
        self._idle.set()

    async def drain(self) -> None:
        """Wait until nothing waits and no commit is under way."""
        await self._idle.wait()
        self._executor.shutdown(wait=True)
