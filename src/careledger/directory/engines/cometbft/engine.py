"""One node's CometBFT engine, put together: the application and its server, the child, the outbox, their health.

    directory.db   the history; may be moved away: CometBFT replays it       outbox.db   what the node answered for
    home/          CometBFT's folder, written by config.py                   run/        the two Unix sockets
    chain.json     CometBFT's genesis, written once

The node opens it, awaits `start`, submits, reads `directory`, asks `health`, and awaits `stop`. All of it lives in one
event loop; the directory changes only in a Commit, between two other callbacks of that loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from careledger.directory.engines.cometbft.application import Application
from careledger.directory.engines.cometbft.child import spawn
from careledger.directory.engines.cometbft.config import (
    EngineKeys,
    EngineSettings,
    genesis_document,
    peers,
    write_home,
    write_once,
)
from careledger.directory.engines.cometbft.logs import Problem
from careledger.directory.engines.cometbft.outbox import Outbox, Send
from careledger.directory.engines.cometbft.probe import Probe
from careledger.directory.engines.cometbft.replica import EngineReplica, Executed
from careledger.directory.engines.cometbft.rpc import EngineRpc
from careledger.directory.engines.cometbft.server import AbciServer
from careledger.directory.engines.cometbft.supervisor import Spawn, Supervisor
from careledger.directory.engines.results import SubmitResult
from careledger.directory.replica import Directory
from careledger.identity import Token
from careledger.seal import Envelope

__all__ = ["CometbftEngine", "EngineHealth"]

_log: Final = logging.getLogger("careledger.directory.cometbft")

WAIT_S: Final = 10.0
"""How long a submission waits for its block before it says that it goes on by itself."""


class EngineHealth(msgspec.Struct, frozen=True):
    """`state`: starting, running, catching-up, waiting, restarting, degraded, failed or stopped. `code` and `message`
    say what is wrong and what to do, `warning` (a code) what CometBFT got over by itself; empty when nothing is."""

    state: str
    code: str
    message: str
    warning: str
    height: int
    peers: int
    pending: int
    outbox: int
    restarts: int
    pid: int | None


class CometbftEngine:
    """The directory under CometBFT. `on_commit` is called after each block, with the directory moved on."""

    def __init__(
        self,
        folder: Path,
        *,
        genesis: bytes,
        node: Token,
        keys: EngineKeys,
        settings: EngineSettings,
        binary: Path,
        sockets: Path | None = None,
        send: Sequence[Send] = (),
        on_commit: Callable[[], None] | None = None,
        spawn: Spawn = spawn,
    ) -> None:
        """Open the stores and execute the history again; nothing runs before `start`.

        `sockets`: a folder with a short path. `send`: ways to hand a transaction to other members' nodes. Peers are the
        active nodes of the directory unless `settings` names some.
        Raises what EngineReplica and Outbox raise.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.node = node
        self.folder = folder
        self._home, self._chain_file = folder / "home", folder / "chain.json"
        self._keys, self._settings = keys, settings
        self._on_commit = on_commit
        run = sockets or folder / "run"
        self._app_socket, rpc_socket = run / "abci.sock", run / "rpc.sock"
        self.replica = EngineReplica(folder / "directory.db", genesis=genesis)
        self.rpc = EngineRpc(rpc_socket)
        self.application = Application(self.replica, on_commit=self._committed)
        try:
            self.outbox = Outbox(
                folder / "outbox.db",
                network=self.replica.network,
                admission=self.application.admission,
                send=[self.rpc.broadcast, *send],
                settled=lambda: self._probe.settled,
            )
        except BaseException:
            self.replica.close()
            raise
        self.outbox.forget(self.replica.newest_ids())
        self._supervisor = Supervisor(binary, self._home, rpc_socket=rpc_socket, prepare=self._prepare, spawn=spawn)
        self._server = AbciServer(
            self._app_socket,
            self.application.answer,
            on_fault=self._supervisor.failed,
            on_lost=self._supervisor.lost,
        )
        self._probe = Probe(
            self.rpc,
            height=lambda: self.replica.height,
            calls=lambda: self._server.answered,
            waiting=lambda: len(self.outbox),
            running=lambda: self._supervisor.pid is not None,
            on_hung=lambda problem: self._supervisor.lost(why=problem),
        )
        self._rpc_socket = rpc_socket
        self._child: asyncio.Task[None] | None = None
        self._duties: list[asyncio.Task[None]] = []
        self._bug: Problem | None = None

    @property
    def directory(self) -> Directory:
        """The committed state; the same object for as long as the engine is open."""
        return self.replica.directory

    @property
    def height(self) -> int:
        return self.replica.height

    def block(self, height: int) -> bytes | None:
        """The exact bytes of a block of accepted transactions."""
        return self.replica.block(height)

    def operations(self, token: Token) -> list[Envelope]:
        """Every operation of an identity in order, from its inception on; empty when the token is not known."""
        return self.replica.operations(token)

    async def start(self) -> None:
        """Bind the application's socket, then start CometBFT and the duties. Raises UnavailableError `bad-socket-path`.

        The other order would cost CometBFT three seconds until it dials again.
        """
        await self._server.start()
        loop = asyncio.get_running_loop()
        self._child = loop.create_task(self._supervisor.run())
        self._duties = [loop.create_task(duty) for duty in (self._probe.run(), self.outbox.run())]
        for task in (self._child, *self._duties):
            task.add_done_callback(self._duty_ended)

    def _duty_ended(self, task: asyncio.Task[None]) -> None:
        """A duty that ends with an exception is a bug: said in the log and in `health`, never silent."""
        bug = None if task.cancelled() else task.exception()
        if bug is not None:
            _log.error("duty-failed", exc_info=bug)
            self._bug = Problem(
                "application-failed",
                f"a duty of the directory's engine failed ({type(bug).__name__}): its log says where; report it, "
                "restart the node",
            )

    async def submit(self, envelopes: Sequence[Envelope], *, timeout_s: float = WAIT_S) -> list[SubmitResult]:
        """Put transactions before the directory; returns once the own application has committed or refused them.

        Raises UnavailableError `outbox-full`, `store-failed`, `directory-waits` (kept, and sent on by itself).
        """
        return await self.outbox.submit(envelopes, timeout_s=timeout_s)

    def health(self) -> EngineHealth:
        """How the engine is, for people and for /health."""
        child, probe = self._supervisor, self._probe
        fatal = child.fatal or self._bug
        if self._child is None or (self._child.done() and fatal is None):
            state, problem = "stopped", None
        elif fatal is not None:
            state, problem = "failed", fatal
        elif child.problem is not None:
            state, problem = "degraded", child.problem
        elif child.pid is None:
            state, problem = "restarting", child.waiting
        elif probe.problem is not None:
            state, problem = "waiting", probe.problem
        elif not probe.answers:
            state, problem = "starting", None
        else:
            state, problem = "catching-up" if probe.catching_up else "running", None
        return EngineHealth(
            state=state,
            code=problem.code if problem else "",
            message=problem.message if problem else "",
            warning=child.log.warning.code if child.log and child.log.warning else "",
            height=self.height,
            peers=probe.peers,
            pending=probe.pending,
            outbox=len(self.outbox),
            restarts=child.restarts,
            pid=child.pid,
        )

    async def stop(self) -> None:
        """CometBFT first, then the application: the other way round it would take that for a failure."""
        await self._supervisor.stop()
        for duty in self._duties:
            duty.cancel()
        await asyncio.gather(*self._duties, *([self._child] if self._child else []), return_exceptions=True)
        await self._server.close()
        await self.rpc.close()
        self.close()

    def close(self) -> None:
        """Close the stores; for an engine that was never started. What the outbox holds stays in it."""
        self.outbox.close()
        self.replica.close()

    def _committed(self, executed: Executed) -> None:
        self._supervisor.progressed()
        self.outbox.decided(executed)
        if self._on_commit is not None:
            self._on_commit()

    def _chain(self) -> bytes:
        """CometBFT's genesis: where a history was taken over it depends on the state then, so it is kept."""
        if self.replica.store.decided_height() or not self.replica.height:
            fresh = genesis_document(self.replica.genesis)
        else:
            fresh = genesis_document(self.replica.genesis, start=self.directory)
        return write_once(self._chain_file, fresh)

    def _prepare(self) -> None:
        self._server.forgive()
        settings = self._settings
        if not settings.peers:
            settings = settings._replace(peers=peers(self.directory, but=self.node))
        write_home(
            self._home,
            settings=settings,
            keys=self._keys,
            genesis_json=self._chain(),
            app_socket=self._app_socket,
            rpc_socket=self._rpc_socket,
        )
