"""The node's side of a directory that CometBFT orders: submit through the outbox, and hand out committed proofs.

The same routes as with the embedded engine (`directing`). Nobody's word is needed for the order: what stands above a
proof are the votes of more than two thirds of the validators.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import stat
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from careledger.directory import (
    Directory,
    Enrol,
    LightBlock,
    StateProof,
    TxResult,
    parse_genesis,
    sign_transaction,
    validator_set,
)
from careledger.directory.engines.cometbft import CometbftEngine, EngineSettings, Send
from careledger.directory.engines.cometbft.install import find_engine
from careledger.directory.engines.cometbft.server import SOCKET_PATH_MAX
from careledger.directory.validators import founding_validators
from careledger.errors import Error, NotFoundError, UnavailableError
from careledger.identity import Inception
from careledger.node.directing import Blocks, TransactionResult
from careledger.node.light_keeper import LIGHT_FILE, LightKeeper
from careledger.node.reports import log
from careledger.node.settings import NodeFolder
from careledger.seal import Envelope, SigningKey
from careledger.transport import Transport

__all__ = ["CometbftDirecting", "cometbft_directing"]

_BLOCKS_MAX = 512
_BLOCKS_BYTES_MAX = 8 << 20
_POLL_S = 5.0
_PROOF_WAIT_S = 5.0
_RETRY_S = 0.2
_SEND_S = 3.0


class CometbftDirecting:
    """One node's directory under CometBFT; `engine` is opened and not yet started."""

    def __init__(self, engine: CometbftEngine, *, node: str, signer: tuple[str, SigningKey]) -> None:
        self.engine = engine
        self.directory = engine.directory
        self._node = node
        self._signer = signer
        self._news, self._taken = asyncio.Event(), asyncio.Event()
        self._stopping = False
        self._app_hash = self.directory.app_hash()
        self._changed_at = self.directory.height - 1
        """The last height that changed the app hash: the block after it states what it changed."""
        self._light = LightKeeper(
            engine.folder / LIGHT_FILE,
            engine.rpc,
            network=self.directory.network,
            founders=validator_set(founding_validators(parse_genesis(engine.replica.genesis))),
            first=1,
        )

    @property
    def fault(self) -> str:
        """Why the directory stands still, and what to do; empty when it does not, or only for a moment."""
        health = self.engine.health()
        return health.message if health.state in ("degraded", "failed", "waiting") else ""

    def stop(self) -> None:
        """Let those go who wait for a block."""
        self._stopping = True
        self._announce()

    def committed(self) -> None:
        """The directory moved on by a block."""
        app_hash = self.directory.app_hash()
        if app_hash != self._app_hash:
            self._app_hash, self._changed_at = app_hash, self.directory.height
        self._announce()

    def _announce(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def submit(self, envelopes: list[Envelope]) -> list[TransactionResult]:
        """Put transactions before the directory; returns once this node's replica has executed their blocks.

        A person's inception is brought in as this node's enrolment. Raises UnavailableError `directory-waits`,
        `outbox-full`, `store-failed`.
        """
        wrapped = [self._enrol(one) if one.payloadType == Inception.TYPE else one for one in envelopes]
        results = await self.engine.submit(wrapped)
        return [TransactionResult(one.code, one.message, one.height) for one in results]

    def _enrol(self, inception: Envelope) -> Envelope:
        payload = Enrol(v=1, network=self.directory.network, node=self._node, inception=inception)
        return sign_transaction(payload, signers=[self._signer])

    async def blocks(self, after: int, *, wait: bool) -> Blocks:
        """Blocks of accepted transactions after a height; with `wait`, up to 5 s for there to be any. No checkpoint."""
        if self.engine.height <= after and wait and not self._stopping:
            try:
                await asyncio.wait_for(self._news.wait(), _POLL_S)
            except TimeoutError:
                return Blocks([], b"")
        found: list[bytes] = []
        size = 0
        for height in range(after + 1, min(after + _BLOCKS_MAX, self.engine.height) + 1):
            data = self.engine.block(height)
            if data is None or (found and size + len(data) > _BLOCKS_BYTES_MAX):
                break
            found.append(data)
            size += len(data)
        return Blocks(found, b"")

    async def relay(self, data: bytes) -> str:
        """Hand another node's transaction to the own CometBFT; the reason code of what it says. Nothing is kept.

        Raises UnavailableError `engine-unreachable`, `mempool-full`, …
        """
        return (await self.engine.rpc.broadcast(data)).code

    def cosigned(self, size: int, line: bytes) -> None:
        """There are no checkpoints to cosign. Raises NotFoundError `no-checkpoint`."""
        raise NotFoundError(
            "no-checkpoint", "this network's directory has no checkpoints: validators commit its blocks"
        )

    def head(self) -> dict[str, object]:
        """Where this replica stands, the newest height that others can verify, and how the engine is."""
        return {
            "height": self.directory.height,
            "time": self.directory.time_ms,
            "app_hash": self.directory.app_hash().hex(),
            "checkpoint": "",
            "cosigned": {},
            "committed": self._light.height,
            "fault": self.fault,
            "engine": self.engine.health(),
        }

    async def proof(self, kind: str, ident: str, *, cosigned: bool) -> dict[str, StateProof | list[LightBlock]]:
        """What the state map has of (kind, id) at the newest height that a committed block states, with that block.

        Raises UnavailableError `no-commit` when CometBFT shows none; NotFoundError `too-old`.
        """
        await self._proven()
        blocks = self._light.blocks
        if not blocks:
            raise UnavailableError("no-commit", "CometBFT has shown no committed block yet: try again in some seconds")
        found = self.directory.prove_state(kind, ident, height=blocks[-1].header.height - 1)
        return {"proof": found, "blocks": blocks}

    async def _proven(self) -> None:
        """Wait until a committed block states the newest change: CometBFT makes one at once."""
        try:
            async with asyncio.timeout(_PROOF_WAIT_S):
                while self._light.height <= self._changed_at:
                    await self._taken.wait()
        except TimeoutError:
            return

    async def run(self) -> None:
        """Start the engine and keep the proof of the newest head, until cancelled; then stop the engine."""
        await self.engine.start()
        said = ""
        try:
            while True:
                news, height = self._news, self.directory.height
                try:
                    if height:
                        await self._light.advance(height)
                        self._announce_proof()
                    said = ""
                except Error as problem:
                    if problem.code != said:
                        said = problem.code
                        log.warning("light", extra={"fields": {"problem": problem.code, "why": problem.message}})
                    await asyncio.sleep(_RETRY_S)
                    continue
                if self.directory.height == height:
                    await news.wait()
        finally:
            await self.engine.stop()

    def _announce_proof(self) -> None:
        taken, self._taken = self._taken, asyncio.Event()
        taken.set()

    def close(self) -> None:
        """The engine closes its stores when it stops."""


def cometbft_directing(
    folder: NodeFolder, genesis: bytes, *, signer: tuple[str, SigningKey], transport: Transport
) -> CometbftDirecting:
    """Open the engine in a node's folder; nothing runs yet.

    Raises NotFoundError `engine-missing`, VerificationError `wrong-engine-version`, MalformedError `no-consensus-key`.
    """
    token, place = folder.settings.token, folder.path / "directory"
    started: list[CometbftDirecting] = []
    engine = CometbftEngine(
        place,
        genesis=genesis,
        node=token,
        keys=folder.engine_keys(),
        settings=EngineSettings(moniker=token, listen=folder.settings.consensus),
        binary=find_engine(),
        sockets=_sockets(place),
        send=[_to_another(transport, lambda: started[0].directory, but=token)],
        on_commit=lambda: started[0].committed(),  # noqa: PLW0108 - it is not there yet
    )
    started.append(CometbftDirecting(engine, node=token, signer=signer))
    return started[0]


def _sockets(place: Path) -> Path:
    """Where the sockets fit into a path of 107 bytes: beside the directory, else in a private folder for temporary
    files that only this user can enter. Raises UnavailableError `bad-socket-path`."""
    near = place / "run"
    if len(str(near / "abci.sock").encode()) <= SOCKET_PATH_MAX:
        return near
    name = sha256(str(place.absolute()).encode()).hexdigest()[:16]
    far = Path(tempfile.gettempdir()) / f"careledger-{name}"
    far.mkdir(mode=0o700, exist_ok=True)
    found = far.lstat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != 0o700 or not stat.S_ISDIR(found.st_mode):
        raise UnavailableError("bad-socket-path", f"{far} is not this user's own: remove it, or use a shorter folder")
    return far


def _to_another(transport: Transport, directory: Callable[[], Directory], *, but: str) -> Send:
    """Hands a transaction to some other member's node, another one every time."""
    turn = itertools.count()

    async def send(data: bytes) -> TxResult:
        others = [node for node in directory().nodes() if node.token != but]
        if not others:
            raise UnavailableError("no-peer", "this network has no other node")
        url = others[next(turn) % len(others)].url
        answer = await transport.post(url, "/v1/directory/relay", data, content="application/json", timeout_s=_SEND_S)
        if answer.status != 200:
            raise UnavailableError("peer-refused", f"another node answered a transaction with status {answer.status}")
        return TxResult("ok", "accepted")

    return send
