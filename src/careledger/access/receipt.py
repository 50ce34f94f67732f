"""Receipts: the proof that a node's log has an entry, checked without believing the node.

A receipt is {salt, body, C2SP tlog-proof}. It proves that the entry is in the tree of a checkpoint which the node
signed; that this tree stays what it is, is for cosignatures and anchors. Spec: docs/spec/access.md section 5.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from careledger.access.entry import ENTRY_BYTES_MAX, SALT_BYTES, EntryBody, EntryKind, decode_entry, leaf, origin
from careledger.errors import MalformedError, VerificationError
from careledger.seal import dsse
from careledger.tlog import Verifier, verify_proof

__all__ = [
    "Receipt",
    "decode_receipt",
    "encode_receipt",
    "verify_access_receipt",
    "verify_receipt",
]

PROOF_BYTES_MAX = 1 << 16


class Receipt(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """MessagePack [salt, body, proof]; `proof` is the text of a C2SP tlog-proof with the node's signed checkpoint."""

    salt: Annotated[bytes, Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]
    body: Annotated[bytes, Meta(max_length=ENTRY_BYTES_MAX)]
    proof: Annotated[bytes, Meta(max_length=PROOF_BYTES_MAX)]


_decoder = msgspec.msgpack.Decoder(Receipt)
_encoder = msgspec.msgpack.Encoder()


def encode_receipt(receipt: Receipt) -> bytes:
    """The MessagePack form of a receipt."""
    return _encoder.encode(receipt)


def decode_receipt(data: bytes) -> Receipt:
    """Parse a receipt. Raises MalformedError `bad-receipt`."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise MalformedError("bad-receipt", f"a receipt of {len(data)} bytes does not parse") from None


def verify_receipt(receipt: Receipt, *, network: str, node: str, log_verifier: Verifier, kind: EntryKind) -> EntryBody:
    """Prove that the log of `node` has this entry, of this kind.

    1. `log_verifier` is for the node's origin; 2. its signature on the checkpoint; 3. inclusion of the leaf that salt,
    body and `kind` make; 4. the body is canonical and says the same network, node, index and kind. Still the caller's:
    that the verifier's key is the one the directory has for the node; whether the entry is about its own message
    (`verify_access_receipt`); cosignatures on the checkpoint (`tlog.parse_proof(receipt.proof).checkpoint`).
    Raises VerificationError `wrong-log`, `wrong-entry` and as tlog.verify_proof; MalformedError.
    """
    expected = origin(network, node)
    if log_verifier.name != expected:
        raise VerificationError("wrong-log", f"the key given is for log {log_verifier.name}, not for {expected}")
    _, index = verify_proof(receipt.proof, leaf=leaf(kind, receipt.salt, receipt.body), verifier=log_verifier)
    entry = decode_entry(receipt.body)
    if (entry.network, entry.node, entry.index, entry.kind) != (network, node, index, kind):
        raise VerificationError(
            "wrong-entry",
            f"the body at index {index} of {expected} says it is another entry; keep it and report the node",
        )
    return entry


def verify_access_receipt(
    receipt: Receipt, *, network: str, node: str, log_verifier: Verifier, request: bytes
) -> EntryBody:
    """Like `verify_receipt` for an `access` entry about the request with this message id.

    Raises also VerificationError `wrong-request`: the node shows somebody else's entry, or an older one.
    """
    entry = verify_receipt(receipt, network=network, node=node, log_verifier=log_verifier, kind="access")
    envelopes = entry.envelopes
    if not envelopes or dsse.envelope_message_id(envelopes[0]) != request:
        raise VerificationError(
            "wrong-request", f"the receipt of {node} is not about this request; the access is not proven to be logged"
        )
    return entry
