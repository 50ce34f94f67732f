"""Boxes and seeds: who can open what, and that new opens old but never the reverse."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from careledger import consent
from careledger.errors import MalformedError, NotFoundError, UnavailableError, VerificationError
from careledger.seal import SealingKey, b64, kdf, unb64

replace = msgspec.structs.replace


def rekey(chain: Any, compartments: list[str], *people: Any) -> tuple[consent.Rekey, consent.EventMessage]:
    made = consent.make_rekey(
        chain.writer,
        chain.state,
        compartments,
        seeds=chain.seeds,
        recipients={person.token: person.recipient for person in people},
        now_ms=chain.now,
        rand=chain.rand,
    )
    chain.seeds.update(made.seeds)
    event = chain.add(made.message)
    assert isinstance(event, consent.Rekey)
    return event, made.message


def flat(seeds: dict[str, tuple[int, bytes]]) -> consent.Seeds:
    return {(compartment, epoch): seed for compartment, (epoch, seed) in seeds.items()}


def test_a_rekey_takes_keys_made_ahead_and_makes_the_others(chain: Any) -> None:
    ahead, another = SealingKey(bytes(range(32))), min({*chain.state.compartments} - {chain.about, chain.private})
    made = consent.make_rekey(
        chain.writer,
        chain.state,
        [chain.about, chain.private],
        seeds=chain.seeds,
        recipients={},
        now_ms=chain.now,
        rand=chain.rand,
        fresh={chain.about: ahead, another: SealingKey(bytes(32))},
    )
    event = chain.add(made.message)
    assert isinstance(event, consent.Rekey)
    keys = {slot.compartment: slot.key for slot in event.slots}
    assert keys.keys() == {chain.about, chain.private}
    assert keys[chain.about] == b64(ahead.public)
    assert made.seeds[chain.about, 2] == ahead.seed
    assert keys[chain.private] == b64(SealingKey(made.seeds[chain.private, 2]).public)


def test_the_subject_recovers_names_and_seeds_from_its_own_boxes(chain: Any) -> None:
    event = chain.events[0][0]
    box = chain.messages[0].boxes[0]
    own = consent.open_own_box(event, box, keyid=chain.patient.keyid, key=chain.patient.seal)
    assert own.names == chain.first.names
    assert sorted(own.names.values())[:4] == ["about", "inbox", "private", "spare-1"]
    assert flat(own.seeds) == chain.first.seeds
    assert len(own.seeds) == 16
    for slot in event.slots:
        assert slot.key == b64(SealingKey(own.seeds[slot.compartment][1]).public)


def test_a_grantee_opens_its_box_and_gets_only_its_compartments(chain: Any) -> None:
    event = chain.grant(chain.ada, [chain.about])
    box = chain.messages[-1].boxes[0]
    opened = consent.open_grant_box(event, box, keyid=chain.ada.keyid, key=chain.ada.seal)
    assert opened.names == {chain.about: "about"}
    assert flat(opened.seeds) == {(chain.about, 1): chain.seeds[chain.about, 1]}
    assert opened.records == {}
    with pytest.raises(VerificationError) as refused:
        consent.open_grant_box(event, box, keyid=chain.ada.keyid, key=chain.bea.seal)
    assert refused.value.code == "not-openable"


def test_an_organisation_opens_with_its_reading_key(chain: Any) -> None:
    event = chain.grant(chain.clinic, [chain.about])
    box = chain.messages[-1].boxes[0]
    opened = consent.open_grant_box(event, box, keyid=chain.clinic.keyid, key=chain.clinic.seal)
    assert (chain.about, 1) in flat(opened.seeds)


def test_a_grant_to_contribute_gives_no_seed(chain: Any) -> None:
    event = chain.grant(chain.ada, [chain.about], rights=["contribute"])
    opened = consent.open_grant_box(event, chain.messages[-1].boxes[0], keyid=chain.ada.keyid, key=chain.ada.seal)
    assert opened.seeds == {}


def test_a_grant_by_records_gives_only_their_keys(chain: Any) -> None:
    event = chain.grant(chain.ada, [], records={"ab" * 16: b"k" * 32})
    opened = consent.open_grant_box(event, chain.messages[-1].boxes[0], keyid=chain.ada.keyid, key=chain.ada.seal)
    assert (opened.seeds, opened.records) == ({}, {"ab" * 16: b"k" * 32})
    assert chain.revoke(event.grant, {})[0].seq == 3
    assert chain.state.seq == 3, "nothing to rekey"


def test_a_box_does_not_open_in_another_event(chain: Any) -> None:
    event = chain.grant(chain.ada, [chain.about])
    box = chain.messages[-1].boxes[0]
    for elsewhere in (
        replace(event, seq=event.seq + 1),
        replace(event, prev="22" * 32),
        replace(event, subject=chain.bea.token),
        replace(event, network="cd" * 32),
    ):
        with pytest.raises(VerificationError) as refused:
            consent.open_grant_box(elsewhere, box, keyid=chain.ada.keyid, key=chain.ada.seal)
        assert refused.value.code == "not-openable"
    for elsewhere in (replace(event, box="33" * 32), replace(event, to=chain.bea.keyid)):
        with pytest.raises(VerificationError) as refused:
            consent.open_grant_box(elsewhere, box, keyid=chain.ada.keyid, key=chain.ada.seal)
        assert refused.value.code == "wrong-box"
    with pytest.raises(VerificationError) as refused:
        consent.open_own_box(event, box, keyid=chain.ada.keyid, key=chain.ada.seal)
    assert refused.value.code == "wrong-box"


def test_a_rekey_box_does_not_open_under_anothers_name(chain: Any) -> None:
    chain.grant(chain.ada, [chain.about])
    event, message = rekey(chain, [chain.about], chain.ada)
    box = consent.box_for(event, message.boxes, chain.ada.keyid)
    assert box is not None
    assert consent.box_for(event, message.boxes, chain.bea.keyid) is None
    assert consent.open_grant_box(event, box, keyid=chain.ada.keyid, key=chain.ada.seal).names == {}
    with pytest.raises(VerificationError):
        consent.open_grant_box(event, box, keyid=chain.bea.keyid, key=chain.ada.seal)


def test_a_seed_that_is_not_that_of_the_published_key_is_refused(chain: Any) -> None:
    event, message = rekey(chain, [chain.about])
    slot = replace(event.slots[0], key=chain.state.compartments[chain.warnings][1])
    with pytest.raises(VerificationError) as refused:
        consent.open_own_box(
            replace(event, slots=[slot]), message.boxes[0], keyid=chain.patient.keyid, key=chain.patient.seal
        )
    assert refused.value.code == "wrong-seed"


def test_a_grantee_too_checks_a_rekeys_seeds(chain: Any) -> None:
    chain.grant(chain.ada, [chain.about])
    event, message = rekey(chain, [chain.about], chain.ada)
    box = consent.box_for(event, message.boxes, chain.ada.keyid)
    assert box is not None
    slot = replace(event.slots[0], key=chain.state.compartments[chain.warnings][1])
    with pytest.raises(VerificationError) as refused:
        consent.open_grant_box(replace(event, slots=[slot]), box, keyid=chain.ada.keyid, key=chain.ada.seal)
    assert refused.value.code == "wrong-seed"


def test_a_box_that_anybody_could_have_sealed_counts_only_if_the_event_names_it(chain: Any) -> None:
    """HPKE's base mode proves no sender: a custodian can seal a box of its own with the right `info`."""
    first, granted = chain.events[0][0], chain.grant(chain.ada, [chain.about])
    for event, use, who, reader in (
        (first, "rekey", chain.patient, consent.open_own_box),
        (granted, "grant", chain.ada, consent.open_grant_box),
    ):
        bound_to = consent.box.box_info(
            event.network, use, subject=event.subject, seq=event.seq, prev=event.prev, to=who.keyid
        )
        forged = who.public.seal(msgspec.msgpack.encode({"names": {}, "seeds": {}}), info=bound_to)
        with pytest.raises(VerificationError) as refused:
            reader(event, forged, keyid=who.keyid, key=who.seal)
        assert refused.value.code == "wrong-box"


