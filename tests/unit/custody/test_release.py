"""Access: who is answered, with what, and what the log says of it."""

from __future__ import annotations

import msgspec
import pytest

from careledger.access import FRESH_MS, Head, open_answer, sign_approval, verify_receipt
from careledger.consent import Joint
from careledger.custody import release as release_module
from careledger.errors import VerificationError
from careledger.identity import seal_custodian_shares
from careledger.records import decode_view, verify_view
from careledger.seal import Envelope, SealingKey, SealingPublicKey, VerifyKey, decode, encode, keyid, share_commitment

HOUR_MS = 3_600_000


def proven(case, answer, kind="access"):
    return verify_receipt(
        answer.receipt,
        network=case.town.network,
        node=case.keeper.token,
        log_verifier=case.keeper.log_signer.verifier,
        kind=kind,
    )


def opened(case, asked, answer):
    """The shares in an answer, by record id."""
    index = proven(case, answer).index
    return dict(
        open_answer(
            answer.sealed,
            key=asked.key,
            network=case.town.network,
            request=asked.id,
            node=case.keeper.token,
            index=index,
        )
    )


def test_an_allowed_request_gets_matching_shares_content_and_a_receipt(case):
    records = case.treated(("results", "visits"))
    asked, size = case.ask(records), case.keeper.size
    answer = case.keeper.ask(asked)
    body = proven(case, answer)
    assert (body.index, body.decision, body.reason) == (size, "allow", "grant")
    assert body.subject == case.subject.token
    assert body.client == "test/1"
    assert [encode(one) for one in body.envelopes] == [asked.message.request, case.affiliation]
    shares = opened(case, asked, answer)
    assert list(shares) == records
    (view,) = map(decode_view, answer.submissions)
    verified = verify_view(
        view,
        network=case.town.network,
        author_key=VerifyKey(case.clinician.device.signing_key().public),
        subject=case.subject.token,
    )
    place = 1
    for record in verified.records:
        share = shares[bytes.fromhex(record.manifest.record)]
        assert share[-1] == place
        commitment = share_commitment(bytes.fromhex(record.manifest.record), share).hex()
        assert commitment == record.manifest.shares[place - 1]
    assert {lock.use for lock in verified.locks} == {"consent"}


def test_content_is_sent_only_by_whom_the_hint_names(case):
    records = case.treated()
    answer = case.keeper.ask(case.ask(records, content=False))
    assert answer.submissions == []
    assert answer.sealed


def test_the_subject_itself_gets_the_owner_lock_too(case):
    records = case.treated(("results",))
    for basis, uses in (("owner", {"owner", "consent"}), ("grant", {"consent"})):
        if basis == "owner":
            asked = case.town.ask(case.subject, case.subject, records, basis="owner")
        else:
            asked = case.ask(records)
        (view,) = map(decode_view, case.keeper.ask(asked).submissions)
        verified = verify_view(
            view,
            network=case.town.network,
            author_key=VerifyKey(case.clinician.device.signing_key().public),
            subject=case.subject.token,
        )
        assert {lock.use for lock in verified.locks} == uses


def test_shares_are_stored_and_answered_under_no_other_key(case):
    records = case.treated()
    asked = case.ask(records)
    answer = case.keeper.ask(asked)
    other = SealingKey(case.town.rand(32))
    index = proven(case, answer).index
    for changes in (
        {"key": other},
        {"request": bytes(32)},
        {"node": case.town.software[1].token},
        {"index": index + 1},
    ):
        fields = {
            "key": asked.key,
            "network": case.town.network,
            "request": asked.id,
            "node": case.keeper.token,
            "index": index,
            **changes,
        }
        with pytest.raises(VerificationError):
            open_answer(answer.sealed, **fields)
    shares = opened(case, asked, answer)
    disk = b"".join(path.read_bytes() for path in case.keeper.folder.rglob("*") if path.is_file())
    assert all(share not in disk for share in shares.values())


def test_a_list_shows_what_the_grant_covers_and_nothing_of_the_rest(case):
    case.subject.grant(case.town.organisations[2], "results")
    case.keeper.tell(case.subject, case.subject.events[-1])
    case.treated(("results", "visits", "private"))
    other, affiliation = case.town.clinician(2)
    asked = case.town.ask(other, case.subject, for_=case.town.organisations[2], affiliation=affiliation)
    answer = case.keeper.ask(asked)
    listed = [msgspec.json.decode(one) for one in answer.listed]
    assert [one["compartment"] for one in listed] == [case.subject.compartment("results")]
    assert (answer.sealed, answer.submissions) == (b"", [])
    assert len(case.keeper.ask(case.ask()).listed) == 3


