"""Where a text stops being JSON, in words that a person can act on.

msgspec says *that* something is wrong, fast; this scanner is slower, runs only then, and says line, column and reason.
It also finds what msgspec lets through where a second reader could choose differently: two equal keys in a Bundle or
an entry, and nesting deeper than `DEPTH_MAX`. It keeps its own stack, so that no input can exhaust Python's.
"""

from __future__ import annotations

import codecs
import re

import msgspec

from careledger.errors import MalformedError
from careledger.fhir.reading import refusal

DEPTH_MAX = 200
"""Levels of objects and arrays in one resource (fhir.md 4.1); real resources have about ten."""

_SPACE = re.compile(rb"[ \t\r\n]*+")
_STRING = re.compile(rb'"(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+')
_SCALAR = re.compile(rb"(?:-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|true|false|null)(?![0-9A-Za-z_.+-])")
_SURROGATE = re.compile(rb"\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F])")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_PARTIAL_WORDS = (b"true", b"false", b"null")


class Fault(msgspec.Struct, frozen=True):
    """`kind` is a reason code; `offset` counts bytes; `entry` is the 1-based entry it lies in, 0 outside entries."""

    kind: str
    what: str
    offset: int
    entry: int
    complete: int
    """Entries (of a Bundle or an array) that end before the fault."""


def truncated(complete: int) -> MalformedError:
    where = f" (after entry {complete})" if complete else ""
    return refusal("truncated", f"ends in the middle{where}. Download it again.")


def complete_entries(data: bytes | bytearray) -> int:
    """How many whole entries a text holds that was cut off."""
    fault = scan(bytes(data).removeprefix(codecs.BOM_UTF8))
    return fault.complete if fault else 0


def position(data: bytes | bytearray, offset: int) -> tuple[int, int]:
    """1-based line and column (in characters) of a byte offset."""
    start = data.rfind(b"\n", 0, offset) + 1
    return data.count(b"\n", 0, offset) + 1, len(bytes(data[start:offset]).decode("utf-8", "replace")) + 1


def explain(data: bytes | bytearray, fault: Fault, *, unit: str = "entry") -> MalformedError:
    """The refusal for a fault: the exact sentences of fhir.md section 5."""
    line, column = position(data, fault.offset)
    if fault.kind == "truncated":
        return truncated(fault.complete)
    if fault.kind == "too-deep":
        where = f"{unit} {fault.entry}" if fault.entry else "it"
        return refusal("too-deep", f"{where} is nested deeper than {DEPTH_MAX} levels. Ask the sender.")
    if fault.kind == "duplicate-key":
        where = f"{unit} {fault.entry}: " if fault.entry else ""
        name = f'"{fault.what}"' if _NAME.fullmatch(fault.what) else "one key"
        return refusal(
            "duplicate-key", f"{where}{name} appears twice. Which one counts is not defined; ask the sender."
        )
    if fault.kind == "trailing-data":
        return refusal("trailing-data", f"more text after the end at line {line}, column {column}. Export it again.")
    if fault.kind == "surrogate":
        where = f"{unit} {fault.entry}: " if fault.entry else ""
        return refusal("not-json", f"{where}half a surrogate pair at column {column}. Ask the sender for strict JSON.")
    return refusal(
        "not-json", f"not JSON at line {line}, column {column}: {fault.what}. Ask the sender for strict JSON."
    )


def scan(data: bytes | bytearray) -> Fault | None:
    """The first fault of a JSON text (of one value and nothing after it), or None if it has none that we look for."""
    return _Scanner(data).run()


def _plain(key: bytes) -> str:
    try:
        return msgspec.json.decode(key, type=str)
    except (UnicodeDecodeError, msgspec.DecodeError):  # not UTF-8: compared as it stands
        return key.decode("latin-1")


