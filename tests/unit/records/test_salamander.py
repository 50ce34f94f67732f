"""The invisible salamander: one AES-GCM ciphertext and tag that open under two keys to two plaintexts.

GCM's tag is a polynomial in a key-dependent H, so with one free block an author can solve for a ciphertext whose tag is
the same under both keys (Dodis, Grubbs, Ristenpart, Woodage, CRYPTO 2018; Len, Grubbs, Ristenpart, USENIX Security
2021). Here an author builds one and gives one key to the subject (by M) and the other to readers (by the consent lock).
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from careledger.errors import VerificationError
from careledger.records import (
    SubmissionKeys,
    check_owner,
    consent_key,
    content_root,
    open_record,
    open_with_master,
    unpack_plaintext,
)
from careledger.records.header import header_from
from careledger.records.keys import content_aad, content_key
from careledger.records.locks import lock_info
from careledger.records.plaintext import Plaintext, Resource, padme
from careledger.seal import SealingPublicKey, encode, open_content

BLOCK = 16


def multiply(a: int, b: int) -> int:
    """In GCM's field: bits reversed, x^128 + x^7 + x^2 + x + 1 (SP 800-38D section 6.3)."""
    product = 0
    for bit in range(127, -1, -1):
        if b >> bit & 1:
            product ^= a
        a = a >> 1 ^ (0xE1 << 120 if a & 1 else 0)
    return product


def power(a: int, exponent: int) -> int:
    result = 1 << 127
    while exponent:
        if exponent & 1:
            result = multiply(result, a)
        a = multiply(a, a)
        exponent >>= 1
    return result


def inverse(a: int) -> int:
    return power(a, 2**128 - 2)


