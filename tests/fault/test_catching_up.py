"""A node that was down gets what it missed from its peers: documents, events, submissions. Then it can do its part."""

from __future__ import annotations

from typing import Any

import pytest

from careledger.client.release import checked_release
from careledger.errors import NotPermittedError, UnavailableError


@pytest.fixture(scope="module")
def played(scenes: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with scenes.Scene.played(tmp_path_factory.mktemp("catching-up")) as scene:
        yield scene


def test_a_node_that_was_down_gets_documents_events_and_submissions_and_releases(played: Any) -> None:
    scene = played
    missed, other = scene.local.nodes[3], scene.local.nodes[1]
    old = scene.run(scene.chart(1))
    missed.kill()

    async def meanwhile() -> Any:
        new = await scene.chart(0, read=False)  # a subject that the node has never heard of
        await scene.add(new, 2, safe=False)
        new.read_grant = await scene.world.let_read(new.patient, scene.clinician.staff.organisation)
        await scene.add(old, 1, safe=False)
        await old.patient.revoke(old.read_grant)
        old.read_grant = await scene.world.let_read(old.patient, scene.clinician.staff.organisation)
        assert len((await scene.open(new)).records) == 2
        return new

    new = scene.run(meanwhile())
    scene.restart(missed)

    async def caught_up() -> None:
        reader = scene.reader(scene.client())
        node = scene.network.nodes[missed.token]

        async def releases() -> bool:
            for chart in (old, new):
                request = await reader.request(chart.subject, chart.records, purpose="TREAT")
                body = request.message(content=True)
                answer = await scene.network.wire.post(node.url, "/v1/access", body)
                release = checked_release(
                    answer, request, node, network=scene.network.id, now_ms=scene.network.now_ms()
                )
                assert set(release.shares) == set(chart.records)
                assert release.submissions
            return True

        async def attempt() -> bool:
            try:
                return await releases()
            except NotPermittedError as denied:
                not_yet = denied.code in ("stale", "no-grant", "out-of-scope", "revoked")
            assert not_yet
            return False

        await scene.until(attempt, "the node that was down releases its shares")

    scene.run(caught_up())

    # With another one down it is needed: three of four.
    other.kill()
    for chart in (old, new):
        opened = scene.run(scene.open(chart, reader=scene.reader(scene.client())))
        assert len(opened.records) == 2
        assert missed.token in opened.receipts
    scene.restart(other)


def test_what_it_missed_is_in_its_log_with_the_peer_that_handed_it_on(played: Any) -> None:
    scene = played
    missed = scene.local.nodes[2]
    missed.kill()
    chart = scene.run(scene.chart(0, read=False))
    done = scene.run(scene.add(chart, 2, safe=False))
    assert (done.kept, done.readable, done.safe) == (2, 2, 0)
    scene.restart(missed)

    async def kept() -> None:
        query = (
            "SELECT body FROM entries e JOIN subjects s ON s.id = e.subject "
            "WHERE s.token = ? AND kind = 0 AND instr(body, CAST('via' AS BLOB))"
        )

        async def there() -> bool:
            rows = scene.store(missed).execute(query, (chart.subject,)).fetchall()
            # the compartments, the grant to write, the submission
            return len(rows) >= 3

        await scene.until(there, "what was missed, with where it came from")
        peers = {node.token.encode() for node in scene.local.nodes if node is not missed}
        for (body,) in scene.store(missed).execute(query, (chart.subject,)):
            assert any(b'"via":"' + peer in body for peer in peers)

    scene.run(kept())


def test_with_two_custodians_down_reads_and_revocations_say_so_and_nothing_is_lost(played: Any) -> None:
    scene = played
    chart = scene.run(scene.chart(1))
    down = scene.local.nodes[2:]
    for node in down:
        node.kill()

    async def meanwhile() -> None:
        with pytest.raises(UnavailableError) as refused:
            await scene.open(chart)
        assert refused.value.details["nodes"] == {node.token: "unreachable" for node in down}
        with pytest.raises(UnavailableError) as refused:
            await chart.patient.revoke(chart.read_grant)
        assert "custodians" in str(refused.value) and "unreachable" in str(refused.value)

    scene.run(meanwhile())
    scene.restart(*down)

    async def afterwards() -> None:
        assert len((await scene.open(chart)).records) == 1
        published = await chart.patient.revoke(chart.read_grant)
        assert published.complete
        with pytest.raises(NotPermittedError):
            await scene.open(chart)

    scene.run(afterwards())
