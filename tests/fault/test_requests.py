"""Requests that are replayed, altered, oversized, unsigned, foreign or late, sent to real nodes: each is refused with a
code and one line, never with a traceback, and none has an effect.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from careledger.access import (
    AccessMessage,
    AccessRequest,
    SignedRead,
    decode_access_answer,
    decode_access_message,
    decode_entry,
    encode_access_message,
)
from careledger.bench.world import now_ms
from careledger.client import Network, Patient, network_file
from careledger.consent import EventMessage
from careledger.custody import claimed_subject
from careledger.errors import Error, MalformedError, UnavailableError
from careledger.node import LocalNetwork
from careledger.records import encode_submission
from careledger.seal import Envelope, SigningKey, b64, decode, encode, envelope_message_id, sign, unb64

ROUTES = (
    "/v1/access",
    "/v1/submission",
    "/v1/consent",
    "/v1/consent/read",
    "/v1/document",
    "/v1/audit",
    "/v1/sync",
    "/witness/add-checkpoint",
    "/v1/directory/transaction",
    "/v1/directory/cosignature?size=1",
)
HOUR_MS = 3_600_000
ACCESS = 1


async def asked(scene: Any, chart: Any) -> tuple[Any, AccessMessage]:
    request = await scene.reader(scene.client()).request(chart.subject, chart.records, purpose="TREAT")
    return request, decode_access_message(request.message(content=True))


def entries_about(scene: Any, node: Any, subject: str) -> list[tuple[int, int]]:
    """(index, kind) of every entry about the subject: others of the shared network's patients may come any time."""
    query = "SELECT idx, kind FROM entries e JOIN subjects s ON s.id = e.subject WHERE s.token = ? ORDER BY 1"
    return scene.store(node).execute(query, (subject,)).fetchall()


def accesses(scene: Any, node: Any, subject: str) -> int:
    return sum(kind == ACCESS for _, kind in entries_about(scene, node, subject))


def resigned(message: AccessMessage, signer: Any, **changes: Any) -> bytes:
    """The message with fields of its request changed and signed by somebody."""
    payload = unb64(decode(message.request, Envelope).payload)
    request = msgspec.structs.replace(decode(payload, AccessRequest), **changes)
    envelope = encode(sign(AccessRequest.TYPE, encode(request), [signer]))
    return encode_access_message(msgspec.structs.replace(message, request=envelope))


def test_a_replayed_request_is_answered_from_the_first_entry_and_for_nobody_else(scene: Any) -> None:
    node = scene.local.nodes[0]

    async def attack() -> None:
        chart = await scene.chart(1)
        _, message = await asked(scene, chart)
        body = encode_access_message(message)
        first = decode_access_answer((await scene.network.wire.post(node.url, "/v1/access", body)).body)
        assert accesses(scene, node, chart.subject) == 1
        for _ in range(5):
            again = decode_access_answer((await scene.network.wire.post(node.url, "/v1/access", body)).body)
            assert again.receipt.body == first.receipt.body
            assert again.sealed != first.sealed, "sealed anew, to the key that the request names"
        assert accesses(scene, node, chart.subject) == 1, "no second entry"
        # After a revocation the same message is decided anew, as a denial.
        await chart.patient.revoke(chart.read_grant)
        answer = await scene.network.wire.post(node.url, "/v1/access", body)
        denied = decode_access_answer(answer.body)
        assert (answer.status, denied.denied, denied.sealed, denied.submissions) == (403, "revoked", b"", [])

    scene.run(attack())


def test_a_replayed_submission_and_event_have_no_second_effect(scene: Any, scenes: Any) -> None:
    node = scene.local.nodes[1]

    async def attack() -> None:
        chart = await scene.chart(0, read=False)
        body = encode_submission(scene.seal(await scene.plan(chart, 2)))
        receipts = set()
        for _ in range(3):
            answer = await scene.network.wire.post(node.url, "/v1/submission", body)
            receipts.add(msgspec.msgpack.decode(answer.body)[1])
        assert len(receipts) == 1
        count = "SELECT count(*) FROM records r JOIN subjects s ON s.id = r.subject WHERE s.token = ?"
        assert scene.store(node).execute(count, (chart.subject,)).fetchone() == (2,)
        events = msgspec.msgpack.encode(chart.patient.chain.messages)
        before = entries_about(scene, node, chart.subject)
        for _ in range(3):
            answer = await scene.network.wire.post(node.url, "/v1/consent", events)
            assert answer.status == 200
        assert entries_about(scene, node, chart.subject) == before

    scene.run(attack())


