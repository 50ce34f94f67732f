"""The message in which an author hands one subject's new records to the custodians, and how it is sealed.

One secret M and one signature for the whole batch: public-key work is one seal for each custodian, each compartment
and the subject, whatever the number of records. Pure but for HPKE's ephemerals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec

from careledger.errors import MalformedError
from careledger.records.header import header_from
from careledger.records.ids import ID_SIZE, record_id
from careledger.records.keys import SubmissionKeys, content_aad
from careledger.records.leaves import SEED_SIZE, arrange, leaves_root
from careledger.records.locks import Lock, encode_lock, encode_shares, lock_info, lock_leaf
from careledger.records.manifest import Manifest, SubmissionStatement, manifest_leaf
from careledger.records.plaintext import pack_plaintext
from careledger.seal import (
    SealingPublicKey,
    SigningKey,
    encode,
    parse_keyid,
    seal_content,
    share_commitment,
    sign,
    unhex,
)

__all__ = [
    "BYTES_ADVISED",
    "RECORDS_ADVISED",
    "RECORDS_MAX",
    "SUBMISSION_MAX",
    "RecordPlan",
    "Submission",
    "SubmissionPlan",
    "decode_submission",
    "encode_submission",
    "seal_submission",
]

RECORDS_ADVISED: Final = 200
"""Larger submissions gain nothing and keep other requests waiting (docs/results.md)."""
BYTES_ADVISED: Final = 1_000_000
RECORDS_MAX: Final = 1_000
"""Hard limit; a custodian refuses more."""
SUBMISSION_MAX: Final = 32 << 20
"""Bytes of a message: room for the largest single record (16 MiB inflated) with its locks."""

Rand = Callable[[int], bytes]


class RecordPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One record to be sealed: compartment id (hex), header fields (all but v and salt), (fullUrl, exact bytes) pairs.

    `replaces` is the hex id of the record that this one amends.
    """

    compartment: str
    header: Mapping[str, Any]
    resources: Sequence[tuple[str, bytes]]
    replaces: str | None = None


class SubmissionPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What an author seals, for whom and to whom.

    `owner` and `custodians` are (keyid, key), custodians in the order of the subject's document `subject_seq`;
    `compartments` maps a compartment's id (hex) to its newest (epoch, key); `author` is the signer's keyid.
    """

    network: str
    subject: str
    subject_seq: int
    owner: tuple[str, SealingPublicKey]
    author: str
    for_: str | None
    compartments: Mapping[str, tuple[int, SealingPublicKey]]
    custodians: Sequence[tuple[str, SealingPublicKey]]
    threshold: int
    records: Sequence[RecordPlan]


class Submission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A submission on the wire (MessagePack map). Manifests and ciphertexts stand in the order of their index.

    `filler` is the seed of the trees' fillers; `affiliation` (envelope bytes) and `grant` (hex id) say by what right
    the author contributes and are custody's to check.
    """

    envelope: bytes
    manifest_leaves: list[bytes]
    lock_leaves: list[bytes]
    filler: bytes
    manifests: list[bytes]
    locks: list[bytes]
    ciphertexts: list[bytes]
    affiliation: bytes | None = None
    grant: str | None = None


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Submission)


def encode_submission(submission: Submission) -> bytes:
    """Return the message's bytes."""
    return _encoder.encode(submission)


def decode_submission(data: bytes) -> Submission:
    """Return an unchecked submission; raises MalformedError `too-large`, `not-msgpack`.

    The message as a whole is neither signed nor hashed, so it needs no one encoding; its parts have theirs.
    """
    if len(data) > SUBMISSION_MAX:
        raise MalformedError("too-large", f"a submission has {len(data)} bytes, more than {SUBMISSION_MAX}; split it")
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise MalformedError("not-msgpack", "a submission is not the MessagePack map of docs/spec/records.md") from None


def seal_submission(plan: SubmissionPlan, *, signer: SigningKey, now_ms: int, rand: Rand) -> Submission:
    """Seal, lock and sign a plan's records; every call has a new M, so sealing again never repeats a key.

    Raises MalformedError `bad-header`, `too-large` (a record, or over RECORDS_MAX), `bad-plan`.
    """
    _check_plan(plan)
    keys = SubmissionKeys(master := rand(32))
    submission = rand(ID_SIZE)
    author = parse_keyid(plan.author)[0]
    network = unhex(plan.network, size=32)
    ids = [record_id(network, plan.subject, author, submission, index) for index in range(len(plan.records))]
    shares = keys.shares(ids, n=len(plan.custodians), t=plan.threshold)
    sealed = [
        _seal_record(
            plan, index, record=record, submission=submission, keys=keys, shares=row, recorded=now_ms, rand=rand
        )
        for index, (record, row) in enumerate(zip(ids, zip(*shares, strict=True), strict=True))
    ]
    manifests = [manifest for manifest, _ in sealed]
    seed = rand(SEED_SIZE)
    # The statement's roots need the locks, and the locks' `info` needs the rest of the statement.
    statement = SubmissionStatement(
        v=1,
        network=plan.network,
        subject=plan.subject,
        subject_seq=plan.subject_seq,
        author=plan.author,
        for_=msgspec.UNSET if plan.for_ is None else plan.for_,
        submission=submission.hex(),
        manifests_root="",
        locks_root="",
        time=now_ms,
        nonce=rand(ID_SIZE).hex(),
    )
    locks = _seal_locks(plan, statement, master=master, keys=keys, ids=ids, shares=shares)
    manifest_leaves = arrange([manifest_leaf(one) for one in manifests], tree="manifests", seed=seed, rand=rand)
    lock_leaves = arrange([lock_leaf(one) for one in locks], tree="locks", seed=seed, rand=rand)
    statement = msgspec.structs.replace(
        statement, manifests_root=leaves_root(manifest_leaves).hex(), locks_root=leaves_root(lock_leaves).hex()
    )
    return Submission(
        envelope=encode(sign(SubmissionStatement.TYPE, encode(statement), [(plan.author, signer)])),
        manifest_leaves=manifest_leaves,
        lock_leaves=lock_leaves,
        filler=seed,
        manifests=manifests,
        locks=locks,
        ciphertexts=[ciphertext for _, ciphertext in sealed],
    )