def test_the_subjects_own_box_is_no_grant(chain: Any) -> None:
    event, box = chain.events[0][0], chain.messages[0].boxes[0]
    with pytest.raises(VerificationError) as refused:
        consent.open_grant_box(event, box, keyid=chain.patient.keyid, key=chain.patient.seal)
    assert refused.value.code == "wrong-box"


def test_new_opens_old_and_never_the_reverse(chain: Any) -> None:
    for _ in range(4):
        rekey(chain, [chain.about])
    events = [event for event, _ in chain.events]
    newest = {(chain.about, 5): chain.seeds[chain.about, 5]}
    found = consent.seeds_from_rekeys(newest, events)
    assert found == {(chain.about, epoch): chain.seeds[chain.about, epoch] for epoch in range(1, 6)}
    middle = {(chain.about, 3): chain.seeds[chain.about, 3]}
    assert sorted(epoch for _, epoch in consent.seeds_from_rekeys(middle, events)) == [1, 2, 3]
    for event in events[1:]:
        assert isinstance(event, consent.Rekey)
        prev = unb64(event.slots[0].prev)
        new = chain.seeds[chain.about, event.slots[0].epoch]
        assert new not in prev
        assert kdf(new, "prev") != new


def test_a_wrong_seed_opens_nothing_older(chain: Any) -> None:
    rekey(chain, [chain.about])
    wrong = {(chain.about, 2): bytes(32), (chain.warnings, 1): chain.seeds[chain.warnings, 1]}
    assert consent.seeds_from_rekeys(wrong, [event for event, _ in chain.events]) == wrong


