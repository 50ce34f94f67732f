"""A replica with its block log: what the sequencer and its followers have in common.

Blocks on disk, the directory in memory, the log's tile files beside them. On start every block is executed again with
the same code that executed it when it was new, and the result is compared with the newest signed checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from careledger.directory.engines.blockstore import BlockStore, StoredCheckpoint
from careledger.directory.engines.logfolder import LogFolder
from careledger.directory.genesis import log_origin, network_of, parse_genesis
from careledger.directory.proofs import cosignatures_needed, parse_app_hash
from careledger.directory.replica import Directory
from careledger.directory.rules import apply_block
from careledger.directory.state import RECENT_BLOCKS
from careledger.directory.transactions import parse_block
from careledger.errors import (
    Error,
    NotFoundError,
    UnavailableError,
    VerificationError,
)
from careledger.identity import Token, parse_operation
from careledger.seal import Envelope, SigningKey
from careledger.tlog import (
    Checkpoint,
    Cosigner,
    LogTail,
    cosign,
    leaf_hashes_of,
    open_checkpoint,
    root_of,
    tail_of_entries,
    verify_cosignature,
)

__all__ = ["ACCEPT_BLOCKS_MAX", "Replica", "note_text", "wrong_block"]

ACCEPT_BLOCKS_MAX: Final = 512
"""Blocks that are executed before their checkpoint is compared; all of them can be taken back."""
_COSIGNED_LOOK_BACK: Final = 64

assert ACCEPT_BLOCKS_MAX < RECENT_BLOCKS


class Replica:
    """What sequencer and followers have in common: blocks on disk, the directory in memory, the log's files."""

    def __init__(self, path: Path, *, genesis: bytes, node: Token, witness: SigningKey, folder: Path | None) -> None:
        """Open or create the store and execute every block in it again.

        Raises VerificationError `wrong-block`: the store holds blocks that don't give its own checkpoint, it was
        altered or damaged; restore it, or start from an empty one. ConflictError `other-network`.
        """
        self.network = network_of(genesis)
        self.node = node
        self.genesis = genesis
        self.cosigner = Cosigner(log_origin(self.network, node), witness)
        self._founders = {parse_operation(item).token: item for item in parse_genesis(genesis).inceptions}
        self._store = BlockStore(path, network=self.network, genesis=genesis)
        self._folder = None if folder is None else LogFolder(folder)
        self.directory = Directory.from_genesis(genesis)
        self._tail = LogTail()
        self.repaired: list[str] = []
        """Log files that were missing or differed when this replica was opened."""
        self.folder_fault = ""
        """Why the log's files could not be written, empty while they are up to date."""
        try:
            self._replay()
        except BaseException:
            self._store.close()
            raise

    def close(self) -> None:
        self._store.close()

    @property
    def height(self) -> int:
        return self.directory.height

    def blocks_after(self, height: int, *, limit: int = ACCEPT_BLOCKS_MAX) -> tuple[list[bytes], bytes] | None:
        """Blocks after `height` and the cosigned checkpoint of the last of them, as `Follower.accept` takes them.

        At most about `limit` blocks, none beyond a change of sequencer; None when there is nothing newer.
        """
        first = self._store.next_checkpoint(height)
        if first is None:
            return None
        chosen = first
        for candidate in self._store.checkpoints_after(first.size, height + min(limit, ACCEPT_BLOCKS_MAX)):
            if candidate.signer != first.signer:
                break
            chosen = candidate
        return list(self._store.blocks(height + 1, chosen.size)), self.checkpoint(chosen.size)

    def block(self, height: int) -> bytes | None:
        """The exact bytes of a block."""
        return self._store.block(height)

    def operations(self, token: Token) -> list[Envelope]:
        """Every operation of an identity in order, from its inception on; empty when the token is not known."""
        return self._store.operations(token, founders=self._founders, parse=parse_block)

    def checkpoint(self, size: int | None = None) -> bytes:
        """The sequencer's signed note of this size (the newest when not given) with every cosignature known.

        Raises NotFoundError `no-checkpoint`.
        """
        found = self._store.newest_checkpoint() if size is None else self._store.checkpoint(size)
        if found is None:
            raise NotFoundError("no-checkpoint", "there is no checkpoint of the directory of that size")
        return found.note + b"".join(line for _, line in self._store.cosignatures(found.size))

    def add_cosignature(self, size: int, line: bytes) -> Token:
        """Keep a member's cosignature of the checkpoint of this size; returns the member. Durable, repeatable.

        Raises NotFoundError `no-checkpoint`, VerificationError `bad-signature`, `unknown-witness`; MalformedError.
        """
        found = self._store.checkpoint(size)
        if found is None:
            raise NotFoundError("no-checkpoint", f"there is no checkpoint of size {size} here yet")
        text = note_text(found.note)
        for member, verifiers in self.directory.witnesses().items():
            for verifier in verifiers:
                try:
                    verify_cosignature(line, checkpoint_text=text, verifier=verifier)
                except VerificationError as error:
                    if error.code == "no-signature":
                        continue
                    raise
                with self._store.writing():
                    self._store.add_cosignature(size, verifier.vkey, line)
                self._publish_checkpoint(size)
                return member
        raise VerificationError("unknown-witness", "the cosignature is by no member's node")

    def cosigned(self, size: int) -> list[Token]:
        """The members whose nodes have cosigned the checkpoint of this size."""
        vkeys = {vkey for vkey, _ in self._store.cosignatures(size)}
        return [
            member
            for member, verifiers in self.directory.witnesses().items()
            if any(verifier.vkey in vkeys for verifier in verifiers)
        ]

    def newest_cosigned(self, *, needed: int | None = None) -> tuple[int, bytes] | None:
        """The newest height that `needed` members cosigned (⌊2m/3⌋+1 when not given), with its note; None so far."""
        wanted = cosignatures_needed(len(self.directory.members())) if needed is None else needed
        for size in self._store.cosigned_sizes(_COSIGNED_LOOK_BACK):
            if len(self.cosigned(size)) >= wanted:
                return size, self.checkpoint(size)
        return None

    def forks(self) -> list[tuple[int, bytes, bytes]]:
        """Proven forks of the sequencer: (size, the note followed here, another note)."""
        return self._store.forks()

    def _replay(self) -> None:
        """Bring directory and log tail up to the store: the same execution as when the blocks were new."""
        height, signer = self._store.height(), self.directory.sequencer_verifier()
        for data in self._store.blocks(1, height):
            signer = self.directory.sequencer_verifier()
            self._execute(data)
        self._tail, files = tail_of_entries(list(self._store.blocks(1, height)))
        newest = self._store.newest_checkpoint()
        if newest is None and height == 0:
            return
        if newest is None or signer is None:
            raise wrong_block(height, "the store's last block has no checkpoint")
        self._compare(open_checkpoint(newest.note, verifier=signer), self._tail.root())
        if self._folder is not None:
            self.repaired = self._folder.repair(files, self.checkpoint(), size=height)

    def _execute(self, data: bytes) -> list[tuple[str, int]]:
        """Execute one block and make it the directory's; every transaction in it must be acceptable."""
        height = self.height + 1
        try:
            outcome = apply_block(self.directory.state, parse_block(data))
        except Error as error:
            raise wrong_block(height, error.message) from error
        for place, result in enumerate(outcome.results):
            if not result.ok:
                raise wrong_block(height, f"transaction {place} breaks the rules ({result.code})")
        self.directory.commit(outcome)
        return outcome.operations

    def _compare(self, checkpoint: Checkpoint, root: bytes) -> None:
        if checkpoint.size != self.height:
            raise wrong_block(self.height, f"the checkpoint is of size {checkpoint.size}")
        if checkpoint.root != root:
            raise wrong_block(self.height, "the blocks do not give the checkpoint's root")
        if parse_app_hash(checkpoint) != self.directory.app_hash():
            raise wrong_block(self.height, "executing it gives another app hash than the checkpoint's")

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """The store's transaction, with the directory in memory taken back when it fails."""
        before = self.height
        try:
            with self._store.writing():
                yield
        except BaseException:
            self.directory.state.take_back(before)
            self._catch_up()
            raise

    def _catch_up(self) -> None:
        """A commit that reported failure may be on disk all the same: then its blocks are part of the history."""
        try:
            missing = list(self._store.blocks(self.height + 1, self._store.height()))
        except UnavailableError:
            return
        for data in missing:
            self._execute(data)
        if missing:
            self._tail.append(missing)
            self.folder_fault = "blocks were found in the store after a commit that had reported failure"

    def _cosign(self, note: bytes, now_ms: int) -> bytes:
        """This node's own cosignature of a checkpoint that it has executed; stored in the transaction under way."""
        line = cosign(note_text(note), signer=self.cosigner, now_s=max(1, now_ms // 1000))
        self._store.add_cosignature(self.height, self.cosigner.vkey, line)
        return line

    def _grow(self, blocks: Sequence[bytes]) -> None:
        """After the commit: the log's tail and files. The files are derived, so that a crash here is repaired."""
        _, files = self._tail.append(blocks)
        if self._folder is None:
            return
        try:
            if self.folder_fault:
                _, everything = tail_of_entries(list(self._store.blocks(1, self.height)))
                self._folder.repair(everything, self.checkpoint(), size=self.height)
            else:
                self._folder.grow(files, self.checkpoint(), size=self.height)
            self.folder_fault = ""
        except UnavailableError as error:
            # The blocks are durable and were answered for; only their public copy is late. The next growth repairs it.
            self.folder_fault = error.message

    def _agrees(self, stated: Checkpoint, mine: StoredCheckpoint | None) -> bool:
        """Whether a checkpoint at or below this height is of this history; `mine` is the stored one of that size."""
        if mine is not None:
            return note_text(mine.note) == stated.text
        return root_of(leaf_hashes_of(list(self._store.blocks(1, stated.size)))) == stated.root

    def _publish_checkpoint(self, size: int) -> None:
        if self._folder is None or size != self.height or self.folder_fault:
            return
        try:
            self._folder.set_checkpoint(self.checkpoint())
        except UnavailableError as error:
            self.folder_fault = error.message


def wrong_block(height: int, why: str) -> VerificationError:
    """The refusal of a block; `details.height` says of which."""
    return VerificationError(
        "wrong-block", f"block {height} of the directory is wrong: {why}; do not cosign it", details={"height": height}
    )


def note_text(note: bytes) -> bytes:
    """The text of a signed note, without its signature lines."""
    return note[: note.rindex(b"\n\n") + 1]
