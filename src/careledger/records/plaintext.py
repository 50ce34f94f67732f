"""What is inside a record: its header and the exact bytes of its resources, their one root, and the padded wire form.

The content root is a hash over the meaning, not over the ciphertext: AES-GCM lets an author make one ciphertext that
opens to two plaintexts under two keys, and the root, signed in the manifest, leaves room for one only. Each resource
has a salt of its own, so that one can be shown to somebody without giving away the rest. The wire is deflated and
padded (Padmé, from PURBs, Nikitin et al. 2019), so that a size tells at most about 6 bits of the content's.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

import msgspec

from careledger.errors import MalformedError
from careledger.records.header import Header, check_header
from careledger.records.ids import ID_SIZE
from careledger.seal import decode, encode
from careledger.tlog import leaf_hashes_of, root_of

__all__ = [
    "INFLATED_MAX",
    "Plaintext",
    "Resource",
    "content_hashes",
    "content_root",
    "pack_plaintext",
    "padme",
    "resource_hash",
    "unpack_plaintext",
]

INFLATED_MAX: Final = 16 << 20
"""Inflating stops here: a record is small, and a bomb is not to fill a reader's memory."""

HEADER_MAX: Final = 1 << 20
RESOURCES_MAX: Final = 10_000
"""Resources of one record: more than any encounter has, few enough to hash at once."""

DEFLATE_LEVEL: Final = 3
"""Half the time of level 6 for a tenth more bytes after padding (docs/decisions/0016)."""

_FULL_URL_MAX: Final = 0xFFFF
_LENGTH_SIZE: Final = 4


class Resource(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One resource: its 16-byte salt, the entry's fullUrl (empty where it had none), its exact bytes."""

    salt: bytes
    full_url: str
    data: bytes


class Plaintext(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A record's inside; `header` are the exact canonical bytes that the content root covers."""

    header: bytes
    resources: list[Resource]

    def opened_header(self) -> Header:
        """Return the header, checked; raises MalformedError."""
        header = decode(self.header, Header, size_max=HEADER_MAX)
        check_header(header, resources=len(self.resources))
        return header


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Plaintext)


def padme(size: int) -> int:
    """Return the padded size: the next one whose binary form has only log2(log2(size)) + 1 leading digits in use.

    At most 12 % is added. Source: PURBs (Nikitin et al., 2019) section 4.4; vectors/records/padme.json.
    """
    if size < 2:
        return size
    exponent = size.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (size + mask) & ~mask


def resource_hash(resource: Resource) -> bytes:
    """Return SHA-256(salt ‖ u16 length of fullUrl ‖ fullUrl ‖ bytes), the value that the content root covers."""
    url = resource.full_url.encode()
    return sha256(b"".join((resource.salt, len(url).to_bytes(2), url, resource.data))).digest()


def content_hashes(plaintext: Plaintext) -> list[bytes]:
    """Return the leaf hashes of the content tree: SHA-256(header), then each resource's hash, each as RFC 6962 leaf."""
    return leaf_hashes_of([sha256(plaintext.header).digest(), *map(resource_hash, plaintext.resources)])


def content_root(plaintext: Plaintext) -> bytes:
    """Return the RFC 6962 root over the header's and the resources' hashes; vectors/records/plaintext.json."""
    return root_of(content_hashes(plaintext))


def pack_plaintext(
    header: Header, resources: Sequence[tuple[str, bytes]], *, rand: Callable[[int], bytes]
) -> tuple[bytes, bytes]:
    """Return (wire, content root) of a record with `resources` as (fullUrl, exact bytes), salts drawn from `rand`.

    Raises MalformedError `too-large`: over INFLATED_MAX bytes, RESOURCES_MAX resources or a fullUrl of 64 KiB.
    """
    if len(resources) > RESOURCES_MAX or any(len(url.encode()) > _FULL_URL_MAX for url, _ in resources):
        raise MalformedError("too-large", f"a record takes {RESOURCES_MAX} resources with a fullUrl below 64 KiB each")
    salts = rand(ID_SIZE * len(resources))
    plaintext = Plaintext(
        header=encode(header),
        resources=[
            Resource(salt=salts[at : at + ID_SIZE], full_url=url, data=data)
            for at, (url, data) in zip(range(0, len(salts), ID_SIZE), resources, strict=True)
        ],
    )
    return to_wire(plaintext), content_root(plaintext)


def to_wire(plaintext: Plaintext) -> bytes:
    """Return u32 length ‖ raw DEFLATE ‖ zeros up to the Padmé size; raises MalformedError `too-large`."""
    packed = _encoder.encode(plaintext)
    if len(packed) > INFLATED_MAX or len(plaintext.header) > HEADER_MAX:
        raise MalformedError(
            "too-large", f"a record's content has {len(packed)} bytes, more than {INFLATED_MAX}; split it into records"
        )
    compressor = zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    deflated = compressor.compress(packed) + compressor.flush()
    used = _LENGTH_SIZE + len(deflated)
    return b"".join((len(deflated).to_bytes(_LENGTH_SIZE), deflated, bytes(padme(used) - used)))


def unpack_plaintext(wire: bytes) -> Plaintext:
    """Return what `to_wire` packed, and refuse every other encoding of it but a different DEFLATE stream.

    Raises MalformedError: `too-large` (inflates beyond INFLATED_MAX), `bad-plaintext` (padding, length, DEFLATE,
    MessagePack, salts).
    """
    packed = _inflated(wire)
    try:
        plaintext = _decoder.decode(packed)
        again = _encoder.encode(plaintext)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise _bad("is not MessagePack of a header and resources") from None
    if again != packed:
        raise _bad("is MessagePack, but not in its shortest form")
    if len(plaintext.resources) > RESOURCES_MAX or len(plaintext.header) > HEADER_MAX:
        raise MalformedError("too-large", f"a record has more than {RESOURCES_MAX} resources or too long a header")
    for resource in plaintext.resources:
        if len(resource.salt) != ID_SIZE or len(resource.full_url.encode()) > _FULL_URL_MAX:
            raise _bad(f"has a resource without a salt of {ID_SIZE} bytes, or a fullUrl of 64 KiB")
    return plaintext


def _inflated(wire: bytes) -> bytes:
    used = _LENGTH_SIZE + int.from_bytes(wire[:_LENGTH_SIZE])
    if len(wire) != padme(used):
        raise _bad("does not have the padded size that its length says")
    if any(wire[used:]):
        raise _bad("has padding that is not zero")
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        packed = inflater.decompress(wire[_LENGTH_SIZE:used], INFLATED_MAX + 1)
    except zlib.error:
        raise _bad("is not a DEFLATE stream") from None
    if len(packed) > INFLATED_MAX:
        raise MalformedError("too-large", f"a record inflates beyond {INFLATED_MAX} bytes; it was not opened further")
    if not inflater.eof or inflater.unused_data:
        raise _bad("does not end where its DEFLATE stream does")
    return packed


def _bad(what: str) -> MalformedError:
    return MalformedError("bad-plaintext", f"the content of a record {what}; report its author")