def test_requests_that_are_unsigned_or_signed_by_somebody_else_leave_no_trace_and_get_nothing(
    scene: Any, scenes: Any
) -> None:
    node = scene.local.nodes[2]

    async def attack() -> None:
        chart = await scene.chart(1)
        _, message = await asked(scene, chart)
        keys = scene.clinician.keys
        envelope = decode(message.request, Envelope)
        stranger = SigningKey(os.urandom(32))
        unsigned = encode_access_message(
            msgspec.structs.replace(message, request=encode(msgspec.structs.replace(envelope, signatures=[])))
        )
        for body, codes in (
            (unsigned, {"no-signature"}),
            (resigned(message, (keys.keyid, stranger)), {"bad-signature"}),
            (resigned(message, (scene.stranger.keys.keyid, scene.stranger.keys.signing)), {"wrong-signer"}),
            (resigned(message, ("cl1" + "q" * 46 + "#0", stranger)), {"unknown-key", "bad-token", "bad-keyid"}),
            (resigned(message, (keys.token + "#7", keys.signing)), {"unknown-key"}),
            (resigned(message, keys.signer, network="00" * 32), {"wrong-network"}),
            (resigned(message, keys.signer, time=now_ms() - HOUR_MS), {"stale-request"}),
            (resigned(message, keys.signer, time=now_ms() + HOUR_MS), {"stale-request"}),
            (resigned(message, keys.signer, key="00" * 32), {"wrong-key"}),
        ):
            answer = await scene.network.wire.post(node.url, "/v1/access", body)
            said = scenes.refused(answer)
            assert answer.status in (400, 403, 422)
            assert (said.code if said.code != "clock-off" else "stale-request") in codes, said
        assert accesses(scene, node, chart.subject) == 0, "what is not authenticated is counted, not logged"

    scene.run(attack())


def test_a_clock_that_is_an_hour_off_is_named_with_the_minutes(scene: Any) -> None:
    """Reader, patient and author: the one thing to say is by how much, whatever else the nodes refuse."""

    async def attack() -> None:
        chart = await scene.chart(1)
        for off_ms, words in ((HOUR_MS, "60 minutes ahead of"), (-HOUR_MS, "60 minutes behind")):
            network = scene.client(clock_off_ms=off_ms)
            with pytest.raises(UnavailableError) as reading:
                await scene.reader(network).open(chart.subject, chart.records, purpose="TREAT")
            patient: Patient = scene.patient(network, chart.patient)
            with pytest.raises(UnavailableError) as granting:
                await scene.world.let_read(patient, scene.stranger.keys.token, ["bills"])
            with pytest.raises(Error) as writing:
                await scene.add(chart, author=scene.writer(network))
            for refused in (reading, granting, writing):
                assert words in str(refused.value) or "clock-off" in str(refused.value), refused.value
            assert words in str(reading.value)
            assert reading.value.code == "clock-off"
            assert abs(reading.value.details["time"] - now_ms()) < 60_000, "the node's time comes with it"

    scene.run(attack())


