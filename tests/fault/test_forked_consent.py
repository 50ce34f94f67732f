"""Two devices with the same keys write consent at once, each reaching other custodians: both events are kept, only what
restricts holds, grants freeze, the subject sees it and merges.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from careledger.errors import ConflictError, Error, NotPermittedError, UnavailableError


def device(scenes: Any, scene: Any, patient: Any, *, reaches: Any, together: asyncio.Barrier) -> Any:
    """The patient's software on a device whose events reach only some nodes, and leave when the other's do."""
    wire = scenes.FaultyWire()
    waited: set[str] = set()

    def fault(node: Any) -> Any:
        async def deliver(path: str, body: bytes, honest: Any) -> Any:
            if path != "/v1/consent":
                return await honest()
            if node not in reaches:
                raise UnavailableError("no-answer", "the event never arrives there")
            if node.url not in waited:
                waited.add(node.url)
                await together.wait()
            return await honest()

        return deliver

    wire.faults = {node.url: fault(node) for node in scene.local.nodes}
    return scene.patient(scene.client(wire), patient)


def test_a_fork_freezes_grants_keeps_revocations_and_ends_with_a_merge(scene: Any, scenes: Any) -> None:
    nodes = scene.local.nodes

    async def story() -> None:
        world = scene.world
        chart = await scene.chart(2)
        kept = await world.let_read(chart.patient, scene.author.staff.organisation)
        together = asyncio.Barrier(4)  # two nodes for each device
        phone = device(scenes, scene, chart.patient, reaches=nodes[:2], together=together)
        tablet = device(scenes, scene, chart.patient, reaches=nodes[2:], together=together)

        await phone.refresh()
        # At the same moment: the phone lets the stranger read, the tablet ends the clinician's grant.
        given, ended = await asyncio.gather(
            world.let_read(phone, scene.stranger.keys.token), tablet.revoke(chart.read_grant)
        )
        assert set(ended.failures) == {node.token for node in nodes[:2]}
        assert not ended.effective

        async def everybody_sees_both() -> bool:
            states = []
            for node in nodes:
                rows = scene.store(node).execute(
                    "SELECT c.seq FROM consent c JOIN subjects s ON s.id = c.subject WHERE s.token = ?",
                    (chart.subject,),
                )
                states.append(sorted(seq for (seq,) in rows))
            return all(len(one) == len(states[0]) and len(set(one)) < len(one) for one in states)

        await scene.until(everybody_sees_both, "both events at every custodian")

        # What restricts holds everywhere; what was granted in the fork holds nowhere.
        with pytest.raises(NotPermittedError) as revoked:
            await scene.open(chart, reader=scene.reader(scene.client()))
        assert revoked.value.code == "revoked"
        with pytest.raises(NotPermittedError) as frozen:
            await scene.open(chart, reader=scene.reader(scene.client(), scene.stranger))
        assert frozen.value.code in ("no-grant", "out-of-scope")

        # The subject is told: its next event is refused until it has merged.
        device_ = scene.patient(scene.client(), chart.patient)
        state = await device_.refresh()
        assert state.forked and len(state.heads) == 2
        with pytest.raises((ConflictError, Error)) as told:
            await world.let_read(device_, scene.stranger.keys.token, ["bills"])
        assert told.value.code == "forked", told.value

        keep = next(id_ for event, id_ in device_.chain.events if getattr(event, "grant", "") == given)
        assert keep in state.heads
        merged = await device_.merge(keep)
        assert merged.effective and not device_.chain.state.forked
        await device_.rekey()
        opened = await scene.open(chart, reader=scene.reader(scene.client(), scene.stranger))
        assert len(opened.records) == 2, "the kept branch's grant stands"
        with pytest.raises(NotPermittedError) as still:
            await scene.open(chart, reader=scene.reader(scene.client()))
        assert still.value.code == "revoked", "a revocation of either branch stands"
        author = scene.reader(scene.client(), scene.author)
        assert len((await scene.open(chart, reader=author)).records) == 2, "and so does a grant from before the fork"
        assert kept in device_.chain.state.grants

    scene.run(story())
