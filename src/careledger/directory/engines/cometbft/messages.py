"""ABCI 2.0 as CometBFT v0.38 speaks it: the messages and fields that the application reads or writes.

Field numbers are those of CometBFT's proto/tendermint/{abci,crypto,types}/types.proto (v0.38.25). Fields that the
application has no use for are left out: the codec skips what it doesn't know.
"""

from __future__ import annotations

from typing import Annotated, Final

from careledger.directory.engines.cometbft.wire import Field, Message

__all__ = [
    "ACCEPT",
    "REJECT",
    "CheckTxRequest",
    "CommitResponse",
    "Echo",
    "Empty",
    "ExceptionResponse",
    "ExecTxResult",
    "FinalizeBlockRequest",
    "FinalizeBlockResponse",
    "InfoRequest",
    "InfoResponse",
    "InitChainRequest",
    "InitChainResponse",
    "Misbehavior",
    "PrepareProposalRequest",
    "ProcessProposalRequest",
    "PublicKey",
    "QueryRequest",
    "QueryResponse",
    "Request",
    "Response",
    "SnapshotResult",
    "Status",
    "Timestamp",
    "Txs",
    "Validator",
    "ValidatorUpdate",
]

ACCEPT: Final = 1
REJECT: Final = 2
"""Of ProcessProposal and VerifyVoteExtension."""


class Empty(Message, frozen=True):
    """Flush, Commit and ListSnapshots requests; answers that have nothing to say."""


class Echo(Message, frozen=True):
    """Request and response."""

    message: Annotated[str, Field(1, "string")] = ""


class ExceptionResponse(Message, frozen=True):
    """The application has failed; CometBFT ends."""

    error: Annotated[str, Field(1, "string")] = ""


class Timestamp(Message, frozen=True):
    """google.protobuf.Timestamp: seconds since 1970 UTC and nanoseconds."""

    seconds: Annotated[int, Field(1, "int64")] = 0
    nanos: Annotated[int, Field(2, "int64")] = 0


class PublicKey(Message, frozen=True):
    """A oneof; networks of ours have Ed25519 alone."""

    ed25519: Annotated[bytes, Field(1, "bytes")] = b""


class ValidatorUpdate(Message, frozen=True):
    """A validator's power from two blocks on; 0 removes it."""

    pub_key: Annotated[PublicKey | None, Field(1, "message")] = None
    power: Annotated[int, Field(2, "int64")] = 0


class Validator(Message, frozen=True):
    """A validator by its address: the first 20 bytes of SHA-256 of its key."""

    address: Annotated[bytes, Field(1, "bytes")] = b""
    power: Annotated[int, Field(3, "int64")] = 0


class Misbehavior(Message, frozen=True):
    """Evidence in a block: type 1 signed two blocks of one height, 2 attacked light clients."""

    type: Annotated[int, Field(1, "uint64")] = 0
    validator: Annotated[Validator | None, Field(2, "message")] = None
    height: Annotated[int, Field(3, "int64")] = 0


class InfoRequest(Message, frozen=True):
    version: Annotated[str, Field(1, "string")] = ""


class InfoResponse(Message, frozen=True):
    data: Annotated[str, Field(1, "string")] = ""
    version: Annotated[str, Field(2, "string")] = ""
    app_version: Annotated[int, Field(3, "uint64")] = 0
    last_block_height: Annotated[int, Field(4, "int64")] = 0
    last_block_app_hash: Annotated[bytes, Field(5, "bytes")] = b""


class InitChainRequest(Message, frozen=True):
    time: Annotated[Timestamp | None, Field(1, "message")] = None
    chain_id: Annotated[str, Field(2, "string")] = ""
    validators: Annotated[tuple[ValidatorUpdate, ...], Field(4, "message")] = ()
    app_state_bytes: Annotated[bytes, Field(5, "bytes")] = b""
    initial_height: Annotated[int, Field(6, "int64")] = 0


class InitChainResponse(Message, frozen=True):
    app_hash: Annotated[bytes, Field(3, "bytes")] = b""


class QueryRequest(Message, frozen=True):
    data: Annotated[bytes, Field(1, "bytes")] = b""
    path: Annotated[str, Field(2, "string")] = ""
    height: Annotated[int, Field(3, "int64")] = 0


class QueryResponse(Message, frozen=True):
    code: Annotated[int, Field(1, "uint64")] = 0
    log: Annotated[str, Field(3, "string")] = ""
    info: Annotated[str, Field(4, "string")] = ""
    key: Annotated[bytes, Field(6, "bytes")] = b""
    value: Annotated[bytes, Field(7, "bytes")] = b""
    height: Annotated[int, Field(9, "int64")] = 0
    codespace: Annotated[str, Field(10, "string")] = ""


class CheckTxRequest(Message, frozen=True):
    tx: Annotated[bytes, Field(1, "bytes")] = b""
    type: Annotated[int, Field(2, "uint64")] = 0


class ExecTxResult(Message, frozen=True):
    """CheckTx's answer too. CometBFT hashes code, data and gas into the next header, but not the texts."""

    code: Annotated[int, Field(1, "uint64")] = 0
    data: Annotated[bytes, Field(2, "bytes")] = b""
    log: Annotated[str, Field(3, "string")] = ""
    info: Annotated[str, Field(4, "string")] = ""
    gas_wanted: Annotated[int, Field(5, "int64")] = 0
    gas_used: Annotated[int, Field(6, "int64")] = 0
    codespace: Annotated[str, Field(8, "string")] = ""


