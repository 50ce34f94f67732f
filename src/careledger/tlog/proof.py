"""Proofs that travel: index, inclusion proof and checkpoint in one text, as C2SP tlog-proof (v1) has it.

Self-contained and verifiable offline against the log's key. The `extra` line isn't authenticated; callers must not
believe it. The receipts of `access` are these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from careledger.errors import MalformedError
from careledger.tlog.checkpoint import Checkpoint, open_checkpoint
from careledger.tlog.lines import base64, parse_base64, parse_decimal
from careledger.tlog.note import NOTE_BYTES_MAX, Verifier
from careledger.tlog.tree import PROOF_HASHES_MAX, leaf_hash, verify_inclusion

HEADER = b"c2sp.org/tlog-proof@v1"
EXTRA_BYTES_MAX = 64 * 1024
PROOF_BYTES_MAX = NOTE_BYTES_MAX + 2 * EXTRA_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Proof:
    """A parsed proof: nothing in it is checked before `verify_proof`."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""


def format_proof(index: int, proof: Sequence[bytes], checkpoint: bytes, extra: bytes = b"") -> bytes:
    """The text of a proof; `checkpoint` is the whole signed note, `proof` goes from the leaf's sibling upwards."""
    lines = [HEADER]
    if extra:
        lines.append(b"extra " + base64(extra))
    lines.append(b"index %d" % index)
    lines += [base64(value) for value in proof]
    return b"\n".join(lines) + b"\n\n" + checkpoint


def parse_proof(data: bytes) -> Proof:
    """The parts of a proof. Raises MalformedError `bad-tlog-proof`, `bad-number`, `bad-base64`."""
    if len(data) > PROOF_BYTES_MAX:
        raise MalformedError("bad-tlog-proof", f"a proof has {len(data)} bytes; at most {PROOF_BYTES_MAX} are read")
    head, gap, checkpoint = data.partition(b"\n\n")
    lines = head.split(b"\n")
    if lines[0] != HEADER or not gap:
        raise MalformedError("bad-tlog-proof", "this is not a tlog-proof of version 1")
    at, extra = 1, b""
    if len(lines) > at and lines[at].startswith(b"extra "):
        extra = parse_base64(lines[at][6:], "a proof's extra data")
        if not 0 < len(extra) <= EXTRA_BYTES_MAX:
            raise MalformedError("bad-tlog-proof", f"a proof carries {len(extra)} bytes of extra data")
        at += 1
    if len(lines) <= at or not lines[at].startswith(b"index "):
        raise MalformedError("bad-tlog-proof", "a proof has no index line")
    index = parse_decimal(lines[at][6:], "a proof's index")
    hashes = lines[at + 1 :]
    if len(hashes) > PROOF_HASHES_MAX:
        raise MalformedError("bad-tlog-proof", f"a proof has {len(hashes)} hashes, more than {PROOF_HASHES_MAX}")
    return Proof(index, tuple(parse_base64(line, "a proof's hash", size=32) for line in hashes), checkpoint, extra)


def verify_proof(data: bytes, *, leaf: bytes, verifier: Verifier) -> tuple[Checkpoint, int]:
    """Check that `leaf` (the entry's bytes, not its hash) is in the log that `verifier` names; returns where.

    1. parse; 2. the checkpoint is that log's and signed by it; 3. the inclusion proof leads to its root. Still the
    caller's: cosignatures, whether this size and index fit what is known already.
    Raises MalformedError as `parse_proof`; VerificationError `bad-proof` and as `open_checkpoint`.
    """
    proof = parse_proof(data)
    checkpoint = open_checkpoint(proof.checkpoint, verifier=verifier)
    verify_inclusion(
        index=proof.index, size=checkpoint.size, leaf_hash=leaf_hash(leaf), proof=proof.hashes, root=checkpoint.root
    )
    return checkpoint, proof.index
