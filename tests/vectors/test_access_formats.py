"""vectors/access/formats.json: request, approval, entry body, leaf, receipt and answer as bytes."""

from __future__ import annotations

import json
from pathlib import Path

from careledger import access, tlog
from careledger.seal import SealingKey, VerifyKey

FILE = Path(__file__).resolve().parents[2] / "vectors" / "access" / "formats.json"
VECTORS = json.loads(FILE.read_text(encoding="utf-8"))
KEYS = {person["keyid"]: VerifyKey(bytes.fromhex(person["sign_public"])) for person in VECTORS["people"].values()}
FRESH = SealingKey(bytes.fromhex(VECTORS["fresh_seed"]))
NODE = VECTORS["node"]["token"]


def check(message: access.AccessMessage) -> access.CheckedRequest:
    return access.check_request(message, keys=KEYS, network=VECTORS["network"], now_ms=VECTORS["now"], affiliations={})


def test_the_message_is_accepted_with_affiliation_and_approval() -> None:
    message = access.decode_access_message(bytes.fromhex(VECTORS["message"]))
    assert access.encode_access_message(message).hex() == VECTORS["message"]
    assert message.request == VECTORS["request"]["envelope"].encode()
    assert message.affiliation == VECTORS["affiliation"].encode()
    assert message.approvals == [VECTORS["approval"].encode()]
    checked = check(message)
    assert checked.id.hex() == VECTORS["request"]["message_id"]
    assert checked.affiliated is not None
    assert len(checked.approvals) == 1


def test_a_request_for_a_list() -> None:
    envelope = VECTORS["list_request"]["envelope"].encode()
    checked = check(access.AccessMessage(request=envelope, key=FRESH.public))
    assert checked.records is None
    assert checked.id.hex() == VECTORS["list_request"]["message_id"]


def test_leaf_and_body() -> None:
    entry = VECTORS["entry"]
    salt, body = bytes.fromhex(entry["salt"]), entry["body"].encode()
    assert access.leaf("access", salt, body) == entry["leaf"].encode()
    decoded = access.decode_entry(body)
    again = access.request_of(decoded, keys=KEYS, affiliations={})
    assert again.id.hex() == VECTORS["request"]["message_id"]
    assert [approval.approver for approval in again.approvals] == [VECTORS["people"]["bea"]["keyid"].partition("#")[0]]


def test_receipt_and_answer() -> None:
    receipt = access.decode_receipt(bytes.fromhex(VECTORS["receipt"]))
    assert receipt.proof == VECTORS["proof"].encode()
    request = bytes.fromhex(VECTORS["request"]["message_id"])
    entry = access.verify_access_receipt(
        receipt,
        network=VECTORS["network"],
        node=NODE,
        log_verifier=tlog.parse_vkey(VECTORS["node"]["vkey"]),
        request=request,
    )
    answer = access.decode_access_answer(bytes.fromhex(VECTORS["answer"]["message"]))
    assert answer.receipt == receipt
    assert answer.sealed.hex() == VECTORS["answer"]["sealed"]
    shares = access.open_answer(
        answer.sealed, key=FRESH, network=VECTORS["network"], request=request, node=NODE, index=entry.index
    )
    assert [[record.hex(), share.hex()] for record, share in shares] == VECTORS["answer"]["shares"]
