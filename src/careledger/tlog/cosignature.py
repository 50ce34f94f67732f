"""Cosignatures: a witness vouches that it saw this checkpoint and none that contradicts it.

Follows C2SP tlog-cosignature, the Ed25519 form (cosignature/v1). How many of which witnesses are enough is policy, and
so the caller's; whether the checkpoint extends the last one is `witness.py`'s to check before signing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from careledger.errors import VerificationError
from careledger.tlog.checkpoint import Checkpoint, checkpoint_of, parse_checkpoint_text
from careledger.tlog.keys import SigningKey
from careledger.tlog.note import (
    COSIGNATURE_V1,
    VerifiedSignature,
    Verifier,
    check_lines,
    check_name,
    cosigned_message,
    open_note,
    parse_signature_lines,
    signature_line,
)


@dataclass(frozen=True)
class Cosigner:
    """A witness's name and private key. C2SP: the key must be used for nothing else, since v1 doesn't sign the name."""

    name: str
    key: SigningKey = field(repr=False)

    def __post_init__(self) -> None:
        check_name(self.name)

    @cached_property
    def verifier(self) -> Verifier:
        return Verifier.cosignature(self.name, self.key.public)

    @property
    def vkey(self) -> str:
        return self.verifier.vkey


def cosign(checkpoint_text: bytes, *, signer: Cosigner, now_s: int) -> bytes:
    """The witness's signature line over a checkpoint's text (not the whole note) at `now_s` POSIX seconds."""
    parse_checkpoint_text(checkpoint_text)
    if not 0 < now_s < 2**63:
        raise AssertionError(f"a cosignature's time is {now_s}")
    signature = now_s.to_bytes(8, "big") + signer.key.sign(cosigned_message(checkpoint_text, now_s))
    return signature_line(signer.name, signer.verifier.key_id, signature)


def verify_cosignature(line: bytes, *, checkpoint_text: bytes, verifier: Verifier) -> int:
    """Check the line(s) a witness answered against its key; returns the time it states, in POSIX seconds.

    Lines of other keys are ignored. Raises MalformedError `bad-note`; VerificationError `no-signature`,
    `bad-signature`, `bad-time` (zero: C2SP tlog-witness forbids it for checkpoints).
    """
    return _only(check_lines(checkpoint_text, parse_signature_lines(line), [verifier])[0], verifier)


def open_cosigned(
    data: bytes, *, verifier: Verifier, witnesses: Sequence[Verifier]
) -> tuple[Checkpoint, dict[str, int]]:
    """A checkpoint signed by its log, and which of the known witnesses cosigned it: vkey -> time in POSIX seconds.

    Whether those are enough is the caller's decision. Raises as `open_checkpoint`; a bad cosignature of a known witness
    spoils the whole note (`bad-signature`), as C2SP signed-note advises.
    """
    if any(witness.algorithm != COSIGNATURE_V1 for witness in witnesses):
        raise AssertionError("a witness's key has signature type 0x04")
    note = open_note(data, verifiers=[verifier, *witnesses])
    checkpoint = checkpoint_of(note, verifier=verifier)
    times = {s.verifier.vkey: s.time_s for s in note.verified if s.time_s}
    return checkpoint, times


def _only(found: Sequence[VerifiedSignature], verifier: Verifier) -> int:
    if not found:
        raise VerificationError("no-signature", f'the answer holds no cosignature of "{verifier.name}"')
    time_s = found[0].time_s
    if not time_s:
        raise VerificationError("bad-time", f'the cosignature of "{verifier.name}" states no time')
    return time_s
