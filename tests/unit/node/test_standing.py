"""Whether a node may serve: what its anchor and its peers say, how fresh its heads are, and what /health tells."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from careledger.directory import AnchorState
from careledger.errors import UnavailableError, VerificationError
from careledger.node.standing import NEVER_MS, Standing
from careledger.tlog import Frontier, leaf_hash


@pytest.fixture
def standing(founded: Any) -> Standing:
    return Standing(founded.software[1].token, founded.follower().directory, now_ms=founded.now_ms)


def test_it_serves_nobody_before_it_compared_itself(standing: Standing) -> None:
    with pytest.raises(UnavailableError) as refusal:
        standing.require_service()
    assert refusal.value.code == "starting"
    assert (standing.health()["status"], standing.health()["serving"]) == ("starting", False)


def test_it_serves_nobody_once_it_was_rolled_back(standing: Standing) -> None:
    standing.rollback, standing.problem = "rolled-back", "keep both checkpoints"
    with pytest.raises(UnavailableError) as refusal:
        standing.require_service()
    assert refusal.value.code == "rolled-back"
    health = standing.health()
    assert (health["status"], health["serving"], health["todo"]) == ("rolled-back", False, "keep both checkpoints")


@pytest.mark.parametrize("rollback", ["checked", "rollback-unchecked"])
def test_it_serves_checked_or_when_nobody_could_be_asked(standing: Standing, rollback: Any) -> None:
    standing.rollback = rollback
    standing.require_service()
    health = standing.health()
    assert health["serving"]
    assert health["status"] == {"checked": "ok"}.get(rollback, rollback)


def test_a_full_disk_is_said_and_does_not_stop_reads(standing: Standing) -> None:
    standing.rollback = "checked"
    standing.custodian = SimpleNamespace(  # type: ignore[assignment]
        writer=SimpleNamespace(failed="disk-full", frontier=Frontier(0, [])), published=(0, b"")
    )
    health = standing.health()
    assert (health["status"], health["serving"]) == ("disk-full", True)
    assert "free space" in str(health["todo"])
    standing.require_service()


def test_heads_are_as_old_as_the_t_minus_first_comparison(standing: Standing, founded: Any) -> None:
    own, *others = [one.token for one in (founded.software[1], *founded.software[:1], *founded.software[2:])]
    custodians, now = [own, *others], founded.ms
    assert standing.heads_age_ms(custodians, 3, now) == NEVER_MS
    standing.compared[others[0]] = now - 10
    assert standing.heads_age_ms(custodians, 3, now) == NEVER_MS
    standing.compared[others[1]] = now - 5_000
    assert standing.heads_age_ms(custodians, 3, now) == 5_000
    standing.compared[others[2]] = now - 20
    assert standing.heads_age_ms(custodians, 3, now) == 20
    # Who is no custodian of the subject, and this node itself, count for nothing.
    standing.compared[own] = standing.compared["cl1other"] = now
    assert standing.heads_age_ms(custodians, 3, now) == 20
    assert standing.heads_age_ms([own], 1, now) == 0
    assert standing.heads_age_ms([own], 2, now) == NEVER_MS
    standing.compared = dict.fromkeys(others, now + 1000)
    assert standing.heads_age_ms(custodians, 3, now) == 0


class State:
    def __init__(self, seq: int, head: str, *heads: str) -> None:
        self.seq, self.head, self.heads = seq, head, heads or (head,)


@pytest.mark.parametrize(
    ("known", "request_head", "pulled"),
    [
        (State(3, "aa"), (4, "bb"), True),
        (State(3, "aa"), (3, "bb"), True),
        (State(3, "aa"), (3, "aa"), False),
        (State(3, "aa"), (2, "bb"), False),
        (State(3, "aa", "aa", "bb"), (3, "bb"), False),
        (State(0, "00"), (0, "11"), False),
    ],
)
def test_a_request_that_knows_more_makes_the_node_ask_its_peers(
    standing: Standing, founded: Any, known: State, request_head: tuple[int, str], pulled: bool
) -> None:
    asked: list[str] = []

    async def pull(subject: str) -> None:
        asked.append(subject)

    standing.pull = pull
    standing.custodian = SimpleNamespace(  # type: ignore[assignment]
        chains=SimpleNamespace(state=lambda _: known), people=SimpleNamespace(subject=lambda _: 1)
    )
    founded.run(standing.catch_up("cl1x", *request_head))
    assert asked == (["cl1x"] if pulled else [])


def test_only_other_members_logs_of_this_network_are_watched(standing: Standing, founded: Any) -> None:
    name = founded.network[:16]
    verifier = standing.log_verifier_of(f"{name}/{founded.software[0].token}")
    assert verifier is not None
    assert verifier.name == f"{name}/{founded.software[0].token}"
    assert standing.log_verifier_of(f"{name}/{founded.software[1].token}") is None
    assert standing.log_verifier_of(f"{'0' * 16}/{founded.software[0].token}") is None
    assert standing.log_verifier_of(f"{name}/cl1nobody") is None
    assert standing.log_verifier_of("") is None


def grown(*leaves: bytes) -> Frontier:
    frontier = Frontier(0, [])
    frontier.append_batch([leaf_hash(one) for one in leaves])
    return frontier


def test_a_log_smaller_than_or_different_from_its_anchor_was_rolled_back(
    standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = {3: grown(b"a", b"b", b"c").root()}
    anchor = AnchorState(v=1, node=standing.node, size=3, root=roots[3].hex(), height=1, time=1)
    monkeypatch.setattr(standing.directory, "anchor", lambda _: anchor)
    standing.check_anchor(5, roots.__getitem__)
    assert standing.anchored == 3
    with pytest.raises(VerificationError) as refusal:
        standing.check_anchor(2, roots.__getitem__)
    assert refusal.value.code == "rolled-back"
    with pytest.raises(VerificationError) as refusal:
        standing.check_anchor(5, lambda _: bytes(32))
    assert refusal.value.code == "rolled-back"


def test_without_an_anchor_there_is_nothing_to_compare(standing: Standing) -> None:
    standing.check_anchor(0, lambda _: bytes(32))


def test_a_store_that_is_not_what_was_published_was_put_back() -> None:
    frontier = grown(b"a", b"b")
    Standing.check_store(frontier, 2, frontier.root())
    for size, root in ((1, frontier.root()), (2, bytes(32))):
        with pytest.raises(VerificationError) as refusal:
            Standing.check_store(frontier, size, root)
        assert refusal.value.code == "rolled-back"
