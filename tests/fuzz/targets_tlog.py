"""What of careledger.tlog reads bytes from outside: only careledger.errors.Error may come out of it.

Each target takes arbitrary bytes; where something is accepted, it also asserts what acceptance promises: that it is
written the same again, or that it is what was really logged.
"""

from collections.abc import Callable

from careledger import tlog
from careledger.errors import Error, NotFoundError

LOG = tlog.Signer("0123456789abcdef/cl1log", tlog.Ed25519SigningKey(bytes(range(32))))
WITNESS = tlog.Cosigner("witness.example/w1", tlog.Ed25519SigningKey(bytes(range(1, 33))))
ENTRIES = [b"entry %d" % index for index in range(300)]
TREE = tlog.MemoryTree(tlog.leaf_hashes_of(ENTRIES))
TAIL, FILES = tlog.tail_of_entries(ENTRIES)
SIZE, ROOT = TAIL.size, TAIL.root()
CHECKPOINT = tlog.Checkpoint(LOG.name, SIZE, ROOT)
NOTE = tlog.sign_checkpoint(CHECKPOINT, signer=LOG)
COSIGNATURE = tlog.cosign(CHECKPOINT.text, signer=WITNESS, now_s=1_800_000_000)
OLD = tlog.sign_checkpoint(tlog.Checkpoint(LOG.name, 100, TREE.root(100)), signer=LOG)


def bundle(data: bytes) -> None:
    assert tlog.encode_entries(tlog.decode_entries(data)) == data


def tile(data: bytes) -> None:
    width = min(256, len(data) // 32) or 1
    assert b"".join(tlog.decode_tile(data, width=width)) == data


def vkey(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    assert tlog.parse_vkey(text).vkey == text


def skey(data: bytes) -> None:
    tlog.parse_skey(data.decode("utf-8", "surrogateescape"))


def note(data: bytes) -> None:
    read = tlog.open_note(data, verifiers=[LOG.verifier, WITNESS.verifier])
    assert read.text.endswith(b"\n")


def unverified_checkpoint(data: bytes) -> None:
    read = tlog.parse_unverified_checkpoint(data)
    assert data.startswith(read.text + b"\n")


def checkpoint(data: bytes) -> None:
    assert tlog.open_checkpoint(data, verifier=LOG.verifier) in (CHECKPOINT, tlog.parse_unverified_checkpoint(OLD))


def cosigned(data: bytes) -> None:
    read, times = tlog.open_cosigned(data, verifier=LOG.verifier, witnesses=[WITNESS.verifier])
    assert read == CHECKPOINT or not times


def cosignature(data: bytes) -> None:
    tlog.verify_cosignature(data, checkpoint_text=CHECKPOINT.text, verifier=WITNESS.verifier)


def proof(data: bytes) -> None:
    read = tlog.parse_proof(data)
    assert tlog.format_proof(read.index, read.hashes, read.checkpoint, read.extra) == data


def verified_proof(data: bytes) -> None:
    assert tlog.verify_proof(data, leaf=ENTRIES[42], verifier=LOG.verifier)[1] == 42


def add_checkpoint(data: bytes) -> None:
    request = tlog.parse_add_checkpoint(data)
    assert tlog.format_add_checkpoint(request.old_size, request.proof, request.checkpoint) == data
    state, _ = tlog.cosign_if_consistent(
        (100, TREE.root(100)), request, log_verifier=LOG.verifier, signer=WITNESS, now_s=1
    )
    assert state in ((100, TREE.root(100)), (SIZE, ROOT))


def wrong_size(data: bytes) -> None:
    assert tlog.parse_wrong_size_body(data) >= 0


def inclusion(data: bytes) -> None:
    """The first byte is the index, the rest hashes."""
    if not data:
        return
    hashes = [data[at : at + 32] for at in range(1, len(data), 32)]
    leaf = TREE.hash_at(0, data[0])
    tlog.verify_inclusion(index=data[0], size=SIZE, leaf_hash=leaf, proof=hashes, root=ROOT)
    assert hashes == TREE.inclusion_proof(data[0])


def consistency(data: bytes) -> None:
    """The first byte is the old size, the rest hashes."""
    if not data:
        return
    hashes = [data[at : at + 32] for at in range(1, len(data), 32)]
    tlog.verify_consistency(old_size=data[0], old_root=TREE.root(data[0]), new_size=SIZE, new_root=ROOT, proof=hashes)
    assert hashes == TREE.consistency_proof(data[0])


def log_files(data: bytes) -> None:
    """One file of a log replaced: the first byte says which. Nothing but its own bytes passes."""
    if not data:
        return
    path = sorted(FILES)[data[0] % len(FILES)]
    files = {**FILES, path: data[1:]}

    def fetch(name: str) -> bytes:
        try:
            return files[name]
        except KeyError:
            raise NotFoundError("no-tile", "not in this log") from None

    read = [entry for _, entries in tlog.verified_bundles(fetch, size=SIZE, root=ROOT) for entry in entries]
    assert read == ENTRIES
    assert data[1:] == FILES[path]
    try:
        tlog.LogTail.restore(fetch, size=SIZE, root=ROOT)
    except Error as problem:
        raise AssertionError("a log that verifies is one to go on from") from problem


TARGETS: dict[str, Callable[[bytes], None]] = {
    "tlog_bundle": bundle,
    "tlog_tile": tile,
    "tlog_vkey": vkey,
    "tlog_skey": skey,
    "tlog_note": note,
    "tlog_unverified_checkpoint": unverified_checkpoint,
    "tlog_checkpoint": checkpoint,
    "tlog_cosigned": cosigned,
    "tlog_cosignature": cosignature,
    "tlog_proof": proof,
    "tlog_verified_proof": verified_proof,
    "tlog_add_checkpoint": add_checkpoint,
    "tlog_wrong_size": wrong_size,
    "tlog_inclusion": inclusion,
    "tlog_consistency": consistency,
    "tlog_log_files": log_files,
}

SEEDS: dict[str, list[bytes]] = {
    "tlog_bundle": [tlog.encode_entries([b"", b"a", b"entry"]), b""],
    "tlog_tile": [FILES["tile/0/001.p/44"]],
    "tlog_vkey": [LOG.vkey.encode(), WITNESS.vkey.encode()],
    "tlog_skey": [tlog.skey(LOG.name, bytes(range(32))).encode()],
    "tlog_note": [NOTE, NOTE + COSIGNATURE, tlog.sign_note(b"a\n\nb\n", [LOG])],
    "tlog_unverified_checkpoint": [NOTE, OLD],
    "tlog_checkpoint": [NOTE, OLD],
    "tlog_cosigned": [NOTE + COSIGNATURE],
    "tlog_cosignature": [COSIGNATURE],
    "tlog_proof": [tlog.format_proof(42, TREE.inclusion_proof(42), NOTE, b"extra")],
    "tlog_verified_proof": [tlog.format_proof(42, TREE.inclusion_proof(42), NOTE)],
    "tlog_add_checkpoint": [tlog.format_add_checkpoint(100, TREE.consistency_proof(100), NOTE)],
    "tlog_wrong_size": [b"100\n", b"0"],
    "tlog_inclusion": [bytes([42]) + b"".join(TREE.inclusion_proof(42))],
    "tlog_consistency": [bytes([100]) + b"".join(TREE.consistency_proof(100))],
    "tlog_log_files": [bytes([at]) + FILES[path] for at, path in enumerate(sorted(FILES))],
}
