"""Documents and consent events: they prove themselves, whoever brings them."""

from __future__ import annotations

import msgspec
import pytest

from careledger.access import DocumentMessage, verify_receipt
from careledger.consent import EventMessage, first_compartments, make_grant, make_merge, make_revocation
from careledger.custody.documents import EVENTS_AT_ONCE_MAX
from careledger.errors import ConflictError, NotFoundError
from careledger.identity import (
    Document,
    build_deactivate,
    build_rotate,
    build_update,
    countersign_claim,
    new_person,
    renewed_secrets,
)
from careledger.seal import Envelope, decode, encode, envelope_message_id, sign, unb64

NOBODY = "cl1" + "q" * 46


def receipt(town, keeper, found):
    return verify_receipt(
        found, network=town.network, node=keeper.token, log_verifier=keeper.log_signer.verifier, kind="keep"
    )


def changed(town, person, *, kit=False, **fields):
    """An update (with the device's key) or a rotation (with the kit) to another document."""
    state = town.directory.identity(person.token)
    document = msgspec.structs.replace(decode(person.document, Document), **fields)
    if kit:
        made = build_rotate(
            network=town.network,
            token=person.token,
            state=state,
            root=person.root,
            device=renewed_secrets(person.device, sequence=state.sequence + 1, rand=town.rand),
            document=document,
            rand=town.rand,
        )
        town.order(made.envelope)
        person.device, person.document, person.salt = made.secrets.device, made.document, made.salt
    else:
        envelope, person.document, person.salt = build_update(
            network=town.network,
            token=person.token,
            state=state,
            document=document,
            device=person.device.signing_key(),
            rand=town.rand,
        )
        town.order(envelope)
    person.sequence = state.sequence + 1


