"""CheckTx: which transactions a node lets into its mempool and its outbox.

Advice, not history: it may differ between nodes, and a block decides anew. It runs the rules on the committed state
with what it accepted since then on top, so that a transaction can follow another that isn't in a block yet.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from careledger.directory.engines.cometbft.replica import EngineReplica, transaction_id
from careledger.directory.rules import Execution
from careledger.directory.transactions import TxResult
from careledger.errors import Error
from careledger.seal import Envelope

__all__ = ["Admission"]

_log: Final = logging.getLogger("careledger.directory.cometbft")
_OK: Final = TxResult("ok", "accepted")
_BUG: Final = TxResult("internal-error", "the node failed at this transaction: its log says where; report it")

WAITING_MAX: Final = 4_096
"""Accepted transactions that are remembered until a block has them: a few seconds of the highest load measured."""
_RERUN_MAX: Final = 256
"""Of these, how many of the newest are run again when a refusal may be due to their absence: 30 ms at most."""
_RUNS_MAX: Final = 50_000
"""Checks on one state before it is made anew, so that refused ones that come without end leave nothing behind."""


class Admission:
    """The state that checks see: committed, and what waits on top of it."""

    def __init__(self, replica: EngineReplica) -> None:
        self._replica = replica
        self._waiting: dict[bytes, Envelope] = {}
        self._execution: Execution | None = None
        self._runs = 0
        self._behind = False
        """Some that wait were accepted on an earlier state and have not been run on this one."""

    def check(self, data: bytes) -> TxResult:
        """Whether the rules would accept this transaction now. The same one again gets the same answer while it waits.

        Never raises for what the bytes are: even a bug of the rules is a refusal here (`internal-error`) and goes to
        the log, since the same bytes reach every node.
        """
        try:
            ident, envelope = self._replica.parse(data)
            if ident in self._waiting:
                return _OK
            with self._replica.proven.used():
                result = self._run(envelope)
        except Error as error:
            return TxResult(error.code, error.message)
        except Exception as bug:
            _log.error("check-failed", exc_info=bug, extra={"fields": {"transaction": transaction_id(data).hex()}})
            self._renew()
            return _BUG
        if result.ok:
            if len(self._waiting) >= WAITING_MAX:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[ident] = envelope
        return result

    def committed(self, idents: Iterable[bytes]) -> None:
        """A block with these was committed: checks go on from its state."""
        for ident in idents:
            self._waiting.pop(ident, None)
        self._renew()

    def _renew(self) -> None:
        self._execution = None
        self._behind = bool(self._waiting)

    def _run(self, envelope: Envelope) -> TxResult:
        if self._runs >= _RUNS_MAX:
            self._renew()
        result = self._run_once(envelope)
        if result.ok or not self._behind:
            return result
        # Perhaps it follows one that waits. Running those again is dear, so once a block, and only when it may help.
        self._execution, self._behind = None, False
        for waiting in list(self._waiting.values())[-_RERUN_MAX:]:
            self._run_once(waiting)
        return self._run_once(envelope)

    def _run_once(self, envelope: Envelope) -> TxResult:
        if self._execution is None:
            state = self._replica.directory.state
            self._execution, self._runs = Execution(state, height=state.height + 1, time_ms=state.time_ms), 0
        self._runs += 1
        return self._execution.run(envelope)
