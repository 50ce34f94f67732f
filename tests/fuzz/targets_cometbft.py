"""What the CometBFT engine reads from outside: ABCI requests, transactions of any peer, and CometBFT's own log lines.

The application stands on the network of the vectors; nothing is committed, so that every input meets the same state.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from careledger.directory import parse_block
from careledger.directory.engines.cometbft import messages as abci
from careledger.directory.engines.cometbft.application import Application
from careledger.directory.engines.cometbft.logs import EngineLog
from careledger.directory.engines.cometbft.replica import EngineReplica
from careledger.directory.engines.cometbft.wire import decode, encode
from careledger.seal import encode as canonical

VECTORS = Path(__file__).parents[2] / "vectors"
NETWORK: dict[str, Any] = json.loads((VECTORS / "directory" / "validators.json").read_text())
GENESIS: bytes = NETWORK["genesis"].encode()
BLOCKS: list[bytes] = [vector["block"].encode() for vector in NETWORK["vectors"]]
ABCI: list[dict[str, Any]] = json.loads((VECTORS / "cometbft" / "abci.json").read_text())["vectors"]
APPLICATION = Application(
    EngineReplica(Path(tempfile.mkdtemp(prefix="careledger-fuzz-")) / "directory.db", genesis=GENESIS)
)
APP_HASH = APPLICATION.replica.directory.app_hash()


def request(data: bytes) -> None:
    """A message that decodes is written in one way, and that way decodes to the same."""
    found = decode(data, abci.Request)
    assert decode(encode(found), abci.Request) == found


def transaction(data: bytes) -> None:
    """Checked, proposed and executed, whatever it is: a reason code, and nothing in the state before a commit."""
    checked = APPLICATION.admission.check(data)
    assert checked.code != "internal-error"
    replica = APPLICATION.replica
    executed = replica.execute(height=replica.height + 1, time_ms=replica.directory.time_ms + 1, transactions=[data])
    assert executed.results[0].message
    assert executed.results[0].ok == (executed.app_hash != APP_HASH)
    assert replica.directory.app_hash() == APP_HASH
    APPLICATION.admission.committed(executed.ids)


def log_line(data: bytes) -> None:
    EngineLog(clock=lambda: 0.0).take(data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "cometbft_request": request,
    "cometbft_transaction": transaction,
    "cometbft_log_line": log_line,
}

SEEDS: dict[str, list[bytes]] = {
    "cometbft_request": [bytes.fromhex(vector["bytes"]) for vector in ABCI if vector["type"] == "Request"],
    "cometbft_transaction": [canonical(one) for block in BLOCKS for one in parse_block(block).transactions],
    "cometbft_log_line": [
        b'{"level":"error","_msg":"Corrupted entry. Skipping...","module":"consensus","err":"EOF"}',
        b"panic: state.AppHash does not match AppHash after replay",
    ],
}