class TestDocuments:
    def test_a_document_is_kept_with_a_receipt_and_shown_without_its_key_box(self, town):
        keeper, subject = town.keeper(), town.subject()
        message = DocumentMessage(subject.token, subject.salt, subject.document, b"box", b"managed")
        body = receipt(town, keeper, town.run(keeper.documents.keep(message)))
        assert (body.index, body.reason, body.subject) == (0, "document", subject.token)
        stored = keeper.documents.stored(subject.token)
        assert (stored.salt, stored.document) == (subject.salt, subject.document)
        assert stored.managed is None

    def test_a_repeated_document_makes_no_second_entry(self, town):
        keeper, subject = town.keeper(), town.subject()
        first = town.run(keeper.documents.keep(subject.message))
        again = town.run(keeper.documents.keep(subject.message))
        assert (again.body, keeper.size) == (first.body, 1)
        keeper.restart()
        assert town.run(keeper.documents.keep(subject.message)).body == first.body
        assert keeper.size == 1

    def test_another_key_box_for_the_same_document_is_a_new_entry(self, town):
        keeper, subject = town.keeper(), town.subject()
        town.run(keeper.documents.keep(subject.message))
        with_box = msgspec.structs.replace(subject.message, key_box=b"box")
        body = receipt(town, keeper, town.run(keeper.documents.keep(with_box)))
        assert (body.index, keeper.size) == (1, 2)
        assert keeper.documents.stored(subject.token).key_box == b"box"
        town.run(keeper.documents.keep(subject.message))
        assert (keeper.size, keeper.documents.stored(subject.token).key_box) == (2, b"box")

    @pytest.mark.parametrize("part", ["salt", "document"])
    def test_one_changed_bit_is_refused(self, town, part):
        keeper, subject = town.keeper(), town.subject()
        data = bytearray(getattr(subject.message, part))
        data[-2] ^= 1
        forged = msgspec.structs.replace(subject.message, **{part: bytes(data)})
        assert town.refused(keeper.documents.keep(forged)) == "bad-document-hash"
        assert keeper.size == 0

    def test_a_document_of_nobody_is_refused(self, town):
        keeper, subject = town.keeper(), town.subject()
        message = msgspec.structs.replace(subject.message, token=NOBODY)
        assert town.refused(keeper.documents.keep(message)) == "unknown-identity"

    def test_a_deactivated_identity_gets_no_document(self, town):
        keeper, subject = town.keeper(), town.subject()
        state = town.directory.identity(subject.token)
        town.order(build_deactivate(network=town.network, token=subject.token, state=state, root=subject.root))
        assert town.refused(keeper.documents.keep(subject.message)) == "unknown-identity"

    def test_a_person_whose_custodian_this_node_is_not_is_refused_and_an_organisation_is_not(self, town):
        keeper, subject = town.keeper(), town.subject(custodians=[1, 2, 3])
        assert town.refused(keeper.documents.keep(subject.message)) == "not-a-custodian"
        organisation = town.organisations[2]
        town.run(keeper.documents.keep(DocumentMessage(organisation.token, organisation.salt, organisation.document)))
        assert keeper.size == 1

    @pytest.mark.parametrize("part", ["key_box", "managed"])
    def test_what_rides_beside_has_a_size(self, town, part):
        keeper, subject = town.keeper(), town.subject()
        large = {"key_box": 16 << 10, "managed": 4 << 10}[part]
        message = msgspec.structs.replace(subject.message, **{part: bytes(large + 1)})
        assert town.refused(keeper.documents.keep(message)) == "too-large"
        town.run(keeper.documents.keep(msgspec.structs.replace(subject.message, **{part: bytes(large)})))

    def test_an_update_may_change_services_but_not_custodians(self, town):
        keeper, subject = town.keeper(), town.subject()
        keeper.keep(subject)
        changed(town, subject, services=["https://new.example"])
        keeper.keep(subject)
        changed(town, subject, custodians=[one.token for one in town.software[::-1]])
        assert town.refused(keeper.documents.keep(subject.message)) == "update-not-allowed"

    def test_an_update_may_not_name_a_manager(self, town):
        keeper, subject = town.keeper(), town.subject()
        keeper.keep(subject)
        changed(town, subject, manager=town.organisations[2].token)
        assert town.refused(keeper.documents.keep(subject.message)) == "update-not-allowed"

    def test_an_update_that_this_node_missed_does_not_hide_the_next_one(self, town):
        keeper, subject = town.keeper(), town.subject()
        keeper.keep(subject)
        changed(town, subject, services=["https://new.example"])
        changed(town, subject, custodians=[one.token for one in town.software[::-1]])
        assert town.refused(keeper.documents.keep(subject.message)) == "update-not-allowed"

    def test_a_rotation_may_change_custodians(self, town):
        keeper, subject = town.keeper(), town.subject()
        keeper.keep(subject)
        order = [one.token for one in town.software[::-1]]
        changed(town, subject, kit=True, custodians=order)
        keeper.keep(subject)
        assert keeper.custodian.people.custodians(subject.token) == order

    def test_the_first_document_may_come_after_a_rotation(self, town):
        keeper, subject = town.keeper(), town.subject()
        changed(town, subject, kit=True, services=["https://a.example"])
        keeper.keep(subject)
        assert keeper.size == 1

    def test_a_claim_ends_the_managers_part(self, town):
        provider = town.organisations[2]
        keeper, subject = town.keeper(), town.subject(manager=provider)
        town.run(keeper.documents.keep(msgspec.structs.replace(subject.message, managed=b"half of K_c")))
        assert b"half of K_c" in _disk(keeper)
        assert keeper.custodian.people.manager(subject.token) == provider.token
        state = town.directory.identity(subject.token)
        document = msgspec.structs.replace(decode(subject.document, Document), manager=msgspec.UNSET)
        made = build_rotate(
            network=town.network,
            token=subject.token,
            state=state,
            root=subject.root,
            new_root=town.rand(32),
            device=renewed_secrets(subject.device, sequence=1, rand=town.rand),
            document=document,
            rand=town.rand,
            claim=provider.token,
        )
        town.order(countersign_claim(made.envelope, manager=provider.token, signer=provider.signer))
        town.run(keeper.documents.keep(DocumentMessage(subject.token, made.salt, made.document)))
        assert keeper.custodian.people.manager(subject.token) is None
        assert b"half of K_c" not in _disk(keeper)
        asked = town.ask(provider, subject, basis="managed")
        assert keeper.ask(asked).denied == "no-grant"

    def test_a_claim_that_leaves_a_manager_is_refused(self, town):
        provider = town.organisations[2]
        keeper, subject = town.keeper(), town.subject(manager=provider)
        keeper.keep(subject)
        state = town.directory.identity(subject.token)
        made = build_rotate(
            network=town.network,
            token=subject.token,
            state=state,
            root=subject.root,
            new_root=town.rand(32),
            device=renewed_secrets(subject.device, sequence=1, rand=town.rand),
            document=decode(subject.document, Document),
            rand=town.rand,
            claim=provider.token,
        )
        town.order(countersign_claim(made.envelope, manager=provider.token, signer=provider.signer))
        message = DocumentMessage(subject.token, made.salt, made.document)
        assert town.refused(keeper.documents.keep(message)) == "bad-claim"

    def test_a_claim_signed_by_another_provider_than_the_manager_is_refused(self, town):
        """The directory can't see the document, so only custodians can catch it (DESIGN 5.1)."""
        provider, thief = town.organisations[2], town.organisations[3]
        keeper, subject = town.keeper(), town.subject(manager=provider)
        keeper.keep(subject)
        state = town.directory.identity(subject.token)
        made = build_rotate(
            network=town.network,
            token=subject.token,
            state=state,
            root=subject.root,
            new_root=town.rand(32),
            device=renewed_secrets(subject.device, sequence=1, rand=town.rand),
            document=msgspec.structs.replace(decode(subject.document, Document), manager=msgspec.UNSET),
            rand=town.rand,
            claim=thief.token,
        )
        town.order(countersign_claim(made.envelope, manager=thief.token, signer=thief.signer))
        message = DocumentMessage(subject.token, made.salt, made.document)
        assert town.refused(keeper.documents.keep(message)) == "bad-claim"

    def test_there_is_no_document_to_show_of_a_stranger(self, town):
        keeper = town.keeper()
        with pytest.raises(NotFoundError):
            keeper.documents.stored(NOBODY)
        with pytest.raises(NotFoundError):
            keeper.documents.stored(town.subject().token)


