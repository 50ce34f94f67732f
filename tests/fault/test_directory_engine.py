"""The embedded engine dies or its disk lies at every durable write: what was answered for is there, nothing is torn.

A child process founds a network and enrols people one block at a time, saying each token only after `submit` returned.
It is killed at a chosen point; the store is opened again here, every acknowledged person must be there, the tile log
must verify, and a follower must be able to execute all of it.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from careledger.directory import Enrol, MemberPart, NodePart, founding, network_of, sign_transaction
from careledger.directory.engines import Follower, Sequencer
from careledger.directory.engines.blocklog import Replica
from careledger.directory.engines.blockstore import BlockStore
from careledger.errors import NotFoundError, UnavailableError
from careledger.identity import new_organisation, new_person, new_software
from careledger.seal import SigningKey, keyid
from careledger.tlog import open_checkpoint, verify_log

T0 = 1_700_000_000_000
PEOPLE = 6


def seeded(name: str) -> Callable[[int], bytes]:
    count = 0

    def draw(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{name} {count}".encode()).digest(size)

    return draw


class Net:
    """Two members, the same in every process."""

    def __init__(self) -> None:
        rand = seeded("fault")
        self.software = [new_software(rand=rand) for _ in range(2)]
        organisations = [new_organisation(nodes=[node.token], rand=rand) for node in self.software]
        self.log_keys = [SigningKey(rand(32)) for _ in range(2)]
        self.witness_keys = [SigningKey(rand(32)) for _ in range(2)]
        parts = [
            MemberPart(
                organisation.envelope,
                [NodePart(node.envelope, f"http://{number}.example", log_key.public, witness_key.public)],
            )
            for number, (organisation, node, log_key, witness_key) in enumerate(
                zip(organisations, self.software, self.log_keys, self.witness_keys, strict=True)
            )
        ]
        self.genesis = founding(parts, time_ms=T0, nonce=rand(16))
        self.people = [new_person(custodians=[], rand=rand) for _ in range(PEOPLE)]

    def enrol(self, number: int) -> Any:
        node = self.software[0]
        payload = Enrol(v=1, network=network_of(self.genesis), node=node.token, inception=self.people[number].envelope)
        return sign_transaction(payload, signers=[(keyid(node.token, 0), node.secrets.device.signing_key())])

    def sequencer(self, folder: Path) -> Sequencer:
        return Sequencer(
            folder / "blocks.db",
            genesis=self.genesis,
            node=self.software[0].token,
            log_key=self.log_keys[0],
            witness=self.witness_keys[0],
            now_ms=T0,
            folder=folder / "log",
        )

    def follower(self, folder: Path) -> Follower:
        return Follower(
            folder / "follower.db", genesis=self.genesis, node=self.software[1].token, witness=self.witness_keys[1]
        )


def die(*_args: Any, **_kwargs: Any) -> None:
    os._exit(9)


def die_at(point: str) -> None:
    """Arrange for this process to end without any clean-up at a point of its third block."""
    where, _, number = point.partition(":")
    counted = {"n": 0}

    def counting(real: Callable[..., Any], limit: int) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counted["n"] += 1
            if counted["n"] >= limit:
                die()
            return real(*args, **kwargs)

        return call

    if where == "inside-transaction":
        BlockStore.add_cosignature = counting(BlockStore.add_cosignature, 3)  # type: ignore[method-assign]
    elif where == "after-commit":
        Replica._grow = counting(Replica._grow, 3)  # type: ignore[method-assign]
    elif where == "file":
        # Each block renames a tile, a bundle and the checkpoint.
        os.replace = counting(os.replace, 6 + int(number))
    elif where == "torn-file":
        real = Path.write_bytes

        def torn(self: Path, data: bytes) -> int:
            counted["n"] += 1
            if counted["n"] >= 6 + int(number):
                real(self, data[: len(data) // 2])
                die()
            return real(self, data)

        Path.write_bytes = torn  # type: ignore[method-assign]
    else:
        raise AssertionError(point)


def child(folder: str, point: str) -> None:
    net = Net()
    die_at(point)
    sequencer = net.sequencer(Path(folder))
    for number in range(PEOPLE):
        assert sequencer.submit([net.enrol(number)], now_ms=T0 + number)[0].ok
        print(net.people[number].token, flush=True)


def check_whole(net: Net, folder: Path, acknowledged: list[str]) -> None:
    """Everything that was answered for is there; log, store and state agree; a follower can execute it; it goes on."""
    sequencer = net.sequencer(folder)
    follower = net.follower(folder)
    try:
        for token in acknowledged:
            assert sequencer.directory.is_active(token)
        for number in range(PEOPLE):
            result = sequencer.submit([net.enrol(number)], now_ms=T0 + 100 + number)[0]
            assert result.code in ("ok", "exists")
        check_log(sequencer, folder)
        while (found := sequencer.blocks_after(follower.height)) is not None:
            follower.accept(*found, now_ms=T0 + 1000)
        assert follower.directory.app_hash() == sequencer.directory.app_hash()
        assert all(follower.directory.is_active(person.token) for person in net.people)
    finally:
        sequencer.close()
        follower.close()


def check_log(sequencer: Sequencer, folder: Path) -> None:
    def fetch(path: str) -> bytes:
        try:
            return (folder / "log" / path).read_bytes()
        except FileNotFoundError:
            raise NotFoundError("not-found", path) from None

    verifier = sequencer.directory.sequencer_verifier()
    assert verifier is not None
    checkpoint = open_checkpoint(fetch("checkpoint"), verifier=verifier)
    assert checkpoint.size == sequencer.height
    verify_log(fetch, size=checkpoint.size, root=checkpoint.root)


@pytest.mark.parametrize(
    "point", ["inside-transaction", "after-commit", "file:1", "file:2", "file:3", "torn-file:2", "torn-file:3"]
)
def test_killed_sequencer_keeps_what_it_answered_for(tmp_path: Path, point: str) -> None:
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path), point], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 9, done.stderr
    acknowledged = done.stdout.split()
    # The first block is the empty one, so the second person is the third block's.
    assert 1 <= len(acknowledged) < PEOPLE
    net = Net()
    if point != "inside-transaction":
        sequencer = net.sequencer(tmp_path)
        assert sequencer.directory.is_active(net.people[len(acknowledged)].token), "durable, though nobody was told"
        assert sequencer.repaired
        sequencer.close()
    check_whole(net, tmp_path, acknowledged)


@contextmanager
def committing_but_reporting_failure(store: BlockStore) -> Iterator[None]:
    store._db.execute("BEGIN IMMEDIATE")
    yield
    store._db.execute("COMMIT")
    raise UnavailableError("store-failed", "the disk said no, after it had done it")


def test_commit_that_fails_yet_is_stored_becomes_part_of_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Net()
    sequencer, follower = net.sequencer(tmp_path), net.follower(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(sequencer._store, "writing", lambda: committing_but_reporting_failure(sequencer._store))
        with pytest.raises(UnavailableError):
            sequencer.submit([net.enrol(0)], now_ms=T0 + 1)
    assert sequencer.directory.is_active(net.people[0].token)
    assert [result.code for result in sequencer.submit([net.enrol(0), net.enrol(1)], now_ms=T0 + 2)] == ["exists", "ok"]
    found = sequencer.blocks_after(0)
    assert found is not None
    with monkeypatch.context() as patch:
        patch.setattr(follower._store, "writing", lambda: committing_but_reporting_failure(follower._store))
        with pytest.raises(UnavailableError):
            follower.accept(*found, now_ms=T0 + 3)
    assert follower.height == sequencer.height
    assert follower.accept(*found, now_ms=T0 + 3)
    sequencer.close()
    follower.close()
    check_whole(net, tmp_path, [net.people[0].token, net.people[1].token])


def test_commit_that_fails_and_is_not_stored_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    sequencer = net.sequencer(tmp_path)
    before = (sequencer.height, sequencer.directory.app_hash(), sequencer.checkpoint())

    def full(*_args: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    for name in ("add_block", "add_checkpoint", "add_cosignature"):
        with monkeypatch.context() as patch:
            patch.setattr(sequencer._store, name, full)
            with pytest.raises(UnavailableError) as caught:
                sequencer.submit([net.enrol(0)], now_ms=T0 + 1)
            assert caught.value.code == "store-failed"
        assert (sequencer.height, sequencer.directory.app_hash(), sequencer.checkpoint()) == before
    sequencer.close()
    check_whole(net, tmp_path, [])


if __name__ == "__main__":
    child(sys.argv[1], sys.argv[2])
