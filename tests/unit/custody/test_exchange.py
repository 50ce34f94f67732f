"""Sync: what a node was down for reaches it later, proven again; a peer's word alone adds nothing."""

from __future__ import annotations

import sqlite3

import msgspec
import pytest

from careledger.access import FRESH_MS, DocumentMessage, SignedRead, SyncAnswer, SyncItem, SyncRequest
from careledger.consent import encode_event_message
from careledger.custody import exchange as exchange_module
from careledger.errors import UnavailableError
from careledger.records import encode_submission
from careledger.seal import encode, sign


def asked(town, asker, to, **changes):
    signer = changes.pop("signer", town.node_signer(asker))
    fields = {
        "network": town.network,
        "node": town.software[asker].token,
        "to": town.software[changes.pop("other", to)].token,
        "since": 0,
        "time": town.clock(),
        "nonce": town.rand(16).hex(),
        **changes,
    }
    return SignedRead(encode(sign(SyncRequest.TYPE, encode(SyncRequest(**fields)), [signer])))


@pytest.fixture
def behind(case):
    """A second custodian of the case's subject that has nothing yet."""
    return case.town.keeper(1)


def names(answer):
    return [(item.index, item.kind) for item in answer.items]


def pull(town, behind, peer, *, wanted=None, **more):
    """What `behind` gets from `peer`: the names, then what is missing."""
    signer = town.node_signer(behind.number)
    named = town.run(peer.exchange.serve(behind.exchange.ask(peer.token, since=0, signer=signer, **more)))
    missing = behind.exchange.missing(named) if wanted is None else wanted
    if not missing:
        return named, None, []
    ask = behind.exchange.ask(peer.token, since=missing[0], signer=signer, wanted=missing, **more)
    answer = town.run(peer.exchange.serve(ask))
    return named, answer, town.run(behind.exchange.take(peer.token, answer))


def test_a_node_that_was_down_gets_everything_it_missed(case, behind):
    records = case.treated(("results", "visits"))
    named, answer, refused = pull(case.town, behind, case.keeper)
    assert names(named) == [(0, "document"), (1, "consent"), (2, "consent"), (3, "submission")]
    assert all(item.message == b"" for item in named.items)
    assert all(item.message for item in answer.items)
    assert refused == []
    number = behind.custodian.people.subject(case.subject.token)
    assert behind.custodian.chains.state(number).head == case.subject.state.head
    assert [row.record_id for row in behind.shelf.all_of(number)] == records
    assert [one.get("details") for one in behind.entries()[1:4]] == [{"via": case.keeper.token}] * 3
    # It can do its part now, with its own share.
    asked_ = case.ask(records)
    assert behind.ask(asked_).denied is None


def test_a_second_round_finds_nothing_missing_and_makes_no_entry(case, behind):
    case.treated()
    pull(case.town, behind, case.keeper)
    size, theirs = behind.size, case.keeper.size
    _, answer, _ = pull(case.town, behind, case.keeper)
    assert answer is None
    assert (behind.size, case.keeper.size) == (size, theirs)


def test_names_need_no_entry_and_items_have_one_before_they_leave(case, behind, monkeypatch):
    case.treated()
    size = case.keeper.size
    pull(case.town, behind, case.keeper)
    (entry,) = case.keeper.entries(size)
    assert (entry["kind"], entry["decision"], entry["reason"]) == ("system", "allow", "sync")
    assert entry["details"] == {"items": 4, "next": size}
    assert len(entry["envelopes"]) == 1

    def failing(*_):
        raise sqlite3.OperationalError("full")

    monkeypatch.setattr(case.keeper.store, "commit", failing)
    ask = asked(case.town, 1, 0, wanted=[0])
    assert case.town.refused(case.keeper.exchange.serve(ask)) == "disk-full"


def test_where_nothing_is_handed_out_nothing_is_logged(case):
    size = case.keeper.size
    answer = case.town.run(case.keeper.exchange.serve(asked(case.town, 1, 0, wanted=[10_000])))
    assert (answer.items, case.keeper.size) == ([], size)


