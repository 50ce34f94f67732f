"""Fork evidence travels by itself: what a node's witness has caught is put before the directory, which marks the node.

Two checkpoints of one size with different roots, both signed by the log's key, need no witness to be believed; whoever
saw them can bring them. Once is enough for the whole network.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from careledger.custody import Witness
from careledger.directory import Directory, ForkEvidence, log_origin, sign_transaction
from careledger.node.reports import log
from careledger.seal import Envelope, SigningKey

__all__ = ["Evidence"]


class Evidence:
    """One node's duty. `submit` puts transactions before the directory."""

    def __init__(
        self,
        witness: Witness,
        directory: Directory,
        *,
        signer: tuple[str, SigningKey],
        submit: Callable[[list[Envelope]], Coroutine[Any, Any, Any]],
    ) -> None:
        self._witness = witness
        self._directory = directory
        self._signer = signer
        self._submit = submit

    async def bring(self) -> None:
        """Submit the evidence of every fork that the directory has no mark of. Raises what `submit` raises."""
        for origin, cosigned, other in self._witness.forks():
            node = origin.partition("/")[2]
            known = self._directory.node(node)
            if known is None or origin != log_origin(self._directory.network, node) or self._directory.fork(node):
                continue
            payload = ForkEvidence(
                v=1,
                network=self._directory.network,
                node=node,
                checkpoints=[cosigned.decode("utf-8"), other.decode("utf-8")],
            )
            log.error("fork", extra={"fields": {"node": node, "member": known.member}})
            await self._submit([sign_transaction(payload, signers=[self._signer])])