def _check_plan(plan: SubmissionPlan) -> None:
    if not 0 < len(plan.records) <= RECORDS_MAX:
        raise MalformedError("too-large", f"a submission takes 1 to {RECORDS_MAX} records, not {len(plan.records)}")
    if not 1 <= plan.threshold <= len(plan.custodians) <= 255:
        raise MalformedError(
            "bad-plan", f"no threshold of {plan.threshold} among {len(plan.custodians)} custodians; see the document"
        )
    if len({parse_keyid(keyid)[0] for keyid, _ in plan.custodians}) != len(plan.custodians):
        raise MalformedError("bad-plan", "a custodian is named twice; each of the subject's document stands once")
    if parse_keyid(plan.owner[0])[0] != plan.subject:
        raise MalformedError("bad-plan", "the owner's key is not the subject's; seal to the subject")
    unknown = {record.compartment for record in plan.records} - plan.compartments.keys()
    if unknown:
        raise MalformedError("bad-plan", f"no public key for compartment {min(unknown)}; fetch the subject's keys")


def _seal_record(
    plan: SubmissionPlan,
    index: int,
    *,
    record: bytes,
    submission: bytes,
    keys: SubmissionKeys,
    shares: Sequence[bytes],
    recorded: int,
    rand: Rand,
) -> tuple[bytes, bytes]:
    """Return the canonical manifest and the ciphertext of one record."""
    planned = plan.records[index]
    epoch, _ = plan.compartments[planned.compartment]
    header = header_from(planned.header, salt=rand(ID_SIZE), resources=len(planned.resources))
    wire, root = pack_plaintext(header, planned.resources, rand=rand)
    hex_id = record.hex()
    aad = content_aad(
        network=plan.network,
        subject=plan.subject,
        author=plan.author,
        record=hex_id,
        compartment=planned.compartment,
        epoch=epoch,
    )
    ciphertext = seal_content(keys.content_key(record, unhex(planned.compartment, size=ID_SIZE), epoch), wire, aad=aad)
    manifest = Manifest(
        v=1,
        network=plan.network,
        record=hex_id,
        subject=plan.subject,
        subject_seq=plan.subject_seq,
        author=plan.author,
        for_=msgspec.UNSET if plan.for_ is None else plan.for_,
        submission=submission.hex(),
        index=index,
        compartment=planned.compartment,
        epoch=epoch,
        recorded=recorded,
        ciphertext_hash=sha256(ciphertext).hexdigest(),
        ciphertext_length=len(ciphertext),
        content_root=root.hex(),
        shares=[share_commitment(record, share).hex() for share in shares],
        replaces=msgspec.UNSET if planned.replaces is None else planned.replaces,
    )
    return encode(manifest), ciphertext


def _seal_locks(
    plan: SubmissionPlan,
    statement: SubmissionStatement,
    *,
    master: bytes,
    keys: SubmissionKeys,
    ids: Sequence[bytes],
    shares: Sequence[Sequence[bytes]],
) -> list[bytes]:
    """Return the owner lock, a consent lock for each compartment in use, a release lock for each custodian."""
    owner, owner_key = plan.owner
    box = owner_key.seal(master, info=lock_info(statement, "owner", to=owner))
    locks = [Lock(use="owner", compartment=None, epoch=None, to=owner, box=box)]
    for compartment in sorted({record.compartment for record in plan.records}):
        epoch, key = plan.compartments[compartment]
        bound = lock_info(statement, "consent", to=owner, compartment=compartment, epoch=epoch)
        box = key.seal(keys.compartment_secret(bytes.fromhex(compartment), epoch), info=bound)
        locks.append(Lock(use="consent", compartment=compartment, epoch=epoch, to=owner, box=box))
    compartments = [bytes.fromhex(record.compartment) for record in plan.records]
    for (keyid, key), row in zip(plan.custodians, shares, strict=True):
        rows = list(zip(ids, compartments, row, strict=True))
        box = key.seal(encode_shares(rows), info=lock_info(statement, "release", to=keyid))
        locks.append(Lock(use="release", compartment=None, epoch=None, to=keyid, box=box))
    return [encode_lock(lock) for lock in locks]
