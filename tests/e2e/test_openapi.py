"""Schemathesis over the OpenAPI document of a running node: whatever is sent, the answer is one of the documented ones.

No answer is a 5xx but 503; every refusal is one JSON object; nothing that was sent makes a node forget its manners.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from careledger.node import LocalNetwork

EXAMPLES = 25
CHECKS = (status_code_conformance, content_type_conformance, response_schema_conformance)
ROUTES = [
    ("GET", "/health"),
    ("GET", "/log/{path}"),
    ("GET", "/metrics"),
    ("GET", "/v1/directory/blocks"),
    ("GET", "/v1/directory/genesis"),
    ("GET", "/v1/directory/head"),
    ("GET", "/v1/directory/identity/{token}"),
    ("GET", "/v1/directory/proof/{kind}/{ident}"),
    ("GET", "/v1/document/{token}"),
    ("GET", "/witness/checkpoint/{origin}"),
    ("POST", "/v1/access"),
    ("POST", "/v1/audit"),
    ("POST", "/v1/consent"),
    ("POST", "/v1/consent/read"),
    ("POST", "/v1/directory/cosignature"),
    ("POST", "/v1/directory/relay"),
    ("POST", "/v1/directory/transaction"),
    ("POST", "/v1/document"),
    ("POST", "/v1/submission"),
    ("POST", "/v1/sync"),
    ("POST", "/witness/add-checkpoint"),
]

CONSTRAINED = {
    "/v1/directory/blocks",
    "/v1/directory/cosignature",
    "/v1/directory/identity/{token}",
    "/v1/document/{token}",
}
"""Routes with parameters that can be wrong; of a binary body nothing is, before it is read."""


@schemathesis.serializer("application/msgpack")
def _msgpack(_: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value, default=str).encode()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    network = LocalNetwork.found(tmp_path_factory.mktemp("network"), count=1, now_ms=time.time_ns() // 1_000_000)
    asyncio.run(network.start())
    yield network
    network.kill()


@pytest.fixture(scope="module")
def documented(network: LocalNetwork) -> Any:
    return schemathesis.openapi.from_url(f"{network.nodes[0].url}/openapi.json")


def is_refusal(body: bytes) -> bool:
    said = json.loads(body)
    return (
        set(said) == {"code", "message", "details", "time"}
        and all(isinstance(said[name], str) and said[name] for name in ("code", "message"))
        and "\n" not in said["message"]
        and isinstance(said["details"], dict)
        and isinstance(said["time"], int)
    )


FITTING = [(method, path, GenerationMode.POSITIVE) for method, path in ROUTES]
UNFITTING = [(method, path, GenerationMode.NEGATIVE) for method, path in ROUTES if path in CONSTRAINED]


@pytest.mark.parametrize(("method", "path", "mode"), [*FITTING, *UNFITTING])
def test_every_answer_is_a_documented_one(documented: Any, method: str, path: str, mode: GenerationMode) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=documented[path][method].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if case.query and str(case.query.get("wait")) == "1":
            case.query["wait"] = 0  # as it says, it would wait
        response = case.call()
        assert response.status_code < 500 or response.status_code == 503
        case.validate_response(response, checks=CHECKS)
        kind = response.headers.get("content-type", [""])[0].partition(";")[0]
        if response.status_code >= 400 and kind == "application/json" and path != "/health":
            assert is_refusal(response.content)
            assert (response.status_code == 503) == ("retry-after" in response.headers)

    ask()


def test_the_document_names_every_route_once(documented: Any) -> None:
    named = documented.raw_schema["paths"].items()
    assert sorted((method.upper(), path) for path, item in named for method in item) == ROUTES


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("DELETE", "/v1/access", 405, "wrong-method"),
        ("GET", "/v1/access", 405, "wrong-method"),
        ("POST", "/health", 405, "wrong-method"),
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/log/%2e%2e/secrets.json", 404, "not-found"),
        ("GET", "/log/%252e%252e/secrets.json", 404, "not-found"),
        ("GET", "/log/a%00b", 404, "not-found"),
        ("GET", "/v1/document/cl1nonsense", 400, "bad-request"),
        ("GET", "/v1/directory/blocks", 400, "bad-request"),
        ("GET", "/v1/directory/blocks?after=-1", 400, "bad-request"),
        ("GET", "/v1/directory/blocks?after=9007199254740993", 400, "bad-request"),
        ("GET", "/v1/directory/blocks?after=x&wait=7", 400, "bad-request"),
    ],
)
def test_what_is_no_request_is_refused_in_the_same_shape(
    network: LocalNetwork, method: str, path: str, status: int, code: str
) -> None:
    status_found, body = exchange(network, method, path)
    said = json.loads(body)
    assert (status_found, said["code"]) == (status, code)
    assert is_refusal(body)


def exchange(network: LocalNetwork, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """One request with exactly this path; (status, body)."""
    connection = http.client.HTTPConnection(urlsplit(network.nodes[0].url).netloc, timeout=20)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/v1/access", "/v1/directory/transaction", "/v1/directory/cosignature?size=1"])
def test_a_body_too_large_is_refused(network: LocalNetwork, path: str) -> None:
    status, body = exchange(network, "POST", path, bytes((4 << 20) + 1))
    assert (status, json.loads(body)["code"]) == (400, "too-large")
    assert is_refusal(body)


def test_the_node_logged_no_bug(network: LocalNetwork) -> None:
    """Runs last: whatever the tests above sent, nothing of it was a bug."""
    assert '"bug"' not in (network.nodes[0].folder / "node.log").read_text()
    status, body = exchange(network, "GET", "/health")
    assert (status, json.loads(body)["serving"]) == (200, True)
