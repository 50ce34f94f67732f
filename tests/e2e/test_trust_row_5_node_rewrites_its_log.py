"""Trust row 5: a node, its key included, can't rewrite, drop, reorder, truncate, roll back or fork its log unnoticed.

The operator here is careful: bodies get the right index, digests, frontier and every tile are made anew, and the
checkpoint is signed with the node's own key. By itself such a log is flawless; what the others keep gives it away.
"""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from careledger.access import leaf
from careledger.custody.store import KINDS
from careledger.errors import Error, NotFoundError, VerificationError
from careledger.node import NodeFolder
from careledger.tlog import (
    Checkpoint,
    Frontier,
    format_add_checkpoint,
    leaf_hash,
    parse_unverified_checkpoint,
    sign_checkpoint,
    tail_of_entries,
)
from careledger.verify import folder_fetch, index_of, trust_of_genesis, verify_log, verify_node_folder, witnessed_in
from careledger.verify.folder import load_bodies

Entry = tuple[str, bytes, bytes]
"""Kind, salt, body."""
MUTATIONS = 150
VICTIM = 1


class Operator:
    """Somebody with root on a node's machine, at work on (a copy of) its folder."""

    def __init__(self, folder: Path, network: str) -> None:
        self.folder = folder
        self.signer = NodeFolder(folder).log_signer(network)

    def entries(self) -> list[Entry]:
        store = sqlite3.connect(self.folder / "store" / "main.db")
        rows = store.execute("SELECT kind, salt, body FROM entries ORDER BY idx").fetchall()
        store.close()
        return [(KINDS[kind], salt, body) for kind, salt, body in rows]

    def write_store(self, entries: list[Entry]) -> list[bytes]:
        """Make the store hold exactly these entries; returns their leaves."""
        leaves = [leaf(*entry) for entry in entries]
        frontier = Frontier(0, [])
        frontier.append_batch([leaf_hash(text) for text in leaves])
        store = sqlite3.connect(self.folder / "store" / "main.db")
        with store:
            subjects = dict(store.execute("SELECT idx, subject FROM entries"))
            store.execute("DELETE FROM entries")
            rows = [
                (index, KINDS.index(kind), bytes.fromhex(text[-64:].decode()), salt, body, subjects.get(index))
                for index, ((kind, salt, body), text) in enumerate(zip(entries, leaves, strict=True))
            ]
            store.executemany("INSERT INTO entries VALUES(?,?,?,?,?,?)", rows)
            store.execute("UPDATE log SET size = ?, frontier = ?", (frontier.size, b"".join(frontier.hashes)))
        store.close()
        return leaves

    def write_log(self, leaves: list[bytes]) -> bytes:
        """Rebuild every tile and sign; returns the checkpoint."""
        log = self.folder / "log"
        shutil.rmtree(log)
        tail, files = tail_of_entries(leaves)
        for path, data in files.items():
            (log / path).parent.mkdir(parents=True, exist_ok=True)
            (log / path).write_bytes(data)
        note = sign_checkpoint(Checkpoint(self.signer.name, tail.size, tail.root()), signer=self.signer)
        (log / "checkpoint").write_bytes(note)
        return note

    def rewrite(self, entries: list[Entry]) -> bytes:
        return self.write_log(self.write_store([renumbered(entry, index) for index, entry in enumerate(entries)]))


def renumbered(entry: Entry, index: int) -> Entry:
    kind, salt, body = entry
    return kind, salt, re.sub(rb'"index":\d+', b'"index":%d' % index, body, count=1)


def _denied(entry: Entry) -> Entry:
    """A read that took place becomes one that was refused."""
    kind, salt, body = entry
    changed = body.replace(b'"decision":"allow"', b'"decision":"deny"')
    assert changed != body
    return kind, salt, changed


def _accesses(entries: list[Entry]) -> list[int]:
    return [at for at, (kind, _, body) in enumerate(entries) if kind == "access" and b'"decision":"allow"' in body]


def rewrite_one(entries: list[Entry], rng: random.Random) -> list[Entry]:
    at = rng.choice(_accesses(entries))
    return [_denied(entry) if index == at else entry for index, entry in enumerate(entries)]


def drop_one(entries: list[Entry], rng: random.Random) -> list[Entry]:
    at = rng.choice(_accesses(entries))
    return entries[:at] + entries[at + 1 :]


def drop_one_and_fill_up(entries: list[Entry], rng: random.Random) -> list[Entry]:
    """Of the same size again: an old system entry is said to have been another one."""
    shorter = drop_one(entries, rng)
    return [*shorter, shorter[-1]]


