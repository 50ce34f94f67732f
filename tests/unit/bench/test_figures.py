from __future__ import annotations

import pytest

from careledger.bench.figures import Goal, figure, percentile, rate


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.5, 50), (0.501, 51), (0.99, 99), (0.991, 100), (1.0, 100)]
)
def test_a_percentile_is_one_of_the_values(share: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


def test_one_value_is_all_its_percentiles() -> None:
    assert percentile([7.0], 0.5) == percentile([7.0], 0.99) == 7.0


def test_figures_are_medians_over_rounds_so_one_bad_round_does_not_count() -> None:
    good, bad = [1.0] * 99 + [3.0], [50.0] * 100
    told = figure([good, bad, good], unit="ms", goal=Goal("p50 <= 2 ms", 2, p99=4))
    assert (told["value"], told["p50"], told["p99"], told["met"]) == (1.0, 1.0, 1.0, True)
    assert told["rounds"] == [1.0, 50.0, 1.0]


def test_a_goal_for_p99_counts_besides_that_for_p50() -> None:
    values = [1.0] * 90 + [9.0] * 10
    assert not figure([values], unit="ms", goal=Goal("p50 <= 2 ms, p99 <= 4 ms", 2, p99=4))["met"]
    assert figure([values], unit="ms", goal=Goal("p50 <= 2 ms", 2))["met"]
    assert figure([values], unit="ms", goal=Goal("p99 <= 10 ms", 10), by="p99")["value"] == 9.0


def test_a_rate_has_to_reach_its_goal_a_duration_to_stay_below() -> None:
    assert rate([390.0, 410.0, 420.0], unit="opens/s", goal=Goal(">= 400", 400, at_least=True))["met"]
    assert not rate([399.0], unit="opens/s", goal=Goal(">= 400", 400, at_least=True))["met"]
    assert rate([1.9], unit="s", goal=Goal("<= 2", 2))["met"]
    assert rate([1.9], unit="s", goal=Goal("<= 2", 2))["p50"] is None
