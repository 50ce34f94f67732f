"""What careledger.identity and careledger.directory read from outside: only careledger.errors.Error may come out.

Each target takes arbitrary bytes; where something is accepted, it also asserts what acceptance promises. Seeds are the
published vectors, so that a fuzzer starts inside the formats.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from careledger import directory as dir_
from careledger import identity as idy
from careledger.errors import Error
from careledger.seal import Envelope, Signature, b64, decode, encode, unb64
from careledger.tlog import parse_unverified_checkpoint

VECTORS = Path(__file__).parents[2] / "vectors"


def _load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text())
    return content


NETWORK = _load("directory/network")
GENESIS: bytes = NETWORK["genesis"].encode()
APP = bytes.fromhex(_load("directory/proofs")["app_hash"])
_STATE = dir_.found_state(GENESIS)
_ROOT = _STATE.state_map.root
_FULL = dir_.Directory.from_genesis(GENESIS)
for _vector in NETWORK["vectors"]:
    _FULL.apply(dir_.parse_block(_vector["block"].encode()))


def genesis(data: bytes) -> None:
    assert dir_.Directory.from_genesis(data).network == dir_.network_of(data)


def block(data: bytes) -> None:
    """A block from anybody, applied to the founding state: which must stay as it is."""
    parsed = dir_.parse_block(data)
    assert encode(parsed) == data
    try:
        outcome = dir_.apply_block(_STATE, parsed)
    finally:
        assert (_STATE.height, _STATE.state_map.root) == (0, _ROOT)
    assert len(outcome.results) == len(parsed.transactions)


def transaction(data: bytes) -> None:
    """One transaction in a state that knows every kind of value."""
    envelope = decode(data, Envelope)
    execution = dir_.Execution(_FULL.state, height=_FULL.height + 1, time_ms=_FULL.time_ms)
    result = execution.run(envelope)
    assert result.message
    assert result.ok or execution.outcome().app_hash == _FULL.app_hash()


_OPERATIONS = ["inception", "update", "rotate", "deactivate"]
_TYPES = ["anchor", "enrol", "fork-evidence", "licence", "member-nodes", "member-propose", "member-vote", *_OPERATIONS]


def payload(data: bytes) -> None:
    """A transaction's payload, as if its signature were the last thing checked; the first byte says of which type."""
    if not data:
        return
    envelope = Envelope(
        payload=b64(data[1:]),
        payloadType=f"application/vnd.careledger.{_TYPES[data[0] % len(_TYPES)]}+json",
        signatures=[Signature(keyid=f"{_FULL.members()[0].token}#0", sig=b64(bytes(64)))],
    )
    execution = dir_.Execution(_FULL.state, height=_FULL.height + 1, time_ms=_FULL.time_ms)
    assert not execution.run(envelope).ok


def operation(data: bytes) -> None:
    idy.apply_operation(None, decode(data, Envelope), network=NETWORK["network"], now_ms=0)


def document(data: bytes) -> None:
    salt, rest = data[:32].ljust(32, b"\0"), data[32:]
    found = idy.open_document(salt, rest, idy.document_hash(salt, rest))
    assert idy.encode_document(found) == rest


def token(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    assert idy.check_token(text) == text


def kit_code(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    assert idy.parse_kit_code(idy.kit_code(idy.parse_kit_code(text))) == idy.parse_kit_code(text)


def key_box(data: bytes) -> None:
    box = idy.parse_key_box(data)
    assert idy.encode_key_box(box) == data
    for open_it in (
        lambda: idy.unlock_with_root(box, bytes(32)),
        lambda: idy.unlock_managed(
            box, manager=box.token, manager_half=bytes(32), custodian_shares=[bytes(32) + b"\x01"]
        ),
        lambda: idy.open_key_box(box, account_key=bytes(32)),
    ):
        try:
            open_it()
        except Error:
            continue


def map_proof(data: bytes) -> None:
    proof = decode(data, dir_.MapProof)
    for check in (
        lambda: dir_.verify_present(proof, "identity", "x", b"value", _ROOT),
        lambda: dir_.verify_absent(proof, "identity", _FULL.members()[0].token, _ROOT),
    ):
        try:
            check()
        except Error:
            continue
        raise AssertionError("a proof of what is not so was accepted")


def state_proof(data: bytes) -> None:
    proof = decode(data, dir_.StateProof)
    value = proof.verify(kind=proof.kind, ident=proof.id, app=APP)
    assert value == (proof.value.encode() if isinstance(proof.value, str) else None)


def event_proof(data: bytes) -> None:
    decode(data, dir_.EventProof).verify(app=APP)


def checkpoint(data: bytes) -> None:
    dir_.parse_app_hash(parse_unverified_checkpoint(data))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "directory_genesis": genesis,
    "directory_block": block,
    "directory_transaction": transaction,
    "directory_payload": payload,
    "identity_operation": operation,
    "identity_document": document,
    "identity_token": token,
    "identity_kit_code": kit_code,
    "identity_key_box": key_box,
    "directory_map_proof": map_proof,
    "directory_state_proof": state_proof,
    "directory_event_proof": event_proof,
    "directory_checkpoint": checkpoint,
}

_BLOCKS = [vector["block"].encode() for vector in NETWORK["vectors"]]
_TRANSACTIONS = [
    encode(envelope) for data in _BLOCKS for envelope in msgspec.json.decode(data, type=dir_.Block).transactions
]
_PROOFS = _load("directory/proofs")["vectors"]

SEEDS: dict[str, list[bytes]] = {
    "directory_genesis": [GENESIS],
    "directory_block": _BLOCKS,
    "directory_transaction": _TRANSACTIONS,
    "directory_payload": [
        bytes([place]) + unb64(decode(data, Envelope).payload)
        for data in _TRANSACTIONS
        for place, name in enumerate(_TYPES)
        if decode(data, Envelope).payloadType.endswith(f".{name}+json")
    ],
    "identity_operation": [vector["envelope"].encode() for vector in _load("identity/operations")["vectors"]],
    "identity_document": [
        bytes.fromhex(vector["salt"]) + vector["document"].encode() for vector in _load("identity/documents")["vectors"]
    ],
    "identity_token": [vector["token"].encode() for vector in _load("identity/tokens")["vectors"]],
    "identity_kit_code": [vector["code"].encode() for vector in _load("identity/kit-codes")["vectors"]],
    "identity_key_box": [vector["box"].encode() for vector in _load("identity/key-boxes")["vectors"]],
    "directory_map_proof": [
        entry["proof"].encode() for vector in _load("directory/statemap")["vectors"] for entry in vector["absent"]
    ],
    "directory_state_proof": [vector["proof"].encode() for vector in _PROOFS if "proof" in vector],
    "directory_event_proof": [vector["event_proof"].encode() for vector in _PROOFS if "event_proof" in vector],
    "directory_checkpoint": [vector["note"].encode() for vector in _load("directory/checkpoints")["vectors"]],
}
