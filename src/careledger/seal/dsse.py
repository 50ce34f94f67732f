"""DSSE envelopes: a signature covers the type and the exact bytes of a payload, never a re-encoding of it.

Follows the Dead Simple Signing Envelope, version 1 (secure-systems-lab/dsse), in a stricter profile: base64url without
padding only, payload types compared, signatures sorted by keyid with each keyid once, and *every* signature
must be valid, so that an envelope cannot carry along one that nobody checked. A message is identified by SHA-256 of its
pre-authentication encoding: the envelope's own bytes can be re-made by adding signatures. Which keys may sign is the
caller's policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

from careledger.errors import MalformedError, VerificationError
from careledger.seal.canonical import Payload, b64, unb64
from careledger.seal.ed25519 import SIGNATURE_SIZE, SigningKey, VerifyKey

__all__ = ["SIGNATURES_MAX", "Envelope", "Signature", "envelope_message_id", "message_id", "pae", "sign", "verify"]

SIGNATURES_MAX: Final = 32
"""Signatures in one envelope: more than any policy here asks for, few enough to check at once."""


class Signature(Payload, frozen=True, kw_only=True):
    """One signature: `keyid` = token#sequence, `sig` = unpadded base64url."""

    keyid: str
    sig: str


class Envelope(Payload, frozen=True, kw_only=True):
    """A DSSE envelope; its canonical JSON is what travels inside bodies."""

    payload: str
    payloadType: str
    signatures: list[Signature]


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the pre-authentication encoding: "DSSEv1" SP len(type) SP type SP len(payload) SP payload.

    Source: DSSE protocol.md; vectors/seal/dsse.json.
    """
    name = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def message_id(payload_type: str, payload: bytes) -> bytes:
    """Return SHA-256(PAE), 32 bytes: the identity of a message whoever signed it."""
    return sha256(pae(payload_type, payload)).digest()


def envelope_message_id(envelope: Envelope) -> bytes:
    """Return the message id of an envelope, verified or not; raises MalformedError `bad-base64`."""
    return message_id(envelope.payloadType, unb64(envelope.payload))


def sign(payload_type: str, payload: bytes, signers: Sequence[tuple[str, SigningKey]]) -> Envelope:
    """Return an envelope with one signature for each (keyid, key), sorted by keyid.

    Raises AssertionError when there is no signer, or one keyid twice: a bug.
    """
    keyids = sorted(keyid for keyid, _ in signers)
    if not 0 < len(keyids) == len(set(keyids)) <= SIGNATURES_MAX:
        raise AssertionError(f"an envelope needs 1 to {SIGNATURES_MAX} signers with distinct keyids, got {keyids}")
    message = pae(payload_type, payload)
    signatures = [Signature(keyid=keyid, sig=b64(key.sign(message))) for keyid, key in signers]
    signatures.sort(key=_keyid)
    return Envelope(payload=b64(payload), payloadType=payload_type, signatures=signatures)


def verify(envelope: Envelope, *, payload_type: str, keys: Mapping[str, VerifyKey]) -> bytes:
    """Return the payload's exact bytes once every signature on them is proven; what they say is the caller's to check.

    1. the type is `payload_type`; 2. there are 1 to SIGNATURES_MAX signatures, sorted, each keyid once; 3. each keyid
    is in `keys` and its signature verifies on PAE(type, payload). Whether these signers suffice is left to the caller.
    Raises VerificationError `wrong-type`, `no-signature`, `unknown-key`, `bad-signature`; MalformedError `bad-base64`,
    `not-canonical` (order), `too-large`.
    """
    if envelope.payloadType != payload_type:
        raise VerificationError(
            "wrong-type", f"the envelope is not of type {payload_type}; it cannot stand in its place"
        )
    signatures = envelope.signatures
    if not signatures:
        raise VerificationError("no-signature", f"the envelope of type {payload_type} has no signature; have it signed")
    if len(signatures) > SIGNATURES_MAX:
        raise MalformedError("too-large", f"the envelope has {len(signatures)} signatures, more than {SIGNATURES_MAX}")
    payload = unb64(envelope.payload)
    message = pae(payload_type, payload)
    previous = ""
    for signature in signatures:
        keyid = signature.keyid
        if keyid <= previous:
            raise MalformedError(
                "not-canonical", "the envelope's signatures are not sorted by keyid with each once; sign again"
            )
        previous = keyid
        key = keys.get(keyid)
        if key is None:
            raise VerificationError(
                "unknown-key", f"a signature of the {payload_type} is by a key that may not sign it"
            )
        key.verify(unb64(signature.sig, size=SIGNATURE_SIZE), message)
    return payload


def _keyid(signature: Signature) -> str:
    return signature.keyid
