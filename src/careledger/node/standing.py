"""Whether this node may serve, and what its operator should know: rollback check, peers, directory head, disk.

A node that was started from an older copy of its disk would hand out a second history. So it compares itself with its
last anchor and with what its peers cosigned before it serves anybody (DESIGN 5.5).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from careledger.custody import Custodian
from careledger.directory import Directory
from careledger.errors import UnavailableError, VerificationError
from careledger.tlog import Frontier, Verifier

__all__ = ["NEVER_MS", "Standing"]

NEVER_MS = 1 << 40
"""The age of a comparison that never took place."""
IN_TOUCH_MS = 60_000
Rollback = Literal["pending", "checked", "rollback-unchecked", "rolled-back"]
CatchUp = Callable[[str], Awaitable[None]]


class Standing:
    """One node's view of its own state. Times in ms by `now_ms`."""

    def __init__(self, node: str, directory: Directory, *, now_ms: Callable[[], int]) -> None:
        self.node = node
        self.directory = directory
        self._now_ms = now_ms
        self.rollback: Rollback = "pending"
        self.problem = ""
        self.compared: dict[str, int] = {}
        """When consent heads were last compared with a peer."""
        self.directory_confirmed = now_ms()
        self.custodian: Custodian | None = None
        self.pull: CatchUp | None = None
        self.anchored = 0
        self.cosigned_by: list[str] = []
        self.directory_fault: Callable[[], str] = str
        """Why this node's replica of the directory stands still; empty when it doesn't."""
        self.faults: dict[str, str] = {}
        """Peer -> what it did last that cannot be right."""

    def require_service(self) -> None:
        """Raises UnavailableError `starting`, `rolled-back`."""
        if self.rollback == "pending":
            raise UnavailableError("starting", "this node is comparing itself with its peers; try again in a second")
        if self.rollback == "rolled-back":
            raise UnavailableError(
                "rolled-back", "this node's log is not what its peers cosigned; it serves nobody until it is repaired"
            )

    def heads_age_ms(self, custodians: Sequence[str], threshold: int, now_ms: int) -> int:
        """How long ago this node compared heads with t−1 others of these custodians; NEVER_MS if it never did."""
        ages = sorted(
            now_ms - self.compared[peer] if peer in self.compared else NEVER_MS
            for peer in custodians
            if peer != self.node
        )
        needed = threshold - 1
        if needed <= 0:
            return 0
        return max(0, ages[needed - 1]) if needed <= len(ages) else NEVER_MS

    async def catch_up(self, subject: str, seq: int, head: str) -> None:
        """Before deciding: if the request knows a newer consent head than this node, ask the peers for it."""
        if self.custodian is None or self.pull is None:
            return
        state = self.custodian.chains.state(self.custodian.people.subject(subject))
        if seq > state.seq or (seq == state.seq and seq and head != state.head and head not in state.heads):
            await self.pull(subject)

    def log_verifier_of(self, origin: str) -> Verifier | None:
        """The key of another member's log by its origin; None for logs that this node doesn't watch."""
        network, _, node = origin.partition("/")
        if network != self.directory.network[:16] or node == self.node:
            return None
        return self.directory.log_verifier(node)

    @staticmethod
    def check_store(frontier: Frontier, size: int, root: bytes) -> None:
        """Compare the store's tree with that of the published files. Raises VerificationError `rolled-back`."""
        if (frontier.size, frontier.root()) != (size, root):
            raise VerificationError(
                "rolled-back",
                f"the store has another history of {frontier.size} entries than the published log of {size}: one of "
                "them was put back or rewritten; restore the store, or delete the log's folder to build it again",
            )

    def check_anchor(self, size: int, root_at: Callable[[int], bytes]) -> None:
        """Compare the own log with its last anchor. Raises VerificationError `rolled-back`."""
        anchor = self.directory.anchor(self.node)
        if anchor is None or not anchor.size:
            return
        self.anchored = anchor.size
        if anchor.size > size:
            raise VerificationError(
                "rolled-back", f"the log has {size} entries, its anchor in the directory {anchor.size}: restore it"
            )
        if root_at(anchor.size).hex() != anchor.root:
            raise VerificationError(
                "rolled-back", f"the log differs from its anchor at size {anchor.size}: it was rewritten; restore it"
            )

    def health(self) -> dict[str, object]:
        """What GET /health says: no personal data, and for each problem what to do."""
        now = self._now_ms()
        status, todo = "ok", ""
        failed = self.custodian.writer.failed if self.custodian is not None else None
        if self.rollback != "checked":
            status = {"pending": "starting"}.get(self.rollback, self.rollback)
            todo = self.problem
        elif failed is not None:
            status, todo = failed, "free space on this node's disk; it recovers by itself"
        in_touch = [peer for peer, at in self.compared.items() if now - at <= IN_TOUCH_MS]
        size = self.custodian.writer.frontier.size if self.custodian is not None else 0
        return {
            "status": status,
            "serving": self.rollback in ("checked", "rollback-unchecked"),
            "todo": todo,
            "node": self.node,
            "network": self.directory.network,
            "log_entries": size,
            "published_entries": self.custodian.published[0] if self.custodian is not None else 0,
            "cosigned_by": self.cosigned_by,
            "anchored_entries": self.anchored,
            "directory_fault": self.directory_fault(),
            "directory_height": self.directory.height,
            "directory_age_ms": max(0, now - self.directory.time_ms),
            "peers_in_touch": sorted(in_touch),
            "faults": self.faults,
        }
