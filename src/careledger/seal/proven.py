"""A memory of signatures that were found to hold, for who executes the same messages several times.

Whether an Ed25519 signature holds is a function of key, signature and message, so remembering that it does changes no
answer. Failures are not remembered: nobody can fill the memory without valid signatures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

__all__ = ["ProvenSignatures", "memory_in_use"]


class ProvenSignatures:
    """Remembers the last `size_max` or more (at most twice as many) proven signatures, 32 bytes each."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._new: set[bytes] = set()
        self._old: set[bytes] = set()
        self.checks = 0
        """How many signatures had to be checked."""

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._new or digest in self._old

    def add(self, digest: bytes) -> None:
        """Remember SHA-256(key ‖ signature ‖ message) of a signature that was just checked and holds."""
        self.checks += 1
        if len(self._new) >= self._size_max:
            self._new, self._old = set(), self._new
        self._new.add(digest)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Within it, VerifyKey.verify asks this memory first, and tells it what it proved."""
        token = _in_use.set(self)
        try:
            yield
        finally:
            _in_use.reset(token)


_in_use: Final[ContextVar[ProvenSignatures | None]] = ContextVar("proven-signatures", default=None)


def memory_in_use() -> ProvenSignatures | None:
    """The memory of the innermost `used` block."""
    return _in_use.get()
