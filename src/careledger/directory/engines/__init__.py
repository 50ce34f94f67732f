"""Engines: how blocks come to be ordered and kept. The rules they execute are the package's."""

from careledger.directory.engines.embedded import Follower, Replica, Sequencer, SubmitResult

__all__ = ["Follower", "Replica", "Sequencer", "SubmitResult"]
