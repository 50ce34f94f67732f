"""CometBFT's home folder, written by the node: nobody edits these files, and no `cometbft init` is needed.

    config/config.toml  genesis.json  node_key.json  priv_validator_key.json      written anew at every start
    data/priv_validator_state.json                                                written once, never again

The last one remembers what the consensus key has signed. Whoever puts an old copy of it back can make the validator
sign two blocks of one height, so it is created only together with the key, and a key without it is refused.
Source: CometBFT v0.38.25 config/toml.go, types/genesis.go, p2p/key.go, privval/file.go.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from careledger.directory.engines.cometbft.chain import (
    APP_VERSION,
    TRANSACTION_BYTES_MAX,
    app_state,
    chain_id,
)
from careledger.directory.genesis import ConsensusEntry, network_of
from careledger.directory.replica import Directory
from careledger.directory.transactions import ORDERED_BYTES_MAX
from careledger.directory.validators import POWER, validators
from careledger.errors import MalformedError, UnavailableError
from careledger.private_files import write_private
from careledger.seal import SigningKey, unb64

__all__ = [
    "EngineKeys",
    "EngineSettings",
    "genesis_document",
    "peer_id",
    "peers",
    "write_home",
    "write_once",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_PRIVATE_TYPE: Final = "tendermint/PrivKeyEd25519"
_PUBLIC_TYPE: Final = "tendermint/PubKeyEd25519"

EMPTY_BLOCKS_S: Final = 60
"""A heartbeat, so that a head's age means something (design 5.6)."""

_STRANGERS_MAX: Final = 16
"""Inbound peers that are no member's node: one that joins dials before the others know it."""

Toml = Mapping[str, str | int | bool]

_FIXED: Final[dict[str, Toml]] = {
    # Timeouts are the tax on a proposer that is down, not the pace: with 400 ms, and one of four validators down, 99 of
    # 100 lone transactions were committed within 620 ms.
    "consensus": {
        "timeout_propose": "400ms",
        "timeout_propose_delta": "50ms",
        "timeout_prevote": "100ms",
        "timeout_prevote_delta": "50ms",
        "timeout_precommit": "100ms",
        "timeout_precommit_delta": "50ms",
        "timeout_commit": "10ms",
        "skip_timeout_commit": True,
        "create_empty_blocks": False,
        "create_empty_blocks_interval": f"{EMPTY_BLOCKS_S}s",
        "peer_gossip_sleep_duration": "5ms",
        "peer_query_maj23_sleep_duration": "500ms",
    },
    # No recheck: what became invalid while it waited is refused in its block, which also takes it out of the mempool.
    "mempool": {
        "recheck": False,
        "size": 20_000,
        "cache_size": 40_000,
        "max_tx_bytes": TRANSACTION_BYTES_MAX,
    },
    "statesync": {"enable": False},
    "tx_index": {"indexer": "null"},
    "storage": {"discard_abci_responses": False},
    "instrumentation": {"prometheus": False},
}


class EngineKeys(NamedTuple):
    """Two 32-byte Ed25519 seeds: `consensus` signs votes, `transport` proves who a peer is."""

    consensus: bytes
    transport: bytes


class EngineSettings(NamedTuple):
    """What differs between nodes. `listen` is host:port for peers; `external` is what is said to others, if another."""

    moniker: str
    listen: str
    peers: Sequence[str] = ()
    external: str = ""
    log_level: str = "info"


def peer_id(transport_key: bytes) -> str:
    """A peer's id from its transport key's 32 public bytes."""
    return sha256(transport_key).digest()[:20].hex()


def peers(directory: Directory, *, but: str) -> list[str]:
    """`id@host:port` of every active node that has one, except the node `but`."""
    stated = [node.consensus for node in directory.nodes() if node.token != but]
    return [entry.peer for entry in stated if isinstance(entry, ConsensusEntry)]


def genesis_document(genesis: bytes, *, start: Directory | None = None) -> bytes:
    """genesis.json, the same bytes on every node. `start`: the directory that CometBFT takes over, if not an empty one.

    Raises MalformedError `no-validators`: no founder has a consensus key.
    """
    directory = start or Directory.from_genesis(genesis)
    found = validators(directory.state.members, directory.state.nodes)
    if not found:
        raise MalformedError(
            "no-validators", "no member of this network has a consensus key: found it with nodes that have one"
        )
    document = {
        "genesis_time": _rfc3339(directory.time_ms),
        "chain_id": chain_id(network_of(genesis)),
        "initial_height": str(directory.height + 1),
        "consensus_params": {
            "block": {"max_bytes": str(ORDERED_BYTES_MAX), "max_gas": "-1"},
            "evidence": {
                "max_age_num_blocks": "100000",
                "max_age_duration": str(48 * 3_600 * 10**9),
                "max_bytes": "1048576",
            },
            "validator": {"pub_key_types": ["ed25519"]},
            "version": {"app": str(APP_VERSION)},
            "abci": {"vote_extensions_enable_height": "0"},
        },
        "validators": [
            {
                "address": _address(key),
                "pub_key": {"type": _PUBLIC_TYPE, "value": b64encode(key).decode()},
                "power": str(POWER),
                "name": _member_of(directory, key),
            }
            for key in found
        ],
        "app_hash": "",
        "app_state": app_state(genesis)[1:-1].decode(),
    }
    return _json(document)


