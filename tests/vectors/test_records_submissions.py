"""Whole submissions kept as data: they must open for ever, and the false ones must be refused for ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from careledger.errors import Error
from careledger.records import (
    CheckedSubmission,
    Submission,
    VerifiedSubmission,
    check_owner,
    check_submission,
    decode_disclosure,
    decode_submission,
    decode_view,
    leaf_tree,
    open_record,
    open_records,
    open_with_master,
    verify_disclosed,
    verify_view,
    view_of,
)
from careledger.seal import SealingKey, VerifyKey, unb64

FOLDER = Path(__file__).parents[2] / "vectors" / "records"


class Replay:
    """The people of a vector file, and what each does with a message."""

    def __init__(self, name: str) -> None:
        content = json.loads((FOLDER / name).read_text(encoding="utf-8"))
        assert content["how_made"]
        self.vectors: list[dict[str, Any]] = content["vectors"]
        world = content["world"]
        self.world = world
        self.author_key = VerifyKey(bytes.fromhex(world["author_public"]))
        self.owner_key = SealingKey(bytes.fromhex(world["owner"]["seed"]))
        self.custodians = [(one["keyid"], SealingKey(bytes.fromhex(one["seed"]))) for one in world["custodians"]]
        self.compartments = {
            (one["compartment"], one["epoch"]): SealingKey(bytes.fromhex(one["seed"])) for one in world["compartments"]
        }

    def check(self, message: str, place: int) -> CheckedSubmission:
        keyid, key = self.custodians[place - 1]
        return check_submission(
            decode_submission(unb64(message)),
            network=self.world["network"],
            author_key=self.author_key,
            custodian=keyid,
            sealing_key=key,
            place=place,
            n=len(self.custodians),
            now_ms=self.world["now_ms"],
        )

    def verified(self, checked: CheckedSubmission) -> VerifiedSubmission:
        submission: Submission = checked.submission
        view = view_of(
            envelope=submission.envelope,
            manifest_tree=leaf_tree(submission.manifest_leaves),
            lock_tree=leaf_tree(submission.lock_leaves),
            locks=[(one.lock_bytes, one.position) for one in checked.locks if one.lock.use != "release"],
            records=[(one.manifest_bytes, one.position, one.ciphertext) for one in checked.records],
        )
        return verify_view(
            view, network=self.world["network"], author_key=self.author_key, subject=self.world["subject"]
        )

    def secrets(self, verified: VerifiedSubmission) -> dict[tuple[str, int], bytes]:
        used = {(one.manifest.compartment, one.manifest.epoch) for one in verified.records}
        return {place: verified.open_consent_lock(*place, self.compartments[place]) for place in used}

    def shares(self, message: str) -> dict[int, dict[bytes, bytes]]:
        return {place: {one.record: one.share for one in self.check(message, place).records} for place in (1, 2, 3)}


def test_a_submission_of_version_1_opens() -> None:
    replay = Replay("submission.json")
    assert replay.vectors
    for vector in replay.vectors:
        for place in range(1, 5):
            checked = replay.check(vector["message"], place)
            assert [one.share.hex() for one in checked.records] == vector["shares"][str(place)]
            assert [one.manifest_bytes.decode() for one in checked.records] == vector["manifests"]
        kept = replay.verified(checked)
        view = verify_view(
            decode_view(unb64(vector["view"])),
            network=replay.world["network"],
            author_key=replay.author_key,
            subject=replay.world["subject"],
        )
        assert view.records == kept.records
        secrets = replay.secrets(view)
        assert {
            (one["compartment"], one["epoch"]): bytes.fromhex(one["secret"]) for one in vector["secrets"]
        } == secrets
        master = check_owner(
            view, key=replay.owner_key, compartment_keys=replay.compartments, threshold=replay.world["threshold"]
        )
        assert master.hex() == vector["master"]
        for opened in (
            open_records(view.records, shares=replay.shares(vector["message"]), threshold=3, secrets=secrets),
            open_with_master(view.records, master=master),
        ):
            assert opened.failed == []
            assert [
                {
                    "record": one.record.hex(),
                    "header": one.plaintext.header.decode(),
                    "resources": [{"full_url": each.full_url, "data": each.data.decode()} for each in one.resources],
                }
                for one in opened.records
            ] == vector["records"]
        disclosed = verify_disclosed(
            decode_disclosure(unb64(vector["disclosure"])),
            network=replay.world["network"],
            author_key=replay.author_key,
        )
        assert {
            "record": disclosed.manifest.record,
            "index": disclosed.index,
            "full_url": disclosed.resource.full_url,
            "data": disclosed.resource.data.decode(),
        } == vector["disclosed"]


ATTACKS = Replay("attacks.json")


def verdict(action: Any) -> str:
    try:
        action()
    except Error as error:
        return error.code
    return "ok"


@pytest.mark.parametrize("vector", ATTACKS.vectors, ids=lambda vector: vector["name"])
def test_attacks_are_refused_by_whoever_can_see_them(vector: dict[str, str]) -> None:
    assert verdict(lambda: ATTACKS.check(vector["message"], 1)) == vector["check"]
    if vector["check"] != "ok":
        return
    verified = ATTACKS.verified(ATTACKS.check(vector["message"], 1))

    def read() -> None:
        open_record(
            verified.records[0],
            shares=ATTACKS.shares(vector["message"]),
            threshold=ATTACKS.world["threshold"],
            secrets=ATTACKS.secrets(verified),
        )

    def own() -> None:
        check_owner(
            verified,
            key=ATTACKS.owner_key,
            compartment_keys=ATTACKS.compartments,
            threshold=ATTACKS.world["threshold"],
        )

    assert verdict(read) == vector["open"]
    assert verdict(own) == vector["owner"]
    assert (vector["open"], vector["owner"]) != ("ok", "ok"), "somebody sees it"
