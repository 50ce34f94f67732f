"""The document of an identity: what those who deal with it must know, and the directory must not.

The directory holds only SHA-256(salt ‖ document); the bytes and the salt are kept by the custodians and by whoever
needs them. Custodians check changes of a document with `check_update` and `check_claim`, since the directory can't.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated, ClassVar

import msgspec

from careledger.errors import MalformedError, VerificationError
from careledger.identity.fields import TokenText, Version
from careledger.seal import ALG_SEAL, Key, Payload, decode, encode, sealing_key

__all__ = [
    "CUSTODIANS_MAX",
    "Document",
    "check_claim",
    "check_update",
    "default_threshold",
    "document_hash",
    "encode_document",
    "faults",
    "open_document",
]

SALT_BYTES = 32
CUSTODIANS_MAX = 64
"""A share's place is one byte; beyond 64 custodians a person waits longer than anything is gained."""
_SERVICES_MAX = 16
_NODES_MAX = 64
_DOCUMENT_BYTES_MAX = 16384

Url = Annotated[str, msgspec.Meta(pattern=r"\Ahttps?://[!-~]{1,500}\Z")]


class Document(Payload, frozen=True, kw_only=True):
    """Custodians in share order with their threshold, the manager if there is one, service URLs; for an organisation
    its nodes' tokens and the reading key that no node holds."""

    v: Version
    custodians: Annotated[list[TokenText], msgspec.Meta(max_length=CUSTODIANS_MAX)]
    threshold: int
    services: Annotated[list[Url], msgspec.Meta(max_length=_SERVICES_MAX)]
    nodes: Annotated[list[TokenText], msgspec.Meta(max_length=_NODES_MAX)]
    manager: TokenText | msgspec.UnsetType = msgspec.UNSET
    reading_key: Key | msgspec.UnsetType = msgspec.UNSET

    TYPE: ClassVar[str] = "application/vnd.careledger.document+json"


def faults(n: int) -> int:
    """f = ⌊(n−1)/3⌋: how many of n custodians may lie."""
    return (n - 1) // 3 if n > 0 else 0


def default_threshold(n: int) -> int:
    """t for n custodians: ⌊2n/3⌋+1 from four on (4→3, 7→5), ⌊n/2⌋+1 below; 0 where there are none."""
    if n <= 0:
        return 0
    return 2 * n // 3 + 1 if n >= 4 else n // 2 + 1


def document_hash(salt: bytes, document: bytes) -> str:
    """Hex SHA-256(salt ‖ document): what the operations and the directory carry."""
    if len(salt) != SALT_BYTES:
        raise MalformedError("bad-salt", f"a document's salt has {SALT_BYTES} bytes, this one {len(salt)}")
    return hashlib.sha256(salt + document).hexdigest()


def encode_document(document: Document) -> bytes:
    """The canonical bytes of a document that keeps the rules. Raises MalformedError `bad-document`."""
    _check_document(document)
    return encode(document)


def open_document(salt: bytes, document: bytes, expected_hash: str) -> Document:
    """The document, proven to be the one that the directory's state commits to.

    Raises VerificationError `bad-document-hash`; MalformedError `bad-document` and those of seal.decode.
    """
    if not hmac.compare_digest(document_hash(salt, document), expected_hash):
        raise VerificationError(
            "bad-document-hash",
            "the document and salt do not give the hash in the directory: they are old or altered; fetch them again",
        )
    found = decode(document, Document, size_max=_DOCUMENT_BYTES_MAX)
    _check_document(found)
    return found


def check_update(old: Document, new: Document) -> None:
    """Refuse a change that an `update`, signed by the device key alone, must not make.

    Raises VerificationError `update-not-allowed`: custodians, threshold or manager differ; that takes a rotation.
    """
    if (old.custodians, old.threshold, old.manager) != (new.custodians, new.threshold, new.manager):
        raise VerificationError(
            "update-not-allowed",
            "an update can't change custodians, threshold or manager: sign a rotation with the recovery kit",
        )


def check_claim(old: Document, new: Document, *, manager: str) -> None:
    """Refuse a claim that names another manager than the old document's, or leaves one in the new document.

    Raises VerificationError `bad-claim`.
    """
    if old.manager != manager:
        raise VerificationError("bad-claim", "the claim is signed by a provider that does not manage this identity")
    if new.manager is not msgspec.UNSET:
        raise VerificationError("bad-claim", "after a claim the document must name no manager")


def _check_document(document: Document) -> None:
    n, t = len(document.custodians), document.threshold
    if len(set(document.custodians)) != n:
        raise MalformedError("bad-document", "a document names the same custodian twice")
    if len(set(document.nodes)) != len(document.nodes):
        raise MalformedError("bad-document", "a document names the same node twice")
    low = faults(n) + 1 if n else 0
    if not low <= t <= n:
        raise MalformedError("bad-document", f"the threshold of {n} custodians is {low} to {n}, not {t}")
    if document.reading_key is not msgspec.UNSET:
        if document.reading_key.alg != ALG_SEAL:
            raise MalformedError("bad-document", f"a reading key is an {ALG_SEAL} key")
        sealing_key([document.reading_key])
