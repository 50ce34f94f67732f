"""What was verified, and by how much: the values that checks return when nothing was wrong.

A check that finds something raises instead; these say how far the proof reaches, so that a short "all holds" can't be
mistaken for more than it is. Plain data: `msgspec.json.encode` gives the machine-readable form.
"""

from __future__ import annotations

import msgspec

from careledger.errors import Error, VerificationError

__all__ = [
    "CheckpointReport",
    "DirectoryProofReport",
    "DirectoryReport",
    "ExportReport",
    "Known",
    "LogReport",
    "NetworkReport",
    "NodeReport",
    "ReceiptReport",
    "at_index",
    "index_of",
]


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A size and root (hex) that a log once had, and who says so (`anchor of block 12`, `witness cl1…`)."""

    size: int
    root: str
    source: str


class LogReport(msgspec.Struct, frozen=True, kw_only=True):
    """A whole log: every entry, tile and the root, and as far as bodies were at hand what they say.

    `cosigned`: member (or witness name) -> POSIX seconds. `kinds`: entries by kind. `extends`: earlier checkpoints it
    was compared with. `vouched`: how many of the entries others vouch for (enough cosignatures, or an earlier
    checkpoint): for the rest there is only the node's own word. `bodies` were at hand and match their leaves; `erased`
    are missing and lawfully so; `withheld` were not looked for. `signatures` counts envelopes whose signatures were
    proven. `decisions` were decided again with the same result; `not_replayed` says by reason how many could not be.
    """

    origin: str
    size: int
    root: str
    cosigned: dict[str, int]
    kinds: dict[str, int]
    extends: int
    vouched: int
    bodies: int
    erased: int
    withheld: int
    signatures: int
    decisions: int
    not_replayed: dict[str, int]


class DirectoryReport(msgspec.Struct, frozen=True, kw_only=True):
    """A directory whose blocks were all executed again. `cosigned`: member -> POSIX seconds; where CometBFT ordered it,
    `committed`: consensus key -> power of the validators that committed its head."""

    network: str
    height: int
    time: int
    app_hash: str
    transactions: int
    members: int
    cosigned: dict[str, int]
    needed: int
    committed: dict[str, int] = {}


class DirectoryProofReport(msgspec.Struct, frozen=True, kw_only=True):
    """A value of the directory (canonical JSON text), or None where it is proven that there is none.

    Above it stand members that cosigned a checkpoint (`cosigned`: member -> POSIX seconds), or validators that
    committed a block (`committed`: consensus key -> power), as the network's engine has it.
    """

    network: str
    kind: str
    id: str
    value: str | None
    height: int
    app_hash: str
    cosigned: dict[str, int] = {}
    committed: dict[str, int] = {}


class ReceiptReport(msgspec.Struct, frozen=True, kw_only=True):
    """An entry proven to be in a node's log under a checkpoint that the node signed.

    `request` is the hex message id of what it is about, `signers` the keyids on it: *proven* only with `signed`.
    `cosigned`: members that cosigned the checkpoint; a receipt given at once has none yet. `in_log`: the entry was also
    found at its place in the log that was given.
    """

    network: str
    node: str
    index: int
    kind: str
    decision: str
    reason: str
    received: int
    size: int
    subject: str | None
    request: str | None
    signers: list[str]
    signed: bool
    cosigned: dict[str, int]
    in_log: bool


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """An exported record: every resource proven to be what its author signed.

    `authors`: keyids. `bundle`: the bundle holds exactly the proven resources' bytes (False: there is no bundle).
    `cosigned`: fewest members behind any directory proof in it. `trail`: custodians whose part of the audit trail was
    proven under cosigned checkpoints.
    """

    network: str
    subject: str
    exported: int
    submissions: int
    records: int
    resources: int
    authors: list[str]
    identities: int
    receipts: int
    cosigned: int
    bundle: bool
    trail: list[str]
    accesses: int


class CheckpointReport(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint note by itself: who it is of, and who signed it."""

    origin: str
    size: int
    root: str
    cosigned: dict[str, int]


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """A node's folder: its replica of the directory, and its log with bodies."""

    node: str
    directory: DirectoryReport
    log: LogReport


class NetworkReport(msgspec.Struct, frozen=True, kw_only=True):
    """Several nodes' folders, each verified with what the others know of it."""

    network: str
    nodes: list[NodeReport]


def at_index(problem: Error, index: int) -> Error:
    """The same refusal, saying which entry it is about (details `index`), where it does not say so yet."""
    if "index" in problem.details:
        return problem
    message = f"entry {index}: {problem.message}"
    return type(problem)(problem.code, message, details={**problem.details, "index": index})


def index_of(problem: Error) -> int | None:
    """The first bad index that a refusal names, None where it can't be told."""
    found = problem.details.get("index")
    return found if isinstance(found, int) else None


def wrong_entry(index: int, why: str) -> VerificationError:
    """The refusal of an entry that contradicts itself or its log."""
    return VerificationError(
        "wrong-entry", f"entry {index}: {why}; keep the log and report the node", details={"index": index}
    )
