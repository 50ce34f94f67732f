"""What of careledger.seal reads bytes from outside: only careledger.errors.Error may come out of it.

Each target takes arbitrary bytes; where something is accepted, it also asserts what acceptance promises.
"""

from collections.abc import Callable
from typing import Any

import careledger.seal as seal
from careledger.errors import Error

KIND = "application/vnd.careledger.test+json"
SIGNERS = [(f"cl1{name}#0", seal.SigningKey(name.encode() * 32)) for name in "ab"]
KEYS = {keyid: seal.VerifyKey(key.public) for keyid, key in SIGNERS}
RECIPIENT = seal.SealingKey(bytes(32))
INFO = b'{"network":"n","use":"key-box","v":1}'
AEAD_KEY = bytes(range(32))


class Sample(seal.Payload, frozen=True, kw_only=True):
    v: int
    name: str
    keys: list[seal.Key]
    more: dict[str, bool]


def canonical_any(data: bytes) -> None:
    assert seal.encode(seal.decode(data, Any)) == data


def canonical_struct(data: bytes) -> None:
    assert seal.encode(seal.decode(data, Sample)) == data


def canonical_text(data: bytes) -> None:
    """Text from people, lone surrogates included."""
    seal.encode(data.decode("utf-8", "surrogateescape"))


def base64url(data: bytes) -> None:
    text = data.decode("latin-1")
    assert seal.b64(seal.unb64(text)) == text


def hexadecimal(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    assert seal.unhex(text, size=len(text) // 2).hex() == text


def keyid(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    assert seal.keyid(*seal.parse_keyid(text)) == text


def key_list(data: bytes) -> None:
    keys = seal.decode(data, list[seal.Key])
    for read in (seal.signing_keys, seal.sealing_key):
        try:
            read(keys)
        except Error:
            continue


def envelope(data: bytes) -> None:
    read = seal.decode(data, seal.Envelope)
    assert len(seal.envelope_message_id(read)) == 32
    payload = seal.verify(read, payload_type=KIND, keys=KEYS)
    assert seal.message_id(KIND, payload) == seal.envelope_message_id(read)


def verify_key(data: bytes) -> None:
    seal.VerifyKey(data[:32]).verify(data[32:96], data[96:])


def sealing_public_key(data: bytes) -> None:
    wire = seal.SealingPublicKey(data).seal(b"plaintext", info=INFO)
    assert len(wire) == 1136 + len(b"plaintext")


def hpke_open(data: bytes) -> None:
    RECIPIENT.open(data, info=INFO)


def content_open(data: bytes) -> None:
    plaintext = seal.open_content(AEAD_KEY, data, aad=b"")
    assert seal.seal_content(AEAD_KEY, plaintext, aad=b"") == data


def random_open(data: bytes) -> None:
    plaintext = seal.open_random(AEAD_KEY, data, aad=b"")
    assert seal.seal_random(AEAD_KEY, plaintext, aad=b"", rand=lambda size: data[:size]) == data


def shares(data: bytes) -> None:
    """The first byte says how long a share is, the rest is shares."""
    if not data:
        return
    size = data[0] % 40
    read = [data[i : i + size] for i in range(1, len(data), size or 1)]
    assert len(seal.combine(read)) == len(read[0]) - 1


def passphrase(data: bytes) -> None:
    """Costs from a key box, then the passphrase; what is allowed is kept cheap."""
    if len(data) < 8:
        return
    memory_kib, iterations, lanes = int.from_bytes(data[:4]), data[4], data[5]
    if memory_kib <= 1 << 20 and (memory_kib > 64 or iterations > 2):
        return
    text = data[6:].decode("utf-8", "surrogateescape")
    key = seal.passphrase_key(text, salt=bytes(16), memory_kib=memory_kib, iterations=iterations, lanes=lanes)
    assert len(key) == 32


_SIGNED = seal.encode(seal.sign(KIND, b"{}", SIGNERS))
_KEYS = [seal.Key.sign(SIGNERS[0][1].public), seal.Key.seal(RECIPIENT.public)]
_SHARES = seal.split(bytes(32), n=3, t=2, coefficients=[bytes(range(32))])

TARGETS: dict[str, Callable[[bytes], None]] = {
    "seal_canonical_any": canonical_any,
    "seal_canonical_struct": canonical_struct,
    "seal_canonical_text": canonical_text,
    "seal_base64url": base64url,
    "seal_hex": hexadecimal,
    "seal_keyid": keyid,
    "seal_key_list": key_list,
    "seal_envelope": envelope,
    "seal_verify_key": verify_key,
    "seal_sealing_public_key": sealing_public_key,
    "seal_hpke_open": hpke_open,
    "seal_content_open": content_open,
    "seal_random_open": random_open,
    "seal_shares": shares,
    "seal_passphrase": passphrase,
}

SEEDS: dict[str, list[bytes]] = {
    "seal_canonical_any": [
        b'{"a":[1,"x",true,{}],"b":-9007199254740991}',
        b'"\\u0000\\n"',
        b"null",
        b"1.5",
        b"[" * 2000,
    ],
    "seal_canonical_struct": [seal.encode(Sample(v=1, name="Zoë", keys=_KEYS, more={"a": True}))],
    "seal_canonical_text": [b"plain", b"\xff\xfe", "Zoë".encode()],
    "seal_base64url": [b"", b"AA", b"AB", b"AAA", b"AA==", b"A"],
    "seal_hex": [b"", b"00ff", b"0F", b"0"],
    "seal_keyid": [b"cl1abc#0", b"cl1abc#9007199254740991", b"a#01"],
    "seal_key_list": [seal.encode(_KEYS), seal.encode([seal.Key(alg="ML-DSA-65", pub="AA")]), b"[]"],
    "seal_envelope": [_SIGNED, _SIGNED.replace(b"#0", b"#1")],
    "seal_verify_key": [SIGNERS[0][1].public + SIGNERS[0][1].sign(b"message") + b"message", bytes(96)],
    "seal_sealing_public_key": [RECIPIENT.public, bytes(1216)],
    "seal_hpke_open": [seal.SealingPublicKey(RECIPIENT.public).seal(b"plaintext", info=INFO), bytes(1136)],
    "seal_content_open": [seal.seal_content(AEAD_KEY, b"plaintext", aad=b"")],
    "seal_random_open": [seal.seal_random(AEAD_KEY, b"plaintext", aad=b"", rand=bytes)],
    "seal_shares": [b"\x21" + b"".join(_SHARES), b"\x00\x00", b"\x02\x05\x01\x06\x01"],
    "seal_passphrase": [
        b"\x00\x00\x00\x08\x01\x01word",
        b"\xff\xff\xff\xff\x01\x01word",
        b"\x00\x00\x00\x10\x02\x02\xff",
    ],
}
