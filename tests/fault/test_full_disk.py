"""A node whose disk is full refuses what it would have to write, goes on serving what it need not, and recovers.

Two ways to have a full disk: a limit on file sizes laid on the running process (every write beyond it fails), and a
small file system of its own, filled to the last byte, where the operating system lets a test have one.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from careledger.errors import UnavailableError
from careledger.records import encode_submission
from careledger.verify import verify_node_folder


async def refused_everywhere(scene: Any, scenes: Any, chart: Any, full: Any) -> None:
    """What a full node says to everybody who wants something written; the others go on without it."""
    reader = scene.reader(scene.client())
    request = await reader.request(chart.subject, chart.records, purpose="TREAT")
    post = scene.network.wire.post
    submission = encode_submission(scene.seal(await scene.plan(chart)))
    for _ in range(3):
        for path, body in (("/v1/access", request.message(content=True)), ("/v1/submission", submission)):
            answer = await post(full.url, path, body)
            said = scenes.refused(answer)
            assert (answer.status, said.code) == (503, "disk-full"), said
            assert answer.headers["retry-after"]
            assert "nothing was kept" in said.message
    health = await scene.health(full)
    assert health["status"] == "disk-full"
    assert "free space" in health["todo"]
    opened = await scene.open(chart, reader=reader)
    assert len(opened.records) == len(chart.records)
    done = await scene.add(chart, 1, safe=False)
    assert (done.kept, done.readable, done.safe) == (1, 1, 0)
    assert {code.code for sent in done.sent for code in sent.failures.values()} == {"disk-full"}
    published = await chart.patient.revoke(chart.read_grant)
    assert published.effective and set(published.failures) == {full.token}
    chart.read_grant = await scene.world.let_read(chart.patient, scene.clinician.staff.organisation)


async def reads_go_on(scene: Any, full: Any) -> None:
    for path in ("/health", "/log/checkpoint", "/v1/directory/head", "/metrics", "/openapi.json"):
        answer = await scene.network.wire.get(full.url, path)
        assert answer.status == 200, path
    identity = await scene.network.wire.get(full.url, f"/v1/directory/identity/{scene.clinician.keys.token}")
    assert identity.status == 200


async def recovers(scene: Any, scenes: Any, chart: Any, full: Any) -> None:
    """By itself: the next write succeeds, what was missed comes from the peers, the log is in order."""

    async def writes() -> bool:
        reader = scene.reader(scene.client())
        reader.ask_all = True
        opened = await scene.open(chart, reader=reader)
        return full.token in opened.receipts and not opened.faults

    await scene.until(writes, "a release by the node that was full")
    await scene.until_status(full, "ok")

    async def has_everything() -> bool:
        query = "SELECT count(*) FROM records r JOIN subjects s ON s.id = r.subject WHERE s.token = ?"
        counts = [scene.store(node).execute(query, (chart.subject,)).fetchone() for node in scene.local.nodes]
        return len(set(counts)) == 1

    await scene.until(has_everything, "the records that came while the disk was full")
    await scene.until_published()


def verified(scene: Any, node: Any) -> None:
    others = [other.folder for other in scene.local.nodes if other is not node]
    verify_node_folder(node.folder, others=others, network=scene.local.network)
    assert b"Traceback" not in (node.folder / "node.log").read_bytes()
    assert b'"bug"' not in (node.folder / "node.log").read_bytes()


def test_with_a_limit_on_file_sizes_a_node_refuses_writes_serves_reads_and_recovers(
    new_scene: Any, scenes: Any
) -> None:
    scene = new_scene()
    full = scene.local.nodes[2]
    chart = scene.run(scene.chart(1))
    scene.run(scene.until_published([full]))
    before = resource.prlimit(full.process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    scene.run(refused_everywhere(scene, scenes, chart, full))
    scene.run(reads_go_on(scene, full))
    resource.prlimit(full.process.pid, resource.RLIMIT_FSIZE, before)
    scene.run(recovers(scene, scenes, chart, full))
    scene.local.stop()
    verified(scene, full)


def test_a_node_killed_while_its_disk_is_full_comes_back_with_everything_it_acknowledged(
    new_scene: Any, scenes: Any
) -> None:
    scene = new_scene()
    full = scene.local.nodes[1]
    chart = scene.run(scene.chart(1))
    resource.prlimit(full.process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    size = scene.store(full).execute("SELECT size FROM log").fetchone()[0]

    async def knock() -> None:
        reader = scene.reader(scene.client())
        request = await reader.request(chart.subject, chart.records, purpose="TREAT")
        with pytest.raises(UnavailableError):
            raise scenes.refused(await scene.network.wire.post(full.url, "/v1/access", request.message(content=True)))

    scene.run(knock())
    full.kill()
    assert scene.store(full).execute("SELECT size FROM log").fetchone()[0] == size
    scene.restart(full)
    scene.run(recovers(scene, scenes, chart, full))
    scene.local.stop()
    verified(scene, full)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    place = tmp_path / "network-0" / "node-4"
    place.mkdir(parents=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no file system may be mounted here ({made.stderr.strip()}); the limit on file sizes is tested")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_on_a_small_file_system_filled_to_the_last_byte(small_disk: Path, new_scene: Any, scenes: Any) -> None:
    scene = new_scene()
    full = scene.local.nodes[3]
    assert full.folder == small_disk
    chart = scene.run(scene.chart(1))
    ballast = small_disk / "ballast"

    def fill() -> None:
        handle = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    os.write(handle, b"\xbb" * size)
            except OSError:
                continue
        os.close(handle)

    async def story() -> None:
        await scene.until_published([full])
        # The write-ahead log was grown beforehand: write until its room is used up.
        fill()
        reader = scene.reader(scene.client())

        async def refuses() -> bool:
            submission = encode_submission(scene.seal(await scene.plan(chart, 40)))
            answer = await scene.network.wire.post(full.url, "/v1/submission", submission)
            if answer.status == 200:
                fill()
                return False
            return scenes.refused(answer).code == "disk-full"

        await scene.until(refuses, "a refusal by the full node")
        await reads_go_on(scene, full)
        opened = await scene.open(chart, reader=reader)
        assert len(opened.records) == 1
        ballast.unlink()
        await recovers(scene, scenes, chart, full)

    scene.run(story())
    scene.local.stop()
    verified(scene, full)
