"""Makes vectors/tlog/*.json: our own cases with this package, the published ones from the Go modules that carry them.

    python tests/vectors/make_tlog.py [MODULES]

MODULES is a Go module cache that holds github.com/transparency-dev/merkle (both versions named below); without it only
our own files are written. The committed files are the reference: running this must not change them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

from careledger.tlog import (
    Checkpoint,
    Cosigner,
    Ed25519SigningKey,
    MemoryTree,
    Signer,
    cosign,
    encode_entries,
    entries_path,
    format_add_checkpoint,
    format_proof,
    leaf_hash,
    sign_checkpoint,
    skey,
    tail_of_entries,
    tile_path,
    tiles_for_growth,
)

HOW = "tests/vectors/make_tlog.py; entry i is 'careledger/entry/v1 keep ' + hex SHA-256('vector <i>')"
ROOT = Path(__file__).parents[2] / "vectors" / "tlog"
MERKLE_DATA = "github.com/transparency-dev/merkle@v0.0.3-0.20260707140218-77df88e508fa"
MERKLE_TREE = "github.com/transparency-dev/merkle@v0.0.2"


def entry(index: int) -> bytes:
    return b"careledger/entry/v1 keep " + hashlib.sha256(b"vector %d" % index).hexdigest().encode()


def write(name: str, content: dict[str, Any]) -> None:
    """JSON with one case a line, so that a change shows as one."""
    ROOT.mkdir(parents=True, exist_ok=True)

    def one(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    def many(value: object) -> str:
        if isinstance(value, list) and value:
            return "[\n  " + ",\n  ".join(one(item) for item in value) + "\n ]"
        return one(value)

    fields = [f"{one(key)}: {many(value)}" for key, value in content.items()]
    (ROOT / name).write_text("{\n " + ",\n ".join(fields) + "\n}\n")


def hexes(values: list[bytes]) -> list[str]:
    return [value.hex() for value in values]


def flip(value: bytes) -> bytes:
    return bytes([value[0] ^ 1]) + value[1:]


def corrupted_inclusion(case: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    proof, other = case["proof"], hashlib.sha256(b"other").hexdigest()
    changes: list[tuple[str, dict[str, Any]]] = [
        ("next index", {"index": case["index"] + 1}),
        ("larger tree", {"size": 2 * case["size"] + 1}),
        ("index outside", {"index": case["size"]}),
        ("other leaf", {"leaf_hash": other}),
        ("other root", {"root": other}),
        ("hash added at the end", {"proof": [*proof, other]}),
        ("hash added at the beginning", {"proof": [other, *proof]}),
    ]
    if proof:
        changes += [
            ("last hash missing", {"proof": proof[:-1]}),
            ("first hash missing", {"proof": proof[1:]}),
            ("bit flipped", {"proof": [flip(bytes.fromhex(proof[0])).hex(), *proof[1:]]}),
        ]
    if len(proof) > 1:
        changes.append(("order turned", {"proof": proof[::-1]}))
    return changes


def corrupted_consistency(case: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    proof, other = case["proof"], hashlib.sha256(b"other").hexdigest()
    changes: list[tuple[str, dict[str, Any]]] = [
        ("roots exchanged", {"old_root": case["new_root"], "new_root": case["old_root"]}),
        ("other old root", {"old_root": other}),
        ("other new root", {"new_root": other}),
        ("shrunken", {"old_size": case["new_size"] + 1}),
        ("hash added", {"proof": [*proof, other]}),
    ]
    if proof:
        changes += [("last hash missing", {"proof": proof[:-1]}), ("no proof", {"proof": []})]
        changes.append(("bit flipped", {"proof": [flip(bytes.fromhex(proof[-1])).hex(), *proof[:-1]]}))
    return [(what, change) for what, change in changes if {**case, **change} != case]


def make_proofs() -> None:
    inclusion: list[dict[str, Any]] = []
    consistency: list[dict[str, Any]] = []
    for size in [*range(1, 10), 16, 17, 255, 256, 257]:
        tree = MemoryTree([leaf_hash(entry(index)) for index in range(size)])
        for index in sorted({0, size // 2, size - 1}):
            good = {
                "index": index,
                "size": size,
                "leaf_hash": leaf_hash(entry(index)).hex(),
                "root": tree.root().hex(),
                "proof": hexes(tree.inclusion_proof(index)),
            }
            inclusion.append({"what": "right", "valid": True, **good})
            inclusion += [{"what": what, "valid": False, **good, **c} for what, c in corrupted_inclusion(good)]
        for old in sorted({1, size // 2, size - 1, size, 1 << (size.bit_length() - 1)} - {0}):
            good = {
                "old_size": old,
                "new_size": size,
                "old_root": tree.root(old).hex(),
                "new_root": tree.root().hex(),
                "proof": hexes(tree.consistency_proof(old)),
            }
            consistency.append({"what": "right", "valid": True, **good})
            consistency += [{"what": what, "valid": False, **good, **c} for what, c in corrupted_consistency(good)]
    write(
        "proofs.json",
        {
            "source": "careledger",
            "section": "docs/spec/log.md, Tree; RFC 6962 sections 2.1.1 and 2.1.2",
            "how_made": f"{HOW}; verdicts compared with transparency-dev/merkle and x/mod/sumdb/tlog in tests/interop",
            "inclusion": inclusion,
            "consistency": consistency,
        },
    )


def make_tiles() -> None:
    size = 70_000
    entries = [entry(index) for index in range(size)]
    tail, files = tail_of_entries(entries)
    tree = MemoryTree([leaf_hash(data) for data in entries])
    sizes = [0, 1, 2, 3, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, size]
    numbers = [0, 7, 255, 256, 999, 1000, 1_234_067, 999_999_999]
    names = [n for n in files if re.search(r"/(000|001|255|273)(\.p/\d+)?$", n)]
    write(
        "tiles.json",
        {
            "source": "careledger",
            "section": "docs/spec/log.md, Tiles; C2SP tlog-tiles",
            "how_made": HOW,
            "paths": [
                {
                    "level": level,
                    "index": n,
                    "width": width,
                    "tile": tile_path(level, n, width),
                    "entries": entries_path(n, width),
                }
                for n in numbers
                for level, width in ((0, 256), (5, 17))
            ],
            "growth": [
                {"old": old, "new": new, "tiles": [tile.path for tile in tiles_for_growth(old, new)]}
                for old, new in [
                    (0, 1),
                    (1, 2),
                    (0, 256),
                    (255, 257),
                    (256, 256),
                    (0, 600),
                    (65_535, 65_537),
                    (69_999, size),
                ]
            ],
            "roots": [{"size": n, "root": tree.root(n).hex()} for n in sizes],
            "files": {
                "size": size,
                "count": len(files),
                "sha256": {n: hashlib.sha256(files[n]).hexdigest() for n in names},
            },
            "bundles": [
                {"entries": ["", "00", "616263"], "bundle": encode_entries([b"", b"\0", b"abc"]).hex(), "valid": True},
                {"bundle": "", "entries": [], "valid": True},
                {"bundle": "00", "valid": False},
                {"bundle": "000361", "valid": False},
                {"bundle": "000161ff", "valid": False},
                {"bundle": "0000" * 257, "valid": False},
            ],
        },
    )
    assert tail.root() == tree.root()


def make_notes() -> None:
    origin = "0123456789abcdef/cl1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs23v9ccrydpk8qarc0s7hl3w5"
    log = Signer(origin, Ed25519SigningKey(hashlib.sha256(b"vector log key").digest()))
    witness = Cosigner("0123456789abcdef/cl1witness", Ed25519SigningKey(hashlib.sha256(b"vector witness key").digest()))
    tree = MemoryTree([leaf_hash(entry(index)) for index in range(1000)])
    old = Checkpoint(origin, 600, tree.root(600))
    new = Checkpoint(origin, 1000, tree.root())
    extended = Checkpoint(origin, 1000, tree.root(), ("an extension line", "another"))
    line = cosign(new.text, signer=witness, now_s=1_800_000_000)
    signed = sign_checkpoint(new, signer=log)
    proof = format_proof(999, tree.inclusion_proof(999), signed + line, b"salt")
    add = format_add_checkpoint(600, tree.consistency_proof(600), signed)
    write(
        "notes.json",
        {
            "source": "careledger",
            "section": "docs/spec/log.md; C2SP signed-note, tlog-{checkpoint,cosignature,proof,witness}",
            "how_made": "tests/vectors/make_tlog.py; seeds are SHA-256 of 'vector log key' and 'vector witness key'",
            "log": {"seed": log.key.seed.hex(), "vkey": log.vkey, "skey": skey(origin, log.key.seed)},
            "witness": {"seed": witness.key.seed.hex(), "vkey": witness.vkey, "time_s": 1_800_000_000},
            "checkpoints": [
                {
                    "size": c.size,
                    "root": c.root.hex(),
                    "extensions": list(c.extensions),
                    "note": sign_checkpoint(c, signer=log).decode(),
                }
                for c in (old, new, extended)
            ],
            "cosigned": (signed + line).decode(),
            "cosignature": line.decode(),
            "proof": {"leaf": entry(999).decode(), "index": 999, "text": proof.decode()},
            "add_checkpoint": {"old_size": 600, "old_root": old.root.hex(), "body": add.decode()},
            "published": {
                "source": "golang.org/x/mod v0.43.0, sumdb/note/example_test.go (BSD-3-Clause)",
                "vkey": "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
                "skey": "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz",
                "note": "If you think cryptography is the answer to your problem,\n"
                "then you don't know what your problem is.\n\n"
                "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngot"
                "pRZb6KE6RyyBwJnAM=\n",
                "refused_vkeys": [
                    "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
                    "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
                ],
            },
            "refused": refused(origin, signed.decode(), proof.decode(), add.decode()),
        },
    )


def refused(origin: str, note: str, proof: str, add: str) -> list[dict[str, str]]:
    """Texts that a strict reader must refuse, with the reason code."""
    note_cases = [
        ("no signature", "bad-note", note.partition("\n\n")[0] + "\n\n"),
        ("no empty line", "bad-note", note.replace("\n\n", "\n")),
        ("no newline at the end", "bad-note", note[:-1]),
        ("a carriage return", "bad-note", note.replace("\n", "\r\n", 1)),
        ("a hyphen for the dash", "bad-note", note.replace("— ", "- ")),
        ("signature without padding", "bad-base64", note[:-2] + "\n" if note.endswith("=\n") else note[:-5] + "\n"),
        ("two spaces", "bad-base64", note.replace("— " + origin + " ", "— " + origin + "  ")),
        ("size with a leading zero", "bad-number", note.replace("\n1000\n", "\n01000\n")),
        ("negative size", "bad-number", note.replace("\n1000\n", "\n-1000\n")),
        ("size of 2^63", "bad-number", note.replace("\n1000\n", "\n9223372036854775808\n")),
        ("size in other digits", "bad-number", note.replace("\n1000\n", "\n١٠٠٠\n")),
        ("short root", "bad-base64", re.sub(r"\n1000\n.*\n", "\n1000\nAAAA\n", note)),
        ("root with trailing bits", "bad-base64", re.sub(r"\n1000\n(.*).=\n", "\n1000\n\\1B=\n", note)),
        ("empty origin", "bad-checkpoint", note.replace(origin + "\n", "\n", 1)),
        ("no root", "bad-checkpoint", re.sub(r"\n1000\n.*\n", "\n1000\n", note)),
    ]
    proof_cases = [
        ("other version", "bad-tlog-proof", proof.replace("proof@v1", "proof@v2")),
        ("no index", "bad-tlog-proof", proof.replace("index 999\n", "")),
        ("index with a leading zero", "bad-number", proof.replace("index 999", "index 0999")),
        ("empty extra", "bad-tlog-proof", re.sub("extra .*", "extra ", proof)),
        ("short hash", "bad-base64", proof.replace("index 999\n", "index 999\nAAAA\n")),
        ("64 hashes", "bad-tlog-proof", proof.replace("index 999\n", "index 999\n" + ("A" * 43 + "=\n") * 64)),
    ]
    add_cases = [
        ("no old size", "bad-add-checkpoint", add.partition("\n")[2]),
        ("old size with a leading zero", "bad-number", add.replace("old 600", "old 0600")),
        ("old size above the checkpoint's", "bad-add-checkpoint", add.replace("old 600", "old 1001")),
        ("64 hashes", "bad-add-checkpoint", add.replace("old 600\n", "old 600\n" + ("A" * 43 + "=\n") * 64)),
        ("no empty line", "bad-add-checkpoint", add.replace("\n\n", "\n")),
    ]
    groups = (("checkpoint", note_cases), ("proof", proof_cases), ("add-checkpoint", add_cases))
    return [{"format": f, "what": w, "code": c, "text": t} for f, cases in groups for w, c, t in cases]


def published_cases(modules: Path) -> None:
    """The 196 test files of transparency-dev/merkle, hashes as hex."""
    folder = modules / MERKLE_DATA / "testdata"

    def hex_of(text: str | None) -> str:
        return base64.b64decode(text or "").hex()

    def cases(kind: str, names: dict[str, str]) -> list[dict[str, Any]]:
        found = []
        for path in sorted((folder / kind).rglob("*.json")):
            data = json.loads(path.read_text())
            case: dict[str, Any] = {
                "file": str(path.relative_to(folder)),
                "what": data["desc"],
                "valid": not data["wantErr"],
            }
            for theirs, ours in names.items():
                case[ours] = data[theirs] if isinstance(data[theirs], int) else hex_of(data[theirs])
            found.append({**case, "proof": [hex_of(value) for value in data["proof"] or []]})
        return found

    write(
        "published-proofs.json",
        {
            "source": MERKLE_DATA + ", testdata/inclusion and testdata/consistency; Apache-2.0, Google LLC and others",
            "section": "RFC 6962 sections 2.1.1 and 2.1.2",
            "how_made": "copied; base64 turned into hex. One has roots that aren't 32 bytes: we refuse it (stricter)",
            "inclusion": cases(
                "inclusion", {"leafIdx": "index", "treeSize": "size", "leafHash": "leaf_hash", "root": "root"}
            ),
            "consistency": cases(
                "consistency", {"size1": "old_size", "size2": "new_size", "root1": "old_root", "root2": "new_root"}
            ),
        },
    )


def published_tree(modules: Path) -> None:
    """The eight-leaf reference tree that Certificate Transparency's implementations share."""
    text = (modules / MERKLE_TREE / "proof" / "verify_test.go").read_text()

    def block(name: str) -> str:
        return text.split(f"\t{name} = ", 1)[1].split("\n\t}\n", 1)[0]

    def values(part: str) -> list[str]:
        return re.findall(r'dh\("([0-9a-f]*)"', part)

    def proofs(name: str) -> list[tuple[int, int, list[str]]]:
        items = re.findall(r"\{(\d+), (\d+), (nil|\[\]\[\]byte\{(?:[^{}]*)\})\}", block(name))
        return [(int(a), int(b), values(c)) for a, b, c in items]

    write(
        "published-tree.json",
        {
            "source": MERKLE_TREE + ", proof/verify_test.go; Apache-2.0, Google LLC",
            "section": "RFC 6962 section 2.1",
            "how_made": "copied; leaf numbers there count from 1, here from 0 (the case 0 of 0 is left out)",
            "leaves": values(block("leaves")),
            "roots": values(block("roots")),
            "inclusion": [{"index": a - 1, "size": b, "proof": p} for a, b, p in proofs("inclusionProofs") if a],
            "consistency": [{"old_size": a, "new_size": b, "proof": p} for a, b, p in proofs("consistencyProofs")],
        },
    )


if __name__ == "__main__":
    make_proofs()
    make_tiles()
    make_notes()
    if len(sys.argv) > 1:
        published_cases(Path(sys.argv[1]))
        published_tree(Path(sys.argv[1]))