class TestEvents:
    def test_events_are_kept_in_order_with_a_receipt_each(self, town):
        keeper, subject = town.keeper(), town.subject()
        keeper.keep(subject)
        subject.begin()
        subject.grant(town.organisations[1])
        receipts, seq, head = keeper.tell(subject, *subject.events)
        bodies = [receipt(town, keeper, one) for one in receipts]
        assert [one.index for one in bodies] == [1, 2]
        assert [one.consent_seq for one in bodies] == [0, 1]
        assert [encode(one.envelopes[0]) for one in bodies] == [one.envelope for one in subject.events]
        assert (seq, head) == (2, subject.state.head)

    def test_known_events_are_answered_again_without_an_entry(self, case):
        size, events = case.keeper.size, case.subject.events
        receipts, _, _ = case.keeper.tell(case.subject, *events)
        assert case.keeper.size == size
        assert [receipt(case.town, case.keeper, one).index for one in receipts] == [1, 2]
        receipts, _, _ = case.keeper.tell(case.subject, *events, case.subject.revoke())
        assert [receipt(case.town, case.keeper, one).index for one in receipts] == [1, 2, size]
        case.keeper.restart()
        assert case.keeper.tell(case.subject, *events)[1:] == (3, case.subject.state.head)

    def test_the_same_event_twice_in_one_request_makes_one_entry(self, case):
        revoked, size = case.subject.revoke(), case.keeper.size
        receipts, _, _ = case.keeper.tell(case.subject, revoked, revoked)
        assert case.keeper.size == size + 1
        assert receipts[0].body == receipts[1].body

    def test_the_same_event_at_once_makes_one_entry(self, case):
        revoked, size = case.subject.revoke(), case.keeper.size
        keep = case.keeper.events.keep
        one, two = case.town.together(*(keep([revoked], subject=case.subject.token) for _ in range(2)))
        assert case.keeper.size == size + 1
        assert one[0][0].body == two[0][0].body

    def test_one_bad_event_undoes_the_whole_request(self, case):
        revoked, size = case.subject.revoke(), case.keeper.size
        later = case.subject.grant(case.clinic)
        forged = EventMessage(envelope=later.envelope, boxes=[b"another box"])
        number = case.keeper.custodian.people.subject(case.subject.token)
        before = case.keeper.custodian.chains.state(number)
        with pytest.raises(Exception, match="box"):
            case.keeper.tell(case.subject, revoked, forged)
        assert case.keeper.custodian.chains.state(number) == before
        assert case.keeper.size == size
        assert case.keeper.custodian.chains.known(number, _id(revoked)) is None
        case.keeper.tell(case.subject, revoked, later)
        assert case.keeper.custodian.chains.state(number).head == case.subject.state.head

    def test_an_event_whose_predecessor_is_missing_is_refused_with_the_head(self, case):
        case.subject.revoke()
        late = case.subject.grant(case.clinic)
        with pytest.raises(ConflictError) as refusal:
            case.keeper.tell(case.subject, late)
        assert refusal.value.code == "bad-sequence"
        assert refusal.value.details["seq"] == 2

    def test_events_signed_by_anybody_else_are_refused(self, case):
        thief, size = case.town.person(), case.keeper.size
        for signer in (thief.signer, (case.subject.keyid, thief.signer[1])):
            message = case.subject.grant(case.clinic, keep=False)
            event = unb64(decode(message.envelope, Envelope).payload)
            forged = encode(sign("application/vnd.careledger.consent+json", event, [signer]))
            code = case.town.refused(
                case.keeper.events.keep(
                    [EventMessage(envelope=forged, boxes=message.boxes)], subject=case.subject.token
                )
            )
            assert code in ("unknown-key", "bad-signature")
        assert case.keeper.size == size

    def test_an_event_of_somebody_else_is_not_taken_for_this_subject(self, case):
        other = case.town.subject()
        other.begin()
        case.keeper.keep(other)
        message = other.grant(case.clinic)
        assert case.town.refused(case.keeper.events.keep([message], subject=case.subject.token)) == "unknown-key"

    def test_a_guardian_can_not_sign_yet(self, case):
        writer = msgspec.structs.replace(case.subject.writer, role="guardian")
        message = make_revocation(writer, case.subject.state, case.subject.newest_grant, now_ms=case.town.clock())
        assert case.town.refused(case.keeper.events.keep([message], subject=case.subject.token)) == "wrong-signer"

    def test_the_manager_may_sign_and_a_former_manager_may_not(self, town):
        provider = town.organisations[2]
        subject = town.subject(manager=provider)
        keeper = town.keeper()
        keeper.keep(subject)
        subject_writer = msgspec.structs.replace(subject.writer, signer=provider.signer, role="manager")
        made = first_compartments(subject_writer, categories=("results",), now_ms=town.clock(), rand=town.rand)
        keeper.tell(subject, made.message)
        other = town.subject()
        keeper.keep(other)
        writer = msgspec.structs.replace(other.writer, signer=provider.signer, role="manager")
        made = first_compartments(writer, categories=("results",), now_ms=town.clock(), rand=town.rand)
        assert town.refused(keeper.events.keep([made.message], subject=other.token)) == "unknown-key"

    def test_events_signed_with_a_superseded_key_come_only_from_peers(self, case):
        message = case.subject.revoke()
        changed(case.town, case.subject, kit=True)
        case.town.run(case.keeper.documents.keep(case.subject.message))
        token, peer = case.subject.token, case.town.software[1].token
        assert case.town.refused(case.keeper.events.keep([message], subject=token)) == "unknown-key"
        case.town.run(case.keeper.events.keep([message], subject=token, via=peer))
        assert case.keeper.entries()[-1]["details"] == {"via": peer}

    def test_a_node_that_is_no_custodian_or_lacks_the_document_keeps_no_events(self, town):
        keeper, subject = town.keeper(), town.subject()
        subject.begin()
        assert town.refused(keeper.events.keep(subject.events, subject=subject.token)) == "no-document"
        organisation = town.organisations[2]
        town.run(keeper.documents.keep(DocumentMessage(organisation.token, organisation.salt, organisation.document)))
        assert town.refused(keeper.events.keep(subject.events, subject=organisation.token)) == "not-a-custodian"

    def test_a_request_takes_a_number_of_events(self, case):
        keep, token = case.keeper.events.keep, case.subject.token
        assert case.town.refused(keep([], subject=token)) == "too-large"
        many = [case.subject.events[0]] * (EVENTS_AT_ONCE_MAX + 1)
        assert case.town.refused(keep(many, subject=token)) == "too-large"
        case.town.run(keep(many[:-1], subject=token))

    def test_two_events_with_one_number_are_both_kept_and_restrict(self, case):
        """A chain forked by two devices (DESIGN 5.3): grants of one branch freeze until a merge."""
        records = case.treated()
        before = case.subject.state
        other_device = case.subject.grant(case.town.organisations[3], keep=False)
        case.subject.revoke()
        size = case.keeper.size
        case.keeper.tell(case.subject, case.subject.events[-1])
        receipts, _, _ = case.keeper.tell(case.subject, other_device)
        assert case.keeper.size == size + 2
        assert receipt(case.town, case.keeper, receipts[0]).decision == "accept"
        number = case.keeper.custodian.people.subject(case.subject.token)
        forked = case.keeper.custodian.chains.state(number)
        assert forked.forked
        assert before.seq + 1 == forked.seq
        assert case.keeper.ask(case.ask(records)).denied == "revoked"
        frozen, affiliation = case.town.clinician(3)
        asked = case.town.ask(frozen, case.subject, records, for_=case.town.organisations[3], affiliation=affiliation)
        assert case.keeper.ask(asked).denied == "no-grant"
        case.keeper.restart()
        state = case.keeper.custodian.chains.state(number)
        assert state == forked
        merge = make_merge(case.subject.writer, state, _id(other_device), now_ms=case.town.clock())
        case.keeper.tell(case.subject, merge)
        merged = case.keeper.custodian.chains.state(number)
        assert not merged.forked
        assert case.keeper.ask(asked).denied is None
        assert case.keeper.ask(case.ask(records)).denied == "revoked"

    def test_an_event_without_its_box_is_refused(self, case):
        message = case.subject.grant(case.clinic, keep=False)
        bare = EventMessage(envelope=message.envelope, boxes=[])
        with pytest.raises(Exception, match="box"):
            case.keeper.tell(case.subject, bare)

    def test_states_that_are_no_longer_held_are_folded_again(self, case, monkeypatch):
        from careledger.custody import chains

        monkeypatch.setattr(chains, "_STATES_MAX", 1)
        number = case.keeper.custodian.people.subject(case.subject.token)
        before = case.keeper.custodian.chains.state(number)
        other = case.town.subject()
        other.begin()
        case.keeper.keep(other)
        assert number not in case.keeper.custodian.chains._states
        assert case.keeper.custodian.chains.state(number) == before

    def test_a_chain_has_an_end(self, case, monkeypatch):
        from careledger.custody import chains

        monkeypatch.setattr(chains, "EVENTS_MAX", 2)
        message = case.subject.revoke()
        assert case.town.refused(case.keeper.events.keep([message], subject=case.subject.token)) == "too-many-events"