def test_only_the_covered_records_of_a_request_are_released(case):
    case.subject.grant(case.town.organisations[2], "results")
    case.keeper.tell(case.subject, case.subject.events[-1])
    records = case.treated(("results", "visits"))
    other, affiliation = case.town.clinician(2)
    employer = case.town.organisations[2]
    size = case.keeper.size
    asked = case.town.ask(other, case.subject, records, for_=employer, affiliation=affiliation)
    answer = case.keeper.ask(asked)
    assert answer.denied == "out-of-scope"
    assert case.keeper.logged(size) == [("access", "deny", "out-of-scope")]
    assert (answer.sealed, answer.submissions, answer.listed) == (b"", [], [])
    unknown = case.town.rand(16)
    asked = case.town.ask(other, case.subject, [unknown], for_=employer, affiliation=affiliation)
    assert case.keeper.ask(asked).denied == "out-of-scope"


def test_records_of_another_subject_are_not_found_under_this_one(case):
    """Laundering (trust row 3): a reader with a grant of one subject asks for another's record under it."""
    victim = case.town.subject()
    victim.begin()
    case.keeper.keep(victim)
    case.keeper.accept(case.town.seal(victim, victim))
    number = case.keeper.custodian.people.subject(victim.token)
    (row,) = case.keeper.shelf.all_of(number)
    answer = case.keeper.ask(case.ask([row.record_id]))
    assert answer.denied == "out-of-scope"
    owner = case.town.ask(case.subject, case.subject, [row.record_id], basis="owner")
    answer = case.keeper.ask(owner)
    assert answer.denied is not None or not answer.sealed


def test_a_denial_is_logged_with_a_receipt_and_gives_nothing(case):
    records = case.treated()
    stranger = case.town.person()
    size = case.keeper.size
    asked = case.town.ask(stranger, case.subject, records)
    answer = case.keeper.ask(asked)
    body = proven(case, answer)
    assert (answer.denied, answer.sealed, answer.submissions, answer.listed) == ("no-grant", b"", [], [])
    assert (body.decision, body.reason, body.index) == ("deny", "no-grant", size)
    assert [encode(one) for one in body.envelopes] == [asked.message.request]


def test_asking_about_somebody_unknown_is_denied_and_logged(case):
    unknown = type(case.subject)(case.town, _unenrolled(case.town))
    size = case.keeper.size
    assert case.keeper.ask(case.town.ask(case.clinician, unknown)).denied == "no-grant"
    assert case.keeper.logged(size) == [("access", "deny", "no-grant")]


def _unenrolled(town):
    from careledger.identity import new_person

    return new_person(custodians=(), rand=town.rand)


def test_the_owner_basis_is_the_owners_alone(case):
    records = case.treated()
    assert case.keeper.ask(case.town.ask(case.clinician, case.subject, records, basis="owner")).denied == "no-grant"


def test_what_is_not_proven_is_refused_without_an_entry(case):
    records = case.treated()
    size = case.keeper.size
    other = case.town.person()
    for asked, code in (
        (case.ask(records, signer=(case.clinician.keyid, other.signer[1])), "bad-signature"),
        (case.ask(records, signer=other.signer), "wrong-signer"),
        (case.ask(records, network="ab" * 32), "wrong-network"),
        (case.ask(records, key="ab" * 32), "wrong-key"),
        (case.ask(records, time=case.town.clock() - FRESH_MS - 1), "stale-request"),
        (case.ask(records, time=case.town.clock() + FRESH_MS + 1), "stale-request"),
        (case.ask(records, signer=(keyid(case.clinician.token, 4), other.signer[1])), "unknown-key"),
    ):
        assert case.town.refused(case.keeper.answer(asked)) == code
    assert case.keeper.size == size


def test_a_clock_that_is_off_is_told_the_nodes_time(case):
    asked = case.ask(time=case.town.clock() - HOUR_MS)
    with pytest.raises(VerificationError) as refusal:
        case.keeper.ask(asked)
    assert refusal.value.details == {"time": case.town.clock()}


def test_an_organisation_without_affiliation_is_not_for_anybody(case):
    case.treated()
    for affiliation in (None, case.town.affiliate(case.town.person())):
        asked = case.ask(affiliation=affiliation)
        assert case.keeper.ask(asked).denied == "not-affiliated"


