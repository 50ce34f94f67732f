"""Receipts: that a node's log has an entry, and, with the log at hand, that it still has it.

A receipt outlives the log's operator: it pins one entry at one index, so a log that was rewritten there is caught at
exactly that entry. Source: DESIGN 5.4; docs/spec/access.md section 5.
"""

from __future__ import annotations

import msgspec

from careledger.access import EntryBody, Receipt, decode_entry, decode_receipt, leaf, parse_leaf, verify_receipt
from careledger.errors import VerificationError
from careledger.seal import Envelope, envelope_message_id, verify
from careledger.tlog import CHECKPOINT_PATH, TileReader, Verifier, open_checkpoint, open_cosigned, parse_proof
from careledger.verify.history import Fetch, narrowing
from careledger.verify.moments import DirectoryHistory
from careledger.verify.report import ReceiptReport
from careledger.verify.trust import Trust, members_of

__all__ = ["check_in_log", "verify_receipt_file"]


def verify_receipt_file(
    data: bytes,
    *,
    trust: Trust | None = None,
    verifier: Verifier | None = None,
    history: DirectoryHistory | None = None,
    log: Fetch | None = None,
) -> ReceiptReport:
    """Verify a receipt (MessagePack [salt, body, proof]) without believing the node.

    The key of the log comes from `trust` (who the node is, is proven then), or is `verifier`. 1. the checkpoint in it
    is that log's; 2. the entry's leaf is in its tree; 3. the body is canonical and says the same network, node, index
    and kind; 4. with `history`: the signatures on what the entry is about, by keys of the directory; 5. with `log`
    (the node's log as it is now): the entry still stands there.
    Raises MalformedError `bad-receipt`, …; VerificationError as access.verify_receipt, `rewritten` and `rolled-back`
    (details {index}); NotFoundError `unknown-node`.
    """
    if (trust is None) == (verifier is None):
        raise AssertionError("a receipt is verified with the network's keys or with the log's, one of the two")
    receipt = decode_receipt(data)
    claimed = decode_entry(receipt.body)
    if trust is not None:
        if claimed.network != trust.network:
            raise VerificationError("wrong-network", f"the receipt is of network {claimed.network[:16]}, another one")
        verifier = trust.log(claimed.node)
    assert verifier is not None
    entry = verify_receipt(
        receipt, network=claimed.network, node=claimed.node, log_verifier=verifier, kind=claimed.kind
    )
    proof = parse_proof(receipt.proof)
    witnesses = {} if trust is None else trust.witnesses(besides=entry.node)
    every = [one for verifiers in witnesses.values() for one in verifiers]
    checkpoint, times = open_cosigned(proof.checkpoint, verifier=verifier, witnesses=every)
    if log is not None:
        check_in_log(receipt, entry, log, verifier=verifier)
    envelope = None if entry.envelopes is msgspec.UNSET else entry.envelopes[0]
    signed = envelope is not None and history is not None
    if envelope is not None and history is not None:
        _check_signed(envelope, entry, history)
    return ReceiptReport(
        network=entry.network,
        node=entry.node,
        index=entry.index,
        kind=entry.kind,
        decision=entry.decision,
        reason=entry.reason,
        received=entry.received,
        size=checkpoint.size,
        subject=None if entry.subject is msgspec.UNSET else entry.subject,
        request=None if envelope is None else envelope_message_id(envelope).hex(),
        signers=[] if envelope is None else [signature.keyid for signature in envelope.signatures],
        signed=signed,
        cosigned=members_of(times, witnesses),
        in_log=log is not None,
    )


def check_in_log(receipt: Receipt, entry: EntryBody, log: Fetch, *, verifier: Verifier) -> None:
    """Check that a verified receipt's entry is at its index in the log as it is now.

    Raises VerificationError `rolled-back` (the log ends before it), `rewritten` (another entry stands there), details
    {index}, and TileReader's errors.
    """
    fetch = narrowing(log)
    checkpoint = open_checkpoint(fetch(CHECKPOINT_PATH), verifier=verifier)
    index = entry.index
    if index >= checkpoint.size:
        raise VerificationError(
            "rolled-back",
            f'log "{checkpoint.origin}" has {checkpoint.size} entries and no entry {index}, which it gave this receipt '
            "for: keep both and report the node",
            details={"index": index},
        )
    found = TileReader(fetch, size=checkpoint.size, root=checkpoint.root).entry(index)
    if found != leaf(entry.kind, receipt.salt, receipt.body):
        kind, _ = parse_leaf(found)
        raise VerificationError(
            "rewritten",
            f'entry {index} of log "{checkpoint.origin}" is another one ({kind}) than it gave this receipt for: the '
            "log was rewritten; keep both and report the node",
            details={"index": index},
        )


def _check_signed(envelope: Envelope, entry: EntryBody, history: DirectoryHistory) -> None:
    keys = history.keys(min(entry.directory_height, history.height), entry.received, superseded=True)
    verify(envelope, payload_type=envelope.payloadType, keys=keys)