def aes(key: bytes, block: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return encryptor.update(block) + encryptor.finalize()


def keystream(key: bytes, size: int) -> bytes:
    counters = b"".join(bytes(12) + (number + 2).to_bytes(4) for number in range(-(-size // BLOCK)))
    return aes(key, counters)[:size]


class Polynomial:
    """The tag of a ciphertext as a polynomial in H, without the free block's term."""

    def __init__(self, key: bytes, aad: bytes, ciphertext: bytes, free: int) -> None:
        h = int.from_bytes(aes(key, bytes(BLOCK)))
        blocks = [
            *(
                data[at : at + BLOCK].ljust(BLOCK, b"\0")
                for data in (aad, ciphertext)
                for at in range(0, len(data), 16)
            ),
            (8 * len(aad)).to_bytes(8) + (8 * len(ciphertext)).to_bytes(8),
        ]
        at_free = -(-len(aad) // BLOCK) + free
        total = 0
        for number, block in enumerate(blocks):
            total = multiply(total ^ (0 if number == at_free else int.from_bytes(block)), h)
        self.factor = power(h, len(blocks) - at_free)
        self.rest = total ^ int.from_bytes(aes(key, bytes(12) + (1).to_bytes(4)))

    def tag(self, block: bytes) -> bytes:
        return (self.rest ^ multiply(int.from_bytes(block), self.factor)).to_bytes(BLOCK)


def salamander(one: bytes, other: bytes, plaintext: bytes, *, aad: bytes, free: int) -> bytes:
    """A ciphertext ‖ tag valid under both keys; under `one` it opens to `plaintext` but for its block number `free`."""
    stream = keystream(one, len(plaintext))
    ciphertext = bytearray(a ^ b for a, b in zip(plaintext, stream, strict=True))
    first, second = (Polynomial(key, aad, bytes(ciphertext), free) for key in (one, other))
    block = multiply(first.rest ^ second.rest, inverse(first.factor ^ second.factor)).to_bytes(BLOCK)
    ciphertext[free * BLOCK : (free + 1) * BLOCK] = block
    assert first.tag(block) == second.tag(block)
    return bytes(ciphertext) + first.tag(block)


def stored_wire(header: bytes, data: bytes) -> bytes:
    """A record's wire whose DEFLATE stream is one stored block, in which any byte may change and it stays a record."""
    packed = msgspec.msgpack.encode(Plaintext(header=header, resources=[Resource(bytes(16), "", data)]))
    deflated = b"\x01" + len(packed).to_bytes(2, "little") + (0xFFFF ^ len(packed)).to_bytes(2, "little") + packed
    used = 4 + len(deflated)
    return len(deflated).to_bytes(4) + deflated + bytes(padme(used) - used)


def test_a_salamander_opens_for_nobody_but_to_the_signed_content(world: Any) -> None:
    submission = world.seal(1)
    manifest = world.manifests(submission)[0]
    record = bytes.fromhex(manifest.record)
    compartment = bytes.fromhex(manifest.compartment)
    master = world.verified(submission).open_owner_lock(world.owner_key)
    keys = SubmissionKeys(master)
    subjects = keys.content_key(record, compartment, manifest.epoch)
    false_secret = world.rand(32)
    readers = content_key(consent_key(false_secret, record), keys.release_key(record))
    aad = content_aad(
        network=manifest.network,
        subject=manifest.subject,
        author=manifest.author,
        record=manifest.record,
        compartment=manifest.compartment,
        epoch=manifest.epoch,
    )
    wire = stored_wire(encode(header_from({}, salt=bytes(16), resources=1)), b"x" * 400)
    ciphertext = salamander(subjects, readers, wire, aad=aad, free=10)

    # The salamander is real: AES-GCM finds nothing wrong with either key, and the two plaintexts differ.
    seen_by_subject = open_content(subjects, ciphertext, aad=aad)
    seen_by_reader = open_content(readers, ciphertext, aad=aad)
    assert seen_by_subject != seen_by_reader
    root = content_root(unpack_plaintext(seen_by_subject))

    lying = world.change_manifest(
        submission,
        0,
        ciphertext_hash=sha256(ciphertext).hexdigest(),
        ciphertext_length=len(ciphertext),
        content_root=root.hex(),
    )
    lock = world.lock(lying, "consent", compartment=manifest.compartment)
    info = lock_info(
        world.statement(lying), "consent", to=world.owner, compartment=manifest.compartment, epoch=manifest.epoch
    )
    public = SealingPublicKey(world.compartment_keys[manifest.compartment, manifest.epoch].public)
    lying = world.replace_lock(lying, msgspec.structs.replace(lock, box=public.seal(false_secret, info=info)))
    lying = msgspec.structs.replace(lying, ciphertexts=[ciphertext])
    for place in range(1, 5):
        assert world.check(lying, place=place), "custodians cannot see it"

    verified = world.verified(lying)
    assert world.secrets(verified)[manifest.compartment, manifest.epoch] == false_secret
    with pytest.raises(VerificationError) as refused:
        open_record(
            verified.records[0],
            shares=world.released(lying, (1, 2, 3, 4)),
            threshold=3,
            secrets=world.secrets(verified),
        )
    assert refused.value.code == "bad-seal"
    assert len(open_with_master(verified.records, master=master).records) == 1

    # And the subject, who alone sees both sides, finds the author out.
    with pytest.raises(VerificationError) as found:
        check_owner(verified, key=world.owner_key, compartment_keys=world.compartment_keys, threshold=3)
    assert found.value.code == "bad-owner-lock"
    assert found.value.details == {"consent": [manifest.compartment], "shares": []}


def test_a_salamander_split_over_custodians_is_refused_whichever_answer(world: Any) -> None:
    """The second key comes from shares: three custodians give the signed content, three others the other plaintext."""
    submission = world.seal(1)
    manifest = world.manifests(submission)[0]
    record = bytes.fromhex(manifest.record)
    compartment = bytes.fromhex(manifest.compartment)
    master = world.verified(submission).open_owner_lock(world.owner_key)
    keys = SubmissionKeys(master)
    from careledger.seal import combine, share_commitment

    shares = world.released(submission, (1, 2, 3, 4))
    false = world.rand(32) + b"\x04"
    consent = keys.consent_key(record, compartment, manifest.epoch)
    one = content_key(consent, keys.release_key(record))
    other = content_key(consent, combine([shares[2][record], shares[3][record], false]))
    aad = content_aad(
        network=manifest.network,
        subject=manifest.subject,
        author=manifest.author,
        record=manifest.record,
        compartment=manifest.compartment,
        epoch=manifest.epoch,
    )
    wire = stored_wire(encode(header_from({}, salt=bytes(16), resources=1)), b"y" * 300)
    ciphertext = salamander(one, other, wire, aad=aad, free=9)
    root = content_root(unpack_plaintext(open_content(one, ciphertext, aad=aad)))
    assert open_content(other, ciphertext, aad=aad) != wire
    commitments = [*manifest.shares[:3], share_commitment(record, false).hex()]
    lying = world.false_shares(submission, 4, lambda rows: [(r, c, false) for r, c, _ in rows])
    lying = world.change_manifest(
        lying,
        0,
        ciphertext_hash=sha256(ciphertext).hexdigest(),
        ciphertext_length=len(ciphertext),
        content_root=root.hex(),
        shares=commitments,
    )
    lying = msgspec.structs.replace(lying, ciphertexts=[ciphertext])
    for place in range(1, 5):
        assert world.check(lying, place=place)
    verified = world.verified(lying)
    secrets = world.secrets(verified)
    signed = open_record(verified.records[0], shares=world.released(lying, (1, 2, 3)), threshold=3, secrets=secrets)
    with pytest.raises(VerificationError) as refused:
        open_record(verified.records[0], shares=world.released(lying, (2, 3, 4)), threshold=3, secrets=secrets)
    assert refused.value.code == "bad-seal"
    both = open_record(verified.records[0], shares=world.released(lying, (4, 3, 2, 1)), threshold=3, secrets=secrets)
    assert both.plaintext == signed.plaintext, "there is one content that opens, whichever custodians answer"
