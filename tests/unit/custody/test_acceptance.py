"""Submissions: what a custodian must have proven before it gives a receipt, and what it refuses."""

from __future__ import annotations

import msgspec
import pytest

from careledger.access import verify_receipt
from careledger.consent import EMPTY
from careledger.errors import ConflictError
from careledger.identity import Document, build_deactivate, build_rotate, build_update, renewed_secrets
from careledger.records import seal_submission
from careledger.records.leaves import arrange, leaves_root
from careledger.records.locks import decode_lock, decode_shares, encode_lock, encode_shares, lock_info, lock_leaf
from careledger.records.manifest import SubmissionStatement
from careledger.seal import (
    Envelope,
    SealingKey,
    SealingPublicKey,
    decode,
    encode,
    envelope_message_id,
    keyid,
    sign,
    unb64,
)


def statement_of(submission):
    return decode(unb64(decode(submission.envelope, Envelope).payload), SubmissionStatement)


def resigned(town, author, submission, *, locks=None, **changes):
    """The submission with other locks or fields of its statement, signed again by its author."""
    locks = list(submission.locks) if locks is None else locks
    leaves = arrange([lock_leaf(one) for one in locks], tree="locks", seed=submission.filler, rand=town.rand)
    statement = msgspec.structs.replace(statement_of(submission), locks_root=leaves_root(leaves).hex(), **changes)
    envelope = encode(sign(statement.TYPE, encode(statement), [(statement.author, author.signer[1])]))
    return msgspec.structs.replace(submission, envelope=envelope, locks=locks, lock_leaves=leaves)


def custodians(town):
    return [
        (keyid(one.token, 0), SealingPublicKey(SealingKey(one.secrets.device.seal).public)) for one in town.software
    ]


def test_a_receipt_proves_the_submissions_entry_and_each_manifest_has_its_own(case):
    size = case.keeper.size
    submission = case.seal(("results", "visits", "results"))
    receipt = case.keeper.accept(submission)
    body = verify_receipt(
        receipt,
        network=case.town.network,
        node=case.keeper.token,
        log_verifier=case.keeper.log_signer.verifier,
        kind="keep",
    )
    assert (body.index, body.decision, body.reason) == (size, "accept", "grant")
    assert body.grant == case.subject.newest_grant
    assert [encode(one) for one in body.envelopes] == [submission.envelope, case.affiliation]
    assert case.keeper.logged(size) == [("keep", "accept", "grant"), *[("keep", "accept", "manifest")] * 3]
    assert [encode(one["manifest"]) for one in case.keeper.entries(size + 1)] == submission.manifests
    assert "subject" not in case.keeper.entries(size + 1)[0]


def test_a_repeated_submission_is_answered_again_without_a_second_entry(case):
    submission = case.seal()
    first = case.keeper.accept(submission)
    size = case.keeper.size
    again = case.keeper.accept(submission)
    assert case.keeper.size == size
    assert (again.salt, again.body) == (first.salt, first.body)
    verify_receipt(
        again,
        network=case.town.network,
        node=case.keeper.token,
        log_verifier=case.keeper.log_signer.verifier,
        kind="keep",
    )
    case.keeper.restart()
    assert case.keeper.accept(submission).body == first.body
    assert case.keeper.size == size


def test_the_same_submission_sent_twice_at_once_is_kept_once(case):
    submission = case.seal()
    one, two = case.town.together(*(case.keeper.acceptance.accept(submission) for _ in range(2)))
    assert one.body == two.body
    assert len(case.records()) == 1


def test_a_submission_id_used_twice_by_its_author_is_refused(case):
    first = case.seal()
    case.keeper.accept(first)
    size = case.keeper.size
    other = resigned(case.town, case.clinician, first, nonce=case.town.rand(16).hex())
    assert case.town.refused(case.keeper.acceptance.accept(other)) == "duplicate"
    assert case.keeper.size == size


def test_two_authors_may_draw_the_same_submission_id(case, monkeypatch):
    other, affiliation = case.town.clinician()
    state = case.town.rand
    draws = [state(16)]

    def fixed(count):
        return draws[0] if count == 16 else state(count)

    monkeypatch.setattr(case.town, "rand", fixed)
    one = case.seal()
    two = case.town.seal(other, case.subject, for_=case.clinic, affiliation=affiliation)
    monkeypatch.setattr(case.town, "rand", state)
    assert statement_of(one).submission == statement_of(two).submission
    case.keeper.accept(one)
    case.keeper.accept(two)
    assert len(set(case.records())) == 2


