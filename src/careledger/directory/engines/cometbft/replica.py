"""The directory as CometBFT's blocks make it: executed first, compared by the network, and only then kept.

Executing changes nothing: the outcome stands beside the state until Commit puts block, app hash and state in place at
once. So a block that is proposed and decided is executed once, a crash leaves a whole block or nothing, and an engine
that connects anew finds the last committed height. Synchronous, for one thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from careledger.directory.engines.cometbft.chain import TRANSACTION_BYTES_MAX
from careledger.directory.engines.cometbft.store import EngineStore
from careledger.directory.genesis import network_of, parse_genesis
from careledger.directory.replica import Directory
from careledger.directory.rules import Execution, apply_block
from careledger.directory.state import Outcome
from careledger.directory.transactions import COMMITTED_BLOCK_BYTES_MAX, Block, TxResult, parse_block
from careledger.directory.validators import validator_changes, validators
from careledger.errors import ConflictError, Error, VerificationError
from careledger.identity import Token, parse_operation
from careledger.seal import Envelope, ProvenSignatures, decode, encode

__all__ = [
    "EngineReplica",
    "Executed",
    "ExecutionFault",
    "parse_engine_block",
    "parse_transaction",
    "transaction_id",
]

_PROVEN_MAX: Final = 50_000
"""Signatures remembered: more than the mempool holds, 3 MB at most."""
_PARSED_MAX: Final = 4_096
"""Envelopes kept between a check and the block: a few seconds of the highest load, 10 MB at most of usual ones."""
_EXECUTED_MAX: Final = 4
"""Proposals of one height whose execution is kept: rounds beyond the first are rare."""


class ExecutionFault(Exception):
    """The rules failed at a transaction, neither accepting nor refusing it: a bug of ours."""

    def __init__(self, index: int) -> None:
        super().__init__(f"the rules failed at transaction {index} of the block")
        self.index = index


class Executed(NamedTuple):
    """A block that was executed and not yet committed; results and ids are of all its transactions, in order."""

    height: int
    ids: tuple[bytes, ...]
    results: list[TxResult]
    block: bytes
    outcome: Outcome
    app_hash: bytes
    validator_changes: list[tuple[bytes, int]]


def transaction_id(data: bytes) -> bytes:
    """SHA-256 of a transaction's bytes: as CometBFT names it."""
    return sha256(data).digest()


def parse_transaction(data: bytes) -> Envelope:
    """The envelope of exactly these canonical bytes. Raises MalformedError as seal.decode."""
    return decode(data, Envelope, size_max=TRANSACTION_BYTES_MAX)


