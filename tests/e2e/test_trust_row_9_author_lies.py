"""Trust row 9: an author can't have custodians keep shares that don't open, nor give patient and clinician different
plaintexts: real custodians, reader and subject meet what a lying author signs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from careledger.bench.world import now_ms
from careledger.records import Manifest, Submission, SubmissionKeys, SubmissionPlan, encode_submission, seal_submission
from careledger.records.locks import Lock, decode_lock, decode_shares, encode_lock, encode_shares, lock_info, open_lock
from careledger.seal import SealingKey, decode, encode, parse_keyid, share_commitment, unb64

Rows = list[tuple[bytes, bytes, bytes]]


class Liar:
    """The author's software, changed: it knows M, and signs whatever it likes."""

    def __init__(self, scene: Any, scenes: Any, chart: Any, plan: SubmissionPlan) -> None:
        self.scene = scene
        self.scenes = scenes
        self.chart = chart
        self.plan = plan
        drawn: list[bytes] = []

        def rand(size: int) -> bytes:
            drawn.append(os.urandom(size))
            return drawn[-1]

        made = seal_submission(plan, signer=scene.author.keys.signing, now_ms=now_ms(), rand=rand)
        self.master = drawn[0]
        self.keys = SubmissionKeys(self.master)
        self.honest = msgspec.structs.replace(made, affiliation=scene.author.staff.affiliation)
        self.manifest = decode(made.manifests[0], Manifest)
        self.record = bytes.fromhex(self.manifest.record)

    def forge(self, submission: Submission | None = None, **changes: Any) -> Submission:
        forged: Submission = self.scene.forge(submission or self.honest, **changes)
        return forged

    def with_manifest(self, submission: Submission | None = None, /, **changes: Any) -> Submission:
        base = submission or self.honest
        first = encode(msgspec.structs.replace(decode(base.manifests[0], Manifest), **changes))
        return self.forge(base, manifests=[first, *base.manifests[1:]])

    def with_lock(self, submission: Submission, use: str, to: str, box: bytes) -> Submission:
        """The submission with the one lock of this use and recipient holding another box."""
        locks = []
        for data in submission.locks:
            lock: Lock = decode_lock(data)
            mine = (lock.use, lock.to) == (use, to)
            locks.append(encode_lock(msgspec.structs.replace(lock, box=box)) if mine else data)
        return self.forge(submission, locks=locks)

    def with_shares(
        self, node: Any, change: Callable[[Rows], Rows], submission: Submission | None = None
    ) -> Submission:
        """The submission whose release lock for `node` carries other rows, sealed and bound as it should be."""
        base = submission or self.honest
        to, key = next(one for one in self.plan.custodians if parse_keyid(one[0])[0] == node.token)
        info = lock_info(self.scenes.statement_of(base), "release", to=to)
        seed = SealingKey(unb64(self.scene.secrets(node).secrets.sealing))  # what only the test can know
        lock = next(one for one in map(decode_lock, base.locks) if (one.use, one.to) == ("release", to))
        rows = decode_shares(open_lock(lock, statement=self.scenes.statement_of(base), key=seed))
        return self.with_lock(base, "release", to, key.seal(encode_shares(change(rows)), info=info))

    async def send(self, submission: Submission) -> dict[str, str]:
        """Hand it to every custodian as it is; what each says, by node name."""
        body = encode_submission(submission)
        said = {}
        for node in self.scene.local.nodes:
            answer = await self.scene.network.wire.post(node.url, "/v1/submission", body)
            said[node.name] = "kept" if answer.status == 200 else self.scenes.refused(answer).code
        return said


async def liar(scene: Any, scenes: Any, count: int = 1, *, read: bool = True) -> Liar:
    chart = await scene.chart(1, read=read)
    return Liar(scene, scenes, chart, await scene.plan(chart, count))


def all_say(word: str) -> dict[str, str]:
    return {f"node-{number}": word for number in range(1, 5)}