def test_an_affiliation_that_was_logged_here_may_be_named_and_no_other(case):
    case.treated()
    assert case.town.refused(case.keeper.answer(case.ask(send=False))) == "affiliation-needed"
    size = case.keeper.size
    assert case.keeper.ask(case.ask()).denied is None
    answer = case.keeper.ask(case.ask(send=False))
    assert answer.denied is None
    assert [len(one["envelopes"]) for one in case.keeper.entries(size)] == [2, 1]
    # What was decided without being kept, after a restart, is asked for again.
    case.keeper.restart()
    assert case.town.refused(case.keeper.answer(case.ask(send=False))) == "affiliation-needed"


def test_somebody_else_can_not_name_an_affiliation_that_was_logged(case):
    case.treated()
    case.keeper.ask(case.ask())
    thief = case.town.person()
    asked = case.town.ask(thief, case.subject, for_=case.clinic, affiliation=case.affiliation, send=False)
    assert case.town.refused(case.keeper.answer(asked)) == "affiliation-needed"


def test_an_affiliation_that_was_logged_ends_when_it_says(case):
    case.treated()
    case.keeper.ask(case.ask())
    case.town.clock.ms += 86_400_000 // 2 + 1
    case.town.order()
    assert case.town.refused(case.keeper.answer(case.ask(send=False))) == "affiliation-needed"


def test_a_repeated_request_is_decided_again_and_answered_under_its_first_entry(case):
    records = case.treated()
    asked = case.ask(records)
    first = case.keeper.ask(asked)
    size = case.keeper.size
    again = case.keeper.ask(asked)
    assert case.keeper.size == size
    assert again.receipt.body == first.receipt.body
    assert again.sealed != first.sealed
    assert opened(case, asked, again) == opened(case, asked, first)


def test_a_repeated_request_after_a_revocation_is_denied_and_logged(case):
    records = case.treated()
    asked = case.ask(records)
    case.keeper.ask(asked)
    case.keeper.tell(case.subject, case.subject.revoke())
    size = case.keeper.size
    answer = case.keeper.ask(asked)
    assert (answer.denied, answer.sealed) == ("revoked", b"")
    assert case.keeper.logged(size) == [("access", "deny", "revoked")]


def test_a_request_that_was_denied_and_is_now_allowed_is_logged_as_allowed(case):
    """Never an allow without an entry that says so."""
    records = case.treated()
    other, affiliation = case.town.clinician(2)
    employer = case.town.organisations[2]
    asked = case.town.ask(other, case.subject, records, for_=employer, affiliation=affiliation)
    assert case.keeper.ask(asked).denied == "no-grant"
    case.keeper.tell(case.subject, case.subject.grant(employer))
    size = case.keeper.size
    answer = case.keeper.ask(asked)
    assert answer.denied is None
    assert case.keeper.logged(size) == [("access", "allow", "grant")]
    assert opened(case, asked, answer)


def test_a_request_replayed_after_a_restart_makes_no_second_entry(case):
    records = case.treated()
    asked = case.ask(records)
    first = case.keeper.ask(asked)
    denied = case.town.ask(case.town.person(), case.subject, records)
    case.keeper.ask(denied)
    case.keeper.restart()
    assert list(case.keeper.release.seen) == [asked.id, denied.id]
    size = case.keeper.size
    again = case.keeper.ask(asked)
    assert (case.keeper.size, again.receipt.body) == (size, first.receipt.body)
    assert opened(case, asked, again) == opened(case, asked, first)


def test_requests_are_remembered_only_while_they_are_fresh(case, monkeypatch):
    case.treated()
    old = case.ask()
    case.keeper.ask(old)
    case.town.clock.ms += 2 * FRESH_MS + 1
    newer = case.ask()
    case.keeper.ask(newer)
    assert list(case.keeper.release.seen) == [newer.id]
    case.keeper.restart()
    assert list(case.keeper.release.seen) == [newer.id]
    monkeypatch.setattr(release_module, "_SEEN_MAX", 2)
    for _ in range(3):
        case.keeper.ask(case.ask())
    assert len(case.keeper.release.seen) == 2


def test_two_copies_of_a_request_at_once_make_one_entry(case):
    records = case.treated()
    asked = case.ask(records)
    size = case.keeper.size
    one, two = case.town.together(case.keeper.answer(asked), case.keeper.answer(asked))
    assert case.keeper.size == size + 1
    assert one.receipt.body == two.receipt.body
    assert opened(case, asked, one) == opened(case, asked, two)


