"""A node keeps the proof of the directory's head: from a real chain's answers, with the set of validators changing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from careledger.directory import Directory, chain_id, follow, network_of, validator_set
from careledger.directory.validators import validators
from careledger.errors import MalformedError, UnavailableError, VerificationError
from careledger.node.light_keeper import LIGHT_FILE, LightKeeper
from careledger.seal import unb64

FOUND = json.loads((Path(__file__).parents[3] / "vectors" / "directory" / "light-blocks.json").read_bytes())
GENESIS = unb64(FOUND["genesis"])
TOP = len(FOUND["vectors"])


def founders() -> list[Any]:
    state = Directory.from_genesis(GENESIS).state
    return validator_set(validators(state.members, state.nodes))


class Rpc:
    """Answers as the real chain did; counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.up = True

    async def commit(self, height: int) -> Any:
        if not self.up:
            raise UnavailableError("engine-unreachable", "down")
        self.asked.append(height)
        return FOUND["vectors"][height - 1]

    async def validators(self, height: int) -> Any:
        return FOUND["vectors"][height - 1]["validators"]


def keeper(path: Path, rpc: Rpc | None = None) -> LightKeeper:
    return LightKeeper(path / LIGHT_FILE, rpc or Rpc(), network=network_of(GENESIS), founders=founders(), first=1)


def proven(found: LightKeeper) -> int:
    return follow(found.blocks, chain=chain_id(network_of(GENESIS)), validators=founders()).height


@pytest.mark.parametrize("steps", [range(1, TOP + 1), [TOP], [3, TOP], [5, 6, TOP], [4, 5, TOP]])
def test_every_height_is_proven_whichever_were_seen_before(tmp_path: Path, steps: Any) -> None:
    found = keeper(tmp_path)
    assert found.blocks == []
    for height in steps:
        asyncio.run(found.advance(height))
        assert (found.height, proven(found)) == (height, height - 1)
    assert len(found.blocks) == 2, "the change of the set, and the newest block"


def test_few_headers_are_asked_for(tmp_path: Path) -> None:
    rpc = Rpc()
    asyncio.run(keeper(tmp_path, rpc).advance(TOP))
    assert len(rpc.asked) < TOP


def test_what_was_kept_is_there_after_a_restart(tmp_path: Path) -> None:
    asyncio.run(keeper(tmp_path).advance(TOP - 1))
    rpc = Rpc()
    again = keeper(tmp_path, rpc)
    assert (again.height, proven(again)) == (TOP - 1, TOP - 2)
    asyncio.run(again.advance(TOP))
    assert rpc.asked == [TOP]


@pytest.mark.parametrize("content", [b"", b"[]", b"garbage", b'[{"header":{}}]'])
def test_a_damaged_file_is_asked_for_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LIGHT_FILE).write_bytes(content)
    found = keeper(tmp_path)
    assert found.height == 0
    asyncio.run(found.advance(TOP))
    assert proven(keeper(tmp_path)) == TOP - 1


def test_an_older_height_and_an_engine_that_is_down_change_nothing(tmp_path: Path) -> None:
    rpc = Rpc()
    found = keeper(tmp_path, rpc)
    asyncio.run(found.advance(7))
    asyncio.run(found.advance(3))
    assert found.height == 7
    rpc.up = False
    with pytest.raises(UnavailableError):
        asyncio.run(found.advance(TOP))
    assert proven(found) == 6


def test_an_answer_that_proves_nothing_is_not_kept(tmp_path: Path) -> None:
    class Lying(Rpc):
        async def commit(self, height: int) -> Any:
            answer = json.loads(json.dumps(await super().commit(height)))
            answer["signed_header"]["header"]["app_hash"] = "AB" * 32
            return answer

    found = keeper(tmp_path, Lying())
    with pytest.raises(VerificationError):
        asyncio.run(found.advance(2))
    assert found.blocks == []
    assert not (tmp_path / LIGHT_FILE).exists()

    class Odd(Rpc):
        async def commit(self, height: int) -> Any:
            return {"signed_header": {"header": 5}}

    with pytest.raises(MalformedError):
        asyncio.run(keeper(tmp_path, Odd()).advance(2))
