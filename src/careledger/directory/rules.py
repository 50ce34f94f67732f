"""The rules: a pure function from a state and a block to what the block does. The same on every replica, engine, day.

Nothing here reads a clock, the environment, floats, the order of a set or a locale: the only time is the block's. A
transaction that breaks a rule changes nothing and has a reason code as its result. How blocks come to be ordered, and
whether one with a refused transaction is acceptable, is the engine's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from careledger.directory.genesis import Genesis, network_of, parse_genesis
from careledger.directory.rules_identity import (
    apply_bare_inception,
    apply_enrol,
    apply_licence,
    apply_operation_transaction,
    store_identity,
)
from careledger.directory.rules_logs import apply_anchor, apply_fork_evidence
from careledger.directory.rules_members import add_member, apply_nodes, apply_propose, apply_vote
from careledger.directory.state import Outcome, Staging, State
from careledger.directory.transactions import (
    TRANSACTION_BYTES_MAX,
    Anchor,
    Block,
    Enrol,
    ForkEvidence,
    MemberNodes,
    MemberPropose,
    MemberVote,
    TxResult,
)
from careledger.directory.values import ParameterState
from careledger.errors import Error, MalformedError, NotPermittedError, VerificationError
from careledger.identity import Deactivate, Inception, Licence, Rotate, Update, apply_parsed, parse_operation
from careledger.seal import Envelope

__all__ = ["Execution", "apply_block", "found_state"]

_VERSION: Final = 1
"""The version that the payload structs of all transactions decode; others are refused while decoding."""

_RULES: Final[Mapping[str, Callable[[Staging, Envelope], None]]] = {
    Inception.TYPE: apply_bare_inception,
    Enrol.TYPE: apply_enrol,
    Update.TYPE: apply_operation_transaction,
    Rotate.TYPE: apply_operation_transaction,
    Deactivate.TYPE: apply_operation_transaction,
    Licence.TYPE: apply_licence,
    Anchor.TYPE: apply_anchor,
    ForkEvidence.TYPE: apply_fork_evidence,
    MemberPropose.TYPE: apply_propose,
    MemberVote.TYPE: apply_vote,
    MemberNodes.TYPE: apply_nodes,
}

_OK: Final = TxResult("ok", "accepted")


class Execution:
    """One block being executed on a state that stays as it is: run its transactions, then ask for the outcome."""

    def __init__(self, state: State, *, height: int, time_ms: int) -> None:
        """Raises VerificationError `bad-height`, `bad-time`: the block doesn't follow the state."""
        if height != state.height + 1:
            raise VerificationError("bad-height", f"block {height} can't follow block {state.height}")
        if time_ms < state.time_ms:
            raise VerificationError("bad-time", f"block {height} is dated before the block it follows")
        self._staging = Staging(state, height=height, time_ms=time_ms)
        self._results: list[TxResult] = []

    def run(self, envelope: Envelope, *, place: int | None = None) -> TxResult:
        """Execute one transaction; a refused one has changed nothing.

        `place`: where it will stand in the block, when refused ones are left out of it; else its number.
        """
        result = _run(self._staging, envelope, len(self._results) if place is None else place)
        self._results.append(result)
        return result

    def outcome(self) -> Outcome:
        """What the accepted transactions do, with every result in order."""
        return self._staging.outcome(self._results)


def apply_block(state: State, block: Block) -> Outcome:
    """The outcome of a block on a state, which is left as it was.

    Raises VerificationError `wrong-network`, `bad-height`, `bad-time`: the block doesn't follow the state.
    """
    if block.network != state.network:
        raise VerificationError("wrong-network", "the block belongs to another network")
    execution = Execution(state, height=block.height, time_ms=block.time)
    for envelope in block.transactions:
        execution.run(envelope)
    return execution.outcome()


def found_state(data: bytes) -> State:
    """The state at height 0 of the network with these genesis bytes.

    Raises MalformedError `bad-genesis` and those of parse_genesis: a founder's signature or part doesn't hold.
    """
    genesis = parse_genesis(data)
    state = State(network_of(data))
    staging = Staging(state, height=0, time_ms=genesis.time)
    try:
        _found(staging, genesis)
    except Error as error:
        raise MalformedError("bad-genesis", f"the genesis does not hold: {error.message}") from error
    state.commit(staging.outcome([]))
    return state


def _found(staging: Staging, genesis: Genesis) -> None:
    for name in sorted(genesis.parameters):
        value = genesis.parameters[name]
        staging.put("parameter", name, ParameterState(v=1, name=name, value=value, activates=0, before=value))
    staging.keep()
    for index, envelope in enumerate(genesis.inceptions):
        parsed = parse_operation(envelope)
        known = staging.identity(parsed.token)
        applied = apply_parsed(known, parsed, network=staging.network, now_ms=staging.time_ms)
        store_identity(staging, applied, new_keys=True)
        staging.keep(index)
    for member in genesis.members:
        add_member(staging, member.token, member.roles, member.nodes)
        staging.keep()
    sequencer = staging.text("sequencer")
    if sequencer and staging.node(sequencer) is None:
        raise MalformedError("bad-genesis", "the sequencer is no founder's node")


def _run(staging: Staging, envelope: Envelope, index: int) -> TxResult:
    try:
        _check_form(staging, envelope)
        _RULES[envelope.payloadType](staging, envelope)
    except Error as error:
        staging.drop()
        return TxResult(error.code, error.message)
    staging.keep(index)
    return _OK


def _check_form(staging: Staging, envelope: Envelope) -> None:
    size = len(envelope.payload) + sum(len(item.keyid) + len(item.sig) for item in envelope.signatures)
    if size > TRANSACTION_BYTES_MAX:
        raise MalformedError("too-large", f"a transaction has at most {TRANSACTION_BYTES_MAX} bytes, this one {size}")
    if envelope.payloadType not in _RULES:
        raise MalformedError("unknown-type", "the directory has no transaction of this type")
    if _VERSION not in staging.formats().get(envelope.payloadType, ()):
        raise NotPermittedError("inactive-format", "this version of the transaction may not be written at this height")
