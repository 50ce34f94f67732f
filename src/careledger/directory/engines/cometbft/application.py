"""The ABCI 2.0 application: CometBFT's calls, put to the same rules that the embedded engine executes.

Deterministic where the network compares (InitChain, FinalizeBlock): no clock, no floats, no order of sets, no locale.
Whatever bytes come as a transaction get a reason code; an exception means that this node is broken, and ends its
engine. Normative text: docs/spec/directory.md section 8.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import careledger
from careledger.directory.engines.cometbft import messages as abci
from careledger.directory.engines.cometbft.admission import Admission
from careledger.directory.engines.cometbft.chain import APP_VERSION, app_state, chain_id, milliseconds
from careledger.directory.engines.cometbft.replica import EngineReplica, Executed, ExecutionFault, transaction_id
from careledger.directory.engines.cometbft.wire import uvarint
from careledger.directory.transactions import TxResult
from careledger.directory.validators import validators
from careledger.errors import Error, MalformedError, VerificationError
from careledger.seal import encode

__all__ = ["Application"]

_CODESPACE: Final = "careledger"
_REFUSED: Final = 1
_SNAPSHOT_REFUSED: Final = 3
_CHUNK_ABORTED: Final = 2
_FAULTY_MAX: Final = 1_000
"""Transactions at which the rules failed that are remembered until the node restarts."""

_log: Final = logging.getLogger("careledger.directory.cometbft")


class Application:
    """Answers one request after the other; `on_commit` is called with each block once it is durable."""

    def __init__(self, replica: EngineReplica, *, on_commit: Callable[[Executed], None] | None = None) -> None:
        self.replica = replica
        self.admission = Admission(replica)
        self.on_commit = on_commit
        self._faulty: set[bytes] = set()
        self._calls: dict[str, Callable[[Any], dict[str, Any]]] = {
            "echo": lambda call: {"echo": call},
            "flush": lambda _: {"flush": abci.Empty()},
            "info": self._info,
            "init_chain": self._init_chain,
            "query": self._query,
            "check_tx": self._check_tx,
            "prepare_proposal": self._prepare_proposal,
            "process_proposal": self._process_proposal,
            "finalize_block": self._finalize_block,
            "commit": self._commit,
            # Vote extensions are off, and CometBFT asks for none; there are no snapshots to hand out or take.
            "extend_vote": lambda _: {"extend_vote": abci.Empty()},
            "verify_vote_extension": lambda _: {"verify_vote_extension": abci.Status(abci.ACCEPT)},
            "list_snapshots": lambda _: {"list_snapshots": abci.Empty()},
            "offer_snapshot": lambda _: {"offer_snapshot": abci.SnapshotResult(_SNAPSHOT_REFUSED)},
            "load_snapshot_chunk": lambda _: {"load_snapshot_chunk": abci.Empty()},
            "apply_snapshot_chunk": lambda _: {"apply_snapshot_chunk": abci.SnapshotResult(_CHUNK_ABORTED)},
        }

    def answer(self, request: abci.Request) -> abci.Response:
        """The answer to a call. Raises MalformedError `bad-request`, and whatever means that this node is broken."""
        asked = [name for name in self._calls if getattr(request, name) is not None]
        if len(asked) != 1:
            raise MalformedError("bad-request", "a request makes exactly one call that this application knows")
        return abci.Response(**self._calls[asked[0]](getattr(request, asked[0])))

    def _info(self, _call: abci.InfoRequest) -> dict[str, Any]:
        replica = self.replica
        replica.reload()
        self.admission.committed(())
        decided = replica.store.decided_height()
        return {
            "info": abci.InfoResponse(
                data="careledger",
                version=careledger.__version__,
                app_version=APP_VERSION,
                last_block_height=decided,
                last_block_app_hash=replica.directory.app_hash() if decided else b"",
            )
        }

    def _init_chain(self, call: abci.InitChainRequest) -> dict[str, Any]:
        replica = self.replica
        state = replica.directory.state
        stated = [(update.pub_key.ed25519 if update.pub_key else b"", update.power) for update in call.validators]
        for wrong, what in (
            (call.chain_id != chain_id(replica.network), "chain id"),
            (call.app_state_bytes != app_state(replica.genesis), "app state"),
            (call.initial_height != replica.height + 1, "initial height"),
            (sorted(stated) != sorted(validators(state.members, state.nodes).items()), "validators"),
        ):
            if wrong:
                raise VerificationError(
                    "wrong-genesis",
                    f"CometBFT's genesis has another {what} than network {replica.network[:16]}: its data folder "
                    "belongs to another network or was edited",
                )
        return {"init_chain": abci.InitChainResponse(app_hash=replica.directory.app_hash())}

    def _query(self, call: abci.QueryRequest) -> dict[str, Any]:
        directory = self.replica.directory
        height = call.height or directory.height
        _, kind, ident = (*call.path.strip("/").split("/"), "", "")[:3]
        try:
            if not call.path.startswith("/state/") or not kind or not ident:
                raise MalformedError("bad-query", "the directory answers queries of the form /state/<kind>/<id>")
            proof = encode(directory.prove_state(kind, ident, height=height))
        except Error as error:
            answer = abci.QueryResponse(code=_REFUSED, log=error.code, info=error.message, codespace=_CODESPACE)
        else:
            answer = abci.QueryResponse(key=f"{kind}/{ident}".encode(), value=proof, height=height)
        return {"query": answer}

    def _check_tx(self, call: abci.CheckTxRequest) -> dict[str, Any]:
        return {"check_tx": _result(self.admission.check(call.tx))}

    def _prepare_proposal(self, call: abci.PrepareProposalRequest) -> dict[str, Any]:
        """Refused transactions go in: what never gets into a block never leaves the mempools.

        Nothing is executed here, where the other validators wait: they and this one do that side by side afterwards.
        """
        chosen: list[bytes] = []
        room = call.max_tx_bytes
        for data in call.txs:
            room -= 1 + len(uvarint(len(data))) + len(data)
            if room < 0:
                break
            if self._form_fault(data) is None and transaction_id(data) not in self._faulty:
                chosen.append(data)
        return {"prepare_proposal": abci.Txs(tuple(chosen))}

    def _process_proposal(self, call: abci.ProcessProposalRequest) -> dict[str, Any]:
        faults = [fault for data in call.txs if (fault := self._form_fault(data)) is not None]
        if not faults:
            try:
                self.replica.execute(height=call.height, time_ms=milliseconds(call.time), transactions=call.txs)
            except ExecutionFault as fault:
                faults.append("internal-error")
                self._avoid(call.txs[fault.index], fault)
        if not faults:
            return {"process_proposal": abci.Status(abci.ACCEPT)}
        fields = {"height": call.height, "proposer": call.proposer_address.hex().upper(), "why": faults[0]}
        _log.warning("proposal-rejected", extra={"fields": fields})
        return {"process_proposal": abci.Status(abci.REJECT)}

    def _avoid(self, data: bytes, fault: ExecutionFault) -> None:
        """A bug of the rules: everybody rejects the proposal, and whoever proposes next leaves this one out."""
        ident = transaction_id(data)
        if len(self._faulty) < _FAULTY_MAX:
            self._faulty.add(ident)
        _log.error("execution-failed", exc_info=fault.__cause__, extra={"fields": {"transaction": ident.hex()}})

    def _finalize_block(self, call: abci.FinalizeBlockRequest) -> dict[str, Any]:
        for found in call.misbehavior:
            address = found.validator.address.hex().upper() if found.validator else ""
            fields = {"validator": address, "height": found.height, "type": found.type}
            _log.error("validator-misbehaved", extra={"fields": fields})
        executed = self.replica.execute(height=call.height, time_ms=milliseconds(call.time), transactions=call.txs)
        self.replica.decide(executed)
        return {
            "finalize_block": abci.FinalizeBlockResponse(
                tx_results=tuple(_result(result) for result in executed.results),
                validator_updates=tuple(
                    abci.ValidatorUpdate(abci.PublicKey(key), power) for key, power in executed.validator_changes
                ),
                app_hash=executed.app_hash,
            )
        }

    def _commit(self, _call: abci.Empty) -> dict[str, Any]:
        executed = self.replica.commit()
        self.admission.committed(executed.ids)
        if self.on_commit is not None:
            self.on_commit(executed)
        return {"commit": abci.CommitResponse()}

    def _form_fault(self, data: bytes) -> str | None:
        """Why these bytes are no transaction's, whatever the state; None if they are."""
        try:
            self.replica.parse(data)
        except MalformedError as error:
            return error.code
        return None


def _result(result: TxResult) -> abci.ExecTxResult:
    """`data` and gas stay empty: CometBFT hashes them, and a reason that is worded anew must not fork the chain."""
    if result.ok:
        return abci.ExecTxResult()
    return abci.ExecTxResult(code=_REFUSED, log=result.code, info=result.message, codespace=_CODESPACE)
