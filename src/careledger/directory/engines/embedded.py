"""The embedded engine: one sequencer orders transactions, every other node executes the same blocks and cosigns.

The blocks are a C2SP log with origin `<network, 16 hex>/directory`: block h is entry h−1. Its checkpoints carry the app
hash in an extension line and are signed by the sequencer node's log key. The sequencer can stall or censor; it can't
forge, because a follower cosigns only what it executed itself, and clients ask for the cosignatures of more than two
thirds of the members. Synchronous, no sockets: the node moves the bytes. For one thread at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from careledger.directory.engines.blocklog import ACCEPT_BLOCKS_MAX, Replica, wrong_block
from careledger.directory.engines.blockstore import StoredCheckpoint
from careledger.directory.engines.results import SubmitResult
from careledger.directory.genesis import directory_origin
from careledger.directory.proofs import app_hash_line
from careledger.directory.rules import Execution
from careledger.directory.transactions import BLOCK_BYTES_MAX, Block, TxResult, parse_block
from careledger.errors import MalformedError, NotPermittedError, VerificationError
from careledger.identity import Token
from careledger.seal import Envelope, SigningKey, encode
from careledger.tlog import (
    Checkpoint,
    Note,
    Signer,
    Verifier,
    leaf_hash,
    open_checkpoint,
    open_note,
    parse_unverified_checkpoint,
    sign_checkpoint,
)

__all__ = ["Follower", "Replica", "Sequencer", "SubmitResult"]

_SKEW_MS: Final = 120_000
"""How far ahead of a follower's clock a block may be dated; the same bound as for requests (design 5.4)."""


