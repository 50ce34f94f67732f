"""The subject's changes: when they hold, who is named when they don't, and what a revoked reader can still do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from careledger.access import decode_receipt
from careledger.client import MemoryState, Patient
from careledger.client.reader import Reader
from careledger.client.spread import consent_marks, submission_marks
from careledger.errors import NotPermittedError, UnavailableError, VerificationError
from careledger.transport import Answer


def test_marks_are_the_designs() -> None:
    assert consent_marks(4, 3, 1) == {"effective": 3, "complete": 4}
    assert consent_marks(7, 5, 2) == {"effective": 5, "complete": 7}
    assert submission_marks(4, 3, 1) == {"kept": 2, "readable": 3, "safe": 4, "complete": 4}


@pytest.mark.parametrize(("n", "t", "f"), [(1, 1, 0), (2, 2, 0), (3, 2, 0), (4, 3, 1), (7, 5, 2), (16, 11, 5)])
def test_whoever_asks_t_meets_an_honest_custodian_that_knows_an_effective_change(n: int, t: int, f: int) -> None:
    assert t + consent_marks(n, t, f)["effective"] - n >= min(f + 1, n)


def test_revocation_says_effective_then_complete_and_keeps_receipts(lab: Any, make_treated: Any) -> None:
    treated = make_treated()
    marks: list[str] = []
    done = lab.run(treated.patient.revoke(treated.grant, on_mark=lambda mark, _: marks.append(mark)))
    assert marks == ["effective", "complete"]
    assert done.complete
    kept = treated.patient.receipts_of(treated.grant)
    assert set(kept) == {node.token for node in lab.nodes}
    assert all(len(receipts) == 2 for receipts in kept.values()), "one for the revocation, one for the rekey"
    decode_receipt(kept[lab.nodes[0].token][0])
    with pytest.raises(NotPermittedError) as refused:
        lab.run(treated.reader().open(treated.subject, treated.records, purpose="TREAT"))
    assert refused.value.code in ("revoked", "no-grant")


def test_revocation_with_one_custodian_down_is_effective_not_complete_and_settles_later(
    lab: Any, make_treated: Any, faults: Any
) -> None:
    treated = make_treated()
    lab.nodes[3].fault = faults["dead"]
    done = lab.run(treated.patient.revoke(treated.grant))
    assert done.effective
    assert not done.complete
    assert {node: error.code for node, error in done.failures.items()} == {lab.nodes[3].token: "unreachable"}
    lab.heal()
    settled = lab.run(treated.patient.settle())
    assert settled.complete
    state = lab.nodes[3].custodian.chains.state(lab.nodes[3].custodian.people.subject(treated.subject))
    assert state.head == treated.patient.chain.state.head


def test_a_custodian_that_missed_an_event_is_sent_it_with_the_next(lab: Any, make_treated: Any, faults: Any) -> None:
    """Else it would refuse all that follows until its peers had told it, and no revocation would be complete."""
    treated = make_treated()
    lab.nodes[3].fault = faults["dead"]
    given = lab.run(treated.patient.grant(treated.keys.token, categories=["results"], expires_ms=lab.expires()))
    assert not given.published.complete
    lab.heal()
    done = lab.run(treated.patient.revoke(treated.grant))
    assert done.complete, done.failures
    state = lab.nodes[3].custodian.chains.state(lab.nodes[3].custodian.people.subject(treated.subject))
    assert state.head == treated.patient.chain.state.head


def test_an_event_that_reached_nobody_does_not_keep_the_next_from_being_taken(
    lab: Any, make_treated: Any, faults: Any
) -> None:
    treated = make_treated()
    lab.run(treated.patient.refresh())

    async def deaf(path: str, body: bytes, honest: Any) -> Answer:
        if path == "/v1/consent":
            return await faults["dead"](path, body, honest)
        return await honest()

    for node in lab.nodes:
        node.fault = deaf
    with pytest.raises(UnavailableError) as refused:
        lab.run(treated.patient.grant(treated.keys.token, categories=["results"], expires_ms=lab.expires()))
    assert "kept here" in str(refused.value)
    lab.heal()
    assert lab.run(treated.patient.revoke(treated.grant)).complete


def test_revocation_with_two_custodians_down_is_not_called_effective(lab: Any, make_treated: Any, faults: Any) -> None:
    treated = make_treated()
    lab.run(treated.patient.refresh())

    async def deaf(path: str, body: bytes, honest: Any) -> Answer:
        if path == "/v1/consent":
            return await faults["dead"](path, body, honest)
        return await honest()

    lab.nodes[0].fault = lab.nodes[1].fault = deaf
    done = lab.run(treated.patient.revoke(treated.grant))
    assert not done.effective
    assert len(done.receipts) == 2


def test_a_receipt_for_something_else_is_no_acknowledgement(lab: Any, make_treated: Any) -> None:
    treated = make_treated()
    old: dict[str, bytes] = {}

    async def replays(path: str, body: bytes, honest: Any) -> Answer:
        answer = await honest()
        if path != "/v1/consent":
            return answer
        receipts, seq, head = msgspec.msgpack.decode(answer.body)
        first = old.setdefault("receipt", receipts[0])
        return Answer(200, msgspec.msgpack.encode([[first] * len(receipts), seq, head]), answer.headers)

    lab.nodes[2].fault = replays
    keys, _ = lab.run(lab.clinician(2))
    lab.run(treated.patient.grant(keys.token, categories=["about"], expires_ms=lab.expires()))
    done = lab.run(treated.patient.revoke(treated.grant))
    assert done.failures[lab.nodes[2].token].code == "wrong-receipt"
    assert not done.complete


def test_every_revocation_has_keys_of_its_own(lab: Any, make_treated: Any) -> None:
    """Keys are made while the head is read; two revocations, one of them refused, must not share any."""
    treated = make_treated()
    patient = treated.patient
    lab.run(patient.revoke(treated.grant))
    with pytest.raises(VerificationError, match="revoked already"):
        lab.run(patient.revoke(treated.grant))
    with pytest.raises(VerificationError, match="no grant"):
        lab.run(patient.revoke("ab" * 16))
    keys = lab.run(lab.person())
    granted = lab.run(patient.grant(keys.token, categories=["about", "results"], expires_ms=lab.expires()))
    lab.run(patient.revoke(granted.grant))
    lab.run(patient.rekey(["about"]))
    seeds = list(patient.chain.seeds().values())
    assert len(set(seeds)) == len(seeds)
    about = patient.chain.compartment_of("about")
    assert [epoch for compartment, epoch in sorted(patient.chain.seeds()) if compartment == about] == [1, 2, 3, 4]


def test_a_grant_that_another_device_gave_is_revoked_with_a_rekey(lab: Any, make_treated: Any) -> None:
    """It isn't known before the head is read, so no key was made ahead for it."""
    treated = make_treated()
    second = Patient(lab.network, treated.patient.keys, state=MemoryState())
    lab.run(second.refresh())
    keys = lab.run(lab.person())
    granted = lab.run(treated.patient.grant(keys.token, categories=["about"], expires_ms=lab.expires()))
    done = lab.run(second.revoke(granted.grant))
    assert done.complete
    assert second.chain.state.compartments[second.chain.compartment_of("about")][0] == 2


