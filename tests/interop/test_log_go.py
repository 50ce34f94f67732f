"""Logs written by careledger, read by Go's x/mod, Tessera's fsck, torchwood and omniwitness; and what they refuse."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from careledger.errors import Error, VerificationError
from careledger.tlog import (
    Checkpoint,
    Cosigner,
    Ed25519SigningKey,
    MemoryTree,
    Signer,
    cosign,
    cosign_if_consistent,
    format_add_checkpoint,
    format_proof,
    leaf_hashes_of,
    open_checkpoint,
    open_cosigned,
    parse_add_checkpoint,
    parse_vkey,
    sign_checkpoint,
    tail_of_entries,
    verify_log,
    verify_proof,
)

pytestmark = pytest.mark.slow

VECTORS = Path(__file__).parents[2] / "vectors" / "tlog"
ORIGIN = "0123456789abcdef/cl1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs23v9ccrydpk8qarc0s7hl3w5"
LOG = Signer(ORIGIN, Ed25519SigningKey(bytes(range(1, 33))))
WITNESS = Cosigner("witness.example/w2", Ed25519SigningKey(bytes(range(2, 34))))
SIZE = 1500


def entries_of(size: int, label: str = "entry") -> list[bytes]:
    digests = (hashlib.sha256(f"{label} {index}".encode()).hexdigest() for index in range(size))
    return [b"careledger/entry/v1 access " + digest.encode() for digest in digests]


def write_log(folder: Path, entries: list[bytes]) -> tuple[Path, Path]:
    """A log folder and its key file, as a node lays them out."""
    tail, files = tail_of_entries(entries)
    files["checkpoint"] = sign_checkpoint(Checkpoint(ORIGIN, tail.size, tail.root()), signer=LOG)
    for path, data in files.items():
        target = folder / "log" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    (folder / "log.vkey").write_text(LOG.vkey + "\n")
    return folder / "log", folder / "log.vkey"


def verify_folder(folder: Path, vkey_file: Path) -> None:
    """The same with our own verifier."""
    verifier = parse_vkey(vkey_file.read_text().strip())
    checkpoint = open_checkpoint((folder / "checkpoint").read_bytes(), verifier=verifier)
    verify_log(lambda name: (folder / name).read_bytes(), size=checkpoint.size, root=checkpoint.root)


def our_witness(state: tuple[int, bytes], body: bytes) -> None:
    request = parse_add_checkpoint(body)
    verifier = LOG.verifier if request.unverified_origin == ORIGIN else None
    cosign_if_consistent(state, request, log_verifier=verifier, signer=WITNESS, now_s=1)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_log(tmp_path_factory.mktemp("node"), entries_of(SIZE))


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, SIZE])
def test_go_and_fsck_accept_logs_of_every_shape(check_log: Any, tmp_path: Path, size: int) -> None:
    folder, vkey = write_log(tmp_path, entries_of(size))
    found = check_log.check_with_go(folder, vkey)
    assert (found["size"], found["entries"], found["record_proofs"]) == (size, size, size)
    assert found["consistency_proofs"] >= min(size, 20)
    assert f"log with size {size} " in check_log.check_with_fsck(folder, vkey)


def test_go_and_fsck_accept_a_log_with_three_levels_of_tiles(check_log: Any, tmp_path: Path) -> None:
    folder, vkey = write_log(tmp_path, entries_of(70_000))
    found = check_log.check_with_go(folder, vkey, every=997)
    assert (found["entries"], found["record_proofs"]) == (70_000, 71)
    assert "log with size 70000 " in check_log.check_with_fsck(folder, vkey)


def test_the_script_for_a_log_folder_accepts_and_refuses(
    check_log: Any, written: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, vkey = written
    assert check_log.main([str(folder), str(vkey)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["tlog"]["record_proofs"] == SIZE
    assert said["witness_time_s"] > 0
    (tmp_path / "other.vkey").write_text(Signer(ORIGIN, WITNESS.key).vkey)
    assert check_log.main([str(folder), str(tmp_path / "other.vkey")]) == 1
    assert check_log.main([]) == 2


@pytest.mark.parametrize(
    ("path", "at"),
    [
        ("tile/entries/000", 0),
        ("tile/entries/002", 4000),
        ("tile/entries/005.p/220", -1),
        ("tile/0/000", 0),
        ("tile/0/003", 777),
        ("tile/0/005.p/220", -1),
        ("tile/1/000.p/5", 33),
        ("checkpoint", 20),
        ("checkpoint", len(ORIGIN) + 2),
        ("checkpoint", len(ORIGIN) + 10),
        ("checkpoint", -5),
    ],
)
def test_one_flipped_byte_is_refused_by_everybody(
    check_log: Any, written: tuple[Path, Path], tmp_path: Path, path: str, at: int
) -> None:
    source, vkey = written
    folder = tmp_path / "log"
    shutil.copytree(source, folder)
    data = bytearray((folder / path).read_bytes())
    data[at] ^= 0x01
    (folder / path).write_bytes(data)
    with pytest.raises(check_log.RefusedError):
        check_log.check_with_go(folder, vkey)
    with pytest.raises(check_log.RefusedError):
        check_log.check_with_fsck(folder, vkey)
    with pytest.raises(Error):
        verify_folder(folder, vkey)


def test_torchwood_accepts_our_proofs_and_refuses_changed_ones(check_log: Any, tmp_path: Path) -> None:
    entries = entries_of(300)
    tree = MemoryTree(leaf_hashes_of(entries))
    checkpoint = Checkpoint(ORIGIN, 300, tree.root())
    note = sign_checkpoint(checkpoint, signer=LOG)
    cosigned = note + cosign(checkpoint.text, signer=WITNESS, now_s=1_800_000_000)
    vkey, proof, leaf = tmp_path / "vkey", tmp_path / "proof", tmp_path / "leaf"
    vkey.write_text(LOG.vkey)
    leaf.write_bytes(entries[123])

    for text, witnesses in (
        (format_proof(123, tree.inclusion_proof(123), note), []),
        (format_proof(123, tree.inclusion_proof(123), note, b"a salt"), []),
        (format_proof(123, tree.inclusion_proof(123), cosigned), [WITNESS.vkey]),
    ):
        proof.write_bytes(text)
        check_log.check_proof_with_go(vkey, proof, leaf, *witnesses)
        assert verify_proof(text, leaf=entries[123], verifier=LOG.verifier) == (checkpoint, 123)

    for text, witnesses in (
        (format_proof(124, tree.inclusion_proof(123), note), []),
        (format_proof(123, tree.inclusion_proof(124), note), []),
        (format_proof(123, tree.inclusion_proof(123), note), [WITNESS.vkey]),
        (format_proof(123, tree.inclusion_proof(123), cosigned[:-8] + b"AAAA" + cosigned[-4:]), [WITNESS.vkey]),
    ):
        proof.write_bytes(text)
        with pytest.raises(check_log.RefusedError):
            check_log.check_proof_with_go(vkey, proof, leaf, *witnesses)


@pytest.mark.parametrize("name", ["proofs.json", "published-proofs.json"])
def test_gos_libraries_give_the_verdicts_our_vectors_state(check_log: Any, tmp_path: Path, name: str) -> None:
    vectors = json.loads((VECTORS / name).read_text())
    # Go's types hold 32 bytes only, and x/mod speaks of trees with at least one leaf.
    cases = {
        "inclusion": [c for c in vectors["inclusion"] if len(c["root"]) == len(c["leaf_hash"]) == 64 and c["size"] > 0],
        "consistency": [
            c for c in vectors["consistency"] if len(c["old_root"]) == len(c["new_root"]) == 64 and c["old_size"] > 0
        ],
    }
    for kind, some in cases.items():
        cases[kind] = [c for c in some if all(len(h) == 64 for h in c["proof"])]
        assert len(cases[kind]) > 60
    (tmp_path / name).write_text(json.dumps(cases))
    said = check_log.judge_with_go(tmp_path / name)
    for kind, some in cases.items():
        stated = [case["valid"] for case in some]
        assert said[f"merkle_{kind}"] == stated
        assert said[f"tlog_{kind}"] == stated


class TestOmniwitness:
    """Its answers and ours, request by request, on the same state."""

    def test_it_cosigns_growth_and_we_verify_it(self, check_log: Any) -> None:
        tree = MemoryTree(leaf_hashes_of(entries_of(700)))
        with check_log.running_witness(LOG.vkey) as witness:
            old = 0
            for size in (300, 700, 700):
                note = sign_checkpoint(Checkpoint(ORIGIN, size, tree.root(size)), signer=LOG)
                body = format_add_checkpoint(old, tree.consistency_proof(old, size), note)
                status, _, line = witness.add_checkpoint(body)
                assert status == 200
                checkpoint, times = open_cosigned(
                    note + line, verifier=LOG.verifier, witnesses=[parse_vkey(witness.vkey)]
                )
                assert checkpoint.size == size
                assert times[witness.vkey] > 1_600_000_000
                old = size

    def test_it_refuses_what_we_refuse_with_the_same_status(self, check_log: Any) -> None:
        tree = MemoryTree(leaf_hashes_of(entries_of(700)))
        fork = MemoryTree(leaf_hashes_of(entries_of(300) + entries_of(400, "forked")))
        other_log = Signer("unknown.example/log", LOG.key)
        other_key = Signer(ORIGIN, Ed25519SigningKey(bytes(32)))

        def note(size: int, tree: MemoryTree, signer: Signer = LOG) -> bytes:
            return sign_checkpoint(Checkpoint(signer.name, size, tree.root(size)), signer=signer)

        proof = tree.consistency_proof(500, 700)
        cases: list[tuple[str, int, list[bytes], bytes, int]] = [
            ("rolled back", 300, [], note(300, tree), 409),
            ("a size it does not know", 400, tree.consistency_proof(400, 700), note(700, tree), 409),
            ("from the beginning again", 0, [], note(700, tree), 409),
            ("forked at the same size", 500, [], note(500, fork), 422),
            ("forked and grown", 500, fork.consistency_proof(500, 700), note(700, fork), 422),
            ("forked, with the true proof", 500, proof, note(700, fork), 422),
            ("no proof", 500, [], note(700, tree), 422),
            ("proof of another size", 500, tree.consistency_proof(499, 700), note(700, tree), 422),
            ("another key", 500, proof, note(700, tree, other_key), 403),
            ("another log", 500, proof, note(700, tree, other_log), 404),
            ("an old size above the new", 701, [], note(700, tree), 400),
        ]
        with check_log.running_witness(LOG.vkey) as witness:
            assert witness.add_checkpoint(format_add_checkpoint(0, [], note(500, tree)))[0] == 200
            state = (500, tree.root(500))
            for what, old, hashes, checkpoint, expected in cases:
                body = format_add_checkpoint(old, hashes, checkpoint)
                status, content_type, answer = witness.add_checkpoint(body)
                # The specification wants 403 where no known key signed; this version of omniwitness answers 500.
                assert (what, status) == (what, 500 if what == "another key" else expected)
                if status == 409:
                    assert (content_type, answer) == ("text/x.tlog.size", b"500\n")
                with pytest.raises(Error) as caught:
                    our_witness(state, body)
                assert (what, caught.value.http_status) == (what, expected)
            # None of it moved the witness: the true log still goes on from 500.
            assert witness.add_checkpoint(format_add_checkpoint(500, proof, note(700, tree)))[0] == 200

    def test_a_cosignature_with_one_changed_byte_is_not_the_witnesss(self, check_log: Any) -> None:
        tree = MemoryTree(leaf_hashes_of(entries_of(5)))
        note = sign_checkpoint(Checkpoint(ORIGIN, 5, tree.root()), signer=LOG)
        with check_log.running_witness(LOG.vkey) as witness:
            _, _, line = witness.add_checkpoint(format_add_checkpoint(0, [], note))
        changed = line.replace(line[-12:-8], b"AAAA" if line[-12:-8] != b"AAAA" else b"BBBB")
        with pytest.raises(VerificationError):
            open_cosigned(note + changed, verifier=LOG.verifier, witnesses=[parse_vkey(witness.vkey)])
