"""The directory as it was: at the height that a log entry names, with the keys that were in force then.

Built by executing blocks with the directory's own rules, forwards as a log's entries go on; a short step back is taken
back, a long one starts over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from careledger.directory import BLOCK_BYTES_MAX, Directory, parse_block
from careledger.directory.state import RECENT_BLOCKS
from careledger.errors import Error, NotFoundError
from careledger.identity import keys_hash, verify_key
from careledger.seal import VerifyKey, parse_keyid

__all__ = ["DirectoryHistory", "KeysAt", "ViewAt"]

GRACE_MS = 10_000
"""A request is proven when it arrives and entered a little later: keys that were superseded this shortly before an
entry was received still count."""


class ViewAt:
    """consent.DirectoryView of a directory at its height."""

    __slots__ = ("_directory", "is_active", "licensed")

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.is_active = directory.is_active
        self.licensed = directory.licensed

    @property
    def height(self) -> int:
        return self._directory.height

    @property
    def time_ms(self) -> int:
        return self._directory.time_ms

    def member(self, organisation: str, /) -> bool:
        return self._directory.member(organisation) is not None


class DirectoryHistory:
    """A directory that can be asked about any height up to its last block. For one thread."""

    def __init__(self, genesis: bytes, blocks: Sequence[bytes], *, block_bytes_max: int = BLOCK_BYTES_MAX) -> None:
        """`blocks[h - 1]` is block h; they were verified (`verify_directory`), here they are only executed.

        Raises MalformedError `bad-genesis`.
        """
        self.genesis = genesis
        self.blocks = blocks
        self._block_bytes_max = block_bytes_max
        self._directory = Directory.from_genesis(genesis)
        self._parsed: dict[str, tuple[VerifyKey, str]] = {}

    @property
    def network(self) -> str:
        return self._directory.network

    @property
    def height(self) -> int:
        """The last block's height."""
        return len(self.blocks)

    def at(self, height: int) -> Directory:
        """The directory after block `height`; the same object every time, so use it before asking for another one.

        Raises NotFoundError `no-block`: the blocks end before.
        """
        if height > len(self.blocks):
            raise NotFoundError("no-block", f"block {height} of the directory is not at hand, only {len(self.blocks)}")
        directory = self._directory
        if height < directory.height:
            if directory.height - height < RECENT_BLOCKS - 1:
                directory.state.take_back(height)
            else:
                directory = self._directory = Directory.from_genesis(self.genesis)
        while directory.height < height:
            directory.apply(parse_block(self.blocks[directory.height], size_max=self._block_bytes_max))
        return directory

    def keys(self, height: int, received: int, *tokens: str, superseded: bool = False) -> KeysAt:
        """Signing keys by keyid as they were in force for an entry received at this height; of `tokens` alone if
        any are given. `superseded`: keys from before count too."""
        return KeysAt(self.at(height), received, frozenset(tokens), superseded, self._parsed)


class KeysAt(Mapping[str, VerifyKey]):
    """keyid -> key, looked up when asked for."""

    def __init__(
        self,
        directory: Directory,
        received: int,
        tokens: frozenset[str],
        superseded: bool,
        parsed: dict[str, tuple[VerifyKey, str]],
    ) -> None:
        self._directory = directory
        self._received = received
        self._tokens = tokens
        self._superseded = superseded
        self._parsed = parsed

    def __getitem__(self, name: str) -> VerifyKey:
        try:
            token, sequence = parse_keyid(name)
        except Error:
            raise KeyError(name) from None
        if self._tokens and token not in self._tokens:
            raise KeyError(name)
        state = self._directory.identity(token)
        if state is None or sequence > state.sequence:
            raise KeyError(name)
        held = self._parsed.get(name)
        if held is None:
            keys = self._directory.public_keys(token, sequence)
            if not keys:
                raise KeyError(name)
            held = self._parsed[name] = (verify_key(keys[0]), keys_hash(keys))
        in_force = state.status == "active" and state.keys_hash == held[1]
        if not in_force and not self._superseded and state.effective_at < self._received - GRACE_MS:
            raise KeyError(name)
        return held[0]

    def __iter__(self) -> Iterator[str]:
        raise TypeError("the keys of a directory are looked up, not listed")

    def __len__(self) -> int:
        raise TypeError("the keys of a directory are looked up, not counted")
