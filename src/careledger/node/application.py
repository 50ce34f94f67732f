"""The node's HTTP. What nodes and clients ask all day is dispatched here, on method and path; what operators and
developers ask, and whatever is malformed, goes to litestar (`documented`), which a node loads when it is first asked
for: its import would be a third of a node's start.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from careledger.errors import Error
from careledger.node.answers import BODY_BYTES_MAX, Asgi, Receive, Scope, Send, read_body, refuse, reply
from careledger.node.api import Answered, Api
from careledger.node.directing import Directing
from careledger.node.directing_cometbft import CometbftDirecting
from careledger.node.directory_api import DirectoryApi
from careledger.node.reports import Metrics, log

__all__ = ["SMALL_BODY_BYTES_MAX", "Route", "application", "hot_routes"]

SMALL_BODY_BYTES_MAX = 4 << 20
_DOCUMENT = re.compile(r"/v1/document/(cl1[02-9ac-hj-np-z]{46})")
_IDENTITY = re.compile(r"/v1/directory/identity/(cl1[02-9ac-hj-np-z]{46})")
_PROOF = re.compile(r"/v1/directory/proof/([a-z-]{1,32})/([!-~]{1,256})")
_BLOCKS = re.compile(rb"after=(0|[1-9][0-9]{0,14})(?:&wait=([01]))?")
_SIZE = re.compile(rb"size=(0|[1-9][0-9]{0,14})")
_COSIGNED = {b"": False, b"cosigned=0": False, b"cosigned=1": True}


class Route(NamedTuple):
    """A route outside litestar: its path, its name in metrics, what answers it, and its largest body in bytes."""

    path: str
    name: str
    call: Callable[[bytes], Awaitable[Answered]]
    size_max: int = SMALL_BODY_BYTES_MAX


def application(api: Api, directing: Directing | CometbftDirecting, metrics: Metrics, *, genesis: bytes) -> Asgi:
    """The ASGI application of one node."""
    directory = DirectoryApi(directing, genesis)
    posts = {route.path: route for route in hot_routes(api)}
    rest = _Documented(api, directory, metrics)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        route = None
        if scope["type"] == "http":
            path, method = scope["path"], scope["method"]
            if method == "POST":
                route = posts.get(path) or _directory_post(directory, path, scope["query_string"])
            elif method == "GET":
                route = _get(api, directory, path, scope["query_string"])
        if route is None:
            await rest(scope, receive, send)
        else:
            await _answer(scope, receive, send, metrics, route)

    return app


def hot_routes(api: Api) -> list[Route]:
    """What is answered by path alone."""
    return [
        Route("/v1/access", "access", api.access),
        Route("/v1/submission", "submission", api.submission, BODY_BYTES_MAX),
        Route("/v1/consent", "consent", api.consent),
        Route("/v1/consent/read", "consent-read", api.consent_read),
        Route("/v1/document", "document", api.document),
        Route("/v1/audit", "audit", api.audit),
        Route("/v1/sync", "sync", api.sync),
        Route("/witness/add-checkpoint", "witness", api.add_checkpoint),
    ]


def _directory_post(directory: DirectoryApi, path: str, query: bytes) -> Route | None:
    if path == "/v1/directory/transaction":
        return Route(path, "transaction", directory.transaction)
    if path == "/v1/directory/relay":
        return Route(path, "relay", directory.relay)
    if path == "/v1/directory/cosignature" and (found := _SIZE.fullmatch(query)):
        return Route(path, "cosignature", partial(directory.cosignature, size=int(found[1])))
    return None


def _get(api: Api, directory: DirectoryApi, path: str, query: bytes) -> Route | None:
    """The route of a well-formed GET; None for what litestar answers or refuses."""
    if path.startswith("/log/"):
        return _without_body(path, "log", partial(api.log_file, path[5:]))
    if path.startswith("/witness/checkpoint/"):
        return _without_body(path, "witness-read", partial(api.cosigned, path[20:]))
    if path == "/health":
        return _without_body(path, "health", api.health)
    if not query and (found := _DOCUMENT.fullmatch(path)):
        return _without_body(path, "document-read", partial(api.document_of, found[1]))
    if path.startswith("/v1/directory/"):
        return _directory_get(directory, path, query)
    return None


def _directory_get(directory: DirectoryApi, path: str, query: bytes) -> Route | None:
    if path == "/v1/directory/blocks" and (at := _BLOCKS.fullmatch(query)):
        return _without_body(path, "blocks", partial(directory.blocks, after=int(at[1]), wait=at[2] == b"1"))
    if found := _PROOF.fullmatch(path):
        cosigned = _COSIGNED.get(query)
        if cosigned is not None:
            return _without_body(path, "proof", partial(directory.proof, found[1], found[2], cosigned=cosigned))
    if query:
        return None
    if found := _IDENTITY.fullmatch(path):
        return _without_body(path, "identity", partial(directory.identity, found[1]))
    if path == "/v1/directory/head":
        return _without_body(path, "head", directory.head)
    if path == "/v1/directory/genesis":
        return _without_body(path, "genesis", directory.genesis)
    return None


def _without_body(path: str, name: str, call: Callable[[], Awaitable[Answered]]) -> Route:
    return Route(path, name, lambda _: call(), 0)


async def _answer(scope: Scope, receive: Receive, send: Send, metrics: Metrics, route: Route) -> None:
    started, name = time.perf_counter(), route.name
    try:
        body = await read_body(scope, receive, size_max=route.size_max)
        answered = await route.call(body)
    except Error as error:
        metrics.observe(name, error.code, started)
        await refuse(send, error)
        return
    except Exception:
        metrics.observe(name, "bug", started)
        log.exception("bug", extra={"fields": {"route": name}})
        await refuse(send, Error("bug", "this node failed in a way nobody foresaw; its log has more"))
        return
    metrics.observe(name, answered.code, started)
    await reply(send, answered.body, status=answered.status, content=answered.content)


class _Documented:
    """The litestar application, loaded in a thread when it is first asked for, while the loop goes on serving."""

    def __init__(self, api: Api, directory: DirectoryApi, metrics: Metrics) -> None:
        self._parts = (api, directory, metrics)
        self._loading = asyncio.Lock()
        self._app: Asgi | None = None

    def _load(self) -> Asgi:
        from careledger.node.documented import documented  # noqa: PLC0415

        return documented(*self._parts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._loading:
            if self._app is None:
                self._app = await asyncio.to_thread(self._load)
            app = self._app
        await app(scope, receive, send)
