"""Nodes that are stopped, killed and started again over damaged files: the log is whole again, and care goes on."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from careledger.client import KeyFolder, enrol_patient
from careledger.custody import read_cosigned
from careledger.errors import Error, MalformedError, NotPermittedError
from careledger.tlog import parse_unverified_checkpoint
from careledger.verify import verify_network_folder, verify_node_folder


@pytest.fixture(scope="module")
def played(scenes: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with scenes.Scene.played(tmp_path_factory.mktemp("restart")) as scene:
        scene.told = scene.run(scene.chart(2))
        yield scene


def _no_checkpoint(log: Path) -> None:
    (log / "checkpoint").unlink()


def _half_a_checkpoint(log: Path) -> None:
    data = (log / "checkpoint").read_bytes()
    (log / "checkpoint").write_bytes(data[: len(data) // 2])


def _another_size_in_the_checkpoint(log: Path) -> None:
    """A flipped bit in the size: without the signature it would look like a longer log that was rolled back."""
    data = (log / "checkpoint").read_bytes()
    (log / "checkpoint").write_bytes(data.replace(b"\n", b"\n9", 1))


def _no_tiles(log: Path) -> None:
    shutil.rmtree(log / "tile" / "0")


def _zeros_in_a_bundle(log: Path) -> None:
    path = max((log / "tile" / "entries").rglob("*"), key=lambda one: (one.is_file(), one.name))
    path.write_bytes(bytes(path.stat().st_size))


def _files_of_a_write_that_was_cut_short(log: Path) -> None:
    for name in (".checkpoint.new", "tile/0/.000.new", "tile/entries/.000.new"):
        (log / name).write_bytes(b"half")


def _no_log_at_all(log: Path) -> None:
    shutil.rmtree(log)


DAMAGES: list[Callable[[Path], None]] = [
    _no_checkpoint,
    _half_a_checkpoint,
    _another_size_in_the_checkpoint,
    _no_tiles,
    _zeros_in_a_bundle,
    _files_of_a_write_that_was_cut_short,
    _no_log_at_all,
]


def test_a_killed_node_mends_whatever_was_left_of_its_published_log(played: Any) -> None:
    """Each damage to another node in turn, killed in the middle of work; the store alone decides."""
    scene = played
    for number, damage in enumerate(DAMAGES):
        node = scene.local.nodes[number % 4]

        async def opens() -> None:
            await scene.open(scene.told)

        scene.run(opens())
        node.kill()
        damage(node.folder / "log")
        scene.restart(node)
        scene.run(scene.until_published())
        others = [other.folder for other in scene.local.nodes if other is not node]
        report = verify_node_folder(node.folder, others=others, network=scene.local.network, cosignatures_needed=3)
        assert report.log.vouched == report.log.size > 0, damage.__name__


def test_nodes_stopped_under_load_leave_folders_that_verify(played: Any) -> None:
    """SIGTERM in the middle of publishing: what others have cosigned by then is published before a node ends."""
    scene = played

    async def load() -> None:
        while True:
            try:
                await scene.open(scene.told)
            except Error:
                await asyncio.sleep(0.01)

    async def stop() -> list[int]:
        task = asyncio.create_task(load())
        await asyncio.sleep(0)
        for _ in range(20):
            await scene.open(scene.told)
        codes = await asyncio.to_thread(scene.local.stop)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return codes

    for _ in range(2):
        assert scene.run(stop()) == [0, 0, 0, 0]
        report = verify_network_folder(scene.local.folder, network=scene.local.network, cosignatures_needed=0)
        assert len(report.nodes) == 4
        scene.restart(*scene.local.nodes)
    assert len(scene.run(scene.open(scene.told)).records) == 2


def test_a_node_stopped_while_a_witness_hangs_publishes_what_the_others_have_cosigned(played: Any) -> None:
    """Else its folder would look like a log that was rolled back: others vouch for more than it shows."""
    scene = played
    node, witness, hung = scene.local.nodes[1], scene.local.nodes[2], scene.local.nodes[3]
    scene.run(scene.until_published())
    origin = scene.network.nodes[node.token].log.name
    scene.freeze(hung)

    def published() -> int:
        return parse_unverified_checkpoint((node.folder / "log" / "checkpoint").read_bytes()).size

    async def cosigned_not_published() -> bool:
        reader = scene.reader(scene.client())
        request = await reader.request(scene.told.subject, scene.told.records, purpose="TREAT")
        await scene.network.wire.post(node.url, "/v1/access", request.message(content=False))

        async def ahead() -> bool:
            known = read_cosigned(witness.folder / "witness.db", origin)
            return known is not None and known[0] > published()

        return bool(await scene.until(ahead, "a cosignature of what is not published yet"))

    try:
        assert scene.run(cosigned_not_published())
        assert node.stop() == 0
    finally:
        scene.thaw(hung)
    known = read_cosigned(witness.folder / "witness.db", origin)
    assert known is not None and known[0] <= published()
    verify_node_folder(node.folder, others=[witness.folder, hung.folder], network=scene.local.network)
    scene.restart(node)


@pytest.mark.parametrize("moved", [False, True], ids=["same-port", "other-port"])
def test_a_node_that_is_started_twice_leaves_the_first_alone(played: Any, moved: bool) -> None:
    """Two processes on one store would each think that the log is as they left it."""
    scene = played
    node = scene.local.nodes[0]
    settings = (node.folder / "node.json").read_bytes()
    try:
        if moved:
            changed = msgspec.json.decode(settings, type=dict[str, Any]) | {"port": 0}
            (node.folder / "node.json").write_bytes(msgspec.json.encode(changed))
        command = [sys.executable, "-m", "careledger.node", str(node.folder)]
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    finally:
        (node.folder / "node.json").write_bytes(settings)
    assert second.returncode == 1
    assert "[folder-in-use]" in second.stderr
    assert "Traceback" not in second.stderr, second.stderr
    assert len(scene.run(scene.open(scene.told)).records) == 2
    assert scene.run(scene.health(node))["status"] == "ok"


def test_a_wrong_passphrase_opens_nothing_and_changes_nothing(played: Any, tmp_path: Path) -> None:
    scene = played
    place = tmp_path / "keys"
    enrolled, patient = scene.run(enrol_patient(scene.client(), place, passphrase="correct horse battery staple"))
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    with pytest.raises(MalformedError):
        KeyFolder.open(place, passphrase="", rand=scene.world.rand)
    for wrong in ("correct horse battery stapl", "Correct horse battery staple", "correct horse battery staple "):
        with pytest.raises(NotPermittedError) as refused:
            KeyFolder.open(place, passphrase=wrong, rand=scene.world.rand)
        assert refused.value.code == "wrong-passphrase"
        assert wrong not in str(refused.value)
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    again = KeyFolder.open(place, passphrase="correct horse battery staple", rand=scene.world.rand)
    assert again.token == enrolled.token == patient.subject