def test_an_author_unknown_to_the_directory_is_refused_without_an_entry(case):
    stranger = type(case.clinician)(_new_person(case.town))
    size = case.keeper.size
    submission = case.town.seal(stranger, case.subject)
    assert case.town.refused(case.keeper.acceptance.accept(submission)) == "unknown-identity"
    assert case.keeper.size == size


def _new_person(town):
    from careledger.identity import new_person

    return new_person(custodians=(), rand=town.rand)


def test_a_submission_signed_by_somebody_else_is_refused(case):
    other = case.town.person()
    plan = case.town.plan(case.clinician, case.subject, for_=case.clinic)
    forged = seal_submission(plan, signer=other.signer[1], now_ms=case.town.clock(), rand=case.town.rand)
    assert case.town.refused(case.keeper.acceptance.accept(forged)) == "bad-signature"


def test_a_submission_for_another_network_is_refused(case):
    submission = case.seal(network="ab" * 32)
    assert case.town.refused(case.keeper.acceptance.accept(submission)) == "wrong-network"


def test_an_author_whose_key_was_superseded_is_refused(case):
    old = case.seal()
    rotate(case.town, case.clinician)
    assert case.town.refused(case.keeper.acceptance.accept(old)) == "superseded-key"


def test_a_deactivated_author_is_refused(case):
    submission = case.seal()
    deactivate(case.town, case.clinician)
    assert case.town.refused(case.keeper.acceptance.accept(submission)) == "superseded-key"


def rotate(town, person, **more):
    state = town.directory.identity(person.token)
    before = decode(person.document, Document)
    rotation = build_rotate(
        network=town.network,
        token=person.token,
        state=state,
        root=person.root,
        device=renewed_secrets(person.device, sequence=state.sequence + 1, rand=town.rand),
        document=msgspec.structs.replace(before, **more),
        rand=town.rand,
    )
    town.order(rotation.envelope)
    person.device, person.document, person.salt = rotation.secrets.device, rotation.document, rotation.salt
    person.sequence = state.sequence + 1


def update(town, person, **more):
    state = town.directory.identity(person.token)
    document = msgspec.structs.replace(decode(person.document, Document), **more)
    envelope, data, salt = build_update(
        network=town.network,
        token=person.token,
        state=state,
        document=document,
        device=person.device.signing_key(),
        rand=town.rand,
    )
    town.order(envelope)
    person.document, person.salt, person.sequence = data, salt, state.sequence + 1


def deactivate(town, person):
    state = town.directory.identity(person.token)
    town.order(build_deactivate(network=town.network, token=person.token, state=state, root=person.root))


def test_an_unknown_subject_is_refused(case):
    stranger = type(case.subject)(case.town, _new_person(case.town))
    stranger.begin()
    submission = case.town.seal(
        case.clinician, stranger, custodians=case.town.plan(case.clinician, case.subject).custodians, threshold=3
    )
    assert case.town.refused(case.keeper.acceptance.accept(submission)) == "unknown-identity"


def test_a_node_that_is_no_custodian_refuses(town, make_case):
    case = make_case(town)
    subject = town.subject(custodians=[1, 2, 3])
    subject.begin()
    subject.grant(case.clinic)
    keeper = case.keeper
    # Its document came here all the same, as an organisation's would.
    assert town.refused(keeper.documents.keep(subject.message)) == "not-a-custodian"
    number, rows = keeper.custodian.people.add_subject(subject.token)
    keeper.store.commit(
        [],
        [*rows, ("INSERT INTO documents VALUES(?,0,?,?,NULL,NULL,0)", (subject.token, subject.salt, subject.document))],
        [],
        None,
    )
    assert number
    submission = town.seal(case.clinician, subject, for_=case.clinic, affiliation=case.affiliation)
    size = keeper.size
    assert town.refused(keeper.acceptance.accept(submission)) == "not-a-custodian"
    assert keeper.size == size


