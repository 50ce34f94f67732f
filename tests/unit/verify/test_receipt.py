"""Receipts: proven without the node, and held against its log."""

import msgspec
import pytest

from careledger.access import Receipt, decode_receipt, encode_receipt
from careledger.errors import Error, NotFoundError, VerificationError
from careledger.verify import folder_fetch, index_of, trust_of_genesis, verify_receipt_file


@pytest.fixture
def receipt(story, auditor):
    """(number of the node, bytes) of a receipt for an allowed access."""
    node, data = next(iter(story.receipts.items()))
    return next(number for number, token in auditor.tokens.items() if token == node), data


def test_a_receipt_is_proven_from_the_genesis_alone(story, receipt, auditor):
    number, data = receipt
    report = verify_receipt_file(data, trust=trust_of_genesis(story.genesis, network=story.network))
    assert (report.node, report.kind, report.decision) == (auditor.tokens[number], "access", "allow")
    assert report.subject == story.patient
    assert not report.signed
    assert not report.in_log


def test_a_receipt_is_proven_with_the_directory_and_the_log(story, receipt, auditor):
    number, data = receipt
    report = verify_receipt_file(
        data,
        trust=auditor.trust,
        history=auditor.directory.history,
        log=folder_fetch(story.node(number) / "log"),
    )
    assert report.signed
    assert report.in_log
    assert len(report.signers) == 1
    assert report.request is not None


def test_a_receipt_of_a_consent_event_is_one_too(story, auditor):
    report = verify_receipt_file(story.consent_receipt, trust=auditor.trust, history=auditor.directory.history)
    assert (report.kind, report.reason, report.signed) == ("keep", "consent", True)


def test_a_receipt_needs_nothing_but_the_log_s_key(receipt, auditor):
    number, data = receipt
    assert verify_receipt_file(data, verifier=auditor.trust.log(auditor.tokens[number])).size > 0
    with pytest.raises(VerificationError) as caught:
        verify_receipt_file(data, verifier=auditor.trust.log(auditor.tokens[number % 4 + 1]))
    assert caught.value.code == "wrong-log"


def test_every_byte_of_a_receipt_matters(story, receipt, auditor):
    _, data = receipt
    accepted = []
    for at in range(0, len(data), 3):
        for bit in (1, 64):
            changed = bytearray(data)
            changed[at] ^= bit
            try:
                verify_receipt_file(bytes(changed), trust=auditor.trust, history=auditor.directory.history)
            except Error:
                continue
            accepted.append(at)
    assert accepted == []


def test_a_receipt_of_an_unknown_node_or_network(receipt, auditor):
    _, data = receipt
    trust = auditor.trust._replace(nodes={})
    with pytest.raises(NotFoundError) as caught:
        verify_receipt_file(data, trust=trust)
    assert caught.value.code == "unknown-node"
    with pytest.raises(VerificationError) as caught:
        verify_receipt_file(data, trust=auditor.trust._replace(network="0" * 64))
    assert caught.value.code == "wrong-network"


def test_a_receipt_with_the_body_of_another_entry(story, auditor):
    several = [decode_receipt(data) for data in story.receipts.values()]
    mixed = Receipt(salt=several[0].salt, body=several[1].body, proof=several[0].proof)
    with pytest.raises(VerificationError):
        verify_receipt_file(encode_receipt(mixed), trust=auditor.trust)


def test_a_log_that_was_rewritten_is_caught_at_the_entry_of_the_receipt(operator, receipt, auditor):
    number, data = receipt
    node = operator(number)
    index = msgspec.json.decode(decode_receipt(data).body)["index"]
    kind, _, body = node.entry(index)
    node.execute("UPDATE entries SET salt = ? WHERE idx = ?", (b"s" * 32, index))
    node.put(index, body, kind=kind)
    node.publish()
    with pytest.raises(VerificationError) as caught:
        verify_receipt_file(data, trust=auditor.trust, log=folder_fetch(node.folder / "log"))
    assert (caught.value.code, index_of(caught.value)) == ("rewritten", index)


def test_a_log_that_dropped_the_entry_of_the_receipt(operator, receipt, auditor):
    number, data = receipt
    node = operator(number)
    index = msgspec.json.decode(decode_receipt(data).body)["index"]
    node.publish(leaves=node.leaves()[:index])
    with pytest.raises(VerificationError) as caught:
        verify_receipt_file(data, trust=auditor.trust, log=folder_fetch(node.folder / "log"))
    assert (caught.value.code, index_of(caught.value)) == ("rolled-back", index)


def test_a_receipt_is_verified_with_one_source_of_keys(receipt, auditor):
    number, data = receipt
    with pytest.raises(AssertionError):
        verify_receipt_file(data)
    with pytest.raises(AssertionError):
        verify_receipt_file(data, trust=auditor.trust, verifier=auditor.trust.log(auditor.tokens[number]))
