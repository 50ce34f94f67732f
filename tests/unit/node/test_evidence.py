"""What a witness caught comes before the directory by itself, once, and marks the node."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from careledger.custody import Witness
from careledger.errors import UnavailableError, VerificationError
from careledger.node.evidence import Evidence
from careledger.seal import Envelope
from careledger.tlog import AddCheckpoint, Checkpoint, sign_checkpoint


class Case:
    """A node that witnesses for another, which can sign whatever it likes."""

    def __init__(self, town: Any) -> None:
        self.town = town
        self.own, self.other = town.keeper(0), town.keeper(1)
        self.witness = Witness(self.own.folder / "witness.db", signer=self.own.cosigner, now_s=lambda: 1_800_000_000)
        self.submitted: list[Envelope] = []
        self.down = False
        self.evidence = Evidence(self.witness, town.directory, signer=town.node_signer(0), submit=self.submit)

    async def submit(self, envelopes: list[Envelope]) -> None:
        if self.down:
            raise UnavailableError("no-sequencer", "down")
        self.submitted += envelopes
        self.town.order(*envelopes)

    def signs(self, root: bytes, size: int = 1) -> bytes:
        signer = self.other.log_signer
        return sign_checkpoint(Checkpoint(signer.name, size, root), signer=signer)

    def forks(self) -> None:
        verifier = self.other.log_signer.verifier
        self.witness.add_checkpoint(AddCheckpoint(0, (), self.signs(b"\1" * 32)), log_verifier=verifier)
        with pytest.raises(VerificationError):
            self.witness.add_checkpoint(AddCheckpoint(1, (), self.signs(b"\2" * 32)), log_verifier=verifier)

    def bring(self) -> None:
        asyncio.run(self.evidence.bring())


@pytest.fixture
def case(town: Any) -> Case:
    return Case(town)


def test_nothing_caught_nothing_brought(case: Case) -> None:
    case.bring()
    assert case.submitted == []


def test_a_fork_marks_the_node_for_everybody_and_is_brought_once(case: Case) -> None:
    case.forks()
    case.bring()
    mark = case.town.directory.fork(case.other.token)
    assert mark is not None
    assert sorted(mark.roots) == ["01" * 32, "02" * 32]
    case.bring()
    assert len(case.submitted) == 1


def test_what_another_node_brought_first_is_not_brought_again(case: Case) -> None:
    case.forks()
    case.bring()

    async def never(_: list[Envelope]) -> None:
        raise AssertionError("the node is marked already")

    late = Evidence(case.witness, case.town.directory, signer=case.town.node_signer(2), submit=never)
    asyncio.run(late.bring())


def test_a_directory_that_does_not_answer_is_asked_again(case: Case) -> None:
    case.forks()
    case.down = True
    with pytest.raises(UnavailableError):
        case.bring()
    case.down = False
    case.bring()
    assert case.town.directory.fork(case.other.token) is not None
