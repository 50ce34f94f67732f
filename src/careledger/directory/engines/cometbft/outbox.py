"""The outbox: a transaction that the node answered for is sent until the node's own application has committed it.

CometBFT's mempool is memory: of 4,713 transactions that it had accepted, 362 never reached a block when nodes were
killed in turn. So acceptance is a row on disk here, and the same bytes go out again until a block has them. That is
safe, since the rules refuse a transaction that has taken effect. Waiters are told by the own application's Commit.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from careledger.directory.engines.cometbft.admission import Admission
from careledger.directory.engines.cometbft.replica import Executed, transaction_id
from careledger.directory.engines.results import SubmitResult
from careledger.directory.transactions import TxResult
from careledger.errors import ConflictError, UnavailableError
from careledger.seal import Envelope, encode

__all__ = ["OUTBOX_MAX", "Outbox", "Send"]

Send = Callable[[bytes], Awaitable[TxResult]]
"""Hands bytes to one node's CometBFT; raises UnavailableError when that doesn't answer."""

OUTBOX_MAX: Final = 10_000
"""Half of CometBFT's mempool: at the highest rate measured, more than ten seconds without a block."""
RESEND_S: Final = 2.0
_RESEND_S_MAX: Final = 30.0
"""While nothing is decided, the same is sent ever more rarely: it wouldn't help."""
_TICK_S: Final = 0.5
_ROUND_MAX: Final = 500
"""Transactions sent again in one round, oldest first."""
_REFUSED_MAX: Final = 3
"""Refusals in a row, a round apart, after which one is final: a single one may come from an unlucky order."""

