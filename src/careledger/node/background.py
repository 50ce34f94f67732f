"""What a node does without being asked: publish and have its log cosigned, anchor it, sync with other custodians.

Each duty is a loop that survives every foreseen failure, says what failed once, and ends when the node stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from careledger.access import SyncAnswer
from careledger.custody import Custodian, Exchange
from careledger.directory import Anchor, NodeState, log_origin, sign_transaction
from careledger.errors import Error, MalformedError, UnavailableError, VerificationError
from careledger.node.evidence import Evidence
from careledger.node.reports import Metrics, log
from careledger.node.standing import Standing
from careledger.seal import Envelope, SigningKey
from careledger.tlog import (
    EMPTY_ROOT,
    Verifier,
    format_add_checkpoint,
    open_checkpoint,
    parse_wrong_size_body,
    verify_cosignature,
)
from careledger.transport import Transport

__all__ = ["Background"]

COSIGN_EVERY_S = 0.8
"""Under constant load. Cosignatures are asked for within 1 s of an entry (DESIGN 5.5)."""
GATHER_S = 0.1
"""How long the first entry after a quiet time waits for others before it is published."""
SYNC_EVERY_S = 1.0
EVIDENCE_EVERY_S = 5.0
HURRY_S = 10.0
ROLLBACK_WAIT_S = 5.0
PEER_TIMEOUT_S = 3.0
ANCHOR_MAX_MS = 600_000
_RETRIES_NOT_YET = 20
_NOT_YET = frozenset({"unknown-identity", "no-document", "bad-document-hash", "bad-prev", "bad-sequence"})
"""Refusals of a peer's item that more of the directory or of the chain may turn."""
_sync_decoder = msgspec.msgpack.Decoder(SyncAnswer)
_encode = msgspec.msgpack.Encoder().encode


