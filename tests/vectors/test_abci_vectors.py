"""ABCI messages, byte for byte as Google's protobuf library makes them from CometBFT's own schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from careledger.directory.engines.cometbft import messages
from careledger.directory.engines.cometbft.wire import Message, _slots, decode, encode

FILE = Path(__file__).parents[2] / "vectors" / "cometbft" / "abci.json"
VECTORS = json.loads(FILE.read_text())["vectors"]
KINDS = {"Request": messages.Request, "Response": messages.Response}


def ids(vector: dict[str, Any]) -> str:
    return f"{vector['type']}-{next(iter(vector['fields']))}"


def build(kind: type[Message], fields: dict[str, Any]) -> tuple[Message, bool]:
    """Our message of a vector's fields, and whether it has all of them (we leave out what we don't use)."""
    known, values, complete = {slot.name: slot for slot in _slots(kind).values()}, {}, True
    for name, value in fields.items():
        slot = known.get(name)
        if slot is None:
            complete = False
            continue
        made = []
        for item in value if slot.repeated else [value]:
            if isinstance(item, dict) and "hex" in item:
                made.append(bytes.fromhex(item["hex"]))
            elif slot.message is not None:
                inner, all_of_it = build(slot.message, item)
                complete = complete and all_of_it
                made.append(inner)
            else:
                made.append(item)
        values[name] = tuple(made) if slot.repeated else made[0]
    return kind(**values), complete


@pytest.mark.parametrize("vector", VECTORS, ids=ids)
def test_messages_decode_to_what_was_encoded(vector: dict[str, Any]) -> None:
    kind = KINDS[vector["type"]]
    assert decode(bytes.fromhex(vector["bytes"]), kind) == build(kind, vector["fields"])[0]


@pytest.mark.parametrize("vector", [vector for vector in VECTORS if vector["type"] == "Response"], ids=ids)
def test_answers_encode_to_the_same_bytes(vector: dict[str, Any]) -> None:
    message, complete = build(messages.Response, vector["fields"])
    assert complete
    assert encode(message).hex() == vector["bytes"]


def test_every_call_and_every_answer_has_a_vector() -> None:
    for name, kind in KINDS.items():
        seen = {next(iter(vector["fields"])) for vector in VECTORS if vector["type"] == name}
        assert seen == {slot.name for slot in _slots(kind).values()}
