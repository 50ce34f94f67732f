"""The node's side of the embedded directory: submit and forward transactions, follow blocks, cosign, hand out proofs.

The sequencer puts whatever waits into one block; a follower forwards to it, executes every block itself, and answers
only when its own replica has what it forwarded. Nothing that the sequencer says is believed: a wrong block stops a
follower (`fault`), which then goes on serving with the head it trusts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from careledger.directory import Enrol, sign_transaction
from careledger.directory.engines.embedded import Follower, Sequencer
from careledger.errors import Error, MalformedError, NotFoundError, UnavailableError, VerificationError
from careledger.identity import Inception
from careledger.node.reports import log
from careledger.seal import Envelope, SigningKey, decode, encode
from careledger.transport import Transport

__all__ = ["Directing", "TransactionResult"]

TRANSACTIONS_MAX = 256
_WAIT_S = 10.0
_COMPARE_S = 5.0
_POLL_S = 5.0
_ENVELOPE_BYTES_MAX = 1 << 17


class TransactionResult(msgspec.Struct, frozen=True):
    """What became of a transaction: `ok` and the height of its block, or the reason code of its refusal."""

    code: str
    message: str
    height: int | None


class Blocks(msgspec.Struct, frozen=True, array_like=True):
    """Block bytes in order, and the checkpoint note that covers the last of them (empty when there are none)."""

    blocks: list[bytes]
    checkpoint: bytes


class _Head(msgspec.Struct, frozen=True):
    checkpoint: str


class _Submitted(msgspec.Struct, frozen=True):
    results: list[TransactionResult]
    height: int


_blocks_decoder = msgspec.msgpack.Decoder(Blocks)
_submitted_decoder = msgspec.json.Decoder(_Submitted)
_envelopes_decoder = msgspec.json.Decoder(list[msgspec.Raw])


def parse_transactions(body: bytes) -> list[Envelope]:
    """One canonical envelope, or a JSON array of them. Raises MalformedError."""
    if not body.startswith(b"["):
        return [decode(body, Envelope, size_max=_ENVELOPE_BYTES_MAX)]
    try:
        raws = _envelopes_decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise MalformedError("not-json", "the transactions are not a JSON array of envelopes") from None
    if not 0 < len(raws) <= TRANSACTIONS_MAX:
        raise MalformedError("too-large", f"a request takes 1 to {TRANSACTIONS_MAX} transactions")
    return [decode(bytes(raw), Envelope, size_max=_ENVELOPE_BYTES_MAX) for raw in raws]


class Directing:
    """One node's directory: `engine` is its Sequencer or Follower."""

    def __init__(
        self,
        engine: Sequencer | Follower,
        *,
        node: str,
        signer: tuple[str, SigningKey],
        transport: Transport,
        now_ms: Callable[[], int],
    ) -> None:
        self.engine = engine
        self.directory = engine.directory
        self._node = node
        self._signer = signer
        self._transport = transport
        self._now_ms = now_ms
        self._waiting: list[tuple[list[Envelope], asyncio.Future[list[TransactionResult]]]] = []
        self._scheduled = False
        self._news = asyncio.Event()
        self.fault = ""
        self._stopping = False
        self._compared = asyncio.Event()
        """Set once a sequencer has compared its history with a follower's, or found nobody to ask."""

    def stop(self) -> None:
        """Let those go who wait for a block."""
        self._stopping = True
        self._announce()

    def _sequencer_url(self) -> str:
        named = self.directory.node(str(self.directory.parameter("sequencer")))
        if named is None:
            raise UnavailableError("no-sequencer", "the directory names no active sequencer; members must vote for one")
        return named.url

    async def submit(self, envelopes: list[Envelope]) -> list[TransactionResult]:
        """Put transactions before the directory; returns once this node's replica has executed their blocks.

        A person's inception is brought in as this node's enrolment. Raises UnavailableError (sequencer unreachable).
        """
        wrapped = [self._enrol(one) if one.payloadType == Inception.TYPE else one for one in envelopes]
        if isinstance(self.engine, Sequencer):
            return await self._order(wrapped)
        body = b"[" + b",".join(encode(one) for one in wrapped) + b"]"
        answer = await self._transport.post(
            self._sequencer_url(), "/v1/directory/transaction", body, content="application/json", timeout_s=_WAIT_S
        )
        if answer.status != 200:
            raise UnavailableError(
                "sequencer-refused", f"the directory's sequencer answered with status {answer.status}; try again later"
            )
        try:
            submitted = _submitted_decoder.decode(answer.body)
        except (msgspec.DecodeError, RecursionError, ValueError):
            raise UnavailableError(
                "sequencer-refused", "the directory's sequencer answered a transaction with something else; report it"
            ) from None
        await self.reached(max((one.height or 0 for one in submitted.results), default=0))
        return submitted.results

    def _enrol(self, inception: Envelope) -> Envelope:
        payload = Enrol(v=1, network=self.directory.network, node=self._node, inception=inception)
        return sign_transaction(payload, signers=[self._signer])

    async def _order(self, envelopes: list[Envelope]) -> list[TransactionResult]:
        """The sequencer's side: everything that waits at the same moment goes into one block."""
        await self._compared.wait()
        if self.fault:
            raise UnavailableError("directory-rolled-back", f"this sequencer orders nothing: {self.fault}")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[TransactionResult]] = loop.create_future()
        self._waiting.append((envelopes, future))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._make_block)
        return await future

    def _make_block(self) -> None:
        assert isinstance(self.engine, Sequencer)
        waiting, self._waiting, self._scheduled = self._waiting, [], False
        everything = [envelope for envelopes, _ in waiting for envelope in envelopes]
        try:
            results = self.engine.submit(everything, now_ms=self._now_ms())
        except Exception as problem:  # a bug is theirs to report, and leaves nobody waiting
            for _, future in waiting:
                if not future.done():
                    future.set_exception(problem)
            return
        made = [TransactionResult(one.code, one.message, one.height) for one in results]
        self._announce()
        at = 0
        for envelopes, future in waiting:
            if not future.done():
                future.set_result(made[at : at + len(envelopes)])
            at += len(envelopes)

    def _announce(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def reached(self, height: int, *, timeout_s: float = _WAIT_S) -> None:
        """Wait until this replica is at `height`. Raises UnavailableError `directory-behind`."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.directory.height < height:
                    await self._news.wait()
        except TimeoutError:
            raise UnavailableError(
                "directory-behind", f"this node's directory is at height {self.directory.height}, not yet {height}"
            ) from None

    async def blocks(self, after: int, *, wait: bool) -> Blocks:
        """Blocks after a height with their checkpoint; with `wait`, up to 5 s for there to be any."""
        found = self.engine.blocks_after(after)
        if found is None and wait and not self._stopping:
            news = self._news
            try:
                await asyncio.wait_for(news.wait(), _POLL_S)
            except TimeoutError:
                return Blocks([], b"")
            found = self.engine.blocks_after(after)
        return Blocks([], b"") if found is None else Blocks(found[0], found[1])

    async def relay(self, data: bytes) -> str:
        """Raises NotFoundError `no-mempool`: transactions go to the sequencer."""
        raise NotFoundError("no-mempool", "this network has a sequencer: put the transaction before any node")

    def cosigned(self, size: int, line: bytes) -> None:
        """Keep another node's cosignature of the directory's checkpoint. Raises what Replica.add_cosignature raises."""
        self.engine.add_cosignature(size, line)

    def head(self) -> dict[str, object]:
        """The newest checkpoint (with its cosignatures), and the newest that enough members have cosigned."""
        newest = self.engine.newest_cosigned()
        try:
            checkpoint = self.engine.checkpoint()
        except NotFoundError:
            checkpoint = b""
        return {
            "height": self.directory.height,
            "time": self.directory.time_ms,
            "app_hash": self.directory.app_hash().hex(),
            "checkpoint": checkpoint.decode(),
            "cosigned": {"height": newest[0], "checkpoint": newest[1].decode()} if newest else {},
            "fault": self.fault,
        }

    async def proof(self, kind: str, ident: str, *, cosigned: bool) -> dict[str, object]:
        """What the state map has of (kind, id), with the checkpoint above it: the newest with the cosignatures known
        here (of a follower its own; clients put several nodes' together), or the newest that enough have cosigned.

        Raises NotFoundError `no-checkpoint`, `too-old`.
        """
        newest = self.engine.newest_cosigned() if cosigned else None
        height, note = newest or (self.directory.height, self.engine.checkpoint())
        found = self.directory.prove_state(kind, ident, height=height)
        return {"proof": found, "checkpoint": note.decode()}

    async def run(self) -> None:
        """Follow, or keep the heart beating, until cancelled."""
        if isinstance(self.engine, Sequencer):
            await self._beat(self.engine)
        else:
            await self._follow(self.engine)

    async def _compare(self, engine: Sequencer) -> None:
        """Before ordering anything: has a follower more, or something else, than this store? (A restored old copy
        would order a second history.) Ends at the first follower that answers, or when nobody does for a while."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _COMPARE_S
        others = [node for node in self.directory.nodes() if node.token != self._node]
        while others and loop.time() < end:
            answers = await asyncio.gather(*(self._compare_with(engine, node.url) for node in others))
            if any(answers):
                break
            await asyncio.sleep(0.05)
        self._compared.set()

    async def _compare_with(self, engine: Sequencer, url: str) -> bool:
        """Whether a follower answered; what it holds against this sequencer's history becomes the fault."""
        try:
            answer = await self._transport.get(url, "/v1/directory/head", timeout_s=1.0)
            note = msgspec.json.decode(answer.body, type=_Head).checkpoint if answer.status == 200 else ""
            if note:
                engine.check_not_rolled_back(note.encode())
        except VerificationError as problem:
            if problem.code in ("rolled-back", "fork"):
                self.fault = problem.message
                log.error("directory", extra={"fields": {"problem": problem.code, "why": problem.message}})
            return problem.code in ("rolled-back", "fork")
        except (Error, msgspec.DecodeError, RecursionError, ValueError):
            return False
        return answer.status == 200

    async def _beat(self, engine: Sequencer) -> None:
        await self._compare(engine)
        while not self.fault:
            try:
                if engine.heartbeat(now_ms=self._now_ms()):
                    self._announce()
            except Error as problem:
                log.error("heartbeat", extra={"fields": {"problem": problem.code}})
            await asyncio.sleep(1.0)

    async def _follow(self, engine: Follower) -> None:
        said = ""
        while True:
            try:
                progressed = await self._follow_once(engine)
                said = self.fault = ""
                if not progressed:
                    await asyncio.sleep(0.02)
            except Error as problem:
                if isinstance(problem, VerificationError):
                    self.fault = problem.message
                if problem.code != said:
                    said = problem.code
                    log.error("directory", extra={"fields": {"problem": problem.code, "why": problem.message}})
                await asyncio.sleep(0.5)

    async def _follow_once(self, engine: Follower) -> bool:
        url = self._sequencer_url()
        path = f"/v1/directory/blocks?after={engine.height}&wait=1"
        answer = await self._transport.get(url, path, timeout_s=_POLL_S + 5)
        if answer.status != 200:
            raise UnavailableError("no-blocks", f"the sequencer answered with status {answer.status}")
        try:
            found = _blocks_decoder.decode(answer.body)
        except (msgspec.DecodeError, RecursionError, ValueError):
            raise MalformedError(
                "not-msgpack", "the sequencer answered a request for blocks with something else"
            ) from None
        if not found.blocks:
            return False
        line = engine.accept(found.blocks, found.checkpoint, now_ms=self._now_ms())
        self._announce()
        size = engine.height
        path = f"/v1/directory/cosignature?size={size}"
        await self._transport.post(url, path, line, content="text/plain", timeout_s=_WAIT_S)
        return True

    def close(self) -> None:
        self.engine.close()
