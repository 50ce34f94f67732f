"""An exported record: that its authors signed what is in it, and that the reads that made it are logged.

Two files (docs/spec/export.md): `bundle.json`, FHIR for people and software, and `proofs.careledger`. Verified from the
network's genesis alone: identities from their own operations and a cosigned directory, submissions from their
authors' keys, contents from the content root in each manifest, receipts and trail from the nodes' logs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from careledger.access import AccessRequest, EntryBody, decode_entry, decode_receipt, leaf, verify_receipt
from careledger.directory import StateProof, network_of
from careledger.errors import MalformedError, NotFoundError, VerificationError
from careledger.identity import IdentityState
from careledger.records import Plaintext, claimed_author, content_root, decode_view, verify_view
from careledger.records.view import VerifiedRecord
from careledger.seal import decode, verify
from careledger.tlog import leaf_hash, open_cosigned, verify_inclusion
from careledger.verify.directory import check_state_proof
from careledger.verify.history import Fetch
from careledger.verify.identities import Identities
from careledger.verify.log import check_cosigned
from careledger.verify.report import ExportReport
from careledger.verify.trust import Trust, members_of, trust_of_genesis

__all__ = ["BUNDLE", "MAGIC", "PROOFS", "ProofNode", "ProofRecord", "Proofs", "decode_proofs", "verify_export"]

BUNDLE: Final = "bundle.json"
PROOFS: Final = "proofs.careledger"
MAGIC: Final = b"careledger/export/v1\n"
PROOFS_BYTES_MAX: Final = 1 << 30
_REQUEST_MAX: Final = 1 << 17


class ProofRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """[16-byte record id, plaintext (MessagePack [header, [[salt, fullUrl, bytes], …]])]."""

    record: bytes
    plaintext: bytes


class ProofNode(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One custodian's part of the audit trail: [token, checkpoint note, [[index, salt, body, inclusion proof], …]]."""

    node: str
    checkpoint: bytes
    entries: list[tuple[int, Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)], bytes, list[bytes]]]


