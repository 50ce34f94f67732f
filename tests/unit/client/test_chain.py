"""Chains as clients know them: a stolen old key writes nothing new, a former manager neither."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import pytest

from careledger.client.chain import GrantsView, OwnChain
from careledger.consent import (
    EventMessage,
    Writer,
    decode_event_message,
    encode_event_message,
    fold,
    make_rekey,
    read_event,
)
from careledger.consent.subject import first_compartments
from careledger.errors import ConflictError, Error, NotFoundError, VerificationError
from careledger.identity import DeviceSecrets, device_secrets, new_person
from careledger.seal import SealingKey, SealingPublicKey, keyid

NETWORK = "ab" * 32
NOW = 1_790_000_000_000


class Subject:
    """A subject with keys of several sequences, and a manager."""

    def __init__(self) -> None:
        self.token = new_person(custodians=(), rand=os.urandom).token
        self.manager = new_person(custodians=(), rand=os.urandom).token
        self.devices = [device_secrets(sequence=number, rand=os.urandom) for number in range(3)]
        self.manager_device = device_secrets(sequence=0, rand=os.urandom)
        self.chain = OwnChain(network=NETWORK, subject=self.token)

    def verify_keys(self) -> dict[str, Any]:
        from careledger.seal import VerifyKey

        found = {keyid(self.token, d.sequence): VerifyKey(d.signing_key().public) for d in self.devices}
        found[keyid(self.manager, 0)] = VerifyKey(self.manager_device.signing_key().public)
        return found

    def key_of(self, to: str) -> SealingKey:
        for device in self.devices:
            if to == keyid(self.token, device.sequence):
                return device.sealing_key()
        raise NotFoundError("not-addressed", "not ours")

    def writer(self, device: DeviceSecrets, *, managed: bool = False) -> Writer:
        owner = (keyid(self.token, device.sequence), SealingPublicKey(device.sealing_key().public))
        if managed:
            signer = (keyid(self.manager, 0), self.manager_device.signing_key())
            return Writer(network=NETWORK, subject=self.token, signer=signer, owner=owner, role="manager")
        signer = (keyid(self.token, device.sequence), device.signing_key())
        return Writer(network=NETWORK, subject=self.token, signer=signer, owner=owner)

    def add(self, message: EventMessage) -> None:
        self.chain.add([message], keys=self.verify_keys(), key_of=self.key_of)

    def begin(self, device: DeviceSecrets, *, managed: bool = False) -> None:
        writer = self.writer(device, managed=managed)
        made = first_compartments(writer, categories=["about", "results"], now_ms=NOW, rand=os.urandom)
        self.add(made.message)

    def rekeyed(self, device: DeviceSecrets, *, managed: bool = False) -> EventMessage:
        return make_rekey(
            self.writer(device, managed=managed),
            self.chain.state,
            sorted(self.chain.state.compartments)[:2],
            seeds=self.chain.seeds(),
            recipients={},
            now_ms=NOW,
            rand=os.urandom,
        ).message


@pytest.fixture
def subject() -> Subject:
    return Subject()


def test_events_of_later_keys_follow_and_seeds_of_every_epoch_are_known(subject: Subject) -> None:
    subject.begin(subject.devices[0])
    subject.add(subject.rekeyed(subject.devices[1]))
    subject.add(subject.rekeyed(subject.devices[2]))
    moved = sorted(subject.chain.state.compartments)[0]
    assert subject.chain.state.compartments[moved][0] == 3
    for epoch in (1, 2, 3):
        subject.chain.compartment_key(moved, epoch)
    with pytest.raises(NotFoundError):
        subject.chain.compartment_key(moved, 4)


def test_an_event_by_keys_that_were_replaced_is_refused(subject: Subject) -> None:
    subject.begin(subject.devices[0])
    subject.add(subject.rekeyed(subject.devices[1]))
    with pytest.raises(VerificationError) as refused:
        subject.add(subject.rekeyed(subject.devices[0]))
    assert refused.value.code == "old-signer"


def test_a_manager_signs_until_the_claim_and_not_after(subject: Subject) -> None:
    subject.chain.claimed_at = 1
    subject.begin(subject.devices[0], managed=True)
    subject.add(subject.rekeyed(subject.devices[0], managed=True))
    subject.add(subject.rekeyed(subject.devices[1]))
    with pytest.raises(VerificationError) as refused:
        subject.add(subject.rekeyed(subject.devices[1], managed=True))
    assert refused.value.code == "old-signer"


def test_events_in_any_order_give_the_same_state(subject: Subject) -> None:
    subject.begin(subject.devices[0])
    for _ in range(3):
        subject.add(subject.rekeyed(subject.devices[0]))
    other = OwnChain(network=NETWORK, subject=subject.token)
    messages = [decode_event_message(encode_event_message(one)) for one in subject.chain.messages]
    other.add(reversed(messages), keys=subject.verify_keys(), key_of=subject.key_of)
    assert other.state == subject.chain.state
    assert other.seeds() == subject.chain.seeds()


@pytest.mark.parametrize("order", [[[0], [1], [2], [3]], [[0, 1], [3, 2]], [[0, 2, 3], [1]], [[3], [2], [1, 0]]])
def test_events_in_parts_and_out_of_order_give_the_same_as_all_at_once(
    subject: Subject, order: list[list[int]]
) -> None:
    subject.begin(subject.devices[0])
    for device in subject.devices:
        subject.add(subject.rekeyed(device))
    messages = subject.chain.messages
    other = OwnChain(network=NETWORK, subject=subject.token)
    for part in order:
        # What comes before them comes with a later part.
        with contextlib.suppress(ConflictError):
            other.add([messages[at] for at in part], keys=subject.verify_keys(), key_of=subject.key_of)
        other.seeds()
    assert other.state == subject.chain.state
    assert other.events == subject.chain.events
    assert other.messages == messages
    assert other.seeds() == subject.chain.seeds()


def test_what_follows_an_event_of_a_replaced_key_is_refused_as_well(subject: Subject) -> None:
    subject.begin(subject.devices[0])
    subject.add(subject.rekeyed(subject.devices[1]))
    stolen = subject.rekeyed(subject.devices[0])
    with pytest.raises(VerificationError):
        subject.add(stolen)
    before = subject.chain.state
    after = fold(before, *read_event(stolen, network=NETWORK, subject=subject.token, keys=subject.verify_keys()))
    following = make_rekey(
        subject.writer(subject.devices[2]),
        after,
        sorted(after.compartments)[2:],
        seeds=subject.chain.seeds(),
        recipients={},
        now_ms=NOW,
        rand=os.urandom,
    ).message
    with pytest.raises(VerificationError) as refused:
        subject.add(following)
    assert refused.value.code == "old-signer"
    assert subject.chain.state == before


def test_a_message_that_does_not_open_leaves_the_chain_as_it_was(subject: Subject) -> None:
    subject.begin(subject.devices[0])
    messages = [subject.rekeyed(subject.devices[1])]
    before = subject.chain.messages

    def locked(to: str) -> SealingKey:
        raise NotFoundError("not-addressed", "not ours")

    for _ in range(2):
        with pytest.raises(NotFoundError):
            subject.chain.add(messages, keys=subject.verify_keys(), key_of=locked)
        assert subject.chain.messages == before
    assert subject.chain.add(messages, keys=subject.verify_keys(), key_of=subject.key_of) == 1


def test_an_event_of_somebody_else_is_refused(subject: Subject) -> None:
    other = Subject()
    other.begin(other.devices[0])
    with pytest.raises(Error):
        subject.chain.add(other.chain.messages, keys=subject.verify_keys(), key_of=subject.key_of)


def test_a_view_takes_public_keys_from_the_newest_epoch(subject: Subject) -> None:
    subject.begin(subject.devices[0])
    subject.add(subject.rekeyed(subject.devices[0]))
    view = GrantsView(network=NETWORK, subject=subject.token)
    shown = [EventMessage(envelope=one.envelope, boxes=[]) for one in subject.chain.messages]
    assert view.add(shown, keys=subject.verify_keys(), key_of=subject.key_of) == 2
    assert view.add(shown, keys=subject.verify_keys(), key_of=subject.key_of) == 0
    keys, inbox = view.public_keys()
    assert keys == subject.chain.state.compartments
    assert inbox == subject.chain.state.inbox


def test_a_view_refuses_what_replaced_keys_signed_after_newer_ones(subject: Subject) -> None:
    """A custodian in league with a thief would have authors seal to the thief's keys."""
    subject.begin(subject.devices[0])
    beside = subject.rekeyed(subject.devices[0])
    subject.add(subject.rekeyed(subject.devices[1]))
    after = subject.rekeyed(subject.devices[0])
    view = GrantsView(network=NETWORK, subject=subject.token)
    honest = [EventMessage(envelope=one.envelope, boxes=[]) for one in subject.chain.messages]
    for shown in ([*honest, after], [after, *honest]):
        bare = [EventMessage(envelope=one.envelope, boxes=[]) for one in shown]
        with pytest.raises(VerificationError) as refused:
            view.add(bare, keys=subject.verify_keys(), key_of=subject.key_of)
        assert refused.value.code == "old-signer"
        assert view.public_keys() == ({}, "")
    assert view.add(honest, keys=subject.verify_keys(), key_of=subject.key_of) == 2
    with pytest.raises(VerificationError):
        view.add([EventMessage(envelope=after.envelope, boxes=[])], keys=subject.verify_keys(), key_of=subject.key_of)
    assert view.public_keys()[0] == subject.chain.state.compartments
    # Beside a newer key's event an older one makes a fork, which only restricts.
    assert view.add(
        [EventMessage(envelope=beside.envelope, boxes=[])], keys=subject.verify_keys(), key_of=subject.key_of
    )