def test_a_subject_whose_document_is_not_here_is_refused(case):
    subject = case.town.subject()
    subject.begin()
    submission = case.town.seal(case.clinician, subject)
    assert case.town.refused(case.keeper.acceptance.accept(submission)) == "no-document"


def test_a_submission_sealed_for_an_earlier_document_is_refused_with_the_newest_sequence(case):
    submission = case.seal()
    update(case.town, case.subject, services=["https://new.example"])
    case.town.run(case.keeper.documents.keep(case.subject.message))
    with pytest.raises(ConflictError) as refusal:
        case.keeper.accept(submission)
    assert (refusal.value.code, refusal.value.details) == ("stale-document", {"sequence": 1})
    case.keeper.accept(case.seal())


def test_the_newest_document_must_be_here_before_a_submission_is_taken(case):
    update(case.town, case.subject, services=["https://new.example"])
    assert case.town.refused(case.keeper.acceptance.accept(case.seal())) == "no-document"


def test_a_false_share_for_this_custodian_is_refused(case):
    submission = case.seal()
    own = keyid(case.keeper.token, 0)
    key = SealingKey(case.town.software[0].secrets.device.seal)
    info = lock_info(statement_of(submission), "release", to=own)
    locks = []
    for data in submission.locks:
        lock = decode_lock(data)
        if lock.to == own:
            ((record, compartment, share),) = decode_shares(key.open(lock.box, info=info))
            rows = [(record, compartment, bytes([share[0] ^ 1]) + share[1:])]
            box = SealingPublicKey(key.public).seal(encode_shares(rows), info=info)
            data = encode_lock(msgspec.structs.replace(lock, box=box))  # noqa: PLW2901
        locks.append(data)
    forged = resigned(case.town, case.clinician, submission, locks=locks)
    size = case.keeper.size
    assert case.town.refused(case.keeper.acceptance.accept(forged)) == "bad-share"
    assert case.keeper.size == size


def test_release_locks_must_be_to_the_documents_custodians(case):
    stranger = case.town.person()
    plan = case.town.plan(case.clinician, case.subject, for_=case.clinic)
    custodians = [*plan.custodians[:3], stranger.recipient]
    submission = case.seal(custodians=custodians)
    assert case.town.refused(case.keeper.acceptance.accept(submission)) == "bad-lock"


def test_shares_in_another_order_than_the_documents_custodians_are_refused(case):
    plan = case.town.plan(case.clinician, case.subject, for_=case.clinic)
    submission = case.seal(custodians=plan.custodians[::-1])
    assert case.town.refused(case.keeper.acceptance.accept(submission)) == "bad-share"


def test_boxes_copied_from_somebody_elses_submission_do_not_open(case):
    """Laundering: the release lock of one submission in another one's tree (trust row 3)."""
    victim = case.seal()
    thief, affiliation = case.town.clinician()
    own = case.town.seal(thief, case.subject, for_=case.clinic, affiliation=affiliation)
    stolen = {decode_lock(one).to: one for one in victim.locks if decode_lock(one).use == "release"}
    locks = [stolen[decode_lock(one).to] if decode_lock(one).use == "release" else one for one in own.locks]
    forged = resigned(case.town, thief, own, locks=locks)
    assert case.town.refused(case.keeper.acceptance.accept(forged)) == "bad-share"


def test_a_stale_epoch_is_refused_with_the_newest_keys_and_logged(case):
    submission = case.seal(("results", "visits"))
    case.keeper.tell(case.subject, case.subject.rekey("results"))
    size = case.keeper.size
    with pytest.raises(ConflictError) as refusal:
        case.keeper.accept(submission)
    state = case.subject.state
    named = {case.subject.compartment(one) for one in ("results", "visits")}
    assert refusal.value.code == "stale-epoch"
    assert refusal.value.details == {one: list(state.compartments[one]) for one in named}
    assert case.keeper.logged(size) == [("keep", "deny", "stale-epoch")]
    case.keeper.accept(case.seal(("results", "visits")))


def test_without_a_grant_nothing_is_kept_and_the_denial_is_logged(case):
    other, affiliation = case.town.clinician(2)
    size = case.keeper.size
    submission = case.town.seal(other, case.subject, for_=case.town.organisations[2], affiliation=affiliation)
    assert case.town.refused(case.keeper.acceptance.accept(submission)) == "no-grant"
    assert case.keeper.logged(size) == [("keep", "deny", "no-grant")]
    assert case.records() == []