def wrong_share(rows: Rows) -> Rows:
    return [(record, compartment, bytes([share[0] ^ 1]) + share[1:]) for record, compartment, share in rows]


def wrong_place(rows: Rows) -> Rows:
    return [(record, compartment, share[:-1] + bytes([share[-1] % 4 + 1])) for record, compartment, share in rows]


def other_record(rows: Rows) -> Rows:
    return [(bytes(16), compartment, share) for _, compartment, share in rows]


def none_at_all(_: Rows) -> Rows:
    return []


@pytest.mark.parametrize("change", [wrong_share, wrong_place, other_record, none_at_all], ids=lambda one: one.__name__)
def test_a_custodian_gives_no_receipt_for_a_share_that_does_not_open(
    scene: Any, scenes: Any, change: Callable[[Rows], Rows]
) -> None:
    """Each finds out by itself; that the others keep it is why a submission needs several receipts."""

    async def attack() -> None:
        made = await liar(scene, scenes, read=False)
        cheated = scene.local.nodes[2]
        before = scene.store(cheated).execute("SELECT count(*) FROM records").fetchone()
        said = await made.send(made.with_shares(cheated, change))
        assert said == {**all_say("kept"), cheated.name: "bad-share"}
        assert scene.store(cheated).execute("SELECT count(*) FROM records").fetchone() == before

    scene.run(attack())


def test_commitments_that_match_no_share_are_refused_by_everybody(scene: Any, scenes: Any) -> None:
    async def attack() -> None:
        made = await liar(scene, scenes, read=False)
        shares = list(made.manifest.shares)
        assert await made.send(made.with_manifest(shares=["00" * 32] * 4)) == all_say("bad-share")
        assert await made.send(made.with_manifest(shares=shares[:3])) == all_say("bad-share")
        assert await made.send(made.with_manifest(shares=[*shares, shares[0]])) == all_say("bad-share")

    scene.run(attack())


def test_ciphertext_and_manifest_must_be_the_signed_ones(scene: Any, scenes: Any) -> None:
    async def attack() -> None:
        made = await liar(scene, scenes, 2, read=False)
        first, second = made.honest.ciphertexts
        for changed, codes in (
            (made.forge(ciphertexts=[second, first]), {"bad-ciphertext"}),
            (made.forge(ciphertexts=[first[:-1] + bytes([first[-1] ^ 1]), second]), {"bad-ciphertext"}),
            (made.with_manifest(record="ab" * 16), {"bad-record-id"}),
            (made.with_manifest(index=1), {"bad-manifest", "bad-record-id"}),
            (made.with_manifest(epoch=made.manifest.epoch + 1), {"bad-lock", "stale-epoch"}),
            (msgspec.structs.replace(made.honest, manifests=made.honest.manifests[::-1]), {"bad-manifest", "bad-leaf"}),
            (msgspec.structs.replace(made.honest, locks=made.honest.locks[1:]), {"bad-leaf", "bad-lock", "bad-root"}),
        ):
            said = set((await made.send(changed)).values())
            assert said <= codes, said
        assert await made.send(made.honest) == all_say("kept")

    scene.run(attack())


async def both_look(made: Liar, submission: Submission) -> tuple[str, str]:
    """Custodians keep it, since they can't see; then what the clinician and the subject get: `opened` or a code."""
    scene = made.scene
    assert await made.send(submission) == all_say("kept")
    wanted = [*made.chart.records, made.record]
    opened = await scene.open(made.chart, wanted)
    assert {record.record for record in opened.records} >= set(made.chart.records), "the honest record opens beside it"
    assert not opened.faults, "no custodian is blamed for what the author did"
    reader = {record: error.code for record, error in opened.failed}.get(made.manifest.record, "opened")
    owned = await scene.owner(made.chart).open(wanted)
    assert {record.record for record in owned.records} >= set(made.chart.records)
    owner = {record: error.code for record, error in owned.failed}.get(made.manifest.record, "opened")
    return reader, owner


