"""Real node processes killed under a client: reads go on with t of n, changes settle when a node is back."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from careledger.bench import World
from careledger.client import audit
from careledger.errors import UnavailableError
from careledger.fhir import ReadOptions, demo_patients, read_file
from careledger.node import LocalNetwork

pytestmark = pytest.mark.slow


def test_reads_go_on_while_nodes_die_and_changes_settle_afterwards(tmp_path: Path) -> None:
    asyncio.run(_play(tmp_path))


async def _play(folder: Path) -> None:
    local = LocalNetwork.found(folder, now_ms=time.time_ns() // 1_000_000, rand=os.urandom)
    try:
        await local.start()
        async with World(local) as world:
            await world.begin()
            (patient,) = await world.patients(1)
            clinician = await world.clinician(1)
            categories = [name for name in patient.chain.categories() if name != "inbox"]
            given = await patient.grant(
                clinician.staff.organisation,
                categories=categories,
                rights=["read", "contribute"],
                expires_ms=time.time_ns() // 1_000_000 + 86_400_000,
            )
            name, data = demo_patients()[0]
            reading = read_file(name, [data], options=ReadOptions())
            done = await clinician.author.import_reading(patient.subject, reading)
            assert done.safe == done.records
            records = [bytes.fromhex(record) for sent in done.sent for record in sent.records]
            opened = await clinician.reader.open(patient.subject, records, purpose="TREAT")
            assert len(opened.records) == len(records)

            dead = local.nodes[3]
            dead.kill()
            for _ in range(4):  # whichever three are asked first
                opened = await clinician.reader.open(patient.subject, records[:5], purpose="TREAT")
                assert len(opened.records) == 5
                assert set(opened.faults) <= {dead.token}
            trail = await audit(world.network, patient.keys, state=patient.state)
            assert not trail.complete
            assert set(trail.missing) == {dead.token}

            revoked = await patient.revoke(given.grant)
            assert revoked.effective
            assert not revoked.complete
            assert set(revoked.failures) == {dead.token}

            local.nodes[2].kill()
            with pytest.raises(UnavailableError) as refused:
                await clinician.reader.list(patient.subject, purpose="TREAT")
            assert refused.value.code == "not-enough-custodians"
            assert set(refused.value.details["nodes"]) >= {dead.token, local.nodes[2].token}

            await local.start()
            settled = await patient.settle()
            assert settled.complete
            trail = await audit(world.network, patient.keys, state=patient.state)
            assert trail.complete
            assert opened.request in {access.request for access in trail.accesses}
    finally:
        local.kill()
