"""Trust row 8: a revoked reader opens nothing later and, through honest custodians, nothing old.

Nor through one that was down while the subject revoked.
"""

from __future__ import annotations

from typing import Any

import pytest

from careledger.access import decode_access_answer
from careledger.custody.shelf import RecordRow, Shelf
from careledger.custody.store import Store
from careledger.errors import Error, NotFoundError, NotPermittedError, UnavailableError
from careledger.records import claimed_author, decode_view, open_records, verify_view

COLUMNS = "entry, record, submission, position, compartment, epoch, recorded, author, manifest_at, manifest_length"


def test_after_a_revocation_old_and_new_records_stay_shut_and_the_moment_is_measured(scene: Any) -> None:
    async def story() -> None:
        chart = await scene.chart(2)
        old = list(chart.records)
        assert len((await scene.open(chart)).records) == 2
        reached: dict[str, float] = {}
        published = await chart.patient.revoke(chart.read_grant, on_mark=reached.setdefault)
        assert published.effective and published.complete
        assert 0 < reached["effective"] <= reached["complete"]
        await scene.add(chart, 2)
        for records in (old, chart.records[2:], chart.records, chart.records[:1]):
            with pytest.raises(NotPermittedError) as refused:
                await scene.open(chart, records)
            assert refused.value.code == "revoked"
        with pytest.raises(NotPermittedError) as refused:
            await scene.clinician.reader.list(chart.subject, purpose="TREAT")
        assert refused.value.code == "revoked"
        # Naming the old grant or knowing an old head changes nothing: custodians decide with what they know.
        reader = scene.reader(scene.client())
        with pytest.raises(NotPermittedError):
            await reader.open(chart.subject, old, purpose="TREAT", grant=chart.read_grant)
        await scene.until_published()
        trail = await scene.trail(chart)
        assert trail.complete
        assert sum(not access.allowed for access in trail.accesses) == 6, "every refusal is in the trail as well"

    scene.run(story())


def test_the_revoked_readers_keys_do_not_open_what_came_later_even_with_every_share(scene: Any) -> None:
    """Custodians collude with the revoked reader: it gets ciphertexts, locks and all shares, but no new seed."""

    async def story() -> None:
        chart = await scene.chart(2)
        await scene.open(chart)
        view = await scene.clinician.reader.grants(chart.subject, fresh=True)
        before = {place: view.compartment_key(*place) for place in view._all_seeds()}
        await chart.patient.revoke(chart.read_grant)
        await scene.add(chart, 2)
        shares: dict[int, dict[bytes, bytes]] = {}
        places = {node.token: at for at, node in enumerate((await scene.network.subject(chart.subject)).custodians, 1)}
        for node in scene.local.nodes:
            store = Store(node.folder / "store")
            shelf = Shelf(store)
            rows = [RecordRow(*row) for row in store.reading.execute(f"SELECT {COLUMNS} FROM records")]
            mine = [row for row in rows if row.record_id in chart.records]
            shares[places[node.token]] = {row.record_id: shelf.share(row) for row in mine}
            views = shelf.views(mine, own=False)
            store.close()
        later = 0
        for data in views:
            shown = decode_view(data)
            key = await scene.network.verify_key(claimed_author(shown.envelope))
            content = verify_view(shown, network=scene.network.id, author_key=key, subject=chart.subject)
            secrets = {}
            for one in content.records:
                place = (one.manifest.compartment, one.manifest.epoch)
                if place in before:
                    secrets[place] = content.open_consent_lock(*place, before[place])
                    continue
                assert one.record in chart.records[2:], "a later record has a later epoch"
                later += 1
                with pytest.raises(NotFoundError):
                    (await scene.clinician.reader.grants(chart.subject, fresh=True)).compartment_key(*place)
                for seed in before.values():
                    with pytest.raises(Error):
                        content.open_consent_lock(*place, seed)
            opened = open_records(content.records, shares=shares, threshold=3, secrets=secrets)
            assert {record.record for record in opened.records} <= set(chart.records[:2])
            assert {error.code for _, error in opened.failed} <= {"no-consent-key"}
        assert later == 2

    scene.run(story())


def test_a_custodian_that_missed_the_revocation_refuses_stale_until_it_catches_up(new_scene: Any) -> None:
    """It was down when the subject revoked. Started again while it reaches nobody, it can't know, and says so."""
    scene = new_scene()
    chart = scene.run(scene.chart(1))
    missed, others = scene.local.nodes[3], scene.local.nodes[:3]

    async def before() -> Any:
        await scene.open(chart)
        reader = scene.reader(scene.client())
        return reader, await reader.request(chart.subject, chart.records, purpose="TREAT")

    reader, request = scene.run(before())
    missed.kill()

    async def revoke() -> None:
        published = await chart.patient.revoke(chart.read_grant)
        assert published.effective, "three of four are enough"
        assert not published.complete
        assert {scene.node(token).name: error.code for token, error in published.failures.items()} == {
            missed.name: "unreachable"
        }

    scene.run(revoke())
    scene.freeze(*others)
    missed.start()

    async def ask() -> Any:
        body = request.message(content=True)
        return decode_access_answer((await scene.network.wire.post(missed.url, "/v1/access", body)).body)

    async def alone() -> None:
        health = await scene.until_status(missed, "rollback-unchecked")
        assert health["serving"] and health["peers_in_touch"] == []
        answer = await ask()
        assert answer.denied == "stale"
        assert not answer.sealed and not answer.submissions and not answer.listed

    scene.run(alone())
    scene.thaw(*others)

    async def together() -> None:
        # The reader still claims the old head, so it is not the request that tells the node of the revocation.
        async def knows() -> bool:
            reader_again = scene.reader(scene.client())
            reader_again._views[chart.subject] = reader._views[chart.subject]
            again = await reader_again.request(chart.subject, chart.records, purpose="TREAT")
            body = again.message(content=True)
            answer = decode_access_answer((await scene.network.wire.post(missed.url, "/v1/access", body)).body)
            assert answer.denied in ("stale", "revoked")
            assert not answer.sealed and not answer.submissions
            return answer.denied == "revoked"

        await scene.until(knows, "the missed revocation at the node that was down")
        assert (await ask()).denied in ("revoked", "stale")

    scene.run(together())


def test_with_a_newer_head_in_the_request_a_node_that_missed_it_catches_up_first(scene: Any, scenes: Any) -> None:
    """A request that knows a newer head is enough: the node asks its peers before it decides."""
    behind = scene.local.nodes[2]

    async def story() -> None:
        chart = await scene.chart(1)
        wire = scenes.FaultyWire()

        async def lost(path: str, body: bytes, honest: Any) -> Any:
            if path == "/v1/consent":
                raise UnavailableError("no-answer", "the event never arrives there")
            return await honest()

        network = scene.client(wire)
        wire.faults = {behind.url: lost}
        patient = scene.patient(network, chart.patient)
        published = await patient.revoke(chart.read_grant)
        assert list(published.failures) == [behind.token]

        async def silent(path: str, body: bytes, honest: Any) -> Any:
            raise UnavailableError("no-answer", "the reader hears of the revocation from another custodian")

        informed = scenes.FaultyWire()
        informed.faults = {behind.url: silent}
        reader = scene.reader(scene.client(informed))
        request = await reader.request(chart.subject, chart.records, purpose="TREAT")
        store = scene.store(behind)
        answer = decode_access_answer(
            (await scene.network.wire.post(behind.url, "/v1/access", request.message(content=True))).body
        )
        store.close()
        assert answer.denied == "revoked"

    scene.run(story())
