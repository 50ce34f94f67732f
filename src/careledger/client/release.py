"""One access request and its answers: what is signed, and what must hold before a custodian's answer is used.

Pure but for HPKE: the same for readers, owners and managers. Each answer is checked on its own as it arrives; what
only several answers together can show (shares against commitments, content) is for whoever combines them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

import msgspec

from careledger.access import (
    AccessAnswer,
    AccessMessage,
    AccessRequest,
    Basis,
    EntryBody,
    Head,
    decode_access_answer,
    encode_access_message,
    encode_receipt,
    open_answer,
    sign_request,
    verify_access_receipt,
)
from careledger.client.exchange import refusal
from careledger.client.keys import HeldKeys
from careledger.client.nodes import Node
from careledger.errors import MalformedError, NotPermittedError, VerificationError
from careledger.records import Manifest
from careledger.seal import SealingKey, decode
from careledger.transport import Answer

__all__ = ["Asked", "Release", "asked", "checked_listing", "checked_release"]

MANIFEST_MAX: Final = 64 << 10
LISTED_MAX: Final = 200_000
"""Manifests of one list: a life's records many times over."""

DENIAL_TEXTS: Final = {
    "stale": "the custodian could not compare its state with the others'; try again in a minute",
    "unknown-identity": "the directory does not know the reader (or the organisation); enrol first",
    "not-affiliated": "no valid affiliation with the organisation; get today's",
    "no-grant": "the subject gave no grant for this; ask the subject",
    "revoked": "the subject revoked the grant; ask the subject",
    "expired": "the grant has expired; ask the subject for a new one",
    "wrong-purpose": "the grant is not for this purpose; ask the subject",
    "out-of-scope": "the grant does not cover this; ask the subject",
    "not-enough-approvals": "the grant asks for approvals of others; have them approve this request",
    "over-limit": "too many requests in the last hour; wait",
}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A signed request with the fresh key its answers are sealed to; `records` are 16-byte ids, None for a list."""

    envelope: bytes
    id: bytes
    key: SealingKey
    subject: str
    records: tuple[bytes, ...] | None
    affiliation: bytes | None = None
    affiliation_id: str | None = None
    approvals: tuple[bytes, ...] = ()

    def message(self, *, content: bool, affiliation: bool = True) -> bytes:
        """The body of POST /v1/access; `affiliation` False where the node has logged it already."""
        return encode_access_message(
            AccessMessage(
                request=self.envelope,
                key=self.key.public,
                affiliation=self.affiliation if affiliation else None,
                approvals=list(self.approvals),
                content=content,
            )
        )


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """A custodian's answer that proved itself: receipt (bytes), log entry, shares by record id, unchecked views.

    In the answer to a manager's list, `shares` has the custodian's share of K_c under sixteen zero bytes.
    """

    node: str
    receipt: bytes
    entry: EntryBody
    shares: dict[bytes, bytes]
    submissions: list[bytes]
    listed: list[bytes]


def asked(
    keys: HeldKeys,
    *,
    network: str,
    subject: str,
    records: Sequence[bytes] | None,
    purpose: str,
    basis: Basis,
    head: tuple[int, str],
    client: str,
    now_ms: int,
    rand: Callable[[int], bytes],
    organisation: str | None = None,
    affiliation: bytes | None = None,
    affiliation_id: str | None = None,
) -> Asked:
    """Sign a request with a fresh nonce and a fresh X-Wing key."""
    key = SealingKey(rand(32))
    unset = msgspec.UNSET
    request = AccessRequest(
        network=network,
        reader=keys.token,
        for_=unset if organisation is None else organisation,
        affiliation=unset if affiliation_id is None else affiliation_id,
        subject=subject,
        records=unset if records is None else [record.hex() for record in records],
        list_=True if records is None else unset,
        purpose=purpose,
        basis=basis,
        key=sha256(key.public).hexdigest(),
        head=Head(seq=head[0], hash=head[1]),
        client=client,
        time=now_ms,
        nonce=rand(16).hex(),
    )
    envelope, message_id = sign_request(request, keys.signer)
    return Asked(
        envelope=envelope,
        id=message_id,
        key=key,
        subject=subject,
        records=None if records is None else tuple(records),
        affiliation=affiliation,
        affiliation_id=affiliation_id,
    )


def checked_release(answer: Answer, request: Asked, node: Node, *, network: str, now_ms: int) -> Release:
    """Return a custodian's answer once it proves what it must.

    1. it parses; 2. the receipt is of an `access` entry in this node's log, under its signed checkpoint, about exactly
    this request; 3. the entry says allow, and the answer does not say otherwise; 4. what is sealed opens with the fresh
    key for this node, request and entry, and holds a share of each record asked for, and of no other.
    Raises NotPermittedError with the denial's code once its receipt is proven; the node's refusal; VerificationError
    `wrong-decision`, `not-openable`, `missing-share`, and as verify_access_receipt; MalformedError.
    """
    parsed = _parsed(answer, now_ms=now_ms)
    entry = verify_access_receipt(
        parsed.receipt, network=network, node=node.token, log_verifier=node.log, request=request.id
    )
    if parsed.denied is not None or entry.decision != "allow":
        raise _denial(parsed, entry)
    shares: dict[bytes, bytes] = {}
    if parsed.sealed or request.records is not None:
        shares = dict(
            open_answer(
                parsed.sealed,
                key=request.key,
                network=network,
                request=request.id,
                node=node.token,
                index=entry.index,
            )
        )
    if request.records is not None and shares.keys() != set(request.records):
        raise VerificationError(
            "missing-share", f"the node released {len(shares)} shares for {len(request.records)} records"
        )
    return Release(
        node=node.token,
        receipt=encode_receipt(parsed.receipt),
        entry=entry,
        shares=shares,
        submissions=parsed.submissions,
        listed=parsed.listed,
    )


def checked_listing(release: Release, *, network: str, subject: str) -> list[tuple[Manifest, bytes]]:
    """The manifests of a list with their bytes, parsed; their authors' signatures come with the records themselves.

    Raises MalformedError; VerificationError `wrong-subject`.
    """
    if len(release.listed) > LISTED_MAX:
        raise MalformedError("too-large", f"a list of {len(release.listed)} records is more than anybody has")
    found = []
    for data in release.listed:
        manifest = decode(data, Manifest, size_max=MANIFEST_MAX)
        if manifest.network != network or manifest.subject != subject:
            raise VerificationError("wrong-subject", "a custodian listed a record of somebody else; report it")
        found.append((manifest, data))
    return found


def _parsed(answer: Answer, *, now_ms: int) -> AccessAnswer:
    if answer.status != 200 and answer.headers.get("content-type", "").startswith("application/json"):
        raise refusal(answer, now_ms=now_ms)
    if answer.status not in (200, 403):
        raise refusal(answer, now_ms=now_ms)
    try:
        return decode_access_answer(answer.body)
    except MalformedError:
        raise MalformedError(
            "garbage-answer", f"the node's answer of {len(answer.body)} bytes is no access answer; report the node"
        ) from None


def _denial(parsed: AccessAnswer, entry: EntryBody) -> NotPermittedError | VerificationError:
    code = entry.reason
    if entry.decision == "allow" or (parsed.denied is not None and parsed.denied != code):
        return VerificationError(
            "wrong-decision", "the node's answer says something else than its log; report the node"
        )
    text = DENIAL_TEXTS.get(code, "the custodian refused")
    return NotPermittedError(code, text, details={"index": entry.index, "node": entry.node})
