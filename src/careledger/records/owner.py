"""The subject's own check of a submission, which nobody else can make: M, the locks and the shares belong together.

A custodian sees its own share only, a reader one consent lock only. The subject has M and the compartments' keys,
derives everything again and so finds an author who gave it another secret than the readers (docs/spec/records.md
section 8).
"""

from __future__ import annotations

from collections.abc import Mapping

from careledger.errors import VerificationError
from careledger.records.keys import SubmissionKeys
from careledger.records.view import VerifiedSubmission
from careledger.seal import SealingKey, share_commitment

__all__ = ["check_owner"]


def check_owner(
    submission: VerifiedSubmission,
    *,
    key: SealingKey,
    compartment_keys: Mapping[tuple[str, int], SealingKey],
    threshold: int,
) -> bytes:
    """Return M once every consent lock shown and every share commitment follows from it.

    `key` is the subject's sealing key, `compartment_keys` those of (compartment hex, epoch), `threshold` that of the
    subject's document number `subject_seq`. Expects all locks in the view, release locks excepted.
    A compartment or epoch without a key is none of the subject's, and its consent lock false.
    Raises VerificationError `bad-owner-lock` with `details` {"shares": [record], "consent": [compartment]} saying what
    does not follow; `no-lock`, `not-openable` when the owner lock is missing or not for this key.
    """
    master = submission.open_owner_lock(key)
    keys = SubmissionKeys(master)
    consent = sorted(_false_consent_locks(submission, keys, compartment_keys))
    shares = _false_shares(submission, keys, threshold)
    if consent or shares:
        raise VerificationError(
            "bad-owner-lock",
            f"{len(consent)} consent locks and the shares of {len(shares)} records do not follow from the secret that "
            "the author sealed to the subject; report the author with this submission",
            details={"consent": consent, "shares": shares},
        )
    return master


def _false_consent_locks(
    submission: VerifiedSubmission, keys: SubmissionKeys, compartment_keys: Mapping[tuple[str, int], SealingKey]
) -> set[str]:
    false: set[str] = set()
    for compartment, epoch in {(one.manifest.compartment, one.manifest.epoch) for one in submission.records}:
        key = compartment_keys.get((compartment, epoch))
        try:
            secret = b"" if key is None else submission.open_consent_lock(compartment, epoch, key)
        except VerificationError:
            secret = b""
        if secret != keys.compartment_secret(bytes.fromhex(compartment), epoch):
            false.add(compartment)
    return false


def _false_shares(submission: VerifiedSubmission, keys: SubmissionKeys, threshold: int) -> list[str]:
    """Return the ids of records whose commitments are not those of the shares that follow from M."""
    false: list[str] = []
    by_count: dict[int, list[int]] = {}
    for at, one in enumerate(submission.records):
        by_count.setdefault(len(one.manifest.shares), []).append(at)
    for n, members in by_count.items():
        ids = [submission.records[at].record for at in members]
        if not threshold <= n <= 255:
            false.extend(record.hex() for record in ids)
            continue
        rows = zip(*keys.shares(ids, n=n, t=threshold), strict=True)
        for at, record, row in zip(members, ids, rows, strict=True):
            if [share_commitment(record, share).hex() for share in row] != submission.records[at].manifest.shares:
                false.append(record.hex())
    return false
