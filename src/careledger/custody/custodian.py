"""The custodian: what every part of it shares, and the order in which things happen.

A request is proven as it arrives (signatures, freshness, form), then handed to the writer as a job, which decides and
appends in index order; only after the disk sync does anything leave. The jobs themselves are in `acceptance`
(submissions), `release` (access), `chains` (consent events), `documents`, `exchange` (sync).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from careledger.access import FRESH_MS, EntryKind, Receipt, build_entry, origin
from careledger.consent import ConsentState
from careledger.custody.chains import Chains
from careledger.custody.keyring import Keyring
from careledger.custody.people import People
from careledger.custody.published import LogFiles
from careledger.custody.store import Store
from careledger.custody.writer import Batch, Committed, Writer
from careledger.directory import Directory
from careledger.errors import ConflictError, Error, NotFoundError
from careledger.seal import SealingKey
from careledger.tlog import (
    EMPTY_ROOT,
    BatchProofs,
    Checkpoint,
    Signer,
    Verifier,
    format_proof,
    open_checkpoint,
    sign_checkpoint,
)

__all__ = ["Custodian", "View"]

Rand = Callable[[int], bytes]


class View:
    """The directory as a decision sees it (consent.DirectoryView)."""

    __slots__ = ("_directory", "is_active", "licensed")

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.is_active = directory.is_active
        self.licensed = directory.licensed

    @property
    def height(self) -> int:
        return self._directory.height

    @property
    def time_ms(self) -> int:
        return self._directory.time_ms

    def member(self, organisation: str, /) -> bool:
        return self._directory.member(organisation) is not None


class Custodian:
    """One node's custody. `sealing` is its X-Wing key by keyid, newest last; `log_signer` signs its checkpoints.

    `heads_age_ms(custodians, t)` says how long ago consent heads were compared with t−1 others of these nodes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        node: str,
        directory: Directory,
        sealing: Mapping[str, SealingKey],
        log_signer: Signer,
        now_ms: Callable[[], int],
        rand: Rand,
        heads_age_ms: Callable[[Sequence[str], int, int], int],
    ) -> None:
        self.node = node
        self.network = directory.network
        self.directory = directory
        self.view = View(directory)
        self.sealing = dict(sealing)
        self.now_ms = now_ms
        self.rand = rand
        self.heads_age_ms = heads_age_ms
        self.keyring = Keyring(directory)
        self.store = Store(folder / "store")
        self.files = LogFiles(folder / "log", self.store, verifier=log_signer.verifier)
        self.people = People(self.store, directory)
        self.chains = Chains(self.store, self.network)
        self._signer = log_signer
        self._origin = origin(self.network, node)
        self.published: tuple[int, bytes] = self._read_published()
        """Size and note of the checkpoint in the log's folder."""
        self._parameters: dict[str, int] = {}
        self._parameters_at = -1
        self._news = asyncio.Event()
        self.grown = asyncio.Event()
        """Set when there may be entries to publish; cleared by who publishes them."""
        self.grown.set()
        self._nonces: OrderedDict[str, int] = OrderedDict()
        self._forgetters: list[Callable[[], None]] = [self.people.forget, self.chains.forget]
        self._settlers: list[Callable[[], None]] = [self.people.settle, self.chains.settle]
        self.writer = Writer(
            self.store, checkpoint=self.sign, committed=self._committed, forget=self._forget, now_ms=now_ms
        )

    def on_forget(self, forget: Callable[[], None]) -> None:
        """`forget` drops what a job changed in memory; called when a commit failed."""
        self._forgetters.append(forget)

    def _forget(self) -> None:
        for forget in self._forgetters:
            forget()

    def _committed(self, leaves: list[bytes], proofs: BatchProofs) -> None:
        for settle in self._settlers:
            settle()
        if leaves:
            self.files.add(leaves, proofs)
            self.grown.set()

    def _read_published(self) -> tuple[int, bytes]:
        """What is published now; nothing when the file is missing or damaged: then it is published again."""
        try:
            note = self.files.read("checkpoint")
            return open_checkpoint(note, verifier=self._signer.verifier).size, note
        except Error:
            return 0, b""

    def publish(self, size: int, note: bytes) -> None:
        """Put a (cosigned) checkpoint of written files in place. Raises OSError."""
        self.files.publish(note)
        self.published = (size, note)
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def published_up_to(self, size: int, *, timeout_s: float = 3.0) -> None:
        """Wait until the published checkpoint covers `size` entries, or until the time is up."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.published[0] < size:
                    await self._news.wait()
        except TimeoutError:
            pass

    def sign(self, size: int, root: bytes) -> bytes:
        """A checkpoint note of this log, signed by the node alone."""
        return sign_checkpoint(Checkpoint(self._origin, size, root), signer=self._signer)

    @property
    def log_verifier(self) -> Verifier:
        """The key of this log."""
        return self._signer.verifier

    @property
    def keyid(self) -> str:
        """The keyid that authors seal shares to now."""
        return next(reversed(self.sealing))

    def body(
        self,
        batch: Batch,
        index: int,
        state: ConsentState,
        *,
        kind: EntryKind,
        decision: str,
        reason: str,
        counters: Mapping[str, int] | None = None,
        envelopes: Sequence[bytes] = (),
        manifest: bytes | None = None,
        subject: str | None = None,
        grant: str | None = None,
        client: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> bytes:
        """The body of an entry, with the state of consent and directory that it was decided with."""
        return build_entry(
            network=self.network,
            node=self.node,
            index=index,
            received=batch.now_ms,
            directory_height=self.directory.height,
            directory_age=max(0, batch.now_ms - self.directory.time_ms),
            consent_seq=state.seq,
            consent_hash=state.head,
            kind=kind,
            decision=decision,
            reason=reason,
            counters=counters or {},
            envelopes=envelopes,
            manifest=manifest,
            subject=subject,
            grant=grant,
            client=client,
            details=details,
        )

    def use_nonce(self, nonce: str, now_ms: int) -> None:
        """Remember the nonce of a signed read for as long as it could be fresh. Raises ConflictError `replayed`.

        In memory: after a restart a request could be answered once more, to whoever has captured it within 120 s.
        """
        while self._nonces and next(iter(self._nonces.values())) < now_ms:
            self._nonces.popitem(last=False)
        if nonce in self._nonces:
            raise ConflictError("replayed", "this request was answered before: sign a new one")
        self._nonces[nonce] = now_ms + 2 * FRESH_MS

    def limits(self) -> dict[str, int]:
        """The parameters that decisions take, as counters name them."""
        return {"stale_max_ms": self.parameter("stale_max_ms"), "head_fresh_ms": self.parameter("head_fresh_ms")}

    def parameter(self, name: str) -> int:
        """An integer parameter of the network in force at the directory's height."""
        height = self.directory.height
        if height != self._parameters_at:
            self._parameters_at = height
            self._parameters.clear()
        value = self._parameters.get(name)
        if value is None:
            value = self._parameters[name] = self.directory.integer(name)
        return value

    def heads_age_of(self, subject: str, now_ms: int) -> int:
        """How long ago (ms) this node compared the subject's consent head with t−1 of its other custodians."""
        try:
            document = self.people.document(subject).document
        except NotFoundError:
            return 0
        return self.heads_age_ms(document.custodians, document.threshold, now_ms)

    def receipt(self, salt: bytes, body: bytes, index: int, committed: Committed) -> Receipt:
        """The receipt of an entry that was committed just now."""
        return Receipt(salt=salt, body=body, proof=committed.proof(index))

    async def receipt_of(self, index: int) -> Receipt:
        """The receipt of an entry from before. Raises NotFoundError; OSError when the log's files can't be written.

        The store shows an entry as soon as it is durable, a moment before the event loop is told: that is waited for.
        """
        while index >= self.writer.frontier.size and self.writer.busy:  # noqa: ASYNC110 - a matter of microseconds
            await asyncio.sleep(0)
        row = self.store.reading.execute("SELECT salt, body FROM entries WHERE idx = ?", (index,)).fetchone()
        if row is None or row[1] is None:
            raise NotFoundError("not-found", f"there is no body of entry {index}")
        if index >= self.files.tail.size:
            self.files.write()
        reader = self.files.reader()
        checkpoint = self.sign(reader.size, reader.root if reader.size else EMPTY_ROOT)
        return Receipt(salt=row[0], body=row[1], proof=format_proof(index, reader.inclusion_proof(index), checkpoint))

    async def close(self) -> None:
        """Finish what is under way and close the files."""
        await self.writer.drain()
        self.store.close()