def test_a_reader_has_a_number_of_requests_an_hour(make_town, make_case):
    case = make_case(make_town(requests_per_hour=2))
    records = case.treated()
    for _ in range(2):
        assert case.keeper.ask(case.ask(records)).denied is None
    size = case.keeper.size
    assert case.keeper.ask(case.ask(records)).denied == "over-limit"
    body = case.keeper.entries(size)[0]
    assert (body["counters"]["requests"], body["counters"]["requests_max"]) == (2, 2)
    # Another reader has its own.
    other, affiliation = case.town.clinician()
    asked = case.town.ask(other, case.subject, records, for_=case.clinic, affiliation=affiliation)
    assert case.keeper.ask(asked).denied is None
    case.town.clock.ms += HOUR_MS
    case.town.order()
    assert case.keeper.ask(case.ask(records)).denied is None


def test_a_custodian_whose_heads_were_not_compared_lets_nobody_but_the_subject_in(case):
    records = case.treated()
    case.keeper.heads_age = 60_001
    assert case.keeper.ask(case.ask(records)).denied == "stale"
    assert case.keeper.entries()[-1]["counters"]["heads_age_ms"] == 60_001
    owner = case.town.ask(case.subject, case.subject, records, basis="owner")
    assert case.keeper.ask(owner).denied is None


def test_heads_are_compared_with_the_subjects_custodians_and_threshold(case, monkeypatch):
    asked = []
    monkeypatch.setattr(case.keeper.custodian, "heads_age_ms", lambda *args: (asked.append(args), 0)[1])
    case.keeper.ask(case.ask())
    assert asked == [([one.token for one in case.town.software], 3, case.town.clock())]


def test_a_request_that_knows_a_newer_head_is_not_decided_here(case):
    case.treated()
    asked = case.ask(head=Head(seq=9, hash="ab" * 32))
    assert case.keeper.ask(asked).denied == "stale"
    state = case.subject.state
    assert case.keeper.ask(case.ask(head=Head(seq=state.seq, hash=state.head))).denied is None


def test_with_an_old_directory_only_the_known_are_let_in(case):
    records = case.treated()
    assert case.keeper.ask(case.ask(records)).denied is None
    case.town.clock.ms += 700_000
    assert case.keeper.ask(case.ask(records)).denied is None
    other = case.town.affiliate(case.clinician)
    answer = case.keeper.ask(case.ask(records, affiliation=other))
    assert answer.denied == "stale"
    assert case.keeper.entries()[-1]["counters"]["unseen"] == 1
    case.keeper.restart()
    assert case.keeper.ask(case.ask(records)).denied is None


def test_whom_a_failed_commit_would_have_made_known_is_still_new(case, monkeypatch):
    import sqlite3

    records = case.treated()
    commit = case.keeper.store.commit

    def failing(*_):
        raise sqlite3.OperationalError("full")

    monkeypatch.setattr(case.keeper.store, "commit", failing)
    assert case.town.refused(case.keeper.answer(case.ask(records))) == "disk-full"
    monkeypatch.setattr(case.keeper.store, "commit", commit)
    case.keeper.ask(case.ask(records))
    assert case.keeper.entries()[-1]["counters"]["unseen"] == 3


def test_beyond_the_longest_staleness_existing_grants_open_no_more(make_town, make_case):
    case = make_case(make_town(stale_max_ms=1_000_000))
    records = case.treated()
    case.keeper.ask(case.ask(records))
    case.town.clock.ms += 1_000_001
    assert case.keeper.ask(case.ask(records)).denied == "stale"


def test_the_affiliation_stays_usable_by_name_only_if_its_entry_was_committed(case, monkeypatch):
    import sqlite3

    case.treated()
    commit = case.keeper.store.commit

    def failing(*_):
        raise sqlite3.OperationalError("full")

    monkeypatch.setattr(case.keeper.store, "commit", failing)
    assert case.town.refused(case.keeper.answer(case.ask())) == "disk-full"
    monkeypatch.setattr(case.keeper.store, "commit", commit)
    # The log must hold the affiliation that a decision rests on.
    assert case.town.refused(case.keeper.answer(case.ask(send=False))) == "affiliation-needed"


