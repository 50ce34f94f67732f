"""Receipts for what was handed in: the proof that a node's log keeps this very message."""

from __future__ import annotations

from careledger.access import EntryBody, Receipt, verify_receipt
from careledger.client.nodes import Node
from careledger.errors import VerificationError
from careledger.seal import envelope_message_id

__all__ = ["checked_keep_receipt"]


def checked_keep_receipt(receipt: Receipt, node: Node, *, network: str, message_id: bytes | None) -> EntryBody:
    """The entry of a `keep` receipt, proven to be of this node's log and about the message with this id.

    `message_id` None: about no envelope (a document). Raises VerificationError `wrong-receipt`, `wrong-decision`, and
    as verify_receipt; MalformedError.
    """
    entry = verify_receipt(receipt, network=network, node=node.token, log_verifier=node.log, kind="keep")
    if entry.decision != "accept":
        raise VerificationError("wrong-decision", "the node's receipt is for something it refused; report the node")
    named = [envelope_message_id(one) for one in entry.envelopes[:1]] if entry.envelopes else []
    if message_id is not None and named != [message_id]:
        raise VerificationError("wrong-receipt", "the node's receipt is not about what was sent; report the node")
    return entry
