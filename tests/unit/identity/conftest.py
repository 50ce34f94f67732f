"""Deterministic randomness for identities."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest


@pytest.fixture
def rand() -> Callable[[int], bytes]:
    count = 0

    def draw(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"identity {count}".encode()).digest(size)

    return draw
