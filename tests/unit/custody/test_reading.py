"""What people are shown of a consent chain and of the log: what concerns them, signed for, fresh, and nothing else."""

from __future__ import annotations

import asyncio
import hashlib

import msgspec
import pytest

from careledger.access import FRESH_MS, ReadAudit, SignedRead, leaf
from careledger.consent import Compartments, Grant, Rekey, Revoke, decode_event, make_rekey
from careledger.custody import reading as reading_module
from careledger.seal import Envelope, SealingKey, SealingPublicKey, decode, encode, sign, unb64
from careledger.tlog import leaf_hash, open_checkpoint, verify_inclusion


def events_of(answer):
    return [decode_event(unb64(decode(envelope, Envelope).payload)) for envelope, _ in answer.events]


def refused(case, signed):
    with pytest.raises(Exception) as refusal:
        case.keeper.reading.consent(signed)
    return refusal.value.code


def test_the_subject_sees_its_whole_chain_with_all_boxes(case):
    answer = case.keeper.reading.consent(case.town.read_consent(case.subject, case.subject, "chain"))
    assert [envelope for envelope, _ in answer.events] == [one.envelope for one in case.subject.events]
    assert [boxes for _, boxes in answer.events] == [one.boxes for one in case.subject.events]
    assert (answer.seq, answer.head) == (2, case.subject.state.head)
    since = case.keeper.reading.consent(case.town.read_consent(case.subject, case.subject, "chain", from_seq=2))
    assert len(since.events) == 1


def test_nobody_else_sees_the_chain(case):
    for who, more in (
        (case.clinician, {}),
        (case.clinician, {"for_": case.clinic, "affiliation": case.affiliation}),
        (case.clinic, {}),
    ):
        assert refused(case, case.town.read_consent(who, case.subject, "chain", **more)) == "no-grant"


@pytest.mark.parametrize("view", ["chain", "grants", "keys", "head"])
def test_a_stranger_sees_nothing(case, view):
    assert refused(case, case.town.read_consent(case.town.person(), case.subject, view)) == "no-grant"


def test_a_manager_sees_the_chain_in_person_or_through_its_staff(town):
    provider = town.organisations[2]
    subject, keeper = town.subject(manager=provider), town.keeper()
    subject.begin()
    keeper.keep(subject)
    assert len(keeper.reading.consent(town.read_consent(provider, subject, "chain")).events) == 1
    staff, affiliation = town.clinician(2)
    read = town.read_consent(staff, subject, "chain", for_=provider, affiliation=affiliation)
    assert len(keeper.reading.consent(read).events) == 1


def test_a_grantee_sees_its_own_grants_and_only_its_boxes(case):
    other = case.town.organisations[3]
    case.subject.grant(other)
    case.subject.rekey("results")
    case.keeper.tell(case.subject, *case.subject.events)
    read = case.town.read_consent(
        case.clinician, case.subject, "grants", for_=case.clinic, affiliation=case.affiliation
    )
    answer = case.keeper.reading.consent(read)
    shown = events_of(answer)
    assert [type(one) for one in shown] == [Compartments, Grant, Rekey]
    assert shown[1].grantee == case.clinic.token
    own_boxes = {box for _, boxes in answer.events for box in boxes}
    assert own_boxes == set(case.subject.events[1].boxes)
    # The subject's own boxes (names and seeds of everything) are for nobody else.
    assert not own_boxes & set(case.subject.events[0].boxes)


def test_a_rekeys_box_is_shown_to_whom_it_is_for(case):
    reading_key = SealingPublicKey(SealingKey(case.clinic.reading_seed).public)
    made = make_rekey(
        case.subject.writer,
        case.subject.state,
        [case.subject.compartment("results")],
        seeds=case.subject.seeds,
        recipients={case.clinic.token: (case.clinic.keyid, reading_key)},
        now_ms=case.town.clock(),
        rand=case.town.rand,
    )
    case.keeper.tell(case.subject, case.subject._take(made.message))
    other = case.town.organisations[3]
    case.keeper.tell(case.subject, case.subject.grant(other, "visits"))
    shown = {}
    for organisation in (1, 3):
        staff, affiliation = case.town.clinician(organisation)
        read = case.town.read_consent(
            staff, case.subject, "grants", for_=case.town.organisations[organisation], affiliation=affiliation
        )
        answer = case.keeper.reading.consent(read)
        shown[organisation] = [
            boxes
            for event, (_, boxes) in zip(events_of(answer), answer.events, strict=True)
            if isinstance(event, Rekey)
        ]
    assert shown == {1: [[made.message.boxes[1]]], 3: [[]]}


def test_whose_grants_are_all_revoked_sees_nothing_more(case):
    case.keeper.tell(case.subject, case.subject.revoke())
    person = case.town.person()
    affiliation = case.town.affiliate(person)
    read = case.town.read_consent(person, case.subject, "grants", for_=case.clinic, affiliation=affiliation)
    assert refused(case, read) == "no-grant"


