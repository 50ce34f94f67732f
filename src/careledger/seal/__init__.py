"""Sealing: keys, signatures, key derivation, splitting, and the one way in which careledger writes what it signs.

Knows nothing of health, identities or logs. Functions of bytes in and bytes out: no clock, no files, and no randomness
but HPKE's ephemeral (docs/decisions/0001). Normative text: docs/spec/sealing.md.
"""

from careledger.seal.aead import open_content, open_random, seal_content, seal_random
from careledger.seal.canonical import Payload, b64, decode, encode, unb64, unhex
from careledger.seal.dsse import Envelope, Signature, envelope_message_id, message_id, pae, sign, verify
from careledger.seal.ed25519 import SigningKey, VerifyKey
from careledger.seal.hpke import SealingKey, SealingPublicKey, info
from careledger.seal.kdf import Kdf, kdf
from careledger.seal.keys import ALG_SEAL, ALG_SIGN, Key, keyid, parse_keyid, sealing_key, signing_keys
from careledger.seal.passphrase import passphrase_key
from careledger.seal.proven import ProvenSignatures
from careledger.seal.shamir import combine, combine_many, share_commitment, split

__all__ = [
    "ALG_SEAL",
    "ALG_SIGN",
    "Envelope",
    "Kdf",
    "Key",
    "Payload",
    "ProvenSignatures",
    "SealingKey",
    "SealingPublicKey",
    "Signature",
    "SigningKey",
    "VerifyKey",
    "b64",
    "combine",
    "combine_many",
    "decode",
    "encode",
    "envelope_message_id",
    "info",
    "kdf",
    "keyid",
    "message_id",
    "open_content",
    "open_random",
    "pae",
    "parse_keyid",
    "passphrase_key",
    "seal_content",
    "seal_random",
    "sealing_key",
    "share_commitment",
    "sign",
    "signing_keys",
    "split",
    "unb64",
    "unhex",
    "verify",
]
