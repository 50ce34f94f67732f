"""What a custodian answers: its receipt, and when it allowed the request its shares, sealed to the reader's fresh key.

The seal is bound to request, node and index of the log entry, so shares can't be passed on as the answer to another
request. Ciphertexts, locks and manifests ride beside it: without shares they open nothing. Spec: docs/spec/access.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from careledger.access.receipt import Receipt
from careledger.access.request import RECORDS_MAX
from careledger.errors import MalformedError
from careledger.seal import SealingKey, SealingPublicKey, info

__all__ = [
    "AccessAnswer",
    "decode_access_answer",
    "encode_access_answer",
    "open_answer",
    "seal_answer",
]


class AccessAnswer(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """MessagePack [receipt, denied, sealed, submissions, listed].

    `denied` is the reason code of a denial, else nil; `sealed` is empty when denied and for a list. `submissions` are
    encoded records.SubmissionViews of what was asked for (with `content`), `listed` the canonical manifests of a list.
    """

    receipt: Receipt
    denied: str | None = None
    sealed: bytes = b""
    submissions: list[bytes] = []
    listed: list[bytes] = []


_Share = tuple[
    Annotated[bytes, Meta(min_length=16, max_length=16)], Annotated[bytes, Meta(min_length=33, max_length=33)]
]
_shares: msgspec.msgpack.Decoder[list[tuple[bytes, bytes]]] = msgspec.msgpack.Decoder(
    Annotated[list[_Share], Meta(max_length=RECORDS_MAX)]
)
_decoder = msgspec.msgpack.Decoder(AccessAnswer)
_encoder = msgspec.msgpack.Encoder()


def encode_access_answer(answer: AccessAnswer) -> bytes:
    """The MessagePack form of an answer."""
    return _encoder.encode(answer)


def decode_access_answer(data: bytes) -> AccessAnswer:
    """Parse an answer. Raises MalformedError `bad-answer`."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise MalformedError("bad-answer", f"an access answer of {len(data)} bytes does not parse") from None


def seal_answer(
    shares: Sequence[tuple[bytes, bytes]],
    *,
    key: SealingPublicKey,
    network: str,
    request: bytes,
    node: str,
    index: int,
) -> bytes:
    """Seal [record id (16 bytes), share (y ‖ x, 33 bytes)] pairs to the reader's fresh key.

    `request` is the request's message id, `index` that of the log entry: on disk before this is sent.
    """
    bound_to = info(network, "answer", request=request.hex(), node=node, index=index)
    return key.seal(_encoder.encode(shares), info=bound_to)


def open_answer(
    sealed: bytes, *, key: SealingKey, network: str, request: bytes, node: str, index: int
) -> list[tuple[bytes, bytes]]:
    """The (record id, share) pairs of `seal_answer`; `index` is that of the verified receipt.

    Raises VerificationError `not-openable`; MalformedError `bad-answer`.
    """
    bound_to = info(network, "answer", request=request.hex(), node=node, index=index)
    content = key.open(sealed, info=bound_to)
    try:
        return _shares.decode(content)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise MalformedError("bad-answer", f"the sealed answer of {node} does not hold shares") from None