_log: Final = logging.getLogger("careledger.directory.cometbft")

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (network TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, data BLOB NOT NULL) STRICT;
"""


class _Entry:
    """One transaction that is under way."""

    __slots__ = ("data", "refused", "sent", "waiters")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.sent = 0.0
        self.refused = 0
        self.waiters: list[asyncio.Future[SubmitResult]] = []

    def waiter(self) -> asyncio.Future[SubmitResult]:
        """Done when the transaction is decided."""
        self.waiters = [waiter for waiter in self.waiters if not waiter.done()]
        self.waiters.append(asyncio.get_running_loop().create_future())
        return self.waiters[-1]


class Outbox:
    """What this node has answered for and has not yet seen in a block. For one event loop."""

    def __init__(
        self,
        path: Path,
        *,
        network: str,
        admission: Admission,
        send: Sequence[Send],
        settled: Callable[[], bool] = lambda: True,
    ) -> None:
        """`send`: the own node's engine first, then others'. `settled`: the own application isn't catching up.

        Raises UnavailableError `store-failed`, ConflictError `other-network`.
        """
        self._path = path
        self._admission = admission
        self._send = list(send)
        self._settled = settled
        self._entries: dict[bytes, _Entry] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._unsynced: dict[bytes, _Entry] = {}
        self._synced: asyncio.Future[None] | None = None
        self._interval = RESEND_S
        self._round_at = 0.0
        self._progress = True
        self._turn = 0
        self.resent = 0
        """How many times something was sent again."""
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
            self._db.execute("INSERT OR IGNORE INTO meta VALUES (?)", (network,))
            networks = [row[0] for row in self._db.execute("SELECT network FROM meta")]
            rows = self._db.execute("SELECT id, data FROM outbox ORDER BY number").fetchall()
        except sqlite3.Error as error:
            raise UnavailableError("store-failed", f"the outbox {path} can't be opened: {error}") from error
        if networks != [network]:
            self._db.close()
            raise ConflictError("other-network", f"{path} is another network's outbox: use another file")
        self._entries = {ident: _Entry(data) for ident, data in rows}

    def __len__(self) -> int:
        return len(self._entries)

    def close(self) -> None:
        """What is in the outbox stays there; who waits is told that the node stops."""
        if self._synced is not None:
            self._sync()
        for sending in self._sending:
            sending.cancel()
        for entry in self._entries.values():
            for waiter in entry.waiters:
                if not waiter.done():
                    waiter.set_exception(
                        UnavailableError("stopping", "the node stops; it sends the transaction again when it is back")
                    )
        self._db.close()

    async def submit(self, envelopes: Sequence[Envelope], *, timeout_s: float) -> list[SubmitResult]:
        """Take transactions in this order; returns when each was refused or the own application committed it.

        Durable before anything is sent. Raises UnavailableError: `outbox-full`, `store-failed` (nothing was taken);
        `directory-waits` (taken, not decided in time: it goes on by itself, and the same again waits for it again).
        """
        outcomes: list[SubmitResult | asyncio.Future[SubmitResult]] = []
        new: dict[bytes, _Entry] = {}
        for envelope in envelopes:
            data = encode(envelope)
            ident = transaction_id(data)
            entry = self._find(ident) or new.get(ident)
            if entry is None:
                result = self._admission.check(data)
                if not result.ok:
                    outcomes.append(SubmitResult(result.code, result.message, None))
                    continue
                entry = new[ident] = _Entry(data)
            outcomes.append(entry.waiter())
        waiting = [outcome for outcome in outcomes if isinstance(outcome, asyncio.Future)]
        try:
            await self._store(new)
            self._start_sending(list(new))
            if waiting:
                await self._wait(waiting, timeout_s)
        finally:
            for one in waiting:
                one.cancel()  # only those that are not done
        return [outcome.result() if isinstance(outcome, asyncio.Future) else outcome for outcome in outcomes]

    def _find(self, ident: bytes) -> _Entry | None:
        return self._entries.get(ident) or self._unsynced.get(ident)

    def _start_sending(self, idents: list[bytes]) -> None:
        """Nobody waits for this: only a block decides."""
        if idents:
            sending = asyncio.get_running_loop().create_task(self._send_first(idents))
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)

    async def _send_first(self, idents: list[bytes]) -> None:
        """In order, since one may follow another."""
        for ident in idents:
            if ident in self._entries and not await self._try(self._entries[ident]):
                return  # no engine answers: the rest goes out with the next round

    async def _wait(self, waiting: list[asyncio.Future[SubmitResult]], timeout_s: float) -> None:
        done, undecided = await asyncio.wait(waiting, timeout=timeout_s)
        problems = [problem for one in done if (problem := one.exception()) is not None]
        if problems:
            raise problems[0]
        if undecided:
            raise UnavailableError(
                "directory-waits",
                f"{len(undecided)} transactions are kept and wait for the directory, which decides nothing now: "
                "too few members' engines are up. They go on by themselves",
            )

    def decided(self, executed: Executed) -> None:
        """The application has committed this block: tell who waits, and forget what is in it."""
        self._progress, self._interval = True, RESEND_S
        done: dict[bytes, TxResult] = {}
        for ident, result in zip(executed.ids, executed.results, strict=True):
            entry = self._find(ident)
            if entry is None or (ident in done and not result.ok):
                continue
            if result.ok or not self._is_acceptable_now(entry):
                done[ident] = result
        self._finish({ident: SubmitResult(one.code, one.message, executed.height) for ident, one in done.items()})

    def _is_acceptable_now(self, entry: _Entry) -> bool:
        """Refused in an unlucky order, perhaps before what it follows: then it is sent once more, a bounded time."""
        entry.refused += 1
        return entry.refused < _REFUSED_MAX and self._admission.check(entry.data).ok

    def forget(self, idents: Sequence[bytes]) -> None:
        """These are in a block: for the start, when the node died between its commit and `decided`."""
        self._finish({ident: SubmitResult("ok", "accepted", None) for ident in idents if ident in self._entries})

    async def run(self) -> None:
        """Send again what no block has, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_S)
            now = loop.time()
            late = [entry for entry in self._entries.values() if now - entry.sent >= RESEND_S]
            if late and now - self._round_at >= self._interval:
                self._interval = RESEND_S if self._progress else min(self._interval * 2, _RESEND_S_MAX)
                self._progress, self._round_at = False, now
                await self._send_again(late[:_ROUND_MAX])

    async def _send_again(self, late: list[_Entry]) -> None:
        self._turn += 1
        for entry in late:
            ident = transaction_id(entry.data)
            if ident not in self._entries:
                continue  # a block had it meanwhile
            result = self._admission.check(entry.data)
            if not result.ok and self._settled():
                entry.refused += 1
            if entry.refused >= _REFUSED_MAX:
                _log.warning("outbox-refused", extra={"fields": {"transaction": ident.hex(), "code": result.code}})
                self._finish({ident: SubmitResult(result.code, result.message, None)})
            elif result.ok:
                self.resent += 1
                if not await self._try(entry, first=self._turn):
                    return  # no engine answers; the next round tries again

    async def _try(self, entry: _Entry, *, first: int = 0) -> bool:
        """Hand one transaction to the first engine that answers; whether any did.

        Rounds begin at another engine each, since the own one may answer and yet reach nobody.
        """
        entry.sent = asyncio.get_running_loop().time()
        turn = first % len(self._send)
        for send in self._send[turn:] + self._send[:turn]:
            try:
                await send(entry.data)
            except UnavailableError:
                continue
            return True
        return False

    async def _store(self, new: dict[bytes, _Entry]) -> None:
        """Make these durable, in one disk sync with whatever else comes in meanwhile."""
        if len(self._entries) + len(self._unsynced) + len(new) > OUTBOX_MAX:
            raise UnavailableError(
                "outbox-full",
                f"{len(self._entries)} transactions wait for the directory already: try again when it decides",
            )
        if not new:
            return
        self._unsynced.update(new)
        if self._synced is None:
            loop = asyncio.get_running_loop()
            self._synced = loop.create_future()
            loop.call_soon(self._sync)
        await asyncio.shield(self._synced)

    def _sync(self) -> None:
        new, self._unsynced = self._unsynced, {}
        synced, self._synced = self._synced, None
        if synced is None:  # done already, by `close`
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            rows = [(ident, entry.data) for ident, entry in new.items()]
            self._db.executemany("INSERT INTO outbox (id, data) VALUES (?, ?)", rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            problem = UnavailableError("store-failed", f"the outbox {self._path} can't be written: {error}")
            waiters = [waiter for entry in new.values() for waiter in entry.waiters]
            futures: list[asyncio.Future[Any]] = [synced, *waiters]
            for future in futures:
                if not future.done():
                    future.set_exception(problem)
                    future.exception()  # marks it as seen: perhaps everybody who waited has gone
            return
        self._entries.update(new)
        synced.set_result(None)

    def _finish(self, results: dict[bytes, SubmitResult]) -> None:
        if not results:
            return
        try:
            self._db.executemany("DELETE FROM outbox WHERE id = ?", [(ident,) for ident in results])
        except sqlite3.Error as error:
            # It would be sent once more after a restart, and refused: harmless.
            _log.error("outbox-failed", extra={"fields": {"why": str(error)}})
        for ident, result in results.items():
            entry = self._entries.pop(ident, None) or self._unsynced.pop(ident, None)
            for waiter in entry.waiters if entry else ():
                if not waiter.done():
                    waiter.set_result(result)
