"""careledger.directory against vectors/directory/*.json: a whole small network, its proofs and checkpoints."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from careledger.directory import (
    Directory,
    EventProof,
    MapProof,
    StateMap,
    StateProof,
    check_directory_checkpoint,
    map_key,
    network_of,
    parse_block,
    verify_absent,
    verify_present,
)
from careledger.directory.validators import validators
from careledger.errors import Error
from careledger.seal import decode, encode
from careledger.tlog import leaf_hashes_of, parse_vkey, root_of

FOLDER = Path(__file__).parents[2] / "vectors" / "directory"


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return content


def vectors(name: str) -> list[Any]:
    entries = load(name)["vectors"]
    assert entries
    return [
        pytest.param(entry, id=f"{number}-{re.sub('[^a-zA-Z0-9]+', '-', entry['comment'])[:50]}")
        for number, entry in enumerate(entries)
    ]


def outcome_of(act: Any) -> tuple[str, Any]:
    try:
        return "accept", act()
    except Error as error:
        return error.code, None


def test_every_file_says_where_it_comes_from() -> None:
    files = sorted(FOLDER.glob("*.json"))
    assert len(files) == 6
    for file in files:
        content = json.loads(file.read_text())
        assert all(content[field] for field in ("source", "section", "how_made", "licence", "vectors")), file.name


@pytest.mark.parametrize("vector", vectors("statemap"))
def test_statemap(vector: dict[str, Any]) -> None:
    items = {map_key(kind, ident): hashlib.sha256(value.encode()).digest() for kind, ident, value in vector["items"]}
    some = StateMap().updated(items)
    assert some.root.hex() == vector["root"]
    for entry in vector["present"]:
        proof = decode(entry["proof"].encode(), MapProof)
        assert some.prove(entry["kind"], entry["id"]) == proof
        verify_present(proof, entry["kind"], entry["id"], entry["value"].encode(), some.root)
    for entry in vector["absent"]:
        proof = decode(entry["proof"].encode(), MapProof)
        assert some.prove(entry["kind"], entry["id"]) == proof
        verify_absent(proof, entry["kind"], entry["id"], some.root)


@pytest.mark.parametrize("name", ["network", "validators"])
def test_network_replays_to_every_hash(name: str) -> None:
    content = load(name)
    genesis = content["genesis"].encode()
    assert network_of(genesis) == content["network"]
    directory = Directory.from_genesis(genesis)
    assert directory.app_hash().hex() == content["after_genesis"]["app_hash"]
    log: list[bytes] = []
    for vector in content["vectors"]:
        data = vector["block"].encode()
        block = parse_block(data)
        assert encode(block) == data
        assert [result.code for result in directory.apply(block)] == vector["results"], vector["comment"]
        if name == "validators":
            found = validators(directory.state.members, directory.state.nodes)
            assert {key.hex(): power for key, power in found.items()} == vector["validators"], vector["comment"]
        log.append(data)
        state = directory.state
        assert state.state_map.root.hex() == vector["state_root"]
        assert state.frontier.size == vector["events_size"]
        assert state.frontier.root().hex() == vector["events_root"]
        assert directory.app_hash().hex() == vector["app_hash"]
        assert root_of(leaf_hashes_of(log)).hex() == vector["log_root"]
    codes = {code for vector in content["vectors"] for code in vector["results"]}
    assert codes >= {"network": {"ok", "exists", "bad-sequence"}, "validators": {"ok", "key-taken"}}[name]


@pytest.mark.parametrize("vector", vectors("proofs"))
def test_proofs(vector: dict[str, Any]) -> None:
    app = bytes.fromhex(load("proofs")["app_hash"])
    if "event_proof" in vector:
        event_proof = decode(vector["event_proof"].encode(), EventProof)
        assert outcome_of(lambda: event_proof.verify(app=app))[0] == vector["outcome"]
        return
    proof = decode(vector["proof"].encode(), StateProof)
    outcome, value = outcome_of(lambda: proof.verify(kind=vector["kind"], ident=vector["id"], app=app))
    assert outcome == vector["outcome"]
    if outcome == "accept":
        assert value == (proof.value.encode() if isinstance(proof.value, str) else None)


@pytest.mark.parametrize("vector", vectors("checkpoints"))
def test_checkpoints(vector: dict[str, Any]) -> None:
    content = load("checkpoints")
    outcome, head = outcome_of(
        lambda: check_directory_checkpoint(
            vector["note"].encode(),
            sequencer=parse_vkey(content["sequencer"]),
            witnesses={member: [parse_vkey(key) for key in keys] for member, keys in content["witnesses"].items()},
            needed=vector["needed"],
        )
    )
    assert outcome == vector["outcome"]
    if head is not None:
        assert (head.height, head.root.hex(), head.app_hash.hex()) == (
            content["height"],
            content["root"],
            content["app_hash"],
        )
