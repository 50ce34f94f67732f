"""Receipts and answers: what a node can't get away with."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from careledger import access, tlog
from careledger.errors import Error, MalformedError, VerificationError
from careledger.seal import SealingKey, SealingPublicKey, SigningKey

replace = msgspec.structs.replace


def verify(world: Any, receipt: access.Receipt, **changes: Any) -> access.EntryBody:
    given = {"network": world.network, "node": world.node.token, "log_verifier": world.log_verifier, "kind": "access"}
    given.update(changes)
    return access.verify_receipt(receipt, **given)


def refusal(world: Any, receipt: access.Receipt, **changes: Any) -> str:
    with pytest.raises(Error) as refused:
        verify(world, receipt, **changes)
    return refused.value.code


def test_a_receipt_that_holds_gives_the_entry(world: Any) -> None:
    checked = world.check(world.message())
    receipt = world.receipt(world.body(checked))
    assert access.decode_receipt(access.encode_receipt(receipt)) == receipt
    entry = verify(world, receipt)
    assert (entry.index, entry.decision, entry.kind) == (2, "allow", "access")
    mine = access.verify_access_receipt(
        receipt, network=world.network, node=world.node.token, log_verifier=world.log_verifier, request=checked.id
    )
    assert mine == entry


def test_a_receipt_about_another_request_is_refused(world: Any) -> None:
    """The node logged an older or somebody else's request and shows that entry."""
    receipt = world.receipt(world.body(world.check(world.message())))
    for request in (b"\x00" * 32, world.check(world.message(world.request(nonce="00" * 16))).id):
        with pytest.raises(VerificationError) as refused:
            access.verify_access_receipt(
                receipt, network=world.network, node=world.node.token, log_verifier=world.log_verifier, request=request
            )
        assert refused.value.code == "wrong-request"
    empty = world.receipt(world.body(world.check(world.message()), envelopes=()))
    with pytest.raises(VerificationError) as refused:
        access.verify_access_receipt(
            empty, network=world.network, node=world.node.token, log_verifier=world.log_verifier, request=b"\x00" * 32
        )
    assert refused.value.code == "wrong-request"


def test_a_leaf_of_another_kind_is_no_access_receipt(world: Any) -> None:
    """`keep` bodies can be erased; an access logged as one would vanish lawfully."""
    body = world.body(world.check(world.message()))
    assert refusal(world, world.receipt(body, kind="keep")) == "bad-proof"
    kept = world.body(world.check(world.message()), kind="keep")
    assert refusal(world, world.receipt(kept, kind="access")) == "wrong-entry"
    assert verify(world, world.receipt(kept, kind="keep"), kind="keep").kind == "keep"


def test_a_body_that_says_another_node_network_or_index_is_refused(world: Any) -> None:
    checked = world.check(world.message())
    for changes in ({"node": world.clinic.token}, {"network": "cd" * 32}, {"index": 3}):
        assert refusal(world, world.receipt(world.body(checked, **changes))) == "wrong-entry"


def test_a_receipt_of_another_log_is_refused(world: Any) -> None:
    receipt = world.receipt(world.body(world.check(world.message())))
    assert refusal(world, receipt, node=world.clinic.token) == "wrong-log"
    assert refusal(world, receipt, network="cd" * 32) == "wrong-log"
    other = tlog.Verifier.ed25519(world.log_verifier.name, SigningKey(bytes(32)).public)
    assert refusal(world, receipt, log_verifier=other)


def test_changed_salt_body_or_proof_is_refused(world: Any) -> None:
    receipt = world.receipt(world.body(world.check(world.message())))
    for name in ("salt", "body", "proof"):
        data = getattr(receipt, name)
        for at in range(0, len(data), 7):
            changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            assert refusal(world, replace(receipt, **{name: changed}))


def test_a_body_that_is_in_the_log_but_not_canonical_is_refused(world: Any) -> None:
    body = world.body(world.check(world.message())).replace(b'"v":1', b'"v": 1')
    assert refusal(world, world.receipt(body)) == "not-canonical"


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\xc4\x00\xc4\x00\xc4\x00", b"\x80"])
def test_receipts_and_answers_that_do_not_parse(data: bytes) -> None:
    with pytest.raises(MalformedError) as refused:
        access.decode_receipt(data)
    assert refused.value.code == "bad-receipt"
    with pytest.raises(MalformedError) as refused:
        access.decode_access_answer(data)
    assert refused.value.code == "bad-answer"


def test_an_answer_opens_only_for_its_request_at_its_place(world: Any) -> None:
    shares = [(b"r" * 16, b"y" * 32 + b"\x01"), (b"q" * 16, b"z" * 32 + b"\x01")]
    place = {"network": world.network, "request": b"\x07" * 32, "node": world.node.token, "index": 2}
    sealed = access.seal_answer(shares, key=SealingPublicKey(world.fresh.public), **place)
    assert access.open_answer(sealed, key=world.fresh, **place) == shares
    for changes in (
        {"network": "cd" * 32},
        {"request": b"\x08" * 32},
        {"node": world.clinic.token},
        {"index": 3},
        {"key": SealingKey(bytes(32))},
    ):
        with pytest.raises(VerificationError) as refused:
            access.open_answer(sealed, **{"key": world.fresh, **place, **changes})
        assert refused.value.code == "not-openable"


def test_a_sealed_answer_that_holds_no_shares_is_refused(world: Any) -> None:
    place = {"network": world.network, "request": b"\x07" * 32, "node": world.node.token, "index": 2}
    for shares in ([(b"r" * 15, b"y" * 33)], [(b"r" * 16, b"y" * 32)], [(b"r" * 16,)]):
        sealed = access.seal_answer(shares, key=SealingPublicKey(world.fresh.public), **place)
        with pytest.raises(MalformedError) as refused:
            access.open_answer(sealed, key=world.fresh, **place)
        assert refused.value.code == "bad-answer"


def test_an_answer_keeps_its_parts(world: Any) -> None:
    receipt = world.receipt(world.body(world.check(world.message())))
    answer = access.AccessAnswer(receipt=receipt, sealed=b"x", submissions=[b"view"], listed=[b"{}"])
    assert access.decode_access_answer(access.encode_access_answer(answer)) == answer
    denied = access.AccessAnswer(receipt=receipt, denied="no-grant")
    assert access.decode_access_answer(access.encode_access_answer(denied)).denied == "no-grant"
