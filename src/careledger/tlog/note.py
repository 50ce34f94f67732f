"""Signed notes: text with signature lines, as C2SP signed-note has it.

Two of its signature types are spoken here: 0x01, Ed25519 over the text, by a log; 0x04, the timestamped cosignature of
a witness (what it signs is in `cosignature.py`). Signatures of unknown keys are carried, never believed. Which keys to
trust is the caller's to say, every time.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from careledger.errors import MalformedError, VerificationError
from careledger.tlog.keys import Ed25519SigningKey, Ed25519VerifyKey, SigningKey, VerifyKey
from careledger.tlog.lines import base64, parse_base64

ED25519 = 0x01
COSIGNATURE_V1 = 0x04

NOTE_BYTES_MAX = 256 * 1024
"""Sixteen post-quantum signatures of other people's witnesses (5 kB each in C2SP's words) fit with room to spare."""
SIGNATURES_MAX = 100
"""What Go's note package accepts."""
NAME_BYTES_MAX = 255

_DASH = "— ".encode()
_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f]")
_PLAIN_NAME = re.compile(r"[!-*,-~]{1,255}")
_NOT_IN_NAMES = frozenset({"Zs", "Zl", "Zp", "Cc", "Cs"})


def key_id(name: str, algorithm: int, public: bytes) -> bytes:
    """SHA-256(name ‖ 0x0A ‖ algorithm ‖ public key), the first 4 bytes."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([algorithm]) + public).digest()[:4]


def check_name(name: str) -> str:
    """Returns the name. Raises MalformedError `bad-name`: empty, too long, a space, a plus or a control character."""
    if _PLAIN_NAME.fullmatch(name):
        return name
    # Separators (all of Go's unicode.IsSpace is in Z or Cc), controls, and the surrogates that UTF-8 can't carry.
    if any(unicodedata.category(character) in _NOT_IN_NAMES for character in name):
        raise MalformedError("bad-name", "a key name has a space or a control character")
    if not name or len(name.encode()) > NAME_BYTES_MAX or "+" in name:
        raise MalformedError("bad-name", "a key name is empty, too long or has a plus sign")
    return name


@dataclass(frozen=True)
class Verifier:
    """Who may have signed a note: name, signature type and public key. `parse_vkey` makes one from its text form."""

    name: str
    algorithm: int
    public: bytes
    key: VerifyKey = field(repr=False, compare=False)
    key_id: bytes = field(init=False, compare=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.algorithm not in (ED25519, COSIGNATURE_V1):
            raise MalformedError("bad-vkey", f"signature type 0x{self.algorithm:02x} is not spoken here")
        object.__setattr__(self, "key_id", key_id(self.name, self.algorithm, self.public))

    @classmethod
    def ed25519(cls, name: str, public: bytes) -> Verifier:
        return cls(name, ED25519, public, Ed25519VerifyKey(public))

    @classmethod
    def cosignature(cls, name: str, public: bytes) -> Verifier:
        return cls(name, COSIGNATURE_V1, public, Ed25519VerifyKey(public))

    @property
    def vkey(self) -> str:
        """`<name>+<hex key ID>+<base64(type ‖ public key)>`."""
        return f"{self.name}+{self.key_id.hex()}+{base64(bytes([self.algorithm]) + self.public).decode()}"

    def verify(self, text: bytes, signature: bytes) -> int | None:
        """Check one signature over a note's text; returns a cosignature's time in seconds, None for a plain one.

        Raises VerificationError `bad-signature`.
        """
        time_s = None
        if self.algorithm == COSIGNATURE_V1:
            if len(signature) != 72:
                raise VerificationError("bad-signature", f'a cosignature of "{self.name}" has {len(signature)} bytes')
            time_s = int.from_bytes(signature[:8], "big")
            text, signature = cosigned_message(text, time_s), signature[8:]
        try:
            self.key.verify(signature, text)
        except VerificationError as problem:
            raise VerificationError(
                "bad-signature", f'the signature of "{self.name}" does not match the note: it was changed'
            ) from problem
        return time_s


@dataclass(frozen=True)
class Signer:
    """A name and a private key that signs notes (type 0x01): a log. Witnesses are `cosignature.Cosigner`s."""

    name: str
    key: SigningKey = field(repr=False)

    def __post_init__(self) -> None:
        check_name(self.name)

    @cached_property
    def verifier(self) -> Verifier:
        return Verifier.ed25519(self.name, self.key.public)

    @property
    def vkey(self) -> str:
        return self.verifier.vkey

    def sign_line(self, text: bytes) -> bytes:
        """The signature line over a note's text."""
        return signature_line(self.name, self.verifier.key_id, self.key.sign(text))


