"""The network's parameters: what members may vote on, each with its bounds and the reason for its default."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from careledger.errors import Error, MalformedError
from careledger.identity import check_token

__all__ = ["DIRECTORY_FORMATS", "Value", "check_parameter", "default_parameters"]

Value = int | str | dict[str, list[int]]

DIRECTORY_FORMATS: Final = (
    "inception",
    "update",
    "rotate",
    "deactivate",
    "enrol",
    "member-propose",
    "member-vote",
    "member-nodes",
    "licence",
    "anchor",
    "fork-evidence",
)
_OTHER_FORMATS: Final = ("access", "affiliation", "approval", "consent", "document", "submission")
_NEVER_DROPPED: Final = ("member-propose", "member-vote")
"""Without these the members could never vote again."""

_TYPE: Final = re.compile(r"application/vnd\.careledger\.[a-z0-9-]{1,64}\+json")
_URI: Final = re.compile(r"[!-~]{1,500}")
_HEX: Final = re.compile(r"(?:[0-9a-f]{64})?")
_VERSIONS_MAX: Final = 64
_DAY_MS: Final = 86_400_000


def _type_of(name: str) -> str:
    return f"application/vnd.careledger.{name}+json"


def default_parameters() -> dict[str, Value]:
    """Every parameter that a genesis must have, with its default."""
    return {
        "anchor_min_ms": 60_000,  # an anchor is a transaction that everybody keeps; demo and tests say 2000
        "stale_max_ms": _DAY_MS,  # how long existing grants open while the directory does not answer
        "head_fresh_ms": 600_000,  # a directory head older than this admits nothing new
        "heartbeat_ms": 60_000,  # an empty block at least so often, so that a head's age means something
        "contest_ms": 3 * _DAY_MS,  # how long a recovery can be contested
        "inceptions_per_member_per_day": 100_000,
        "inbox_quota": 1_000,
        "requests_per_hour": 20_000,  # of one reader at one custodian: far above care, far below harvesting a country
        "emergency_per_hour": 10,
        "policy": "https://careledger.example/policy/1",
        "app_bundle": "",
        "sequencer": "",
        "formats": {_type_of(name): [1] for name in (*DIRECTORY_FORMATS, *_OTHER_FORMATS)},
    }


def check_parameter(name: str, value: Value) -> None:
    """Raises MalformedError `unknown-parameter`, `bad-parameter`."""
    check = _CHECKS.get(name)
    if check is None:
        raise MalformedError(
            "unknown-parameter", "the network has no parameter of that name: see the list in docs/spec"
        )
    if not check(value):
        raise MalformedError("bad-parameter", f"the value is not allowed for the parameter {name}")


def _integer(low: int, high: int) -> Callable[[Value], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _text(pattern: re.Pattern[str]) -> Callable[[Value], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_token_or_empty(value: Value) -> bool:
    if not isinstance(value, str):
        return False
    try:
        return value == "" or check_token(value) == value
    except Error:
        return False


def _is_formats(value: Value) -> bool:
    if not isinstance(value, dict):
        return False
    for name, versions in value.items():
        if _TYPE.fullmatch(name) is None or not 1 <= len(versions) <= _VERSIONS_MAX:
            return False
        if versions != sorted(set(versions)) or not all(1 <= version <= 1000 for version in versions):
            return False
    return all(1 in value.get(_type_of(name), []) for name in _NEVER_DROPPED)


_CHECKS: Final[dict[str, Callable[[Value], bool]]] = {
    "anchor_min_ms": _integer(0, _DAY_MS),
    "stale_max_ms": _integer(0, 30 * _DAY_MS),
    "head_fresh_ms": _integer(1_000, _DAY_MS),
    "heartbeat_ms": _integer(100, _DAY_MS),
    "contest_ms": _integer(0, 90 * _DAY_MS),
    "inceptions_per_member_per_day": _integer(0, 100_000_000),
    "inbox_quota": _integer(0, 1_000_000_000),
    "requests_per_hour": _integer(1, 1_000_000_000),
    "emergency_per_hour": _integer(0, 10_000),
    "policy": _text(_URI),
    "app_bundle": _text(_HEX),
    "sequencer": _is_token_or_empty,
    "formats": _is_formats,
}