class CommitResponse(Message, frozen=True):
    retain_height: Annotated[int, Field(3, "int64")] = 0


class PrepareProposalRequest(Message, frozen=True):
    max_tx_bytes: Annotated[int, Field(1, "int64")] = 0
    txs: Annotated[tuple[bytes, ...], Field(2, "bytes")] = ()
    height: Annotated[int, Field(5, "int64")] = 0
    time: Annotated[Timestamp | None, Field(6, "message")] = None


class Txs(Message, frozen=True):
    """PrepareProposal's answer."""

    txs: Annotated[tuple[bytes, ...], Field(1, "bytes")] = ()


class ProcessProposalRequest(Message, frozen=True):
    txs: Annotated[tuple[bytes, ...], Field(1, "bytes")] = ()
    height: Annotated[int, Field(5, "int64")] = 0
    time: Annotated[Timestamp | None, Field(6, "message")] = None
    proposer_address: Annotated[bytes, Field(8, "bytes")] = b""


class Status(Message, frozen=True):
    """ProcessProposal's and VerifyVoteExtension's answer."""

    status: Annotated[int, Field(1, "uint64")] = 0


class SnapshotResult(Message, frozen=True):
    """OfferSnapshot's (2 abort, 3 reject) and ApplySnapshotChunk's answer (2 abort)."""

    result: Annotated[int, Field(1, "uint64")] = 0


class FinalizeBlockRequest(Message, frozen=True):
    txs: Annotated[tuple[bytes, ...], Field(1, "bytes")] = ()
    misbehavior: Annotated[tuple[Misbehavior, ...], Field(3, "message")] = ()
    hash: Annotated[bytes, Field(4, "bytes")] = b""
    height: Annotated[int, Field(5, "int64")] = 0
    time: Annotated[Timestamp | None, Field(6, "message")] = None


class FinalizeBlockResponse(Message, frozen=True):
    tx_results: Annotated[tuple[ExecTxResult, ...], Field(2, "message")] = ()
    validator_updates: Annotated[tuple[ValidatorUpdate, ...], Field(3, "message")] = ()
    app_hash: Annotated[bytes, Field(5, "bytes")] = b""


class Request(Message, frozen=True):
    """A oneof: exactly one field is set. Vote extensions and snapshots need no field of theirs."""

    echo: Annotated[Echo | None, Field(1, "message")] = None
    flush: Annotated[Empty | None, Field(2, "message")] = None
    info: Annotated[InfoRequest | None, Field(3, "message")] = None
    init_chain: Annotated[InitChainRequest | None, Field(5, "message")] = None
    query: Annotated[QueryRequest | None, Field(6, "message")] = None
    check_tx: Annotated[CheckTxRequest | None, Field(8, "message")] = None
    commit: Annotated[Empty | None, Field(11, "message")] = None
    list_snapshots: Annotated[Empty | None, Field(12, "message")] = None
    offer_snapshot: Annotated[Empty | None, Field(13, "message")] = None
    load_snapshot_chunk: Annotated[Empty | None, Field(14, "message")] = None
    apply_snapshot_chunk: Annotated[Empty | None, Field(15, "message")] = None
    prepare_proposal: Annotated[PrepareProposalRequest | None, Field(16, "message")] = None
    process_proposal: Annotated[ProcessProposalRequest | None, Field(17, "message")] = None
    extend_vote: Annotated[Empty | None, Field(18, "message")] = None
    verify_vote_extension: Annotated[Empty | None, Field(19, "message")] = None
    finalize_block: Annotated[FinalizeBlockRequest | None, Field(20, "message")] = None


class Response(Message, frozen=True):
    """A oneof, each answer one number above its request's but for those before Commit."""

    exception: Annotated[ExceptionResponse | None, Field(1, "message")] = None
    echo: Annotated[Echo | None, Field(2, "message")] = None
    flush: Annotated[Empty | None, Field(3, "message")] = None
    info: Annotated[InfoResponse | None, Field(4, "message")] = None
    init_chain: Annotated[InitChainResponse | None, Field(6, "message")] = None
    query: Annotated[QueryResponse | None, Field(7, "message")] = None
    check_tx: Annotated[ExecTxResult | None, Field(9, "message")] = None
    commit: Annotated[CommitResponse | None, Field(12, "message")] = None
    list_snapshots: Annotated[Empty | None, Field(13, "message")] = None
    offer_snapshot: Annotated[SnapshotResult | None, Field(14, "message")] = None
    load_snapshot_chunk: Annotated[Empty | None, Field(15, "message")] = None
    apply_snapshot_chunk: Annotated[SnapshotResult | None, Field(16, "message")] = None
    prepare_proposal: Annotated[Txs | None, Field(17, "message")] = None
    process_proposal: Annotated[Status | None, Field(18, "message")] = None
    extend_vote: Annotated[Empty | None, Field(19, "message")] = None
    verify_vote_extension: Annotated[Status | None, Field(20, "message")] = None
    finalize_block: Annotated[FinalizeBlockResponse | None, Field(21, "message")] = None
