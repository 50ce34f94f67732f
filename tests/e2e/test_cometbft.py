"""A whole network whose directory CometBFT orders: four nodes as an operator runs them, each with its own engine."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from careledger.client import Network
from careledger.directory import LightBlock, LightProof, StateProof
from careledger.directory.engines.cometbft.install import install_engine
from careledger.errors import Error, UnavailableError
from careledger.identity import new_person
from careledger.seal import encode
from careledger.verify import verify_directory_proof, verify_network_folder

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """CometBFT, built once for all tests of this checkout, on PATH."""
    built = install_engine(cache=ROOT / ".cache" / "engine")
    place = tmp_path_factory.mktemp("bin")
    (place / "cometbft").symlink_to(built)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{place}{os.pathsep}{before}"
    yield built
    os.environ["PATH"] = before


def test_the_demo_holds_as_with_the_embedded_engine(engine: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from careledger.cli import main; main()"]
    story = [*command, "demo", "--check", "--engine", "cometbft", "--folder", "kept"]
    done = subprocess.run(story, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["engine"] == "cometbft"
    assert facts["bytes_equal"] and facts["audit_complete"] and facts["tamper_detected"] and facts["resigned_detected"]
    assert facts["plaintext_on_disk"] == 0
    assert (facts["refused_without_grant"], facts["refused_after_revocation"]) == ("no-grant", "revoked")
    checked = subprocess.run([*command, "verify", "kept"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("verified: log") == 4
    # A block of the directory is changed on one node's disk.
    database = sqlite3.connect(tmp_path / "kept" / "node-2" / "directory" / "directory.db")
    with database:
        database.execute("UPDATE blocks SET data = CAST(replace(data, ?, ?) AS BLOB)", (b"licensor", b"provider"))
        database.execute("UPDATE blocks SET data = CAST(replace(data, ?, ?) AS BLOB)", (b'"time":1', b'"time":2'))
    database.close()
    refused = subprocess.run([*command, "verify", "kept"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert refused.returncode == 1
    assert "node-2" in refused.stderr


@pytest.fixture
def scene(engine: Path, new_scene: Any) -> Any:
    return new_scene(engine="cometbft")


async def engine_of(scene: Any, node: Any) -> dict[str, Any]:
    answer = await scene.network.wire.get(node.url, "/v1/directory/head")
    found: dict[str, Any] = msgspec.json.decode(answer.body)
    return found


async def agreed(scene: Any) -> bool:
    heads = [await engine_of(scene, node) for node in scene.local.nodes]
    return len({(head["height"], head["app_hash"]) for head in heads}) == 1


def test_a_proof_file_is_verified_with_the_genesis_alone(scene: Any) -> None:
    async def proof(token: str) -> bytes:
        shown = await scene.network.directory_proof("identity", token)
        return encode(LightProof(v=1, proof=shown.proof, blocks=shown.blocks))

    known = scene.run(proof(scene.clinician.keys.token))
    genesis, network = scene.local.genesis, scene.local.network
    assert verify_directory_proof(known, genesis=genesis, network=network).value is not None
    absent = scene.run(proof("cl1" + "q" * 46))
    assert verify_directory_proof(absent, genesis=genesis).value is None
    rng = random.Random(1)
    for at in rng.sample(range(len(known)), 60):
        changed = bytearray(known)
        changed[at] ^= 1 << rng.randrange(8)
        with pytest.raises(Error):
            verify_directory_proof(bytes(changed), genesis=genesis, network=network)
    # A node that shows another state than the validators committed is not believed.
    shown = msgspec.json.decode(known, type=dict[str, Any])
    forged = LightProof(
        v=1,
        proof=msgspec.structs.replace(msgspec.convert(shown["proof"], StateProof), value=msgspec.UNSET),
        blocks=msgspec.convert(shown["blocks"], list[LightBlock]),
    )
    with pytest.raises(Error):
        verify_directory_proof(encode(forged), genesis=genesis)


def test_one_of_four_nodes_is_killed_and_comes_back(scene: Any) -> None:
    gone = scene.local.nodes[1]

    async def story() -> None:
        before = await scene.chart(1)
        gone.kill()
        after = await scene.chart(0, read=False)
        assert after.subject != before.subject
        opened = await scene.open(before)
        assert len(opened.records) == 1

    scene.run(story())
    scene.restart(gone)

    async def relayed() -> None:
        """What another node's outbox hands over is judged like everything else, and kept by nobody."""
        said = []
        for body in (b"{}", b"[]", b"no envelope"):
            answer = await scene.network.wire.post(gone.url, "/v1/directory/relay", body, content="application/json")
            said.append((answer.status, msgspec.json.decode(answer.body)["code"]))
        assert all(status == 400 for status, _ in said), said

    scene.run(relayed())

    async def caught_up() -> None:
        await scene.until(lambda: agreed(scene), "one height and one app hash at all four")
        chart = await scene.chart(1)
        assert len((await scene.open(chart)).records) == 1
        await scene.until_published()

    scene.run(caught_up())
    scene.local.stop()
    verify_network_folder(scene.folder, network=scene.local.network)
    assert all(b"Traceback" not in (node.folder / "node.log").read_bytes() for node in scene.local.nodes)


def test_with_two_engines_down_writes_wait_and_opens_go_on(scene: Any) -> None:
    """Two of four engines stand still, their nodes run: nothing new is decided, and what was granted opens."""

    async def story() -> None:
        chart = await scene.chart(1)
        stopped = [(await engine_of(scene, node))["engine"]["pid"] for node in scene.local.nodes[2:]]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            opened = await scene.open(chart, reader=scene.reader(scene.client()))
            assert len(opened.records) == 1
            with pytest.raises(UnavailableError) as waiting:
                await transact(scene.network, scene)
            assert "directory-waits" in str(waiting.value)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        await scene.until(lambda: agreed(scene), "one height and one app hash at all four")
        assert len((await scene.chart(1)).records) == 1

    scene.run(story())


async def transact(network: Network, scene: Any) -> None:
    """Put one more identity before one node alone."""
    person = new_person(custodians=[node.token for node in scene.local.nodes], rand=os.urandom)
    async with asyncio.timeout(30):
        answer = await network.wire.post(
            scene.local.nodes[0].url,
            "/v1/directory/transaction",
            encode([person.envelope]),
            content="application/json",
            timeout_s=25.0,
        )
    assert answer.status == 503, answer.body
    said = msgspec.json.decode(answer.body, type=dict[str, Any])
    raise UnavailableError(said["code"], said["message"])
