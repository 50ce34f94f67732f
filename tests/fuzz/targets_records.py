"""What of careledger.records reads bytes from outside: only careledger.errors.Error may come out of it.

Each target takes arbitrary bytes; where something is accepted, it also asserts what acceptance promises.
"""

import random
import zlib
from collections.abc import Callable
from hashlib import sha256

from careledger.records import (
    RecordPlan,
    Submission,
    SubmissionPlan,
    check_submission,
    claimed_author,
    decode_disclosure,
    decode_submission,
    decode_view,
    disclose,
    encode_disclosure,
    encode_submission,
    encode_view,
    leaf_tree,
    open_records,
    open_statement,
    open_with_master,
    padme,
    seal_submission,
    unpack_plaintext,
    verify_disclosed,
    verify_view,
    view_of,
)
from careledger.records.leaves import check_leaves, leaves_root
from careledger.records.locks import decode_lock, decode_shares, encode_lock, encode_shares
from careledger.records.manifest import SubmissionStatement, check_manifest
from careledger.records.plaintext import Plaintext, Resource, content_root, to_wire
from careledger.seal import SealingKey, SealingPublicKey, SigningKey, VerifyKey, encode, sign

NETWORK = "5a" * 32
AUTHOR = SigningKey(bytes(32))
AUTHOR_KEY = VerifyKey(AUTHOR.public)
KEY = SealingKey(bytes(32))
PUBLIC = SealingPublicKey(KEY.public)
PLAN = SubmissionPlan(
    network=NETWORK,
    subject="cl1subject",
    subject_seq=2,
    owner=("cl1subject#2", PUBLIC),
    author="cl1author#0",
    for_="cl1clinic",
    compartments={"0a" * 16: (1, PUBLIC)},
    custodians=[("cl1custodian1#0", PUBLIC)],
    threshold=1,
    records=[
        RecordPlan(
            compartment="0a" * 16,
            header={"source": "x", "contributors": [{"token": "cl1author", "parts": 1000}], "travelling": [1]},
            resources=[("urn:uuid:1", b'{"resourceType":"Observation"}'), ("", b"{}")],
            replaces="00" * 16,
        )
    ],
)
SUBMISSION = seal_submission(PLAN, signer=AUTHOR, now_ms=5, rand=random.Random(9).randbytes)
STATEMENT = open_statement(SUBMISSION.envelope, network=NETWORK, author_key=AUTHOR_KEY)


def _check(sent: Submission) -> None:
    check_submission(
        sent,
        network=NETWORK,
        author_key=AUTHOR_KEY,
        custodian="cl1custodian1#0",
        sealing_key=KEY,
        place=1,
        n=1,
        now_ms=5,
    )


def submission(data: bytes) -> None:
    sent = decode_submission(data)
    assert decode_submission(encode_submission(sent)) == sent
    _check(sent)


def envelope(data: bytes) -> None:
    claimed_author(data)
    open_statement(data, network=NETWORK, author_key=AUTHOR_KEY)


def signed_statement(data: bytes) -> None:
    """Arbitrary bytes that the author did sign."""
    signed = encode(sign(SubmissionStatement.TYPE, data, [("cl1author#0", AUTHOR)]))
    assert encode(open_statement(signed, network=NETWORK, author_key=AUTHOR_KEY)) == data


def manifest(data: bytes) -> None:
    assert encode(check_manifest(data, statement=STATEMENT)) == data


def leaves(data: bytes) -> None:
    seed, rest = data[:32], data[32:]
    values = [rest[at : at + 32] for at in range(0, len(rest), 32)]
    check_leaves(
        values, tree="locks", seed=seed, root=leaves_root(values), values=[_leaf(one) for one in SUBMISSION.locks]
    )


def lock(data: bytes) -> None:
    assert encode_lock(decode_lock(data)) == data


def shares(data: bytes) -> None:
    assert encode_shares(decode_shares(data)) == data


