"""A whole log from its files: checkpoint, cosignatures, every entry, tile and the root, and the bodies behind it.

What a check of the files alone proves: these entries, in this order, are what the log signed. Whether it always was so
is for cosignatures and earlier checkpoints (`known`), whether it was right for the bodies. Source: C2SP tlog-tiles,
tlog-checkpoint, tlog-cosignature; DESIGN 5.5; docs/spec/verify.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from careledger.errors import Error, NotFoundError, UnavailableError, VerificationError
from careledger.tlog import (
    CHECKPOINT_PATH,
    Checkpoint,
    TileReader,
    Verifier,
    decode_entries,
    entries_path,
    first_difference,
    open_cosigned,
    verified_bundles,
)
from careledger.tlog.tile import TILE_WIDTH
from careledger.verify.bodies import Bodies, BodyAudit, LeafForms, missing_body
from careledger.verify.history import Fetch, check_known, narrowing
from careledger.verify.moments import DirectoryHistory
from careledger.verify.replay import Documents, Replay
from careledger.verify.report import CheckpointReport, Known, LogReport, index_of
from careledger.verify.trust import members_of

__all__ = ["check_cosigned", "verify_checkpoint", "verify_log"]

Witnesses = Mapping[str, Sequence[Verifier]]
"""Member (or any name that counts once) -> the keys its nodes cosign with."""


def verify_log(
    fetch: Fetch,
    *,
    verifier: Verifier,
    witnesses: Witnesses | None = None,
    cosignatures_needed: int = 0,
    known: Sequence[Known] = (),
    bodies: Bodies | None = None,
    history: DirectoryHistory | None = None,
    documents: Documents | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> LogReport:
    """Verify a log; returns what was proven, or raises at the first thing that is wrong.

    1. the checkpoint is signed by `verifier`; 2. every entry hashes to its leaf, every tile to its place, all to the
    root; 3. every entry is a leaf of a careledger node; 4. with `bodies`: each is the one its leaf commits to, or was
    erased by a later entry; 5. with `bodies` and `history`: every signature and decision again; 6. the log extends
    each checkpoint of `known`; 7. `cosignatures_needed` of `witnesses` have cosigned. Left to the caller: that these
    keys are the right ones (`Trust`), and that `known` is complete enough to be worth something.

    Errors carry `details["index"]` (see `index_of`): the first entry that is wrong, where that can be told.
    Raises VerificationError `bad-signature`, `no-signature`, `wrong-origin` (checkpoint); `bad-entry`, `bad-tile`,
    `bad-root`, `missing-file`, `bad-leaf` (files); `bad-body`, `wrong-entry`, `missing-body` and replay's codes
    (bodies); `rolled-back`, `fork`, `rewritten` (known); MalformedError; UnavailableError `not-enough-cosignatures`;
    NotFoundError when there is no checkpoint. `on_progress` is told (entries done, size).
    """
    fetch = narrowing(fetch)
    trusted = witnesses or {}
    checkpoint, cosigned = _opened(fetch(CHECKPOINT_PATH), verifier, trusted)
    forms = LeafForms()
    replay = None if history is None or bodies is None else Replay(history, documents=documents)
    audit = None if bodies is None else BodyAudit(origin=checkpoint.origin, bodies=bodies, replay=replay)
    try:
        for first, entries in _bundles(fetch, checkpoint):
            prefixes, hashes = forms.take(first, entries)
            if audit is not None:
                audit.take(first, prefixes, hashes)
            if on_progress is not None:
                on_progress(first + len(entries), checkpoint.size)
        if audit is not None:
            audit.finish()
    except Error as problem:
        if audit is not None:
            _check_before(fetch, checkpoint, audit, problem)
            _check_rewritten(fetch, checkpoint, known, problem)
        raise
    reader = TileReader(fetch, size=checkpoint.size, root=checkpoint.root)
    extends = check_known(reader, known, origin=checkpoint.origin)
    check_cosigned(checkpoint, cosigned, cosignatures_needed)
    enough = len(cosigned) >= max(1, cosignatures_needed)
    return LogReport(
        origin=checkpoint.origin,
        size=checkpoint.size,
        root=checkpoint.root.hex(),
        cosigned=cosigned,
        kinds=forms.counts,
        extends=extends,
        vouched=checkpoint.size if enough else max((one.size for one in known), default=0),
        bodies=0 if audit is None else audit.checked,
        erased=0 if audit is None else len(audit.missing),
        withheld=checkpoint.size if audit is None else 0,
        signatures=0 if replay is None else replay.signatures,
        decisions=0 if replay is None else replay.decisions,
        not_replayed={} if replay is None else dict(sorted(replay.not_replayed.items())),
    )


def verify_checkpoint(note: bytes, *, verifier: Verifier, witnesses: Witnesses | None = None) -> CheckpointReport:
    """A checkpoint by itself: signed by its log, and cosigned by whom. Raises as tlog.open_cosigned."""
    checkpoint, cosigned = _opened(note, verifier, witnesses or {})
    return CheckpointReport(
        origin=checkpoint.origin, size=checkpoint.size, root=checkpoint.root.hex(), cosigned=cosigned
    )


def check_cosigned(checkpoint: Checkpoint, cosigned: Mapping[str, int], needed: int) -> None:
    """Raises UnavailableError `not-enough-cosignatures`, details {found, needed}."""
    if len(cosigned) < needed:
        raise UnavailableError(
            "not-enough-cosignatures",
            f'{len(cosigned)} other members cosigned log "{checkpoint.origin}" at size {checkpoint.size}, {needed} are '
            "needed: its operator alone vouches for it; get the checkpoint that others have, and compare",
            details={"found": len(cosigned), "needed": needed},
        )


def _opened(note: bytes, verifier: Verifier, witnesses: Witnesses) -> tuple[Checkpoint, dict[str, int]]:
    every = [one for verifiers in witnesses.values() for one in verifiers]
    checkpoint, times = open_cosigned(note, verifier=verifier, witnesses=every)
    return checkpoint, members_of(times, witnesses)


def _bundles(fetch: Fetch, checkpoint: Checkpoint) -> Iterator[tuple[int, list[bytes]]]:
    """tlog.verified_bundles, with the entry that a missing file belongs to."""
    try:
        yield from verified_bundles(fetch, size=checkpoint.size, root=checkpoint.root)
    except NotFoundError as problem:
        index = first_difference(fetch, size=checkpoint.size)
        details: dict[str, object] = {} if index is None else {"index": index}
        where = "" if index is None else f", first for entry {index}"
        raise VerificationError(
            "missing-file",
            f"a tile or entry bundle of the log is missing{where} ({problem.message}); restore it from a mirror",
            details=details,
        ) from problem


def _check_before(fetch: Fetch, checkpoint: Checkpoint, audit: BodyAudit, problem: Error) -> None:
    """Raise what is wrong before the entry that a refusal is about, so that the first bad index is the first of any
    kind: a body earlier in the same bundle, or one that is missing and that no later entry excuses.

    What follows is not proven, but it only decides which of two refusals is given.
    """
    at = index_of(problem)
    if at is None:
        return
    done = audit.taken
    if done < at < done + TILE_WIDTH:
        entries = _unproven(fetch, checkpoint, done // TILE_WIDTH)[: at - done]
        try:
            audit.take(done, *LeafForms().take(done, entries))
        except Error as earlier:
            raise earlier from problem
    excused = set(audit.erased)
    if audit.missing and audit.missing[0] < at:
        for bundle in range(at // TILE_WIDTH, -(-checkpoint.size // TILE_WIDTH)):
            excused |= audit.excuses(bundle * TILE_WIDTH, _unproven(fetch, checkpoint, bundle))
    index = next((one for one in audit.missing if one < at and one not in excused), None)
    if index is not None:
        raise missing_body(index, "no erase entry names it") from problem


def _check_rewritten(fetch: Fetch, checkpoint: Checkpoint, known: Sequence[Known], problem: Error) -> None:
    """Raise that the log was rewritten, where that is behind a refusal: what an entry says about itself is then a
    consequence, and its index the first that was changed as far as the entries can tell."""
    index = index_of(problem)
    try:
        check_known(TileReader(fetch, size=checkpoint.size, root=checkpoint.root), known, origin=checkpoint.origin)
    except Error as changed:
        first, last = changed.details.get("first"), changed.details.get("last")
        if changed.code not in ("rewritten", "fork") or not isinstance(first, int) or not isinstance(last, int):
            return
        if index is not None and first <= index <= last:
            message = f"{changed.message}; {problem.message}"
            raise VerificationError(changed.code, message, details={"index": index, **changed.details}) from problem


def _unproven(fetch: Fetch, checkpoint: Checkpoint, bundle: int) -> list[bytes]:
    """A bundle's entries as they stand there; none if they can't be read."""
    width = min(TILE_WIDTH, checkpoint.size - bundle * TILE_WIDTH)
    try:
        return decode_entries(fetch(entries_path(bundle, width)), width=width)
    except Error:
        return []
