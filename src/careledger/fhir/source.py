"""From a file's bytes to the UTF-8 text of JSON, or a refusal that says what the file is instead.

One layer of gzip is inflated while counting, so that a bomb costs no more memory than the limit. Bytes are never
rewritten: only a byte order mark is cut off in front. XML is recognised by its first kilobytes and never parsed.
"""

from __future__ import annotations

import codecs
import itertools
import re
import zlib
from collections.abc import Iterable

from careledger.fhir import faults
from careledger.fhir.reading import refusal

_GZIP = b"\x1f\x8b"
_PIECE = 1 << 20
_HEAD = 1 << 16

_OTHER_FORMATS = (
    (b"PK\x03\x04", "a ZIP archive", "Unpack it first."),
    (b"PK\x05\x06", "a ZIP archive", "Unpack it first."),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "Unpack it first."),
    (_GZIP, "a gzip archive", "Unpack it first."),
    (b"BZh", "a bzip2 archive", "Unpack it first."),
    (b"\xfd7zXZ\x00", "an XZ archive", "Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "Unpack it first."),
    (b"%PDF-", "a PDF", "Attach it as a DocumentReference."),
    (b"\x89PNG", "an image", "Attach it as a DocumentReference."),
    (b"\xff\xd8\xff", "an image", "Attach it as a DocumentReference."),
    (b"GIF8", "an image", "Attach it as a DocumentReference."),
    (b"II*\x00", "an image", "Attach it as a DocumentReference."),
    (b"MM\x00*", "an image", "Attach it as a DocumentReference."),
    (b"{\\rtf", "an RTF document", "Attach it as a DocumentReference."),
    (b"MSH|", "an HL7 v2 message", "Ask for FHIR R4, or attach it as a DocumentReference."),
    (b"\x0bMSH|", "an HL7 v2 message", "Ask for FHIR R4, or attach it as a DocumentReference."),
)

_CDA_ROOT = re.compile(
    rb"<(?:ClinicalDocument|section|component(?:Of)?|entry|act|observation|organizer|encounter|procedure|recordTarget|"
    rb"author|informant|informationRecipient|participant|performer|custodian|documentationOf|inFulfillmentOf|"
    rb"dataEnterer|(?:legalA|a)uthenticator)\b"
)
_CDA_TEMPLATE = b'<templateId root="2.16.840.1.113883.10.20'


def unpack(chunks: Iterable[bytes], *, bytes_max: int) -> bytearray:
    """The file's bytes, inflated if it is gzip (several members and zero padding allowed).

    Raises MalformedError `too-large` at `bytes_max`, `truncated` or `damaged` or `trailing-data` for bad gzip.
    """
    data = bytearray()
    pieces = iter(chunks)
    for piece in pieces:
        data += piece
        if len(data) >= len(_GZIP):
            break
    if data.startswith(_GZIP):
        return _inflate(bytes(data), pieces, bytes_max)
    for piece in pieces:
        data += piece
        if len(data) > bytes_max:
            break
    if len(data) > bytes_max:
        raise refusal("too-large", f"is larger than {megabytes(bytes_max)} MB. Split it, or raise --max-size.")
    return data


def _inflate(first: bytes, rest: Iterable[bytes], bytes_max: int) -> bytearray:
    out = bytearray()
    member = zlib.decompressobj(wbits=31)
    between = False  # after one member's end, before the next one's start
    for piece in _small(first, rest):
        pending = piece
        while pending:
            if between:
                pending = pending.lstrip(b"\0")
                if not pending:
                    break
                if pending[0] != _GZIP[0]:
                    raise refusal("trailing-data", "unreadable data after the compressed part. Export it again.")
                member, between = zlib.decompressobj(wbits=31), False
            try:
                out += member.decompress(pending, bytes_max - len(out) + 1)
            except zlib.error:
                raise refusal("damaged", "is damaged inside the compressed part. Download it again.") from None
            if len(out) > bytes_max:
                raise refusal(
                    "too-large", f"unpacks to more than {megabytes(bytes_max)} MB. Split it, or raise --max-size."
                )
            pending = member.unconsumed_tail or member.unused_data
            between = member.eof
    if not between:
        raise faults.truncated(faults.complete_entries(out))
    return out


def _small(first: bytes, rest: Iterable[bytes]) -> Iterable[bytes]:
    for piece in itertools.chain((first,), rest):
        for start in range(0, len(piece), _PIECE):
            yield piece[start : start + _PIECE]


def megabytes(count: int) -> int:
    """Rounded to whole megabytes of 2^20, as limits are named to people."""
    return max(1, round(count / (1 << 20)))


def text_start(data: bytearray) -> int:
    """Where the JSON text starts (after a UTF-8 byte order mark).

    Raises MalformedError `encoding`, `not-fhir`, `fhir-xml`, `ccda` or `empty`.
    """
    head = bytes(data[:_HEAD])
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        width = "UTF-32" if head[:4] == codecs.BOM_UTF32_LE else "UTF-16"
        raise refusal("encoding", f"not UTF-8 (looks like {width}). Save it as UTF-8 and try again.")
    for magic, name, advice in _OTHER_FORMATS:
        if head.startswith(magic):
            raise refusal("not-fhir", f"is {name}, not FHIR. {advice}")
    if head[128:132] == b"DICM":
        raise refusal("not-fhir", "is a DICOM image, not FHIR. Attach it as a DocumentReference.")
    if b"\0" in head[:4]:
        width = "UTF-32" if head[:4].count(0) >= 3 else "UTF-16"
        raise refusal("encoding", f"not UTF-8 (looks like {width}). Save it as UTF-8 and try again.")
    start = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
    text = head[start:].lstrip()
    if not text and not data[start:].strip():
        raise refusal("empty", "holds no FHIR resource.")
    if text.startswith(b"<"):
        raise _xml(text)
    _check_utf8(data)
    return start


def is_ccda(data: bytearray) -> bool:
    text = bytes(data[:_HEAD]).removeprefix(codecs.BOM_UTF8).lstrip()
    return text.startswith(b"<") and _looks_like_cda(text)


def _looks_like_cda(text: bytes) -> bool:
    return b"urn:hl7-org:v3" in text or _CDA_TEMPLATE in text or _CDA_ROOT.search(text[:2048]) is not None


def _xml(text: bytes) -> Exception:
    if b"http://hl7.org/fhir" in text and b"urn:hl7-org:v3" not in text:
        return refusal("fhir-xml", "is FHIR in XML; only JSON is read. Ask for application/fhir+json.")
    if _looks_like_cda(text):
        return refusal(
            "ccda", "is a C-CDA document, not FHIR. Convert it first, or attach it whole with --as-document."
        )
    return refusal("not-fhir", "is XML or HTML, not FHIR. Ask for application/fhir+json.")


def _check_utf8(data: bytearray) -> None:
    """Strict, and piece by piece: one big `decode` of text with a 4-byte character takes four times the file."""
    if data.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(data)
    starts = range(0, len(data), _PIECE)
    for start in (*starts, len(data)):
        held = len(decoder.getstate()[0])
        try:
            decoder.decode(bytes(view[start : start + _PIECE]), final=start == len(data))
        except UnicodeDecodeError as error:
            at = start - held + error.start + 1
            raise refusal("encoding", f"not valid UTF-8 at byte {at}. Export it again as UTF-8.") from None
