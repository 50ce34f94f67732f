"""The application without CometBFT: what a test plays is the order in which the engine calls.

Also puts virtual.py where the tests beside it can import it, as `careledger_virtual`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from careledger.directory.engines.cometbft import messages as abci
from careledger.directory.engines.cometbft.application import Application
from careledger.directory.engines.cometbft.chain import app_state, chain_id
from careledger.directory.engines.cometbft.replica import EngineReplica, Executed
from careledger.directory.engines.cometbft.wire import decode, encode
from careledger.directory.validators import validators
from careledger.seal import Envelope
from careledger.seal import encode as canonical


def _share(name: str, path: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


_share("careledger_virtual", Path(__file__).with_name("virtual.py"))


class Chain:
    """An application and the engine that calls it, through the bytes of both sides' messages."""

    def __init__(self, world: Any, path: Path) -> None:
        self.world, self.path = world, path
        self.committed: list[Executed] = []
        self.nanos = 0
        self.open()

    def open(self) -> None:
        self.replica = EngineReplica(self.path, genesis=self.world.genesis)
        self.app = Application(self.replica, on_commit=self.committed.append)
        self.directory = self.replica.directory

    def restart(self) -> None:
        self.replica.close()
        self.open()

    def call(self, **call: Any) -> Any:
        """One call; the answer's only field."""
        request = decode(encode(abci.Request(**call)), abci.Request)
        response = decode(encode(self.app.answer(request)), abci.Response)
        name = next(iter(call))
        return getattr(response, name)

    def init_chain(self, **more: Any) -> Any:
        state = self.directory.state
        fields: dict[str, Any] = {
            "time": self.time(self.world.now_ms),
            "chain_id": chain_id(self.replica.network),
            "validators": tuple(
                abci.ValidatorUpdate(abci.PublicKey(key), power)
                for key, power in validators(state.members, state.nodes).items()
            ),
            "app_state_bytes": app_state(self.world.genesis),
            "initial_height": self.replica.height + 1,
            **more,
        }
        return self.call(init_chain=abci.InitChainRequest(**fields))

    def time(self, time_ms: int) -> abci.Timestamp:
        return abci.Timestamp(time_ms // 1000, time_ms % 1000 * 1_000_000 + self.nanos)

    def finalize(self, transactions: Sequence[bytes], *, height: int | None = None, time_ms: int | None = None) -> Any:
        if time_ms is None:
            self.world.now_ms += 1000
            time_ms = self.world.now_ms
        return self.call(
            finalize_block=abci.FinalizeBlockRequest(
                txs=tuple(transactions), height=height or self.replica.height + 1, time=self.time(time_ms)
            )
        )

    def check(self, data: bytes) -> str:
        answer = self.call(check_tx=abci.CheckTxRequest(data))
        assert (answer.code == 0) == (answer.log == "")
        return answer.log or "ok"

    def prepare(self, transactions: Sequence[bytes], *, room: int = 1 << 22) -> tuple[bytes, ...]:
        answer: abci.Txs = self.call(
            prepare_proposal=abci.PrepareProposalRequest(
                max_tx_bytes=room,
                txs=tuple(transactions),
                height=self.replica.height + 1,
                time=self.time(self.world.now_ms + 1000),
            )
        )
        return answer.txs

    def process(self, transactions: Sequence[bytes]) -> int:
        answer: abci.Status = self.call(
            process_proposal=abci.ProcessProposalRequest(
                txs=tuple(transactions),
                height=self.replica.height + 1,
                time=self.time(self.world.now_ms + 1000),
                proposer_address=bytes(20),
            )
        )
        return answer.status

    def run(self, *transactions: bytes | Envelope) -> list[str]:
        """Decide and commit one block; the code of each transaction."""
        answer = self.finalize([one if isinstance(one, bytes) else canonical(one) for one in transactions])
        self.call(commit=abci.Empty())
        return [result.log or "ok" for result in answer.tx_results]

    def info(self) -> Any:
        return self.call(info=abci.InfoRequest("0.38.25"))


@pytest.fixture
def chain(make_world: Callable[..., Any], tmp_path: Path) -> Iterator[Chain]:
    made = Chain(make_world(validates=True), tmp_path / "directory.db")
    yield made
    made.replica.close()