class EngineReplica:
    """Blocks on disk, the directory in memory, and at most one block that is decided but not committed."""

    def __init__(self, path: Path, *, genesis: bytes) -> None:
        """Open or create the store and execute every block in it again.

        Raises VerificationError `wrong-block`: the store was altered or damaged. ConflictError `other-network`.
        """
        self.genesis = genesis
        self.network = network_of(genesis)
        self.directory = Directory.from_genesis(genesis)
        self.proven = ProvenSignatures(_PROVEN_MAX)
        self._founders = {parse_operation(item).token: item for item in parse_genesis(genesis).inceptions}
        self._parsed: dict[bytes, Envelope] = {}
        self._executed: dict[bytes, Executed] = {}
        self._decided: Executed | None = None
        self._path = path
        self.store = EngineStore(path, network=self.network, genesis=genesis)
        try:
            self.reload()
        except BaseException:
            self.store.close()
            raise

    def close(self) -> None:
        self.store.close()

    @property
    def height(self) -> int:
        return self.directory.height

    def block(self, height: int) -> bytes | None:
        """The exact bytes of a block of accepted transactions."""
        return self.store.block(height)

    def operations(self, token: Token) -> list[Envelope]:
        """Every operation of an identity in order, from its inception on; empty when the token is not known."""
        return self.store.operations(token, founders=self._founders, parse=parse_engine_block)

    def take_over(self, blocks: Iterable[bytes]) -> None:
        """Begin with the history of another engine: CometBFT then decides from the height after it.

        Durable when it returns. If a block breaks the rules, nothing is kept and this object is of no further use. The
        caller compares the app hash with the one that the members agreed to take over.
        Raises ConflictError `not-empty` (this store has a history), VerificationError `wrong-block`.
        """
        if self.store.height() != 0:
            raise ConflictError("not-empty", f"{self._path} has a history already: take over into a new file")
        with self.store.writing():
            for data in blocks:
                self.store.add_block(self.height + 1, data, self._replay(data))

    def newest_ids(self) -> list[bytes]:
        """The ids of the transactions in the newest block: accepted, and perhaps not yet noticed by who waits."""
        data = self.block(self.height)
        return [] if data is None else [transaction_id(encode(one)) for one in parse_engine_block(data).transactions]

    def reload(self) -> None:
        """Forget what was executed and not committed, and execute what the store has beyond the state in memory.

        A commit that reported failure may be on disk all the same: then its block is part of the history.
        Raises VerificationError `wrong-block`, `store-changed` (the file was put back under the running node).
        """
        self._executed.clear()
        self._decided = None
        height = self.store.height()
        if height < self.height:
            raise VerificationError(
                "store-changed",
                f"{self._path} went back from block {self.height} to {height} while the node ran: restart the node",
            )
        for data in self.store.blocks(self.height + 1, height):
            self._replay(data)

    def parse(self, data: bytes) -> tuple[bytes, Envelope]:
        """A transaction's id and envelope; the same bytes again are not parsed again. Raises as parse_transaction."""
        ident = transaction_id(data)
        found = self._parsed.get(ident)
        if found is None:
            found = parse_transaction(data)
            if len(self._parsed) >= _PARSED_MAX:
                del self._parsed[next(iter(self._parsed))]
            self._parsed[ident] = found
        return ident, found

    def execute(self, *, height: int, time_ms: int, transactions: Sequence[bytes]) -> Executed:
        """Execute a block on the committed state, which stays as it is. The same block again costs nothing.

        A transaction that has no form or breaks a rule is refused, changes nothing and is left out of `block`.
        Raises ExecutionFault; VerificationError `bad-height`: it isn't the next one.
        """
        ids = tuple(transaction_id(data) for data in transactions)
        key = sha256(b"%d %d " % (height, time_ms) + b"".join(ids)).digest()
        found = self._executed.get(key)
        if found is None:
            found = self._execute(height, max(time_ms, self.directory.time_ms), transactions, ids)
            while len(self._executed) >= _EXECUTED_MAX:
                del self._executed[next(iter(self._executed))]
            self._executed[key] = found
        return found

    def decide(self, executed: Executed) -> None:
        """This block will be committed next."""
        self._decided = executed

    def commit(self) -> Executed:
        """Make the decided block durable and the directory's. Raises UnavailableError `store-failed`."""
        decided = self._decided
        if decided is None:
            raise AssertionError("CometBFT commits only what it has finalized")
        with self.store.writing():
            self.store.add_block(decided.height, decided.block, decided.outcome.operations)
            self.store.add_commit(decided.height, decided.app_hash)
        self.directory.commit(decided.outcome)
        self._executed.clear()
        self._decided = None
        return decided

    def _execute(self, height: int, time_ms: int, transactions: Sequence[bytes], ids: tuple[bytes, ...]) -> Executed:
        state = self.directory.state
        execution = Execution(state, height=height, time_ms=time_ms)
        results: list[TxResult] = []
        accepted: list[bytes] = []
        with self.proven.used():
            for index, data in enumerate(transactions):
                try:
                    result = execution.run(self.parse(data)[1], place=len(accepted))
                except Error as error:
                    result = TxResult(error.code, error.message)
                except Exception as bug:
                    raise ExecutionFault(index) from bug
                results.append(result)
                if result.ok:
                    accepted.append(data)
        outcome = execution.outcome()
        members, nodes = state.membership_after(outcome)
        changes: list[tuple[bytes, int]] = []
        if members is not state.members:
            changes = validator_changes(validators(state.members, state.nodes), validators(members, nodes))
        block = _block_bytes(self.network, height, time_ms, accepted)
        return Executed(height, ids, results, block, outcome, outcome.app_hash, changes)

    def _replay(self, data: bytes) -> list[tuple[str, int]]:
        """Execute a block of the history; returns the places of its identity operations."""
        height = self.height + 1
        try:
            outcome = apply_block(self.directory.state, parse_engine_block(data))
        except Error as error:
            raise self._wrong_block(height, error.message) from error
        refused = [result.code for result in outcome.results if not result.ok]
        if refused:
            raise self._wrong_block(height, f"it holds a transaction that breaks the rules ({refused[0]})")
        if self.store.app_hash(height) not in (None, outcome.app_hash):
            raise self._wrong_block(height, "executing it gives another app hash than was committed")
        self.directory.commit(outcome)
        return outcome.operations

    def _wrong_block(self, height: int, why: str) -> VerificationError:
        return VerificationError(
            "wrong-block",
            f"block {height} in {self._path} is wrong: {why}; move the file away, and CometBFT replays every block",
            details={"height": height},
        )


def parse_engine_block(data: bytes) -> Block:
    """A block of the history, as large as CometBFT lets one be. Raises MalformedError as seal.decode."""
    return parse_block(data, size_max=COMMITTED_BLOCK_BYTES_MAX)


def _block_bytes(network: str, height: int, time_ms: int, accepted: Sequence[bytes]) -> bytes:
    """The canonical bytes of a Block, from envelopes that are canonical already."""
    head = f'{{"height":{height},"network":"{network}","time":{time_ms},"transactions":['
    return head.encode("ascii") + b",".join(accepted) + b'],"v":1}'
