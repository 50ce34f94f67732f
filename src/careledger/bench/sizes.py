"""How much is measured: enough for stable medians, or with `quick` just enough to see that everything runs."""

from __future__ import annotations

import msgspec

__all__ = ["FULL", "QUICK", "Sizes"]


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Counts; `seconds` of throughput a round."""

    rounds: int = 3
    stored: int
    """Records of the patient whose single records are opened."""
    many: int
    """Records of one large request."""
    opens: int
    large_opens: int
    readers: int
    reader_processes: int
    seconds: float
    histories: int
    """Bundles of one round's import."""
    visits: int
    revocations: int
    appended: int
    verified: int
    bodies: int
    at_large: int
    """Records stored in the large network."""
    large_submission: int
    compile: bool = True
    """Whether networks are started with modules that an earlier start compiled."""
    nodes_large: int
    """Nodes of the network of `open_1_n16`."""


FULL = Sizes(
    stored=1_000, many=100, opens=300, large_opens=20, readers=16, reader_processes=2, seconds=4.0, histories=6,
    visits=27, revocations=20, appended=100_000, verified=300_000, bodies=1_000, at_large=50_000, large_submission=200,
    nodes_large=16,
)  # fmt: skip
QUICK = Sizes(
    rounds=1, stored=3, many=3, opens=3, large_opens=2, readers=2, reader_processes=2, seconds=0.1, histories=1,
    visits=1, revocations=1, appended=600, verified=600, bodies=3, at_large=6, large_submission=6, compile=False,
    nodes_large=4,
)  # fmt: skip
