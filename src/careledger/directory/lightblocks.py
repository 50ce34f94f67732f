"""Heads of a directory that CometBFT orders, verified offline: headers, two-thirds commits, the validator set followed.

A light block is a header with the votes of its commit. The hash over its fields and the bytes that validators sign are
CometBFT v0.38's (spec/core/data_structures, types/canonical.go); the few protobuf messages in them are written here,
since what is hashed must not depend on how a library writes it. The app hash after block H is in header H+1.

Following the set from the genesis rests on the keys of past validators not having been stolen since: who can, begins
with a set it already trusts. Spec: docs/spec/directory.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Final, NamedTuple

from msgspec import UNSET, Meta, UnsetType

from careledger.directory.proofs import StateProof
from careledger.errors import VerificationError
from careledger.identity.fields import Version
from careledger.seal import Payload, VerifyKey, b64, unb64
from careledger.tlog import leaf_hashes_of, root_of

__all__ = [
    "LightBlock",
    "LightHead",
    "LightProof",
    "LightValidator",
    "chain_id",
    "follow",
    "validator_set",
    "validators_hash",
]

VALIDATORS_MAX: Final = 1000
_PRECOMMIT: Final = 2
_Count = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
_Nanos = Annotated[int, Meta(ge=0, lt=1_000_000_000)]
_Hash = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_HashOrNone = Annotated[str, Meta(pattern=r"\A(?:[0-9a-f]{64})?\Z")]
_Address = Annotated[str, Meta(pattern=r"\A[0-9a-f]{40}\Z")]


class LightValidator(Payload, frozen=True, kw_only=True):
    """A validator: its Ed25519 key (base64url) and voting power."""

    key: Annotated[str, Meta(min_length=43, max_length=43)]
    power: Annotated[int, Meta(ge=1, le=1 << 50)]

    @property
    def address(self) -> bytes:
        return sha256(unb64(self.key, size=32)).digest()[:20]


class BlockId(Payload, frozen=True, kw_only=True):
    """What a vote is for: a header's hash, and the hash and number of the parts in which its block travels."""

    hash: _Hash
    parts: Annotated[int, Meta(ge=1, le=(1 << 32) - 1)]
    parts_hash: _Hash


class Header(Payload, frozen=True, kw_only=True):
    """A block's header; hashes in lower-case hex, `seconds` and `nanos` since 1970. No `last` in the first block."""

    block_version: _Count
    app_version: _Count
    chain: Annotated[str, Meta(min_length=1, max_length=50)]
    height: Annotated[int, Meta(ge=1, le=(1 << 53) - 1)]
    seconds: _Count
    nanos: _Nanos
    last: BlockId | UnsetType = UNSET
    last_commit: _HashOrNone
    data: _HashOrNone
    validators: _Hash
    next_validators: _Hash
    consensus: _Hash
    app: _Hash
    last_results: _HashOrNone
    evidence: _HashOrNone
    proposer: _Address

    @property
    def hash(self) -> bytes:
        """The Merkle root over the header's fields in CometBFT's order, which is RFC 6962's tree."""
        last = _block_id(self.last) if self.last is not UNSET else _message(2, b"")
        leaves = [
            _varint_field(1, self.block_version) + _varint_field(2, self.app_version),
            _bytes_field(1, self.chain.encode()),
            _varint_field(1, self.height),
            _timestamp(self.seconds, self.nanos),
            last,
            *(_bytes_field(1, bytes.fromhex(value)) for value in self._hashes()),
        ]
        return root_of(leaf_hashes_of(leaves))

    def _hashes(self) -> Iterator[str]:
        yield from (self.last_commit, self.data, self.validators, self.next_validators, self.consensus)
        yield from (self.app, self.last_results, self.evidence, self.proposer)


class Vote(Payload, frozen=True, kw_only=True):
    """One validator's vote for the block, by its place in the set. Absent and nil votes are left out."""

    validator: Annotated[int, Meta(ge=0, lt=VALIDATORS_MAX)]
    seconds: _Count
    nanos: _Nanos
    signature: Annotated[str, Meta(min_length=86, max_length=86)]


class LightBlock(Payload, frozen=True, kw_only=True):
    """A header, the votes that committed it, and the next set of validators where it is another one.

    Votes are in the order of the set. Everything in it is hashed or signed: no byte can change.
    """

    header: Header
    round: Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
    parts: Annotated[int, Meta(ge=1, le=(1 << 32) - 1)]
    parts_hash: _Hash
    votes: Annotated[list[Vote], Meta(min_length=1, max_length=VALIDATORS_MAX)]
    next_set: Annotated[list[LightValidator], Meta(min_length=1, max_length=VALIDATORS_MAX)] | UnsetType = UNSET


class LightProof(Payload, frozen=True, kw_only=True):
    """A value of the directory, or its absence, with the light blocks that prove its app hash from the genesis on.

    A file of its own: whoever has the genesis needs nothing else, and nobody's word.
    """

    v: Version
    proof: StateProof
    blocks: Annotated[list[LightBlock], Meta(min_length=1)]


class LightHead(NamedTuple):
    """A proven head: `app_hash` is that after block `height`, stated by the block after it, whose time is `time_ms`.

    `committed`: who is shown to have voted for that block (consensus key -> power). `validators` commit the next one.
    """

    height: int
    app_hash: bytes
    time_ms: int
    committed: dict[str, int]
    validators: Sequence[LightValidator]


def chain_id(network: str) -> str:
    """CometBFT's name of a network's chain, in every vote; it allows 50 characters."""
    return f"careledger-{network[:32]}"


