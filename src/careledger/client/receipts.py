"""Receipts for what was handed in: the proof that a node's log keeps this very message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from careledger.access import EntryBody, Receipt, encode_receipt, verify_receipt
from careledger.client.nodes import Node
from careledger.consent import EventMessage
from careledger.errors import VerificationError
from careledger.seal import Envelope, decode, envelope_message_id

__all__ = ["ConsentReceipts", "EventsSent", "checked_keep_receipt"]

_ENVELOPE_MAX: Final = 1 << 19


class ConsentReceipts(msgspec.Struct, frozen=True, array_like=True):
    """The answer of POST /v1/consent: a receipt for each event sent, and the head after them."""

    receipts: list[Receipt]
    seq: int
    head: str


class EventsSent(msgspec.Struct, frozen=True):
    """Events on their way to every custodian: the body of the request, and the message ids its receipts must name."""

    body: bytes
    ids: list[bytes]

    @classmethod
    def of(cls, messages: Sequence[EventMessage]) -> EventsSent:
        envelopes = [decode(message.envelope, Envelope, size_max=_ENVELOPE_MAX) for message in messages]
        return cls(msgspec.msgpack.encode(messages), [envelope_message_id(one) for one in envelopes])

    def checked(self, said: ConsentReceipts, node: Node, *, network: str) -> list[bytes]:
        """The node's receipts as they are kept, each proven to be about its event.

        Raises VerificationError `missing-receipt`, and as `checked_keep_receipt`.
        """
        if len(said.receipts) != len(self.ids):
            raise VerificationError(
                "missing-receipt", f"the node gave {len(said.receipts)} receipts for {len(self.ids)} events"
            )
        for receipt, message_id in zip(said.receipts, self.ids, strict=True):
            checked_keep_receipt(receipt, node, network=network, message_id=message_id)
        return [encode_receipt(receipt) for receipt in said.receipts]


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
