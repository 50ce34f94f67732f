"""Shamir's secret sharing: a release key is split so that any t custodians give it back and t−1 know nothing.

Over GF(2^8) with the polynomial x^8 + x^4 + x^3 + x + 1 (0x11B), byte by byte, for a secret of any length. A share is
the bytes y, then one byte x, as npm `shamir-secret-sharing` writes it. Coefficients come from the caller: whoever knows
the secret they are derived from can make every share again. That a share is the right one is proven by its commitment;
`combine` itself cannot know it. The arithmetic looks up tables and is not constant-time: it runs where the secret is
anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Final

from careledger.errors import VerificationError

__all__ = ["SHARES_MAX", "combine", "combine_many", "share_commitment", "split"]

SHARES_MAX: Final = 255
"""x is one byte and never 0, where the secret itself lies."""

_COMMITMENT_LABEL: Final = b"careledger/share/v1"
_RECORD_SIZE: Final = 16


def _multiply(a: int, b: int) -> int:
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a & 0x100:
            a ^= 0x11B
        b >>= 1
    return product


def _logarithms() -> tuple[list[int], list[int]]:
    powers = [1]
    for _ in range(254):
        powers.append(_multiply(powers[-1], 3))  # 3 generates the multiplicative group
    logs = [0] * 256
    for exponent, value in enumerate(powers):
        logs[value] = exponent
    return powers, logs


_POWERS, _LOGS = _logarithms()


def _times(a: int, b: int) -> int:
    return _POWERS[(_LOGS[a] + _LOGS[b]) % 255] if a and b else 0


def _over(a: int, b: int) -> int:
    return _POWERS[(_LOGS[a] - _LOGS[b]) % 255] if a else 0


@lru_cache(maxsize=256)
def _table(factor: int) -> bytes:
    """A translation table that multiplies each byte by `factor`."""
    return bytes(_times(factor, value) for value in range(256))


@lru_cache(maxsize=1024)
def _weights(xs: tuple[int, ...]) -> tuple[bytes, ...]:
    """The tables of Lagrange's weights at 0 for distinct non-zero places `xs`."""
    tables = []
    for i, x in enumerate(xs):
        weight = 1
        for j, other in enumerate(xs):
            if i != j:
                weight = _times(weight, _over(other, other ^ x))
        tables.append(_table(weight))
    return tuple(tables)


def split(secret: bytes, *, n: int, t: int, coefficients: Sequence[bytes]) -> list[bytes]:
    """Return the n shares y ‖ x of `secret`, x = 1…n; any t of them give it back.

    `coefficients[j−1]` is that of x^j for j = 1…t−1: secret, uniformly random, as long as the secret, used once.
    Many secrets of one size can be split at once by joining them (and their coefficients): y is then joined too.
    Raises AssertionError when n, t or the coefficients do not fit: a bug.
    Source: Shamir 1979; vectors/seal/shamir.json.
    """
    size = len(secret)
    if not (1 <= t <= n <= SHARES_MAX and size):
        raise AssertionError(f"cannot split {size} bytes {t} of {n}: needs 1 <= t <= n <= {SHARES_MAX} and a secret")
    if len(coefficients) != t - 1 or any(len(coefficient) != size for coefficient in coefficients):
        raise AssertionError(f"splitting {size} bytes with t = {t} needs {t - 1} coefficients of that size")
    rising = [int.from_bytes(row) for row in (secret, *coefficients)]
    shares = []
    for x in range(1, n + 1):
        table = _table(x)
        y = rising[-1]
        for row in reversed(rising[:-1]):  # Horner's rule
            y = int.from_bytes(y.to_bytes(size).translate(table)) ^ row
        shares.append(y.to_bytes(size) + bytes([x]))
    return shares


def combine(shares: Sequence[bytes]) -> bytes:
    """Return the secret from shares y ‖ x of one split; the caller brings at least its threshold t of them.

    Expects shares already checked against their commitments: fewer than t, or a false one, give a wrong secret without
    a word. Raises VerificationError `bad-share`: none, unequal or no length, x = 0 or twice.
    Source: Shamir 1979; vectors/seal/shamir.json.
    """
    if any(len(share) < 2 for share in shares):
        raise VerificationError("bad-share", "a share is shorter than two bytes; ask its custodian again")
    return combine_many([(share[-1], share[:-1]) for share in shares])


def combine_many(by_custodian: Sequence[tuple[int, bytes]]) -> bytes:
    """Return the joined secrets of many records from each custodian's place x and its joined ys, in one pass.

    Every custodian's ys stand in the same order and have one size. Raises VerificationError `bad-share` as `combine`.
    """
    xs = tuple(x for x, _ in by_custodian)
    sizes = {len(ys) for _, ys in by_custodian}
    if len(sizes) != 1 or 0 in sizes:
        raise VerificationError(
            "bad-share", f"{len(xs)} shares have sizes {sorted(sizes)}; all must have one size above 0"
        )
    if len(set(xs)) != len(xs) or not all(1 <= x <= SHARES_MAX for x in xs):
        raise VerificationError(
            "bad-share", f"places {sorted(xs)} of shares are not distinct or not within 1 to {SHARES_MAX}"
        )
    total = 0
    for (_, ys), table in zip(by_custodian, _weights(xs), strict=True):
        total ^= int.from_bytes(ys.translate(table))
    return total.to_bytes(sizes.pop())


def share_commitment(record: bytes, share: bytes) -> bytes:
    """Return SHA-256("careledger/share/v1" ‖ record ‖ x ‖ y), by which a share of a record is recognised.

    `record` is the 16-byte record id, `share` is y ‖ x as `split` returns it. The share's 32 random bytes hide it.
    """
    if len(record) != _RECORD_SIZE or len(share) < 2:
        raise AssertionError(
            f"a share commitment needs a 16-byte record id and a share, got {len(record)} and {len(share)} bytes"
        )
    return sha256(_COMMITMENT_LABEL + record + share[-1:] + share[:-1]).digest()
