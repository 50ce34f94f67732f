"""vectors/fhir/*.json: refusals word by word, and which compartment labels and codes ask for."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from careledger.errors import MalformedError
from careledger.fhir import ReadOptions, read_file, resource_key

FOLDER = Path(__file__).parents[2] / "vectors" / "fhir"


def load(name: str) -> list[dict[str, Any]]:
    content = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    assert content["source"]
    assert content["section"]
    assert content["how made"]
    vectors: list[dict[str, Any]] = content["vectors"]
    return vectors


def data_of(vector: dict[str, Any]) -> bytes:
    if "base64" in vector:
        return base64.b64decode(vector["base64"])
    text = vector["text"]
    for part, times in vector.get("repeat", {}).items():
        text = text.replace(f"@{part}@", part * times)
    return str(text).encode()


@pytest.mark.parametrize("vector", load("refusals.json"), ids=lambda v: v["name"])
def test_refusal_says_exactly_this(vector: dict[str, Any]) -> None:
    with pytest.raises(MalformedError) as refused:
        read_file("file", [data_of(vector)], options=ReadOptions(**vector.get("options", {})))
    assert (refused.value.code, refused.value.message) == (vector["code"], vector["message"])


@pytest.mark.parametrize("vector", load("filing.json"), ids=lambda v: v["name"])
def test_resources_of_a_file_go_to_their_compartments(vector: dict[str, Any]) -> None:
    data = json.dumps(vector["bundle"], ensure_ascii=False).encode()
    reading = read_file("file", [data], options=ReadOptions(subject_url=vector.get("subject_url")))
    records = [
        {"compartment": one.compartment, "resources": [url for url, _ in one.resources], "travelling": one.travelling}
        for one in reading.records
    ]
    assert records == vector["records"]


@pytest.mark.parametrize("vector", load("resource-keys.json"), ids=lambda v: v["name"])
def test_resource_key(vector: dict[str, Any]) -> None:
    assert resource_key(vector["full_url"], vector["resource"].encode()) == vector["key"]