def test_without_an_affiliation_to_the_organisation_it_is_refused(case):
    other = case.town.person()
    for wrong in (
        None,
        case.affiliation,
        case.town.affiliate(other, 2),
        case.town.affiliate(other, from_ms=case.town.clock() - 2000, until_ms=case.town.clock() - 1000),
        case.town.affiliate(other, network="ab" * 32),
        b"{}",
    ):
        submission = case.town.seal(other, case.subject, for_=case.clinic, affiliation=wrong)
        assert case.town.refused(case.keeper.acceptance.accept(submission)) == "not-affiliated"
    assert case.records() == []


def test_a_peers_copy_is_judged_by_the_affiliation_of_its_own_time(case):
    submission = case.seal()
    case.town.clock.ms += 3 * 86_400_000
    case.keeper.accept(submission, via=case.town.software[1].token)
    assert len(case.records()) == 1


def test_the_inbox_takes_from_licensed_staff_without_a_grant_up_to_a_quota_a_day(make_town, make_case):
    case = make_case(make_town(inbox_quota=3))
    author, affiliation = case.town.clinician(2)
    employer = case.town.organisations[2]

    def send(count):
        submission = case.town.seal(author, case.subject, ("inbox",) * count, for_=employer, affiliation=affiliation)
        return case.keeper.acceptance.accept(submission)

    case.town.run(send(2))
    assert case.town.refused(send(2)) == "over-limit"
    case.town.run(send(1))
    assert case.keeper.entries()[-2]["counters"]["inbox_records"] == 2
    assert case.town.refused(send(1)) == "over-limit"
    case.town.clock.ms += 86_400_001
    case.town.order()
    affiliation = case.town.affiliate(author, 2)
    case.town.run(send(1))
    # Another author has a quota of its own.
    author, affiliation = case.town.clinician(2)
    case.town.run(send(1))
    assert len(case.records()) == 5


def test_what_a_grant_allows_does_not_count_against_the_inbox(make_town, make_case):
    case = make_case(make_town(inbox_quota=1))
    case.treated(("results", "results"))
    case.keeper.accept(case.seal(("inbox",)))
    assert len(case.records()) == 3


def test_the_inbox_takes_nothing_from_the_unlicensed(case):
    author = case.town.person()
    affiliation = case.town.affiliate(author, 2)
    submission = case.town.seal(
        author, case.subject, ("inbox",), for_=case.town.organisations[2], affiliation=affiliation
    )
    assert case.town.refused(case.keeper.acceptance.accept(submission)) == "not-licensed"


def test_a_manager_may_contribute(town):
    provider = town.organisations[2]
    subject = town.subject(manager=provider)
    subject.begin()
    keeper = town.keeper()
    keeper.keep(subject)
    keeper.accept(town.seal(provider, subject))
    assert keeper.logged()[-2][2] == "managed"


def test_a_revoked_grant_contributes_nothing_more(case):
    submission = case.seal()
    case.keeper.tell(case.subject, case.subject.revoke())
    assert case.town.refused(case.keeper.acceptance.accept(submission)) == "revoked"


def test_an_epoch_that_this_custodian_has_not_heard_of_is_stale(case):
    case.subject.rekey("results")
    size = case.keeper.size
    assert case.town.refused(case.keeper.acceptance.accept(case.seal())) == "stale"
    assert case.keeper.logged(size) == [("keep", "deny", "stale")]


def test_what_a_peer_kept_before_it_was_overtaken_is_kept_here_too(case):
    peer = case.town.software[1].token
    submission = case.seal()
    case.keeper.tell(case.subject, case.subject.rekey("results"), case.subject.revoke())
    case.keeper.accept(submission, via=peer)
    body = case.keeper.entries()[-2]
    assert (body["decision"], body["reason"], body["details"]) == ("accept", "revoked", {"via": peer})
    assert len(case.records()) == 1


@pytest.mark.parametrize("code", ["no-grant", "not-affiliated"])
def test_a_dishonest_peer_can_not_bring_what_nobody_was_granted(case, code):
    author, affiliation = case.town.clinician(2)
    employer = case.town.organisations[2]
    submission = case.town.seal(
        author, case.subject, for_=employer, affiliation=affiliation if code == "no-grant" else None
    )
    assert case.town.refused(case.keeper.acceptance.accept(submission, via=case.town.software[2].token)) == code
    assert case.records() == []