def test_joint_access_needs_k_approvals_of_this_very_request(case):
    first, second = case.town.person(), case.town.person()
    case.treated()
    other, affiliation = case.town.clinician(2)
    employer = case.town.organisations[2]
    joint = Joint(k=2, tokens=sorted([first.token, second.token]))
    case.keeper.tell(case.subject, case.subject.grant(employer, joint=joint))
    records = case.records()
    asked = case.town.ask(other, case.subject, records, for_=employer, affiliation=affiliation)

    def approval(who, request=asked.id, **more):
        fields = {
            "network": case.town.network,
            "request": request,
            "subject": case.subject.token,
            "approver": who.token,
            "expires": case.town.clock() + HOUR_MS,
            "signer": who.signer,
            **more,
        }
        return sign_approval(**fields)

    def denied(*approvals):
        message = msgspec.structs.replace(asked.message, approvals=list(approvals))
        return case.town.run(case.keeper.release.answer(case.keeper.release.check(message))).denied

    good = approval(first)
    for bad in (
        (),
        (good,),
        (good, good),
        (good, approval(second, request=bytes(32))),
        (good, approval(second, subject=other.token)),
        (good, approval(second, expires=case.town.clock())),
        (good, approval(second, signer=first.signer)),
        (good, approval(case.town.person())),
    ):
        assert denied(*bad) == "not-enough-approvals"
    assert denied(good, approval(second)) is None


def test_a_managed_patients_half_is_released_to_its_manager_alone(town, make_case):
    case = make_case(town)
    provider, keeper = town.organisations[2], case.keeper
    subject = town.subject(manager=provider)
    subject.begin()
    own = [(keyid(one.token, 0), SealingPublicKey(SealingKey(one.secrets.device.seal).public)) for one in town.software]
    halves = [town.rand(32) + bytes([place]) for place in range(1, 5)]
    sealed = seal_custodian_shares(halves, network=town.network, subject=subject.token, sequence=0, custodians=own)
    message = msgspec.structs.replace(subject.message, managed=sealed[0])
    town.run(keeper.documents.keep(message))
    keeper.tell(subject, *subject.events)
    asked = town.ask(provider, subject, basis="managed")
    answer = keeper.ask(asked)
    assert opened(case, asked, answer) == {bytes(16): halves[0]}
    assert keeper.logged()[-1] == ("access", "allow", "managed")
    stranger = town.ask(case.clinician, subject, basis="managed")
    answer = keeper.ask(stranger)
    assert (answer.denied, answer.sealed) == ("no-grant", b"")
    # A grantee's list releases nothing sealed.
    keeper.tell(subject, subject.grant(case.clinic))
    asked = town.ask(case.clinician, subject, for_=case.clinic, affiliation=case.affiliation)
    assert keeper.ask(asked).sealed == b""


def test_a_managed_patient_without_a_half_here_is_listed_all_the_same(town, make_case):
    case = make_case(town)
    provider = town.organisations[2]
    subject = town.subject(manager=provider)
    subject.begin()
    case.keeper.keep(subject)
    answer = case.keeper.ask(town.ask(provider, subject, basis="managed"))
    assert (answer.denied, answer.sealed) == (None, b"")


def test_a_managers_half_of_another_custodian_does_not_open_here(town, make_case):
    case = make_case(town)
    provider, keeper = town.organisations[2], case.keeper
    subject = town.subject(manager=provider)
    subject.begin()
    own = [(keyid(one.token, 0), SealingPublicKey(SealingKey(one.secrets.device.seal).public)) for one in town.software]
    halves = [town.rand(32) + bytes([place]) for place in range(1, 5)]
    sealed = seal_custodian_shares(halves, network=town.network, subject=subject.token, sequence=0, custodians=own)
    town.run(keeper.documents.keep(msgspec.structs.replace(subject.message, managed=sealed[1])))
    assert town.refused(keeper.answer(town.ask(provider, subject, basis="managed"))) == "not-openable"


def test_a_request_of_an_identity_that_was_deactivated_is_not_proven(case):
    from careledger.identity import build_deactivate

    case.treated()
    state = case.town.directory.identity(case.clinician.token)
    asked = case.ask()
    case.town.order(
        build_deactivate(network=case.town.network, token=case.clinician.token, state=state, root=case.clinician.root)
    )
    assert case.town.refused(case.keeper.answer(asked)) == "unknown-key"


def test_the_log_body_has_what_an_auditor_needs_to_decide_again(case):
    records = case.treated()
    case.keeper.ask(case.ask(records))
    body = case.keeper.entries()[-1]
    state = case.subject.state
    assert (body["consent_seq"], body["consent_hash"]) == (state.seq, state.head)
    assert body["directory_height"] == case.town.directory.height
    assert body["directory_age"] == case.town.clock() - case.town.directory.time_ms
    assert body["received"] == case.town.clock()
    assert set(body["counters"]) == {
        "heads_age_ms",
        "head_fresh_ms",
        "requests",
        "requests_max",
        "stale_max_ms",
        "unseen",
    }
    request = decode(encode(msgspec.convert(body["envelopes"][0], Envelope)), Envelope)
    assert request.payloadType == "application/vnd.careledger.access+json"
