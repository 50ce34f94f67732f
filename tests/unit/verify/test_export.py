"""Exports: every resource is its author's, the identities are the directory's, the reads are logged."""

import random

import msgspec
import pytest

from careledger.access import (
    AccessRequest,
    Basis,
    Head,
    Receipt,
    build_entry,
    encode_receipt,
    leaf,
    sign_request,
)
from careledger.client import decode_proofs as decode_by_client
from careledger.errors import Error, MalformedError, NotFoundError, UnavailableError, VerificationError
from careledger.node.settings import NodeFolder
from careledger.records import Plaintext, decode_view, encode_view
from careledger.seal import SigningKey
from careledger.tlog import Checkpoint, cosign, format_proof, sign_checkpoint, tail_of_entries
from careledger.verify import decode_proofs, folder_fetch, verify_export
from careledger.verify.export import BUNDLE, MAGIC, PROOFS, ProofNode
from careledger.verify.identities import Identities


@pytest.fixture
def files(story):
    fetch = folder_fetch(story.export)
    return {name: fetch(name) for name in (BUNDLE, PROOFS)}


def check(files, story, **more):
    def fetch(name):
        if name not in files:
            raise NotFoundError("not-found", f"there is no {name}")
        return files[name]

    return verify_export(fetch, network=story.network, **more)


def changed(files, **fields):
    proofs = msgspec.structs.replace(decode_proofs(files[PROOFS]), **fields)
    return {**files, PROOFS: MAGIC + msgspec.msgpack.encode(proofs)}


def refusal(files, story):
    with pytest.raises(Error) as caught:
        check(files, story)
    return caught.value.code


def test_an_export_is_verified_as_a_whole(files, story):
    report = check(files, story)
    assert report.subject == story.patient
    assert report.records > 3
    assert report.resources > report.records
    assert report.bundle
    assert len(report.trail) == 4
    assert report.accesses >= 3
    assert report.receipts >= 1
    assert report.cosigned >= 3
    assert len(report.authors) == 1


def test_reader_and_writer_of_the_proof_file_agree(files):
    ours, theirs = decode_proofs(files[PROOFS]), decode_by_client(files[PROOFS])
    assert msgspec.msgpack.encode(ours) == msgspec.msgpack.encode(theirs)


def test_every_sampled_byte_of_the_proof_file_matters(files, story):
    """But for the time of the export, which nobody signs, and for cosignatures beyond those needed (C2SP: a line whose
    name or key ID is another's is not of a known witness): here there is none too many."""
    proofs = decode_proofs(files[PROOFS])
    fewest = [msgspec.structs.replace(one, checkpoint=_without_last_line(one.checkpoint)) for one in proofs.trail]
    files = changed(files, trail=fewest)
    data = files[PROOFS]
    time_at = data.index(msgspec.msgpack.encode("exported")) + len(msgspec.msgpack.encode("exported"))
    free = range(time_at, time_at + len(msgspec.msgpack.encode(proofs.exported)))
    rng = random.Random(6)
    for at in rng.sample(range(len(data)), 120):
        if at in free:
            continue
        flipped = bytearray(data)
        flipped[at] ^= 1
        with pytest.raises(Error):
            check({**files, PROOFS: bytes(flipped)}, story, needed=4)


def _without_last_line(note):
    return note[: note.rindex(b"\n", 0, -1) + 1]


def test_the_bundle_holds_exactly_the_proven_resources(files, story):
    bundle = files[BUNDLE]
    assert refusal({**files, BUNDLE: bundle.replace(b"final", b"draft", 1)}, story) == "wrong-bundle"
    entries = msgspec.json.decode(bundle)["entry"]
    for wrong in (entries[1:], [*entries, entries[0]], [*entries, {"resource": {"resourceType": "Basic"}}]):
        data = msgspec.json.encode({"resourceType": "Bundle", "type": "collection", "entry": wrong})
        assert refusal({**files, BUNDLE: data}, story) == "wrong-bundle"
    assert refusal({**files, BUNDLE: b"[]"}, story) == "bad-bundle"


def test_a_missing_bundle_is_told(files, story):
    assert not check({PROOFS: files[PROOFS]}, story).bundle


def test_a_missing_proof_file_is_not_found(files, story):
    with pytest.raises(NotFoundError):
        check({BUNDLE: files[BUNDLE]}, story)


def test_content_that_its_author_did_not_sign(files, story):
    proofs = decode_proofs(files[PROOFS])
    first = proofs.records[0]
    plaintext = msgspec.msgpack.decode(first.plaintext, type=Plaintext)
    resource = msgspec.structs.replace(plaintext.resources[0], data=plaintext.resources[0].data + b" ")
    forged = msgspec.structs.replace(plaintext, resources=[resource, *plaintext.resources[1:]])
    record = msgspec.structs.replace(first, plaintext=msgspec.msgpack.encode(forged))
    assert refusal(changed(files, records=[record, *proofs.records[1:]]), story) == "bad-seal"