class _Scanner:
    """A state machine over tokens; `stack` holds b"{" or b"[" of every open container."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = data
        self.at = 0
        self.stack: list[int] = []
        self.keys: list[set[str] | None] = []
        self.entries_level = 0
        self.root_key = ""
        self.complete = 0

    def run(self) -> Fault | None:
        state = "value"
        while True:
            self.at = self._skip(self.at)
            if self.at >= len(self.data):
                return None if state == "end" else self._fault("truncated", "")
            byte = self.data[self.at]
            if state == "end":
                return self._fault("trailing-data", "")
            if state in ("key", "first-key"):
                step = self._key(byte, first=state == "first-key")
            elif state == "after":
                step = self._after(byte)
            else:
                step = self._value(byte, first=state == "first-value")
            if isinstance(step, Fault):
                return step
            state = step

    def _skip(self, at: int) -> int:
        found = _SPACE.match(self.data, at)
        assert found is not None
        return found.end()

    def _entry(self) -> int:
        """The entry the scanner is in: inside a container below the list of entries."""
        return self.complete + 1 if self.entries_level > 0 and len(self.stack) >= self.entries_level else 0

    def _fault(self, kind: str, what: str, *, at: int | None = None) -> Fault:
        return Fault(kind, what, self.at if at is None else at, self._entry(), self.complete)

    def _end_of_value(self) -> str:
        if self.stack and len(self.stack) == self.entries_level:
            self.complete += 1
        return "after" if self.stack else "end"

    def _open(self, byte: int) -> str | Fault:
        if byte == 0x5B and not self.entries_level and self._holds_entries():
            self.entries_level = len(self.stack) + 1
        self.stack.append(byte)
        watched = byte == 0x7B and (len(self.stack) == 1 or len(self.stack) == self.entries_level + 1)
        self.keys.append(set() if watched else None)
        if len(self.stack) - self.entries_level > DEPTH_MAX + 1:  # an entry's own object is one more
            return self._fault("too-deep", "")
        self.at += 1
        return "first-key" if byte == 0x7B else "first-value"

    def _holds_entries(self) -> bool:
        return not self.stack or (len(self.stack) == 1 and self.stack[0] == 0x7B and self.root_key == "entry")

    def _close(self) -> str:
        if len(self.stack) == self.entries_level:
            self.entries_level = -1  # the list of entries ended; nothing below counts as one
        self.stack.pop()
        self.keys.pop()
        self.at += 1
        return self._end_of_value()

    def _value(self, byte: int, *, first: bool) -> str | Fault:
        if byte in b"{[":
            return self._open(byte)
        if byte == 0x5D and first:
            return self._close()
        if byte == 0x22:
            fault = self._string()
            return fault or self._end_of_value()
        scalar = _SCALAR.match(self.data, self.at)
        if scalar is None:
            return self._bad_value(byte)
        self.at = scalar.end()
        return self._end_of_value()

    def _key(self, byte: int, *, first: bool) -> str | Fault:
        if byte == 0x7D and first:
            return self._close()
        if byte != 0x22:
            return self._bad_key(byte)
        start = self.at
        fault = self._string()
        if fault:
            return fault
        seen = self.keys[-1]
        if seen is not None:
            key = _plain(bytes(self.data[start : self.at]))
            if key in seen:
                return self._fault("duplicate-key", key, at=start)
            seen.add(key)
            if len(self.stack) == 1:
                self.root_key = key
        self.at = self._skip(self.at)
        if self.at >= len(self.data):
            return self._fault("truncated", "")
        if self.data[self.at] != 0x3A:
            return self._fault("not-json", "missing colon")
        self.at += 1
        return "value"

    def _after(self, byte: int) -> str | Fault:
        inside = self.stack[-1]
        if byte == inside + 2:  # "]" and "}" stand two places after "[" and "{" in ASCII
            return self._close()
        if byte != 0x2C:
            return self._fault("not-json", "comment" if byte in b"/#" else "missing comma")
        comma = self.at
        self.at = self._skip(self.at + 1)
        if self.data[self.at : self.at + 1] in (b"]", b"}"):
            return self._fault("not-json", "trailing comma", at=comma)
        return "key" if inside == 0x7B else "value"

    def _string(self) -> Fault | None:
        start = self.at
        found = _STRING.match(self.data, start)
        assert found is not None
        end = found.end()
        if end >= len(self.data):
            return self._fault("truncated", "")
        if self.data[end] != 0x22:
            if self.data[end] != 0x5C:
                return self._fault("not-json", "control character in a string", at=end)
            if len(self.data) - end < 6 and b'"' not in self.data[end:]:
                return self._fault("truncated", "")
            return self._fault("not-json", "unknown escape in a string", at=end)
        text = bytes(self.data[start:end])
        if b"\\u" in text:
            for half in _SURROGATE.finditer(text):
                if half.group(1):
                    return self._fault("surrogate", "", at=start + half.start())
        self.at = end + 1
        return None

    def _bad_key(self, byte: int) -> Fault:
        if byte == 0x27:
            return self._fault("not-json", "single quotes")
        return self._fault("not-json", "comment" if byte in b"/#" else "a key without quotes")

    def _bad_value(self, byte: int) -> Fault:
        tail = bytes(self.data[self.at : self.at + 9])
        if len(tail) < 5 and self.at + len(tail) == len(self.data) and any(w.startswith(tail) for w in _PARTIAL_WORDS):
            return self._fault("truncated", "")
        if byte in b"-+0123456789" and self.at + len(tail) == len(self.data) and re.fullmatch(rb"-?[0-9.eE+-]*", tail):
            return self._fault("truncated", "")
        digits = tail.lstrip(b"-")
        if tail.startswith(b"NaN"):
            what = "NaN"
        elif tail.lstrip(b"+-").startswith(b"Infinity"):
            what = "Infinity"
        elif byte == 0x2B:
            what = "a number with a plus sign"
        elif digits[:1] == b"0" and digits[1:2].isdigit():
            what = "a number with a leading zero"
        elif byte == 0x27:
            what = "single quotes"
        elif byte in b"/#":
            what = "comment"
        elif byte in b"]},":
            what = "a value is missing"
        else:
            what = "unexpected character"
        return self._fault("not-json", what)
