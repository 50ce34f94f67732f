"""Measuring careledger as it runs: a network of separate processes, real disk syncs, figures with their spread."""

from careledger.bench.running import NAMES, run
from careledger.bench.world import World

__all__ = ["NAMES", "World", "run"]
