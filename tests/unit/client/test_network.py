"""Looking up: nothing about whose key is whose rests on the word of a node, or of fewer than two thirds of members."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from careledger.client import (
    Author,
    MemoryState,
    Network,
    Reader,
    enrol_patient,
    network_file,
    parse_network_file,
    rotate,
)
from careledger.client.nodes import NetworkFile
from careledger.errors import Error, NotFoundError, UnavailableError, VerificationError
from careledger.seal import decode, encode
from careledger.transport import Answer


def test_network_file_round_trips_with_addresses(lab: Any) -> None:
    token = lab.nodes[0].token
    data = network_file(lab.genesis, {token: "http://elsewhere.example/"})
    file, genesis = parse_network_file(data)
    assert genesis == lab.genesis
    network = Network.from_file(data, wire=lab.wire, now_ms=lab.clock, rand=bytes)
    assert network.nodes[token].url == "http://elsewhere.example"
    assert network.nodes[lab.nodes[1].token].url == lab.nodes[1].url
    assert file.network == network.id == lab.id


def test_network_file_with_another_genesis_is_refused(lab: Any) -> None:
    file = decode(network_file(lab.genesis), NetworkFile, size_max=1 << 21)
    with pytest.raises(VerificationError) as refused:
        parse_network_file(encode(msgspec.structs.replace(file, network="00" * 32)))
    assert refused.value.code == "wrong-network"


def test_identity_is_replayed_and_proven(lab: Any) -> None:
    patient = lab.run(lab.patient())
    identity = lab.run(lab.new_network().identity(patient.subject))
    assert identity.keys_at(0)[0].pub != ""
    assert identity.keyid == patient.keys.keyid
    assert identity.state == lab.engine.directory.identity(patient.subject)


def test_unknown_identity_and_malformed_token(lab: Any) -> None:
    from careledger.identity import new_person

    stranger = new_person(custodians=(), rand=lab.network.rand).token
    with pytest.raises(NotFoundError) as refused:
        lab.run(lab.network.identity(stranger))
    assert refused.value.code == "unknown-identity"
    with pytest.raises(Error) as bad:
        lab.run(lab.network.identity("cl1nonsense"))
    assert bad.value.code == "bad-token"


def other_operations(token: str, other: Any) -> Any:
    async def fault(path: str, body: bytes, honest: Any) -> Answer:
        if path == f"/v1/directory/identity/{token}":
            return Answer(200, other, {"content-type": "application/json"})
        return await honest()

    return fault


def test_operations_of_somebody_else_are_refused(lab: Any) -> None:
    patient, stranger = lab.run(lab.patient()), lab.run(lab.person())
    shown = msgspec.json.encode(
        {
            "state": lab.engine.directory.identity(stranger.token),
            "operations": lab.engine.operations(stranger.token),
        }
    )
    for node in lab.nodes:
        node.fault = other_operations(patient.subject, shown)
    with pytest.raises(VerificationError) as refused:
        lab.run(lab.new_network().identity(patient.subject))
    assert refused.value.code == "wrong-identity"


def test_operations_that_lack_the_newest_are_not_the_newest_keys(
    lab: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """A thief of old keys and a node that helps it: the proof knows of the rotation that the node leaves out."""
    monkeypatch.setattr("careledger.client.network._AGREE_PAUSE_S", 0.0)
    made, _ = lab.run(enrol_patient(lab.network, tmp_path / "p", passphrase="x"))
    old = msgspec.json.encode(
        {"state": lab.engine.directory.identity(made.token), "operations": lab.engine.operations(made.token)}
    )
    lab.run(rotate(lab.network, made.folder, kit=made.kit, passphrase="x"))
    for node in lab.nodes:
        node.fault = other_operations(made.token, old)
    with pytest.raises(VerificationError) as refused:
        lab.run(lab.new_network().identity(made.token))
    assert refused.value.code == "stale-directory"


def test_cosignatures_of_several_nodes_are_put_together(lab: Any) -> None:
    """No node's note alone has enough of them; the sequencer is not even needed for it."""
    patient = lab.run(lab.patient())

    async def no_proofs(path: str, body: bytes, honest: Any) -> Answer:
        if path.startswith("/v1/directory/proof/"):
            raise UnavailableError("unreachable", "the node cannot be reached; try again later")
        return await honest()

    lab.nodes[0].fault = no_proofs
    assert lab.run(lab.new_network().identity(patient.subject)).token == patient.subject


