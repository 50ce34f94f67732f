"""One author, one subject and four custodians, and the tools of an author who lies but signs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from careledger.records import (
    CheckedSubmission,
    RecordPlan,
    Submission,
    SubmissionPlan,
    SubmissionStatement,
    SubmissionView,
    VerifiedSubmission,
    check_submission,
    leaf_tree,
    seal_submission,
    verify_view,
    view_of,
)
from careledger.records.leaves import arrange, leaves_root
from careledger.records.locks import Lock, decode_lock, decode_shares, encode_lock, encode_shares, lock_info, lock_leaf
from careledger.records.manifest import Manifest, manifest_leaf
from careledger.seal import (
    Envelope,
    SealingKey,
    SealingPublicKey,
    SigningKey,
    VerifyKey,
    decode,
    encode,
    sign,
    unb64,
)

NOW_MS = 1_700_000_000_000
HEADER = {"import": "0f" * 8, "source": "https://ehr.example/fhir", "subject_url": "urn:uuid:1", "category": 1}


class World:
    """Keys, plans and messages of one small network; all randomness but HPKE's comes from a seed."""

    network = sha256(b"a network").hexdigest()
    now_ms = NOW_MS
    threshold = 3
    n = 4

    def __init__(self, seed: int = 1) -> None:
        self.rand: Callable[[int], bytes] = random.Random(seed).randbytes
        self.author = "cl1author#2"
        self.author_key = SigningKey(self.rand(32))
        self.subject = "cl1subject"
        self.owner = "cl1subject#5"
        self.owner_key = SealingKey(self.rand(32))
        self.custodians = [(f"cl1custodian{place}#1", SealingKey(self.rand(32))) for place in range(1, self.n + 1)]
        self.compartments = {self.rand(16).hex(): (epoch, SealingKey(self.rand(32))) for epoch in (1, 3)}

    @property
    def compartment(self) -> str:
        return next(iter(self.compartments))

    def plan(self, count: int = 3, /, **changes: Any) -> SubmissionPlan:
        compartments = list(self.compartments)
        plan = SubmissionPlan(
            network=self.network,
            subject=self.subject,
            subject_seq=5,
            owner=(self.owner, SealingPublicKey(self.owner_key.public)),
            author=self.author,
            for_="cl1clinic",
            compartments={
                compartment: (epoch, SealingPublicKey(key.public))
                for compartment, (epoch, key) in self.compartments.items()
            },
            custodians=[(keyid, SealingPublicKey(key.public)) for keyid, key in self.custodians],
            threshold=self.threshold,
            records=[
                RecordPlan(
                    compartment=compartments[index % len(compartments)],
                    header=HEADER,
                    resources=[
                        (f"urn:uuid:{index}-{number}", b'{"resourceType": "Observation", "n": %d}' % number)
                        for number in range(index + 1)
                    ],
                )
                for index in range(count)
            ],
        )
        return msgspec.structs.replace(plan, **changes)

    def seal(self, count: int = 3, /, **changes: Any) -> Submission:
        return seal_submission(self.plan(count, **changes), signer=self.author_key, now_ms=self.now_ms, rand=self.rand)

    def check(self, submission: Submission, *, place: int = 1, **changes: Any) -> CheckedSubmission:
        keyid, key = self.custodians[place - 1]
        arguments: dict[str, Any] = {
            "network": self.network,
            "author_key": VerifyKey(self.author_key.public),
            "custodian": keyid,
            "sealing_key": key,
            "place": place,
            "n": self.n,
            "now_ms": self.now_ms,
        }
        return check_submission(submission, **{**arguments, **changes})

    def view(self, submission: Submission) -> SubmissionView:
        """Everything but release locks, as an honest custodian would show it."""
        positions = {leaf: at for at, leaf in enumerate(submission.manifest_leaves)}
        lock_positions = {leaf: at for at, leaf in enumerate(submission.lock_leaves)}
        return view_of(
            envelope=submission.envelope,
            manifest_tree=leaf_tree(submission.manifest_leaves),
            lock_tree=leaf_tree(submission.lock_leaves),
            locks=[
                (data, lock_positions[lock_leaf(data)])
                for data in submission.locks
                if decode_lock(data).use != "release"
            ],
            records=[
                (data, positions[manifest_leaf(data)], ciphertext)
                for data, ciphertext in zip(submission.manifests, submission.ciphertexts, strict=True)
            ],
        )

    def verified(self, submission: Submission) -> VerifiedSubmission:
        return self.verify(self.view(submission))

    def verify(self, view: SubmissionView, **changes: Any) -> VerifiedSubmission:
        arguments: dict[str, Any] = {
            "network": self.network,
            "author_key": VerifyKey(self.author_key.public),
            "subject": self.subject,
        }
        return verify_view(view, **{**arguments, **changes})

    def released(self, submission: Submission, places: Sequence[int] = (1, 2, 3)) -> dict[int, dict[bytes, bytes]]:
        """The shares by place and record id, read from the release locks without any check."""
        statement = self.statement(submission)
        shares: dict[int, dict[bytes, bytes]] = {}
        for place in places:
            keyid, key = self.custodians[place - 1]
            lock = next(one for one in map(decode_lock, submission.locks) if one.use == "release" and one.to == keyid)
            box = key.open(lock.box, info=lock_info(statement, "release", to=keyid))
            shares[place] = {record: share for record, _, share in decode_shares(box)}
        return shares

    def secrets(self, verified: VerifiedSubmission) -> dict[tuple[str, int], bytes]:
        return {
            (compartment, epoch): verified.open_consent_lock(compartment, epoch, key)
            for compartment, (epoch, key) in self.compartments.items()
            if any(lock.compartment == compartment for lock in verified.locks)
        }

    @property
    def compartment_keys(self) -> dict[tuple[str, int], SealingKey]:
        return {(compartment, epoch): key for compartment, (epoch, key) in self.compartments.items()}

    # What follows is for authors who lie: they can change anything and sign it.

    def statement(self, submission: Submission) -> SubmissionStatement:
        return decode(unb64(decode(submission.envelope, Envelope).payload), SubmissionStatement)

    def manifests(self, submission: Submission) -> list[Manifest]:
        return [decode(data, Manifest) for data in submission.manifests]

    def sign(self, statement: SubmissionStatement, *, keyid: str | None = None) -> bytes:
        return encode(sign(statement.TYPE, encode(statement), [(keyid or statement.author, self.author_key)]))

    def forge(
        self,
        submission: Submission,
        /,
        *,
        manifests: Sequence[bytes] | None = None,
        locks: Sequence[bytes] | None = None,
        ciphertexts: Sequence[bytes] | None = None,
        hidden_manifests: Sequence[bytes] = (),
        hidden_locks: Sequence[bytes] = (),
        **statement_changes: Any,
    ) -> Submission:
        """The submission with other parts, its trees rebuilt and signed by its author."""
        manifests = list(submission.manifests if manifests is None else manifests)
        locks = list(submission.locks if locks is None else locks)
        seed = submission.filler
        manifest_leaves = arrange(
            [*map(manifest_leaf, manifests), *hidden_manifests], tree="manifests", seed=seed, rand=self.rand
        )
        lock_leaves = arrange([*map(lock_leaf, locks), *hidden_locks], tree="locks", seed=seed, rand=self.rand)
        statement = msgspec.structs.replace(
            self.statement(submission),
            **{
                "manifests_root": leaves_root(manifest_leaves).hex(),
                "locks_root": leaves_root(lock_leaves).hex(),
                **statement_changes,
            },
        )
        return msgspec.structs.replace(
            submission,
            envelope=self.sign(statement),
            manifests=manifests,
            locks=locks,
            ciphertexts=list(submission.ciphertexts if ciphertexts is None else ciphertexts),
            manifest_leaves=manifest_leaves,
            lock_leaves=lock_leaves,
        )

    def change_manifest(self, submission: Submission, at: int, /, **changes: Any) -> Submission:
        manifests = list(submission.manifests)
        manifests[at] = encode(msgspec.structs.replace(decode(manifests[at], Manifest), **changes))
        return self.forge(submission, manifests=manifests)

    def replace_lock(self, submission: Submission, lock: Lock) -> Submission:
        """The submission with the lock of the same use, recipient and compartment exchanged for this one."""
        locks = [
            encode_lock(lock) if (one.use, one.to, one.compartment) == (lock.use, lock.to, lock.compartment) else data
            for one, data in ((decode_lock(data), data) for data in submission.locks)
        ]
        return self.forge(submission, locks=locks)

    def lock(self, submission: Submission, use: str, *, place: int = 1, compartment: str | None = None) -> Lock:
        to = self.custodians[place - 1][0] if use == "release" else self.owner
        return next(
            lock
            for lock in map(decode_lock, submission.locks)
            if lock.use == use and lock.to == to and (compartment is None or lock.compartment == compartment)
        )

    def false_shares(
        self,
        submission: Submission,
        place: int,
        change: Callable[[list[tuple[bytes, bytes, bytes]]], list[tuple[bytes, bytes, bytes]]],
    ) -> Submission:
        """The submission whose release lock for `place` carries other rows, sealed and bound as it should be."""
        keyid, key = self.custodians[place - 1]
        info = lock_info(self.statement(submission), "release", to=keyid)
        lock = self.lock(submission, "release", place=place)
        rows = change(decode_shares(key.open(lock.box, info=info)))
        box = SealingPublicKey(key.public).seal(encode_shares(rows), info=info)
        return self.replace_lock(submission, msgspec.structs.replace(lock, box=box))


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def make_world() -> Callable[[int], World]:
    """Another network: World(seed), for a second author or subject."""
    return World
