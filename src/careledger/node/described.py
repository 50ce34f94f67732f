"""The OpenAPI document of a node: litestar's list of routes and parameters, with what goes in and comes out of each.

Bodies are bytes in formats of their own (docs/spec), so their schema is `binary`; every refusal is one JSON object.
"""

from __future__ import annotations

from typing import Any

__all__ = ["described"]

_BINARY = {"type": "string", "format": "binary"}
_TEXT = {"type": "string"}
_OBJECT = {"type": "object"}
_MSGPACK = {"application/msgpack": {"schema": _BINARY}}
_JSON = {"application/json": {"schema": _OBJECT}}
_PLAIN = {"text/plain": {"schema": _TEXT}}
_REFUSED = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
_REFUSALS = {
    "400": "malformed, or too large",
    "403": "a decision said no",
    "404": "never existed, or not for the asker",
    "409": "something else was there first",
    "410": "erased",
    "422": "not proven: signature, proof or freshness",
    "503": "not now; a retry may help",
}
_REFUSAL = {
    "type": "object",
    "description": "A stable reason code, one line for people, further facts, and the node's time in ms UTC.",
    "required": ["code", "message", "details", "time"],
    "additionalProperties": False,
    "properties": {
        "code": {"type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"},
        "message": {"type": "string", "minLength": 1},
        "details": {"type": "object"},
        "time": {"type": "integer", "minimum": 0},
    },
}

_TAKES: dict[str, dict[str, Any]] = {
    "/v1/access": _MSGPACK,
    "/v1/submission": _MSGPACK,
    "/v1/consent": _MSGPACK,
    "/v1/consent/read": _MSGPACK,
    "/v1/document": _MSGPACK,
    "/v1/audit": _MSGPACK,
    "/v1/sync": _MSGPACK,
    "/witness/add-checkpoint": _PLAIN,
    "/v1/directory/transaction": {"application/json": {"schema": {}}},
    "/v1/directory/relay": {"application/json": {"schema": {}}},
    "/v1/directory/cosignature": _PLAIN,
}
_GIVES: dict[str, dict[str, Any]] = {
    "/witness/add-checkpoint": _PLAIN,
    "/witness/checkpoint/{origin}": _PLAIN,
    "/metrics": _PLAIN,
    "/health": _JSON,
    "/log/{path}": {"text/plain": {"schema": _TEXT}, "application/octet-stream": {"schema": _BINARY}},
    "/v1/directory/transaction": _JSON,
    "/v1/directory/relay": _JSON,
    "/v1/directory/genesis": _JSON,
    "/v1/directory/head": _JSON,
    "/v1/directory/identity/{token}": _JSON,
    "/v1/directory/proof/{kind}/{ident}": _JSON,
}
_ALSO: dict[tuple[str, str], dict[str, Any]] = {
    ("/v1/access", "403"): _MSGPACK,
    ("/witness/add-checkpoint", "409"): {"text/x.tlog.size": {"schema": _TEXT}},
    ("/health", "503"): _JSON,
}
"""Answers of that status that are no refusal."""


def described(schema: dict[str, Any]) -> dict[str, Any]:
    """Complete the document that litestar made of the routes; changes and returns it."""
    for path, item in schema["paths"].items():
        for method in ("get", "post"):
            if method in item:
                _describe(path, item[method])
    schema.setdefault("components", {}).setdefault("schemas", {})["Refusal"] = _REFUSAL
    return schema


def _describe(path: str, operation: dict[str, Any]) -> None:
    operation.pop("requestBody", None)
    if path in _TAKES:
        operation["requestBody"] = {"required": True, "content": _TAKES[path]}
    success = next(status for status in operation["responses"] if status.startswith("2"))
    answers: dict[str, Any] = {success: {"description": "done"}}
    if success != "204":
        answers[success]["content"] = _GIVES.get(path, _MSGPACK)
    for status, meaning in _REFUSALS.items():
        answers[status] = {"description": meaning, "content": {**_REFUSED, **_ALSO.get((path, status), {})}}
        if (path, status) == ("/health", "503"):
            answers[status]["content"] = _JSON
    operation["responses"] = answers