class Sequencer(Replica):
    """The node that orders: takes transactions, makes blocks, signs checkpoints."""

    def __init__(
        self,
        path: Path,
        *,
        genesis: bytes,
        node: Token,
        log_key: SigningKey,
        witness: SigningKey,
        now_ms: int,
        folder: Path | None = None,
    ) -> None:
        """Opens as Replica does; a new network gets its first, empty block, so that there is a head to prove from.

        Raises NotPermittedError `not-the-sequencer`, `wrong-key`: the directory names another node or log key.
        """
        super().__init__(path, genesis=genesis, node=node, witness=witness, folder=folder)
        self._signer = Signer(directory_origin(self.network), log_key)
        try:
            self._check_office()
            if self.height == 0:
                self._make_blocks([], now_ms)
        except BaseException:
            self.close()
            raise

    def submit(self, envelopes: Sequence[Envelope], *, now_ms: int) -> list[SubmitResult]:
        """Execute transactions in this order and put the acceptable ones into blocks: one, or as many as they fill.

        Durable when it returns. Refused ones leave no trace; those after a change of sequencer are refused with
        `not-the-sequencer`. Raises UnavailableError `store-failed` (nothing after the last durable block was done),
        NotPermittedError `not-the-sequencer`.
        """
        results: list[SubmitResult] = []
        while len(results) < len(envelopes):
            if results and not self._in_office():
                refusal = SubmitResult("not-the-sequencer", "the sequencer has changed: send it to the new one", None)
                return results + [refusal] * (len(envelopes) - len(results))
            self._check_office()
            results += self._make_blocks(envelopes[len(results) :], now_ms)
        return results

    def heartbeat(self, *, now_ms: int) -> bool:
        """Make an empty block if the last one is older than the parameter heartbeat_ms; says whether it did."""
        self._check_office()
        if now_ms - self.directory.time_ms < self.directory.integer("heartbeat_ms"):
            return False
        self._make_blocks([], now_ms)
        return True

    def check_not_rolled_back(self, note: bytes) -> None:
        """Compare with a note that this sequencer signed before, as a follower shows it at start.

        A store restored from an old copy would order something else at the same heights: a fork under its own name.
        Raises VerificationError `rolled-back` (open the store as Follower, take the missing blocks from a follower,
        then sequence again), `fork`; and, for a note that it never signed, `no-signature`, `bad-signature`.
        """
        stated = open_checkpoint(note, verifier=self._signer.verifier)
        if stated.size > self.height:
            raise VerificationError(
                "rolled-back",
                f"this sequencer signed {stated.size} blocks and has only {self.height}: get the rest from a follower",
                details={"size": stated.size, "height": self.height},
            )
        if not self._agrees(stated, self._store.checkpoint(stated.size)):
            raise _forked(stated.size)

    def _in_office(self) -> bool:
        return self.directory.sequencer_verifier() == self._signer.verifier

    def _check_office(self) -> None:
        named = self.directory.node(str(self.directory.parameter("sequencer")))
        if named is None or named.token != self.node:
            raise NotPermittedError("not-the-sequencer", "the directory names another node as sequencer: follow it")
        if not self._in_office():
            raise NotPermittedError("wrong-key", "the directory names another log key of this node: open with that one")

    def _make_blocks(self, envelopes: Sequence[Envelope], now_ms: int) -> list[SubmitResult]:
        """Blocks under one checkpoint, made durable together; without transactions, one empty block."""
        results: list[SubmitResult] = []
        blocks: list[bytes] = []
        frontier = self._tail.frontier.copy()
        with self._all_or_nothing():
            while len(blocks) < ACCEPT_BLOCKS_MAX and self._in_office():
                data = self._make_block(envelopes[len(results) :], now_ms, results)
                if data is not None:
                    blocks.append(data)
                    frontier.append(leaf_hash(data))
                if len(results) >= len(envelopes):
                    break
            if blocks:
                self._sign(frontier.root(), now_ms)
        if blocks:
            self._grow(blocks)
        return results

    def _make_block(self, envelopes: Sequence[Envelope], now_ms: int, results: list[SubmitResult]) -> bytes | None:
        """Fill one block, note what became of each transaction, and make it the directory's; None: none was good."""
        height, time_ms = self.height + 1, max(now_ms, self.directory.time_ms)
        execution = Execution(self.directory.state, height=height, time_ms=time_ms)
        accepted: list[Envelope] = []
        size = len(encode(self._block(height, time_ms, [])))
        for envelope in envelopes:
            size += len(encode(envelope)) + 1
            if size > BLOCK_BYTES_MAX and accepted:
                break
            result = execution.run(envelope, place=len(accepted)) if size <= BLOCK_BYTES_MAX else _TOO_LARGE
            if result.ok:
                accepted.append(envelope)
            else:
                size -= len(encode(envelope)) + 1
            results.append(SubmitResult(result.code, result.message, height if result.ok else None))
        if envelopes and not accepted:
            return None
        data = encode(self._block(height, time_ms, accepted))
        outcome = execution.outcome()
        self._store.add_block(height, data, outcome.operations)
        self.directory.commit(outcome)
        return data

    def _block(self, height: int, time_ms: int, transactions: list[Envelope]) -> Block:
        return Block(v=1, network=self.network, height=height, time=time_ms, transactions=transactions)

    def _sign(self, root: bytes, now_ms: int) -> None:
        extensions = (app_hash_line(self.directory.app_hash()),)
        checkpoint = Checkpoint(directory_origin(self.network), self.height, root, extensions)
        note = sign_checkpoint(checkpoint, signer=self._signer)
        self._store.add_checkpoint(StoredCheckpoint(self.height, note, self._signer.key.public))
        self._cosign(note, now_ms)


