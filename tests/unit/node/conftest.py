"""A founded network of four members without processes: genesis, replicas, keys; and a wire that tests answer."""

from __future__ import annotations

import asyncio
import importlib.util
import random
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from careledger.directory import MemberPart, NodePart, founding, network_of
from careledger.directory.engines.embedded import Follower, Sequencer
from careledger.identity import NewIdentity, new_organisation, new_person, new_software
from careledger.node.directing import Directing
from careledger.seal import SigningKey, keyid
from careledger.transport import Answer

T = TypeVar("T")
NOW_MS = 1_790_000_000_000


class Wire:
    """A transport whose answers a test gives: `answer(url, path, body)` returns an Answer, or raises."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes]] = []
        self.answer: Callable[[str, str, bytes], Any] = lambda *_: Answer(404, b"", {})

    async def post(self, url: str, path: str, body: bytes, **_: Any) -> Answer:
        return await self._ask(url, path, body)

    async def get(self, url: str, path: str, **_: Any) -> Answer:
        return await self._ask(url, path, b"")

    async def _ask(self, url: str, path: str, body: bytes) -> Answer:
        self.asked.append((url, path, body))
        found = self.answer(url, path, body)
        if isinstance(found, Awaitable):
            found = await found
        assert isinstance(found, Answer)
        return found


class Founded:
    def __init__(self, folder: Path, members: int = 4) -> None:
        self.folder = folder
        self.rand = random.Random(5).randbytes
        self.ms = NOW_MS
        self.software = [new_software(rand=self.rand) for _ in range(members)]
        self.log_seeds = [self.rand(32) for _ in range(members)]
        self.witness_seeds = [self.rand(32) for _ in range(members)]
        self.organisations = [new_organisation(nodes=[one.token], rand=self.rand) for one in self.software]
        parts = []
        for at, organisation in enumerate(self.organisations):
            node = NodePart(
                self.software[at].envelope,
                self.url(at),
                SigningKey(self.log_seeds[at]).public,
                SigningKey(self.witness_seeds[at]).public,
            )
            parts.append(MemberPart(organisation.envelope, [node], ("licensor", "provider")))
        self.genesis = founding(parts, time_ms=self.ms, nonce=self.rand(16))
        self.network = network_of(self.genesis)
        self.engines: list[Sequencer | Follower] = []

    @staticmethod
    def url(number: int) -> str:
        return f"http://node-{number}.example"

    def now_ms(self) -> int:
        return self.ms

    def run(self, work: Awaitable[T]) -> T:
        async def main() -> T:
            return await work

        return asyncio.run(main())

    def person(self) -> NewIdentity:
        return new_person(custodians=(), rand=self.rand)

    def signer(self, number: int) -> tuple[str, SigningKey]:
        one = self.software[number]
        return keyid(one.token, 0), one.secrets.device.signing_key()

    def sequencer(self, name: str = "sequencer.db") -> Sequencer:
        engine = Sequencer(
            self.folder / name,
            genesis=self.genesis,
            node=self.software[0].token,
            log_key=SigningKey(self.log_seeds[0]),
            witness=SigningKey(self.witness_seeds[0]),
            now_ms=self.ms,
        )
        self.engines.append(engine)
        return engine

    def follower(self, number: int = 1) -> Follower:
        engine = Follower(
            self.folder / f"follower-{number}.db",
            genesis=self.genesis,
            node=self.software[number].token,
            witness=SigningKey(self.witness_seeds[number]),
        )
        self.engines.append(engine)
        return engine

    def directing(self, engine: Sequencer | Follower, wire: Wire, number: int = 0) -> Directing:
        return Directing(
            engine,
            node=self.software[number].token,
            signer=self.signer(number),
            transport=wire,  # type: ignore[arg-type]
            now_ms=self.now_ms,
        )


@pytest.fixture
def founded(tmp_path: Path) -> Iterator[Founded]:
    network = Founded(tmp_path)
    yield network
    for engine in network.engines:
        engine.close()


@pytest.fixture
def wire() -> Wire:
    return Wire()


def _custody() -> Any:
    """The town of tests/unit/custody: a directory, people, and custodians without HTTP."""
    path = Path(__file__).parent.parent / "custody" / "conftest.py"
    spec = importlib.util.spec_from_file_location("careledger_node_town", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CUSTODY = _custody()


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Any]:
    town = CUSTODY.Town(tmp_path / "town", anchor_min_ms=2_000)
    yield town
    town.close()


@pytest.fixture
def make_case() -> Any:
    return CUSTODY.Case
