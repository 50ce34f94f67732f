"""Documents: committed by a salted hash; what an update and a claim may change in them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from careledger.errors import MalformedError, VerificationError
from careledger.identity import (
    Document,
    check_claim,
    check_update,
    default_threshold,
    document_hash,
    encode_document,
    faults,
    new_organisation,
    new_person,
    new_software,
    open_document,
)
from careledger.seal import Key, SealingKey, encode

TOKENS = [f"cl1{character * 46}" for character in "qpzry9x8"]


def document(**fields: Any) -> Document:
    base: dict[str, Any] = {
        "v": 1,
        "custodians": TOKENS[:4],
        "threshold": 3,
        "services": [],
        "nodes": [],
    }
    return Document(**(base | fields))


@pytest.mark.parametrize(
    ("n", "t", "f"),
    [(0, 0, 0), (1, 1, 0), (2, 2, 0), (3, 2, 0), (4, 3, 1), (5, 4, 1), (7, 5, 2), (10, 7, 3), (16, 11, 5)],
)
def test_threshold_and_faults(n: int, t: int, f: int) -> None:
    assert (default_threshold(n), faults(n)) == (t, f)
    # Any two groups of t share an honest custodian, and the honest ones alone are t.
    if n >= 4:
        assert 2 * t - n > f
        assert n - f >= t


def test_document_opens_with_its_salt_and_hash_only() -> None:
    salt, data = bytes(range(32)), encode_document(document())
    committed = document_hash(salt, data)
    assert committed == hashlib.sha256(salt + data).hexdigest()
    assert open_document(salt, data, committed) == document()
    for wrong in ((bytes(32), data), (salt, data + b" "), (salt, encode_document(document(threshold=2)))):
        with pytest.raises(VerificationError) as caught:
            open_document(*wrong, committed)
        assert caught.value.code == "bad-document-hash"
    with pytest.raises(MalformedError):
        document_hash(salt[:31], data)


@pytest.mark.parametrize(
    "fields",
    [
        {"custodians": [TOKENS[0], TOKENS[0]], "threshold": 2},
        {"threshold": 5},
        {"threshold": 1},
        {"threshold": 0},
        {"custodians": [], "threshold": 1},
        {"nodes": [TOKENS[0], TOKENS[0]]},
        {"reading_key": Key.sign(bytes(32))},
        {"reading_key": Key.seal(bytes(1215))},
    ],
)
def test_document_that_breaks_a_rule_is_refused_on_both_sides(fields: dict[str, Any]) -> None:
    wrong = document(**fields)
    with pytest.raises(MalformedError):
        encode_document(wrong)
    data, salt = encode(wrong), bytes(32)
    with pytest.raises(MalformedError):
        open_document(salt, data, document_hash(salt, data))


@pytest.mark.parametrize(
    "service", ["ftp://x.example", "https://", "https://a b", "https://" + "x" * 501, "javascript:1"]
)
def test_services_are_web_addresses(service: str) -> None:
    salt, data = bytes(32), encode(document(services=[service]))
    with pytest.raises(MalformedError):
        open_document(salt, data, document_hash(salt, data))


def test_update_may_change_services_but_neither_custodians_nor_manager() -> None:
    old = document()
    check_update(old, document(services=["https://phr.example"]))
    for new in (
        document(custodians=TOKENS[1:5]),
        document(custodians=[TOKENS[1], TOKENS[0], *TOKENS[2:4]]),
        document(threshold=2),
        document(manager=TOKENS[5]),
    ):
        with pytest.raises(VerificationError) as caught:
            check_update(old, new)
        assert caught.value.code == "update-not-allowed"
    with pytest.raises(VerificationError):
        check_update(document(manager=TOKENS[5]), document())


def test_claim_names_the_old_manager_and_leaves_none() -> None:
    old = document(manager=TOKENS[5])
    check_claim(old, document(), manager=TOKENS[5])
    for before, after, manager in (
        (old, document(), TOKENS[6]),
        (document(), document(), TOKENS[5]),
        (old, old, TOKENS[5]),
    ):
        with pytest.raises(VerificationError) as caught:
            check_claim(before, after, manager=manager)
        assert caught.value.code == "bad-claim"


def test_builders_make_documents_that_hold(rand: Callable[[int], bytes]) -> None:
    nodes = [new_software(rand=rand) for _ in range(4)]
    tokens = [node.token for node in nodes]
    person = new_person(custodians=tokens, rand=rand, services=["https://phr.example"])
    found = open_document(person.salt, person.document, document_hash(person.salt, person.document))
    assert (found.custodians, found.threshold, found.services) == (tokens, 3, ["https://phr.example"])
    organisation = new_organisation(nodes=tokens, rand=rand)
    found = open_document(
        organisation.salt, organisation.document, document_hash(organisation.salt, organisation.document)
    )
    assert found.nodes == tokens
    seed = organisation.secrets.reading_seed
    assert seed is not None
    assert found.reading_key == Key.seal(SealingKey(seed).public)
    assert seed not in (organisation.secrets.device.seal, organisation.secrets.device.sign)
    with pytest.raises(MalformedError):
        new_person(custodians=tokens, threshold=1, rand=rand)


def test_salts_are_fresh_each_time(rand: Callable[[int], bytes]) -> None:
    one, other = new_person(custodians=[], rand=rand), new_person(custodians=[], rand=rand)
    assert one.document == other.document
    assert document_hash(one.salt, one.document) != document_hash(other.salt, other.document)
    assert one.secrets.guardians_salt != other.secrets.guardians_salt
    assert msgspec.json.decode(one.document)["custodians"] == []
