"""The witness's rule: cosign a checkpoint only if it extends the last one cosigned for that log (C2SP tlog-witness).

Pure: state in, state out. The caller keeps (size, root) per origin and must store the new state durably before the
answer leaves, in one atomic step with reading the old one; otherwise two requests can roll a log back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from careledger.errors import ConflictError, MalformedError, NotFoundError, NotPermittedError, VerificationError
from careledger.tlog.checkpoint import open_checkpoint, parse_unverified_checkpoint
from careledger.tlog.cosignature import Cosigner, cosign
from careledger.tlog.lines import base64, parse_base64, parse_decimal
from careledger.tlog.note import NOTE_BYTES_MAX, Verifier
from careledger.tlog.tree import EMPTY_ROOT, PROOF_HASHES_MAX, verify_consistency

ADD_CHECKPOINT_BYTES_MAX = NOTE_BYTES_MAX + 64 * 1024
SIZE_CONTENT_TYPE = "text/x.tlog.size"
"""The content type of the 409 answer, whose body is the known size and a newline (`wrong_size_body`)."""


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A request to cosign: the size the log believes the witness knows, the proof from there, the checkpoint note."""

    old_size: int
    proof: tuple[bytes, ...]
    checkpoint: bytes

    @property
    def unverified_origin(self) -> str:
        """The log the checkpoint claims to be of: for choosing the key to check it with, and nothing else."""
        return parse_unverified_checkpoint(self.checkpoint).origin


def format_add_checkpoint(old_size: int, proof: Sequence[bytes], checkpoint: bytes) -> bytes:
    """The body of `POST /add-checkpoint`."""
    lines = [b"old %d" % old_size, *(base64(value) for value in proof)]
    return b"\n".join(lines) + b"\n\n" + checkpoint


def parse_add_checkpoint(body: bytes) -> AddCheckpoint:
    """The parts of a request, none of them checked.

    Raises MalformedError (HTTP 400) `bad-add-checkpoint`, `bad-number`, `bad-base64`, `bad-note`, `bad-checkpoint`.
    """
    if len(body) > ADD_CHECKPOINT_BYTES_MAX:
        raise MalformedError(
            "bad-add-checkpoint", f"a request has {len(body)} bytes; at most {ADD_CHECKPOINT_BYTES_MAX} are read"
        )
    head, gap, checkpoint = body.partition(b"\n\n")
    lines = head.split(b"\n")
    if not gap or not lines[0].startswith(b"old "):
        raise MalformedError("bad-add-checkpoint", "a request is not an old size, a proof, an empty line, a checkpoint")
    old_size = parse_decimal(lines[0][4:], "the old size")
    if len(lines) - 1 > PROOF_HASHES_MAX:
        raise MalformedError("bad-add-checkpoint", f"a request has more than {PROOF_HASHES_MAX} proof hashes")
    proof = tuple(parse_base64(line, "a proof's hash", size=32) for line in lines[1:])
    if old_size > parse_unverified_checkpoint(checkpoint).size:
        raise MalformedError("bad-add-checkpoint", f"the old size {old_size} is larger than the checkpoint's")
    return AddCheckpoint(old_size, proof, checkpoint)


def cosign_if_consistent(
    state: tuple[int, bytes] | None,
    request: AddCheckpoint,
    *,
    log_verifier: Verifier | None,
    signer: Cosigner,
    now_s: int,
) -> tuple[tuple[int, bytes], bytes]:
    """The new (size, root) to store for this log, and the signature line to answer with.

    `state` is what was last cosigned for this origin, None if nothing was; `log_verifier` the key of the origin that
    the request claims, None if no such log is known. Each error's class carries the HTTP status the protocol wants:
    NotFoundError `unknown-log` (404); NotPermittedError `bad-signature` (403); ConflictError `wrong-size`, details
    {size} (409); VerificationError `bad-proof`, `fork` (422; same size, other root: keep both checkpoints as evidence).
    """
    if log_verifier is None:
        raise NotFoundError("unknown-log", "this witness does not watch a log of that origin")
    try:
        checkpoint = open_checkpoint(request.checkpoint, verifier=log_verifier)
    except VerificationError as problem:
        raise NotPermittedError("bad-signature", f"the checkpoint is not the log's: {problem.message}") from problem
    known_size, known_root = state or (0, EMPTY_ROOT)
    if request.old_size != known_size:
        raise ConflictError(
            "wrong-size",
            f"the last cosigned size is {known_size}, not {request.old_size}; prove consistency from there",
            details={"size": known_size},
        )
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise VerificationError("bad-proof", "an empty log has another root than the empty tree's")
    if checkpoint.size == known_size and checkpoint.root != known_root:
        raise VerificationError(
            "fork", f'log "{checkpoint.origin}" has two roots at size {known_size}: it forked; keep both checkpoints'
        )
    verify_consistency(
        old_size=known_size,
        old_root=known_root,
        new_size=checkpoint.size,
        new_root=checkpoint.root,
        proof=request.proof,
    )
    return (checkpoint.size, checkpoint.root), cosign(checkpoint.text, signer=signer, now_s=now_s)


def wrong_size_body(problem: ConflictError) -> bytes:
    """The body of the 409 answer."""
    return f"{problem.details['size']}\n".encode()


def parse_wrong_size_body(body: bytes) -> int:
    """The size a witness answered with its 409. Raises MalformedError `bad-number`."""
    return parse_decimal(body.removesuffix(b"\n"), "the witness's size")
