"""Writes vectors/cometbft/abci.json: `python tests/vectors/make_abci_vectors.py PROTO_FOLDER…`.

The folders are CometBFT v0.38.25's proto/ and gogoproto's root, both from the Go module cache. Needs grpcio-tools, as
nothing else of the project does: Google's compiler and library say what the bytes of each message are. Run it only when
CometBFT's version changes.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[2] / "vectors" / "cometbft" / "abci.json"
TYPES = "tendermint/abci/types.proto"
B32, B20 = bytes(range(32)), bytes(range(20))
TIME = {"seconds": 1_760_000_000, "nanos": 123_456_789}
LAST_COMMIT = {"round": 1, "votes": [{"validator": {"address": B20, "power": 10}, "block_id_flag": 2}]}
BLOCK = {
    "txs": [b"one", b"", b"x" * 300],
    "misbehavior": [{"type": 1, "validator": {"address": B20, "power": 10}, "height": 7, "time": TIME}],
    "hash": B32,
    "height": 9_007_199_254_740_993,
    "time": TIME,
    "next_validators_hash": B32,
    "proposer_address": B20,
}
VALIDATORS = [{"pub_key": {"ed25519": B32}, "power": 10}, {"pub_key": {"ed25519": B32[::-1]}, "power": 0}]
RESULTS = [
    {},
    {"code": 1, "log": "bad-prev", "info": "the statement — déjà vu", "codespace": "careledger", "gas_used": -1},
    {"data": b"\x00\xff", "gas_wanted": 2**63 - 1},
]

REQUESTS: list[dict[str, Any]] = [
    {"echo": {"message": "hello"}},
    {"flush": {}},
    {"info": {"version": "0.38.25", "block_version": 11, "p2p_version": 8, "abci_version": "2.0.0"}},
    {
        "init_chain": {
            "time": TIME,
            "chain_id": "careledger-00112233445566778899aabbccddeeff",
            "consensus_params": {"block": {"max_bytes": 4_194_304, "max_gas": -1}, "version": {"app": 1}},
            "validators": VALIDATORS,
            "app_state_bytes": b'{"genesis":"e30"}',
            "initial_height": 1,
        }
    },
    {"query": {"data": b"d", "path": "/state", "height": 12, "prove": True}},
    {"check_tx": {"tx": b"\x80" * 200, "type": 1}},
    {"commit": {}},
    {"list_snapshots": {}},
    {"offer_snapshot": {"snapshot": {"height": 5, "format": 1, "chunks": 2, "hash": B32}, "app_hash": B32}},
    {"load_snapshot_chunk": {"height": 5, "format": 1, "chunk": 0}},
    {"apply_snapshot_chunk": {"index": 1, "chunk": b"c", "sender": "s"}},
    {
        "prepare_proposal": {
            "max_tx_bytes": 4_000_000,
            "txs": [b"a", b"b"],
            "local_last_commit": {"round": 0, "votes": []},
            "height": 2,
            "time": TIME,
            "next_validators_hash": B32,
            "proposer_address": B20,
        }
    },
    {"process_proposal": {**BLOCK, "proposed_last_commit": LAST_COMMIT}},
    {"extend_vote": {"hash": B32, "height": 3}},
    {"verify_vote_extension": {"hash": B32, "validator_address": B20, "height": 3, "vote_extension": b"v"}},
    {"finalize_block": {**BLOCK, "decided_last_commit": LAST_COMMIT}},
    {"finalize_block": {"height": 1, "time": {"seconds": -62_135_596_800}}},
]

RESPONSES: list[dict[str, Any]] = [
    {"exception": {"error": "boom"}},
    {"echo": {"message": ""}},
    {"flush": {}},
    {
        "info": {
            "data": "careledger",
            "version": "0.1",
            "app_version": 1,
            "last_block_height": 8,
            "last_block_app_hash": B32,
        }
    },
    {"init_chain": {"app_hash": B32}},
    {"query": {"code": 1, "log": "l", "info": "i", "key": b"k", "value": b"v", "height": 8, "codespace": "careledger"}},
    *({"check_tx": result} for result in RESULTS),
    {"commit": {"retain_height": 4}},
    {"list_snapshots": {}},
    {"offer_snapshot": {"result": 3}},
    {"load_snapshot_chunk": {}},
    {"apply_snapshot_chunk": {"result": 2}},
    {"prepare_proposal": {"txs": [b"a", b""]}},
    {"process_proposal": {"status": 2}},
    {"extend_vote": {}},
    {"verify_vote_extension": {"status": 1}},
    {"finalize_block": {"tx_results": RESULTS, "validator_updates": VALIDATORS, "app_hash": B32}},
]


def compiled(folders: list[str]) -> Any:
    """The module that Google's compiler makes of CometBFT's own file."""
    protoc = importlib.import_module("grpc_tools.protoc")
    wanted = [
        TYPES,
        "tendermint/crypto/keys.proto",
        "tendermint/crypto/proof.proto",
        "tendermint/types/params.proto",
        "tendermint/types/validator.proto",
        "gogoproto/gogo.proto",
    ]
    out = tempfile.mkdtemp()
    paths = [f"-I{folder}" for folder in [*folders, str(Path(protoc.__file__).parent / "_proto")]]
    if protoc.main(["protoc", *paths, f"--python_out={out}", *wanted]) != 0:
        raise SystemExit("protoc refused")
    sys.path.insert(0, out)
    return importlib.import_module("tendermint.abci.types_pb2")


def plain(value: Any) -> Any:
    """For JSON: bytes as {"hex": …}."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def fill(message: Any, values: dict[str, Any]) -> Any:
    """Set what `values` says, sub-messages always present, as Go's library writes a oneof."""
    for name, value in values.items():
        field = getattr(message, name)
        if isinstance(value, dict):
            field.SetInParent()
            fill(field, value)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    fill(field.add(), item)
                else:
                    field.append(item)
        else:
            setattr(message, name, value)
    return message


def main(folders: list[str]) -> None:
    types = compiled(folders)
    vectors = [
        {"type": name, "fields": plain(values), "bytes": fill(kind(), values).SerializeToString().hex()}
        for name, kind, messages in (
            ("Request", types.Request, REQUESTS),
            ("Response", types.Response, RESPONSES),
        )
        for values in messages
    ]
    content = {
        "source": "CometBFT v0.38.25, proto/tendermint/abci/types.proto",
        "section": "ABCI 2.0, Request and Response",
        "how_made": "Google's protoc and protobuf library, by tests/vectors/make_abci_vectors.py",
        "licence": "Apache-2.0, part of careledger",
        "vectors": vectors,
    }
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