def skey(name: str, seed: bytes, algorithm: int = ED25519) -> str:
    """The text form of a private key that Go's note package and witnesses read: a secret, for their key files only."""
    identifier = key_id(name, algorithm, Ed25519SigningKey(seed).public).hex()
    return f"PRIVATE+KEY+{check_name(name)}+{identifier}+{base64(bytes([algorithm]) + seed).decode()}"


def parse_skey(text: str) -> Signer:
    """The signer of a type 0x01 private key. Raises MalformedError `bad-skey`, with no word about its content."""
    parts = text.split("+", 4)
    if len(parts) != 5 or parts[:2] != ["PRIVATE", "KEY"]:
        raise MalformedError("bad-skey", "a private note key is not PRIVATE+KEY+<name>+<key ID>+<key>")
    try:
        material = parse_base64(parts[4].encode(), "a private note key", size=33)
    except (MalformedError, UnicodeError):
        raise MalformedError("bad-skey", "a private note key does not parse") from None
    key = Ed25519SigningKey(material[1:])
    if material[0] != ED25519 or parts[3] != key_id(check_name(parts[2]), ED25519, key.public).hex():
        raise MalformedError("bad-skey", "a private note key's ID does not match its key")
    return Signer(parts[2], key)


def parse_vkey(text: str) -> Verifier:
    """A verifier from its text form, types 0x01 and 0x04.

    Raises MalformedError `bad-vkey` (form, type or key ID), `bad-name`, `bad-base64`, `bad-key`.
    """
    parts = text.split("+", 2)
    if len(parts) != 3:
        raise MalformedError("bad-vkey", "a verifier key is not <name>+<key ID>+<key>")
    try:
        encoded = parts[2].encode("ascii")
    except UnicodeEncodeError:
        raise MalformedError("bad-vkey", "a verifier key has characters that are not ASCII") from None
    material = parse_base64(encoded, "a verifier key", size=33)
    verifier = Verifier(check_name(parts[0]), material[0], material[1:], Ed25519VerifyKey(material[1:]))
    if parts[1] != verifier.key_id.hex():
        raise MalformedError("bad-vkey", f"the verifier key's ID is {verifier.key_id.hex()}, not the one it states")
    return verifier


@dataclass(frozen=True)
class SignatureLine:
    """One signature line as it stands in a note. `raw` is the line with its newline."""

    name: str
    key_id: bytes
    signature: bytes
    raw: bytes = field(repr=False)


@dataclass(frozen=True)
class VerifiedSignature:
    """A signature that was checked. `time_s` is a cosignature's POSIX time, None for a plain signature."""

    verifier: Verifier
    time_s: int | None
    line: SignatureLine


@dataclass(frozen=True)
class Note:
    """A note whose `verified` signatures are checked; `unverified` ones are of keys nobody asked about."""

    text: bytes
    verified: tuple[VerifiedSignature, ...]
    unverified: tuple[SignatureLine, ...]


def cosigned_message(text: bytes, time_s: int) -> bytes:
    """What a cosignature/v1 signs (C2SP tlog-cosignature, "Ed25519 signed message")."""
    return b"cosignature/v1\ntime %d\n" % time_s + text


def signature_line(name: str, identifier: bytes, signature: bytes) -> bytes:
    """`— <name> <base64(key ID ‖ signature)>` and a newline."""
    return _DASH + name.encode() + b" " + base64(identifier + signature) + b"\n"