def test_without_two_thirds_of_the_members_cosignatures_nothing_is_proven(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("careledger.client.nodes._PROOF_PAUSE_S", 0.0)
    patient = lab.run(lab.patient())
    lab.withhold_cosignatures = True
    with pytest.raises(UnavailableError) as refused:
        lab.run(lab.new_network().identity(patient.subject))
    assert refused.value.code == "not-enough-cosignatures"


def test_a_head_older_than_a_day_is_not_believed(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("careledger.client.nodes._PROOF_PAUSE_S", 0.0)
    patient = lab.run(lab.patient())
    lab.run(lab.new_network().identity(patient.subject))
    now = lab.clock.ms
    try:
        lab.clock.ms += 3_600_000  # an hour without a block: care goes on
        lab.run(lab.new_network().identity(patient.subject))
        lab.clock.ms += 25 * 3_600_000
        with pytest.raises(UnavailableError) as refused:
            lab.run(lab.new_network().identity(patient.subject))
    finally:
        lab.clock.ms = now
    assert "stale-directory" in refused.value.message


def test_many_who_ask_at_once_make_one_look_up(lab: Any) -> None:
    patient = lab.run(lab.patient())
    network = lab.new_network()

    async def ask() -> list[str]:
        found = await asyncio.gather(*(network.identity(patient.subject) for _ in range(8)))
        return [one.token for one in found]

    lab.heal()
    assert lab.run(ask()) == [patient.subject] * 8
    paths = [path for node in lab.nodes for path in node.asked]
    assert paths.count(f"/v1/directory/identity/{patient.subject}") == 1


def test_a_state_that_was_changed_is_not_proven(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("careledger.client.nodes._PROOF_PAUSE_S", 0.0)
    patient = lab.run(lab.patient())

    async def lies(path: str, body: bytes, honest: Any) -> Answer:
        answer = await honest()
        if not path.startswith("/v1/directory/proof/identity"):
            return answer
        return Answer(200, answer.body.replace(b'\\"active\\"', b'\\"deactivated\\"'), answer.headers)

    for node in lab.nodes:
        node.fault = lies
    with pytest.raises(Error) as refused:
        lab.run(lab.new_network().identity(patient.subject))
    assert refused.value.code in ("directory-unreachable", "bad-map-proof")


def test_a_false_document_is_refused_and_had_from_another(lab: Any) -> None:
    patient = lab.run(lab.patient())
    other = lab.run(lab.patient(n=3))

    async def lies(path: str, body: bytes, honest: Any) -> Answer:
        answer = await honest()
        if path == f"/v1/document/{patient.subject}":
            token, *_ = msgspec.msgpack.decode(answer.body)
            stolen = await lab.wire.get(lab.nodes[2].url, f"/v1/document/{other.subject}")
            _, salt, document, box, managed = msgspec.msgpack.decode(stolen.body)
            return Answer(200, msgspec.msgpack.encode([token, salt, document, box, managed]), answer.headers)
        return answer

    for node in (lab.nodes[0], lab.nodes[1], lab.nodes[3]):
        node.fault = lies
    who = lab.run(lab.new_network().subject(patient.subject))
    assert [node.token for node in who.custodians] == [node.token for node in lab.nodes]


def test_a_refused_transaction_has_the_directorys_code(lab: Any) -> None:
    organisation = lab.run(lab.organisation(0))
    with pytest.raises(VerificationError) as refused:
        lab.run(
            organisation.license(
                "cl1" + "q" * 46, role="physician", until_ms=lab.clock.ms + 1000, prev="00" * 32, licence="11" * 16
            )
        )
    assert refused.value.code != ""
    assert "\n" not in refused.value.message


def test_what_follows_from_a_block_that_the_asked_node_lacks_is_put_again(lab: Any) -> None:
    asked = 0

    async def behind(path: str, body: bytes, honest: Any) -> Answer:
        nonlocal asked
        if path != "/v1/directory/transaction":
            return await honest()
        asked += 1
        if asked < 3:
            refused = {"results": [{"code": "unknown-identity", "message": "not yet"}], "height": 0}
            return Answer(200, msgspec.json.encode(refused), {"content-type": "application/json"})
        return await honest()

    for node in lab.nodes:
        node.fault = behind
    patient = lab.run(lab.patient())
    assert asked >= 3
    assert lab.engine.directory.identity(patient.subject) is not None


def test_no_node_at_all_is_one_line(lab: Any, faults: Any) -> None:
    network = lab.new_network()
    for node in lab.nodes:
        node.fault = faults["dead"]
    with pytest.raises(UnavailableError) as refused:
        lab.run(network.identity(lab.organisations[0].token))
    assert refused.value.code == "directory-unreachable"


@pytest.mark.parametrize("place", range(4))
def test_a_node_that_hangs_holds_nobody_up(lab: Any, make_treated: Any, faults: Any, place: int) -> None:
    """Its answer never comes: whatever is asked first of one node is asked of another before long."""
    treated = make_treated()
    lab.nodes[place].fault = faults["silent"]

    async def first_contact() -> int:
        network = lab.new_network()
        async with asyncio.timeout(20):
            await network.identity(treated.subject)
            await network.subject(treated.subject)
            reader = Reader(network, treated.keys, staff=treated.staff)
            opened = await reader.open(treated.subject, treated.records, purpose="TREAT")
            await Author(network, treated.keys, state=MemoryState(), staff=treated.staff).places(treated.subject)
        return len(opened.records)

    assert lab.run(first_contact()) == len(treated.records)
