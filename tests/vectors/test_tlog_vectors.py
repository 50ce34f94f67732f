"""Published and own vectors of the verifiable log."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from careledger.errors import Error, MalformedError, VerificationError
from careledger.tlog import (
    Checkpoint,
    Cosigner,
    Ed25519SigningKey,
    MemoryTree,
    Signer,
    cosign,
    cosign_if_consistent,
    decode_entries,
    encode_entries,
    entries_path,
    leaf_hash,
    open_checkpoint,
    open_cosigned,
    open_note,
    parse_add_checkpoint,
    parse_proof,
    parse_skey,
    parse_unverified_checkpoint,
    parse_vkey,
    root_of,
    sign_checkpoint,
    sign_note,
    skey,
    tail_of_entries,
    tile_path,
    tiles_for_growth,
    verify_consistency,
    verify_cosignature,
    verify_inclusion,
    verify_log,
    verify_proof,
)

VECTORS = Path(__file__).parents[2] / "vectors" / "tlog"
NOT_A_HASH = "consistency/additional/sizes-are-equal-one-and-proof-is-empty.json"


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


def judge_inclusion(case: dict[str, Any]) -> bool:
    try:
        verify_inclusion(
            index=case["index"],
            size=case["size"],
            leaf_hash=bytes.fromhex(case["leaf_hash"]),
            proof=[bytes.fromhex(value) for value in case["proof"]],
            root=bytes.fromhex(case["root"]),
        )
    except VerificationError as problem:
        if problem.code != "bad-proof":
            raise
        return False
    return True


def judge_consistency(case: dict[str, Any]) -> bool:
    try:
        verify_consistency(
            old_size=case["old_size"],
            old_root=bytes.fromhex(case["old_root"]),
            new_size=case["new_size"],
            new_root=bytes.fromhex(case["new_root"]),
            proof=[bytes.fromhex(value) for value in case["proof"]],
        )
    except VerificationError as problem:
        if problem.code != "bad-proof":
            raise
        return False
    return True


@pytest.mark.parametrize("name", ["published-proofs.json", "proofs.json"])
def test_proofs_get_the_verdict_the_vectors_state(name: str) -> None:
    vectors = load(name)
    assert vectors["inclusion"]
    assert vectors["consistency"]
    for case in vectors["inclusion"]:
        assert judge_inclusion(case) is case["valid"], case
    for case in vectors["consistency"]:
        # We insist on 32-byte roots even where no hash needs computing.
        expected = case["valid"] and case.get("file") != NOT_A_HASH
        assert judge_consistency(case) is expected, case


def test_all_196_published_files_are_there() -> None:
    vectors = load("published-proofs.json")
    files = [case["file"] for kind in ("inclusion", "consistency") for case in vectors[kind]]
    assert len(set(files)) == 196
    assert NOT_A_HASH in files


def test_published_reference_tree() -> None:
    vectors = load("published-tree.json")
    leaves = [leaf_hash(bytes.fromhex(leaf)) for leaf in vectors["leaves"]]
    tree = MemoryTree(leaves)
    assert len(vectors["inclusion"]) == 5
    assert len(vectors["consistency"]) == 5
    for size, root in enumerate(vectors["roots"], start=1):
        assert root_of(leaves[:size]).hex() == root
        assert tree.root(size).hex() == root
    for case in vectors["inclusion"]:
        assert [value.hex() for value in tree.inclusion_proof(case["index"], case["size"])] == case["proof"]
    for case in vectors["consistency"]:
        assert [value.hex() for value in tree.consistency_proof(case["old_size"], case["new_size"])] == case["proof"]


def test_tile_paths_and_growth() -> None:
    vectors = load("tiles.json")
    for case in vectors["paths"]:
        assert tile_path(case["level"], case["index"], case["width"]) == case["tile"]
        assert entries_path(case["index"], case["width"]) == case["entries"]
    for case in vectors["growth"]:
        assert [tile.path for tile in tiles_for_growth(case["old"], case["new"])] == case["tiles"]


def test_bundles() -> None:
    for case in load("tiles.json")["bundles"]:
        data = bytes.fromhex(case["bundle"])
        if case["valid"]:
            entries = [bytes.fromhex(entry) for entry in case["entries"]]
            assert decode_entries(data) == entries
            assert encode_entries(entries) == data
        else:
            with pytest.raises(MalformedError) as caught:
                decode_entries(data)
            assert caught.value.code == "bad-bundle"


def test_a_log_of_70000_entries_has_the_tiles_c2sp_names_and_the_stated_hashes() -> None:
    vectors = load("tiles.json")
    size = vectors["files"]["size"]
    entries = [
        b"careledger/entry/v1 keep " + hashlib.sha256(b"vector %d" % index).hexdigest().encode()
        for index in range(size)
    ]
    tail, files = tail_of_entries(entries)
    # C2SP tlog-tiles: 273 full and a partial tile of width 112 at level 0, a full one and 17 at level 1, 1 at level 2.
    assert {"tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"} <= set(files)
    assert len(files) == vectors["files"]["count"] == 274 * 2 + 2 + 1
    for name, digest in vectors["files"]["sha256"].items():
        assert hashlib.sha256(files[name]).hexdigest() == digest
    tree = MemoryTree([leaf_hash(entry) for entry in entries])
    for case in vectors["roots"]:
        assert tree.root(case["size"]).hex() == case["root"]
    assert tail.root() == tree.root()
    verify_log(files.__getitem__, size=size, root=tail.root())


def test_published_note() -> None:
    case = load("notes.json")["published"]
    signer, verifier = parse_skey(case["skey"]), parse_vkey(case["vkey"])
    assert signer.verifier == verifier
    assert verifier.vkey == case["vkey"]
    note = open_note(case["note"].encode(), verifiers=[verifier])
    assert sign_note(note.text, [signer]) == case["note"].encode()
    for vkey in case["refused_vkeys"]:
        with pytest.raises(MalformedError):
            parse_vkey(vkey)


def test_checkpoints_cosignature_proof_and_request() -> None:
    vectors = load("notes.json")
    log = Signer(parse_vkey(vectors["log"]["vkey"]).name, Ed25519SigningKey(bytes.fromhex(vectors["log"]["seed"])))
    assert log.vkey == vectors["log"]["vkey"]
    assert skey(log.name, bytes.fromhex(vectors["log"]["seed"])) == vectors["log"]["skey"]
    for case in vectors["checkpoints"]:
        checkpoint = Checkpoint(log.name, case["size"], bytes.fromhex(case["root"]), tuple(case["extensions"]))
        assert sign_checkpoint(checkpoint, signer=log) == case["note"].encode()
        assert open_checkpoint(case["note"].encode(), verifier=log.verifier) == checkpoint
    witness = Cosigner(
        parse_vkey(vectors["witness"]["vkey"]).name, Ed25519SigningKey(bytes.fromhex(vectors["witness"]["seed"]))
    )
    checkpoint, times = open_cosigned(
        vectors["cosigned"].encode(), verifier=log.verifier, witnesses=[parse_vkey(vectors["witness"]["vkey"])]
    )
    time_s = vectors["witness"]["time_s"]
    assert times == {vectors["witness"]["vkey"]: time_s}
    line = vectors["cosignature"].encode()
    assert cosign(checkpoint.text, signer=witness, now_s=time_s) == line
    assert verify_cosignature(line, checkpoint_text=checkpoint.text, verifier=witness.verifier) == time_s

    proof = vectors["proof"]
    assert verify_proof(proof["text"].encode(), leaf=proof["leaf"].encode(), verifier=log.verifier) == (
        checkpoint,
        proof["index"],
    )
    request = parse_add_checkpoint(vectors["add_checkpoint"]["body"].encode())
    state = (vectors["add_checkpoint"]["old_size"], bytes.fromhex(vectors["add_checkpoint"]["old_root"]))
    answer = cosign_if_consistent(state, request, log_verifier=log.verifier, signer=witness, now_s=time_s)
    assert answer == ((checkpoint.size, checkpoint.root), line)


def test_texts_that_are_spelled_otherwise_are_refused_with_their_reason() -> None:
    cases = load("notes.json")["refused"]
    readers: dict[str, Any] = {
        "checkpoint": parse_unverified_checkpoint,
        "proof": parse_proof,
        "add-checkpoint": parse_add_checkpoint,
    }
    assert {case["format"] for case in cases} == set(readers)
    for case in cases:
        with pytest.raises(Error) as caught:
            readers[case["format"]](case["text"].encode())
        assert (case["what"], caught.value.code) == (case["what"], case["code"])
