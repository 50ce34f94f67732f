"""What is read of a chain that CometBFT made: its RPC's answers, and light blocks as proof.

Each target takes arbitrary bytes; only careledger.errors.Error may come out, and where something is accepted, what
acceptance promises is asserted. Seeds are what a real network of four validators said.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from careledger.directory import Directory, LightProof, StateProof, network_of, validator_set
from careledger.directory.engines.cometbft.light import light_block, light_validators
from careledger.directory.validators import validators
from careledger.errors import MalformedError
from careledger.node.light_keeper import LIGHT_FILE, LightKeeper
from careledger.seal import decode, encode, unb64
from careledger.verify import trust_of_genesis
from careledger.verify.directory import check_state_proof

VECTORS = Path(__file__).parents[2] / "vectors" / "directory"
FOUND: dict[str, Any] = json.loads((VECTORS / "light-blocks.json").read_text())
GENESIS = unb64(FOUND["genesis"])
SETS = [light_validators(one["validators"]) for one in FOUND["vectors"]]
BLOCKS = [
    light_block(one["signed_header"], next_validators=after)
    for one, after in zip(FOUND["vectors"], [*SETS[1:], None], strict=True)
]
CHANGES = [block for block in BLOCKS if block.next_set is not msgspec.UNSET]
PROOF = encode(LightProof(v=1, proof=msgspec.convert(FOUND["proof"], StateProof), blocks=[*CHANGES, BLOCKS[-1]]))
_SCRATCH = Path(tempfile.mkdtemp(prefix="careledger-fuzz-"))
_TRUST = trust_of_genesis(GENESIS)
_STATE = Directory.from_genesis(GENESIS).state
_FOUNDERS = validator_set(validators(_STATE.members, _STATE.nodes))


def rpc_commit(data: bytes) -> None:
    """CometBFT's answer to /commit, or anything else."""
    found = light_block(_json(data))
    assert encode(found)


def rpc_validators(data: bytes) -> None:
    assert isinstance(light_validators(_json(data)), list)


def _json(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise MalformedError("not-json", "not JSON") from None


def light_proof(data: bytes) -> None:
    """Nothing passes but the one that the validators signed."""
    found = decode(data, LightProof)
    head, value = check_state_proof(found.proof, encode(found.blocks), trust=_TRUST)
    assert data == PROOF
    assert (head.height, value is None) == (len(BLOCKS) - 1, False)


def light_file(data: bytes) -> None:
    """A node's kept light blocks: believed only if they prove something."""
    path = _SCRATCH / LIGHT_FILE
    path.write_bytes(data)
    kept = LightKeeper(path, _NoRpc(), network=network_of(GENESIS), founders=_FOUNDERS, first=1)
    signed = [block.header for block in BLOCKS]
    assert all(block.header in signed for block in kept.blocks), "the validators signed no other headers"


class _NoRpc:
    async def commit(self, height: int) -> Any:
        raise AssertionError("nothing is asked here")

    async def validators(self, height: int) -> Any:
        raise AssertionError("nothing is asked here")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "light_rpc_commit": rpc_commit,
    "light_rpc_validators": rpc_validators,
    "light_proof": light_proof,
    "light_file": light_file,
}
SEEDS: dict[str, list[bytes]] = {
    "light_rpc_commit": [json.dumps(one["signed_header"]).encode() for one in FOUND["vectors"][:3]],
    "light_rpc_validators": [json.dumps(FOUND["vectors"][0]["validators"]).encode()],
    "light_proof": [PROOF],
    "light_file": [encode([*CHANGES, BLOCKS[-1]]), encode([BLOCKS[0]]), b"[]"],
}
