"""Keeps what proves the directory's head to others: CometBFT's newest commit, and every block that changed the set of
validators since the genesis.

Changes are found by halving the heights between a set that is known and the newest block, so that a node that lost the
file, or comes late, asks for a few headers of a long chain. What CometBFT answers is verified as a client would.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from careledger.directory import LightBlock, LightValidator, chain_id, follow
from careledger.directory.engines.cometbft.light import light_block, light_validators
from careledger.directory.lightblocks import validators_hash
from careledger.errors import Error
from careledger.seal import decode, encode

__all__ = ["LIGHT_FILE", "LightKeeper"]

LIGHT_FILE: Final = "light.json"
"""Beside the directory's store: the light blocks, for whoever verifies the folder."""
_FILE_BYTES_MAX: Final = 1 << 24


class _Rpc(Protocol):
    async def commit(self, height: int) -> Any: ...

    async def validators(self, height: int) -> Any: ...


class LightKeeper:
    """`founders` is the set of the genesis, `first` the height of CometBFT's first block."""

    def __init__(self, path: Path, rpc: _Rpc, *, network: str, founders: Sequence[LightValidator], first: int) -> None:
        self._path = path
        self._rpc = rpc
        self._chain = chain_id(network)
        self._founders = list(founders)
        self._first = first
        self._changes: list[LightBlock] = []
        self._set = list(founders)
        self.newest: LightBlock | None = None
        self._restore()

    @property
    def blocks(self) -> list[LightBlock]:
        """The proof of the newest head: the changes, then the newest block. Empty as long as there is none."""
        if self.newest is None:
            return []
        changed = bool(self._changes) and self._changes[-1] == self.newest
        return [*self._changes, *([] if changed else [self.newest])]

    @property
    def height(self) -> int:
        """Of the newest block that is proven to be committed; 0 if there is none."""
        return 0 if self.newest is None else self.newest.header.height

    async def advance(self, height: int) -> None:
        """Take in the commit of this height, and the changes of the set on the way there.

        Raises what the RPC raises; VerificationError as directory.follow, MalformedError `bad-light-block`.
        """
        if height <= self.height:
            return
        changes, known = list(self._changes), list(self._set)
        low = changes[-1].header.height + 1 if changes else self._first
        while True:
            newest = await self._block(height)
            if bytes.fromhex(newest.header.validators) == validators_hash(known):
                break
            changed = await self._change(low, height, validators_hash(known).hex())
            changes.append(changed)
            assert isinstance(changed.next_set, list), "a change has the set that follows it"
            known, low = changed.next_set, changed.header.height + 1
        if newest.next_set is not msgspec.UNSET:
            changes.append(newest)
            known = list(newest.next_set)
        kept = changes if changes and changes[-1] == newest else [*changes, newest]
        follow(kept, chain=self._chain, validators=self._founders)
        self._changes, self._set, self.newest = changes, known, newest
        self._write()

    async def _change(self, low: int, high: int, known: str) -> LightBlock:
        """A block between the two whose set is the known one and whose next set is another: `low` has the known set
        (or is where it begins), `high` has another."""
        while high - low > 1:
            middle = (low + high) // 2
            header = (await self._block(middle)).header
            low, high = (middle, high) if header.validators == known else (low, middle)
        return await self._block(low)

    async def _block(self, height: int) -> LightBlock:
        found = light_block((await self._rpc.commit(height))["signed_header"])
        if found.header.validators == found.header.next_validators:
            return found
        after = light_validators(await self._rpc.validators(height + 1))
        return msgspec.structs.replace(found, next_set=after)

    def _restore(self) -> None:
        """What was kept before, if it still proves what it says; else it is asked for again."""
        try:
            found = decode(self._path.read_bytes(), list[LightBlock], size_max=_FILE_BYTES_MAX)
            head = follow(found, chain=self._chain, validators=self._founders)
        except (OSError, Error):
            return
        self._changes = [block for block in found if block.next_set is not msgspec.UNSET]
        self._set, self.newest = list(head.validators), found[-1]

    def _write(self) -> None:
        """Whole or not at all; not synced, since it can be asked for again."""
        aside = self._path.with_name(f".{self._path.name}.new")
        aside.write_bytes(encode(self.blocks))
        os.replace(aside, self._path)
