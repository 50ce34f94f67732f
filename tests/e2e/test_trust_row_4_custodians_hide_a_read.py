"""Trust row 4: a reader and t−1 custodians together can't hide a read, and a trail says what it does not cover."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from careledger.access import AuditAnswer, decode_entry
from careledger.client import MemoryState, audit
from careledger.custody.shelf import RecordRow, Shelf
from careledger.custody.store import Store
from careledger.errors import Error, UnavailableError
from careledger.records import claimed_author, decode_view, open_record, open_records, verify_view
from careledger.seal import envelope_message_id
from careledger.transport import Answer

COLUMNS = "entry, record, submission, position, compartment, epoch, recorded, author, manifest_at, manifest_length"
T = 3


def stolen_shares(node: Any, records: list[bytes]) -> dict[bytes, bytes]:
    """What a custodian with a second set of software takes from its own disk without logging anything."""
    store = Store(node.folder / "store")
    shelf = Shelf(store)
    rows = [RecordRow(*row) for row in store.reading.execute(f"SELECT {COLUMNS} FROM records")]
    found = {row.record_id: shelf.share(row) for row in rows if row.record_id in records}
    store.close()
    return found


def test_two_custodians_that_log_nothing_need_an_honest_one_and_it_has_the_request(scene: Any) -> None:
    """n = 4, t = 3: the liars hand the reader their shares straight from the disk."""
    liars, honest = scene.local.nodes[:2], scene.local.nodes[2]

    async def attack() -> None:
        chart = await scene.chart(1)
        (record,) = chart.records
        reader = scene.reader(scene.client())
        places = {node.token: at for at, node in enumerate((await scene.network.subject(chart.subject)).custodians, 1)}
        shares = {places[node.token]: stolen_shares(node, chart.records) for node in liars}
        request = await reader.request(chart.subject, chart.records, purpose="TREAT")
        node = next(one for one in reader.network.nodes.values() if one.token == honest.token)
        release = await reader.ask(node, request, content=True)
        view = decode_view(release.submissions[0])
        key = await scene.network.verify_key(claimed_author(view.envelope))
        content = verify_view(view, network=scene.network.id, author_key=key, subject=chart.subject)
        (one,) = content.records
        place = (one.manifest.compartment, one.manifest.epoch)
        seed = (await reader.grants(chart.subject)).compartment_key(*place)
        secrets = {place: content.open_consent_lock(*place, seed)}
        with_two = open_records(content.records, shares=shares, threshold=T, secrets=secrets)
        assert [error.code for _, error in with_two.failed] == ["not-enough-shares"]
        pretending = open_records(content.records, shares=shares, threshold=T - 1, secrets=secrets)
        assert [error.code for _, error in pretending.failed] == ["bad-seal"], "two shares are not the key"
        shares[places[honest.token]] = dict(release.shares)
        opened = open_record(one, shares=shares, threshold=T, secrets=secrets)
        assert {(resource.full_url, resource.data) for resource in opened.resources} == chart.came, "the attack reads"

        await scene.until_published()
        trail = await scene.trail(chart)
        (access,) = [one for one in trail.accesses if one.request == request.id.hex()]
        assert set(access.nodes) == {honest.token}, "only the honest one has it, and that is enough"
        assert access.reader == scene.clinician.keys.token and access.records == [record.hex()]
        assert trail.complete

    scene.run(attack())


def drop(request: str) -> Callable[..., Awaitable[Answer]]:
    """A custodian that leaves one request out when the subject asks who read."""

    async def lie(path: str, body: bytes, honest: Callable[[], Awaitable[Answer]]) -> Answer:
        answer = await honest()
        if path != "/v1/audit" or answer.status != 200:
            return answer
        said = msgspec.msgpack.decode(answer.body, type=AuditAnswer)
        kept = [entry for entry in said.entries if request not in ids(entry.body)]
        assert len(kept) < len(said.entries)
        changed = msgspec.structs.replace(said, entries=kept)
        return Answer(200, msgspec.msgpack.encode(changed), answer.headers)

    return lie


def ids(body: bytes) -> list[str]:
    return [envelope_message_id(envelope).hex() for envelope in decode_entry(body).envelopes]


@pytest.mark.parametrize("liars", [(0, 1), (1, 3), (2, 3)], ids=str)
def test_a_read_that_two_custodians_drop_from_their_answers_is_in_the_trail(
    scene: Any, scenes: Any, liars: tuple[int, int]
) -> None:
    async def attack() -> None:
        chart = await scene.chart(1)
        opened = await scene.open(chart)
        await scene.until_published()
        truth = await scene.trail(chart)
        assert truth.complete and not truth.missing
        wire = scenes.FaultyWire()
        logged = next(access for access in truth.accesses if access.request == opened.request).nodes
        false = [scene.local.nodes[at] for at in liars]
        wire.faults = {node.url: drop(opened.request) for node in false if node.token in logged}
        assert wire.faults, "t of n logged it, so at least one of two liars did"
        trail = await scene.trail(chart, network=scene.client(wire))
        (access,) = [one for one in trail.accesses if one.request == opened.request]
        assert set(access.nodes) == set(logged) - {node.token for node in false}

    scene.run(attack())


def test_a_trail_is_complete_only_when_all_n_answered_and_names_who_is_missing(scene: Any, scenes: Any) -> None:
    silent, garbled, refusing = scene.local.nodes[:3]

    async def no_answer(*_: Any) -> Answer:
        raise UnavailableError("no-answer", f"{silent.url} did not answer in time")

    async def garbage(path: str, body: bytes, honest: Any) -> Answer:
        return Answer(200, b"\xc1 this is not an audit answer", {"content-type": "application/msgpack"})

    async def refuse(path: str, body: bytes, honest: Any) -> Answer:
        return Answer(503, b"<html>Bad gateway</html>", {"content-type": "text/html"})

    async def attack() -> None:
        chart = await scene.chart(1)
        opened = await scene.open(chart)
        await scene.until_published()
        wire = scenes.FaultyWire()
        network = scene.client(wire)
        assert (await scene.trail(chart, network=network)).complete
        wire.faults = {silent.url: no_answer}
        one = await scene.trail(chart, network=network)
        assert not one.complete
        assert {node: error.code for node, error in one.missing.items()} == {silent.token: "no-answer"}
        assert any(access.request == opened.request for access in one.accesses)
        wire.faults |= {garbled.url: garbage, refusing.url: refuse}
        three = await scene.trail(chart, network=network)
        assert not three.complete
        assert {node: error.code for node, error in three.missing.items()} == {
            silent.token: "no-answer",
            garbled.token: "garbage-answer",
            refusing.token: "garbage-answer",
        }

    scene.run(attack())


def test_an_entry_that_a_custodian_alters_or_invents_does_not_prove_itself(scene: Any, scenes: Any) -> None:
    """Its share of the trail is struck out and it is named: entries are proven under a cosigned checkpoint."""
    liar = scene.local.nodes[1]

    def altering(change: Callable[[AuditAnswer], AuditAnswer]) -> Callable[..., Awaitable[Answer]]:
        async def lie(path: str, body: bytes, honest: Callable[[], Awaitable[Answer]]) -> Answer:
            answer = await honest()
            if path != "/v1/audit":
                return answer
            said = change(msgspec.msgpack.decode(answer.body, type=AuditAnswer))
            return Answer(200, msgspec.msgpack.encode(said), answer.headers)

        return lie

    def other_reader(said: AuditAnswer) -> AuditAnswer:
        first, *rest = said.entries
        body = first.body.replace(b'"decision":"allow"', b'"decision":"deny"').replace(b'"allow"', b'"deny"')
        assert body != first.body
        return msgspec.structs.replace(said, entries=[msgspec.structs.replace(first, body=body), *rest])

    def moved(said: AuditAnswer) -> AuditAnswer:
        first, *rest = said.entries
        return msgspec.structs.replace(said, entries=[msgspec.structs.replace(first, index=first.index + 1), *rest])

    def uncosigned(said: AuditAnswer) -> AuditAnswer:
        text, _, lines = said.checkpoint.partition(b"\n\n")
        return msgspec.structs.replace(said, checkpoint=text + b"\n\n" + lines.split(b"\n")[0] + b"\n")

    async def attack() -> None:
        chart = await scene.chart(1)
        scene.clinician.reader.ask_all = True
        try:
            await scene.open(chart)
        finally:
            scene.clinician.reader.ask_all = False
        await scene.until_published()
        wire = scenes.FaultyWire()
        network = scene.client(wire)
        for change, code in (
            (other_reader, "bad-proof"),
            (moved, "bad-proof"),
            (uncosigned, "not-enough-cosignatures"),
        ):
            wire.faults = {liar.url: altering(change)}
            trail = await scene.trail(chart, network=network)
            assert not trail.complete
            assert {node: error.code for node, error in trail.missing.items()} == {liar.token: code}, change.__name__
            assert trail.accesses, "the others' logs still have it"

    scene.run(attack())


def test_somebody_elses_trail_is_not_shown(scene: Any) -> None:
    async def attack() -> None:
        chart = await scene.chart(0, read=False)
        for other in (scene.clinician.keys, scene.stranger.keys):
            trail = await audit(scene.network, other, subject=chart.subject, state=MemoryState())
            assert {error.code for error in trail.missing.values()} == {"no-grant"}
            assert len(trail.missing) == 4 and not trail.accesses and not trail.complete
        with pytest.raises(Error):
            await scene.network.subject("cl1" + "q" * 46)

    scene.run(attack())