def test_no_altered_byte_of_a_request_gets_anything_or_breaks_a_node(scene: Any) -> None:
    node = scene.local.nodes[3]
    rng = random.Random(7)

    async def attack() -> None:
        chart = await scene.chart(1)
        request, message = await asked(scene, chart)
        submission = encode_submission(scene.seal(await scene.plan(chart)))
        events = msgspec.msgpack.encode(chart.patient.chain.messages[-1:])
        for path, body, count in (
            ("/v1/access", encode_access_message(message), 150),
            ("/v1/submission", submission, 120),
            ("/v1/consent", events, 80),
        ):
            for _ in range(count):
                changed = bytearray(body)
                changed[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
                answer = await scene.network.wire.post(node.url, path, bytes(changed))
                if answer.status == 200:
                    # Only an unsigned hint, or what the node does not need, may change and be accepted.
                    assert path != "/v1/access" or request.id.hex() in entry_ids(answer.body)
                    continue
                assert answer.status in (400, 403, 404, 409, 422), answer.body[:200]
                if answer.headers["content-type"] == "application/json":
                    assert {"code", "message", "details", "time"} == set(msgspec.json.decode(answer.body))
        assert (await scene.health(node))["status"] == "ok"

    scene.run(attack())
    assert b'"bug"' not in (node.folder / "node.log").read_bytes()
    assert b"Traceback" not in (node.folder / "node.log").read_bytes()


@pytest.mark.parametrize(
    "payload", [b"\xff", b'{"subject":"\xff"}', b'{"\xff":1}', b'{"subject":7}', b"[]", b"", b"[" * 10_000, b'{"v":1}']
)
def test_a_consent_event_with_a_foreign_payload_is_malformed_wherever_it_comes_from(payload: bytes) -> None:
    """From a client or a peer: looked at before its signature can be, since it says whose signature it needs."""
    envelope = encode(
        Envelope(payload=b64(payload), payloadType="application/vnd.careledger.consent+json", signatures=[])
    )
    with pytest.raises(MalformedError):
        claimed_subject(EventMessage(envelope=envelope, boxes=[]))


def entry_ids(body: bytes) -> list[str]:
    entry = decode_entry(decode_access_answer(body).receipt.body)
    return [envelope_message_id(envelope).hex() for envelope in entry.envelopes]


@pytest.mark.parametrize("path", ROUTES)
def test_garbage_on_every_route_is_refused_in_one_line(scene: Any, path: str) -> None:
    node = scene.local.nodes[0]
    rng = random.Random(path)
    deep = b"\x91" * 5000 + b"\xc0"
    bodies = [
        b"",
        b"\xc1",
        b"\x00" * 100,
        b"{}",
        b"[]",
        b"[" * 20_000,
        deep,
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b'{"payload":"","payloadType":"","signatures":[]}',
        *(rng.randbytes(rng.randrange(1, 3000)) for _ in range(30)),
        msgspec.msgpack.encode(SignedRead(request=b"{}")),
        msgspec.msgpack.encode([["x"] * 3] * 3),
        "old 0\n\nnot a note — at all".encode(),
    ]

    async def attack() -> None:
        for body in bodies:
            answer = await scene.network.wire.post(node.url, path, body)
            if answer.status == 200 and "transaction" in path:
                # What is an envelope gets as far as the directory's rules, whose refusals are results.
                assert b'"unknown-type"' in answer.body
                continue
            assert 400 <= answer.status < 500, (body[:40], answer.status, answer.body[:200])
            if answer.status == 409:
                continue
            said = msgspec.json.decode(answer.body)
            assert said["code"] not in ("bug", "") and "\n" not in said["message"]

    scene.run(attack())
    assert b"Traceback" not in (node.folder / "node.log").read_bytes()


def test_oversized_bodies_are_refused_before_they_are_read(scene: Any) -> None:
    """Declared too large, not declared at all, and larger than declared: the node keeps nothing of it in memory."""
    node = scene.local.nodes[1]
    host, port = node.url.removeprefix("http://").split(":")

    async def exchange(head: str, chunks: int) -> bytes:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head.encode())
        piece = b"x" * 65_536
        try:
            for _ in range(chunks):
                writer.write(b"10000\r\n" + piece + b"\r\n" if "chunked" in head else piece)
                await writer.drain()
        except ConnectionError:
            pass
        try:
            async with asyncio.timeout(20):
                return await reader.read(4096)
        finally:
            writer.close()

    async def attack() -> None:
        for path in ("/v1/access", "/v1/submission", "/v1/directory/transaction"):
            declared = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {1 << 40}\r\n\r\n"
            assert b" 400 " in (await exchange(declared, 1)) or b" 413 " in (await exchange(declared, 1))
            chunked = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
            answer = await exchange(chunked, 500)
            assert b"too-large" in answer or answer == b"" or b" 413 " in answer or b" 411 " in answer
        assert (await scene.health(node))["status"] == "ok"

    scene.run(attack())
    assert b"Traceback" not in (node.folder / "node.log").read_bytes()


def test_a_client_of_another_network_gets_nothing(scene: Any, scenes: Any, tmp_path: Any) -> None:
    """The network's name is the hash of its genesis: a client that knows another genesis can't be talked into this."""

    async def attack() -> None:
        chart = await scene.chart(1)
        elsewhere = LocalNetwork.found(tmp_path / "elsewhere", now_ms=now_ms())
        urls = {other.token: node.url for other, node in zip(elsewhere.nodes, scene.local.nodes, strict=True)}
        wire = scenes.FaultyWire()
        network = Network.from_file(network_file(elsewhere.genesis, urls), wire=wire, now_ms=now_ms, rand=os.urandom)
        with pytest.raises(Error) as refused:
            await scene.reader(network).open(chart.subject, chart.records, purpose="TREAT")
        assert refused.value.code in ("directory-unreachable", "unknown-identity", "not-enough-cosignatures")
        await wire.close()

    scene.run(attack())


@pytest.mark.parametrize(
    "change", [lambda body: body[: len(body) // 2], lambda body: body + b"\x00"], ids=["cut", "longer"]
)
def test_cut_and_lengthened_messages_are_refused(scene: Any, change: Callable[[bytes], bytes]) -> None:
    async def attack() -> None:
        chart = await scene.chart(1)
        _, message = await asked(scene, chart)
        for node in scene.local.nodes:
            answer = await scene.network.wire.post(node.url, "/v1/access", change(encode_access_message(message)))
            assert (answer.status, msgspec.json.decode(answer.body)["code"]) == (400, "bad-access-message")

    scene.run(attack())