def test_while_a_fork_freezes_a_grant_a_peer_may_bring_what_came_under_it(case):
    author, affiliation = case.town.clinician(2)
    employer = case.town.organisations[2]
    other_device = case.subject.grant(case.town.organisations[3], keep=False)
    case.keeper.tell(case.subject, case.subject.grant(employer))
    submission = case.town.seal(author, case.subject, for_=employer, affiliation=affiliation)
    case.keeper.tell(case.subject, other_device)
    assert case.town.refused(case.keeper.acceptance.accept(submission)) == "no-grant"
    case.keeper.accept(submission, via=case.town.software[2].token)
    assert len(case.records()) == 1


def test_a_peer_can_not_bring_what_was_never_allowed(case):
    """`out-of-scope` is not a matter of time: a compartment that the subject doesn't have."""
    plan = case.town.plan(case.subject, case.subject)
    compartment = case.town.rand(16).hex()
    key = plan.compartments[case.subject.compartment("results")]
    foreign = seal_submission(
        msgspec.structs.replace(
            plan,
            compartments={compartment: key},
            records=[msgspec.structs.replace(plan.records[0], compartment=compartment)],
        ),
        signer=case.subject.signer[1],
        now_ms=case.town.clock(),
        rand=case.town.rand,
    )
    assert case.town.refused(case.keeper.acceptance.accept(foreign, via=case.town.software[1].token)) == "out-of-scope"
    assert case.records() == []


def test_a_peer_may_bring_what_was_sealed_under_an_earlier_document_and_an_older_key(case):
    submission = case.seal()
    update(case.town, case.subject, services=["https://new.example"])
    case.town.run(case.keeper.documents.keep(case.subject.message))
    rotate(case.town, case.clinician)
    case.keeper.accept(submission, via=case.town.software[1].token)
    assert len(case.records()) == 1


def test_a_future_time_is_refused(case):
    case.town.clock.ms += 200_000
    submission = case.seal()
    case.town.clock.ms -= 200_000
    assert case.town.refused(case.keeper.acceptance.accept(submission)) == "bad-time"


def test_a_lock_for_a_sealing_key_from_before_is_opened_and_one_for_no_key_of_ours_is_not(case):
    seed = case.town.rand(32)
    former = SealingKey(seed)
    custodian = case.keeper.custodian
    custodian.sealing = {keyid(case.keeper.token, 7): former, **custodian.sealing}
    plan = case.town.plan(case.clinician, case.subject, for_=case.clinic)
    old = (keyid(case.keeper.token, 7), SealingPublicKey(former.public))
    case.keeper.accept(case.seal(custodians=[old, *plan.custodians[1:]]))
    unknown = (keyid(case.keeper.token, 9), SealingPublicKey(former.public))
    submission = case.seal(custodians=[unknown, *plan.custodians[1:]])
    assert case.town.refused(case.keeper.acceptance.accept(submission)) == "bad-share"


def test_the_subject_itself_may_contribute_without_a_grant(case):
    case.keeper.accept(case.town.seal(case.subject, case.subject, ("private",)))
    assert case.keeper.logged()[-2][2] == "owner"


def test_keys_and_blobs_are_wrapped_for_each_record_alone(case):
    case.treated(("results", "visits"))
    keys = case.keeper.store.keys_reading.execute("SELECT entry, key FROM wrapping").fetchall()
    assert len({key for _, key in keys}) == 2
    assert {len(key) for _, key in keys} == {64}
    entries = [row[0] for row in case.keeper.store.reading.execute("SELECT entry FROM blobs ORDER BY entry")]
    assert sorted(entry for entry, _ in keys) == entries
    assert case.keeper.custodian.chains.state(None) is EMPTY


def test_the_message_id_of_a_submission_is_that_of_its_statement(case):
    submission = case.seal()
    case.keeper.accept(submission)
    (stored,) = case.keeper.store.reading.execute("SELECT message FROM submissions").fetchone()
    assert stored == envelope_message_id(decode(submission.envelope, Envelope))