def test_a_missing_rekey_ends_the_way_back(chain: Any) -> None:
    for _ in range(3):
        rekey(chain, [chain.about])
    known = {(chain.about, 4): chain.seeds[chain.about, 4]}
    without_the_third = [event for event, _ in chain.events if event.seq != 3]
    assert sorted(consent.seeds_from_rekeys(known, without_the_third)) == [(chain.about, 3), (chain.about, 4)]
    assert consent.seeds_from_rekeys(known, []) == known


def test_a_box_is_found_by_its_hash(chain: Any) -> None:
    boxes = chain.messages[0].boxes
    assert consent.find_box([b"other", *boxes], chain.events[0][0].own) == boxes[0]


def test_prev_moved_to_another_compartment_or_epoch_does_not_open(chain: Any) -> None:
    event, _ = rekey(chain, [chain.about, chain.warnings])
    one, two = event.slots
    swapped = replace(event, slots=[replace(one, prev=two.prev), replace(two, prev=one.prev)])
    known = {(slot.compartment, 2): chain.seeds[slot.compartment, 2] for slot in event.slots}
    assert consent.seeds_from_rekeys(known, [swapped]) == known
    renamed = replace(event, subject=chain.bea.token)
    assert consent.seeds_from_rekeys(known, [renamed]) == known


def test_after_a_fork_the_rekey_that_fits_the_seed_counts(chain: Any) -> None:
    state = chain.state
    made = [
        consent.make_rekey(
            chain.writer, state, [chain.about], seeds=chain.seeds, recipients={}, now_ms=chain.now, rand=chain.rand
        )
        for _ in range(2)
    ]
    events = [chain.read(item.message)[0] for item in made]
    for item in made:
        found = consent.seeds_from_rekeys(item.seeds, events)
        assert found[chain.about, 1] == chain.seeds[chain.about, 1]


def test_remaining_grantees_get_new_seeds_and_the_revoked_none(chain: Any) -> None:
    ended = chain.grant(chain.ada, [chain.about, chain.warnings])
    chain.grant(chain.bea, [chain.about, chain.private])
    chain.grant(chain.clinic, [chain.warnings], rights=["contribute"])
    _, event = chain.revoke(ended.grant, {chain.bea.token: chain.bea.recipient})
    assert [box.to for box in event.boxes] == [chain.bea.keyid]
    assert sorted(slot.compartment for slot in event.slots) == sorted([chain.about, chain.warnings])
    box = consent.box_for(event, chain.messages[-1].boxes, chain.bea.keyid)
    assert box is not None
    opened = consent.open_grant_box(event, box, keyid=chain.bea.keyid, key=chain.bea.seal)
    assert flat(opened.seeds) == {(chain.about, 2): chain.seeds[chain.about, 2]}


