"""One node as a process: open the folder, put the parts together, serve until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import uvicorn

from careledger.custody import Acceptance, Custodian, Documents, Events, Exchange, Reading, Release, Shelf, Witness
from careledger.directory import network_of
from careledger.directory.engines.embedded import Follower, Sequencer
from careledger.directory.genesis import parse_genesis
from careledger.errors import ConflictError
from careledger.node.api import Api
from careledger.node.application import application
from careledger.node.background import Background
from careledger.node.directing import Directing
from careledger.node.directing_cometbft import CometbftDirecting, cometbft_directing
from careledger.node.evidence import Evidence
from careledger.node.reports import Metrics, log, set_up_logging
from careledger.node.settings import NodeFolder
from careledger.node.standing import Standing
from careledger.seal import SigningKey, keyid, unb64
from careledger.tlog import parse_vkey
from careledger.transport import Transport

__all__ = ["run_node"]

SHUTDOWN_S = 3


def now_ms() -> int:
    """The wall clock, ms UTC."""
    return time.time_ns() // 1_000_000


def _directing(folder: NodeFolder, genesis: bytes, *, transport: Transport) -> Directing | CometbftDirecting:
    """The node's side of the directory, by the engine that the genesis chose."""
    token = folder.settings.token
    signer = (keyid(token, folder.settings.sequence), folder.signing_key)
    if parse_genesis(genesis).parameters["sequencer"] == "":
        return cometbft_directing(folder, genesis, signer=signer, transport=transport)
    return Directing(_embedded(folder, genesis), node=token, signer=signer, transport=transport, now_ms=now_ms)


def _embedded(folder: NodeFolder, genesis: bytes) -> Sequencer | Follower:
    token = folder.settings.token
    witness = SigningKey(unb64(folder.secrets.witness, size=32))
    place = folder.path / "directory"
    place.mkdir(exist_ok=True)
    if parse_genesis(genesis).parameters["sequencer"] == token:
        return Sequencer(
            place / "directory.db",
            genesis=genesis,
            node=token,
            log_key=SigningKey(unb64(folder.secrets.log, size=32)),
            witness=witness,
            now_ms=now_ms(),
            folder=place / "log",
        )
    return Follower(place / "directory.db", genesis=genesis, node=token, witness=witness, folder=place / "log")


class _Server(uvicorn.Server):
    """uvicorn's server with this process's own signals: it ends with exit code 0, not by raising the signal again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(folder: NodeFolder) -> None:
    genesis = folder.genesis
    network, token = network_of(genesis), folder.settings.token
    signer = (keyid(token, folder.settings.sequence), folder.signing_key)
    transport, metrics = Transport(), Metrics()
    directing = _directing(folder, genesis, transport=transport)
    standing = Standing(token, directing.directory, now_ms=now_ms)
    custodian = Custodian(
        folder.path,
        node=token,
        directory=directing.directory,
        sealing=folder.sealing_keys(),
        log_signer=folder.log_signer(network),
        now_ms=now_ms,
        rand=os.urandom,
        heads_age_ms=standing.heads_age_ms,
    )
    shelf = Shelf(custodian.store)
    acceptance, documents, events = Acceptance(custodian), Documents(custodian), Events(custodian)
    exchange = Exchange(custodian, shelf, documents=documents, events=events, acceptance=acceptance)
    witness = Witness(folder.path / "witness.db", signer=folder.cosigner(network), now_s=lambda: now_ms() // 1000)
    api = Api(
        custodian,
        standing,
        release=Release(custodian, shelf),
        acceptance=acceptance,
        documents=documents,
        events=events,
        reading=Reading(custodian),
        exchange=exchange,
        witness=witness,
    )
    background = Background(
        custodian,
        standing,
        exchange,
        signer=signer,
        transport=transport,
        metrics=metrics,
        submit=directing.submit,
        evidence=Evidence(witness, directing.directory, signer=signer, submit=directing.submit),
        witnesses=[(url, parse_vkey(vkey)) for url, vkey in (one.split(" ", 1) for one in folder.settings.witnesses)],
    )
    standing.custodian, standing.pull = custodian, background.pull
    standing.directory_fault = lambda: directing.fault
    server = _Server(
        uvicorn.Config(
            application(api, directing, metrics, genesis=genesis),
            host=folder.settings.host,
            port=folder.settings.port,
            loop="uvloop",
            http="httptools",
            lifespan="off",
            access_log=False,
            proxy_headers=False,
            log_config=None,
            timeout_graceful_shutdown=SHUTDOWN_S,
            backlog=512,
        )
    )

    def stop() -> None:
        server.should_exit = True
        directing.stop()

    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, stop)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    duties = [asyncio.create_task(background.run()), asyncio.create_task(directing.run())]
    for duty in duties:
        duty.add_done_callback(lambda ended: _duty_ended(ended, server))
    log.info("serving", extra={"fields": {"node": token, "network": network, "url": folder.settings.url}})
    try:
        await server.serve()
    finally:
        await background.finish()
        for duty in duties:
            duty.cancel()
        await asyncio.gather(*duties, return_exceptions=True)
        await custodian.close()
        witness.close()
        directing.close()
        await transport.close()
        log.info("stopped", extra={"fields": {"node": token}})


def _duty_ended(duty: asyncio.Task[None], server: uvicorn.Server) -> None:
    """A duty that ends by itself is a bug: better to stop loudly than to serve without publishing or syncing."""
    if not duty.cancelled() and duty.exception() is not None:
        log.error("duty-failed", exc_info=duty.exception())
        server.should_exit = True


def run_node(path: Path, *, parent: int | None = None) -> None:
    """Serve the node in this folder until SIGTERM or SIGINT, or until the process `parent` is gone.

    Raises NotFoundError `no-node`, `no-network`; VerificationError `rolled-back`; ConflictError `folder-in-use`.
    """
    folder = NodeFolder(path)
    lock = _only_one(path)
    set_up_logging(folder.settings.log_level)
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    import uvloop  # noqa: PLC0415

    async def serve() -> None:
        if parent is not None:
            asyncio.get_running_loop().create_task(_end_with(parent))
        await _serve(folder)

    with lock:
        uvloop.run(serve())


def _only_one(path: Path) -> BinaryIO:
    """Hold the folder for this process: a second one on the same store would take the log for what it left itself.

    The operating system lets go of it whatever ends the process. Raises ConflictError `folder-in-use`.
    """
    lock = (path / "node.lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ConflictError("folder-in-use", f"a node runs from {path} already; stop it first") from None
    return lock


async def _end_with(parent: int) -> None:
    """End when the process that started this node is gone: a test or demo that was killed leaves no nodes behind."""
    while os.getppid() == parent:  # noqa: ASYNC110 - nothing tells a process that its parent ended
        await asyncio.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
