"""Names and numbers on which all nodes of a chain must agree: how CometBFT calls our network, and how large things are.

Changing any of them forks a network that runs. Normative text: docs/spec/directory.md section 8.
"""

from __future__ import annotations

from typing import Final

from careledger.directory.engines.cometbft.messages import Timestamp
from careledger.directory.lightblocks import chain_id
from careledger.seal import b64

__all__ = [
    "APP_VERSION",
    "TRANSACTION_BYTES_MAX",
    "app_state",
    "chain_id",
    "milliseconds",
]

APP_VERSION: Final = 1
"""In every header; changes with rules that would execute an old block differently."""

TRANSACTION_BYTES_MAX: Final = 65_536
"""Of an envelope's canonical bytes: room for the rules' own limit on its text fields, and CometBFT's max_tx_bytes."""


def app_state(genesis: bytes) -> bytes:
    """Our genesis as CometBFT carries it: a JSON string of base64url, whose bytes no JSON library changes."""
    return b'"' + b64(genesis).encode("ascii") + b'"'


def milliseconds(time: Timestamp | None) -> int:
    """Block time in whole milliseconds, the rest cut off, so that it never goes back where nanoseconds don't."""
    return 0 if time is None else max(0, time.seconds * 1000 + time.nanos // 1_000_000)