def write_once(path: Path, data: bytes) -> bytes:
    """What this file holds, written with `data` if it isn't there. Raises UnavailableError `home-failed`."""
    try:
        if not path.exists():
            write_private(path, data)
        return path.read_bytes()
    except OSError as error:
        raise UnavailableError("home-failed", f"{path} can't be written or read: {error}") from error


def write_home(
    home: Path, *, settings: EngineSettings, keys: EngineKeys, genesis_json: bytes, app_socket: Path, rpc_socket: Path
) -> None:
    """Write everything that CometBFT needs to start; each file atomically and readable by its owner alone.

    Raises UnavailableError `validator-state-lost`, `home-failed` (the disk refuses).
    """
    config, data = home / "config", home / "data"
    try:
        for folder in (config, data):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _keep_state(data / "priv_validator_state.json", key_file=config / "priv_validator_key.json")
        write_private(config / "config.toml", _config(settings, app_socket, rpc_socket))
        write_private(config / "genesis.json", genesis_json)
        write_private(config / "node_key.json", _json({"priv_key": _private(keys.transport)}))
        public = SigningKey(keys.consensus).public
        write_private(
            config / "priv_validator_key.json",
            _json(
                {
                    "address": _address(public),
                    "pub_key": {"type": _PUBLIC_TYPE, "value": b64encode(public).decode()},
                    "priv_key": _private(keys.consensus),
                }
            ),
        )
    except OSError as error:
        raise UnavailableError("home-failed", f"CometBFT's folder {home} can't be written: {error}") from error


def _keep_state(state: Path, *, key_file: Path) -> None:
    """The state file is there before the key file ever is: a crash between the two leaves no key without state."""
    if state.exists():
        return
    if key_file.exists():
        raise UnavailableError(
            "validator-state-lost",
            f"{state} is gone, which says what this validator has signed: without it it could sign two blocks of one "
            "height. Give the node a new consensus key (a member-nodes statement), then remove "
            f"{key_file}; never bring back an old copy",
        )
    write_private(state, _json({"height": "0", "round": 0, "step": 0}))


def _config(settings: EngineSettings, app_socket: Path, rpc_socket: Path) -> bytes:
    top: Toml = {
        "proxy_app": f"unix://{app_socket}",
        "abci": "socket",
        "moniker": settings.moniker,
        "db_backend": "goleveldb",
        "log_level": settings.log_level,
        "log_format": "json",
        "filter_peers": False,
    }
    sections: dict[str, Toml] = {
        "rpc": {"laddr": f"unix://{rpc_socket}"},
        "p2p": {
            "laddr": f"tcp://{settings.listen}",
            "external_address": settings.external,
            "persistent_peers": ",".join(settings.peers),
            "unconditional_peer_ids": ",".join(peer.partition("@")[0] for peer in settings.peers),
            "max_num_inbound_peers": _STRANGERS_MAX,
            "pex": False,
            "addr_book_strict": False,
            "allow_duplicate_ip": True,
            "flush_throttle_timeout": "5ms",
            "send_rate": 51_200_000,
            "recv_rate": 51_200_000,
            "handshake_timeout": "20s",
            "dial_timeout": "3s",
        },
        **_FIXED,
    }
    lines = ["# Written by careledger at every start; changes made here are lost.", *_pairs(top)]
    for name, values in sections.items():
        lines += ["", f"[{name}]", *_pairs(values)]
    return ("\n".join(lines) + "\n").encode()


def _pairs(values: Toml) -> list[str]:
    """JSON's text, numbers and booleans are TOML's."""
    return [f"{name} = {json.dumps(value)}" for name, value in values.items()]


def _private(seed: bytes) -> dict[str, str]:
    return {"type": _PRIVATE_TYPE, "value": b64encode(seed + SigningKey(seed).public).decode()}


def _address(public: bytes) -> str:
    return sha256(public).digest()[:20].hex().upper()


def _member_of(directory: Directory, key: bytes) -> str:
    for node in directory.nodes():
        if isinstance(node.consensus, ConsensusEntry) and unb64(node.consensus.key, size=32) == key:
            return node.member
    raise AssertionError("every validator is a member's node")


def _rfc3339(time_ms: int) -> str:
    whole = _EPOCH + timedelta(seconds=time_ms // 1000)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03d}Z"


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"