def test_only_a_members_node_may_sync(case):
    stranger = case.town.person()
    ask = asked(case.town, 1, 0, node=stranger.token, signer=stranger.signer)
    assert case.town.refused(case.keeper.exchange.serve(ask)) == "not-a-node"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"other": 2}, "wrong-node"),
        ({"network": "ab" * 32}, "wrong-network"),
        ({"time": -FRESH_MS - 1}, "stale-request"),
        ({"time": FRESH_MS + 1}, "stale-request"),
        ({"signer": 2}, "wrong-signer"),
    ],
)
def test_a_sync_request_is_proven(case, changes, code):
    town, fields = case.town, dict(changes)
    if "time" in fields:
        fields["time"] += town.clock()
    if "signer" in fields:
        fields["signer"] = town.node_signer(2)
    size = case.keeper.size
    assert town.refused(case.keeper.exchange.serve(asked(town, 1, 0, **fields))) == code
    assert case.keeper.size == size


def test_a_sync_request_is_answered_once(case):
    ask = asked(case.town, 1, 0, wanted=[0])
    case.town.run(case.keeper.exchange.serve(ask))
    assert case.town.refused(case.keeper.exchange.serve(ask)) == "replayed"


def test_a_peer_learns_nothing_of_subjects_it_is_no_custodian_of(make_town, make_case):
    town = make_town(members=5)
    case = make_case(town)
    other = town.subject(custodians=[0, 2, 3, 4])
    other.begin()
    case.keeper.keep(other)
    case.keeper.accept(town.seal(other, other))
    first = case.keeper.size
    for more in ({}, {"subject": other.token}):
        answer = town.run(case.keeper.exchange.serve(asked(town, 1, 0, **more)))
        assert all(item.index < 3 for item in answer.items)
    everything = list(range(first))
    answer = town.run(case.keeper.exchange.serve(asked(town, 1, 0, wanted=everything)))
    assert {item.index for item in answer.items} == {0, 1, 2}
    answer = town.run(case.keeper.exchange.serve(asked(town, 2, 0)))
    assert {item.index for item in answer.items} > {3, 4, 5}


def test_one_subject_alone_can_be_asked_for(case, behind):
    other = case.town.subject()
    other.begin()
    case.keeper.keep(other)
    named, _, _ = pull(case.town, behind, case.keeper, subject=other.token)
    assert names(named) == [(3, "document"), (4, "consent")]
    nobody = case.town.subject()
    named, _, _ = pull(case.town, behind, case.keeper, subject=nobody.token)
    assert (named.items, named.next) == ([], case.keeper.size)


def test_an_answer_is_bounded_and_goes_on_where_it_left_off(case, monkeypatch):
    monkeypatch.setattr(exchange_module, "ITEMS_MAX", 2)
    case.treated()
    seen, since = [], 0
    while True:
        answer = case.town.run(case.keeper.exchange.serve(asked(case.town, 1, 0, since=since)))
        assert len(answer.items) <= 2
        seen += [item.index for item in answer.items]
        since = answer.next
        if answer.next >= answer.size:
            break
    assert seen == [0, 1, 2, 3]


def test_an_answers_bytes_are_bounded(case, monkeypatch):
    monkeypatch.setattr(exchange_module, "BYTES_MAX", 100)
    answer = case.town.run(case.keeper.exchange.serve(asked(case.town, 1, 0, wanted=[0, 1, 2])))
    assert len(answer.items) == 1
    assert answer.next == 1


def test_the_cursor_is_durable_and_makes_no_entry(case, behind):
    peer = case.keeper.token
    assert behind.exchange.cursor(peer) == 0
    size = behind.size
    case.town.run(behind.exchange.move_on(peer, 7))
    assert (behind.exchange.cursor(peer), behind.size) == (7, size)
    behind.restart()
    assert behind.exchange.cursor(peer) == 7
    case.town.run(behind.exchange.move_on(peer, 7))


def take(case, behind, *items):
    answer = SyncAnswer([SyncItem(at, kind, b"", data) for at, (kind, data) in enumerate(items)], 9, 9)
    return [(one.index, one.code) for one in case.town.run(behind.exchange.take(case.keeper.token, answer))]


def test_what_does_not_prove_itself_is_refused_and_named_and_the_rest_is_kept(case, behind):
    document = msgspec.msgpack.encode(case.subject.message)
    events = [("consent", encode_event_message(one)) for one in case.subject.events]
    submission = case.seal()
    flipped = bytearray(submission.ciphertexts[0])
    flipped[3] ^= 1
    bad = msgspec.structs.replace(submission, ciphertexts=[bytes(flipped)])
    refused = take(
        case,
        behind,
        ("document", b"\xc1"),
        ("document", document),
        ("consent", b""),
        ("nonsense", b""),
        *events,
        ("submission", encode_submission(bad)),
        ("submission", encode_submission(submission)),
        ("submission", b"\x90"),
    )
    assert refused == [
        (0, "not-msgpack"),
        (2, "bad-event-message"),
        (3, "unknown-type"),
        (6, "bad-ciphertext"),
        (8, "not-msgpack"),
    ]
    number = behind.custodian.people.subject(case.subject.token)
    assert len(behind.shelf.all_of(number)) == 1


