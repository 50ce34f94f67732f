"""The keys of one submission, all derived from its one secret M, and the keys a reader derives from what it holds.

Two locks: the content key needs the consent key (from the compartment's secret C, held by whom the subject gave it) and
the release key (from t custodians). M gives both, which is why M is sealed to the subject and nobody else.
Derivations: docs/spec/records.md section 3; vectors/records/keys.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256

from careledger.seal import Kdf, SealingKey, encode, kdf, split

__all__ = ["SubmissionKeys", "compartment_key", "consent_key", "consent_keys", "content_aad", "content_key"]


class SubmissionKeys:
    """Everything that follows from M (32 bytes): release keys, compartment secrets, shares. Keeps no plaintext."""

    __slots__ = ("_master", "_secrets")

    def __init__(self, master: bytes) -> None:
        if len(master) != 32:
            raise AssertionError(f"a submission's secret has 32 bytes, not {len(master)}")
        self._master = Kdf(master)
        self._secrets: dict[tuple[bytes, int], tuple[bytes, Kdf]] = {}

    def release_key(self, record: bytes) -> bytes:
        """Return K_release of a record (16-byte id), which is what the custodians' shares give back."""
        return self._master.derive("release", record)

    def compartment_secret(self, compartment: bytes, epoch: int) -> bytes:
        """Return C, which the consent lock of this compartment (16-byte id) and epoch carries."""
        return self._secret(compartment, epoch)[0]

    def consent_key(self, record: bytes, compartment: bytes, epoch: int) -> bytes:
        """Return K_consent of a record in a compartment."""
        return self._secret(compartment, epoch)[1].derive("consent-record", record)

    def content_key(self, record: bytes, compartment: bytes, epoch: int) -> bytes:
        """Return the key of the record's ciphertext."""
        return content_key(self.consent_key(record, compartment, epoch), self.release_key(record))

    def shares(self, records: Sequence[bytes], *, n: int, t: int) -> list[list[bytes]]:
        """Return for each of n custodians, in order, its 33-byte share (y, then x) of each record's release key.

        All records are split in one pass, since Shamir works byte by byte.
        """
        derive = self._master.derive_each
        secret = b"".join(derive("release", records))
        coefficients = [b"".join(derive("shamir", records, j)) for j in range(1, t)]
        joined = split(secret, n=n, t=t, coefficients=coefficients)
        return [[ys[at : at + 32] + ys[-1:] for at in range(0, len(ys) - 1, 32)] for ys in joined]

    def _secret(self, compartment: bytes, epoch: int) -> tuple[bytes, Kdf]:
        found = self._secrets.get((compartment, epoch))
        if found is None:
            secret = self._master.derive("consent-compartment", compartment, epoch)
            found = self._secrets[compartment, epoch] = (secret, Kdf(secret))
        return found


def compartment_key(seed: bytes) -> SealingKey:
    """Return the sealing key of a compartment's epoch: its 32-byte seed is the X-Wing private key itself."""
    return SealingKey(seed)


def consent_key(secret: bytes, record: bytes) -> bytes:
    """Return K_consent of one record from its compartment's secret C."""
    return kdf(secret, "consent-record", record)


def consent_keys(secret: bytes, records: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return K_consent by record id for records of one compartment and epoch."""
    return dict(zip(records, Kdf(secret).derive_each("consent-record", records), strict=True))


def content_key(consent: bytes, release: bytes) -> bytes:
    """Return the content key from K_consent and K_release; neither alone says anything about it."""
    return kdf(consent + release, "content")


def content_aad(*, network: str, subject: str, author: str, record: str, compartment: str, epoch: int) -> bytes:
    """Return the `aad` of a record's ciphertext: SHA-256 of canonical JSON with the manifest's own texts.

    `network`, `record` and `compartment` are checked lower-case hex: the object is spliced from its sorted fields.
    """
    fields = (
        f'{{"author":{_quoted(author)},"compartment":"{compartment}","epoch":{epoch},'
        f'"network":"{network}","record":"{record}","subject":{_quoted(subject)}}}'
    )
    return sha256(fields.encode()).digest()


@lru_cache(maxsize=256)
def _quoted(text: str) -> str:
    return encode(text).decode()
