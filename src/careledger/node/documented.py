"""The litestar side of a node's HTTP: metrics, the OpenAPI document of *all* routes, and one-line refusals of whatever
is malformed. `application` answers what is asked all day before it gets here, by the same methods.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.params import Parameter

import careledger
from careledger.errors import Error
from careledger.node.answers import JSON, Asgi
from careledger.node.api import Answered, Api
from careledger.node.application import SMALL_BODY_BYTES_MAX, Route, hot_routes
from careledger.node.described import described
from careledger.node.directory_api import DirectoryApi
from careledger.node.reports import Metrics, log
from careledger.seal import encode

__all__ = ["documented"]

_TOKEN = Annotated[str, Parameter(pattern=r"^cl1[02-9ac-hj-np-z]{46}$", max_length=49)]


def documented(api: Api, directory: DirectoryApi, metrics: Metrics) -> Asgi:
    """The ASGI application that knows every route."""
    app: Any = Litestar(
        route_handlers=[*_hot(api), *_operator_routes(api, metrics), *_directory_routes(directory)],
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
    asgi: Asgi = app
    return asgi


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


def _hot(api: Api) -> list[Any]:
    """The hot routes, for the OpenAPI document; they are answered before litestar sees them."""
    handlers = [_documented_post(route) for route in hot_routes(api)]

    @get("/log/{path:path}", summary="A checkpoint, tile or entry bundle of this node's log (C2SP tlog-tiles)")
    async def log_file(path: str) -> Response[bytes]:
        return _plain(await api.log_file(path.lstrip("/")))

    @get("/witness/checkpoint/{origin:path}", summary="The checkpoint that this node last cosigned of a log")
    async def cosigned(origin: str) -> Response[bytes]:
        return _plain(await api.cosigned(origin.lstrip("/")))

    return [*handlers, log_file, cosigned]


def _documented_post(route: Route) -> Any:
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
        schema = described(request.app.openapi_schema.to_schema())
        return Response(msgspec.json.encode(schema), media_type=JSON.decode())

    @get("/v1/document/{token:str}", summary="The newest document of an identity, with its salt")
    async def document(token: _TOKEN) -> Response[bytes]:
        return _plain(await api.document_of(token))

    return [health, metrics_text, openapi, document]


def _directory_routes(directory: DirectoryApi) -> list[Any]:
    @post("/v1/directory/transaction", status_code=200, summary="Put one or several transactions before the directory")
    async def transaction(request: Request[Any, Any, Any]) -> Response[bytes]:
        return _plain(await directory.transaction(await request.body()))

    @post("/v1/directory/relay", status_code=200, summary="Another node's transaction, for this node's CometBFT")
    async def relay(request: Request[Any, Any, Any]) -> Response[bytes]:
        return _plain(await directory.relay(await request.body()))

    @get("/v1/directory/genesis", summary="The exact genesis bytes: their SHA-256 is the network")
    async def genesis_bytes() -> Response[bytes]:
        return _plain(await directory.genesis())

    @get("/v1/directory/head", summary="Height, app hash, newest checkpoint and newest cosigned checkpoint")
    async def head() -> Response[bytes]:
        return _plain(await directory.head())

    @get("/v1/directory/blocks", summary="Blocks after a height (MessagePack [blocks, checkpoint])")
    async def blocks(
        after: Annotated[int, Parameter(ge=0, le=1 << 53)], wait: Annotated[int, Parameter(ge=0, le=1)] = 0
    ) -> Response[bytes]:
        return _plain(await directory.blocks(after=after, wait=bool(wait)))

    @post("/v1/directory/cosignature", status_code=204, summary="A node's cosignature of the directory's checkpoint")
    async def cosignature(request: Request[Any, Any, Any], size: Annotated[int, Parameter(ge=0, le=1 << 53)]) -> None:
        await directory.cosignature(await request.body(), size=size)

    @get("/v1/directory/identity/{token:str}", summary="State and operations of an identity")
    async def identity(token: _TOKEN) -> Response[bytes]:
        return _plain(await directory.identity(token))

    @get("/v1/directory/proof/{kind:str}/{ident:path}", summary="A value of the state map, or its absence, proven")
    async def proof(kind: str, ident: str, cosigned: Annotated[int, Parameter(ge=0, le=1)] = 0) -> Response[bytes]:
        return _plain(await directory.proof(kind, ident.lstrip("/"), cosigned=bool(cosigned)))

    return [transaction, relay, genesis_bytes, head, blocks, cosignature, identity, proof]