def test_a_forged_document_or_event_of_a_peer_is_refused(case, behind):
    message = case.subject.message
    forged = msgspec.msgpack.encode(msgspec.structs.replace(message, document=message.document + b" "))
    assert take(case, behind, ("document", forged)) == [(0, "bad-document-hash")]
    take(case, behind, ("document", msgspec.msgpack.encode(message)))
    other = case.town.subject()
    other.begin()
    event = msgspec.structs.replace(case.subject.events[0], boxes=other.events[0].boxes)
    ((_, code),) = take(case, behind, ("consent", encode_event_message(event)))
    assert "box" in code
    assert behind.size == 1


def test_garbage_inside_an_event_is_refused_like_any_other(case, behind):
    """Whatever a peer sends, sync goes on: only an Error of the item, never a bug of the node."""
    for envelope in (b"{}", b"[]", b"{", b'{"payload":"e30","payloadType":"x","signatures":[]}', b"\xff"):
        event = msgspec.structs.replace(case.subject.events[0], envelope=envelope)
        ((index, code),) = take(case, behind, ("consent", encode_event_message(event)))
        assert index == 0
        assert code
    for payload in (b"{", b"[]", b"null", b'{"subject":5}', b"\xff"):
        event = msgspec.structs.replace(
            case.subject.events[0], envelope=encode(sign("application/x", payload, [case.subject.signer]))
        )
        ((_, code),) = take(case, behind, ("consent", encode_event_message(event)))
        assert code


def test_a_passing_failure_of_this_node_is_not_a_refusal_of_the_item(case, behind, monkeypatch):
    def failing(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(behind.store, "commit", failing)
    with pytest.raises(UnavailableError):
        take(case, behind, ("document", msgspec.msgpack.encode(case.subject.message)))


def test_what_is_known_is_not_asked_for_again(case, behind):
    case.treated()
    pull(case.town, behind, case.keeper)
    named = case.town.run(case.keeper.exchange.serve(asked(case.town, 1, 0)))
    assert behind.exchange.missing(named) == []
    strange = SyncAnswer([SyncItem(1, "submission", b"cl1x/zz", b""), SyncItem(2, "submission", b"\xff", b"")], 3, 3)
    assert behind.exchange.missing(strange) == [1, 2]


def test_a_document_is_handed_on_without_the_managers_part(case, behind):
    subject = case.town.subject()
    message = DocumentMessage(subject.token, subject.salt, subject.document, b"box", b"managed")
    case.town.run(case.keeper.documents.keep(message))
    _, answer, refused = pull(case.town, behind, case.keeper, subject=subject.token)
    assert refused == []
    (item,) = answer.items
    handed = msgspec.msgpack.decode(item.message, type=DocumentMessage)
    assert (handed.key_box, handed.managed) == (b"box", None)


def test_two_custodians_that_each_missed_something_end_up_the_same(case, behind):
    case.treated()
    pull(case.town, behind, case.keeper)
    behind.tell(case.subject, case.subject.grant(case.town.organisations[2]))
    case.keeper.accept(case.seal(("private",)))
    pull(case.town, behind, case.keeper)
    pull(case.town, case.keeper, behind)
    heads, records = set(), set()
    for keeper in (case.keeper, behind):
        number = keeper.custodian.people.subject(case.subject.token)
        heads.add(keeper.custodian.chains.state(number).head)
        records.add(tuple(sorted(row.record for row in keeper.shelf.all_of(number))))
    assert heads == {case.subject.state.head}
    assert len(records) == 1


def test_a_log_index_beyond_every_log_is_refused_or_empty(case):
    for since in (10**12, 2**53 - 1):
        answer = case.town.run(case.keeper.exchange.serve(asked(case.town, 1, 0, since=since)))
        assert answer.items == []
    answer = case.town.run(case.keeper.exchange.serve(asked(case.town, 1, 0, since=-5)))
    assert names(answer)[0] == (0, "document")
