"""Importing: nothing twice, nothing lost, nobody else's; keys only from the subject's own signed words."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from careledger.access import Receipt
from careledger.client import Author, MemoryState, Owner
from careledger.errors import ConflictError, NotPermittedError, UnavailableError
from careledger.fhir import ReadOptions, read_file
from careledger.seal import SealingKey, b64
from careledger.transport import Answer


def test_import_is_counted_at_f_plus_1_t_and_t_plus_f(treated: Any) -> None:
    done = treated.imported
    assert done.records == done.kept == done.readable == done.safe > 0
    assert done.resources == 5
    assert all(len(sent.receipts) == 4 for sent in done.sent)


def test_importing_twice_changes_nothing(treated: Any, make_bundle: Any) -> None:
    before = [node.custodian.writer.frontier.size for node in treated.lab.nodes]
    done = treated.lab.run(treated.author.import_file(treated.subject, "again.json", [make_bundle()]))
    assert (done.records, done.resources, done.already, done.sent) == (0, 0, 5, [])
    assert [node.custodian.writer.frontier.size for node in treated.lab.nodes] == before


def test_changed_bytes_under_a_known_url_replace(lab: Any, make_treated: Any, make_bundle: Any) -> None:
    treated = make_treated()
    done = lab.run(treated.author.import_file(treated.subject, "new.json", [make_bundle(note=" corrected")]))
    assert done.already == 2, "Patient and Encounter are as they were"
    assert done.resources == 3
    new = [bytes.fromhex(record) for sent in done.sent for record in sent.records]
    opened = lab.run(treated.reader().open(treated.subject, new, purpose="TREAT"))
    assert {one.manifest.replaces for one in opened.records} <= {record.hex() for record in treated.records}


def test_one_custodian_down_still_keeps(lab: Any, make_treated: Any, make_bundle: Any, faults: Any) -> None:
    treated = make_treated()
    lab.nodes[1].fault = faults["dead"]
    done = lab.run(treated.author.import_file(treated.subject, "more.json", [make_bundle(1, note=" x")]))
    assert (done.kept, done.readable, done.safe) == (done.records, done.records, 0)
    assert done.sent[0].failures[lab.nodes[1].token].code == "unreachable"


def test_three_custodians_down_is_refused_and_can_be_repeated(
    lab: Any, make_treated: Any, make_bundle: Any, faults: Any
) -> None:
    treated = make_treated()
    data = make_bundle(1, note=" y")

    async def no_submissions(path: str, body: bytes, honest: Any) -> Answer:
        return await (faults["dead"](path, body, honest) if path == "/v1/submission" else honest())

    for node in lab.nodes[1:]:
        node.fault = no_submissions
    with pytest.raises(UnavailableError) as refused:
        lab.run(treated.author.import_file(treated.subject, "more.json", [data]))
    assert refused.value.code == "not-enough-custodians"
    lab.heal()
    done = lab.run(treated.author.import_file(treated.subject, "more.json", [data]))
    assert done.safe == done.records > 0


def test_a_receipt_that_is_not_for_this_submission_does_not_count(
    lab: Any, make_treated: Any, make_bundle: Any
) -> None:
    treated = make_treated()
    first: list[bytes] = []

    async def replays(path: str, body: bytes, honest: Any) -> Answer:
        answer = await honest()
        if path == "/v1/submission":
            first.append(answer.body)
            return Answer(200, first[0], answer.headers)
        return answer

    lab.nodes[0].fault = replays
    lab.run(treated.author.import_file(treated.subject, "a.json", [make_bundle(1, note=" a")]))
    done = lab.run(treated.author.import_file(treated.subject, "b.json", [make_bundle(1, note=" b")]))
    assert {s.failures[lab.nodes[0].token].code for s in done.sent} == {"wrong-receipt"}
    msgspec.msgpack.decode(first[0], type=Receipt)


def test_stale_epoch_is_sealed_again_once_with_the_newest_keys(lab: Any, make_treated: Any, make_bundle: Any) -> None:
    treated = make_treated()
    lab.run(treated.patient.rekey(["results", "about"]))
    before = [node.asked.count("/v1/submission") for node in lab.nodes]
    done = lab.run(treated.author.import_file(treated.subject, "x.json", [make_bundle(2, note=" later")]))
    assert done.safe == done.records > 0
    assert [node.asked.count("/v1/submission") - b for node, b in zip(lab.nodes, before, strict=True)] == [2] * 4
    opened = lab.run(
        treated.reader().open(
            treated.subject, [bytes.fromhex(r) for s in done.sent for r in s.records], purpose="TREAT"
        )
    )
    assert {one.manifest.epoch for one in opened.records} == {2}


def test_a_custodian_cannot_slip_its_own_key_to_an_author(lab: Any, make_treated: Any, make_bundle: Any) -> None:
    """Keys come from events that the subject signed: what an answer lists beside them is not even looked at."""
    treated = make_treated()
    evil = SealingKey(bytes(32)).public

    async def slips(path: str, body: bytes, honest: Any) -> Answer:
        answer = await honest()
        if path != "/v1/consent/read":
            return answer
        seq, head, events, keys, inbox = msgspec.msgpack.decode(answer.body)
        keys = [[compartment, epoch + 1, evil] for compartment, epoch, _ in keys]
        return Answer(200, msgspec.msgpack.encode([seq, head, events, keys, inbox]), answer.headers)

    for node in lab.nodes:
        node.fault = slips
    author = Author(lab.network, treated.keys, state=MemoryState(), staff=treated.staff)
    places = lab.run(author.places(treated.subject))
    state = treated.patient.chain.state
    assert places.keys == {place: state.compartments[place] for place in places.keys}
    assert b64(evil) not in {key for _, key in places.keys.values()}
    done = lab.run(author.import_file(treated.subject, "x.json", [make_bundle(1, note=" safe")]))
    assert done.kept == done.records


def test_licensed_author_without_a_grant_writes_to_the_inbox(lab: Any, make_bundle: Any) -> None:
    patient = lab.run(lab.patient())
    keys, staff = lab.run(lab.clinician(2))
    author = Author(lab.network, keys, state=MemoryState(), staff=staff)
    done = lab.run(author.import_file(patient.subject, "x.json", [make_bundle(2)]))
    assert done.safe == done.records > 0
    opened = lab.run(Owner(patient).open_all())
    assert {one.manifest.compartment for one in opened.records} == {patient.chain.compartment_of("inbox")}


def test_a_grant_given_meanwhile_is_seen_by_the_next_import(lab: Any, make_bundle: Any) -> None:
    patient = lab.run(lab.patient())
    keys, staff = lab.run(lab.clinician(2))
    author = Author(lab.network, keys, state=MemoryState(), staff=staff)
    lab.run(author.import_file(patient.subject, "x.json", [make_bundle(1)]))
    lab.run(patient.grant(staff.organisation, categories=["results"], rights=["contribute"], expires_ms=lab.expires()))
    lab.clock.ms += 20_000
    done = lab.run(author.import_file(patient.subject, "y.json", [make_bundle(1, note=" more")]))
    opened = lab.run(Owner(patient).open([bytes.fromhex(record) for sent in done.sent for record in sent.records]))
    assert {patient.chain.names[one.manifest.compartment] for one in opened.records} == {"results"}


def test_author_without_grant_or_licence_is_refused(lab: Any, make_bundle: Any) -> None:
    patient = lab.run(lab.patient())
    keys = lab.run(lab.person())
    with pytest.raises(NotPermittedError) as refused:
        lab.run(Author(lab.network, keys, state=MemoryState()).import_file(patient.subject, "x.json", [make_bundle()]))
    assert refused.value.code == "no-grant"


def test_a_file_about_somebody_else_is_refused_unless_confirmed(lab: Any, make_treated: Any, make_bundle: Any) -> None:
    treated = make_treated()
    other = make_bundle(1, name="Nowak", patient_id="p2")
    with pytest.raises(ConflictError) as refused:
        lab.run(treated.author.import_file(treated.subject, "x.json", [other]))
    assert refused.value.code == "other-person"
    reading = read_file("x.json", [other], options=ReadOptions())
    done = lab.run(treated.author.import_reading(treated.subject, reading, confirmed=True))
    assert done.kept == done.records > 0


def test_patient_imports_its_own_file_into_its_own_categories(lab: Any, make_bundle: Any) -> None:
    patient = lab.run(lab.patient())
    author = Author(lab.network, patient.keys, state=MemoryState(), own=patient)
    done = lab.run(author.import_file(patient.subject, "x.json", [make_bundle()]))
    assert done.safe == done.records
    opened = lab.run(Owner(patient).open_all())
    names = {patient.chain.names[one.manifest.compartment] for one in opened.records}
    assert names == {"about", "results", "visits"}


def test_progress_is_told_and_the_loop_stays_free(lab: Any, make_bundle: Any) -> None:
    patient = lab.run(lab.patient())
    author = Author(lab.network, patient.keys, state=MemoryState(), own=patient)
    told: list[tuple[int, int, int]] = []
    turns = 0

    async def both() -> Any:
        async def spin() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        spinner = asyncio.create_task(spin())
        try:
            return await author.import_file(
                patient.subject,
                "x.json",
                [make_bundle(300)],
                on_progress=lambda p: told.append((p.records, p.sealed, p.kept)),
            )
        finally:
            spinner.cancel()

    done = lab.run(both())
    assert told[-1] == (done.records, done.records, done.records)
    assert turns > 100


def test_many_records_go_in_several_submissions_of_bounded_size(lab: Any, make_treated: Any) -> None:
    entries = [{"fullUrl": "urn:uuid:p1", "resource": {"resourceType": "Patient", "id": "p1"}}]
    for number in range(450):
        observation = {
            "resourceType": "Observation",
            "status": "final",
            "code": {"text": f"o{number}"},
            "subject": {"reference": "urn:uuid:p1"},
            "effectiveDateTime": f"{1500 + number}-01-01",
        }
        entries.append({"fullUrl": f"urn:uuid:o{number}", "resource": observation})
    data = msgspec.json.encode({"resourceType": "Bundle", "type": "collection", "entry": entries})
    treated = make_treated(data=data)
    assert treated.imported.safe == treated.imported.records == 451
    assert [len(sent.records) for sent in treated.imported.sent] == [200, 200, 51]
    opened = lab.run(treated.reader().open(treated.subject, treated.records, purpose="TREAT"))
    assert len(opened.records) == 451