class Proofs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What follows the first line of a proof file (MessagePack map)."""

    v: int
    genesis: bytes
    subject: str
    exported: int
    identities: dict[str, list[bytes]]
    directory: list[tuple[str, str, bytes, bytes]]
    submissions: list[bytes]
    records: list[ProofRecord]
    receipts: list[bytes]
    trail: list[ProofNode]


class _BundleEntry(msgspec.Struct):
    resource: msgspec.Raw
    full_url: str = msgspec.field(name="fullUrl", default="")


class _Bundle(msgspec.Struct):
    entry: list[_BundleEntry] = []


_decoder: Final = msgspec.msgpack.Decoder(Proofs)
_plaintext_decoder: Final = msgspec.msgpack.Decoder(Plaintext)
_bundle_decoder: Final = msgspec.json.Decoder(_Bundle)


def decode_proofs(data: bytes) -> Proofs:
    """Parse a proof file, nothing verified. Raises MalformedError `bad-export`."""
    if data.startswith(MAGIC) and len(data) <= PROOFS_BYTES_MAX:
        try:
            found = _decoder.decode(data[len(MAGIC) :])
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            found = None
        if found is not None and found.v == 1:
            return found
    raise MalformedError(
        "bad-export", "this is not a careledger proof file of version 1, or a part of one; export again"
    )


def verify_export(
    fetch: Fetch, *, network: str | None = None, trust: Trust | None = None, needed: int | None = None
) -> ExportReport:
    """Verify an export's folder (`fetch` gives `bundle.json`, `proofs.careledger` by name).

    1. the genesis in it is that of `network` (who doesn't know the network's name learns only that the export agrees
    with itself); 2. every identity's operations make its token and give the state that a head of the directory,
    cosigned by `needed` members (None: ⌊2m/3⌋+1), has of it; 3. every submission view is signed by its author's key;
    4. every record is one of those and its plaintext gives the manifest's content root; 5. the bundle holds exactly
    these resources, byte for byte (and at most one generated Patient); 6. receipts and trail are in the nodes' logs, of
    requests that their readers signed about this subject; each trail's checkpoint is cosigned by ⌊2m/3⌋ other members.
    `trust`: keys of a newer moment than the genesis.
    Raises MalformedError `bad-export`, …; VerificationError `wrong-network`, `wrong-identity`, `bad-seal`,
    `wrong-record`, `wrong-bundle`, `wrong-entry`, …; UnavailableError `not-enough-cosignatures`.
    """
    proofs = decode_proofs(fetch(PROOFS))
    founders = trust_of_genesis(proofs.genesis, network=network)
    if trust is not None and trust.network != founders.network:
        raise VerificationError("wrong-network", "the export is of another network than the keys given")
    check = _Export(proofs, trust or founders)
    cosigned = check.identities_proven(needed)
    check.submissions_signed()
    resources = check.records_proven()
    try:
        bundle = fetch(BUNDLE)
    except NotFoundError:
        bundle = None
    if bundle is not None:
        check_bundle(bundle, resources)
    check.receipts_proven()
    accesses = check.trail_proven()
    return ExportReport(
        network=founders.network,
        subject=proofs.subject,
        exported=proofs.exported,
        submissions=len(proofs.submissions),
        records=len(proofs.records),
        resources=len(resources),
        authors=sorted(check.authors),
        identities=len(proofs.identities),
        receipts=len(proofs.receipts),
        cosigned=cosigned,
        bundle=bundle is not None,
        trail=[one.node for one in proofs.trail],
        accesses=accesses,
    )


class _Export:
    """One export under verification, step by step."""

    def __init__(self, proofs: Proofs, trust: Trust) -> None:
        self.proofs = proofs
        self.trust = trust
        self.network = network_of(proofs.genesis)
        self.identities = Identities(proofs.identities, network=self.network)
        self.authors: set[str] = set()
        self._records: dict[bytes, VerifiedRecord] = {}

    def identities_proven(self, needed: int | None) -> int:
        """Every identity agrees with a proof of the directory; returns the fewest members behind one."""
        if self.proofs.subject not in self.proofs.identities:
            raise VerificationError("wrong-identity", "the export does not say who its subject is; export again")
        proven: dict[str, IdentityState] = {}
        fewest: list[int] = []
        for kind, ident, data, note in self.proofs.directory:
            proof = decode(data, StateProof)
            if (proof.kind, proof.id) != (kind, ident):
                raise VerificationError("wrong-proof", f"a proof in the export is not about {kind} {ident[:80]}")
            head, value = check_state_proof(proof, note, trust=self.trust, needed=needed)
            fewest.append(len(head.cosigned or head.committed))
            if kind == "identity" and value is not None:
                proven[ident] = decode(value, IdentityState)
        for token in self.proofs.identities:
            self.identities.check_state(token, proven.get(token))
        return min(fewest, default=0)

    def submissions_signed(self) -> None:
        for data in self.proofs.submissions:
            view = decode_view(data)
            author = claimed_author(view.envelope)
            key = self.identities.verify_key(author)
            shown = verify_view(view, network=self.network, author_key=key, subject=self.proofs.subject)
            self.authors.add(author)
            self._records.update({one.record: one for one in shown.records})

    def records_proven(self) -> list[tuple[str, bytes]]:
        """(fullUrl, bytes) of every resource, in the order of the records."""
        resources: list[tuple[str, bytes]] = []
        seen: set[bytes] = set()
        for one in self.proofs.records:
            shown = self._records.get(one.record)
            if shown is None or one.record in seen:
                raise VerificationError(
                    "wrong-record", f"record {one.record.hex()} is in no submission of the export, or in it twice"
                )
            seen.add(one.record)
            try:
                plaintext = _plaintext_decoder.decode(one.plaintext)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                raise MalformedError(
                    "bad-plaintext", f"the content of record {one.record.hex()} does not parse"
                ) from None
            if content_root(plaintext).hex() != shown.manifest.content_root:
                raise VerificationError(
                    "bad-seal",
                    f"the content of record {one.record.hex()} is not what its author signed: it was changed",
                    details={"record": one.record.hex()},
                )
            plaintext.opened_header()
            resources += [(resource.full_url, resource.data) for resource in plaintext.resources]
        return resources

    def receipts_proven(self) -> None:
        for data in self.proofs.receipts:
            receipt = decode_receipt(data)
            claimed = decode_entry(receipt.body)
            log = self.trust.log(claimed.node)
            entry = verify_receipt(receipt, network=self.network, node=claimed.node, log_verifier=log, kind="access")
            self._request(entry)

    def trail_proven(self) -> int:
        """Every entry of the trail is in its node's cosigned log; returns how many requests there are in all."""
        requests: set[bytes] = set()
        for part in self.proofs.trail:
            witnesses = self.trust.witnesses(besides=part.node)
            every = [one for verifiers in witnesses.values() for one in verifiers]
            checkpoint, times = open_cosigned(part.checkpoint, verifier=self.trust.log(part.node), witnesses=every)
            check_cosigned(checkpoint, members_of(times, witnesses), self.trust.log_needed)
            for index, salt, body, hashes in part.entries:
                verify_inclusion(
                    index=index,
                    size=checkpoint.size,
                    leaf_hash=leaf_hash(leaf("access", salt, body)),
                    proof=hashes,
                    root=checkpoint.root,
                )
                entry = decode_entry(body)
                if (entry.network, entry.node, entry.index, entry.kind) != (self.network, part.node, index, "access"):
                    raise VerificationError(
                        "wrong-entry", f"the body at index {index} of {part.node} says it is another entry"
                    )
                requests.add(self._request(entry))
        return len(requests)

    def _request(self, entry: EntryBody) -> bytes:
        """What an access entry is about, signed by its reader and about the export's subject."""
        if entry.envelopes is msgspec.UNSET:
            raise VerificationError("wrong-entry", f"entry {entry.index} of {entry.node} holds no request")
        envelope = entry.envelopes[0]
        keys = self.identities.keys(signature.keyid for signature in envelope.signatures)
        payload = verify(envelope, payload_type=AccessRequest.TYPE, keys=keys)
        request = decode(payload, AccessRequest, size_max=_REQUEST_MAX)
        signers = {signature.keyid.partition("#")[0] for signature in envelope.signatures}
        if request.subject != self.proofs.subject or signers != {request.reader} or request.network != self.network:
            raise VerificationError(
                "wrong-entry", f"entry {entry.index} of {entry.node} is not a reader's request about this subject"
            )
        return payload


def check_bundle(bundle: bytes, resources: Iterable[tuple[str, bytes]]) -> None:
    """Check that a bundle's entries are exactly the proven (fullUrl, bytes), each once.

    One more entry is let pass: the Patient that an export generates when none was opened. Raises VerificationError
    `wrong-bundle`; MalformedError `bad-bundle`.
    """
    try:
        entries = _bundle_decoder.decode(bundle).entry
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise MalformedError("bad-bundle", "bundle.json is not a FHIR bundle; export again") from None
    found = [(one.full_url, bytes(one.resource)) for one in entries]
    proven = set(resources)
    extra = [one for one in found if one not in proven]
    missing = len(proven - set(found))
    generated = extra[:1] if extra and b'"urn:x-careledger:tag","code":"generated"' in extra[0][1] else []
    if missing or len(extra) > len(generated) or len(found) != len(set(found)):
        raise VerificationError(
            "wrong-bundle",
            f"bundle.json lacks {missing} of the proven resources and holds {len(extra)} that are not: it was changed",
            details={"missing": missing, "extra": len(extra)},
        )