def test_who_has_another_grant_remains(chain: Any) -> None:
    ended = chain.grant(chain.ada, [chain.about, chain.warnings])
    chain.grant(chain.ada, [chain.about])
    _, event = chain.revoke(ended.grant, {chain.ada.token: chain.ada.recipient})
    box = consent.box_for(event, chain.messages[-1].boxes, chain.ada.keyid)
    assert box is not None
    opened = consent.open_grant_box(event, box, keyid=chain.ada.keyid, key=chain.ada.seal)
    assert list(opened.seeds) == [chain.about]


def test_a_remaining_grantee_is_never_forgotten_silently(chain: Any) -> None:
    ended = chain.grant(chain.ada, [chain.about])
    chain.grant(chain.bea, [chain.about], expires=chain.now + 5)
    with pytest.raises(UnavailableError) as refused:
        chain.revoke(ended.grant, {})
    assert refused.value.code == "unknown-recipient"
    assert chain.bea.token in refused.value.message
    assert consent.remaining_grantees(chain.state, [chain.about], now_ms=chain.now + 5) == {
        chain.ada.token: [chain.about]
    }
    _, event = chain.revoke(ended.grant, {chain.bea.token: None})
    assert event.boxes == []


def test_a_filed_records_key_opens_with_the_new_compartments_seed(chain: Any) -> None:
    record = "ab" * 16
    message = consent.make_file(
        chain.writer, chain.state, record=record, compartment=chain.private, consent_key=b"k" * 32, now_ms=chain.now
    )
    event = chain.add(message)
    assert consent.open_filed(event, chain.seeds[chain.private, 1]) == b"k" * 32
    for wrong in (chain.seeds[chain.about, 1], bytes(32)):
        with pytest.raises(VerificationError):
            consent.open_filed(event, wrong)
    for elsewhere in ({"record": "cd" * 16}, {"epoch": 2}, {"compartment": chain.about}, {"subject": chain.bea.token}):
        with pytest.raises(VerificationError):
            consent.open_filed(replace(event, **elsewhere), chain.seeds[chain.private, 1])


def test_boxes_that_hold_something_else_are_malformed(chain: Any) -> None:
    event = chain.grant(chain.ada, [chain.about])
    for content in (b"", b"\x80", b"\xc1", msgspec.msgpack.encode({"names": {}, "seeds": {"xy": (1, bytes(32))}})):
        bound_to = consent.box.box_info(
            event.network, "grant", subject=event.subject, seq=event.seq, prev=event.prev, to=event.to
        )
        box = chain.ada.public.seal(content, info=bound_to)
        named = replace(event, box=consent.event.box_hash(box))
        with pytest.raises(MalformedError) as refused:
            consent.open_grant_box(named, box, keyid=chain.ada.keyid, key=chain.ada.seal)
        assert refused.value.code == "bad-box"


def test_builders_say_what_is_missing(chain: Any) -> None:
    with pytest.raises(NotFoundError) as refused:
        chain.grant_message(chain.ada, [chain.about], seeds={})
    assert refused.value.code == "no-seed"
    with pytest.raises(NotFoundError) as refused:
        chain.first.id_of("teeth")
    assert refused.value.code == "unknown-category"
    with pytest.raises(NotFoundError) as refused:
        consent.find_box([], "00" * 32)
    assert refused.value.code == "no-box"
    with pytest.raises(NotFoundError) as refused:
        consent.make_file(
            chain.writer, chain.state, record="ab" * 16, compartment="ff" * 16, consent_key=bytes(32), now_ms=1
        )
    assert refused.value.code == "unknown-compartment"
    with pytest.raises(VerificationError) as wrong:
        consent.make_revocation(chain.writer, chain.state, "ff" * 16, now_ms=1)
    assert wrong.value.code == "unknown-grant"
    with pytest.raises(AssertionError):
        consent.make_merge(chain.writer, chain.state, chain.state.head, now_ms=1)
    with pytest.raises(AssertionError):
        consent.first_compartments(chain.writer, categories=[str(i) for i in range(16)], now_ms=1, rand=chain.rand)


def test_category_names_are_nowhere_in_an_event(chain: Any) -> None:
    chain.grant(chain.ada, [chain.private])
    for message in chain.messages:
        envelope = msgspec.json.decode(message.envelope)
        seen = unb64(envelope["payload"]) + b"".join(message.boxes)
        assert b"private" not in seen
        assert b"about" not in seen
