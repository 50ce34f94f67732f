"""A small world for demo, benchmark and tests: a local network with its organisations' staff and patients.

Keys live in memory here, so that nothing waits for passphrases; everything else is what people's software does.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from careledger.client import (
    Author,
    HeldKeys,
    MemoryState,
    Network,
    Organisation,
    Patient,
    Reader,
    Staff,
    choose_custodians,
    network_file,
    open_staff_pass,
    publish_document,
)
from careledger.client.enrolment import must_be_effective, publish_organisation_document, remember_new
from careledger.identity import new_person
from careledger.node import LocalNetwork
from careledger.seal import Envelope
from careledger.transport import Transport

__all__ = ["YEAR_MS", "Clinician", "World", "now_ms"]

YEAR_MS = 365 * 24 * 3_600_000
_ENROL_AT_ONCE = 8


def now_ms() -> int:
    """The wall clock, ms UTC."""
    return time.time_ns() // 1_000_000


class Clinician:
    """A licensed person on an organisation's staff: reads and writes for it."""

    def __init__(self, network: Network, keys: HeldKeys, staff: Staff) -> None:
        self.keys = keys
        self.staff = staff
        self.reader = Reader(network, keys, staff=staff)
        self.author = Author(network, keys, state=MemoryState(), staff=staff)


class World:
    """A client's side of a local network. One transport, one event loop; close it, or use `async with`."""

    def __init__(self, local: LocalNetwork, *, rand: Callable[[int], bytes] = os.urandom) -> None:
        self.local = local
        self.wire = Transport()
        self.rand = rand
        self.network = Network.from_file(network_file(local.genesis), wire=self.wire, now_ms=now_ms, rand=rand)
        self.organisations: list[Organisation] = []

    async def __aenter__(self) -> World:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.wire.close()

    async def begin(self) -> None:
        """Publish the organisations' documents. Call once, when the nodes serve."""
        for made in self.local.organisations:
            state = MemoryState()
            keys = HeldKeys(token=made.token, kind="organisation", device=made.secrets.device)
            organisation = Organisation(self.network, keys, state=state)
            if made.secrets.reading_seed is not None:
                organisation.remember_reading_seed(made.secrets.reading_seed)
            await publish_organisation_document(self.network, made.token, made.document, made.salt)
            self.organisations.append(organisation)

    async def person(self) -> HeldKeys:
        """Enrol a person who keeps no record."""
        made = new_person(custodians=(), rand=self.rand)
        await self.network.transact([made.envelope])
        return HeldKeys(token=made.token, kind="person", device=made.secrets.device)

    async def clinician(self, organisation: int, *, role: str = "physician", licensed: bool = True) -> Clinician:
        """Enrol a clinician, license it, and give it today's pass of the organisation (its place in the founding)."""
        keys = await self.person()
        employer = self.organisations[organisation]
        if licensed:
            await employer.license(keys.token, role=role, until_ms=now_ms() + YEAR_MS)
        staff = await open_staff_pass(await employer.staff_pass(keys.token, role=role), keys, network=self.network)
        return Clinician(self.network, keys, staff)

    async def patients(self, count: int, *, n: int | None = None) -> list[Patient]:
        """Enrol patients: one block of inceptions, then documents and compartments, a few at a time."""
        custodians = choose_custodians(self.network, n=n)
        made = [new_person(custodians=custodians, rand=self.rand) for _ in range(count)]
        envelopes: list[Envelope] = [one.envelope for one in made]
        for at in range(0, count, 100):
            await self.network.transact(envelopes[at : at + 100])
        gate = asyncio.Semaphore(_ENROL_AT_ONCE)

        async def begin(index: int) -> Patient:
            async with gate:
                one = made[index]
                await publish_document(self.network, await remember_new(self.network, one))
                keys = HeldKeys(token=one.token, kind="person", device=one.secrets.device)
                patient = Patient(self.network, keys, state=MemoryState())
                must_be_effective(await patient.begin())
                return patient

        return list(await asyncio.gather(*(begin(index) for index in range(count))))

    async def let_write(self, patient: Patient, organisation: str, categories: Sequence[str] | None = None) -> str:
        """The patient lets an organisation contribute; returns the grant's id."""
        chosen = patient.chain.categories() if categories is None else categories
        granted = await patient.grant(
            organisation, categories=chosen, rights=("contribute",), expires_ms=now_ms() + YEAR_MS
        )
        return granted.grant

    async def let_read(self, patient: Patient, grantee: str, categories: Sequence[str] | None = None) -> str:
        """The patient lets a person or organisation read for treatment; returns the grant's id."""
        chosen = patient.chain.categories() if categories is None else categories
        granted = await patient.grant(grantee, categories=chosen, expires_ms=now_ms() + YEAR_MS)
        return granted.grant
