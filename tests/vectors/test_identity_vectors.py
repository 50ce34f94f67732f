"""careledger.identity against vectors/identity/*.json, which the web app runs too."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import careledger.identity as idy
from careledger.errors import Error
from careledger.identity import bech32m
from careledger.seal import Envelope, Key, VerifyKey, decode, encode, envelope_message_id

FOLDER = Path(__file__).parents[2] / "vectors" / "identity"


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return content


def vectors(name: str) -> list[Any]:
    entries = load(name)["vectors"]
    assert entries
    return [
        pytest.param(entry, id=f"{number}-{re.sub('[^a-zA-Z0-9]+', '-', entry['comment'])[:50]}")
        for number, entry in enumerate(entries)
    ]


def outcome_of(act: Any) -> tuple[str, Any]:
    try:
        return "accept", act()
    except Error as error:
        return error.code, None


def test_every_file_says_where_it_comes_from() -> None:
    files = sorted(FOLDER.glob("*.json"))
    assert len(files) == 7
    for file in files:
        content = json.loads(file.read_text())
        assert all(content[field] for field in ("source", "section", "how_made", "licence", "vectors")), file.name


@pytest.mark.parametrize("vector", vectors("bech32m-bip350"))
def test_bech32m_bip350(vector: dict[str, Any]) -> None:
    if not vector["valid"]:
        assert outcome_of(lambda: bech32m.decode_words(vector["text"]))[0] == "bad-bech32m"
        return
    hrp, words = bech32m.decode_words(vector["text"])
    assert bech32m.encode_words(hrp, words) == vector["text"].lower()


@pytest.mark.parametrize("vector", vectors("tokens"))
def test_tokens(vector: dict[str, Any]) -> None:
    assert outcome_of(lambda: idy.check_token(vector["token"]))[0] == vector["outcome"]
    if "inception" in vector:
        assert idy.token_of(vector["inception"].encode()) == vector["token"]


@pytest.mark.parametrize("vector", vectors("operations"))
def test_operations(vector: dict[str, Any]) -> None:
    manager = load("operations")["manager"]
    manager_keys = {manager["keyid"]: idy.verify_key(decode(manager["keys"].encode(), list[Key])[0])}
    before = None if vector["before"] is None else decode(vector["before"].encode(), idy.IdentityState)
    envelope = decode(vector["envelope"].encode(), Envelope)
    keys = decode(vector["keys"].encode(), list[Key])
    outcome, applied = outcome_of(
        lambda: idy.apply_operation(
            before,
            envelope,
            network=vector["network"],
            now_ms=vector["now_ms"],
            keys=keys,
            manager_keys=manager_keys,
        )
    )
    assert outcome == vector["outcome"]
    if applied is not None:
        assert encode(applied.state).decode() == vector["after"]
        assert encode(list(applied.keys)).decode() == vector["keys_after"]
        assert applied.state.head == vector["message_id"] == envelope_message_id(envelope).hex()
        assert applied.token == load("operations")["token"]


@pytest.mark.parametrize("vector", vectors("documents"))
def test_documents(vector: dict[str, Any]) -> None:
    salt, data = bytes.fromhex(vector["salt"]), vector["document"].encode()
    assert outcome_of(lambda: idy.open_document(salt, data, vector["hash"]))[0] == vector["outcome"]


def test_thresholds() -> None:
    for n, t, f in load("documents")["thresholds_n_t_f"]:
        assert (idy.default_threshold(n), idy.faults(n)) == (t, f)


@pytest.mark.parametrize("vector", vectors("kit-codes"))
def test_kit_codes(vector: dict[str, Any]) -> None:
    outcome, root = outcome_of(lambda: idy.parse_kit_code(vector["code"]))
    assert outcome == vector["outcome"]
    if root is None:
        return
    assert root.hex() == vector["root"]
    assert idy.kit_code(root) == vector["code"].replace(" ", "").lower()
    for sequence, public in vector.get("next_keys", {}).items():
        assert idy.root_signing_key(root, int(sequence)).public.hex() == public
    if "next_1" in vector:
        assert idy.next_hash(bytes.fromhex(vector["next_keys"]["1"])) == vector["next_1"]


@pytest.mark.parametrize("vector", vectors("key-boxes"))
def test_key_boxes(vector: dict[str, Any]) -> None:
    box = idy.parse_key_box(vector["box"].encode())
    shares = [bytes.fromhex(share) for share in vector["custodian_shares"]]
    ways = [
        lambda: idy.unlock_with_passphrase(box, vector["passphrase"]),
        lambda: idy.unlock_with_root(box, bytes.fromhex(vector["root"])),
    ]
    for some in combinations(shares, 3):
        ways.append(
            lambda some=some: idy.unlock_managed(  # type: ignore[misc]
                box,
                manager=vector["manager"],
                manager_half=bytes.fromhex(vector["manager_half"]),
                custodian_shares=some,
            )
        )
    outcomes = {outcome_of(way) for way in ways}
    if vector["outcome"] == "refuse":
        assert all(account_key is None for _, account_key in outcomes)
        return
    assert outcomes == {("accept", bytes.fromhex(vector["account_key"]))}
    secrets = idy.open_key_box(box, account_key=bytes.fromhex(vector["account_key"]))
    assert vector["opened"] == {
        "sequence": secrets.sequence,
        "sign": secrets.sign.hex(),
        "seal": secrets.seal.hex(),
        "older": [[sequence, seal.hex()] for sequence, seal in secrets.older],
    }


@pytest.mark.parametrize("vector", vectors("affiliations"))
def test_affiliations(vector: dict[str, Any]) -> None:
    content = load("affiliations")
    keys = {name: VerifyKey(bytes.fromhex(public)) for name, public in content["keys"].items()}
    envelope = decode(vector["envelope"].encode(), Envelope)
    outcome, _ = outcome_of(
        lambda: idy.check_affiliation(
            envelope,
            keys=keys,
            network=content["network"],
            person=content["person"],
            organisation=content["organisation"],
            now_ms=vector["now_ms"],
        )
    )
    assert outcome == vector["outcome"]
