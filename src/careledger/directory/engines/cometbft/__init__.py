"""The CometBFT engine: members' nodes order blocks by Byzantine agreement, and each owns its CometBFT.

The rules it executes are the directory's; the format of its history is the embedded engine's. Normative text:
docs/spec/directory.md section 8.
"""

from careledger.directory.engines.cometbft.config import EngineKeys, EngineSettings, peer_id
from careledger.directory.engines.cometbft.engine import CometbftEngine, EngineHealth
from careledger.directory.engines.cometbft.outbox import Send
from careledger.directory.engines.cometbft.rpc import EngineRpc, EngineStatus

__all__ = [
    "CometbftEngine",
    "EngineHealth",
    "EngineKeys",
    "EngineRpc",
    "EngineSettings",
    "EngineStatus",
    "Send",
    "peer_id",
]