def test_a_revocation_of_ones_own_grant_is_shown(case):
    case.subject.grant(case.clinic, "visits")
    case.subject.revoke()
    case.keeper.tell(case.subject, *case.subject.events)
    read = case.town.read_consent(
        case.clinician, case.subject, "grants", for_=case.clinic, affiliation=case.affiliation
    )
    assert [type(one) for one in events_of(case.keeper.reading.consent(read))] == [Compartments, Grant, Grant, Revoke]


def test_staff_without_affiliation_to_the_grantee_see_nothing(case):
    other = case.town.person()
    read = case.town.read_consent(other, case.subject, "grants", for_=case.clinic)
    assert refused(case, read) == "no-grant"
    for affiliation in (case.affiliation, case.town.affiliate(other, 2), b"{}"):
        read = case.town.read_consent(other, case.subject, "grants", for_=case.clinic, affiliation=affiliation)
        assert refused(case, read) in ("not-affiliated", "unknown-key", "bad-field")


def test_an_author_sees_only_the_keys_it_may_write_to(case):
    licensed, affiliation = case.town.clinician(2)
    read = case.town.read_consent(
        licensed, case.subject, "keys", for_=case.town.organisations[2], affiliation=affiliation
    )
    answer = case.keeper.reading.consent(read)
    inbox = case.subject.compartment("inbox")
    assert [compartment for compartment, _, _ in answer.keys] == [inbox]
    assert answer.inbox == inbox
    assert [boxes for _, boxes in answer.events] == [[]]
    case.keeper.tell(case.subject, case.subject.rekey("results"))
    answer = case.keeper.reading.consent(
        case.town.read_consent(licensed, case.subject, "keys", for_=case.town.organisations[2], affiliation=affiliation)
    )
    assert [type(one) for one in events_of(answer)] == [Compartments]
    granted = case.keeper.reading.consent(
        case.town.read_consent(case.clinician, case.subject, "keys", for_=case.clinic, affiliation=case.affiliation)
    )
    assert {(name, epoch) for name, epoch, _ in granted.keys} == {
        (name, epoch) for name, (epoch, _) in case.subject.state.compartments.items()
    }
    assert [type(one) for one in events_of(granted)] == [Compartments, Rekey]


def test_the_unlicensed_and_the_unaffiliated_see_no_keys(case):
    person = case.town.person()
    employer = case.town.organisations[2]
    affiliation = case.town.affiliate(person, 2)
    read = case.town.read_consent(person, case.subject, "keys", for_=employer, affiliation=affiliation)
    assert refused(case, read) == "no-grant"
    case.town.license(person)
    assert refused(case, case.town.read_consent(person, case.subject, "keys")) == "no-grant"


def test_staff_of_an_organisation_that_is_no_member_sees_no_keys(case):
    person, organisation = case.town.person(), case.town.person()
    case.town.license(person)
    affiliation = case.town.affiliate(person, organisation)
    read = case.town.read_consent(person, case.subject, "keys", for_=organisation, affiliation=affiliation)
    assert refused(case, read) == "no-grant"


def test_who_may_only_read_gets_no_keys_but_of_the_inbox(case):
    case.subject.grant(case.town.organisations[2], rights=("read",))
    case.keeper.tell(case.subject, case.subject.events[-1])
    person = case.town.person()
    affiliation = case.town.affiliate(person, 2)
    read = case.town.read_consent(
        person, case.subject, "keys", for_=case.town.organisations[2], affiliation=affiliation
    )
    assert [one[0] for one in case.keeper.reading.consent(read).keys] == [case.subject.compartment("inbox")]


def test_a_head_shows_number_and_head_alone(case):
    answer = case.keeper.reading.consent(case.town.read_consent(case.subject, case.subject, "head"))
    assert (answer.events, answer.keys) == ([], [])
    assert (answer.seq, answer.head) == (2, case.subject.state.head)


def test_a_head_shows_a_grantee_no_events(case):
    read = case.town.read_consent(case.clinician, case.subject, "head", for_=case.clinic, affiliation=case.affiliation)
    answer = case.keeper.reading.consent(read)
    assert (answer.events, answer.keys, answer.seq) == ([], [], 2)


