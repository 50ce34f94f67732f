"""The subject's own reading: one custodian suffices, an author's falsehoods show; and what it takes along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

import careledger.records.submission as sealing
from careledger.client import MemoryState, Owner, audit, decode_proofs, encode_proofs, export_record, write_export
from careledger.errors import Error, UnavailableError
from careledger.records import claimed_author, content_root, decode_view, verify_view
from careledger.records.plaintext import Plaintext
from careledger.seal import Envelope, decode
from careledger.transport import Answer
from careledger.verify.export import verify_export


def test_opens_everything_with_a_single_custodian_left(treated: Any, faults: Any) -> None:
    treated.lab.run(treated.patient.refresh())
    owner = Owner(treated.patient)

    async def only_consent(path: str, body: bytes, honest: Any) -> Answer:
        return await (faults["dead"](path, body, honest) if path == "/v1/access" else honest())

    for node in treated.lab.nodes[1:]:
        node.fault = only_consent
    opened = treated.lab.run(owner.open(treated.records))
    assert {one.record for one in opened.records} == set(treated.records)
    assert opened.failed == []


def test_all_custodians_down_is_named(treated: Any, faults: Any) -> None:
    treated.lab.run(treated.patient.refresh())

    async def only_consent(path: str, body: bytes, honest: Any) -> Answer:
        return await (faults["dead"](path, body, honest) if path == "/v1/access" else honest())

    for node in treated.lab.nodes:
        node.fault = only_consent
    with pytest.raises(UnavailableError) as refused:
        treated.lab.run(Owner(treated.patient).open(treated.records))
    assert refused.value.code == "not-enough-custodians"


def test_author_who_seals_another_secret_to_the_subject_is_found_out(
    lab: Any, make_treated: Any, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    treated = make_treated()
    real = sealing._seal_locks

    def false_locks(plan: Any, statement: Any, *, master: bytes, keys: Any, ids: Any, shares: Any) -> Any:
        return real(plan, statement, master=bytes(32), keys=keys, ids=ids, shares=shares)

    monkeypatch.setattr(sealing, "_seal_locks", false_locks)
    done = lab.run(treated.author.import_file(treated.subject, "x.json", [make_bundle(1, note=" false")]))
    monkeypatch.undo()
    assert done.kept > 0, "no custodian can see it"
    records = [bytes.fromhex(record) for sent in done.sent for record in sent.records]
    opened = lab.run(Owner(treated.patient).open(records))
    assert opened.records == []
    assert {error.code for _, error in opened.failed} == {"bad-owner-lock"}


def test_author_whose_content_is_not_the_signed_one_is_found_out_by_a_reader(
    lab: Any, make_treated: Any, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    treated = make_treated()
    real = sealing.pack_plaintext

    def false_root(*args: Any, **kwargs: Any) -> Any:
        wire, _ = real(*args, **kwargs)
        return wire, bytes(32)

    monkeypatch.setattr(sealing, "pack_plaintext", false_root)
    done = lab.run(treated.author.import_file(treated.subject, "x.json", [make_bundle(1, note=" salamander")]))
    monkeypatch.undo()
    bad = [bytes.fromhex(record) for sent in done.sent for record in sent.records]
    opened = lab.run(treated.reader().open(treated.subject, [*treated.records, *bad], purpose="TREAT"))
    assert {record for record, error in opened.failed if error.code == "bad-seal"} == {one.hex() for one in bad}
    assert {one.record for one in opened.records} == set(treated.records)
    assert opened.faults == {}, "the custodians did nothing wrong"


def test_export_has_the_exact_bytes_and_proofs_that_hold_without_a_network(treated: Any, tmp_path: Path) -> None:
    lab = treated.lab
    opened = lab.run(Owner(treated.patient).open_all())
    exported = lab.run(export_record(lab.network, opened, subject=treated.subject))
    files = write_export(tmp_path / "export", exported)
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o600"}
    bundle = msgspec.json.decode(files[0].read_bytes())
    assert bundle["type"] == "collection"
    assert len(bundle["entry"]) == len({(r.full_url, r.data) for one in opened.records for r in one.resources})
    proofs = decode_proofs(files[1].read_bytes())
    plaintexts = {one.record: one.plaintext for one in proofs.records}
    seen = set()
    for data in proofs.submissions:
        view = decode_view(data)
        author = claimed_author(view.envelope)
        assert author.partition("#")[0] in proofs.identities
        key = lab.run(lab.network.verify_key(author))
        for one in verify_view(view, network=lab.id, author_key=key, subject=proofs.subject).records:
            assert one.ciphertext is None
            plaintext = msgspec.msgpack.decode(plaintexts[one.record], type=Plaintext)
            assert content_root(plaintext).hex() == one.manifest.content_root
            seen.add(one.record)
    assert seen == set(plaintexts) == {one.record for one in opened.records}
    for operations in proofs.identities.values():
        for envelope in operations:
            decode(envelope, Envelope, size_max=1 << 16)


def test_the_offline_verifier_accepts_an_export_with_its_trail_and_refuses_a_changed_one(
    lab: Any, make_treated: Any, tmp_path: Path
) -> None:
    treated = make_treated()
    lab.run(treated.reader().open(treated.subject, treated.records, purpose="TREAT"))
    opened = lab.run(Owner(treated.patient).open_all())
    trail = lab.run(audit(lab.network, treated.patient.keys, state=MemoryState()))
    exported = lab.run(export_record(lab.network, opened, subject=treated.subject, trail=trail))
    write_export(tmp_path, exported)

    def fetch(path: str) -> bytes:
        return (tmp_path / path).read_bytes()

    report = verify_export(fetch, network=lab.id)
    assert (report.records, report.resources, report.bundle) == (len(treated.records), 5, True)
    assert set(report.trail) == {node.token for node in lab.nodes}
    assert report.accesses == len(trail.accesses)
    bundle = tmp_path / "bundle.json"
    bundle.write_bytes(bundle.read_bytes().replace(b"HbA1c 0", b"HbA1c 9"))
    with pytest.raises(Error) as refused:
        verify_export(fetch, network=lab.id)
    assert refused.value.code == "wrong-bundle"


def test_a_clinicians_export_verifies_too(treated: Any, tmp_path: Path) -> None:
    lab = treated.lab
    opened = lab.run(treated.reader().open(treated.subject, treated.records, purpose="TREAT"))
    exported = lab.run(export_record(lab.network, opened, subject=treated.subject))
    write_export(tmp_path, exported)
    report = verify_export(lambda path: (tmp_path / path).read_bytes(), network=lab.id)
    assert report.receipts == 3


@pytest.mark.parametrize("data", [b"", b"{}", b"careledger/export/v1\n", b"careledger/export/v2\n\x80"])
def test_what_is_no_proof_file_is_refused(data: bytes) -> None:
    with pytest.raises(Error) as refused:
        decode_proofs(data)
    assert refused.value.code == "bad-export"


def test_proof_file_round_trips(treated: Any) -> None:
    opened = treated.lab.run(Owner(treated.patient).open(treated.records))
    exported = treated.lab.run(export_record(treated.lab.network, opened, subject=treated.subject))
    assert decode_proofs(encode_proofs(exported.proofs)) == exported.proofs
