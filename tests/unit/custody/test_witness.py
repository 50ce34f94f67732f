"""The witness's memory: durable before it signs, and evidence of every fork it saw."""

from __future__ import annotations

import sqlite3

import pytest

from careledger.custody import Witness, read_cosigned
from careledger.errors import ConflictError, NotFoundError, NotPermittedError, UnavailableError, VerificationError
from careledger.tlog import (
    AddCheckpoint,
    Checkpoint,
    Cosigner,
    Ed25519SigningKey,
    MemoryTree,
    Signer,
    leaf_hash,
    sign_checkpoint,
    verify_cosignature,
)

ORIGIN = "0123456789abcdef/cl1log"
SIGNER = Signer(ORIGIN, Ed25519SigningKey(bytes(range(32))))
COSIGNER = Cosigner("0123456789abcdef/cl1witness", Ed25519SigningKey(bytes(range(1, 33))))


class Log:
    def __init__(self, *leaves):
        self.tree = MemoryTree()
        self.tree.extend([leaf_hash(one) for one in leaves])

    def note(self, size=None):
        at = self.tree.size if size is None else size
        return sign_checkpoint(Checkpoint(ORIGIN, at, self.tree.root(at)), signer=SIGNER)

    def add(self, old, size=None):
        proof = tuple(self.tree.consistency_proof(old, size)) if old else ()
        return AddCheckpoint(old, proof, self.note(size))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "witness.db"


@pytest.fixture
def make(file):
    opened = []

    def open_witness():
        witness = Witness(file, signer=COSIGNER, now_s=lambda: 1_790_000_000)
        opened.append(witness)
        return witness

    yield open_witness
    for one in opened:
        one.close()


def add(witness, request):
    return witness.add_checkpoint(request, log_verifier=SIGNER.verifier)


def test_a_growing_log_is_cosigned_and_remembered(make, file):
    witness, log = make(), Log(*(b"%d" % number for number in range(8)))
    for old, size in ((0, 3), (3, 8), (8, 8)):
        request = log.add(old, size)
        line = add(witness, request)
        text = request.checkpoint[: request.checkpoint.index(b"\n\n") + 1]
        verify_cosignature(line, checkpoint_text=text, verifier=COSIGNER.verifier)
        assert witness.last(ORIGIN) == (size, log.tree.root(size), request.checkpoint)
        assert read_cosigned(file, ORIGIN) == (size, log.tree.root(size))
    assert read_cosigned(file, "another") is None


def test_it_is_durable_before_the_signature_leaves(make, file, monkeypatch):
    from careledger.custody import witness as module

    seen = []
    cosign = module.cosign_if_consistent
    monkeypatch.setattr(
        module, "cosign_if_consistent", lambda *args, **more: (seen.append("signed"), cosign(*args, **more))[1]
    )
    witness, log = make(), Log(b"a", b"b")
    written = []
    write = witness._write
    monkeypatch.setattr(witness, "_write", lambda *args: (written.append(args), write(*args)))
    add(witness, log.add(0, 1))
    assert (len(seen), len(written)) == (1, 1)

    def failing(*_):
        raise UnavailableError("disk-full", "no")

    monkeypatch.setattr(witness, "_write", failing)
    with pytest.raises(UnavailableError):
        add(witness, log.add(1, 2))
    assert read_cosigned(file, ORIGIN)[0] == 1


def test_a_full_disk_means_no_signature(make, monkeypatch):
    witness, log = make(), Log(b"a")
    witness._db.execute("PRAGMA query_only=ON")
    with pytest.raises(UnavailableError):
        add(witness, log.add(0))
    witness._db.execute("PRAGMA query_only=OFF")
    add(witness, log.add(0))


def test_it_remembers_over_a_restart(make):
    log, other = Log(b"a", b"b", b"c"), Log(b"a", b"b", b"x")
    add(make(), log.add(0))
    again = make()
    with pytest.raises(VerificationError) as refusal:
        add(again, AddCheckpoint(3, (), other.note()))
    assert refusal.value.code == "fork"


def test_a_fork_is_refused_and_both_checkpoints_are_kept_as_evidence(make):
    witness, log, other = make(), Log(b"a", b"b"), Log(b"a", b"x")
    add(witness, log.add(0))
    with pytest.raises(VerificationError):
        add(witness, AddCheckpoint(2, (), other.note()))
    assert witness.forks() == [(ORIGIN, log.note(), other.note())]
    third = Log(b"y", b"x")
    with pytest.raises(VerificationError):
        add(witness, AddCheckpoint(2, (), third.note()))
    assert len(witness.forks()) == 1
    assert witness.last(ORIGIN)[2] == log.note()


def test_a_shrunken_or_inconsistent_log_is_not_cosigned(make):
    witness, log = make(), Log(b"a", b"b", b"c")
    add(witness, log.add(0))
    with pytest.raises(ConflictError) as refusal:
        add(witness, log.add(0, 2))
    assert refusal.value.details == {"size": 3}
    other = Log(b"a", b"x", b"c", b"d")
    with pytest.raises(VerificationError):
        add(witness, other.add(3))
    assert witness.last(ORIGIN)[0] == 3
    assert witness.forks() == []


def test_only_known_logs_with_their_own_signature(make):
    witness, log = make(), Log(b"a")
    with pytest.raises(NotFoundError):
        witness.add_checkpoint(log.add(0), log_verifier=None)
    forger = Signer(ORIGIN, Ed25519SigningKey(bytes(32)))
    forged = sign_checkpoint(Checkpoint(ORIGIN, 1, log.tree.root()), signer=forger)
    with pytest.raises(NotPermittedError):
        add(witness, AddCheckpoint(0, (), forged))
    assert witness.last(ORIGIN) is None


def test_reading_from_outside_changes_nothing(make, file):
    add(make(), Log(b"a").add(0))
    before = read_cosigned(file, ORIGIN)
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as outside, pytest.raises(sqlite3.Error):
        outside.execute("DELETE FROM cosigned")
    outside.close()
    assert read_cosigned(file, ORIGIN) == before
