"""CometBFT's JSON-RPC answers as light blocks: what a node hands to clients and auditors as proof of a head.

Nothing is believed here; whoever gets a light block verifies it (`directory.lightblocks`). Source: CometBFT v0.38
rpc/openapi: /commit and /validators.
"""

from __future__ import annotations

import calendar
import re
from base64 import b64decode
from typing import Any, Final

import msgspec

from careledger.directory.lightblocks import BlockId, Header, LightBlock, LightValidator, Vote
from careledger.errors import MalformedError
from careledger.seal import b64

__all__ = ["light_block", "light_validators"]

_TIME: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?Z")
_COMMITTED: Final = 2
"""block_id_flag of a vote for the block; 1 is absent, 3 a vote for none."""


class _Parts(msgspec.Struct):
    total: int
    hash: str


class _BlockId(msgspec.Struct):
    hash: str
    parts: _Parts


class _Version(msgspec.Struct):
    block: str = "0"
    app: str = "0"


class _Header(msgspec.Struct):
    version: _Version
    chain_id: str
    height: str
    time: str
    last_block_id: _BlockId
    last_commit_hash: str
    data_hash: str
    validators_hash: str
    next_validators_hash: str
    consensus_hash: str
    app_hash: str
    last_results_hash: str
    evidence_hash: str
    proposer_address: str


class _Signature(msgspec.Struct):
    block_id_flag: int
    timestamp: str
    signature: str | None


class _Commit(msgspec.Struct):
    round: int
    block_id: _BlockId
    signatures: list[_Signature]


class _SignedHeader(msgspec.Struct):
    header: _Header
    commit: _Commit


class _Key(msgspec.Struct):
    value: str


class _Validator(msgspec.Struct):
    pub_key: _Key
    voting_power: str


def light_block(signed_header: Any, *, next_validators: list[LightValidator] | None = None) -> LightBlock:
    """The light block of /commit's `signed_header`; `next_validators` where the header names another set after it.

    Raises MalformedError `bad-light-block`.
    """
    try:
        found = msgspec.convert(signed_header, _SignedHeader)
        header, commit = _header(found.header), found.commit
        votes = [_vote(place, one) for place, one in enumerate(commit.signatures) if one.block_id_flag == _COMMITTED]
        changed = header.next_validators != header.validators
        return LightBlock(
            header=header,
            round=commit.round,
            parts=commit.block_id.parts.total,
            parts_hash=commit.block_id.parts.hash.lower(),
            votes=votes,
            next_set=next_validators if changed and next_validators is not None else msgspec.UNSET,
        )
    except (msgspec.ValidationError, ValueError) as problem:
        raise MalformedError("bad-light-block", f"CometBFT showed a commit that is none: {problem}") from None


def light_validators(validators: Any) -> list[LightValidator]:
    """The set in /validators' `validators`, in its order. Raises MalformedError `bad-light-block`."""
    try:
        found = msgspec.convert(validators, list[_Validator])
        return [LightValidator(key=b64(b64decode(one.pub_key.value)), power=int(one.voting_power)) for one in found]
    except (msgspec.ValidationError, ValueError) as problem:
        raise MalformedError("bad-light-block", f"CometBFT showed validators that are none: {problem}") from None


def _header(found: _Header) -> Header:
    seconds, nanos = _moment(found.time)
    last = found.last_block_id
    return Header(
        block_version=int(found.version.block),
        app_version=int(found.version.app),
        chain=found.chain_id,
        height=int(found.height),
        seconds=seconds,
        nanos=nanos,
        last=BlockId(hash=last.hash.lower(), parts=last.parts.total, parts_hash=last.parts.hash.lower())
        if last.hash
        else msgspec.UNSET,
        last_commit=found.last_commit_hash.lower(),
        data=found.data_hash.lower(),
        validators=found.validators_hash.lower(),
        next_validators=found.next_validators_hash.lower(),
        consensus=found.consensus_hash.lower(),
        app=found.app_hash.lower(),
        last_results=found.last_results_hash.lower(),
        evidence=found.evidence_hash.lower(),
        proposer=found.proposer_address.lower(),
    )


def _vote(place: int, found: _Signature) -> Vote:
    seconds, nanos = _moment(found.timestamp)
    return Vote(validator=place, seconds=seconds, nanos=nanos, signature=b64(b64decode(found.signature or "")))


def _moment(text: str) -> tuple[int, int]:
    """Seconds since 1970 and nanoseconds: Python's own times end at microseconds."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time in UTC")
    year, month, day, hour, minute, second = (int(match[at]) for at in range(1, 7))
    return calendar.timegm((year, month, day, hour, minute, second)), int((match[7] or "").ljust(9, "0"))