def validator_set(powers: Mapping[bytes, int]) -> list[LightValidator]:
    """Raw public key -> power as a set in CometBFT's order: falling power, then address."""
    found = [LightValidator(key=b64(key), power=power) for key, power in powers.items()]
    return sorted(found, key=lambda one: (-one.power, one.address))


def validators_hash(validators: Sequence[LightValidator]) -> bytes:
    """The Merkle root over (key, power) of a set in its order: falling power, then address."""
    leaves = [_message(1, _bytes_field(1, unb64(one.key, size=32))) + _varint_field(2, one.power) for one in validators]
    return root_of(leaf_hashes_of(leaves))


def follow(blocks: Sequence[LightBlock], *, chain: str, validators: Sequence[LightValidator]) -> LightHead:
    """The head that the last of these light blocks proves, beginning with the set `validators`.

    `blocks` are in rising height: every block whose next set is another one, and the one after the head. For each:
    1. it is of `chain` and later than the one before; 2. its set is the trusted one; 3. more than two thirds of the
    set's power signed it, and every vote that is shown is valid; 4. the next set is the one its header names.
    Raises VerificationError `wrong-chain`, `wrong-order`, `wrong-validators`, `bad-signature`, `not-enough-votes`.
    """
    if not blocks:
        raise VerificationError("no-blocks", "the proof has no light block: nothing in it is signed")
    trusted = list(validators)
    before: Header | None = None
    committed: dict[str, int] = {}
    for block in blocks:
        header = block.header
        if header.chain != chain:
            raise VerificationError("wrong-chain", f"the block is of chain {header.chain}, not of {chain}")
        if before is not None and not _follows(header, before):
            raise VerificationError(
                "wrong-order", f"block {header.height} does not come after block {before.height} of the proof"
            )
        if bytes.fromhex(header.validators) != validators_hash(trusted):
            raise VerificationError(
                "wrong-validators",
                f"block {header.height} is by other validators than are known: a block that changed them is missing",
            )
        committed = _check_commit(block, trusted)
        trusted = _next_set(block, trusted)
        before = header
    last = blocks[-1].header
    time_ms = last.seconds * 1000 + last.nanos // 1_000_000
    return LightHead(last.height - 1, bytes.fromhex(last.app), time_ms, committed, trusted)


def _follows(header: Header, before: Header) -> bool:
    return header.height > before.height and (header.seconds, header.nanos) >= (before.seconds, before.nanos)


def _next_set(block: LightBlock, trusted: list[LightValidator]) -> list[LightValidator]:
    """The set of the next block, proven by the header's hash of it. A set that did not change is not repeated."""
    header = block.header
    found = trusted if block.next_set is UNSET else block.next_set
    changed = header.next_validators != header.validators
    if changed != (block.next_set is not UNSET) or bytes.fromhex(header.next_validators) != validators_hash(found):
        raise VerificationError(
            "wrong-validators", f"the validators after block {header.height} are not the ones that its header names"
        )
    return list(found)


def _check_commit(block: LightBlock, validators: Sequence[LightValidator]) -> dict[str, int]:
    """Who voted: every vote shown is valid, and together they have more than two thirds of the power."""
    height, place = block.header.height, -1
    committed: dict[str, int] = {}
    for vote in block.votes:
        if not place < vote.validator < len(validators):
            raise VerificationError(
                "wrong-order", f"the votes of block {height} are not in the order of its validators"
            )
        place = vote.validator
        key = VerifyKey(unb64(validators[place].key, size=32))
        try:
            key.verify(unb64(vote.signature, size=64), _signed_bytes(block, vote))
        except VerificationError as problem:
            raise VerificationError(
                "bad-signature",
                f"the vote of validator {place} for block {height} does not match: something was changed",
            ) from problem
        committed[validators[place].key] = validators[place].power
    power, total = sum(committed.values()), sum(one.power for one in validators)
    if 3 * power <= 2 * total:
        raise VerificationError(
            "not-enough-votes", f"{power} of {total} parts of the power voted for block {height}; more than 2/3 must"
        )
    return committed


def _signed_bytes(block: LightBlock, vote: Vote) -> bytes:
    """What a validator signs: CanonicalVote with its length before it. Integers of fixed size, since a vote's bytes
    must not depend on its values' lengths."""
    header = block.header
    voted = BlockId(hash=header.hash.hex(), parts=block.parts, parts_hash=block.parts_hash)
    content = b"".join(
        (
            _varint_field(1, _PRECOMMIT),
            _fixed_field(2, header.height),
            _fixed_field(3, block.round),
            _message(4, _block_id(voted)),
            _message(5, _timestamp(vote.seconds, vote.nanos)),
            _bytes_field(6, header.chain.encode()),
        )
    )
    return _varint(len(content)) + content


# Protocol buffers: https://protobuf.dev/programming-guides/encoding. A value that is zero or empty is left out, a
# message is not.


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value) if value else b""


def _fixed_field(number: int, value: int) -> bytes:
    return _varint(number << 3 | 1) + value.to_bytes(8, "little") if value else b""


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _bytes_field(number: int, value: bytes) -> bytes:
    return _message(number, value) if value else b""


def _timestamp(seconds: int, nanos: int) -> bytes:
    return _varint_field(1, seconds) + _varint_field(2, nanos)


def _block_id(block: BlockId) -> bytes:
    parts = _varint_field(1, block.parts) + _bytes_field(2, bytes.fromhex(block.parts_hash))
    return _bytes_field(1, bytes.fromhex(block.hash)) + _message(2, parts)