def sign_note(text: bytes, signers: Sequence[Signer]) -> bytes:
    """The note: text, an empty line, one line per signer. The text ends in a newline."""
    check_text(text)
    if not signers:
        raise AssertionError("a note needs a signature")
    return text + b"\n" + b"".join(signer.sign_line(text) for signer in signers)


def check_text(text: bytes) -> None:
    """Raises MalformedError `bad-note`: not UTF-8, a control character, or no newline at the end."""
    if not text.endswith(b"\n"):
        raise MalformedError("bad-note", "a note's text does not end with a newline")
    try:
        text.decode()
    except UnicodeDecodeError as problem:
        raise MalformedError("bad-note", "a note is not UTF-8") from problem
    if _CONTROL.search(text):
        raise MalformedError("bad-note", "a note has a control character")


def parse_unverified_note(data: bytes) -> tuple[bytes, list[SignatureLine]]:
    """A note's text and signature lines, nothing checked but the form. Raises MalformedError `bad-note`, `bad-name`."""
    if len(data) > NOTE_BYTES_MAX:
        raise MalformedError("bad-note", f"a note has {len(data)} bytes; at most {NOTE_BYTES_MAX} are read")
    check_text(data)
    split = data.rfind(b"\n\n")
    if split < 0:
        raise MalformedError("bad-note", "a note has no empty line between its text and its signatures")
    text, block = data[: split + 1], data[split + 2 :]
    raw_lines = block.split(b"\n")[:-1]
    if not 1 <= len(raw_lines) <= SIGNATURES_MAX:
        raise MalformedError("bad-note", f"a note has {len(raw_lines)} signatures, not 1 to {SIGNATURES_MAX}")
    return text, [_parse_signature_line(line) for line in raw_lines]


def parse_signature_lines(block: bytes) -> list[SignatureLine]:
    """Signature lines alone, as a witness answers them. Raises MalformedError `bad-note`, `bad-name`."""
    return parse_unverified_note(b"\n\n" + block)[1]


def _parse_signature_line(line: bytes) -> SignatureLine:
    if not line.startswith(_DASH):
        raise MalformedError("bad-note", "a signature line does not begin with a dash")
    name, space, encoded = line[len(_DASH) :].partition(b" ")
    if not space:
        raise MalformedError("bad-note", "a signature line has no signature")
    decoded = parse_base64(encoded, "a signature")
    if len(decoded) < 5:
        raise MalformedError("bad-note", "a signature line is too short for a key ID and a signature")
    return SignatureLine(check_name(name.decode()), decoded[:4], decoded[4:], line + b"\n")


def open_note(data: bytes, *, verifiers: Sequence[Verifier]) -> Note:
    """Check a note against the keys the caller trusts; at least one of them must have signed it.

    Raises MalformedError `bad-note`; VerificationError `bad-signature`: a trusted key's line doesn't verify;
    `no-signature`: no trusted key signed.
    """
    text, lines = parse_unverified_note(data)
    verified, unverified = check_lines(text, lines, verifiers)
    if not verified:
        raise VerificationError("no-signature", "no known key has signed this note; it is not to be believed")
    return Note(text, tuple(verified), tuple(unverified))


def check_lines(
    text: bytes, lines: Sequence[SignatureLine], verifiers: Sequence[Verifier]
) -> tuple[list[VerifiedSignature], list[SignatureLine]]:
    """Sort signature lines into checked ones and those of unknown keys; a repeated key counts once.

    Raises VerificationError `bad-signature`.
    """
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    if len(known) != len(verifiers) and len(known) != len(set(verifiers)):
        raise AssertionError("two trusted keys share name and key ID")
    verified: dict[tuple[str, bytes], VerifiedSignature] = {}
    unverified: list[SignatureLine] = []
    for line in lines:
        verifier = known.get((line.name, line.key_id))
        if verifier is None:
            unverified.append(line)
        else:
            time_s = verifier.verify(text, line.signature)
            verified.setdefault((line.name, line.key_id), VerifiedSignature(verifier, time_s, line))
    return list(verified.values()), unverified