def test_an_honest_submission_opens_for_both(scene: Any, scenes: Any) -> None:
    async def control() -> tuple[str, str]:
        made = await liar(scene, scenes)
        return await both_look(made, made.honest)

    assert scene.run(control()) == ("opened", "opened")


def test_a_content_root_that_is_not_the_contents_is_a_bad_seal_for_both(scene: Any, scenes: Any) -> None:
    async def attack() -> tuple[str, str]:
        made = await liar(scene, scenes)
        return await both_look(made, made.with_manifest(content_root="5a" * 32))

    assert scene.run(attack()) == ("bad-seal", "bad-seal")


def test_a_ciphertext_under_another_key_is_a_bad_seal_for_both(scene: Any, scenes: Any) -> None:
    async def attack() -> tuple[str, str]:
        made = await liar(scene, scenes)
        other = os.urandom(len(made.honest.ciphertexts[0]))
        lying = made.with_manifest(ciphertext_hash=sha256(other).hexdigest())
        return await both_look(made, msgspec.structs.replace(lying, ciphertexts=[other]))

    assert scene.run(attack()) == ("bad-seal", "bad-seal")


def test_another_secret_in_the_consent_lock_is_found_by_reader_and_subject(scene: Any, scenes: Any) -> None:
    """The salamander's half that needs no cryptanalysis: clinicians get another key than the patient."""

    async def attack() -> tuple[str, str]:
        made = await liar(scene, scenes)
        compartment = made.manifest.compartment
        epoch, key = made.plan.compartments[compartment]
        to = made.plan.owner[0]
        info = lock_info(scenes.statement_of(made.honest), "consent", to=to, compartment=compartment, epoch=epoch)
        return await both_look(made, made.with_lock(made.honest, "consent", to, key.seal(os.urandom(32), info=info)))

    assert scene.run(attack()) == ("bad-seal", "bad-owner-lock")


def test_another_secret_in_the_owner_lock_is_found_by_the_subject(scene: Any, scenes: Any) -> None:
    """The clinician reads; the patient gets a secret from which nothing of this follows, and sees that."""

    async def attack() -> tuple[str, str]:
        made = await liar(scene, scenes)
        to, key = made.plan.owner
        info = lock_info(scenes.statement_of(made.honest), "owner", to=to)
        return await both_look(made, made.with_lock(made.honest, "owner", to, key.seal(os.urandom(32), info=info)))

    assert scene.run(attack()) == ("opened", "bad-owner-lock")


def test_shares_of_another_key_with_honest_commitments_are_found_by_reader_and_subject(scene: Any, scenes: Any) -> None:
    """Every custodian can open its part, so each gives a receipt; together they are not the release key."""

    async def attack() -> tuple[str, str]:
        made = await liar(scene, scenes)
        false = [share for (share,) in SubmissionKeys(os.urandom(32)).shares([made.record], n=4, t=3)]
        lying = made.with_manifest(shares=[share_commitment(made.record, share).hex() for share in false])
        places = {parse_keyid(keyid)[0]: at for at, (keyid, _) in enumerate(made.plan.custodians)}
        for node in scene.local.nodes:
            share = false[places[node.token]]
            lying = made.with_shares(node, lambda rows, share=share: [(r, c, share) for r, c, _ in rows], lying)
        return await both_look(made, lying)

    assert scene.run(attack()) == ("bad-seal", "bad-owner-lock")


def test_an_owner_lock_that_does_not_open_is_found_by_the_subject(scene: Any, scenes: Any) -> None:
    async def attack() -> tuple[str, str]:
        made = await liar(scene, scenes)
        to, key = made.plan.owner
        info = lock_info(scenes.statement_of(made.honest), "owner", to="cl1somebody#0")
        return await both_look(made, made.with_lock(made.honest, "owner", to, key.seal(made.master, info=info)))

    assert scene.run(attack()) == ("opened", "not-openable")
