"""What stands above a proof of the directory: a checkpoint that members cosigned, or blocks that validators committed.

Which of the two a network has follows from its genesis: a sequencer is named, or founders' nodes have consensus keys.
Either way more than two thirds of the members vouch for the app hash, and which node carried the proof does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from careledger.directory import (
    LightBlock,
    StateProof,
    chain_id,
    check_directory_checkpoint,
    cosignatures_needed,
    directory_origin,
    follow,
    network_of,
    parse_genesis,
    validator_set,
)
from careledger.directory.validators import founding_validators
from careledger.errors import UnavailableError, VerificationError
from careledger.seal import encode
from careledger.tlog import Verifier

__all__ = ["CommittedHeads", "CosignedHeads", "DirectoryProof", "Head", "Heads", "heads_of"]


Witnesses = Callable[[], Mapping[str, list[Verifier]]]


class DirectoryProof(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer of GET /v1/directory/proof/{kind}/{id}: the value's proof, and above it the cosigned checkpoint
    (embedded engine) or the light blocks that end with the one stating the app hash (CometBFT)."""

    proof: StateProof
    checkpoint: str = ""
    blocks: list[LightBlock] = []

    @property
    def above(self) -> bytes:
        """What stands above the value, as exports carry it: the checkpoint, or the light blocks in canonical JSON."""
        return encode(self.blocks) if self.blocks else self.checkpoint.encode()


class Head(NamedTuple):
    """A proven app hash, and when it was vouched for last (ms UTC)."""

    app_hash: bytes
    time_ms: int


class Heads(Protocol):
    """One network's way of proving heads."""

    def check(self, shown: DirectoryProof) -> Head:
        """The head above a proof. Raises VerificationError, MalformedError; UnavailableError where more is needed."""

    def merged(self, shown: Sequence[DirectoryProof]) -> list[DirectoryProof]:
        """What several nodes showed, put together where that can prove more."""


def heads_of(genesis: bytes, *, sequencer: Verifier | None, witnesses: Witnesses) -> Heads:
    """`witnesses`: each member's nodes' witness keys, as they are known at the moment of asking."""
    network, founders = network_of(genesis), founding_validators(parse_genesis(genesis))
    if sequencer is None and founders:
        return CommittedHeads(network, founders)
    return CosignedHeads(network, sequencer, witnesses)


class CosignedHeads:
    """Checkpoints that the sequencer signed and the nodes of ⌊2m/3⌋+1 members cosigned."""

    def __init__(self, network: str, sequencer: Verifier | None, witnesses: Witnesses) -> None:
        self._sequencer = None if sequencer is None else Verifier.ed25519(directory_origin(network), sequencer.public)
        self._witnesses = witnesses

    def check(self, shown: DirectoryProof) -> Head:
        """Raises VerificationError; UnavailableError `not-enough-cosignatures`."""
        if self._sequencer is None:
            raise VerificationError("no-sequencer", "the genesis names no sequencer whose checkpoints could be checked")
        witnesses = self._witnesses()
        head = check_directory_checkpoint(
            shown.checkpoint.encode(),
            sequencer=self._sequencer,
            witnesses=witnesses,
            needed=cosignatures_needed(len(witnesses)),
        )
        return Head(head.app_hash, 1000 * max(head.cosigned.values(), default=0))

    def merged(self, shown: Sequence[DirectoryProof]) -> list[DirectoryProof]:
        """One proof for each checkpoint text, with the signature lines that any of the nodes showed of it."""
        by_text: dict[str, tuple[DirectoryProof, dict[str, None]]] = {}
        for proof in shown:
            text, gap, lines = proof.checkpoint.partition("\n\n")
            if gap:
                known = by_text.setdefault(text, (proof, {}))
                known[1].update(dict.fromkeys(line for line in lines.split("\n") if line))
        return [
            DirectoryProof(proof=proof.proof, checkpoint=text + "\n\n" + "".join(line + "\n" for line in lines))
            for text, (proof, lines) in by_text.items()
        ]


class CommittedHeads:
    """Blocks that more than two thirds of the validators' power committed; the set is followed as it changes.

    A set that was followed once is not followed from the genesis again: validators that have left since can't bring
    another history (docs/spec/directory.md section 8).
    """

    def __init__(self, network: str, founders: Mapping[bytes, int]) -> None:
        self._chain = chain_id(network)
        self._trusted = validator_set(founders)
        self._height = 0

    def check(self, shown: DirectoryProof) -> Head:
        """Raises VerificationError as directory.follow; UnavailableError `directory-behind`."""
        blocks = [block for block in shown.blocks if block.header.height > self._height]
        if shown.blocks and not blocks:
            raise UnavailableError("directory-behind", f"the node's directory has not got beyond block {self._height}")
        head = follow(blocks, chain=self._chain, validators=self._trusted)
        if list(head.validators) != self._trusted:
            self._trusted, self._height = list(head.validators), blocks[-1].header.height
        return Head(head.app_hash, head.time_ms)

    def merged(self, shown: Sequence[DirectoryProof]) -> list[DirectoryProof]:
        """Each as it is: a commit is whole or nothing."""
        return list(shown)
