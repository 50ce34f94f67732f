"""Opening records: a reader's consent secret and any t custodians' shares give back the author's exact bytes.

Shares are compared with the signed commitments before use, so that a custodian which answers with a false one is named;
a plaintext is compared with the signed content root, so that all readers see the same (`bad-seal`). One bad record does
not keep the others closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice
from typing import Final

import msgspec

from careledger.errors import Error, MalformedError, NotFoundError, UnavailableError, VerificationError
from careledger.records.header import Header
from careledger.records.keys import SubmissionKeys, content_aad, content_key
from careledger.records.keys import consent_keys as consent_keys_of
from careledger.records.manifest import Manifest
from careledger.records.plaintext import Plaintext, Resource, content_root, unpack_plaintext
from careledger.records.view import VerifiedRecord
from careledger.seal import combine, combine_many, open_content, share_commitment

__all__ = ["OpenedRecord", "OpenedRecords", "Shares", "open_record", "open_records", "open_with_master"]

SUBSETS_MAX: Final = 64
"""Choices of t shares tried before giving up: more would let a false author burn a reader's time."""

Shares = Mapping[int, Mapping[bytes, bytes]]
"""Place x of a custodian, then record id, then its 33-byte share (y, then x)."""

Secrets = Mapping[tuple[str, int], bytes]
"""C by (compartment in hex, epoch)."""


class OpenedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record whose plaintext is proven to be the one its author signed."""

    record: bytes
    manifest: Manifest
    header: Header
    plaintext: Plaintext

    @property
    def resources(self) -> list[Resource]:
        return self.plaintext.resources


class OpenedRecords(msgspec.Struct, frozen=True, kw_only=True):
    """What opened, what did not and why (by record id), and each (place, record id) whose share was false."""

    records: list[OpenedRecord]
    failed: list[tuple[bytes, Error]]
    bad_shares: list[tuple[int, bytes]]


def open_record(
    record: VerifiedRecord,
    *,
    shares: Shares,
    threshold: int,
    secrets: Secrets | None = None,
    consent_keys: Mapping[bytes, bytes] | None = None,
) -> OpenedRecord:
    """Open one record, see `open_records`; raises what it would report."""
    opened = open_records([record], shares=shares, threshold=threshold, secrets=secrets, consent_keys=consent_keys)
    for _, error in opened.failed:
        raise error
    return opened.records[0]


def open_records(
    records: Sequence[VerifiedRecord],
    *,
    shares: Shares,
    threshold: int,
    secrets: Secrets | None = None,
    consent_keys: Mapping[bytes, bytes] | None = None,
) -> OpenedRecords:
    """Open records of one or more submissions with the shares that custodians released.

    The consent key of a record comes from `consent_keys` (record id to K_consent: filed records, grants by record) or
    from C in `secrets`. Failures by record: UnavailableError `not-enough-shares`; NotFoundError `no-consent-key`;
    VerificationError `bad-seal`; MalformedError `too-large`. Every share used matched its commitment, so with the right
    consent key `bad-seal` means that the author signed something that does not open, or opens to another content.
    """
    bad: list[tuple[int, bytes]] = []
    failed: list[tuple[bytes, Error]] = []
    good: list[tuple[VerifiedRecord, list[bytes]]] = []
    for one in records:
        found = _good_shares(one, shares, bad)
        if len(found) < threshold:
            error = UnavailableError(
                "not-enough-shares",
                f"record {one.manifest.record} has {len(found)} good shares of {threshold}; ask more custodians",
                details={"found": len(found), "needed": threshold},
            )
            failed.append((one.record, error))
        else:
            good.append((one, found))
    opened: list[OpenedRecord] = []
    released = _combine_first(good, threshold)
    consents = {**_consent_keys(records, secrets or {}), **(consent_keys or {})}
    for (one, found), release in zip(good, released, strict=True):
        try:
            consent = _consent_key(one, consents)
            others = islice(_release_keys(found, threshold), 1, SUBSETS_MAX)
            opened.append(_open_any(one, consent, release, others))
        except Error as error:
            failed.append((one.record, error))
    return OpenedRecords(records=opened, failed=failed, bad_shares=bad)


def open_with_master(records: Sequence[VerifiedRecord], *, master: bytes) -> OpenedRecords:
    """Open records of one submission with its secret M, as the subject can with one custodian or an offline copy."""
    keys = SubmissionKeys(master)
    opened: list[OpenedRecord] = []
    failed: list[tuple[bytes, Error]] = []
    for one in records:
        manifest = one.manifest
        consent = keys.consent_key(one.record, bytes.fromhex(manifest.compartment), manifest.epoch)
        try:
            opened.append(_open_any(one, consent, keys.release_key(one.record), ()))
        except Error as error:
            failed.append((one.record, error))
    return OpenedRecords(records=opened, failed=failed, bad_shares=[])


def _good_shares(one: VerifiedRecord, shares: Shares, bad: list[tuple[int, bytes]]) -> list[bytes]:
    """Return the shares that match their commitments, noting in `bad` those that do not."""
    commitments = one.manifest.shares
    good = []
    for place, released in shares.items():
        share = released.get(one.record)
        if share is None:
            continue
        if (
            len(share) == 33
            and share[-1] == place
            and 1 <= place <= len(commitments)
            and share_commitment(one.record, share).hex() == commitments[place - 1]
        ):
            good.append(share)
        else:
            bad.append((place, one.record))
    return good


def _combine_first(good: Sequence[tuple[VerifiedRecord, list[bytes]]], threshold: int) -> list[bytes]:
    """Return each record's release key from its first t shares, in one pass for all with the same custodians."""
    by_places: dict[bytes, list[int]] = {}
    for at, (_, found) in enumerate(good):
        by_places.setdefault(bytes([share[-1] for share in found[:threshold]]), []).append(at)
    released: list[bytes] = [b""] * len(good)
    for places, members in by_places.items():
        joined = combine_many(
            [(place, b"".join([good[at][1][k][:32] for at in members])) for k, place in enumerate(places)]
        )
        for k, at in enumerate(members):
            released[at] = joined[32 * k : 32 * k + 32]
    return released


