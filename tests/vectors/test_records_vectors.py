"""vectors/records/*.json, made by a second implementation: the web app runs the same files."""

from __future__ import annotations

import json
import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from careledger.errors import MalformedError
from careledger.records import Plaintext, Resource, SubmissionKeys, content_root, padme, record_id, unpack_plaintext
from careledger.records.keys import consent_key, content_aad, content_key
from careledger.records.leaves import arrange, check_leaves, filler, leaves_root, prove_leaf, verify_leaf
from careledger.records.locks import Lock, decode_lock, decode_shares, encode_lock, encode_shares, lock_info, lock_leaf
from careledger.records.manifest import SubmissionStatement
from careledger.records.plaintext import content_hashes, resource_hash
from careledger.records.view import leaf_tree
from careledger.seal import kdf, open_content, seal_content, share_commitment
from careledger.tlog import leaf_hash, verify_inclusion

FOLDER = Path(__file__).parents[2] / "vectors" / "records"


def load(name: str) -> Any:
    content = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    assert content["source"]
    assert content["section"]
    assert content["how_made"]
    assert content["vectors"]
    return content


def test_every_file_is_run_here_or_beside() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == [
        "attacks.json",
        "ciphertext.json",
        "ids.json",
        "keys.json",
        "leaves.json",
        "locks.json",
        "padme.json",
        "plaintext.json",
        "submission.json",
    ]


def test_record_ids() -> None:
    for vector in load("ids.json")["vectors"]:
        network, submission = bytes.fromhex(vector["network"]), bytes.fromhex(vector["submission"])
        record = record_id(network, vector["subject"], vector["author"], submission, vector["index"])
        assert record.hex() == vector["record"]


def test_keys_shares_and_commitments() -> None:
    for vector in load("keys.json")["vectors"]:
        master, record, compartment = (bytes.fromhex(vector[name]) for name in ("master", "record", "compartment"))
        keys = SubmissionKeys(master)
        assert keys.release_key(record).hex() == vector["release_key"]
        secret = keys.compartment_secret(compartment, vector["epoch"])
        assert secret.hex() == vector["compartment_secret"]
        assert keys.consent_key(record, compartment, vector["epoch"]).hex() == vector["consent_key"]
        assert consent_key(secret, record).hex() == vector["consent_key"]
        assert keys.content_key(record, compartment, vector["epoch"]).hex() == vector["content_key"]
        coefficients = [kdf(master, "shamir", record, j).hex() for j in range(1, vector["t"])]
        assert coefficients == vector["coefficients"]
        shares = [row[0] for row in keys.shares([record], n=vector["n"], t=vector["t"])]
        assert [share.hex() for share in shares] == vector["shares"]
        assert [share_commitment(record, share).hex() for share in shares] == vector["commitments"]


def test_ciphertexts() -> None:
    for vector in load("ciphertext.json")["vectors"]:
        fields = {name: vector[name] for name in ("network", "subject", "author", "record", "compartment", "epoch")}
        aad = content_aad(**fields)
        assert sha256(vector["json"].encode()).digest() == aad
        assert aad.hex() == vector["aad"]
        key, ciphertext = bytes.fromhex(vector["content_key"]), bytes.fromhex(vector["ciphertext"])
        assert open_content(key, ciphertext, aad=aad).hex() == vector["plaintext"]
        assert seal_content(key, bytes.fromhex(vector["plaintext"]), aad=aad) == ciphertext


def test_padded_sizes() -> None:
    for vector in load("padme.json")["vectors"]:
        assert padme(vector["size"]) == vector["padded"]


def test_plaintexts() -> None:
    for vector in load("plaintext.json")["vectors"]:
        plaintext = Plaintext(
            header=vector["header"].encode(),
            resources=[
                Resource(bytes.fromhex(one["salt"]), one["full_url"], bytes.fromhex(one["data"]))
                for one in vector["resources"]
            ],
        )
        assert unpack_plaintext(bytes.fromhex(vector["wire"])) == plaintext
        assert plaintext.opened_header().v == 1
        assert msgspec.msgpack.encode(plaintext).hex() == vector["packed"]
        assert sha256(plaintext.header).hexdigest() == vector["header_hash"]
        assert [resource_hash(one).hex() for one in plaintext.resources] == vector["resource_hashes"]
        root = content_root(plaintext)
        assert root.hex() == vector["content_root"]
        hashes = content_hashes(plaintext)
        for index, proof in enumerate(vector["content_proofs"]):
            verify_inclusion(
                index=index,
                size=len(hashes),
                leaf_hash=hashes[index],
                proof=[bytes.fromhex(one) for one in proof],
                root=root,
            )
        assert hashes[0] == leaf_hash(bytes.fromhex(vector["header_hash"]))


@pytest.mark.parametrize("vector", load("plaintext.json")["refused"], ids=lambda vector: vector["why"])
def test_refused_plaintexts(vector: dict[str, str]) -> None:
    with pytest.raises(MalformedError) as refused:
        unpack_plaintext(bytes.fromhex(vector["wire"]))
    assert refused.value.code == vector["code"]


def test_leaves() -> None:
    for vector in load("leaves.json")["vectors"]:
        seed, root = bytes.fromhex(vector["seed"]), bytes.fromhex(vector["root"])
        values, leaves = ([bytes.fromhex(one) for one in vector[name]] for name in ("values", "leaves"))
        assert [filler(seed, vector["tree"], at).hex() for at in range(len(vector["fillers"]))] == vector["fillers"]
        assert leaves_root(leaves) == root
        positions = check_leaves(leaves, tree=vector["tree"], seed=seed, root=root, values=values)
        assert positions == vector["positions"]
        tree = leaf_tree(leaves)
        for value, position, proof in zip(values, positions, vector["proofs"], strict=True):
            assert [one.hex() for one in prove_leaf(tree, position)] == proof
            verify_leaf(value, position=position, proof=[bytes.fromhex(one) for one in proof], root=root)
        shuffled = arrange(values, tree=vector["tree"], seed=seed, rand=random.Random(1).randbytes)
        assert sorted(shuffled) == sorted(leaves)


def test_locks() -> None:
    content = load("locks.json")
    for vector in content["vectors"]:
        lock = Lock(
            **{name: vector[name] for name in ("use", "compartment", "epoch", "to")}, box=bytes.fromhex(vector["box"])
        )
        data = bytes.fromhex(vector["lock"])
        assert encode_lock(lock) == data
        assert decode_lock(data) == lock
        assert lock_leaf(data).hex() == vector["leaf"]
        names = {name: vector[name] for name in ("network", "subject", "author", "submission")}
        statement = SubmissionStatement(v=1, subject_seq=0, manifests_root="", locks_root="", time=0, nonce="", **names)
        info = lock_info(statement, lock.use, to=lock.to, compartment=lock.compartment, epoch=lock.epoch)
        assert info.decode() == vector["info"]
    for vector in content["shares"]:
        rows = [tuple(bytes.fromhex(one) for one in row) for row in vector["rows"]]
        assert encode_shares(rows).hex() == vector["content"]  # type: ignore[arg-type]
        assert decode_shares(bytes.fromhex(vector["content"])) == rows


def test_content_keys_need_both_halves() -> None:
    for vector in load("keys.json")["vectors"]:
        consent, release = bytes.fromhex(vector["consent_key"]), bytes.fromhex(vector["release_key"])
        assert content_key(consent, release).hex() == vector["content_key"]
        assert content_key(release, consent).hex() != vector["content_key"]
