"""Identities through their life: enrolled, rotated, ended, managed by a provider and claimed from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from careledger.client import (
    KeyFolder,
    Manager,
    MemoryState,
    Owner,
    Patient,
    audit,
    choose_custodians,
    claim,
    deactivate,
    enrol_patient,
    keep_organisation,
    make_organisation,
    publish_organisation,
    rotate,
)
from careledger.client.reader import Reader
from careledger.errors import Error, NotFoundError, NotPermittedError, UnavailableError, VerificationError
from careledger.identity import kit_code
from careledger.transport import Answer

PASSPHRASE = "correct horse battery"


@pytest.fixture
def enrolled(lab: Any, tmp_path: Path) -> Any:
    return lab.run(enrol_patient(lab.network, tmp_path / "patient", passphrase=PASSPHRASE))


def test_enrolment_leaves_a_folder_a_kit_and_sixteen_compartments_everywhere(lab: Any, enrolled: Any) -> None:
    made, patient = enrolled
    assert made.kit.startswith("clkit1")
    assert len(patient.chain.state.compartments) == 16
    for node in lab.nodes:
        state = node.custodian.chains.state(node.custodian.people.subject(made.token))
        assert state.head == patient.chain.state.head
    written = b"".join(file.read_bytes() for file in made.folder.path.rglob("*") if file.is_file())
    assert made.kit.encode() not in written


def test_custodians_are_of_distinct_members_and_chosen_at_random(lab: Any) -> None:
    chosen = [tuple(choose_custodians(lab.network)) for _ in range(12)]
    assert all(len({lab.network.nodes[token].member for token in one}) == 4 for one in chosen)
    assert len(set(chosen)) > 1
    with pytest.raises(UnavailableError) as refused:
        choose_custodians(lab.network, n=5)
    assert refused.value.code == "not-enough-custodians"


def test_enrolment_waits_for_nodes_that_lag_a_block_behind(lab: Any, tmp_path: Path) -> None:
    lagging = {"times": 3}

    async def lags(path: str, body: bytes, honest: Any) -> Answer:
        if path == "/v1/document" and lagging["times"]:
            lagging["times"] -= 1
            body = b'{"code":"unknown-identity","message":"not yet","details":{},"time":0}'
            return Answer(403, body, {"content-type": "application/json"})
        return await honest()

    lab.nodes[0].fault = lags
    lab.run(enrol_patient(lab.network, tmp_path / "p", passphrase=PASSPHRASE))
    assert lagging["times"] == 0


def test_enrolment_with_two_custodians_down_is_refused(lab: Any, tmp_path: Path, faults: Any) -> None:
    async def deaf(path: str, body: bytes, honest: Any) -> Answer:
        return await (faults["dead"](path, body, honest) if path == "/v1/document" else honest())

    lab.nodes[0].fault = lab.nodes[1].fault = deaf
    with pytest.raises(UnavailableError) as refused:
        lab.run(enrol_patient(lab.network, tmp_path / "p", passphrase=PASSPHRASE))
    assert refused.value.code == "not-enough-custodians"


def test_rotation_needs_the_kit_and_moves_every_epoch_on(lab: Any, enrolled: Any) -> None:
    made, patient = enrolled
    with pytest.raises(NotFoundError) as refused:
        lab.run(rotate(lab.network, made.folder, kit=kit_code(bytes(32)), passphrase=PASSPHRASE))
    assert refused.value.code == "wrong-kit"
    with pytest.raises(NotPermittedError):
        lab.run(rotate(lab.network, made.folder, kit=made.kit, passphrase="wrong"))
    rotated, published = lab.run(rotate(lab.network, made.folder, kit=made.kit, passphrase=PASSPHRASE))
    assert published.complete
    assert {epoch for epoch, _ in rotated.chain.state.compartments.values()} == {2}
    assert rotated.keys.keyid == f"{made.token}#1"
    with pytest.raises(Error) as old:
        lab.run(Patient(lab.network, patient.keys, state=MemoryState()).rekey())
    assert old.value.code in ("not-enough-custodians", "superseded-key", "unknown-key")


def test_an_interrupted_rotation_is_finished_by_calling_it_again(
    lab: Any, enrolled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = enrolled

    def die(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(KeyFolder, "renew", die)
    with pytest.raises(KeyboardInterrupt):
        lab.run(rotate(lab.network, made.folder, kit=made.kit, passphrase=PASSPHRASE))
    monkeypatch.undo()
    folder = KeyFolder.open(made.folder.path, passphrase=PASSPHRASE, rand=lab.network.rand)
    assert folder.keys.keyid.endswith("#0"), "the directory has moved on, the folder has not"
    rotated, published = lab.run(rotate(lab.network, folder, kit=made.kit, passphrase=PASSPHRASE))
    assert published.complete
    assert rotated.keys.keyid.endswith("#1")
    again = KeyFolder.open(made.folder.path, passphrase=PASSPHRASE, rand=lab.network.rand)
    assert again.keys.keyid.endswith("#1")


def test_records_from_before_a_rotation_still_open(lab: Any, enrolled: Any, make_bundle: Any) -> None:
    from careledger.client import Author

    made, patient = enrolled
    author = Author(lab.network, patient.keys, state=made.folder, own=patient)
    done = lab.run(author.import_file(made.token, "x.json", [make_bundle()]))
    rotated, _ = lab.run(rotate(lab.network, made.folder, kit=made.kit, passphrase=PASSPHRASE))
    opened = lab.run(Owner(rotated).open_all())
    assert len(opened.records) == done.records
    assert opened.failed == []


def test_a_readers_grant_survives_the_subjects_rotation(lab: Any, tmp_path: Path, make_bundle: Any) -> None:
    from careledger.client import Author

    made, patient = lab.run(enrol_patient(lab.network, tmp_path / "p", passphrase=PASSPHRASE))
    keys = lab.run(lab.person())
    lab.run(patient.grant(keys.token, categories=["about", "results", "visits"], expires_ms=lab.expires()))
    rotated, _ = lab.run(rotate(lab.network, made.folder, kit=made.kit, passphrase=PASSPHRASE))
    author = Author(lab.network, rotated.keys, state=made.folder, own=rotated)
    done = lab.run(author.import_file(made.token, "x.json", [make_bundle()]))
    records = [bytes.fromhex(record) for sent in done.sent for record in sent.records]
    opened = lab.run(Reader(lab.network, keys).open(made.token, records, purpose="TREAT"))
    assert len(opened.records) == done.records


def test_deactivation_is_final(lab: Any, enrolled: Any) -> None:
    made, patient = enrolled
    lab.run(deactivate(lab.network, made.folder, kit=made.kit))
    with pytest.raises(NotPermittedError) as refused:
        lab.run(deactivate(lab.network, made.folder, kit=made.kit))
    assert refused.value.code == "deactivated"
    with pytest.raises(Error):
        lab.run(patient.grant(lab.run(lab.person()).token, categories=["about"], expires_ms=lab.expires()))


# Managed


@pytest.fixture
def manager(lab: Any) -> Manager:
    organisation = lab.run(lab.organisation(1))
    return Manager(lab.network, organisation.keys, organisation=organisation.keys.token, state=MemoryState())


def test_every_use_of_a_managed_identity_is_in_its_trail(lab: Any, manager: Manager, tmp_path: Path) -> None:
    token, code = lab.run(manager.enrol())
    patient, owner = lab.run(manager.act(token))
    lab.run(patient.grant(manager.organisation, categories=["about"], expires_ms=lab.expires()))
    lab.run(owner.open_all())
    made, claimed = lab.run(
        claim(
            lab.network,
            tmp_path / "claimed",
            token=token,
            code=code,
            passphrase=PASSPHRASE,
            countersign=manager.countersign,
        )
    )
    trail = lab.run(audit(lab.network, claimed.keys, state=made.folder))
    assert trail.complete
    managed = [one for one in trail.accesses if one.basis == "managed"]
    assert len(managed) >= 2
    assert {one.reader for one in managed} == {manager.keys.token}


def test_after_the_claim_the_providers_keys_open_nothing_more(lab: Any, manager: Manager, tmp_path: Path) -> None:
    token, code = lab.run(manager.enrol())
    patient, owner = lab.run(manager.act(token))
    lab.run(patient.refresh())
    made, claimed = lab.run(
        claim(
            lab.network, tmp_path / "c", token=token, code=code, passphrase=PASSPHRASE, countersign=manager.countersign
        )
    )
    with pytest.raises(Error) as refused:
        lab.run(manager.act(token))
    assert refused.value.code in ("no-grant", "no-such-way")
    with pytest.raises(Error):
        lab.run(patient.rekey())
    with pytest.raises(Error):
        lab.run(owner.open_all())
    assert {epoch for epoch, _ in claimed.chain.state.compartments.values()} == {2}
    with pytest.raises(NotFoundError):
        lab.run(rotate(lab.network, made.folder, kit=code, passphrase=PASSPHRASE))


def test_a_claim_without_the_managers_signature_is_refused(lab: Any, manager: Manager, tmp_path: Path) -> None:
    token, code = lab.run(manager.enrol())

    async def nobody(envelope: Any) -> Any:
        return envelope

    with pytest.raises(VerificationError):
        lab.run(claim(lab.network, tmp_path / "c", token=token, code=code, passphrase=PASSPHRASE, countersign=nobody))


def test_fewer_than_t_custodians_do_not_unlock_a_managed_identity(lab: Any, manager: Manager, faults: Any) -> None:
    token, _ = lab.run(manager.enrol())

    async def deaf(path: str, body: bytes, honest: Any) -> Answer:
        return await (faults["dead"](path, body, honest) if path == "/v1/access" else honest())

    lab.nodes[0].fault = lab.nodes[1].fault = deaf
    with pytest.raises(UnavailableError) as refused:
        lab.run(manager.act(token))
    assert refused.value.code == "not-enough-custodians"


def test_a_custodian_without_a_managers_share_says_so(
    lab: Any, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("careledger.client.managed.seal_custodian_shares", lambda *args, **kwargs: None)
    token, _ = lab.run(manager.enrol())
    with pytest.raises(NotFoundError) as refused:
        lab.run(manager.act(token))
    assert refused.value.code == "no-such-way"


def test_another_provider_does_not_unlock_it(lab: Any, manager: Manager) -> None:
    token, _ = lab.run(manager.enrol())
    other = lab.run(lab.organisation(2))
    thief = Manager(lab.network, other.keys, organisation=other.keys.token, state=manager.state)
    with pytest.raises(NotPermittedError) as refused:
        lab.run(thief.act(token))
    assert refused.value.code == "no-grant"


# Organisations


def test_an_organisation_made_before_its_network_joins_it(lab: Any, tmp_path: Path) -> None:
    made, inception = make_organisation(
        tmp_path / "org", nodes=[lab.nodes[0].token], passphrase=PASSPHRASE, rand=lab.network.rand
    )
    assert made.folder.network == ""
    made.folder.join(lab.id)
    lab.run(lab.network.transact([inception]))
    done = lab.run(publish_organisation(lab.network, made.folder))
    assert len(done.acks) == 4
    keyid, key = lab.run(lab.network.recipient(made.token))
    assert keyid == f"{made.token}#0"
    assert key.raw != made.folder.keys.sealing().public, "grants are sealed to the reading key"


def test_a_founders_folder_keeps_its_reading_seed(lab: Any, tmp_path: Path) -> None:
    founder = lab.organisations[3]
    kept = keep_organisation(tmp_path / "o", founder, network=lab.id, passphrase=PASSPHRASE, rand=lab.network.rand)
    assert kept.folder.load("reading", list[tuple[int, bytes]]) == [(0, founder.secrets.reading_seed)]
