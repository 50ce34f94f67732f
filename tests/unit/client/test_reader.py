"""Opening: t honest custodians suffice, the others are named, and nothing a custodian says is believed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from careledger.access import (
    decode_access_answer,
    decode_access_message,
    encode_access_answer,
    seal_answer,
)
from careledger.client.opening import Opened
from careledger.client.reader import Reader
from careledger.errors import Error, NotPermittedError, UnavailableError
from careledger.records import decode_view, encode_view
from careledger.seal import Envelope, SealingPublicKey, decode, envelope_message_id
from careledger.transport import Answer

Honest = Callable[[], Awaitable[Answer]]


def contents(opened: Opened) -> set[tuple[str, bytes]]:
    return {(one.full_url, one.data) for record in opened.records for one in record.resources}


def changed(change: Callable[[Any, Any], Any]) -> Callable[[str, bytes, Honest], Awaitable[Answer]]:
    """A custodian that changes what it answers to access requests: change(answer, message) -> answer."""

    async def fault(path: str, body: bytes, honest: Honest) -> Answer:
        answer = await honest()
        if path != "/v1/access" or answer.status != 200:
            return answer
        altered = change(decode_access_answer(answer.body), decode_access_message(body))
        return Answer(200, encode_access_answer(altered), answer.headers)

    return fault


def test_clinician_opens_the_exact_bytes_that_were_imported(treated: Any, make_bundle: Any) -> None:
    opened = treated.lab.run(treated.reader().open(treated.subject, treated.records, purpose="TREAT"))
    sent = {
        (entry["fullUrl"], bytes(entry["resource"]))
        for entry in msgspec.json.decode(make_bundle(), type=_Raw).entry_pairs()
    }
    assert contents(opened) == sent
    assert opened.failed == []
    assert opened.faults == {}
    assert len(opened.receipts) == 3


class _RawEntry(msgspec.Struct, rename="camel"):
    full_url: str
    resource: msgspec.Raw


class _Raw(msgspec.Struct):
    entry: list[_RawEntry]

    def entry_pairs(self) -> list[dict[str, Any]]:
        return [{"fullUrl": one.full_url, "resource": one.resource} for one in self.entry]


def test_asks_exactly_t_custodians_in_turn_and_one_of_them_for_the_content(treated: Any) -> None:
    lab, reader = treated.lab, treated.reader()
    lab.run(reader.grants(treated.subject))
    contents_asked: list[str] = []

    def watch(node: Any) -> Callable[[str, bytes, Honest], Awaitable[Answer]]:
        async def fault(path: str, body: bytes, honest: Honest) -> Answer:
            if decode_access_message(body).content:
                contents_asked.append(node.token)
            return await honest()

        return fault

    asked = []
    for _ in range(4):
        lab.heal()
        for node in lab.nodes:
            node.fault = watch(node)
        lab.run(reader.open(treated.subject, treated.records[:1], purpose="TREAT"))
        asked.append(tuple(node.asked.count("/v1/access") for node in lab.nodes))
    assert all(sum(counts) == 3 for counts in asked)
    assert len(set(asked)) == 4, "every custodian is left out once"
    assert sorted(contents_asked) == sorted(node.token for node in lab.nodes)


def test_asks_all_where_the_subject_wants_it(treated: Any) -> None:
    reader = treated.reader()
    reader.ask_all = True
    treated.lab.run(reader.grants(treated.subject))
    treated.lab.heal()
    treated.lab.run(reader.open(treated.subject, treated.records[:1], purpose="TREAT"))
    assert all("/v1/access" in node.asked for node in treated.lab.nodes)


def test_each_open_has_a_fresh_key_and_nonce(treated: Any) -> None:
    bodies: list[bytes] = []

    async def watch(path: str, body: bytes, honest: Honest) -> Answer:
        if path == "/v1/access":
            bodies.append(body)
        return await honest()

    for node in treated.lab.nodes:
        node.fault = watch
    reader = treated.reader()
    for _ in range(2):
        treated.lab.run(reader.open(treated.subject, treated.records[:1], purpose="TREAT"))
    messages = [decode_access_message(body) for body in bodies]
    assert len({one.key for one in messages}) == 2
    assert len({one.request for one in messages}) == 2


@pytest.mark.parametrize("kind", ["dead", "silent", "garbage"])
@pytest.mark.parametrize("place", range(4))
def test_one_useless_custodian_of_four_does_not_stop_a_read(treated: Any, faults: Any, kind: str, place: int) -> None:
    reader = treated.reader()
    treated.lab.run(reader.grants(treated.subject))
    treated.lab.nodes[place].fault = faults[kind]
    for _ in range(4):  # whichever three are asked first
        opened = treated.lab.run(reader.open(treated.subject, treated.records, purpose="TREAT"))
        assert len(opened.records) == len(treated.records)
        assert set(opened.faults) <= {treated.lab.nodes[place].token}


@pytest.mark.parametrize("kind", ["dead", "garbage", "silent"])
@pytest.mark.parametrize("turns", range(4))
def test_a_denial_is_what_is_said_also_when_one_custodian_is_useless(
    lab: Any, make_treated: Any, faults: Any, kind: str, turns: int
) -> None:
    """The first denial makes the read impossible; whether it is one liar's or everybody's, the others tell."""
    treated = make_treated()
    reader = treated.reader()
    lab.run(reader.grants(treated.subject))
    lab.run(treated.patient.revoke(treated.grant))
    for _ in range(turns):
        reader.pace.order([], 0.0)  # whoever is asked first
    lab.nodes[2].fault = faults[kind]
    for ask in (
        lambda: reader.open(treated.subject, treated.records, purpose="TREAT"),
        lambda: _listed(reader, treated),
    ):
        with pytest.raises(NotPermittedError) as refused:
            lab.run(ask())
        assert refused.value.code == "revoked"


async def _listed(reader: Any, treated: Any) -> Any:
    return await reader.list(treated.subject, purpose="TREAT")


def test_two_of_four_down_fails_and_says_which_and_why(treated: Any, faults: Any) -> None:
    reader = treated.reader()
    treated.lab.run(reader.grants(treated.subject))
    treated.lab.nodes[1].fault, treated.lab.nodes[3].fault = faults["dead"], faults["garbage"]
    with pytest.raises(UnavailableError) as refused:
        treated.lab.run(reader.open(treated.subject, treated.records, purpose="TREAT"))
    assert refused.value.code == "not-enough-custodians"
    assert refused.value.details["nodes"] == {
        treated.lab.nodes[1].token: "unreachable",
        treated.lab.nodes[3].token: "garbage-answer",
    }
    assert "2 of 4 custodians can release their share, 3 are needed" in refused.value.message


def false_share(answer: Any, message: Any) -> Any:
    """Seal false shares, correctly in every other way, under the x of the first custodian, which is to be blamed."""
    request = decode(message.request, Envelope)
    entry = msgspec.json.decode(answer.receipt.body)
    shares = [(bytes.fromhex(record), bytes(32) + b"\x01") for record in _records(message)]
    sealed = seal_answer(
        shares,
        key=SealingPublicKey(message.key),
        network=entry["network"],
        request=envelope_message_id(request),
        node=entry["node"],
        index=entry["index"],
    )
    return msgspec.structs.replace(answer, sealed=sealed)


def _records(message: Any) -> list[str]:
    from careledger.seal import unb64

    payload = unb64(decode(message.request, Envelope).payload)
    records: list[str] = msgspec.json.decode(payload)["records"]
    return records


def other_request(seen: dict[str, Any]) -> Callable[[Any, Any], Any]:
    def change(answer: Any, message: Any) -> Any:
        old = seen.setdefault("receipt", answer.receipt)
        return msgspec.structs.replace(answer, receipt=old)

    return change


def no_entry(answer: Any, message: Any) -> Any:
    body = answer.receipt.body.replace(b'"kind":"access"', b'"kind":"keep"')
    return msgspec.structs.replace(answer, receipt=msgspec.structs.replace(answer.receipt, body=body))


def log_says_deny(answer: Any, message: Any) -> Any:
    return msgspec.structs.replace(answer, denied="no-grant")


def no_shares(answer: Any, message: Any) -> Any:
    return msgspec.structs.replace(answer, sealed=b"")


def shares_missing(answer: Any, message: Any) -> Any:
    entry = msgspec.json.decode(answer.receipt.body)
    sealed = seal_answer(
        [],
        key=SealingPublicKey(message.key),
        network=entry["network"],
        request=envelope_message_id(decode(message.request, Envelope)),
        node=entry["node"],
        index=entry["index"],
    )
    return msgspec.structs.replace(answer, sealed=sealed)


def sealed_for_another_entry(answer: Any, message: Any) -> Any:
    entry = msgspec.json.decode(answer.receipt.body)
    shares = [(bytes.fromhex(record), bytes(33)) for record in _records(message)]
    sealed = seal_answer(
        shares,
        key=SealingPublicKey(message.key),
        network=entry["network"],
        request=envelope_message_id(decode(message.request, Envelope)),
        node=entry["node"],
        index=entry["index"] + 1,
    )
    return msgspec.structs.replace(answer, sealed=sealed)


def unsigned_checkpoint(answer: Any, message: Any) -> Any:
    head, gap, note = answer.receipt.proof.partition(b"\n\n")
    text, _, line = note.rpartition("— ".encode())
    name, _, signature = line.strip().partition(b" ")
    forged = text + "— ".encode() + name + b" " + signature[:-8] + b"AAAAAAA=\n"
    receipt = msgspec.structs.replace(answer.receipt, proof=head + gap + forged)
    return msgspec.structs.replace(answer, receipt=receipt)


LIES = {
    "bad-share": false_share,
    "wrong-decision": log_says_deny,
    "missing-share": shares_missing,
    "not-openable": sealed_for_another_entry,
}


@pytest.mark.parametrize("code", sorted(LIES))
def test_a_lying_custodian_is_named_and_the_read_succeeds(treated: Any, code: str) -> None:
    liar = treated.lab.nodes[2]
    liar.fault = changed(LIES[code])
    reader = treated.reader()
    named = set()
    for _ in range(4):
        opened = treated.lab.run(reader.open(treated.subject, treated.records, purpose="TREAT"))
        assert len(opened.records) == len(treated.records)
        named |= {(node, error.code) for node, error in opened.faults.items()}
    assert named == {(liar.token, code)}


def test_a_custodian_with_anothers_true_share_is_the_one_that_is_named(treated: Any) -> None:
    """Two that collude could else have the honest one called a liar: its own share would be there already."""
    lab = treated.lab
    honest, liar = lab.nodes[1], lab.nodes[0]

    def stolen(answer: Any, message: Any) -> Any:
        custodian, shelf = honest.custodian, honest.api._release.shelf
        rows = shelf.rows(custodian.people.subject(treated.subject), _records(message))
        entry = msgspec.json.decode(answer.receipt.body)
        sealed = seal_answer(
            [(row.record_id, shelf.share(row)) for row in rows],
            key=SealingPublicKey(message.key),
            network=entry["network"],
            request=envelope_message_id(decode(message.request, Envelope)),
            node=entry["node"],
            index=entry["index"],
        )
        return msgspec.structs.replace(answer, sealed=sealed)

    liar.fault = changed(stolen)
    reader = treated.reader()
    reader.ask_all = True
    for _ in range(4):
        opened = lab.run(reader.open(treated.subject, treated.records, purpose="TREAT"))
        assert len(opened.records) == len(treated.records)
        assert {node: error.code for node, error in opened.faults.items()} in ({liar.token: "bad-share"}, {})


@pytest.mark.parametrize("lie", [no_entry, no_shares, unsigned_checkpoint])
def test_an_answer_without_a_proven_log_entry_is_worth_nothing(treated: Any, lie: Any) -> None:
    liar = treated.lab.nodes[0]
    liar.fault = changed(lie)
    reader = treated.reader()
    named = set()
    for _ in range(4):
        opened = treated.lab.run(reader.open(treated.subject, treated.records, purpose="TREAT"))
        named |= set(opened.faults)
        assert liar.token not in opened.receipts
    assert named == {liar.token}


def test_a_receipt_of_an_earlier_request_is_not_taken_for_this_one(treated: Any) -> None:
    liar = treated.lab.nodes[1]
    liar.fault = changed(other_request({}))
    reader = treated.reader()
    codes = set()
    for _ in range(8):
        opened = treated.lab.run(reader.open(treated.subject, treated.records, purpose="TREAT"))
        codes |= {error.code for error in opened.faults.values()}
    assert codes == {"wrong-request"}


def other_ciphertext(answer: Any, message: Any) -> Any:
    views = []
    for data in answer.submissions:
        view = decode_view(data)
        records = [
            msgspec.structs.replace(one, ciphertext=one.ciphertext[:-1] + bytes([one.ciphertext[-1] ^ 1]))
            for one in view.records
        ]
        views.append(encode_view(msgspec.structs.replace(view, records=records)))
    return msgspec.structs.replace(answer, submissions=views)


def fewer_records(answer: Any, message: Any) -> Any:
    views = [decode_view(data) for data in answer.submissions]
    return msgspec.structs.replace(
        answer, submissions=[encode_view(msgspec.structs.replace(view, records=view.records[:1])) for view in views]
    )


def no_content(answer: Any, message: Any) -> Any:
    return msgspec.structs.replace(answer, submissions=[])


@pytest.mark.parametrize(
    ("lie", "code"),
    [(other_ciphertext, "bad-ciphertext"), (fewer_records, "missing-content"), (no_content, None)],
)
def test_content_that_does_not_prove_itself_is_had_from_another(treated: Any, lie: Any, code: str | None) -> None:
    liar = treated.lab.nodes[3]
    liar.fault = changed(lie)
    reader = treated.reader()
    codes = set()
    for _ in range(4):
        opened = treated.lab.run(reader.open(treated.subject, treated.records, purpose="TREAT"))
        assert len(opened.records) == len(treated.records)
        codes |= {error.code for error in opened.faults.values()}
    assert codes == ({code} if code else set())


def test_content_is_had_from_another_when_its_custodian_sleeps(treated: Any, faults: Any) -> None:
    reader = treated.reader()
    treated.lab.run(reader.grants(treated.subject))

    async def sleeps_over_content(path: str, body: bytes, honest: Honest) -> Answer:
        if decode_access_message(body).content:
            return await faults["silent"](path, body, honest)
        return await honest()

    treated.lab.nodes[0].fault = sleeps_over_content
    for _ in range(4):
        opened = treated.lab.run(reader.open(treated.subject, treated.records, purpose="TREAT"))
        assert len(opened.records) == len(treated.records)


def test_without_a_grant_the_custodians_reason_is_the_error(lab: Any, treated: Any) -> None:
    keys, staff = lab.run(lab.clinician(2))
    with pytest.raises(NotPermittedError) as refused:
        lab.run(Reader(lab.network, keys, staff=staff).open(treated.subject, treated.records, purpose="TREAT"))
    assert refused.value.code == "no-grant"


def test_another_purpose_than_the_granted_one_is_refused(treated: Any) -> None:
    with pytest.raises(NotPermittedError) as refused:
        treated.lab.run(treated.reader().open(treated.subject, treated.records, purpose="HMARKT"))
    assert refused.value.code == "wrong-purpose"


def test_one_false_denial_does_not_pass_for_the_custodians_reason(treated: Any) -> None:
    """n = 4 has f = 1: one custodian that denies alone is outvoted, not believed."""

    async def denies(path: str, body: bytes, honest: Honest) -> Answer:
        refusal = {"code": "no-grant", "message": "no", "details": {}, "time": treated.lab.clock.ms}
        return Answer(403, msgspec.json.encode(refusal), {"content-type": "application/json"})

    reader = treated.reader()
    treated.lab.run(reader.grants(treated.subject))
    treated.lab.nodes[0].fault = denies
    opened = treated.lab.run(reader.open(treated.subject, treated.records, purpose="TREAT"))
    assert len(opened.records) == len(treated.records)


def test_one_denial_beside_dead_custodians_is_not_the_networks_answer(treated: Any, faults: Any) -> None:
    async def denies(path: str, body: bytes, honest: Honest) -> Answer:
        refusal = {"code": "no-grant", "message": "no", "details": {}, "time": treated.lab.clock.ms}
        return Answer(403, msgspec.json.encode(refusal), {"content-type": "application/json"})

    reader = treated.reader()
    treated.lab.run(reader.grants(treated.subject))
    treated.lab.nodes[0].fault, treated.lab.nodes[1].fault = denies, faults["dead"]
    with pytest.raises(UnavailableError) as refused:
        treated.lab.run(reader.open(treated.subject, treated.records, purpose="TREAT"))
    assert refused.value.code == "not-enough-custodians"
    assert set(refused.value.details["nodes"].values()) == {"no-grant", "unreachable"}


def test_clock_off_by_an_hour_says_by_how_much(treated: Any) -> None:
    reader = treated.reader()
    treated.lab.run(reader.grants(treated.subject))
    for node in treated.lab.nodes:
        node.off_ms = 3_600_000
    with pytest.raises(UnavailableError) as refused:
        treated.lab.run(reader.open(treated.subject, treated.records, purpose="TREAT"))
    assert refused.value.code == "clock-off"
    assert "clock is 60 minutes behind" in refused.value.message


def test_affiliation_is_sent_once_to_each_custodian_and_again_when_it_forgot(treated: Any) -> None:
    lab, reader = treated.lab, treated.reader()
    sent: list[bool] = []

    async def watch(path: str, body: bytes, honest: Honest) -> Answer:
        if path == "/v1/access":
            sent.append(decode_access_message(body).affiliation is not None)
        return await honest()

    for node in lab.nodes:
        node.fault = watch
    reader.ask_all = True
    for _ in range(2):
        lab.run(reader.open(treated.subject, treated.records[:1], purpose="TREAT"))
    assert True not in sent[4:], "four custodians have it now"
    for node in lab.nodes:
        node.api._release.affiliations.clear()
    sent.clear()
    lab.run(reader.open(treated.subject, treated.records[:1], purpose="TREAT"))
    assert sent.count(True) >= 3


def test_lists_what_the_grant_covers_whatever_one_custodian_hides(treated: Any) -> None:
    async def hides(path: str, body: bytes, honest: Honest) -> Answer:
        answer = await honest()
        if path != "/v1/access":
            return answer
        shown = msgspec.structs.replace(decode_access_answer(answer.body), listed=[])
        return Answer(200, encode_access_answer(shown), answer.headers)

    treated.lab.nodes[1].fault = hides
    reader = treated.reader()
    for _ in range(4):
        listing = treated.lab.run(reader.list(treated.subject, purpose="TREAT"))
        assert {one.record for one in listing.manifests} == {record.hex() for record in treated.records}


def test_errors_are_one_line_with_a_code(treated: Any) -> None:
    reader = treated.reader()
    with pytest.raises(Error) as refused:
        treated.lab.run(reader.open(treated.subject, [bytes(16)], purpose="TREAT"))
    assert refused.value.code == "out-of-scope"
    assert "\n" not in refused.value.message


def test_a_joint_grant_needs_its_approvals(lab: Any, make_treated: Any) -> None:
    treated = make_treated()
    colleague = lab.run(lab.person())
    keys = lab.run(lab.person())
    lab.run(
        treated.patient.grant(
            keys.token,
            categories=["about", "results", "visits", "conditions", "private"],
            expires_ms=lab.expires(),
            joint=(1, [colleague.token]),
        )
    )
    reader = Reader(lab.network, keys)
    request = lab.run(reader.request(treated.subject, treated.records, purpose="TREAT"))
    with pytest.raises(NotPermittedError) as refused:
        lab.run(reader.open_asked(request))
    assert refused.value.code == "not-enough-approvals"
    request = lab.run(reader.request(treated.subject, treated.records, purpose="TREAT"))
    approval = Reader(lab.network, colleague).approve(request.id.hex(), treated.subject)
    opened = lab.run(reader.open_asked(request, approvals=[approval]))
    assert len(opened.records) == len(treated.records)