class Follower(Replica):
    """A node that executes what the sequencer ordered, and cosigns only that."""

    def __init__(
        self, path: Path, *, genesis: bytes, node: Token, witness: SigningKey, folder: Path | None = None
    ) -> None:
        """Opens as Replica does."""
        super().__init__(path, genesis=genesis, node=node, witness=witness, folder=folder)

    def accept(self, blocks: Sequence[bytes], checkpoint: bytes, *, now_ms: int) -> bytes:
        """Execute the blocks that end at this checkpoint, and cosign it: returns the cosignature line.

        `blocks` are those that `Sequencer.blocks_after` gave for this replica's height; blocks already known may lead.
        Repeatable: a checkpoint that is known gives the same line again. Durable when it returns. On any refusal the
        replica stays where it was.

        1. the note is signed by the sequencer in force; 2. the blocks follow, none missing, none dated ahead of the
        clock; 3. every transaction in them is acceptable; 4. root and app hash are the checkpoint's.
        Raises VerificationError `wrong-block` (details: height), `fork` (two notes of one size; both are kept);
        MalformedError for a note or block without form; UnavailableError `store-failed`.
        """
        stated = parse_unverified_checkpoint(checkpoint)
        if stated.size <= self.height:
            return self._accept_known(stated, checkpoint)
        note = self._open(checkpoint)
        signer = note.verified[0].verifier
        new = self._new_blocks(blocks, stated.size)
        frontier = self._tail.frontier.copy()
        with self._all_or_nothing():
            for data in new:
                if self.directory.sequencer_verifier() != signer:
                    raise wrong_block(self.height + 1, "it comes after a change of sequencer, from the old one")
                if parse_block(data).time > now_ms + _SKEW_MS:
                    raise wrong_block(self.height + 1, "it is dated in the future; check this node's clock")
                self._store.add_block(self.height + 1, data, self._execute(data))
                frontier.append(leaf_hash(data))
            self._compare(stated, frontier.root())
            kept = note.text + b"\n" + note.verified[0].line.raw
            self._store.add_checkpoint(StoredCheckpoint(self.height, kept, signer.public))
            for other in note.verified[1:]:
                self._store.add_cosignature(self.height, other.verifier.vkey, other.line.raw)
            line = self._cosign(kept, now_ms)
        self._grow(new)
        return line

    def _open(self, checkpoint: bytes) -> Note:
        """The note with the sequencer's signature first among the verified ones, members' cosignatures after it."""
        sequencer = self.directory.sequencer_verifier()
        if sequencer is None:
            raise wrong_block(self.height + 1, "the directory names no sequencer")
        witnesses = [verifier for nodes in self.directory.witnesses().values() for verifier in nodes]
        try:
            open_checkpoint(checkpoint, verifier=sequencer)
            note = open_note(checkpoint, verifiers=[sequencer, *witnesses])
        except VerificationError as error:
            raise wrong_block(self.height + 1, f"its checkpoint is not the sequencer's ({error.code})") from error
        ordered = sorted(note.verified, key=lambda signature: signature.verifier != sequencer)
        return Note(note.text, tuple(ordered), note.unverified)

    def _new_blocks(self, blocks: Sequence[bytes], size: int) -> list[bytes]:
        missing = size - self.height
        if missing > ACCEPT_BLOCKS_MAX:
            raise MalformedError("too-many-blocks", f"{missing} blocks at once; at most {ACCEPT_BLOCKS_MAX} are taken")
        if len(blocks) < missing:
            raise wrong_block(self.height + 1, f"{missing} blocks lead to the checkpoint, only {len(blocks)} came")
        known, new = list(blocks[: len(blocks) - missing]), list(blocks[len(blocks) - missing :])
        first = self.height - len(known) + 1
        if known and (first < 1 or known != list(self._store.blocks(first, self.height))):
            raise wrong_block(first, "it is not the block that this replica has at that height")
        return new

    def _accept_known(self, stated: Checkpoint, checkpoint: bytes) -> bytes:
        """A checkpoint at or below this height: ours, or the proof that the sequencer forked its log."""
        mine = self._store.checkpoint(stated.size)
        signer = self.directory.sequencer_verifier()
        if mine is not None:
            signer = Verifier.ed25519(directory_origin(self.network), mine.signer)
        if signer is None:
            raise wrong_block(stated.size, "the directory names no sequencer")
        try:
            open_checkpoint(checkpoint, verifier=signer)
        except VerificationError as error:
            raise wrong_block(stated.size, f"its checkpoint is not the sequencer's ({error.code})") from error
        if not self._agrees(stated, mine):
            kept = mine or self._store.newest_checkpoint()
            if kept is not None:
                with self._store.writing():
                    self._store.add_fork(stated.size, kept.note, checkpoint)
            raise _forked(stated.size)
        line = dict(self._store.cosignatures(stated.size)).get(self.cosigner.vkey)
        if line is None:
            raise wrong_block(stated.size, "this replica has not stopped at that height; ask for the newest checkpoint")
        return line


_TOO_LARGE: Final = TxResult("too-large", "the transaction is larger than a block may be")


def _forked(size: int) -> VerificationError:
    return VerificationError(
        "fork",
        f"the sequencer signed two directories of {size} blocks: both notes are kept as evidence",
        details={"size": size},
    )