def _release_keys(found: Sequence[bytes], threshold: int) -> Iterator[bytes]:
    """Every t-subset's release key, the first t first; they differ only if the author split falsely."""
    for subset in combinations(found, threshold):
        yield combine(subset)


def _consent_keys(records: Sequence[VerifiedRecord], secrets: Secrets) -> dict[bytes, bytes]:
    """Return K_consent by record id, for the records whose compartment and epoch are in `secrets`."""
    members: dict[tuple[str, int], list[bytes]] = {}
    for one in records:
        members.setdefault((one.manifest.compartment, one.manifest.epoch), []).append(one.record)
    found: dict[bytes, bytes] = {}
    for place, ids in members.items():
        if place in secrets:
            found.update(consent_keys_of(secrets[place], ids))
    return found


def _consent_key(one: VerifiedRecord, consents: Mapping[bytes, bytes]) -> bytes:
    consent = consents.get(one.record)
    if consent is None:
        raise NotFoundError(
            "no-consent-key", f"no consent secret for the compartment of record {one.manifest.record} in its epoch"
        )
    return consent


def _open_any(one: VerifiedRecord, consent: bytes, release: bytes, others: Iterable[bytes]) -> OpenedRecord:
    """Open with the first release key that gives the signed content; raises the first key's refusal if none does."""
    try:
        return _open(one, content_key(consent, release))
    except VerificationError as error:
        refusal = error
    tried = {release}
    for other in others:
        if other not in tried:
            tried.add(other)
            try:
                return _open(one, content_key(consent, other))
            except VerificationError:
                continue
    raise refusal


def _open(one: VerifiedRecord, key: bytes) -> OpenedRecord:
    manifest = one.manifest
    if one.ciphertext is None:
        raise NotFoundError("no-ciphertext", f"record {manifest.record} came without its ciphertext; ask for it")
    aad = content_aad(
        network=manifest.network,
        subject=manifest.subject,
        author=manifest.author,
        record=manifest.record,
        compartment=manifest.compartment,
        epoch=manifest.epoch,
    )
    try:
        plaintext = unpack_plaintext(open_content(key, one.ciphertext, aad=aad))
        if content_root(plaintext).hex() != manifest.content_root:
            raise _bad_seal(manifest, "opens to another content than the signed one")
        header = plaintext.opened_header()
    except MalformedError as error:
        if error.code == "too-large":
            raise
        raise _bad_seal(manifest, "opens to something that is no record") from None
    except VerificationError as error:
        if error.code == "bad-seal":
            raise
        raise _bad_seal(manifest, "does not open with the shares and the consent key") from None
    return OpenedRecord(record=one.record, manifest=manifest, header=header, plaintext=plaintext)


def _bad_seal(manifest: Manifest, what: str) -> VerificationError:
    return VerificationError("bad-seal", f"record {manifest.record} {what}; report its author with this manifest")