def test_a_record_left_out_is_not_hidden_by_the_bundle(files, story):
    proofs = decode_proofs(files[PROOFS])
    assert refusal(changed(files, records=proofs.records[1:]), story) == "wrong-bundle"


def test_a_record_twice_or_of_no_submission(files, story):
    proofs = decode_proofs(files[PROOFS])
    assert refusal(changed(files, records=[*proofs.records, proofs.records[0]]), story) == "wrong-record"
    assert refusal(changed(files, submissions=[]), story) == "wrong-record"


def test_a_submission_about_somebody_else(files, story):
    other = next(token for token in decode_proofs(files[PROOFS]).identities if token != story.patient)
    assert refusal(changed(files, subject=other), story) == "wrong-subject"


def test_a_submission_whose_signature_does_not_hold(files, story):
    proofs = decode_proofs(files[PROOFS])
    view = decode_view(proofs.submissions[0])
    envelope = msgspec.json.decode(view.envelope)
    sig = envelope["signatures"][0]["sig"]
    envelope["signatures"][0]["sig"] = ("A" if sig[0] != "A" else "B") + sig[1:]
    forged = msgspec.structs.replace(view, envelope=msgspec.json.encode(envelope, order="sorted"))
    assert refusal(changed(files, submissions=[encode_view(forged), *proofs.submissions[1:]]), story) == "bad-signature"


def test_an_identity_without_a_proof_or_with_an_operation_missing(files, story):
    proofs = decode_proofs(files[PROOFS])
    without = [one for one in proofs.directory if one[1] != story.patient]
    assert refusal(changed(files, directory=without), story) == "wrong-identity"
    longest = max(proofs.identities, key=lambda token: len(proofs.identities[token]))
    assert len(proofs.identities[longest]) > 1, "the subject has rotated its keys"
    shortened = {**proofs.identities, longest: proofs.identities[longest][:-1]}
    assert refusal(changed(files, identities=shortened), story) == "wrong-identity"


def test_an_identity_with_the_operations_of_another(files, story):
    proofs = decode_proofs(files[PROOFS])
    one, other = sorted(proofs.identities)[:2]
    swapped = {**proofs.identities, one: proofs.identities[other]}
    assert refusal(changed(files, identities=swapped), story) == "wrong-identity"


def test_an_author_whose_identity_is_not_there(files, story):
    proofs = decode_proofs(files[PROOFS])
    author = check(files, story).authors[0].partition("#")[0]
    left = {token: operations for token, operations in proofs.identities.items() if token != author}
    assert refusal(changed(files, identities=left), story) == "unknown-identity"


def test_a_submission_under_a_key_that_its_author_never_had(files, story):
    proofs = decode_proofs(files[PROOFS])
    view = decode_view(proofs.submissions[0])
    envelope = view.envelope.replace(b"#0", b"#4")
    assert envelope != view.envelope
    forged = encode_view(msgspec.structs.replace(view, envelope=envelope))
    assert refusal(changed(files, submissions=[forged, *proofs.submissions[1:]]), story) == "unknown-key"


def test_operations_of_another_identity_are_not_taken_for_this_one_s(files, story):
    proofs = decode_proofs(files[PROOFS])
    one, other = sorted(proofs.identities)[:2]
    identities = Identities({one: proofs.identities[other]}, network=story.network)
    with pytest.raises(VerificationError) as caught:
        identities.verify_key(f"{one}#0")
    assert caught.value.code == "wrong-identity"


def test_a_trail_without_cosignatures(files, story):
    proofs = decode_proofs(files[PROOFS])
    part = proofs.trail[0]
    head, _, lines = part.checkpoint.partition(b"\n\n")
    own = lines.split(b"\n")[0] + b"\n"
    alone = msgspec.structs.replace(part, checkpoint=head + b"\n\n" + own)
    with pytest.raises(UnavailableError) as caught:
        check(changed(files, trail=[alone, *proofs.trail[1:]]), story)
    assert caught.value.code == "not-enough-cosignatures"


def test_a_trail_with_an_entry_of_another_node(files, story):
    proofs = decode_proofs(files[PROOFS])
    one, other = proofs.trail[:2]
    mixed = msgspec.structs.replace(one, entries=[*one.entries, *other.entries])
    assert refusal(changed(files, trail=[mixed, *proofs.trail[1:]]), story) in ("bad-proof", "wrong-entry")


