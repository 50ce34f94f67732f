"""Trust row 3: a reader with a grant can't get shares without an entry in the log of each custodian that gave one,
nor have them released for somebody else's request, subject or submission.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from typing import Any

import msgspec
import pytest

from careledger.access import decode_access_answer
from careledger.errors import Error, UnavailableError
from careledger.records import Manifest, encode_submission
from careledger.records.locks import Lock, decode_lock, decode_shares, encode_lock, encode_shares, lock_info
from careledger.seal import SealingKey, decode, encode, unb64


class _Index(msgspec.Struct):
    index: int


def test_a_custodian_that_cannot_write_its_log_releases_no_share(new_scene: Any, scenes: Any) -> None:
    """Another process holds the database's write lock: requests are decided, but the entry can't be made durable."""
    scene = new_scene()
    chart = scene.run(scene.chart(2))
    before = scene.run(scene.open(chart))
    assert not before.faults
    blocked = scene.local.nodes[:2]
    held = []
    for node in blocked:
        lock = sqlite3.connect(node.folder / "store" / "main.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        held.append(lock)

    async def attack() -> None:
        wire = scenes.FaultyWire(timeout_s=30.0)
        reader = scene.reader(scene.client(wire))
        with pytest.raises(UnavailableError) as refused:
            await reader.open(chart.subject, chart.records, purpose="TREAT")
        assert refused.value.code == "not-enough-custodians"
        assert refused.value.details["found"] == 2
        nodes = refused.value.details["nodes"]
        assert {nodes[node.token] for node in blocked} == {"store-failed"}

    scene.run(attack())
    for node in blocked:
        assert len(scenes.entries_about(scene.store(node), chart.subject)) == _opens(scene, scenes, node, chart)
    for lock in held:
        lock.execute("ROLLBACK")
        lock.close()
    again = scene.run(scene.open(chart))
    assert len(again.records) == 2


def _opens(scene: Any, scenes: Any, node: Any, chart: Any) -> int:
    """Entries of one node about a subject, as its database has them: what could not be committed is not there."""
    entries = scenes.entries_about(scene.store(node), chart.subject)
    assert all(body["decision"] == "allow" for _, body in entries)
    return len(entries)


def test_killed_between_log_and_reply_a_custodian_has_the_entry_of_every_share_it_sent(
    new_scene: Any, scenes: Any
) -> None:
    """SIGKILL as soon as the entry can be seen on the disk: before, while or after the reply leaves."""
    scene = new_scene()
    chart = scene.run(scene.chart(1))
    node = scene.local.nodes[2]
    replied = lost = 0

    async def round_() -> bool:
        reader = scene.reader(scene.client(scenes.FaultyWire()))
        request = await reader.request(chart.subject, chart.records, purpose="TREAT")
        body = request.message(content=False)
        store = scene.store(node)
        size = store.execute("SELECT size FROM log").fetchone()[0]
        store.close()
        sending = asyncio.create_task(scene.network.wire.post(node.url, "/v1/access", body))
        killing = asyncio.create_task(asyncio.to_thread(_kill_when_logged, node, size))
        await killing
        try:
            answer = await sending
        except UnavailableError:
            answer = None
        node.process = None
        store = scene.store(node)
        found = [
            index
            for index, entry in scenes.entries_about(store, chart.subject)
            if entry["envelopes"][0]["payload"] == decode_payload(request.envelope)
        ]
        store.close()
        assert len(found) == 1, "the node was killed when its entry was on disk"
        node.start()
        await scene.local.wait_until_serving()
        again = decode_access_answer((await scene.network.wire.post(node.url, "/v1/access", body)).body)
        assert again.denied is None
        assert msgspec.json.decode(again.receipt.body, type=_Index).index == found[0], (
            "answered again, not logged again"
        )
        if answer is None:
            return False
        released = decode_access_answer(answer.body)
        assert released.receipt.body == again.receipt.body
        return True

    for _ in range(6):
        if scene.run(round_()):
            replied += 1
        else:
            lost += 1
    assert replied + lost == 6
    trail = scene.run(scene.trail(chart))
    assert len({access.request for access in trail.accesses}) >= 6, "every one of these requests is in the trail"


def decode_payload(envelope: bytes) -> str:
    payload: str = msgspec.json.decode(envelope)["payload"]
    return payload


def _kill_when_logged(node: Any, size: int) -> None:
    """Look at the database from outside until its log has grown, then kill."""
    store = sqlite3.connect(f"file:{node.folder / 'store' / 'main.db'}?mode=ro", uri=True)
    for _ in range(1_000_000):
        if store.execute("SELECT size FROM log").fetchone()[0] > size:
            break
    node.process.kill()
    node.process.wait()
    store.close()


def test_a_client_that_hangs_up_before_the_answer_is_in_the_trail_all_the_same(scene: Any, scenes: Any) -> None:
    chart = scene.run(scene.chart(1))

    async def attack() -> Any:
        reader = scene.reader(scene.client())
        request = await reader.request(chart.subject, chart.records, purpose="TREAT")
        body = request.message(content=True)
        for node in scene.local.nodes:
            host, port = node.url.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            head = f"POST /v1/access HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        async def logged() -> Any:
            trail = await scene.trail(chart)
            return trail if any(access.request == request.id.hex() for access in trail.accesses) else None

        return await scene.until(logged, "the request in the trail"), request

    trail, request = scene.run(attack())
    (access,) = [access for access in trail.accesses if access.request == request.id.hex()]
    assert access.allowed


# Laundering: the shares of a victim's record, released for another subject, submission or request.


def test_the_victims_locks_and_commitments_are_refused_in_the_thiefs_own_submission(scene: Any, scenes: Any) -> None:
    """The thief writes for a subject who lets it read everything: what is released there is its own."""
    thief = scene.clinician

    async def attack() -> None:
        victim, accomplice = await scene.chart(1, read=False), await scene.chart(0, read=False)
        await scene.world.let_write(accomplice.patient, thief.staff.organisation)
        stolen = scene.seal(await scene.plan(victim))
        assert (await send(stolen)).status == 200
        own = scene.seal(await scene.plan(accomplice, clinician=thief), clinician=thief)
        release = [data for data in stolen.locks if decode_lock(data).use == "release"]
        rest = [data for data in own.locks if decode_lock(data).use != "release"]
        copied = _with_fields(own, stolen, "shares", "ciphertext_hash", "ciphertext_length", "content_root")
        renamed = _with_fields(own, stolen, "record", "shares", "ciphertext_hash", "ciphertext_length", "content_root")
        for what, code in (
            ({"manifests": copied, "ciphertexts": stolen.ciphertexts, "locks": [*rest, *release]}, "bad-share"),
            ({"manifests": copied, "ciphertexts": stolen.ciphertexts}, "bad-share"),
            ({"manifests": renamed, "ciphertexts": stolen.ciphertexts}, "bad-record-id"),
            ({"locks": [*rest, *release]}, "bad-share"),
        ):
            forged = scene.forge(own, clinician=thief, **what)
            assert await codes(forged) == {code}
        # Another signature on the victim's submission: the boxes are bound to the author too.
        assert await codes(scene.forge(stolen, clinician=thief, author=thief.keys.keyid)) <= {"bad-share", "bad-root"}

    async def send(submission: Any, node: Any = None) -> Any:
        url = (node or scene.local.nodes[0]).url
        return await scene.network.wire.post(url, "/v1/submission", encode_submission(submission))

    async def codes(submission: Any) -> set[str]:
        answers = [await send(submission, node) for node in scene.local.nodes]
        return {scenes.refused(answer).code for answer in answers}

    scene.run(attack())


def _with_fields(own: Any, stolen: Any, *names: str) -> list[bytes]:
    """The thief's manifest with fields of the victim's."""
    victim = decode(stolen.manifests[0], Manifest)
    changes = {name: getattr(victim, name) for name in names}
    return [encode(msgspec.structs.replace(decode(own.manifests[0], Manifest), **changes))]


def test_a_victims_record_is_not_released_in_a_request_about_another_subject(scene: Any) -> None:
    async def attack() -> None:
        victim, accomplice = await scene.chart(1, read=False), await scene.chart(1)
        for records in (victim.records, [*accomplice.records, *victim.records]):
            with pytest.raises(Error) as refused:
                await scene.clinician.reader.open(accomplice.subject, records, purpose="TREAT")
            assert refused.value.code == "out-of-scope"
        with pytest.raises(Error) as refused:
            await scene.clinician.reader.open(victim.subject, victim.records, purpose="TREAT")
        assert refused.value.code == "no-grant"
        assert len((await scene.open(accomplice)).records) == 1

    scene.run(attack())


def test_shares_are_sealed_to_the_key_that_the_logged_request_names(scene: Any, scenes: Any) -> None:
    """Somebody on the wire who swaps the fresh key gets nothing: its hash is in the signed request."""

    async def attack() -> None:
        chart = await scene.chart(1)
        request = await scene.reader(scene.client()).request(chart.subject, chart.records, purpose="TREAT")
        mine = SealingKey(os.urandom(32))
        swapped = msgspec.structs.replace(request, key=mine).message(content=False)
        for node in scene.local.nodes:
            answer = await scene.network.wire.post(node.url, "/v1/access", swapped)
            assert scenes.refused(answer).code == "wrong-key"

    scene.run(attack())


def test_a_release_lock_with_the_victims_share_inside_is_refused_at_arrival(scene: Any, scenes: Any) -> None:
    """Even a thief that knows a victim's share can't have a custodian keep it under the thief's record."""
    thief, node = scene.clinician, scene.local.nodes[0]

    async def attack() -> None:
        victim, accomplice = await scene.chart(0, read=False), await scene.chart(0, read=False)
        await scene.world.let_write(accomplice.patient, thief.staff.organisation)
        custodians = await scene.network.custodian_keys((await scene.network.subject(accomplice.subject)).custodians)
        stolen = scene.seal(await scene.plan(victim))
        own = scene.seal(await scene.plan(accomplice, clinician=thief), clinician=thief)
        place = next(at for at, (keyid, _) in enumerate(custodians) if keyid.startswith(node.token))
        keyid, key = custodians[place]
        secret = SealingKey(unb64(scene.secrets(node).secrets.sealing))
        theirs = next(one for one in map(decode_lock, stolen.locks) if one.use == "release" and one.to == keyid)
        box = secret.open(theirs.box, info=lock_info(scenes.statement_of(stolen), "release", to=keyid))
        share = decode_shares(box)[0][2]
        mine = decode(own.manifests[0], Manifest)
        rows = [(bytes.fromhex(mine.record), bytes.fromhex(mine.compartment), share)]
        info = lock_info(scenes.statement_of(own), "release", to=keyid)
        planted = Lock("release", None, None, keyid, key.seal(encode_shares(rows), info=info))
        locks = [encode_lock(planted) if decode_lock(data).to == keyid else data for data in own.locks]
        manifests = _with_fields(own, stolen, "shares")
        forged = scene.forge(own, clinician=thief, locks=locks, manifests=manifests)
        answer = await scene.network.wire.post(node.url, "/v1/submission", encode_submission(forged))
        assert scenes.refused(answer).code == "bad-share"

    scene.run(attack())
