"""Looking for plaintext on nodes' disks: every long string of the input, in every file, however it is written down.

A string counts as found when it stands anywhere plain (UTF-8), in hex, in base64 (either alphabet, at any alignment),
or in one of these inside zlib, gzip or raw deflate data. SQLite files are read both as bytes (free pages, write-ahead
logs) and value by value (a value can be split over pages). `self_test` plants strings and proves that the same scan
finds them, so that "nothing found" means something.
"""

from __future__ import annotations

import base64
import re
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from ahocorasick_rs import BytesAhoCorasick

from careledger.fhir import long_strings

__all__ = ["Scanner", "self_test", "strings_of"]

_INFLATED_MAX = 32 << 20
_MOMENT = re.compile(rb'"(\d{4}-\d\d-\d\dT[0-9:.+Z-]{9,})"')
_IDENTIFIER = re.compile(rb'"value"\s*:\s*"([^"\\]{8,})"')
_DIGITS = re.compile(r"[0-9.]+")
_COMPRESSED = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08")
_SQLITE = b"SQLite format 3\x00"


def strings_of(resource: bytes) -> set[str]:
    """The strings of a resource that must not be on a node's disk: names, texts, displays, identifiers, and the
    moments of care. Bare digits are left out: a code's eight digits also occur in hashes by chance."""
    moments = {found.decode() for found in _MOMENT.findall(resource)}
    values = {found.decode("utf-8", "replace") for found in _IDENTIFIER.findall(resource)}
    return long_strings(resource) | moments | {value for value in values if not _DIGITS.fullmatch(value)}


def _base64_forms(data: bytes) -> Iterator[bytes]:
    """What base64 of anything that contains `data` must contain, for each of the three alignments."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + data)
        inner = encoded[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        yield inner
        if b"+" in inner or b"/" in inner:
            yield inner.translate(bytes.maketrans(b"+/", b"-_"))


class Scanner:
    """Finds any of `strings` in files. Immutable; one automaton for all strings and forms."""

    def __init__(self, strings: Iterable[str]) -> None:
        self.strings = sorted(set(strings))
        patterns: list[bytes] = []
        self._owner: list[int] = []
        for number, text in enumerate(self.strings):
            data = text.encode()
            forms = {data, data.hex().encode(), data.hex().upper().encode(), *_base64_forms(data)}
            patterns += forms
            self._owner += [number] * len(forms)
        self._automaton = BytesAhoCorasick(patterns) if patterns else None

    def search(self, data: bytes) -> set[int]:
        """Numbers of the strings that stand in `data` itself."""
        if self._automaton is None:
            return set()
        return {
            self._owner[pattern] for pattern, _, _ in self._automaton.find_matches_as_indexes(data, overlapping=True)
        }

    def search_deep(self, data: bytes) -> set[int]:
        """`search`, and the same inside whatever inflates at a zlib or gzip header."""
        found = self.search(data)
        view = memoryview(data)
        for match in _COMPRESSED.finditer(data):
            kind = 31 if data[match.start()] == 0x1F else 15
            found |= self.search(_inflate(view[match.start() :], kind))
        return found

    def _search_packed(self, value: bytes) -> set[int]:
        """In a value that is raw deflate, from its start or after a length of four bytes (as plaintexts are)."""
        view = memoryview(value)
        return self.search(_inflate(view, -15)) | self.search(_inflate(view[4:], -15))

    def scan(self, folder: Path) -> set[str]:
        """The distinct strings found in any file below `folder`."""
        found: set[int] = set()
        for path in sorted(folder.rglob("*")):
            if not path.is_file():
                continue
            data = path.read_bytes()
            found |= self.search_deep(data)
            if data.startswith(_SQLITE):
                for value in _sqlite_values(path):
                    found |= self.search(value) | self._search_packed(value)
        return {self.strings[number] for number in found}


def _inflate(data: memoryview, kind: int) -> bytes:
    """What inflates from the start of `data`, up to a bound; nothing when it is not compressed data."""
    unpacker = zlib.decompressobj(kind)
    try:
        # Most places that look like a header are not one: find out on the first bytes.
        first = unpacker.decompress(data[:512], _INFLATED_MAX)
        return first + unpacker.decompress(data[512:], _INFLATED_MAX) if len(data) > 512 else first
    except zlib.error:
        return b""


def _sqlite_values(path: Path) -> Iterator[bytes]:
    """Every text and blob of a SQLite file, in chunks joined by a byte that no string has."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        connection.text_factory = bytes
        tables = [row[0].decode() for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - a name out of the file itself
                for value in row:
                    if isinstance(value, bytes) and len(value) >= 8:
                        yield value
    finally:
        connection.close()


def self_test(folder: Path) -> bool:
    """Plant strings plain, in base64, in hex and deflated, as nodes' files could have them; true if all are found."""
    folder.mkdir(parents=True)
    words = {form: f"Planted Näme {form} street 12" for form in ("plain", "base64", "hex", "deflated", "zlib", "blob")}
    noise = bytes(range(256)) * 40
    (folder / "plain").write_bytes(noise + words["plain"].encode() + noise)
    (folder / "base64").write_bytes(noise + base64.b64encode(b"x" + words["base64"].encode() + b"yz") + noise)
    (folder / "hex").write_bytes(noise + words["hex"].encode().hex().encode() + noise)
    (folder / "zlib").write_bytes(noise + zlib.compress(words["zlib"].encode() * 3) + noise)
    database = sqlite3.connect(folder / "store.db")
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    deflated = packer.compress(words["deflated"].encode()) + packer.flush()
    with database:
        database.execute("CREATE TABLE t(a BLOB)")
        database.execute("INSERT INTO t VALUES(?)", (b"\x00\x00\x00\x20" + deflated,))
        database.execute("INSERT INTO t VALUES(?)", (noise * 3 + words["blob"].encode() + noise,))
    database.close()
    absent = "Nobody Planted This String"
    return Scanner([*words.values(), absent]).scan(folder) == set(words.values())
