"""What a node answers: one method a route, bytes in, an `Answer` out. No HTTP here but the content types.

Refusals are raised as Errors; the caller turns them into status and JSON. The same methods serve the raw ASGI
dispatch and the litestar routes that document them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import unquote

import msgspec

from careledger.access import (
    DocumentMessage,
    Receipt,
    SignedRead,
    decode_access_message,
    encode_access_answer,
)
from careledger.consent import EventMessage
from careledger.custody import (
    Acceptance,
    Custodian,
    Documents,
    Events,
    Exchange,
    Reading,
    Release,
    Witness,
    claimed_subject,
)
from careledger.errors import ConflictError, MalformedError, NotFoundError
from careledger.node.answers import JSON, MSGPACK, OCTETS, TEXT
from careledger.node.standing import Standing
from careledger.records import decode_submission
from careledger.tlog import SIZE_CONTENT_TYPE, parse_add_checkpoint, wrong_size_body

__all__ = ["Answered", "Api"]

_T = TypeVar("_T")


class Answered(msgspec.Struct, frozen=True):
    """An answer on its way out; `code` is what metrics count."""

    body: bytes
    content: bytes = MSGPACK
    status: int = 200
    code: str = "ok"


def _decoder(kind: type[_T]) -> Callable[[bytes], _T]:
    decoder = msgspec.msgpack.Decoder(kind)

    def decode_body(body: bytes) -> _T:
        try:
            return decoder.decode(body)
        except (msgspec.DecodeError, RecursionError, ValueError):
            raise MalformedError(
                "not-msgpack", f"the body of {len(body)} bytes is not the MessagePack that this route takes"
            ) from None

    return decode_body


_encode = msgspec.msgpack.Encoder().encode
_signed_read = _decoder(SignedRead)
_document = _decoder(DocumentMessage)
_events = _decoder(list[EventMessage])


class Api:
    """The routes of one node that its custody answers."""

    def __init__(
        self,
        custodian: Custodian,
        standing: Standing,
        *,
        release: Release,
        acceptance: Acceptance,
        documents: Documents,
        events: Events,
        reading: Reading,
        exchange: Exchange,
        witness: Witness,
    ) -> None:
        self.custodian = custodian
        self.standing = standing
        self._release = release
        self._acceptance = acceptance
        self._documents = documents
        self._events = events
        self._reading = reading
        self._exchange = exchange
        self._witness = witness

    async def access(self, body: bytes) -> Answered:
        """POST /v1/access: an access request; a denial has status 403 and its receipt."""
        self.standing.require_service()
        message = decode_access_message(body)
        checked = self._release.check(message)
        await self.standing.catch_up(checked.subject, *checked.head)
        answer = await self._release.answer(checked)
        if answer.denied is None:
            return Answered(encode_access_answer(answer))
        return Answered(encode_access_answer(answer), status=403, code=answer.denied)

    async def submission(self, body: bytes) -> Answered:
        """POST /v1/submission: records to keep; answers the receipt."""
        self.standing.require_service()
        receipt: Receipt = await self._acceptance.accept(decode_submission(body))
        return Answered(_encode(receipt))

    async def consent(self, body: bytes) -> Answered:
        """POST /v1/consent: consent events of one subject, in order; answers [receipts, number, head]."""
        self.standing.require_service()
        messages = _events(body)
        if not messages:
            raise MalformedError("too-large", "a request takes 1 to 64 consent events")
        receipts, seq, head = await self._events.keep(messages, subject=claimed_subject(messages[0]))
        return Answered(_encode([receipts, seq, head]))

    async def document(self, body: bytes) -> Answered:
        """POST /v1/document: an identity's document with its salt; answers the receipt."""
        self.standing.require_service()
        return Answered(_encode(await self._documents.keep(_document(body))))

    async def document_of(self, token: str) -> Answered:
        """GET /v1/document/{token}: the newest document of an identity."""
        return Answered(_encode(self._documents.stored(token)))

    async def consent_read(self, body: bytes) -> Answered:
        """POST /v1/consent/read: the part of a consent chain that the asker may see."""
        self.standing.require_service()
        return Answered(_encode(self._reading.consent(_signed_read(body))))

    async def audit(self, body: bytes) -> Answered:
        """POST /v1/audit: the access entries about the asker, with proofs under the published checkpoint."""
        self.standing.require_service()
        return Answered(_encode(await self._reading.audit(_signed_read(body))))

    async def sync(self, body: bytes) -> Answered:
        """POST /v1/sync: what this node kept, for another custodian of the same subjects."""
        return Answered(_encode(await self._exchange.serve(_signed_read(body))))

    async def add_checkpoint(self, body: bytes) -> Answered:
        """POST /witness/add-checkpoint: C2SP tlog-witness. Answered before the rollback check, too."""
        request = parse_add_checkpoint(body)
        verifier = self.standing.log_verifier_of(request.unverified_origin)
        try:
            return Answered(self._witness.add_checkpoint(request, log_verifier=verifier), TEXT)
        except ConflictError as problem:
            return Answered(wrong_size_body(problem), SIZE_CONTENT_TYPE.encode(), 409, problem.code)

    async def cosigned(self, origin: str) -> Answered:
        """GET /witness/checkpoint/{origin}: what this node last cosigned of a log, as the log's own key signed it.

        Proof towards a node that was put back to an older copy; answered before the rollback check, too.
        """
        last = self._witness.last(unquote(origin))
        if last is None:
            raise NotFoundError("unknown-log", "this witness has cosigned nothing of a log of that origin")
        return Answered(last[2], TEXT)

    async def log_file(self, path: str) -> Answered:
        """GET /log/{path}: a checkpoint, tile or entry bundle of this node's log."""
        content = TEXT if path == "checkpoint" else OCTETS
        return Answered(self.custodian.files.read(unquote(path)), content)

    async def health(self) -> Answered:
        """GET /health: {status, …}; 503 while the node does not serve."""
        health = self.standing.health()
        status = 200 if health["serving"] else 503
        return Answered(msgspec.json.encode(health), JSON, status, str(health["status"]))
