"""Enrolment, operations and licences as the directory's rules see them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from careledger.directory import Enrol, sign_transaction
from careledger.identity import (
    Licence,
    build_deactivate,
    build_rotate,
    build_update,
    countersign_claim,
    default_threshold,
    device_secrets,
    new_managed_person,
    new_person,
    open_document,
)
from careledger.seal import SigningKey, encode, envelope_message_id, keyid, sign

DAY_MS = 86_400_000


def rotation(world: Any, person: Any, **more: Any) -> Any:
    state = world.directory.identity(person.token)
    return build_rotate(
        network=world.network,
        token=person.token,
        state=state,
        root=more.pop("root", person.secrets.root),
        device=device_secrets(sequence=state.sequence + 1, rand=world.rand),
        document=open_document(person.salt, person.document, person_hash(person)),
        rand=world.rand,
        **more,
    )


def person_hash(person: Any) -> str:
    from careledger.identity import document_hash

    return document_hash(person.salt, person.document)


def update(world: Any, person: Any, device: SigningKey) -> Any:
    state = world.directory.identity(person.token)
    document = msgspec.structs.replace(
        open_document(person.salt, person.document, person_hash(person)), services=["https://phr.example"]
    )
    return build_update(
        network=world.network, token=person.token, state=state, document=document, device=device, rand=world.rand
    )[0]


def test_person_enrolled_by_a_node_is_known_with_her_keys(world: Any) -> None:
    person = world.enrolled()
    directory = world.directory
    assert directory.is_active(person.token)
    assert directory.identity(person.token).effective_at == world.now_ms
    assert directory.current_keys(person.token) == person.secrets.device.keys()
    assert directory.public_keys(person.token, 0) == person.secrets.device.keys()
    assert directory.public_keys(person.token, 1) is None
    assert directory.public_keys("cl1" + "q" * 46, 0) is None


def key_of(party: Any) -> SigningKey:
    key: SigningKey = party.organisation.secrets.device.signing_key()
    return key


def test_inception_that_no_node_brings_in_is_refused(world: Any) -> None:
    before = world.directory.app_hash()
    assert world.run(world.person().envelope) == ["not-enrolled"]
    assert world.directory.app_hash() == before


def test_enrolment_by_who_is_no_member_s_node_is_refused(world: Any) -> None:
    stranger = world.party()
    envelope = stranger.as_node(
        Enrol(v=1, network=world.network, node=stranger.node, inception=world.person().envelope)
    )
    assert world.run(envelope) == ["unknown-identity"]
    assert world.run(world.enrol(stranger.software), envelope) == ["ok", "not-a-node"]
    # A member's node's name with a stranger's key.
    forged = sign_transaction(
        Enrol(v=1, network=world.network, node=world.parties[0].node, inception=world.person().envelope),
        signers=[(keyid(world.parties[0].node, 0), stranger.software.secrets.device.signing_key())],
    )
    assert world.run(forged) == ["bad-signature"]
    unknown = sign_transaction(
        Enrol(v=1, network=world.network, node=world.parties[0].node, inception=world.person().envelope),
        signers=[(keyid(stranger.node, 0), stranger.software.secrets.device.signing_key())],
    )
    assert world.run(unknown) == ["wrong-signer"]
    own = sign_transaction(
        Enrol(v=1, network=world.network, node=world.parties[0].node, inception=world.person().envelope),
        signers=[(keyid(world.parties[1].node, 0), world.parties[1].software.secrets.device.signing_key())],
    )
    assert world.run(own) == ["wrong-signer"]


def test_same_inception_twice_is_refused(world: Any) -> None:
    person = world.person()
    assert world.run(world.enrol(person), world.enrol(person, by=1)) == ["ok", "exists"]


def test_enrolment_of_another_network_is_refused(world: Any, make_world: Any) -> None:
    """The same parties in another network: everything is the same but the network's name."""
    other = make_world(seed="world", policy="https://other.example")
    assert other.network != world.network
    assert other.parties[0].node == world.parties[0].node
    assert world.run(other.enrol(other.person())) == ["wrong-network"]


def test_only_an_inception_can_be_enrolled(world: Any) -> None:
    person = world.enrolled()
    envelope = update(world, person, person.secrets.device.signing_key())
    party = world.parties[0]
    wrapped = party.as_node(Enrol(v=1, network=world.network, node=party.node, inception=envelope))
    assert world.run(wrapped) == ["wrong-type"]


