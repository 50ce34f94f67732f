"""What a node answers about the directory: one method a route, typed arguments in, an `Answered` out."""

from __future__ import annotations

import msgspec

from careledger.errors import MalformedError, NotFoundError
from careledger.node.answers import JSON
from careledger.node.api import Answered
from careledger.node.directing import Directing, parse_transactions
from careledger.node.directing_cometbft import CometbftDirecting

__all__ = ["DirectoryApi"]


class DirectoryApi:
    """The routes of one node that its directory replica answers. They raise Errors like `Api`'s."""

    def __init__(self, directing: Directing | CometbftDirecting, genesis: bytes) -> None:
        self._directing = directing
        self._genesis = genesis

    async def transaction(self, body: bytes) -> Answered:
        """POST /v1/directory/transaction: one envelope or an array; answers {results, height} once applied here."""
        results = await self._directing.submit(parse_transactions(body))
        height = self._directing.directory.height
        return Answered(msgspec.json.encode({"results": results, "height": height}), JSON)

    async def relay(self, body: bytes) -> Answered:
        """POST /v1/directory/relay: another node's transaction for this node's CometBFT; answers {code}. It stays in
        the other node's outbox, and in no other."""
        if body.startswith(b"["):
            raise MalformedError("bad-field", "one transaction is relayed at a time")
        parse_transactions(body)
        return Answered(msgspec.json.encode({"code": await self._directing.relay(body)}), JSON)

    async def cosignature(self, body: bytes, *, size: int) -> Answered:
        """POST /v1/directory/cosignature: a node's cosignature of the directory's checkpoint of this size."""
        self._directing.cosigned(size, body)
        return Answered(b"", JSON, 204)

    async def genesis(self) -> Answered:
        """GET /v1/directory/genesis: the exact bytes, whose SHA-256 is the network."""
        return Answered(self._genesis, JSON)

    async def head(self) -> Answered:
        """GET /v1/directory/head: height, app hash, newest and newest cosigned checkpoint."""
        return Answered(msgspec.json.encode(self._directing.head()), JSON)

    async def blocks(self, *, after: int, wait: bool) -> Answered:
        """GET /v1/directory/blocks: MessagePack [blocks, checkpoint]; with `wait` only when there are some, or soon."""
        return Answered(msgspec.msgpack.encode(await self._directing.blocks(after, wait=wait)))

    async def identity(self, token: str) -> Answered:
        """GET /v1/directory/identity/{token}: {state, operations}. Raises NotFoundError `unknown-identity`."""
        state = self._directing.directory.identity(token)
        if state is None:
            raise NotFoundError("unknown-identity", "the directory knows no identity of that token")
        operations = self._directing.engine.operations(token)
        return Answered(msgspec.json.encode({"state": state, "operations": operations}), JSON)

    async def proof(self, kind: str, ident: str, *, cosigned: bool) -> Answered:
        """GET /v1/directory/proof/{kind}/{id}: a value of the state map, or its absence, proven."""
        if len(kind) > 32 or len(ident) > 256:
            raise MalformedError("bad-field", "no kind or id is that long")
        return Answered(msgspec.json.encode(await self._directing.proof(kind, ident, cosigned=cosigned)), JSON)