class Background:
    """The duties of one node. `submit` puts a transaction before the directory."""

    def __init__(
        self,
        custodian: Custodian,
        standing: Standing,
        exchange: Exchange,
        *,
        signer: tuple[str, SigningKey],
        transport: Transport,
        metrics: Metrics,
        submit: Callable[[list[Envelope]], Coroutine[Any, Any, Any]],
        witnesses: list[tuple[str, Verifier]],
        evidence: Evidence,
    ) -> None:
        self._custodian = custodian
        self._standing = standing
        self._exchange = exchange
        self._signer = signer
        self._transport = transport
        self._metrics = metrics
        self._submit = submit
        self._outside = witnesses
        self._evidence = evidence
        self._known_size: dict[str, int] = {}
        self._said: dict[str, str] = {}
        self._not_yet: dict[str, int] = {}
        self._anchored_at = 0
        self._publishing = asyncio.Lock()

    def peers(self) -> list[NodeState]:
        """The nodes of the other members."""
        own = self._standing.directory.node_member(self._standing.node)
        return [node for node in self._standing.directory.nodes() if node.member != own]

    async def finish(self) -> None:
        """Before the duties are cancelled: let a publication that is under way end, and begin no other.

        A checkpoint that others have cosigned and that is not published looks, to who verifies the stopped node's
        folder, like a log that was rolled back.
        """
        custodian = self._custodian
        try:
            async with asyncio.timeout(2 * PEER_TIMEOUT_S):
                await self._publishing.acquire()
            if max(self._known_size.values(), default=0) > custodian.published[0] and not self._is_rolled_back():
                size, root = custodian.files.write()
                custodian.publish(size, custodian.sign(size, root))
        except (TimeoutError, OSError):
            log.warning("duty", extra={"fields": {"duty": "publish", "problem": "unfinished"}})

    async def run(self) -> None:
        """All duties until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._check_rollback())
            group.create_task(self._every(COSIGN_EVERY_S, "publish", self._publish_what_came))
            group.create_task(self._keep_in_sync())
            group.create_task(self._every(0.5, "anchor", self.anchor))
            group.create_task(self._every(EVIDENCE_EVERY_S, "evidence", self._evidence.bring))

    async def _every(self, seconds: float, duty: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await work()
                self._say(duty, "")
            except Error as problem:
                self._say(duty, problem.code)
            except OSError as problem:
                self._say(duty, type(problem).__name__)
            except Exception:
                # A bug in one round must not end the duty: a log that is no longer published helps nobody.
                log.exception("bug", extra={"fields": {"duty": duty}})
            await asyncio.sleep(seconds)

    async def _keep_in_sync(self) -> None:
        """Sync again and again; in quick succession until this node was in touch with every peer once, since before it
        is, it can't say whether a grant still stands."""
        started = asyncio.get_running_loop().time()
        while True:
            try:
                await self.sync_all()
            except Exception:
                log.exception("bug", extra={"fields": {"duty": "sync"}})
            met = all(peer.token in self._standing.compared for peer in self.peers())
            hurried = not met and asyncio.get_running_loop().time() - started < HURRY_S
            await asyncio.sleep(SYNC_EVERY_S / 10 if hurried else SYNC_EVERY_S)

    def _say(self, duty: str, problem: str) -> None:
        """Log a duty's trouble once, and its end once."""
        if self._said.get(duty, "") != problem:
            self._said[duty] = problem
            log.warning("duty", extra={"fields": {"duty": duty, "problem": problem or "over"}})

    async def _check_rollback(self) -> None:
        """Compare with the last anchor and with what peers cosigned, then serve (DESIGN 5.5)."""
        standing, custodian = self._standing, self._custodian
        try:
            size, root = custodian.files.write()
            standing.check_store(custodian.writer.frontier, size, root)
            reader = custodian.files.reader()
            standing.check_anchor(custodian.files.tail.size, reader.root_at)
        except VerificationError as problem:
            self._rolled_back(problem)
            return
        started = asyncio.get_running_loop().time()
        while standing.rollback in ("pending", "rollback-unchecked"):
            peers = self.peers()
            if not peers and not self._outside:
                standing.rollback = "checked"
                return
            answers = await asyncio.gather(*(self._compare_with(peer) for peer in peers))
            if self._is_rolled_back():
                return
            if any(answers):
                standing.rollback = "checked"
                custodian.grown.set()
                return
            if asyncio.get_running_loop().time() - started > ROLLBACK_WAIT_S:
                standing.rollback = "rollback-unchecked"
                standing.problem = "no peer could be asked what it cosigned; asking goes on"
            await asyncio.sleep(0.1)

    async def _compare_with(self, peer: NodeState) -> bool:
        """Have a peer cosign the log as it is: that proves it extends what the peer cosigned before."""
        size = self._custodian.files.tail.size
        root = self._custodian.files.tail.root() if size else EMPTY_ROOT
        note = self._custodian.sign(size, root)
        try:
            await self._cosignature(peer.token, peer.url, self._witness_verifier(peer), note, size)
        except VerificationError as problem:
            if problem.code == "rolled-back":
                self._rolled_back(problem)
                return True
            return False
        except Error:
            return False
        return True

    def _is_rolled_back(self) -> bool:
        return self._standing.rollback == "rolled-back"

    def _rolled_back(self, problem: VerificationError) -> None:
        self._standing.rollback = "rolled-back"
        self._standing.problem = problem.message
        log.error("rolled-back", extra={"fields": {"problem": problem.message}})

    def _witness_verifier(self, peer: NodeState) -> Verifier | None:
        witnesses = self._standing.directory.witnesses().get(peer.member, [])
        return next((verifier for verifier in witnesses if verifier.name.endswith(peer.token)), None)

    async def _publish_what_came(self) -> None:
        """Publish now or when the next entry comes, but wait no longer than a round for it: a peer may be missing."""
        try:
            async with asyncio.timeout(COSIGN_EVERY_S):
                await self._custodian.grown.wait()
            await asyncio.sleep(GATHER_S)
        except TimeoutError:
            pass
        await self.publish()

    async def publish(self) -> None:
        """Write what was committed since, have it cosigned by the other members' nodes, and publish the checkpoint."""
        async with self._publishing:
            await self._publish()

    async def _publish(self) -> None:
        custodian = self._custodian
        self._standing_metrics()
        if self._standing.rollback in ("pending", "rolled-back"):
            return
        custodian.grown.clear()
        if custodian.files.size == custodian.published[0] and len(self._standing.cosigned_by) >= len(self.peers()):
            return
        size, root = custodian.files.write()
        note = custodian.sign(size, root)
        asked = [(peer.token, peer.url, self._witness_verifier(peer)) for peer in self.peers()]
        asked += [(verifier.name, url, verifier) for url, verifier in self._outside]
        lines = await asyncio.gather(*(self._try_cosignature(*one, note, size) for one in asked))
        by = [name for (name, _, _), line in zip(asked, lines, strict=True) if line]
        custodian.publish(size, note + b"".join(line for line in lines if line))
        self._standing.cosigned_by = by

    async def _try_cosignature(self, name: str, url: str, verifier: Verifier | None, note: bytes, size: int) -> bytes:
        try:
            line = await self._cosignature(name, url, verifier, note, size)
        except VerificationError as problem:
            self._standing.faults[name] = problem.code
            if problem.code == "rolled-back":
                self._rolled_back(problem)
            return b""
        except Error:
            return b""
        self._standing.faults.pop(name, None)
        return line

    async def _cosignature(self, name: str, url: str, verifier: Verifier | None, note: bytes, size: int) -> bytes:
        """A witness's signature line for our checkpoint, verified.

        Raises VerificationError `rolled-back` (it cosigned a larger or another tree before, and proves it),
        `unproven` (it says so and shows no checkpoint of this log's key for it), UnavailableError.
        """
        if verifier is None:
            raise UnavailableError("no-witness", f"the directory has no witness key of {name}")
        reader = self._custodian.files.reader()
        for _ in range(3):
            old = self._known_size.get(name, 0)
            if old > size:
                raise await self._rollback_said_by(name, url, size)
            proof = reader.consistency_proof(old, size) if 0 < old < size else []
            path = "/witness/add-checkpoint" if verifier.name.startswith(self._standing.directory.network[:16]) else ""
            answer = await self._transport.post(
                url,
                path or "/add-checkpoint",
                format_add_checkpoint(old, proof, note),
                content="text/plain",
                timeout_s=PEER_TIMEOUT_S,
            )
            if answer.status == 409:
                self._known_size[name] = parse_wrong_size_body(answer.body)
                continue
            if answer.status == 422:
                raise await self._rollback_said_by(name, url, size)
            if answer.status != 200:
                raise UnavailableError("no-cosignature", f"{name} did not cosign (status {answer.status})")
            text = note[: note.index(b"\n\n") + 1]
            verify_cosignature(answer.body, checkpoint_text=text, verifier=verifier)
            self._known_size[name] = size
            return answer.body
        raise UnavailableError("no-cosignature", f"{name} keeps changing its mind about the size it knows")

    async def _rollback_said_by(self, name: str, url: str, size: int) -> VerificationError:
        """A witness says that this log had more, or something else. A member's must show the checkpoint that says so in
        this log's own signature: else any one of them could keep every other node from serving."""
        custodian = self._custodian
        self._known_size.pop(name, None)
        if any(name == outside.name for _, outside in self._outside):
            return VerificationError("rolled-back", f"the witness {name} has cosigned another history of this log")
        origin = log_origin(custodian.network, self._standing.node)
        try:
            answer = await self._transport.get(url, f"/witness/checkpoint/{origin}", timeout_s=PEER_TIMEOUT_S)
            shown = open_checkpoint(answer.body, verifier=custodian.log_verifier)
        except Error:
            return VerificationError("unproven", f"{name} says this log was rolled back, and can't prove it")
        if shown.size > size:
            line = f"{name} has cosigned {shown.size} entries of this log, which has only {size} now"
            return VerificationError("rolled-back", f"{line}; restore it")
        if shown.size and custodian.files.reader().root_at(shown.size) != shown.root:
            line = f"{name} has cosigned another history of this log's first {shown.size} entries"
            return VerificationError("rolled-back", f"{line}; keep both and verify them")
        return VerificationError("unproven", f"{name} says this log was rolled back, and shows that it was not")

    async def anchor(self) -> None:
        """Record the published checkpoint in the directory when it changed, no oftener than the parameter says."""
        custodian, standing = self._custodian, self._standing
        size, note = custodian.published
        last = standing.directory.anchor(standing.node)
        standing.anchored = 0 if last is None else last.size
        now = custodian.now_ms()
        if size <= standing.anchored or standing.rollback == "rolled-back":
            return
        if now - self._anchored_at < int(str(standing.directory.parameter("anchor_min_ms"))):
            return
        reader = custodian.files.reader()
        proof = reader.consistency_proof(standing.anchored, size) if standing.anchored else []
        payload = Anchor(
            v=1,
            network=custodian.network,
            node=standing.node,
            checkpoint=note.decode("utf-8"),
            proof=[value.hex() for value in proof],
        )
        self._anchored_at = now
        await self._submit([sign_transaction(payload, signers=[self._signer])])

    async def sync_all(self) -> None:
        """One round of sync with every peer, at the same time."""
        if self._standing.rollback == "rolled-back":
            return
        await asyncio.gather(*(self._sync_with(peer) for peer in self.peers()))

    async def _sync_with(self, peer: NodeState) -> None:
        try:
            await self.sync(peer)
        except Error as problem:
            self._say(f"sync {peer.token}", problem.code)
        else:
            self._say(f"sync {peer.token}", "")

    async def sync(self, peer: NodeState, *, subject: str | None = None) -> None:
        """Ask one peer what it kept, and for what is missing here. Raises UnavailableError, MalformedError."""
        exchange = self._exchange
        since = 0 if subject is not None else exchange.cursor(peer.token)
        while True:
            named = await self._ask(peer, since=since, subject=subject)
            missing = exchange.missing(named)
            waiting = False
            while missing:
                answer = await self._ask(peer, since=missing[0], subject=subject, wanted=missing[:200])
                if not answer.items:
                    break
                refused = await exchange.take(peer.token, answer)
                for one in refused:
                    log.warning("sync-refused", extra={"fields": {"peer": peer.token, "code": one.code}})
                waiting = waiting or any(one.code in _NOT_YET for one in refused)
                last = answer.items[-1].index
                missing = [index for index in missing if index > last]
            if waiting and self._retry_later(peer.token):
                return
            if subject is None:
                await exchange.move_on(peer.token, named.next)
            since = named.next
            if named.next >= named.size:
                break
        if subject is None:
            self._standing.compared[peer.token] = self._custodian.now_ms()

    def _retry_later(self, peer: str) -> bool:
        """Whether to come back to what a peer named: this node may lack a block or an event yet."""
        self._not_yet[peer] = self._not_yet.get(peer, 0) + 1
        if self._not_yet[peer] <= _RETRIES_NOT_YET:
            return True
        self._not_yet[peer] = 0
        return False

    async def _ask(
        self, peer: NodeState, *, since: int, subject: str | None, wanted: list[int] | None = None
    ) -> SyncAnswer:
        signed = self._exchange.ask(peer.token, since=since, signer=self._signer, subject=subject, wanted=wanted or ())
        answer = await self._transport.post(peer.url, "/v1/sync", _encode(signed), timeout_s=20.0)
        if answer.status != 200:
            raise UnavailableError("no-sync", f"{peer.token} did not answer a sync request (status {answer.status})")
        try:
            return _sync_decoder.decode(answer.body)
        except (msgspec.DecodeError, RecursionError, ValueError):
            raise MalformedError("not-msgpack", f"{peer.token} answered a sync request with something else") from None

    async def pull(self, subject: str) -> None:
        """A request knows a newer consent head: ask the subject's other custodians, and be done with the first that
        has it."""
        custodians = set(self._custodian.people.custodians(subject))
        tasks = [self._pull_one(peer, subject) for peer in self.peers() if peer.token in custodians]
        await asyncio.gather(*tasks)

    async def _pull_one(self, peer: NodeState, subject: str) -> None:
        try:
            await self.sync(peer, subject=subject)
        except Error as problem:
            self._say(f"sync {peer.token}", problem.code)

    def _standing_metrics(self) -> None:
        health, gauges = self._standing.health(), self._metrics.gauges
        for name in ("log_entries", "published_entries", "anchored_entries", "directory_height"):
            gauges[name].set(float(str(health[name])))
        gauges["cosignatures"].set(len(self._standing.cosigned_by))
        gauges["directory_age_seconds"].set(float(str(health["directory_age_ms"])) / 1000)
        gauges["waiting"].set(self._custodian.writer.waiting)
        peers = health["peers_in_touch"]
        gauges["peers_in_touch"].set(len(peers) if isinstance(peers, list) else 0)