def test_after_revocation_the_other_reader_reads_old_and_new_records(
    lab: Any, make_treated: Any, make_bundle: Any
) -> None:
    treated = make_treated()
    keys = lab.run(lab.person())
    categories = ["about", "conditions", "results", "visits", "private"]
    lab.run(treated.patient.grant(keys.token, categories=categories, expires_ms=lab.expires()))
    other = Reader(lab.network, keys)
    before = lab.run(other.open(treated.subject, treated.records, purpose="TREAT"))
    assert len(before.records) == len(treated.records)
    lab.run(treated.patient.revoke(treated.grant))
    own = _own_author(lab, treated.patient)
    done = lab.run(own.import_file(treated.subject, "more.json", [make_bundle(2, note=" after")]))
    assert done.kept == done.records > 0
    fresh = [bytes.fromhex(record) for sent in done.sent for record in sent.records]
    again = lab.run(other.open(treated.subject, [*treated.records, *fresh], purpose="TREAT"))
    assert len(again.records) == len(treated.records) + len(fresh)
    assert again.failed == []


def test_a_reader_granted_after_a_rekey_reads_records_of_the_epoch_before(lab: Any, make_treated: Any) -> None:
    treated = make_treated()
    lab.run(treated.patient.revoke(treated.grant))
    keys = lab.run(lab.person())
    categories = ["about", "conditions", "results", "visits", "private"]
    lab.run(treated.patient.grant(keys.token, categories=categories, expires_ms=lab.expires()))
    opened = lab.run(Reader(lab.network, keys).open(treated.subject, treated.records, purpose="TREAT"))
    assert len(opened.records) == len(treated.records)


