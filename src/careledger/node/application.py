"""The node's HTTP: hot routes dispatched on the path, everything else by litestar, one OpenAPI document for both."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, NamedTuple

import msgspec
from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.params import Parameter

import careledger
from careledger.errors import Error, MalformedError, NotFoundError
from careledger.node.answers import BODY_BYTES_MAX, JSON, Asgi, Receive, Scope, Send, read_body, refuse, reply
from careledger.node.api import Answered, Api
from careledger.node.directing import Directing, parse_transactions
from careledger.node.reports import Metrics, log
from careledger.seal import encode

__all__ = ["application"]

SMALL_BODY_BYTES_MAX = 4 << 20
_TOKEN = Annotated[str, Parameter(pattern=r"^cl1[02-9ac-hj-np-z]{46}$", max_length=49)]


def application(api: Api, directing: Directing, metrics: Metrics, *, genesis: bytes) -> Asgi:
    """The ASGI application of one node."""
    posts = {route.path: route for route in _hot_routes(api)}
    rest: Any = _rest(api, directing, metrics, genesis)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await rest(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        if method == "POST" and path in posts:
            await _answer(scope, receive, send, metrics, posts[path])
        elif method == "GET" and path.startswith("/log/"):
            await _answer(scope, receive, send, metrics, _Route(path, "log", lambda _: api.log_file(path[5:]), 0))
        else:
            await rest(scope, receive, send)

    return app


class _Route(NamedTuple):
    """A route outside litestar: its path, its name in metrics, what answers it, and its largest body in bytes."""

    path: str
    name: str
    call: Callable[[bytes], Awaitable[Answered]]
    size_max: int = SMALL_BODY_BYTES_MAX


def _hot_routes(api: Api) -> list[_Route]:
    return [
        _Route("/v1/access", "access", api.access),
        _Route("/v1/submission", "submission", api.submission, BODY_BYTES_MAX),
        _Route("/v1/consent", "consent", api.consent),
        _Route("/v1/consent/read", "consent-read", api.consent_read),
        _Route("/v1/document", "document", api.document),
        _Route("/v1/audit", "audit", api.audit),
        _Route("/v1/sync", "sync", api.sync),
        _Route("/witness/add-checkpoint", "witness", api.add_checkpoint),
    ]


async def _answer(scope: Scope, receive: Receive, send: Send, metrics: Metrics, route: _Route) -> None:
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


class _Refusal(msgspec.Struct):
    """Every refusal: a stable reason code, one line for people, further facts, and the node's time (ms UTC)."""

    code: str
    message: str
    details: dict[str, Any]
    time: int


