"""The trail: merged over all custodians, complete only when all of them proved theirs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from careledger.client import MemoryState, audit, cosigners_needed
from careledger.errors import NotPermittedError
from careledger.transport import Answer


@pytest.mark.parametrize(("members", "others"), [(1, 0), (2, 1), (3, 2), (4, 2), (7, 4), (16, 10)])
def test_cosigners_needed_with_the_logs_own_member_are_more_than_two_thirds(members: int, others: int) -> None:
    assert cosigners_needed(members) == others
    assert 3 * (others + 1) > 2 * members


def trail(lab: Any, treated: Any, state: Any = None) -> Any:
    return lab.run(audit(lab.network, treated.patient.keys, state=state or MemoryState()))


def test_one_read_seen_by_three_custodians_is_one_access(lab: Any, make_treated: Any) -> None:
    treated = make_treated()
    opened = lab.run(treated.reader().open(treated.subject, treated.records, purpose="TREAT"))
    found = trail(lab, treated)
    assert found.complete
    assert found.missing == {}
    (access,) = [one for one in found.accesses if one.request == opened.request]
    assert set(access.nodes) == set(opened.receipts)
    assert access.reader == treated.keys.token
    assert access.organisation == treated.staff.organisation
    assert access.grant == treated.grant
    assert access.records == [record.hex() for record in treated.records]
    assert access.allowed


def test_denied_requests_are_in_the_trail(lab: Any, make_treated: Any) -> None:
    treated = make_treated()
    keys, staff = lab.run(lab.clinician(2))
    from careledger.client import Reader

    with pytest.raises(NotPermittedError):
        lab.run(Reader(lab.network, keys, staff=staff).open(treated.subject, treated.records, purpose="TREAT"))
    (access,) = [one for one in trail(lab, treated).accesses if one.reader == keys.token]
    assert not access.allowed
    assert {reason for _, _, reason in access.nodes.values()} == {"no-grant"}


def test_a_custodian_that_hides_a_read_hides_it_in_its_own_log_only(lab: Any, make_treated: Any) -> None:
    treated = make_treated()
    opened = lab.run(treated.reader().open(treated.subject, treated.records, purpose="TREAT"))

    async def hides(path: str, body: bytes, honest: Any) -> Answer:
        answer = await honest()
        if path != "/v1/audit":
            return answer
        checkpoint, _, more = msgspec.msgpack.decode(answer.body)
        return Answer(200, msgspec.msgpack.encode([checkpoint, [], more]), answer.headers)

    liars = [node for node in lab.nodes if node.token in opened.receipts][:2]  # t − 1 of them
    for node in liars:
        node.fault = hides
    found = trail(lab, treated)
    assert opened.request in {one.request for one in found.accesses}


def test_a_silent_custodian_is_missing_and_the_trail_not_complete(lab: Any, make_treated: Any, faults: Any) -> None:
    treated = make_treated()
    lab.nodes[2].fault = faults["dead"]
    found = trail(lab, treated)
    assert not found.complete
    assert {node: error.code for node, error in found.missing.items()} == {lab.nodes[2].token: "unreachable"}


def test_a_checkpoint_without_enough_cosignatures_does_not_count(
    lab: Any, make_treated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("careledger.client.trail._COSIGNED_WITHIN_S", 0.0)
    treated = make_treated()
    node = lab.nodes[1]
    publish = node.publish
    monkeypatch.setattr(node, "publish", lambda witnesses: publish(witnesses[:1]))
    found = trail(lab, treated)
    assert not found.complete
    assert found.missing[node.token].code == "not-enough-cosignatures"


def test_a_body_that_was_changed_is_not_believed(lab: Any, make_treated: Any) -> None:
    treated = make_treated()
    lab.run(treated.reader().open(treated.subject, treated.records, purpose="TREAT"))

    async def rewrites(path: str, body: bytes, honest: Any) -> Answer:
        answer = await honest()
        if path != "/v1/audit":
            return answer
        checkpoint, entries, more = msgspec.msgpack.decode(answer.body)
        for entry in entries:
            entry[2] = entry[2].replace(b'"decision":"allow"', b'"decision":"deny"')
        return Answer(200, msgspec.msgpack.encode([checkpoint, entries, more]), answer.headers)

    lab.nodes[0].fault = rewrites
    reader = treated.reader()
    reader.ask_all = True
    lab.run(reader.open(treated.subject, treated.records, purpose="TREAT"))
    found = trail(lab, treated)
    assert found.missing[lab.nodes[0].token].code == "bad-proof"


def test_a_log_that_got_shorter_since_the_last_audit_is_named(lab: Any, make_treated: Any) -> None:
    treated = make_treated()
    state = MemoryState()
    trail(lab, treated, state)
    old: list[bytes] = []

    async def remembers(path: str, body: bytes, honest: Any) -> Answer:
        answer = await honest()
        if path == "/v1/audit":
            old.append(answer.body)
        return answer

    lab.nodes[0].fault = remembers
    trail(lab, treated, MemoryState())
    lab.heal()
    reader = treated.reader()
    reader.ask_all = True
    lab.run(reader.open(treated.subject, treated.records, purpose="TREAT"))
    trail(lab, treated, state)

    async def rolls_back(path: str, body: bytes, honest: Any) -> Answer:
        answer = await honest()
        return Answer(200, old[0], answer.headers) if path == "/v1/audit" else answer

    lab.nodes[0].fault = rolls_back
    found = trail(lab, treated, state)
    assert found.missing[lab.nodes[0].token].code == "rolled-back"
    assert "rolled back or forked" in found.missing[lab.nodes[0].token].message


def test_pages_are_put_together(lab: Any, make_treated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("careledger.custody.reading.AUDIT_ENTRIES_MAX", 3)
    treated = make_treated()
    reader = treated.reader()
    reader.ask_all = True
    for _ in range(8):
        lab.run(reader.open(treated.subject, treated.records[:1], purpose="TREAT"))
    found = trail(lab, treated)
    assert found.complete
    assert sum(len(one.nodes) == 4 for one in found.accesses) == 8


def test_a_read_that_a_custodian_made_up_is_not_shown_as_somebodys(lab: Any, make_treated: Any) -> None:
    """The entry is in its log and cosigned; but no reader signed the request."""
    treated = make_treated()
    lab.run(treated.reader().open(treated.subject, treated.records, purpose="TREAT"))
    node = next(node for node in lab.nodes if node.custodian.store.main.execute(_ACCESS).fetchone())
    _, salt, body = node.custodian.store.main.execute(_ACCESS).fetchone()

    async def makes_up(path: str, data: bytes, honest: Any) -> Answer:
        answer = await honest()
        if path != "/v1/audit":
            return answer
        return Answer(200, other_log(), answer.headers)

    def other_log() -> bytes:
        """A log of one entry, signed with the node's own key and cosigned by the others, who see leaves only."""
        from careledger.access import EntryBody, leaf
        from careledger.seal import b64, decode, encode, unb64
        from careledger.tlog import Checkpoint, cosign, leaf_hash, root_of, sign_checkpoint

        entry = decode(body, EntryBody)
        envelope = entry.envelopes[0]
        signature = bytearray(unb64(envelope.signatures[0].sig))
        signature[0] ^= 1
        broken = msgspec.structs.replace(
            envelope, signatures=[msgspec.structs.replace(envelope.signatures[0], sig=b64(bytes(signature)))]
        )
        forged = encode(msgspec.structs.replace(entry, index=0, envelopes=[broken]))
        root = root_of([leaf_hash(leaf("access", salt, forged))])
        note = sign_checkpoint(Checkpoint(node.log_signer.name, 1, root), signer=node.log_signer)
        text = note[: note.index(b"\n\n") + 1]
        for other in lab.nodes:
            if other is not node:
                note += cosign(text, signer=other.cosigner, now_s=1_790_000_000)
        return msgspec.msgpack.encode([note, [[0, salt, forged, []]], False])

    node.fault = makes_up
    found = trail(lab, treated)
    assert found.missing[node.token].code == "bad-signature"
    assert not found.complete


_ACCESS = "SELECT idx, salt, body FROM entries WHERE kind = 1 ORDER BY idx DESC LIMIT 1"