@pytest.mark.parametrize("view", ["consent", "audit"])
def test_a_signed_read_is_proven_fresh_and_new(case, view):
    town, other = case.town, case.town.person()

    def read(**changes):
        if view == "audit":
            return town.read_audit(case.subject, case.subject, **changes)
        return town.read_consent(case.subject, case.subject, "chain", **changes)

    async def ask(signed):
        if view == "audit":
            return await case.keeper.reading.audit(signed)
        return case.keeper.reading.consent(signed)

    case.keeper.publish()
    for changes, code in (
        ({"network": "ab" * 32}, "wrong-network"),
        ({"signer": other.signer}, "wrong-signer"),
        ({"signer": (case.subject.keyid, other.signer[1])}, "bad-signature"),
        ({"time": town.clock() - FRESH_MS - 1}, "stale-request"),
        ({"time": town.clock() + FRESH_MS + 1}, "stale-request"),
    ):
        assert town.refused(ask(read(**changes))) == code
    signed = read()
    town.run(ask(signed))
    assert town.refused(ask(signed)) == "replayed"
    town.clock.ms += FRESH_MS
    assert town.refused(ask(signed)) == "replayed"
    town.clock.ms += 1
    assert town.refused(ask(signed)) == "stale-request"


def test_a_request_of_one_kind_is_none_of_another(case):
    fields = {
        "network": case.town.network,
        "who": case.subject.token,
        "subject": case.subject.token,
        "since": 0,
        "time": case.town.clock(),
        "nonce": "00",
    }
    envelope = encode(
        sign("application/vnd.careledger.consent-read+json", encode(ReadAudit(**fields)), [case.subject.signer])
    )
    assert case.town.refused(case.keeper.reading.audit(SignedRead(envelope))) == "wrong-type"


def test_an_audit_shows_every_access_with_a_proof_that_holds(case):
    records = case.treated()
    for _ in range(3):
        case.keeper.ask(case.ask(records))
    stranger = case.town.ask(case.town.person(), case.subject, records)
    case.keeper.ask(stranger)
    other = case.town.subject()
    other.begin()
    case.keeper.keep(other)
    case.keeper.ask(case.town.ask(other, other, basis="owner"))
    case.keeper.publish()
    answer = case.town.run(case.keeper.reading.audit(case.town.read_audit(case.subject, case.subject)))
    checkpoint = open_checkpoint(answer.checkpoint, verifier=case.keeper.log_signer.verifier)
    bodies = [msgspec.json.decode(one.body) for one in answer.entries]
    assert [one["decision"] for one in bodies] == ["allow", "allow", "allow", "deny"]
    assert {one["subject"] for one in bodies} == {case.subject.token}
    for one in answer.entries:
        text = leaf("access", one.salt, one.body)
        assert text.endswith(hashlib.sha256(one.salt + one.body).hexdigest().encode())
        verify_inclusion(
            index=one.index,
            size=checkpoint.size,
            leaf_hash=leaf_hash(text),
            proof=one.proof,
            root=checkpoint.root,
        )
    assert not answer.more


def test_an_audit_is_for_the_subject_and_its_manager_alone(case):
    case.keeper.publish()
    for who in (case.clinician, case.clinic, case.town.person()):
        assert case.town.refused(case.keeper.reading.audit(case.town.read_audit(who, case.subject))) == "no-grant"
    provider = case.town.organisations[2]
    managed = case.town.subject(manager=provider)
    managed.begin()
    case.keeper.keep(managed)
    case.keeper.publish()
    case.town.run(case.keeper.reading.audit(case.town.read_audit(provider, managed)))


def test_an_audit_comes_in_pages(case, monkeypatch):
    monkeypatch.setattr(reading_module, "AUDIT_ENTRIES_MAX", 2)
    case.treated()
    for _ in range(3):
        case.keeper.ask(case.ask())
    case.keeper.publish()
    first = case.town.run(case.keeper.reading.audit(case.town.read_audit(case.subject, case.subject)))
    assert (len(first.entries), first.more) == (2, True)
    since = first.entries[-1].index + 1
    rest = case.town.run(case.keeper.reading.audit(case.town.read_audit(case.subject, case.subject, since=since)))
    assert (len(rest.entries), rest.more) == (1, False)


def test_an_audit_waits_for_the_checkpoint_that_covers_the_newest_entry(case):
    case.treated()
    case.keeper.publish()
    case.keeper.ask(case.ask())

    async def main():
        task = asyncio.ensure_future(case.keeper.reading.audit(case.town.read_audit(case.subject, case.subject)))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
        case.keeper.publish()
        return await task

    answer = case.town.run(main())
    assert len(answer.entries) == 1
    covered = open_checkpoint(answer.checkpoint, verifier=case.keeper.log_signer.verifier)
    assert covered.size == case.keeper.size


def test_an_audit_that_waited_in_vain_shows_what_is_published(case, monkeypatch):
    case.treated()
    case.keeper.publish()
    case.keeper.ask(case.ask())
    wait = case.keeper.custodian.published_up_to
    monkeypatch.setattr(case.keeper.custodian, "published_up_to", lambda size: wait(size, timeout_s=0.001))
    answer = case.town.run(case.keeper.reading.audit(case.town.read_audit(case.subject, case.subject)))
    assert answer.entries == []