def test_an_export_of_another_network(files, story):
    with pytest.raises(VerificationError) as caught:
        check(files, type("Other", (), {"network": "0" * 64}))
    assert caught.value.code == "wrong-network"


def test_what_is_no_proof_file(files, story):
    for data in (b"", MAGIC, files[PROOFS][:-1], b"x" + files[PROOFS], MAGIC + b"\xc0"):
        with pytest.raises(MalformedError):
            check({**files, PROOFS: data}, story)
    assert refusal(changed(files, v=2), story) == "bad-export"


def test_an_export_with_the_keys_of_another_network(files, story, auditor):
    assert check(files, story, trust=auditor.trust).records > 0
    with pytest.raises(VerificationError) as caught:
        check(files, story, trust=auditor.trust._replace(network="0" * 64))
    assert caught.value.code == "wrong-network"


def test_an_export_that_does_not_prove_its_subject(files, story):
    proofs = decode_proofs(files[PROOFS])
    left = {token: one for token, one in proofs.identities.items() if token != story.patient}
    nothing = {"submissions": [], "records": [], "receipts": [], "trail": [], "identities": left}
    assert refusal(changed(files, **nothing), story) == "wrong-identity"


# What a node that lies can put into an export: entries of its own log, properly signed


def node_entry(story, auditor, *, envelopes, kind="access", **fields):
    """(body, checkpoint cosigned by all others) of a log with one entry."""
    folder = NodeFolder(story.node(1))
    body = build_entry(
        network=story.network,
        node=auditor.tokens[1],
        index=0,
        received=1,
        directory_height=1,
        directory_age=0,
        consent_seq=0,
        consent_hash="0" * 64,
        kind=kind,
        decision="allow",
        reason="grant",
        counters={},
        envelopes=envelopes,
    )
    body = msgspec.json.encode({**msgspec.json.decode(body), **fields}, order="sorted")
    signer = folder.log_signer(story.network)
    tail, _ = tail_of_entries([leaf(kind, bytes(32), body)])
    note = sign_checkpoint(Checkpoint(signer.name, 1, tail.root()), signer=signer)
    text = note[: note.index(b"\n\n") + 1]
    cosigners = [NodeFolder(story.node(number)).cosigner(story.network) for number in (2, 3, 4)]
    return body, note + b"".join(cosign(text, signer=one, now_s=1) for one in cosigners)


def node_receipt(story, auditor, **more):
    body, note = node_entry(story, auditor, **more)
    return encode_receipt(Receipt(salt=bytes(32), body=body, proof=format_proof(0, [], note)))


def request(story, *, reader=None, subject=None, network=None):
    name, seed = story.doctor
    made = AccessRequest(
        network=network or story.network,
        reader=reader or name.partition("#")[0],
        subject=subject or story.patient,
        list_=True,
        purpose="TREAT",
        basis=Basis(kind="grant"),
        key="0" * 64,
        head=Head(seq=0, hash="0" * 64),
        client="x",
        time=1,
        nonce="0" * 32,
    )
    return sign_request(made, (name, SigningKey(seed)))[0]


def test_a_receipt_in_an_export_is_of_a_reader_s_request_about_the_subject(files, story, auditor):
    def given(**more):
        return changed(files, receipts=[node_receipt(story, auditor, **more)])

    assert check(given(envelopes=[request(story)]), story).receipts == 1
    assert refusal(given(envelopes=[]), story) == "wrong-entry"
    other = auditor.tokens[2]
    assert refusal(given(envelopes=[request(story, subject=other)]), story) == "wrong-entry"
    assert refusal(given(envelopes=[request(story, reader=other)]), story) == "wrong-entry"
    assert refusal(given(envelopes=[request(story, network="1" * 64)]), story) == "wrong-entry"
    assert refusal(given(envelopes=[request(story)], kind="keep"), story) == "bad-proof"


def test_an_entry_of_the_trail_says_itself_where_it_stands(files, story, auditor):
    def given(**more):
        body, note = node_entry(story, auditor, envelopes=[request(story)], **more)
        return changed(files, trail=[ProofNode(auditor.tokens[1], note, [(0, bytes(32), body, [])])])

    assert check(given(), story).accesses == 1
    for wrong in ({"index": 5}, {"node": auditor.tokens[2]}, {"network": "1" * 64}):
        assert refusal(given(**wrong), story) == "wrong-entry"


def test_a_proof_under_the_name_of_another_identity(files, story):
    proofs = decode_proofs(files[PROOFS])
    (kind, _, proof, note), other = proofs.directory[0], proofs.directory[1]
    wrong = [(kind, other[1], proof, note), *proofs.directory[1:]]
    assert refusal(changed(files, directory=wrong), story) == "wrong-proof"