def _disk(keeper):
    """All bytes of the store, after its write-ahead log was folded back."""
    keeper.store.main.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return b"".join(path.read_bytes() for path in sorted((keeper.folder / "store").iterdir()))


def _id(message):
    return envelope_message_id(decode(message.envelope, Envelope)).hex()


def test_an_unenrolled_person_is_not_shown(town):
    made = new_person(custodians=(), rand=town.rand)
    keeper = town.keeper()
    assert keeper.custodian.people.subject(made.token) is None
    assert keeper.custodian.people.custodians(made.token) == []


def test_a_manager_can_not_sign_as_a_guardian(town):
    provider = town.organisations[2]
    subject, keeper = town.subject(manager=provider), town.keeper()
    keeper.keep(subject)
    writer = msgspec.structs.replace(subject.writer, signer=provider.signer, role="guardian")
    made = first_compartments(writer, categories=("results",), now_ms=town.clock(), rand=town.rand)
    assert town.refused(keeper.events.keep([made.message], subject=subject.token)) == "wrong-signer"


def test_nothing_of_a_committed_event_is_held_twice(case):
    case.keeper.tell(case.subject, case.subject.revoke())
    assert case.keeper.custodian.chains._uncommitted == {}


def test_a_receipt_of_an_erased_body_is_not_to_be_had(case):
    case.keeper.store.main.execute("UPDATE entries SET salt = NULL, body = NULL WHERE idx = 1")
    assert case.town.refused(case.keeper.custodian.receipt_of(1)) == "not-found"