def reorder(entries: list[Entry], rng: random.Random) -> list[Entry]:
    one, other = sorted(rng.sample(_accesses(entries), 2))
    changed = list(entries)
    changed[one], changed[other] = changed[other], changed[one]
    return changed


def truncate(entries: list[Entry], rng: random.Random) -> list[Entry]:
    return entries[: rng.choice(_accesses(entries))]


def fork(entries: list[Entry], rng: random.Random) -> list[Entry]:
    """Another history from some entry on, and longer than the true one."""
    at = rng.choice(_accesses(entries))
    return [*entries[:at], *reversed(entries[at:]), entries[-1]]


ATTACKS = {
    rewrite_one: {"fork", "rewritten"},
    drop_one: {"rolled-back"},
    drop_one_and_fill_up: {"fork", "rewritten"},
    reorder: {"fork", "rewritten"},
    truncate: {"rolled-back"},
    fork: {"rewritten"},
}
each_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)


@pytest.fixture(scope="module")
def story(scenes: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A network with a history, its logs cosigned and anchored; it runs between the tests."""
    with scenes.Scene.played(tmp_path_factory.mktemp("row-5")) as scene:

        async def play() -> None:
            chart = await scene.chart(4)
            for _ in range(4):
                await scene.open(chart)
            await chart.patient.revoke(chart.read_grant)
            scene.told = chart
            await scene.until_published()

        scene.run(play())
        scene.local.stop()
        scene.kept = tmp_path_factory.mktemp("kept")
        for node in scene.local.nodes:
            shutil.copytree(node.folder, scene.kept / node.name)
        yield scene


@pytest.fixture
def copy(story: Any, tmp_path: Path) -> Path:
    """The victim's folder, as an operator has it."""
    name = story.local.nodes[VICTIM].name
    shutil.copytree(story.kept / name, tmp_path / name)
    return tmp_path / name


def others(scene: Any) -> list[Path]:
    return [scene.kept / node.name for at, node in enumerate(scene.local.nodes) if at != VICTIM]


def test_the_untouched_folder_verifies(story: Any, copy: Path) -> None:
    report = verify_node_folder(copy, others=others(story), network=story.local.network, cosignatures_needed=3)
    assert report.log.vouched == report.log.size == len(Operator(copy, story.local.network).entries())
    assert report.log.decisions >= 2


@each_attack
def test_a_log_rewritten_and_signed_again_is_caught_by_what_others_keep(
    story: Any, copy: Path, attack: Callable[..., list[Entry]]
) -> None:
    operator = Operator(copy, story.local.network)
    operator.rewrite(attack(operator.entries(), random.Random(attack.__name__)))
    verifier = trust_of_genesis(story.local.genesis).log(story.local.nodes[VICTIM].token)
    with load_bodies(copy / "store" / "main.db") as store:
        verify_log(folder_fetch(copy / "log"), verifier=verifier, bodies=store.bodies)
    trust = trust_of_genesis(story.local.genesis, network=story.local.network)
    with pytest.raises(VerificationError) as by_witnesses:
        _verify_log_only(copy, story, trust)
    assert by_witnesses.value.code in ATTACKS[attack]
    for known in (others(story), []):  # the other members' witnesses; and, without them, the anchors alone
        with pytest.raises(VerificationError) as caught:
            verify_node_folder(copy, others=known, network=story.local.network)
        assert caught.value.code not in ("not-found", "missing-file")


def _verify_log_only(copy: Path, story: Any, trust: Any) -> None:
    verifier = trust.log(story.local.nodes[VICTIM].token)
    known = [one for other in others(story) for one in witnessed_in(other / "witness.db", verifier=verifier, source="")]
    assert known, "the others have cosigned this log"
    verify_log(folder_fetch(copy / "log"), verifier=verifier, known=known)


@each_attack
def test_a_node_started_on_a_rewritten_log_serves_nobody_and_says_why(
    story: Any, copy: Path, attack: Callable[..., list[Entry]]
) -> None:
    """The real node program on the operator's work, the other members' nodes running."""
    scene, victim = story, story.local.nodes[VICTIM]
    operator = Operator(copy, scene.local.network)
    operator.rewrite(attack(operator.entries(), random.Random(attack.__name__)))
    for node in scene.local.nodes:
        shutil.rmtree(node.folder)
        shutil.copytree(copy if node is victim else scene.kept / node.name, node.folder)
        node.start()

    async def look() -> None:
        for node in scene.local.nodes:
            health = await scene.until_status(node, "rolled-back" if node is victim else "ok")
            assert health["serving"] == (node is not victim)
        health = await scene.health(victim)
        assert "cosigned" in health["todo"] or "anchor" in health["todo"]
        reader = scene.reader(scene.client())
        request = await reader.request(scene.told.subject, scene.told.records, purpose="TREAT")
        answer = await scene.network.wire.post(victim.url, "/v1/access", request.message(content=True))
        assert answer.status == 503
        assert b"rolled-back" in answer.body
        trail = await scene.trail(scene.told)
        assert not trail.complete
        assert {node: error.code for node, error in trail.missing.items()} == {victim.token: "rolled-back"}

    try:
        scene.run(look())
    finally:
        scene.local.kill()


def test_without_the_published_files_a_rewritten_store_is_caught_as_well(story: Any, copy: Path) -> None:
    """Only the store is rewritten and the published log left as it is: the two must not go on as two histories."""
    scene, victim = story, story.local.nodes[VICTIM]
    operator = Operator(copy, scene.local.network)
    entries = rewrite_one(operator.entries(), random.Random(5))
    operator.write_store(entries)
    for node in scene.local.nodes:
        shutil.rmtree(node.folder)
        shutil.copytree(copy if node is victim else scene.kept / node.name, node.folder)
        node.start()
    try:
        health = scene.run(scene.until_status(victim, "rolled-back"))
        assert not health["serving"]
    finally:
        scene.local.kill()


def test_witnesses_refuse_a_fork_and_keep_it_as_evidence(story: Any) -> None:
    """Signed with the node's own key: the same size with another root, a longer one, a shorter one."""
    scene, victim = story, story.local.nodes[VICTIM]
    witness = scene.local.nodes[0]
    for node in scene.local.nodes:
        shutil.rmtree(node.folder)
        shutil.copytree(scene.kept / node.name, node.folder)
    witness.start()
    signer = NodeFolder(victim.folder).log_signer(scene.local.network)
    honest = parse_unverified_checkpoint((victim.folder / "log" / "checkpoint").read_bytes())

    async def present(size: int, root: bytes, old: int, proof: list[bytes]) -> tuple[int, bytes]:
        note = sign_checkpoint(Checkpoint(signer.name, size, root), signer=signer)
        body = format_add_checkpoint(old, proof, note)
        answer = await scene.network.wire.post(witness.url, "/witness/add-checkpoint", body, content="text/plain")
        return answer.status, answer.body

    async def attack() -> None:
        await scene.until_status(witness, "rollback-unchecked", "checked", "starting")
        size, root = honest.size, honest.root
        assert (await present(size, root, size, []))[0] == 200, "the same one again is cosigned again"
        status, body = await present(size, b"\x55" * 32, size, [])
        assert (status, b"fork" in body) == (422, True)
        status, _ = await present(size + 1, b"\x55" * 32, size, [b"\x44" * 32])
        assert status == 422
        status, body = await present(size - 1, b"\x55" * 32, size - 1, [])
        assert (status, int(body)) == (409, size), "a shorter one is answered with the size that was cosigned"
        other = NodeFolder(scene.local.nodes[2].folder).log_signer(scene.local.network)
        forged = sign_checkpoint(Checkpoint(other.name, size + 1, root), signer=other).replace(
            other.name.encode(), signer.name.encode()
        )
        body = format_add_checkpoint(size, [], forged)
        answer = await scene.network.wire.post(witness.url, "/witness/add-checkpoint", body, content="text/plain")
        assert answer.status == 403, "nobody can be accused of a fork with another key"

    scene.run(attack())
    scene.local.kill()
    evidence = sqlite3.connect(witness.folder / "witness.db").execute("SELECT origin FROM forks").fetchall()
    assert evidence == [(signer.name,)]
    with pytest.raises(VerificationError) as caught:
        verify_node_folder(victim.folder, others=[witness.folder], network=scene.local.network)
    assert caught.value.code == "fork"
    assert signer.name in str(caught.value)


def test_every_sampled_byte_of_the_published_log_counts(story: Any, copy: Path) -> None:
    trust = trust_of_genesis(story.local.genesis, network=story.local.network)
    token = story.local.nodes[VICTIM].token
    read: dict[str, bytes] = {}

    def verify(change: Callable[[str, bytes], bytes]) -> Any:
        fetch = folder_fetch(copy / "log")

        def changed(path: str) -> bytes:
            data = fetch(path)
            read[path] = data
            return change(path, data)

        return verify_log(
            changed, verifier=trust.log(token), witnesses=trust.witnesses(besides=token), cosignatures_needed=2
        )

    untouched = verify(lambda _, data: data)
    files = dict(read)
    places = [(path, at) for path, data in files.items() for at in range(len(data))]
    rng = random.Random(55)
    sampled = rng.sample(places, MUTATIONS) + [
        ("checkpoint", at) for at in rng.sample(range(len(files["checkpoint"])), 40)
    ]
    for path, at in sampled:
        bit = 1 << rng.randrange(8)

        def flip(name: str, data: bytes, path: str = path, at: int = at, bit: int = bit) -> bytes:
            return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :] if name == path else data

        try:
            report = verify(flip)
        except Error:
            continue
        assert path == "checkpoint", f"byte {at} of {path} changed, and nobody noticed"
        assert len(report.cosigned) < len(untouched.cosigned), f"byte {at} of the checkpoint counts for nothing"


