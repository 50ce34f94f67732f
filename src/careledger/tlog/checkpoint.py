"""Checkpoints: a log's signed statement of its size and root, as C2SP tlog-checkpoint has it.

In our profile a log signs with Ed25519 under a key name equal to the origin; `open_checkpoint` insists on it, so one
log's checkpoint can never pass for another's. Other signatures on it (cosignatures) are `cosignature.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from careledger.errors import MalformedError, VerificationError
from careledger.tlog.lines import base64, parse_base64, parse_decimal
from careledger.tlog.note import ED25519, Note, Signer, Verifier, open_note, parse_unverified_note, sign_note

EXTENSIONS_MAX = 16
_REMEMBERED = 16
"""Opened checkpoints: as many as custodians that answer at once. A note has at most 256 kB."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log states: its origin, its size in leaves, the root at that size, and opaque extension lines."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> bytes:
        """The note text that is signed."""
        return format_checkpoint(self)


def format_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Origin, size, base64 root, extension lines: each with a newline."""
    lines = [checkpoint.origin.encode(), b"%d" % checkpoint.size, base64(checkpoint.root)]
    lines += [line.encode() for line in checkpoint.extensions]
    text = b"\n".join(lines) + b"\n"
    if len(checkpoint.root) != 32 or checkpoint.size < 0 or b"" in lines or text.count(b"\n") != len(lines):
        raise AssertionError("a checkpoint's lines are not empty and its root has 32 bytes")
    return text


def parse_checkpoint_text(text: bytes) -> Checkpoint:
    """A checkpoint from a note's text.

    Raises MalformedError `bad-checkpoint`, `bad-number`, `bad-base64`: a line missing, empty or spelled otherwise.
    """
    lines = text.split(b"\n")
    if len(lines) < 4 or lines[-1] != b"" or b"" in lines[:-1]:
        raise MalformedError("bad-checkpoint", "a checkpoint is not at least three lines, none of them empty")
    if len(lines) - 4 > EXTENSIONS_MAX:
        raise MalformedError("bad-checkpoint", f"a checkpoint has more than {EXTENSIONS_MAX} extension lines")
    size = parse_decimal(lines[1], "a checkpoint's size")
    root = parse_base64(lines[2], "a checkpoint's root", size=32)
    try:
        return Checkpoint(lines[0].decode(), size, root, tuple(line.decode() for line in lines[3:-1]))
    except UnicodeDecodeError as problem:
        raise MalformedError("bad-checkpoint", "a checkpoint is not UTF-8") from problem


def parse_unverified_checkpoint(data: bytes) -> Checkpoint:
    """The checkpoint in a signed note without looking at any signature: to find out which log it claims to be of."""
    return parse_checkpoint_text(parse_unverified_note(data)[0])


def sign_checkpoint(checkpoint: Checkpoint, *, signer: Signer) -> bytes:
    """The signed note. The signer's name must be the origin."""
    if signer.name != checkpoint.origin:
        raise AssertionError("a log signs checkpoints under its own origin")
    return sign_note(format_checkpoint(checkpoint), [signer])


def open_checkpoint(data: bytes, *, verifier: Verifier) -> Checkpoint:
    """The checkpoint of the log that `verifier` names, its signature checked.

    The last ones that held are remembered with the key they held for: the receipts of one batch carry the same bytes.
    Raises MalformedError as `parse_checkpoint_text`; VerificationError `no-signature`, `bad-signature`, `wrong-origin`.
    """
    return _opened(data, verifier)


@lru_cache(maxsize=_REMEMBERED)
def _opened(data: bytes, verifier: Verifier) -> Checkpoint:
    return checkpoint_of(open_note(data, verifiers=[verifier]), verifier=verifier)


def checkpoint_of(note: Note, *, verifier: Verifier) -> Checkpoint:
    """The checkpoint in an opened note, if the log that `verifier` names signed it; errors as `open_checkpoint`'s."""
    if verifier.algorithm != ED25519:
        raise AssertionError("a log's key has signature type 0x01; a witness's does not speak for the log")
    # Identity first: comparing verifiers by value costs as much as parsing the checkpoint.
    if all(one.verifier is not verifier and one.verifier != verifier for one in note.verified):
        raise VerificationError("no-signature", f'the checkpoint is not signed by "{verifier.name}"')
    checkpoint = parse_checkpoint_text(note.text)
    if checkpoint.origin != verifier.name:
        raise VerificationError(
            "wrong-origin", f'the checkpoint\'s origin is not "{verifier.name}", whose key signed it; do not believe it'
        )
    return checkpoint