@pytest.mark.parametrize("token", ["", "cl1\nx", "cl1" + "q" * 46, "\udc97"])
def test_a_token_from_outside_is_never_repeated_in_a_refusal(case, token):
    message = msgspec.structs.replace(case.subject.message, token=token)
    assert case.town.refused(case.keeper.documents.keep(message)) == "unknown-identity"
    assert case.town.refused(case.keeper.events.keep(case.subject.events, subject=token)) == "no-document"
    with pytest.raises(NotFoundError):
        case.keeper.documents.stored(token)


class TestSupersededKeysFromPeers:
    """A thief of a device with one dishonest custodian (trust row 7): after the rotation the old key grants nothing."""

    def stolen(self, case):
        """The subject as the thief has it, while the subject itself rotates and rekeys with its kit."""
        thief = type(case.subject)(case.town, _Made(case.subject))
        thief.state, thief.names, thief.seeds = case.subject.state, case.subject.names, dict(case.subject.seeds)
        changed(case.town, case.subject, kit=True)
        case.town.run(case.keeper.documents.keep(case.subject.message))
        case.keeper.tell(case.subject, case.subject.rekey("results", "visits", "private"))
        return thief

    def bring(self, case, *events):
        return case.keeper.events.keep(events, subject=case.subject.token, via=case.town.software[2].token)

    def test_an_old_key_can_not_follow_what_a_newer_one_signed(self, case):
        records = case.treated()
        thief = self.stolen(case)
        thief.state = case.subject.state
        grant = thief.grant(case.town.organisations[2], "inbox", keep=False, rights=("contribute",))
        assert case.town.refused(self.bring(case, grant)) == "superseded-key"
        number = case.keeper.custodian.people.subject(case.subject.token)
        assert case.keeper.custodian.chains.state(number).head == case.subject.state.head
        reader, affiliation = case.town.clinician(2)
        asked = case.town.ask(reader, case.subject, records, for_=case.town.organisations[2], affiliation=affiliation)
        assert case.keeper.ask(asked).denied == "no-grant"

    def test_an_old_key_beside_a_newer_one_only_restricts_and_nothing_follows_it(self, case):
        records = case.treated()
        thief = self.stolen(case)
        first = thief.grant(case.town.organisations[2])
        case.town.run(self.bring(case, first))
        number = case.keeper.custodian.people.subject(case.subject.token)
        assert case.keeper.custodian.chains.state(number).forked
        reader, affiliation = case.town.clinician(2)
        asked = case.town.ask(reader, case.subject, records, for_=case.town.organisations[2], affiliation=affiliation)
        assert case.keeper.ask(asked).denied == "no-grant"
        second = thief.grant(case.town.organisations[2], keep=False)
        assert case.town.refused(self.bring(case, second)) == "superseded-key"

    def test_a_node_that_was_down_still_gets_all_of_a_chain_with_a_rotation_in_it(self, case):
        changed(case.town, case.subject, kit=True)
        case.subject.rekey("results")
        changed(case.town, case.subject, services=["https://new.example"])
        case.subject.grant(case.town.organisations[2])
        case.town.run(case.keeper.documents.keep(case.subject.message))
        for event in case.subject.events:
            case.town.run(self.bring(case, event))
        number = case.keeper.custodian.people.subject(case.subject.token)
        assert case.keeper.custodian.chains.state(number).head == case.subject.state.head

    def test_a_keyid_from_before_an_update_of_the_same_keys_is_no_older_key(self, case):
        before = case.subject.sequence
        changed(case.town, case.subject, services=["https://new.example"])
        case.town.run(case.keeper.documents.keep(case.subject.message))
        case.keeper.tell(case.subject, case.subject.grant(case.town.organisations[2]))
        case.subject.sequence = before
        late = case.subject.grant(case.town.organisations[3])
        case.town.run(self.bring(case, late))