def test_quota_of_a_member_s_day_is_enforced_and_renewed(make_world: Any) -> None:
    world = make_world(inceptions_per_member_per_day=2)
    people = [world.person() for _ in range(5)]
    assert world.run(*(world.enrol(person) for person in people[:3])) == ["ok", "ok", "over-quota"]
    assert world.run(world.enrol(people[2]), world.enrol(people[3], by=1)) == ["over-quota", "ok"]
    tomorrow = (world.now_ms // DAY_MS + 1) * DAY_MS
    assert world.run(world.enrol(people[2]), time_ms=tomorrow) == ["ok"]


def test_rotation_with_the_committed_key_replaces_the_keys(world: Any) -> None:
    person = world.enrolled()
    made = rotation(world, person)
    assert world.run(made.envelope) == ["ok"]
    assert world.directory.current_keys(person.token) == made.secrets.device.keys()
    assert world.directory.public_keys(person.token, 0) == person.secrets.device.keys()
    assert world.directory.public_keys(person.token, 1) == made.secrets.device.keys()
    assert world.directory.keys_since(person.token) == 1


def test_device_thief_cannot_rotate(world: Any) -> None:
    person = world.enrolled()
    thief = rotation(world, person)
    payload = thief.envelope.payload
    # The thief has the device key only: signs the same rotation with it instead of the revealed next key.
    from careledger.seal import unb64

    forged = sign(
        thief.envelope.payloadType,
        unb64(payload),
        [(keyid(person.token, 1), person.secrets.device.signing_key())],
    )
    assert world.run(forged) == ["bad-signature"]
    # Or reveals a key of his own as the "next" one.
    root = world.rand(32)
    state = world.directory.identity(person.token)
    from careledger.identity import next_hash, root_signing_key

    lied = msgspec.structs.replace(state, next=next_hash(root_signing_key(root, 1).public))
    made = build_rotate(
        network=world.network,
        token=person.token,
        state=lied,
        root=root,
        device=device_secrets(sequence=1, rand=world.rand),
        document=open_document(person.salt, person.document, state.document),
        rand=world.rand,
    )
    assert world.run(made.envelope) == ["bad-next"]
    assert world.directory.identity(person.token) == state


def test_replayed_and_reordered_operations_are_refused(world: Any) -> None:
    person = world.enrolled()
    device = person.secrets.device.signing_key()
    first = update(world, person, device)
    assert world.run(first) == ["ok"]
    second = update(world, person, device)
    assert world.run(first) == ["bad-sequence"]
    third_state = msgspec.structs.replace(
        world.directory.identity(person.token), sequence=2, head=envelope_message_id(second).hex()
    )
    third = build_update(
        network=world.network,
        token=person.token,
        state=third_state,
        document=open_document(person.salt, person.document, person_hash(person)),
        device=device,
        rand=world.rand,
    )[0]
    assert world.run(third, second) == ["bad-sequence", "ok"]
    assert world.run(third, second) == ["ok", "bad-sequence"]


def test_operation_linked_to_another_history_is_refused(world: Any) -> None:
    person = world.enrolled()
    device = person.secrets.device.signing_key()
    one, other = update(world, person, device), update(world, person, device)
    assert world.run(one) == ["ok"]
    state = msgspec.structs.replace(world.directory.identity(person.token), head=envelope_message_id(other).hex())
    follow = build_update(
        network=world.network,
        token=person.token,
        state=state,
        document=open_document(person.salt, person.document, person_hash(person)),
        device=device,
        rand=world.rand,
    )[0]
    assert world.run(follow) == ["bad-prev"]


def test_update_by_a_key_rotated_away_is_refused(world: Any) -> None:
    person = world.enrolled()
    assert world.run(rotation(world, person).envelope) == ["ok"]
    assert world.run(update(world, person, person.secrets.device.signing_key())) == ["bad-signature"]


def test_operation_for_an_unknown_identity_is_refused(world: Any) -> None:
    person = world.person()
    from careledger.identity import apply_operation

    state = apply_operation(None, person.envelope, network=world.network, now_ms=0).state
    made = build_update(
        network=world.network,
        token=person.token,
        state=state,
        document=open_document(person.salt, person.document, state.document),
        device=person.secrets.device.signing_key(),
        rand=world.rand,
    )[0]
    assert world.run(made) == ["unknown-identity"]


def test_deactivation_leaves_a_tombstone_that_nothing_follows(world: Any) -> None:
    person = world.enrolled()
    state = world.directory.identity(person.token)
    end = build_deactivate(network=world.network, token=person.token, state=state, root=person.secrets.root)
    again = rotation(world, person)
    assert world.run(end, again.envelope) == ["ok", "deactivated"]
    tombstone = world.directory.identity(person.token)
    assert tombstone.status == "deactivated"
    assert {tombstone.keys_hash, tombstone.next, tombstone.document, tombstone.guardians} == {"00" * 32}
    assert not world.directory.is_active(person.token)
    assert world.directory.current_keys(person.token) is None
    assert world.directory.public_keys(person.token, 1) is None
    # What was signed before can still be verified.
    assert world.directory.public_keys(person.token, 0) == person.secrets.device.keys()
    assert world.run(world.enrol(person)) == ["exists"]


def test_claim_needs_the_manager_named_and_its_current_key(world: Any) -> None:
    manager = world.parties[1]
    custodians = [party.node for party in world.parties]
    managed = new_managed_person(custodians=custodians, manager=manager.token, rand=world.rand)
    person = managed.identity
    assert world.run(world.enrol(person)) == ["ok"]
    made = rotation(world, person, claim=manager.token, new_root=world.rand(32))
    assert world.run(made.envelope) == ["not-the-manager"]
    stranger = world.parties[2]
    other_key = stranger.organisation.secrets.device.signing_key()
    forged = countersign_claim(made.envelope, manager=manager.token, signer=(keyid(manager.token, 0), other_key))
    assert world.run(forged) == ["bad-signature"]
    foreign = countersign_claim(made.envelope, manager=manager.token, signer=(keyid(stranger.token, 0), other_key))
    assert world.run(foreign) == ["not-the-manager"]
    key = key_of(manager)
    from careledger.identity import Rotate
    from careledger.seal import unb64

    # The provider alone: it may know the revealed key (it printed the kit), yet must not claim for the patient.
    alone = sign(Rotate.TYPE, unb64(made.envelope.payload), [(keyid(manager.token, 0), key_of(manager))])
    assert world.run(alone) == ["no-signature"]
    future = countersign_claim(made.envelope, manager=manager.token, signer=(keyid(manager.token, 7), key))
    assert world.run(future) == ["not-the-manager"]
    claimed = countersign_claim(made.envelope, manager=manager.token, signer=(keyid(manager.token, 0), key))
    assert world.run(claimed) == ["ok"]
    assert world.directory.current_keys(person.token) == made.secrets.device.keys()


def test_claim_whose_manager_is_unknown_is_refused(world: Any) -> None:
    person = world.enrolled()
    stranger = world.party()
    made = rotation(world, person, claim=stranger.token, new_root=world.rand(32))
    key = stranger.organisation.secrets.device.signing_key()
    signed = countersign_claim(made.envelope, manager=stranger.token, signer=(keyid(stranger.token, 0), key))
    assert world.run(signed) == ["unknown-identity"]


def test_licence_is_attested_suspended_and_restored(world: Any) -> None:
    person = world.enrolled()
    first = world.licence(person.token)
    assert world.run(first) == ["ok"]
    assert world.directory.licensed(person.token, world.now_ms)
    head = world.directory.licences(person.token)[0].head
    assert head == envelope_message_id(first).hex()
    suspended = world.licence(person.token, status="suspended", prev=head)
    assert world.run(suspended) == ["ok"]
    assert not world.directory.licensed(person.token, world.now_ms)
    # The old "active" can't be replayed.
    assert world.run(first) == ["bad-prev"]
    assert not world.directory.licensed(person.token, world.now_ms)
    head = world.directory.licences(person.token)[0].head
    assert world.run(world.licence(person.token, status="active", prev=head)) == ["ok"]
    assert world.directory.licensed(person.token, world.now_ms)


def test_licence_holds_from_its_beginning_until_before_its_end(world: Any) -> None:
    person = world.enrolled()
    assert world.run(world.licence(person.token, from_ms=100, until_ms=200)) == ["ok"]
    assert [world.directory.licensed(person.token, at) for at in (99, 100, 199, 200)] == [False, True, True, False]


def test_revoked_licence_stays_revoked(world: Any) -> None:
    person = world.enrolled()
    assert world.run(world.licence(person.token, status="revoked")) == ["ok"]
    head = world.directory.licences(person.token)[0].head
    assert world.run(world.licence(person.token, prev=head)) == ["revoked"]


def test_only_a_licensor_attests_and_only_about_its_own_licences(make_world: Any) -> None:
    world = make_world()
    person, other = world.enrolled(), world.enrolled()
    assert world.run(world.licence(person.token, by=1)) == ["not-a-licensor"]
    assert world.run(world.licence(person.token)) == ["ok"]
    head = world.directory.licences(person.token)[0].head
    assert world.run(world.licence(other.token, prev=head)) == ["exists"]
    assert world.run(world.licence(person.token, prev=head, role="nurse")) == ["exists"]
    assert world.run(world.licence(world.parties[1].token, licence="22" * 16)) == ["unknown-identity"]
    assert world.run(world.licence(person.token, licence="22" * 16, prev="33" * 32)) == ["bad-prev"]
    assert world.run(world.licence(person.token, licence="22" * 16, from_ms=5, until_ms=5)) == ["bad-licence"]


def test_licence_signed_by_another_than_it_names_is_refused(world: Any) -> None:
    person = world.enrolled()
    true = world.licence(person.token)
    key = world.parties[1].organisation.secrets.device.signing_key()
    from careledger.seal import unb64

    payload = unb64(true.payload)
    assert world.run(sign(Licence.TYPE, payload, [(keyid(world.parties[0].token, 0), key)])) == ["bad-signature"]
    assert world.run(sign(Licence.TYPE, payload, [(keyid(world.parties[1].token, 0), key)])) == ["wrong-signer"]
    assert world.run(sign(Licence.TYPE, payload, [(keyid(person.token, 0), key)])) == ["bad-signature"]


def test_member_that_rotated_signs_with_new_keys_only(world: Any) -> None:
    party = world.parties[0]
    made = rotation(world, party.organisation)
    assert world.run(made.envelope) == ["ok"]
    person = world.enrolled()
    old = world.licence(person.token)
    assert world.run(old) == ["unknown-key"]
    payload = encode(msgspec.json.decode(__import__("careledger.seal").seal.unb64(old.payload), type=Licence))
    new = sign(Licence.TYPE, payload, [(keyid(party.token, 1), made.secrets.device.signing_key())])
    assert world.run(new) == ["ok"]


def test_keyid_of_an_older_sequence_counts_while_its_keys_are_in_force(world: Any) -> None:
    party = world.parties[0]
    device = party.organisation.secrets.device.signing_key()
    assert world.run(update(world, party.organisation, device)) == ["ok"]
    assert world.directory.identity(party.token).sequence == 1
    person = world.enrolled()
    assert world.run(world.licence(person.token)) == ["ok"]


def test_extra_signature_is_refused(world: Any) -> None:
    person = world.enrolled()
    true = world.licence(person.token)
    from careledger.seal import unb64

    keys = [
        (keyid(world.parties[0].token, 0), world.parties[0].organisation.secrets.device.signing_key()),
        (keyid(world.parties[1].token, 0), world.parties[1].organisation.secrets.device.signing_key()),
    ]
    assert world.run(sign(Licence.TYPE, unb64(true.payload), keys)) == ["too-many-signatures"]


def test_unknown_type_too_large_and_malformed_transactions_are_refused(world: Any) -> None:
    key = world.parties[0].organisation.secrets.device.signing_key()
    name = keyid(world.parties[0].token, 0)
    assert world.run(sign("application/vnd.careledger.poem+json", b"{}", [(name, key)])) == ["unknown-type"]
    assert world.run(sign(Licence.TYPE, b"{}", [(name, key)])) == ["bad-field"]
    assert world.run(sign(Licence.TYPE, b"{", [(name, key)])) == ["not-json"]
    assert world.run(sign(Licence.TYPE, bytes(50_000), [(name, key)])) == ["too-large"]


def test_refused_transactions_leave_no_trace(world: Any) -> None:
    before, values = world.directory.app_hash(), dict(world.directory.state.values)
    person = new_person(custodians=[], rand=world.rand)
    assert default_threshold(0) == 0
    world.run(person.envelope, world.licence(person.token))
    assert world.directory.app_hash() == before
    assert world.directory.state.values == values


@pytest.mark.parametrize("field", ["payload", "payloadType", "signatures"])
def test_enrolment_altered_anywhere_is_refused(world: Any, field: str) -> None:
    envelope = world.enrol(world.person())
    other = world.licence(world.parties[0].token)
    altered = msgspec.structs.replace(envelope, **{field: getattr(other, field)})
    assert world.run(altered) != ["ok"]
