"""Makes vectors/records/ (all but submission.json and attacks.json): a second implementation of docs/spec/records.md.

Imports nothing of careledger. HKDF, GF(2^8), MessagePack, the Merkle tree and Padmé are written out here; SHA-256,
HMAC, JSON and zlib are Python's, AES-GCM is pyca/cryptography's. Where zlib is the same it writes the same files again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import zlib
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FOLDER = Path(__file__).parents[2] / "vectors" / "records"
HOW = (
    "tests/vectors/make_records.py, a second implementation: Python's hashlib, hmac, json and zlib; HKDF, MessagePack, "
    "Merkle tree, Padmé and GF(2^8) written by hand; AES-GCM of pyca/cryptography 50.0.2; bytes are lower-case hex"
)
rand = random.Random(20240).randbytes

NETWORK = hashlib.sha256(b"vectors network").digest()
SUBJECT, AUTHOR = "cl1qqqsubject0000", "cl1qqqauthor00000"
SUBMISSION = rand(16)


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def kdf(ikm: bytes, use: str, *parts: bytes | int) -> bytes:
    prk = hmac.new(bytes(32), ikm, hashlib.sha256).digest()
    info = f"careledger/{use}/v1".encode()
    for part in parts:
        data = part.to_bytes(4, "big") if isinstance(part, int) else part
        info += len(data).to_bytes(2, "big") + data
    return hmac.new(prk, info + b"\x01", hashlib.sha256).digest()


def times(a: int, b: int) -> int:
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def leaf(value: bytes) -> bytes:
    return sha(b"\0" + value)


def middle(count: int) -> int:
    half = 1
    while half * 2 < count:
        half *= 2
    return half


def root_of(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    half = middle(len(leaves))
    return sha(b"\1" + root_of(leaves[:half]) + root_of(leaves[half:]))


def proof_of(index: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    half = middle(len(leaves))
    if index < half:
        return [*proof_of(index, leaves[:half]), root_of(leaves[half:])]
    return [*proof_of(index - half, leaves[half:]), root_of(leaves[:half])]


def padme(size: int) -> int:
    if size < 2:
        return size
    exponent = size.bit_length() - 1
    free = exponent - exponent.bit_length()
    return ((size + (1 << free) - 1) >> free) << free


def pack(value: Any) -> bytes:
    """MessagePack in its shortest form."""
    if value is None:
        return b"\xc0"
    if isinstance(value, int):
        for limit, head, size in ((1 << 7, b"", 1), (1 << 8, b"\xcc", 1), (1 << 16, b"\xcd", 2), (1 << 32, b"\xce", 4)):
            if value < limit:
                return head + value.to_bytes(size, "big")
    if isinstance(value, bytes):
        return _head(len(value), None, (b"\xc4", b"\xc5", b"\xc6")) + value
    if isinstance(value, str):
        data = value.encode()
        return _head(len(data), (32, 0xA0), (b"\xd9", b"\xda", b"\xdb")) + data
    return _head(len(value), (16, 0x90), (None, b"\xdc", b"\xdd")) + b"".join(map(pack, value))


def _head(size: int, small: tuple[int, int] | None, heads: tuple[bytes | None, bytes, bytes]) -> bytes:
    if small is not None and size < small[0]:
        return bytes([small[1] | size])
    for head, width in zip(heads, (1, 2, 4), strict=True):
        if head is not None and size < 1 << 8 * width:
            return head + size.to_bytes(width, "big")
    raise AssertionError(size)


def deflate(data: bytes, level: int = 9) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    return compressor.compress(data) + compressor.flush()


def wire(deflated: bytes) -> bytes:
    used = 4 + len(deflated)
    return len(deflated).to_bytes(4, "big") + deflated + bytes(padme(used) - used)


def write(name: str, section: str, vectors: list[dict[str, Any]], **more: Any) -> None:
    content = {
        "source": "careledger",
        "section": f"docs/spec/records.md section {section}",
        "how_made": HOW,
        "licence": "Apache-2.0, part of careledger",
        "vectors": vectors,
        **more,
    }
    (FOLDER / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def record_id(network: bytes, subject: str, author: str, submission: bytes, index: int) -> bytes:
    text = subject.encode() + author.encode()
    return sha(b"careledger/record/v1" + network + text + submission + index.to_bytes(4, "big"))[:16]


def ids() -> None:
    cases = [
        (NETWORK, SUBJECT, AUTHOR, SUBMISSION, 0),
        (NETWORK, SUBJECT, AUTHOR, SUBMISSION, 1),
        (NETWORK, SUBJECT, AUTHOR, SUBMISSION, 2**32 - 1),
        (bytes(32), SUBJECT, AUTHOR, SUBMISSION, 0),
        (NETWORK, AUTHOR, SUBJECT, SUBMISSION, 0),
        (NETWORK, SUBJECT, AUTHOR, bytes(16), 0),
    ]
    write(
        "ids.json",
        "2",
        [
            {
                "network": network.hex(),
                "subject": subject,
                "author": author,
                "submission": submission.hex(),
                "index": index,
                "record": record_id(network, subject, author, submission, index).hex(),
            }
            for network, subject, author, submission, index in cases
        ],
    )


def keys() -> None:
    vectors = []
    for n, t, epoch in ((4, 3, 1), (1, 1, 0), (3, 2, 7), (7, 5, 4294967295), (16, 11, 2)):
        master, compartment, record = rand(32), rand(16), rand(16)
        secret = kdf(master, "consent-compartment", compartment, epoch)
        release = kdf(master, "release", record)
        consent = kdf(secret, "consent-record", record)
        coefficients = [kdf(master, "shamir", record, j) for j in range(1, t)]
        shares = []
        for x in range(1, n + 1):
            y = bytearray()
            for at in range(32):
                value = 0
                for row in reversed([release, *coefficients]):
                    value = times(value, x) ^ row[at]
                y.append(value)
            shares.append(bytes(y) + bytes([x]))
        vectors.append(
            {
                "master": master.hex(),
                "record": record.hex(),
                "compartment": compartment.hex(),
                "epoch": epoch,
                "n": n,
                "t": t,
                "release_key": release.hex(),
                "compartment_secret": secret.hex(),
                "consent_key": consent.hex(),
                "content_key": kdf(consent + release, "content").hex(),
                "coefficients": [one.hex() for one in coefficients],
                "shares": [share.hex() for share in shares],
                "commitments": [
                    sha(b"careledger/share/v1" + record + share[32:] + share[:32]).hex() for share in shares
                ],
            }
        )
    write("keys.json", "3", vectors)


def sizes() -> None:
    powers = [
        size + d for exponent in (3, 4, 5, 6, 7, 8, 10, 12, 16, 20) for size in (1 << exponent,) for d in (-1, 0, 1)
    ]
    write(
        "padme.json",
        "4",
        [{"size": size, "padded": padme(size)} for size in (0, 1, 2, 3, *powers, 100, 200, 1000, 100_000, 17_000_000)],
    )


def ciphertexts() -> None:
    vectors = []
    for author, epoch in ((AUTHOR + "#0", 1), (AUTHOR + "#12", 4294967295)):
        fields: dict[str, Any] = {
            "network": NETWORK.hex(),
            "subject": SUBJECT,
            "author": author,
            "record": rand(16).hex(),
            "compartment": rand(16).hex(),
            "epoch": epoch,
        }
        key, plaintext = rand(32), rand(64)
        aad = sha(canonical(fields))
        vectors.append(
            {
                **fields,
                "json": canonical(fields).decode(),
                "aad": aad.hex(),
                "content_key": key.hex(),
                "plaintext": plaintext.hex(),
                "ciphertext": AESGCM(key).encrypt(bytes(12), plaintext, aad).hex(),
            }
        )
    write("ciphertext.json", "3", vectors)


FULL_HEADER = {
    "import": "9b" * 16,
    "source": "https://ehr.example/fhir",
    "subject_url": "urn:uuid:9c1b",
    "category": 1,
    "labels": ["http://terminology.hl7.org/CodeSystem/v3-Confidentiality|R"],
    "basis": ["42CFRPart2"],
    "travelling": [2],
    "warnings": [{"resource": 0, "code": "no-status", "path": "Observation", "severity": "warning"}],
    "encounter": "urn:uuid:77",
    "interaction": {
        "start": "2020-02-29T10:00:00+01:00",
        "end": "2020-02-29",
        "class": "VR",
        "kind": "Überprüfung",
        "places": {"clinician": "urn:uuid:place"},
    },
    "contributors": [
        {"token": AUTHOR, "parts": 700, "role": "author"},
        {"name": "Practitioner/7", "parts": 300},
    ],
}
UNICODE = '{\n  "resourceType": "Patient",\r\n  "name": [{"family": "Ünïcøde \U0001f9ec"}]\n}'


def plaintext(fields: dict[str, Any], resources: list[tuple[str, bytes]], levels: tuple[int, ...]) -> list[Any]:
    header = canonical({"v": 1, "salt": base64url(rand(16)), **fields})
    salted = [(rand(16), url, data) for url, data in resources]
    hashes = [sha(salt + len(url.encode()).to_bytes(2, "big") + url.encode() + data) for salt, url, data in salted]
    leaves = [leaf(one) for one in (sha(header), *hashes)]
    packed = pack([header, [list(one) for one in salted]])
    return [
        {
            "header": header.decode(),
            "resources": [{"salt": salt.hex(), "full_url": url, "data": data.hex()} for salt, url, data in salted],
            "header_hash": sha(header).hex(),
            "resource_hashes": [one.hex() for one in hashes],
            "content_root": root_of(leaves).hex(),
            "content_proofs": [[one.hex() for one in proof_of(index, leaves)] for index in range(len(leaves))],
            "packed": packed.hex(),
            "deflate_level": level,
            "wire": wire(deflate(packed, level)).hex(),
        }
        for level in levels
    ]


def plaintexts() -> None:
    full = [
        ("urn:uuid:0", b'{"resourceType":"Observation","valueQuantity":{"value":1.10}}'),
        ("", UNICODE.encode()),
        ("https://ehr.example/fhir/Practitioner/ü", b'{"resourceType":"Practitioner"}'),
    ]
    many = [(f"urn:uuid:{number}", rand(40).hex().encode() * 3) for number in range(17)]
    empty = plaintext({}, [], (6,))
    vectors = [
        *empty,
        *plaintext(FULL_HEADER, full, (0, 1, 9)),
        *plaintext({"import": "00" * 16}, many, (6,)),
    ]
    packed = bytes.fromhex(empty[0]["packed"])
    deflated = deflate(bytes.fromhex(vectors[1]["packed"]))
    good = wire(deflated)
    assert len(good) > 4 + len(deflated), "the example has padding"
    url = b"\xdb" + (1 << 16).to_bytes(4, "big") + b"u" * (1 << 16)
    refused = [
        ("padding that is not zero", good[:-1] + b"\1", "bad-plaintext"),
        ("one zero too many", good + b"\0", "bad-plaintext"),
        ("one zero too few", good[:-1], "bad-plaintext"),
        ("a byte after the DEFLATE stream", wire(deflated + b"\0"), "bad-plaintext"),
        ("a DEFLATE stream without its end", wire(deflated[:-1]), "bad-plaintext"),
        ("empty", b"", "bad-plaintext"),
        ("no DEFLATE stream", wire(b"\xff" * 20), "bad-plaintext"),
        ("MessagePack followed by a byte", wire(deflate(packed + b"\0")), "bad-plaintext"),
        ("an array header longer than needed", wire(deflate(b"\xdc\0\2" + packed[1:])), "bad-plaintext"),
        ("a salt of 15 bytes", wire(deflate(pack([b"{}", [[bytes(15), "", b""]]]))), "bad-plaintext"),
        (
            "a fullUrl of 65536 bytes",
            wire(deflate(b"\x92" + pack(b"{}") + b"\x91\x93" + pack(bytes(16)) + url + pack(b""))),
            "bad-plaintext",
        ),
        ("inflates to one byte more than 16 MiB", wire(deflate(bytes((16 << 20) + 1))), "too-large"),
    ]
    write(
        "plaintext.json",
        "4",
        vectors,
        refused=[{"why": why, "wire": data.hex(), "code": code} for why, data, code in refused],
    )


def leaves() -> None:
    vectors = []
    for tree, count, size in (("manifests", 1, 8), ("locks", 7, 8), ("manifests", 8, 8), ("manifests", 9, 16)):
        seed, values = rand(32), [rand(32) for _ in range(count)]
        fillers = [
            sha(b"careledger/filler/v1" + seed + tree.encode() + number.to_bytes(4, "big"))
            for number in range(size - count)
        ]
        order = [*values, *fillers]
        random.Random(count).shuffle(order)
        hashes = [leaf(value) for value in order]
        positions = [order.index(value) for value in values]
        vectors.append(
            {
                "tree": tree,
                "seed": seed.hex(),
                "values": [one.hex() for one in values],
                "fillers": [one.hex() for one in fillers],
                "leaves": [one.hex() for one in order],
                "root": root_of(hashes).hex(),
                "positions": positions,
                "proofs": [[one.hex() for one in proof_of(position, hashes)] for position in positions],
            }
        )
    write("leaves.json", "6", vectors)


def locks() -> None:
    vectors = []
    for use, compartment, epoch, to in (
        ("owner", None, None, SUBJECT + "#3"),
        ("consent", rand(16).hex(), 1, SUBJECT + "#3"),
        ("consent", rand(16).hex(), 4294967295, SUBJECT + "#0"),
        ("release", None, None, "cl1qqqcustodian#4"),
    ):
        box = rand(300)
        data = pack([use, compartment, epoch, to, box])
        bound = {"network": NETWORK.hex(), "subject": SUBJECT, "author": AUTHOR + "#0", "submission": SUBMISSION.hex()}
        place = {} if compartment is None else {"compartment": compartment, "epoch": epoch}
        vectors.append(
            {
                **bound,
                "use": use,
                "compartment": compartment,
                "epoch": epoch,
                "to": to,
                "box": box.hex(),
                "lock": data.hex(),
                "leaf": sha(data).hex(),
                "info": canonical({"v": 1, "use": use, "to": to, **bound, **place}).decode(),
            }
        )
    rows = [[rand(16), rand(16), rand(33)] for _ in range(3)]
    shares = [{"rows": [[one.hex() for one in row] for row in rows], "content": pack(rows).hex()}]
    write("locks.json", "7", vectors, shares=shares)


if __name__ == "__main__":
    for make in (ids, keys, sizes, ciphertexts, plaintexts, leaves, locks):
        make()