class _Made:
    """What a device of a person holds, as Person takes it."""

    def __init__(self, person):
        self.token, self.document, self.salt = person.token, person.document, person.salt
        self.envelope = person.inception
        self.secrets = _Secrets(person)


class _Secrets:
    def __init__(self, person):
        self.device, self.root, self.reading_seed = person.device, bytes(32), None


def test_after_a_claim_a_node_that_was_down_gets_what_the_manager_signed_and_nothing_newer_of_it(town):
    provider = town.organisations[2]
    subject, keeper, peer = town.subject(manager=provider), town.keeper(), town.software[2].token
    manager = msgspec.structs.replace(subject.writer, signer=provider.signer, role="manager")
    made = first_compartments(manager, categories=("results",), now_ms=town.clock(), rand=town.rand)
    subject.names, subject.seeds = made.names, dict(made.seeds)
    subject._take(made.message)
    state = town.directory.identity(subject.token)
    rotation = build_rotate(
        network=town.network,
        token=subject.token,
        state=state,
        root=subject.root,
        new_root=town.rand(32),
        device=renewed_secrets(subject.device, sequence=1, rand=town.rand),
        document=msgspec.structs.replace(decode(subject.document, Document), manager=msgspec.UNSET),
        rand=town.rand,
        claim=provider.token,
    )
    town.order(countersign_claim(rotation.envelope, manager=provider.token, signer=provider.signer))
    subject.device, subject.document, subject.salt = rotation.secrets.device, rotation.document, rotation.salt
    subject.sequence = 1
    rekeyed = subject.rekey("results")
    town.run(keeper.documents.keep(subject.message))
    keep = keeper.events.keep
    assert town.refused(keep([made.message], subject=subject.token)) == "unknown-key"
    for event in (made.message, rekeyed):
        town.run(keep([event], subject=subject.token, via=peer))
    number = keeper.custodian.people.subject(subject.token)
    assert keeper.custodian.chains.state(number).head == subject.state.head
    # A manager can't go on after the claim, whoever brings it.
    grant = make_grant(
        msgspec.structs.replace(subject.writer, signer=provider.signer, role="manager"),
        subject.state,
        grantee=provider.token,
        to=provider.recipient,
        rights=["contribute"],
        purposes=["TREAT"],
        expires=town.clock() + 1000,
        compartments=[subject.compartment("results")],
        names=subject.names,
        policy="https://careledger.example/policy/1",
        text_hash="00" * 32,
        text_language="en",
        now_ms=town.clock(),
        rand=town.rand,
    )
    assert town.refused(keep([grant], subject=subject.token, via=peer)) == "superseded-key"