def _refused(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    if isinstance(error, HTTPException):
        detail = " ".join(str(error.detail).split()) or type(error).__name__
        code = {404: "not-found", 405: "wrong-method", 413: "too-large"}.get(error.status_code, "bad-request")
        problem, status = Error(code, detail), error.status_code
    elif isinstance(error, Error):
        problem, status = error, error.http_status
    else:
        log.error("bug", exc_info=error)
        problem, status = Error("bug", "this node failed in a way nobody foresaw; its log has more"), 500
    details = {name: value for name, value in problem.details.items() if isinstance(value, str | int | list | dict)}
    body = {"code": problem.code, "message": problem.message, "details": details, "time": time.time_ns() // 1_000_000}
    return Response(encode(body), status_code=status, media_type=JSON.decode())


def _plain(answered: Answered) -> Response[bytes]:
    return Response(answered.body, status_code=answered.status, media_type=answered.content.decode())


def _rest(api: Api, directing: Directing, metrics: Metrics, genesis: bytes) -> Litestar:
    """The routes where a framework's convenience costs nothing that matters, and the documentation of all."""
    handlers: list[Any] = [
        *_documented(api),
        *_operator_routes(api, metrics),
        *_directory_routes(directing, genesis),
    ]
    return Litestar(
        route_handlers=handlers,
        exception_handlers={Exception: _refused},
        request_max_body_size=SMALL_BODY_BYTES_MAX,
        openapi_config=OpenAPIConfig(
            title="careledger node",
            version=careledger.__version__,
            description="Bodies are MessagePack (docs/spec/http.md), refusals JSON {code, message, details, time}.",
            path="/openapi",
        ),
        logging_config=None,
    )


def _documented(api: Api) -> list[Any]:
    """The hot routes, for the OpenAPI document; they are answered before litestar sees them."""
    handlers = [_documented_post(route) for route in _hot_routes(api)]

    @get("/log/{path:path}", summary="A checkpoint, tile or entry bundle of this node's log (C2SP tlog-tiles)")
    async def log_file(path: str) -> Response[bytes]:
        return _plain(await api.log_file(path.lstrip("/")))

    return [*handlers, log_file]


def _documented_post(route: _Route) -> Any:
    call = route.call

    @post(
        route.path,
        name=route.name,
        operation_id=route.name,
        summary=(call.__doc__ or "").partition(": ")[2].strip(),
        status_code=200,
        media_type="application/msgpack",
    )
    async def handler(body: bytes) -> Response[bytes]:
        return _plain(await call(body))

    return handler


def _operator_routes(api: Api, metrics: Metrics) -> list[Any]:
    @get("/health", summary="Whether this node serves, and what its operator should do if not")
    async def health() -> Response[bytes]:
        return _plain(await api.health())

    @get("/metrics", media_type=MediaType.TEXT, summary="Prometheus metrics, without personal data")
    async def metrics_text() -> bytes:
        return metrics.text()

    @get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request[Any, Any, Any]) -> Response[bytes]:
        schema = request.app.openapi_schema.to_schema()
        return Response(msgspec.json.encode(schema), media_type=JSON.decode())

    @get("/v1/document/{token:str}", summary="The newest document of an identity, with its salt")
    async def document(token: _TOKEN) -> Response[bytes]:
        return _plain(await api.document_of(token))

    return [health, metrics_text, openapi, document]


def _directory_routes(directing: Directing, genesis: bytes) -> list[Any]:
    @post("/v1/directory/transaction", status_code=200, summary="Put one or several transactions before the directory")
    async def transaction(request: Request[Any, Any, Any]) -> Response[bytes]:
        results = await directing.submit(parse_transactions(await request.body()))
        body = msgspec.json.encode({"results": results, "height": directing.directory.height})
        return Response(body, media_type=JSON.decode())

    @get("/v1/directory/genesis", summary="The exact genesis bytes: their SHA-256 is the network")
    async def genesis_bytes() -> Response[bytes]:
        return Response(genesis, media_type=JSON.decode())

    @get("/v1/directory/head", summary="Height, app hash, newest checkpoint and newest cosigned checkpoint")
    async def head() -> Response[bytes]:
        return Response(msgspec.json.encode(directing.head()), media_type=JSON.decode())

    @get("/v1/directory/blocks", summary="Blocks after a height (MessagePack [blocks, checkpoint])")
    async def blocks(
        after: Annotated[int, Parameter(ge=0, le=1 << 53)], wait: Annotated[int, Parameter(ge=0, le=1)] = 0
    ) -> Response[bytes]:
        found = await directing.blocks(after, wait=bool(wait))
        return Response(msgspec.msgpack.encode(found), media_type="application/msgpack")

    @post("/v1/directory/cosignature", status_code=204, summary="A node's cosignature of the directory's checkpoint")
    async def cosignature(request: Request[Any, Any, Any], size: Annotated[int, Parameter(ge=0, le=1 << 53)]) -> None:
        directing.cosigned(size, await request.body())

    @get("/v1/directory/identity/{token:str}", summary="State and operations of an identity")
    async def identity(token: _TOKEN) -> Response[bytes]:
        state = directing.directory.identity(token)
        if state is None:
            raise NotFoundError("unknown-identity", "the directory knows no identity of that token")
        body = msgspec.json.encode({"state": state, "operations": directing.engine.operations(token)})
        return Response(body, media_type=JSON.decode())

    @get("/v1/directory/proof/{kind:str}/{ident:path}", summary="A value of the state map, or its absence, proven")
    async def proof(kind: str, ident: str, cosigned: Annotated[int, Parameter(ge=0, le=1)] = 0) -> Response[bytes]:
        if len(kind) > 32 or len(ident) > 256:
            raise MalformedError("bad-field", "no kind or id is that long")
        found = directing.proof(kind, ident.lstrip("/"), cosigned=bool(cosigned))
        return Response(msgspec.json.encode(found), media_type=JSON.decode())

    return [transaction, genesis_bytes, head, blocks, cosignature, identity, proof]