def _read(plaintext: Plaintext) -> None:
    content_root(plaintext)
    assert unpack_plaintext(to_wire(plaintext)) == plaintext
    plaintext.opened_header()


def plaintext(data: bytes) -> None:
    _read(unpack_plaintext(data))


def plaintext_deflated(data: bytes) -> None:
    """Arbitrary DEFLATE streams of the right size."""
    used = 4 + len(data)
    _read(unpack_plaintext(len(data).to_bytes(4) + data + bytes(padme(used) - used)))


def plaintext_packed(data: bytes) -> None:
    """Arbitrary bytes inside a good wire."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, -15)
    plaintext_deflated(compressor.compress(data) + compressor.flush())


def header(data: bytes) -> None:
    assert encode(Plaintext(header=data, resources=[Resource(bytes(16), "", b"")] * 2).opened_header()) == data


def view(data: bytes) -> None:
    shown = decode_view(data)
    verified = verify_view(shown, network=NETWORK, author_key=AUTHOR_KEY, subject="cl1subject")
    open_with_master(verified.records, master=bytes(32))
    open_records(verified.records, shares={1: {one.record: data[:33] for one in verified.records}}, threshold=1)


def disclosure(data: bytes) -> None:
    verify_disclosed(decode_disclosure(data), network=NETWORK, author_key=AUTHOR_KEY)


def _view() -> bytes:
    locks = [(one, SUBMISSION.lock_leaves.index(leaf)) for one, leaf in ((one, _leaf(one)) for one in SUBMISSION.locks)]
    return encode_view(
        view_of(
            envelope=SUBMISSION.envelope,
            manifest_tree=leaf_tree(SUBMISSION.manifest_leaves),
            lock_tree=leaf_tree(SUBMISSION.lock_leaves),
            locks=locks,
            records=[
                (
                    SUBMISSION.manifests[0],
                    SUBMISSION.manifest_leaves.index(_leaf(SUBMISSION.manifests[0])),
                    SUBMISSION.ciphertexts[0],
                )
            ],
        )
    )


def _leaf(data: bytes) -> bytes:
    return sha256(data).digest()


def _opened() -> tuple[bytes, Plaintext]:
    verified = verify_view(decode_view(_view()), network=NETWORK, author_key=AUTHOR_KEY, subject="cl1subject")
    record = open_with_master(verified.records, master=verified.open_owner_lock(KEY)).records[0]
    return encode_disclosure(disclose(verified, record, 0)), record.plaintext


_DISCLOSURE, _PLAINTEXT = _opened()
_WIRE = to_wire(_PLAINTEXT)
_DEFLATED = _WIRE[4 : 4 + int.from_bytes(_WIRE[:4])]

TARGETS: dict[str, Callable[[bytes], None]] = {
    "records_submission": submission,
    "records_envelope": envelope,
    "records_signed_statement": signed_statement,
    "records_manifest": manifest,
    "records_leaves": leaves,
    "records_lock": lock,
    "records_shares": shares,
    "records_plaintext": plaintext,
    "records_plaintext_deflated": plaintext_deflated,
    "records_plaintext_packed": plaintext_packed,
    "records_header": header,
    "records_view": view,
    "records_disclosure": disclosure,
}
SEEDS: dict[str, list[bytes]] = {
    "records_submission": [encode_submission(SUBMISSION)],
    "records_envelope": [SUBMISSION.envelope],
    "records_signed_statement": [encode(STATEMENT)],
    "records_manifest": list(SUBMISSION.manifests),
    "records_leaves": [SUBMISSION.filler + b"".join(SUBMISSION.lock_leaves)],
    "records_lock": list(SUBMISSION.locks),
    "records_shares": [encode_shares([(bytes(16), bytes(16), bytes(33))])],
    "records_plaintext": [_WIRE],
    "records_plaintext_deflated": [_DEFLATED],
    "records_plaintext_packed": [zlib.decompress(_DEFLATED, -15)],
    "records_header": [_PLAINTEXT.header],
    "records_view": [_view()],
    "records_disclosure": [_DISCLOSURE],
}
