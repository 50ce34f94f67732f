"""What an engine answers to who submitted a transaction."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["SubmitResult"]


class SubmitResult(NamedTuple):
    """What became of a submitted transaction; `height` of its block, None when it was refused."""

    code: str
    message: str
    height: int | None

    @property
    def ok(self) -> bool:
        return self.code == "ok"
