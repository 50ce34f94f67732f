"""The directory's sequencer is gone: existing grants still open, revocations still hold, what needs the directory waits
with a clear message; when it is back, everything goes on.
"""

from __future__ import annotations

from typing import Any

import pytest

from careledger.errors import Error, NotPermittedError, UnavailableError
from careledger.identity import new_person
from careledger.transport import Answer


def test_care_goes_on_without_the_sequencer_and_enrolment_says_that_it_waits(new_scene: Any) -> None:
    scene = new_scene()
    chart = scene.run(scene.chart(2))
    sequencer = scene.node(str(scene.network.genesis.parameters["sequencer"]))
    scene.run(scene.open(chart))
    sequencer.kill()

    async def without() -> None:
        reader = scene.reader(scene.client())
        for again in (scene.clinician.reader, reader):
            opened = await scene.open(chart, reader=again)
            assert len(opened.records) == 2
            assert {error.code for error in opened.faults.values()} <= {"unreachable"}
        await scene.add(chart, 1, safe=False)
        with pytest.raises(UnavailableError) as waits:
            await scene.world.person()
        assert waits.value.code == "directory-unreachable"
        assert "try again" in str(waits.value)
        published = await chart.patient.revoke(chart.read_grant)
        assert published.effective
        with pytest.raises(NotPermittedError) as refused:
            await scene.open(chart)
        assert refused.value.code == "revoked"
        for node in scene.local.nodes:
            if node is not sequencer:
                health = await scene.health(node)
                assert health["serving"], health

    scene.run(without())
    scene.restart(sequencer)

    async def again() -> None:
        person = await scene.until(scene.world.person, "an enrolment once the sequencer is back")
        identity = await scene.network.identity(person.token)
        assert identity.token == person.token
        await scene.world.let_read(chart.patient, scene.clinician.staff.organisation)
        assert len((await scene.open(chart)).records) == 3

    scene.run(again())


def test_a_forwarded_transaction_whose_answer_is_lost_has_one_effect_when_it_is_sent_again(
    scene: Any, scenes: Any
) -> None:
    async def story() -> None:
        made = new_person(custodians=(), rand=scene.world.rand)
        wire = scenes.FaultyWire()

        async def lost(path: str, body: bytes, honest: Any) -> Answer:
            answer = await honest()
            if path == "/v1/directory/transaction":
                raise UnavailableError("no-answer", "the answer is lost")
            return answer

        wire.faults = {node.url: lost for node in scene.local.nodes}
        network = scene.client(wire)
        with pytest.raises(Error) as refused:
            await network.transact([made.envelope])
        assert refused.value.code == "directory-unreachable"
        wire.faults = {}
        await network.transact([made.envelope])
        assert (await network.identity(made.token)).state.sequence == 0

    scene.run(story())