def test_a_revoked_readers_old_keys_do_not_open_the_new_epoch(lab: Any, make_treated: Any) -> None:
    treated = make_treated()
    reader = treated.reader()
    lab.run(reader.open(treated.subject, treated.records, purpose="TREAT"))
    lab.run(treated.patient.revoke(treated.grant))
    view = lab.run(reader.grants(treated.subject))
    compartment = treated.patient.chain.compartment_of("results")
    view.compartment_key(compartment, 1)
    with pytest.raises(Exception, match="no grant gives the key"):
        view.compartment_key(compartment, 2)


def test_a_second_device_learns_everything_from_the_custodians(lab: Any, treated: Any) -> None:
    lab.run(treated.patient.refresh())
    second = Patient(lab.new_network(), treated.patient.keys, state=MemoryState())
    lab.run(second.refresh())
    assert second.chain.state == treated.patient.chain.state
    assert second.chain.seeds() == treated.patient.chain.seeds()
    assert second.chain.names == treated.patient.chain.names


def test_two_devices_at_once_make_a_fork_that_merges(lab: Any, make_treated: Any) -> None:
    treated = make_treated()
    first = treated.patient
    second = Patient(lab.network, first.keys, state=MemoryState())
    lab.run(first.refresh())
    lab.run(second.refresh())
    one, two = lab.run(lab.person()), lab.run(lab.person())

    async def both() -> None:
        refresh = second.refresh

        async def blind() -> Any:
            return second.chain.state

        second.refresh = blind  # type: ignore[method-assign]
        await first.grant(one.token, categories=["about"], expires_ms=lab.expires())
        await second.grant(two.token, categories=["about"], expires_ms=lab.expires())
        second.refresh = refresh  # type: ignore[method-assign]

    lab.run(both())
    state = lab.run(first.refresh())
    assert state.forked
    assert treated.grant in state.grants
    assert not [g for g in state.grants.values() if g.terms.grantee in (one.token, two.token)], "grants freeze"
    lab.run(first.merge(state.heads[0]))
    state = lab.run(first.refresh())
    assert not state.forked


def test_chain_with_a_forged_event_is_refused(lab: Any, make_treated: Any) -> None:
    treated = make_treated()

    async def forges(path: str, body: bytes, honest: Any) -> Answer:
        answer = await honest()
        if path != "/v1/consent/read":
            return answer
        seq, head, events, keys, inbox = msgspec.msgpack.decode(answer.body)
        forged = [[envelope.replace(b'"sig":"', b'"sig":"A'), boxes] for envelope, boxes in events]
        return Answer(200, msgspec.msgpack.encode([seq, head, forged, keys, inbox]), answer.headers)

    for node in lab.nodes[:2]:
        node.fault = forges
    second = Patient(lab.network, treated.patient.keys, state=MemoryState())
    with pytest.raises((UnavailableError, VerificationError, Exception)) as refused:
        lab.run(second.refresh())
    assert refused.value.code != ""
    assert second.chain.state.seq == 0


def _own_author(lab: Any, patient: Any) -> Any:
    from careledger.client import Author

    return Author(lab.network, patient.keys, state=MemoryState(), own=patient)


def test_filed_record_follows_its_new_category(lab: Any, make_treated: Any) -> None:
    from careledger.client import Owner

    treated = make_treated()
    lab.run(treated.patient.revoke(treated.grant))
    keys = lab.run(lab.person())
    lab.run(treated.patient.grant(keys.token, categories=["documents"], expires_ms=lab.expires()))
    reader = Reader(lab.network, keys)
    listing = lab.run(reader.list(treated.subject, purpose="TREAT"))
    assert listing.manifests == []
    record = treated.records[0]
    secrets = lab.run(Owner(treated.patient).consent_keys([record]))
    lab.run(treated.patient.file(record.hex(), "documents", consent_key=secrets[record.hex()]))
    opened = lab.run(reader.open(treated.subject, [record], purpose="TREAT"))
    assert [one.record for one in opened.records] == [record]


def test_grant_of_single_records_opens_those_and_no_others(lab: Any, make_treated: Any) -> None:
    from careledger.client import Owner

    treated = make_treated()
    secrets = lab.run(Owner(treated.patient).consent_keys(treated.records[:1]))
    keys = lab.run(lab.person())
    lab.run(treated.patient.grant(keys.token, records=secrets, expires_ms=lab.expires()))
    reader = Reader(lab.network, keys)
    opened = lab.run(reader.open(treated.subject, treated.records[:1], purpose="TREAT"))
    assert len(opened.records) == 1
    with pytest.raises(NotPermittedError) as refused:
        lab.run(reader.open(treated.subject, treated.records[1:], purpose="TREAT"))
    assert refused.value.code == "out-of-scope"