def test_every_sampled_byte_of_the_bodies_counts(story: Any, copy: Path) -> None:
    verifier = trust_of_genesis(story.local.genesis).log(story.local.nodes[VICTIM].token)
    rng = random.Random(56)
    with load_bodies(copy / "store" / "main.db") as store:
        size = store.size
        for _ in range(60):
            index, field = rng.randrange(size), rng.randrange(2)

            def bodies(start: int, end: int, index: int = index, field: int = field) -> Any:
                found = list(store.bodies(start, end))
                if start <= index < end:
                    item = [bytearray(part) for part in found[index - start]]
                    item[field][rng.randrange(len(item[field]))] ^= 1 << rng.randrange(8)
                    found[index - start] = (bytes(item[0]), bytes(item[1]))
                return found

            with pytest.raises(VerificationError) as caught:
                verify_log(folder_fetch(copy / "log"), verifier=verifier, bodies=bodies)
            assert (caught.value.code, index_of(caught.value)) == ("bad-body", index)


def test_a_node_restored_from_an_older_copy_of_its_disk_refuses_and_the_others_serve(new_scene: Any) -> None:
    """The whole folder, witness memory and directory replica included, as a machine image would bring it back."""
    scene = new_scene()
    victim = scene.local.nodes[2]
    chart = scene.run(scene.chart(2))
    victim.stop()
    shutil.copytree(victim.folder, scene.folder / "image")
    scene.restart(victim)

    async def goes_on() -> None:
        for _ in range(3):
            await scene.open(chart)
        scene.clinician.reader.ask_all = True
        await scene.open(chart)
        scene.clinician.reader.ask_all = False
        await scene.until_published()

    scene.run(goes_on())
    victim.kill()
    shutil.rmtree(victim.folder)
    shutil.move(scene.folder / "image", victim.folder)
    victim.start()

    async def look() -> None:
        health = await scene.until_status(victim, "rolled-back")
        assert not health["serving"] and health["todo"]
        opened = await scene.open(chart, reader=scene.reader(scene.client()))
        assert len(opened.records) == 2
        assert {error.code for error in opened.faults.values()} <= {"rolled-back"}
        for _ in range(3):
            opened = await scene.open(chart)
            assert len(opened.records) == 2
        head = await scene.network.wire.get(victim.url, "/v1/directory/head")
        assert head.status == 200, "directory and witness answer all the same"

    scene.run(look())


def test_an_older_store_beside_the_newer_published_log_does_not_even_start(new_scene: Any) -> None:
    scene = new_scene()
    victim = scene.local.nodes[3]
    chart = scene.run(scene.chart(1))
    victim.stop()
    shutil.copytree(victim.folder / "store", scene.folder / "store")
    scene.restart(victim)

    async def goes_on() -> None:
        scene.clinician.reader.ask_all = True
        await scene.open(chart)
        await scene.until_published()

    scene.run(goes_on())
    victim.stop()
    shutil.rmtree(victim.folder / "store")
    shutil.move(scene.folder / "store", victim.folder / "store")
    (victim.folder / "node.log").write_bytes(b"")
    victim.start()
    assert victim.process is not None
    assert victim.process.wait(60) == 1
    said = (victim.folder / "node.log").read_text()
    assert "[rolled-back]" in said and "older copy of the store" in said
    assert "Traceback" not in said
    with pytest.raises(NotFoundError):
        folder_fetch(victim.folder)("store/nothing.db")
