"""What of careledger.verify reads bytes from outside: only careledger.errors.Error may come out of it.

Each target takes arbitrary bytes; where something is accepted, it also asserts what acceptance promises.
"""

from collections.abc import Callable
from hashlib import sha256

import msgspec

from careledger import tlog
from careledger.access import Receipt, build_entry, encode_receipt, leaf, origin
from careledger.access.entry import KINDS
from careledger.directory import MemberPart, NodePart, founding, network_of
from careledger.errors import Error, NotFoundError
from careledger.identity import new_organisation, new_software
from careledger.seal import encode
from careledger.verify import (
    DirectoryHistory,
    Proofs,
    describe_file,
    describe_folder,
    verify_directory,
    verify_directory_proof,
    verify_export,
    verify_log,
    verify_receipt_file,
)
from careledger.verify.export import BUNDLE, MAGIC, PROOFS

_count = 0


def _rand(size: int) -> bytes:
    global _count  # noqa: PLW0603 - the same network every time
    _count += 1
    return b"".join(sha256(b"%d %d" % (_count, at)).digest() for at in range(size // 32 + 1))[:size]


_LOG_KEY, _WITNESS_KEY = (tlog.Ed25519SigningKey(bytes([at]) * 32) for at in (1, 2))
_NODE = new_software(rand=_rand)
_MEMBER = new_organisation(nodes=[_NODE.token], rand=_rand)
_PART = NodePart(_NODE.envelope, "http://node.example", _LOG_KEY.public, _WITNESS_KEY.public)
GENESIS = founding([MemberPart(_MEMBER.envelope, [_PART], ("licensor", "provider"))], time_ms=1, nonce=_rand(16))
NETWORK = network_of(GENESIS)
LOG = tlog.Signer(origin(NETWORK, _NODE.token), _LOG_KEY)
HISTORY = DirectoryHistory(GENESIS, [])
SALT = bytes(32)


def _published(leaves: list[bytes]) -> dict[str, bytes]:
    tail, files = tlog.tail_of_entries(leaves)
    note = tlog.sign_checkpoint(tlog.Checkpoint(LOG.name, tail.size, tail.root()), signer=LOG)
    return {**files, tlog.CHECKPOINT_PATH: note}


def _fetch(files: dict[str, bytes]) -> Callable[[str], bytes]:
    def fetch(path: str) -> bytes:
        if path not in files:
            raise NotFoundError("not-found", "no such file")
        return files[path]

    return fetch


def _body(**more: object) -> bytes:
    fields = {
        "network": NETWORK,
        "node": _NODE.token,
        "index": 0,
        "received": 1,
        "directory_height": 0,
        "directory_age": 0,
        "consent_seq": 0,
        "consent_hash": "0" * 64,
        "kind": "keep",
        "decision": "accept",
        "reason": "document",
        "counters": {},
        "subject": _MEMBER.token,
        "details": {"document": "0" * 64, "sequence": 0},
        **more,
    }
    return build_entry(**fields)  # type: ignore[arg-type]


BODY = _body()
FILES = _published([leaf("keep", SALT, BODY)])
RECEIPT = Receipt(salt=SALT, body=BODY, proof=tlog.format_proof(0, [], FILES[tlog.CHECKPOINT_PATH]))
PROOF_FILE = MAGIC + msgspec.msgpack.encode(
    Proofs(
        v=1,
        genesis=GENESIS,
        subject=_MEMBER.token,
        exported=1,
        identities={_MEMBER.token: [encode(_MEMBER.envelope)]},
        directory=[],
        submissions=[],
        records=[],
        receipts=[],
        trail=[],
    )
)


def forms(data: bytes) -> None:
    """Anything may lie at a path."""
    describe_file(data)
    describe_folder(["checkpoint"], lambda _: data)


def body(data: bytes) -> None:
    """A body of any content, properly committed to by its leaf, is never a crash when it is decided again; the first
    byte says of which kind."""
    if not data:
        return
    content = data[1:]
    try:
        report = verify_log(
            _fetch(_published([leaf(KINDS[data[0] % len(KINDS)], SALT, content)])),
            verifier=LOG.verifier,
            bodies=lambda start, end: [(SALT, content)],
            history=HISTORY,
        )
    except Error:
        return
    assert report.bodies == 1


def log_file(data: bytes) -> None:
    """One file of a log replaced: refused, or it is what was there."""
    path = sorted(FILES)[data[0] % len(FILES)] if data else tlog.CHECKPOINT_PATH
    changed = {**FILES, path: data[1:]}
    try:
        report = verify_log(_fetch(changed), verifier=LOG.verifier)
    except Error:
        return
    assert report.size == 1
    assert path == tlog.CHECKPOINT_PATH or data[1:] == FILES[path]


def receipt(data: bytes) -> None:
    """A receipt that is accepted is of the one entry that this log has."""
    try:
        report = verify_receipt_file(data, verifier=LOG.verifier, history=HISTORY)
    except Error:
        return
    assert report.index == 0
    assert report.reason == "document"


def export(data: bytes) -> None:
    """A proof file, with itself as the bundle."""
    try:
        report = verify_export(_fetch({PROOFS: data, BUNDLE: data}), network=NETWORK)
    except Error:
        return
    raise AssertionError(f"an export without a cosigned directory was accepted: {report}")


def directory_proof(data: bytes) -> None:
    """Nobody has cosigned anything here: nothing is accepted."""
    try:
        verify_directory_proof(data, genesis=GENESIS)
    except Error:
        return
    raise AssertionError("a proof without a cosigned checkpoint was accepted")


def block_log(data: bytes) -> None:
    """A directory of one block with this content, signed by nobody."""
    tail, files = tlog.tail_of_entries([data[: 1 << 15]])
    note = tlog.Checkpoint(f"{NETWORK[:16]}/directory", 1, tail.root(), ("app-hash " + "0" * 64,)).text
    signed = note + b"\n" + LOG.sign_line(note)
    try:
        verify_directory(_fetch({**files, tlog.CHECKPOINT_PATH: signed}), GENESIS, needed=0)
    except Error:
        return
    raise AssertionError("a directory that the sequencer did not sign was accepted")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "verify_forms": forms,
    "verify_body": body,
    "verify_log_file": log_file,
    "verify_receipt": receipt,
    "verify_export": export,
    "verify_directory_proof": directory_proof,
    "verify_block_log": block_log,
}
SEEDS: dict[str, list[bytes]] = {
    "verify_forms": [b"", FILES[tlog.CHECKPOINT_PATH], encode_receipt(RECEIPT), PROOF_FILE[:100], b'{"proof":{}}'],
    "verify_body": [
        bytes([KINDS.index(kind)]) + _body(kind=kind, **more)
        for kind, more in (
            ("keep", {}),
            ("keep", {"reason": "manifest", "details": None}),
            ("access", {"details": None}),
            ("erase", {"details": {"erased": []}}),
            ("system", {"details": {"via": _NODE.token}}),
        )
    ],
    "verify_log_file": [bytes([at]) + FILES[path] for at, path in enumerate(sorted(FILES))],
    "verify_receipt": [encode_receipt(RECEIPT)],
    "verify_export": [PROOF_FILE],
    "verify_directory_proof": [b'{"proof":{},"checkpoint":""}'],
    "verify_block_log": [b'{"height":1,"network":"' + NETWORK.encode() + b'","time":1,"transactions":[],"v":1}'],
}
