"""Figures with their spread: percentiles of one round, medians of several."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

__all__ = ["Goal", "figure", "percentile", "rate"]


class Goal(NamedTuple):
    """What a measure is to reach: `p50`/`p99` are upper limits in ms, `value` is a limit in the measure's unit."""

    text: str
    value: float
    at_least: bool = False
    p99: float | None = None

    def met(self, value: float, p99: float | None) -> bool:
        """Whether the figures reach the goal."""
        if self.at_least:
            return value >= self.value
        return value <= self.value and (self.p99 is None or p99 is None or p99 <= self.p99)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` (0 to 1) of them don't exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def figure(rounds: Sequence[Sequence[float]], *, unit: str, goal: Goal, by: str = "p50", **more: Any) -> dict[str, Any]:
    """Latencies of several rounds: medians over the rounds of their p50 and p99; `value` is one of the two."""
    p50 = median(percentile(values, 0.5) for values in rounds)
    p99 = median(percentile(values, 0.99) for values in rounds)
    value = p99 if by == "p99" else p50
    return {
        "value": _short(value),
        "unit": unit,
        "p50": _short(p50),
        "p99": _short(p99),
        "goal": goal.text,
        "met": goal.met(value, p99),
        "rounds": [_short(percentile(values, 0.99 if by == "p99" else 0.5)) for values in rounds],
        **more,
    }


def rate(rounds: Sequence[float], *, unit: str, goal: Goal, **more: Any) -> dict[str, Any]:
    """One value a round: the median over the rounds, and all of them. There is no p50 or p99 (null) of a total."""
    value = median(rounds)
    return {
        "value": _short(value),
        "unit": unit,
        "p50": more.pop("p50", None),
        "p99": more.pop("p99", None),
        "goal": goal.text,
        "met": goal.met(value, None),
        "rounds": [_short(one) for one in rounds],
        **more,
    }


def _short(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}") if abs(value) < 10_000 else float(round(value))
