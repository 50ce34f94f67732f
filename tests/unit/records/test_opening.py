"""What a reader opens, and whom it names when something does not open."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec
import pytest

from careledger.errors import Error, NotFoundError, UnavailableError, VerificationError
from careledger.records import (
    RecordPlan,
    SubmissionKeys,
    consent_key,
    open_record,
    open_records,
    open_with_master,
)
from careledger.records.header import header_from
from careledger.records.keys import content_aad, content_key
from careledger.records.plaintext import Plaintext, content_root, pack_plaintext, padme, to_wire
from careledger.seal import combine, encode, seal_content, share_commitment


def contents(opened: Any) -> list[list[tuple[str, bytes]]]:
    return [[(one.full_url, one.data) for one in record.resources] for record in opened]


def test_any_three_custodians_open_every_record_to_the_authors_bytes(world: Any) -> None:
    plan = world.plan(5)
    submission = world.seal(5)
    verified = world.verified(submission)
    for places in ((1, 2, 3), (4, 2, 1), (2, 3, 4), (1, 2, 3, 4)):
        opened = open_records(
            verified.records,
            shares=world.released(submission, places),
            threshold=world.threshold,
            secrets=world.secrets(verified),
        )
        assert opened.failed == []
        assert opened.bad_shares == []
        assert contents(opened.records) == [record.resources for record in plan.records]
        assert [one.header.category for one in opened.records] == [1] * 5


def test_the_subject_opens_with_its_own_secret_and_no_custodians_share(world: Any) -> None:
    submission = world.seal()
    verified = world.verified(submission)
    opened = open_with_master(verified.records, master=verified.open_owner_lock(world.owner_key))
    assert contents(opened.records) == [record.resources for record in world.plan().records]
    wrong = open_with_master(verified.records, master=bytes(32))
    assert [error.code for _, error in wrong.failed] == ["bad-seal"] * 3


def test_records_of_several_submissions_open_together_each_with_its_custodians(world: Any) -> None:
    first, second = world.seal(2), world.seal(3)
    views = [world.verified(first), world.verified(second)]
    shares = world.released(first, (1, 2, 3))
    for place, released in world.released(second, (2, 3, 4)).items():
        shares.setdefault(place, {}).update(released)
    secrets = [world.secrets(view) for view in views]
    consent = {
        one.record: consent_key(secret[one.manifest.compartment, one.manifest.epoch], one.record)
        for view, secret in zip(views, secrets, strict=True)
        for one in view.records
    }
    records = [*views[0].records, *views[1].records]
    opened = open_records(records, shares=shares, threshold=3, consent_keys=consent)
    assert opened.failed == []
    assert [one.record for one in opened.records] == [one.record for one in records]


def test_too_few_shares_say_how_many_are_needed(world: Any) -> None:
    submission = world.seal(1)
    verified = world.verified(submission)
    with pytest.raises(UnavailableError) as refused:
        open_record(
            verified.records[0],
            shares=world.released(submission, (1, 4)),
            threshold=3,
            secrets=world.secrets(verified),
        )
    assert refused.value.code == "not-enough-shares"
    assert refused.value.details == {"found": 2, "needed": 3}


def test_shares_below_the_threshold_never_open(world: Any) -> None:
    submission = world.seal(1)
    verified = world.verified(submission)
    for places in ((1,), (1, 2), (3, 4)):
        with pytest.raises(VerificationError) as refused:
            open_record(
                verified.records[0],
                shares=world.released(submission, places),
                threshold=len(places),
                secrets=world.secrets(verified),
            )
        assert refused.value.code == "bad-seal"


@pytest.mark.parametrize(
    "change",
    [
        lambda share, other: bytes([share[0] ^ 1]) + share[1:],
        lambda share, other: share[:-1] + b"\x03",
        lambda share, other: share[:-1],
        lambda share, other: share + b"\x02",
        lambda share, other: other,
        lambda share, other: b"",
        lambda share, other: share[:-1] + b"\x00",
    ],
    ids=["flipped", "place", "short", "long", "of another record", "empty", "place zero"],
)
def test_a_custodian_that_releases_a_false_share_is_named_and_the_others_suffice(world: Any, change: Any) -> None:
    submission = world.seal(2)
    verified = world.verified(submission)
    first, second = (one.record for one in verified.records)
    shares = world.released(submission, (1, 2, 3, 4))
    shares[2][first] = change(shares[2][first], shares[2][second])
    opened = open_records(verified.records, shares=shares, threshold=3, secrets=world.secrets(verified))
    assert opened.bad_shares == [(2, first)]
    assert len(opened.records) == 2
    del shares[4]
    opened = open_records(verified.records, shares=shares, threshold=3, secrets=world.secrets(verified))
    assert opened.bad_shares == [(2, first)]
    assert [(record, error.code) for record, error in opened.failed] == [(first, "not-enough-shares")]
    assert [one.record for one in opened.records] == [second], "one bad record keeps no other closed"


def test_a_custodian_cannot_answer_for_a_place_beyond_the_document(world: Any) -> None:
    submission = world.seal(1)
    verified = world.verified(submission)
    record = verified.records[0].record
    for place in (0, 5, 255):
        shares = {**world.released(submission), place: {record: bytes(32) + bytes([place])}}
        opened = open_records(verified.records, shares=shares, threshold=3, secrets=world.secrets(verified))
        assert opened.bad_shares == [(place, record)]
        assert len(opened.records) == 1


def test_an_author_who_commits_to_a_false_share_is_found_and_other_custodians_still_open(world: Any) -> None:
    """Every share matches its commitment, yet places 1, 2, 3 give another key than 1, 2, 4."""
    submission = world.seal(1)
    record = world.verified(submission).records[0].record
    false = bytes(range(32)) + b"\x03"
    lying = world.false_shares(submission, 3, lambda rows: [(r, c, false) for r, c, _ in rows])
    commitments = world.manifests(submission)[0].shares
    commitments[2] = share_commitment(record, false).hex()
    lying = world.change_manifest(lying, 0, shares=commitments)
    for place in range(1, 5):
        assert world.check(lying, place=place), "no custodian can see it alone"
    verified = world.verified(lying)
    arguments = {"threshold": 3, "secrets": world.secrets(verified)}
    with pytest.raises(VerificationError) as refused:
        open_record(verified.records[0], shares=world.released(lying, (1, 2, 3)), **arguments)
    assert refused.value.code == "bad-seal"
    opened = open_record(verified.records[0], shares=world.released(lying, (1, 2, 3, 4)), **arguments)
    assert contents([opened]) == [world.plan(1).records[0].resources]


def test_a_missing_consent_secret_is_told_apart(world: Any) -> None:
    submission = world.seal(2)
    verified = world.verified(submission)
    secrets = world.secrets(verified)
    del secrets[verified.records[1].manifest.compartment, verified.records[1].manifest.epoch]
    opened = open_records(verified.records, shares=world.released(submission), threshold=3, secrets=secrets)
    assert len(opened.records) == 1
    assert [(record, error.code) for record, error in opened.failed] == [(verified.records[1].record, "no-consent-key")]
    assert isinstance(opened.failed[0][1], NotFoundError)


def test_shares_without_consent_open_nothing(world: Any) -> None:
    submission = world.seal(1)
    verified = world.verified(submission)
    place = (verified.records[0].manifest.compartment, verified.records[0].manifest.epoch)
    with pytest.raises(VerificationError) as refused:
        open_record(
            verified.records[0],
            shares=world.released(submission, (1, 2, 3, 4)),
            threshold=3,
            secrets={place: bytes(32)},
        )
    assert refused.value.code == "bad-seal"


def test_a_listed_record_without_ciphertext_is_not_opened(world: Any) -> None:
    submission = world.seal(1)
    verified = world.verified(submission)
    listed = msgspec.structs.replace(verified.records[0], ciphertext=None)
    with pytest.raises(NotFoundError) as refused:
        open_record(listed, shares=world.released(submission), threshold=3, secrets=world.secrets(verified))
    assert refused.value.code == "no-ciphertext"


# What an author can sign that is no record


def resealed(world: Any, wire: bytes, root: bytes) -> tuple[Any, Any]:
    """A submission of one record whose ciphertext holds `wire` and whose manifest says `root`."""
    submission = world.seal(1)
    manifest = world.manifests(submission)[0]
    verified = world.verified(submission)
    keys = SubmissionKeys(verified.open_owner_lock(world.owner_key))
    record = bytes.fromhex(manifest.record)
    key = keys.content_key(record, bytes.fromhex(manifest.compartment), manifest.epoch)
    aad = content_aad(
        network=manifest.network,
        subject=manifest.subject,
        author=manifest.author,
        record=manifest.record,
        compartment=manifest.compartment,
        epoch=manifest.epoch,
    )
    ciphertext = seal_content(key, wire, aad=aad)
    changed = world.change_manifest(
        submission,
        0,
        ciphertext_hash=sha256(ciphertext).hexdigest(),
        ciphertext_length=len(ciphertext),
        content_root=root.hex(),
    )
    changed = msgspec.structs.replace(changed, ciphertexts=[ciphertext])
    return changed, world.verified(changed)


def refusal(world: Any, wire: bytes, root: bytes) -> str:
    submission, verified = resealed(world, wire, root)
    with pytest.raises(Error) as refused:
        open_record(
            verified.records[0],
            shares=world.released(submission, (1, 2, 3, 4)),
            threshold=3,
            secrets=world.secrets(verified),
        )
    return refused.value.code


def plaintext(world: Any, text: bytes, **fields: Any) -> Plaintext:
    from careledger.records import unpack_plaintext

    header = header_from(fields, salt=bytes(16), resources=1)
    wire, _ = pack_plaintext(header, [("urn:uuid:1", text)], rand=world.rand)
    return unpack_plaintext(wire)


def test_a_content_root_of_another_content_is_refused(world: Any) -> None:
    one, other = plaintext(world, b'{"one": 1}'), plaintext(world, b'{"other": 2}')
    submission, verified = resealed(world, to_wire(one), content_root(one))
    assert (
        open_record(
            verified.records[0],
            shares=world.released(submission),
            threshold=3,
            secrets=world.secrets(verified),
        ).resources
        == one.resources
    )
    submission, verified = resealed(world, to_wire(one), content_root(other))
    with pytest.raises(VerificationError, match="another content than the signed one") as refused:
        open_record(
            verified.records[0],
            shares=world.released(submission),
            threshold=3,
            secrets=world.secrets(verified),
        )
    assert refused.value.code == "bad-seal"


def test_signed_wires_that_are_no_records_are_refused(world: Any) -> None:
    good = plaintext(world, b"{}")
    wire = to_wire(good)
    root = content_root(good)
    assert refusal(world, wire[:-1] + b"\x01", root) == "bad-seal"
    assert refusal(world, bytes(padme(100)), root) == "bad-seal"
    bad_header = Plaintext(header=b'{"salt":"","v":1}', resources=[])
    assert refusal(world, to_wire(bad_header), content_root(bad_header)) == "bad-seal"
    unsalted = Plaintext(header=encode(header_from({}, salt=bytes(16), resources=0)) + b" ", resources=[])
    assert refusal(world, to_wire(unsalted), content_root(unsalted)) == "bad-seal"


def test_a_bomb_is_refused_as_too_large(world: Any) -> None:
    import zlib

    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflated = compressor.compress(bytes(17 << 20)) + compressor.flush()
    used = 4 + len(deflated)
    bomb = len(deflated).to_bytes(4) + deflated + bytes(padme(used) - used)
    assert refusal(world, bomb, bytes(32)) == "too-large"


def test_a_ciphertext_moved_to_another_record_does_not_open_even_with_its_own_key(world: Any) -> None:
    """The aad names the record: whoever has the key cannot present the content in another place."""
    submission = world.seal(3)
    verified = world.verified(submission)
    shares = world.released(submission)
    secrets = world.secrets(verified)
    one, other = verified.records[0], verified.records[2]
    assert one.manifest.compartment == other.manifest.compartment
    release = combine([shares[place][one.record] for place in (1, 2, 3)])
    key = content_key(consent_key(secrets[one.manifest.compartment, one.manifest.epoch], one.record), release)
    from careledger.seal import open_content

    def aad(record: Any) -> bytes:
        manifest = record.manifest
        return content_aad(
            network=manifest.network,
            subject=manifest.subject,
            author=manifest.author,
            record=manifest.record,
            compartment=manifest.compartment,
            epoch=manifest.epoch,
        )

    assert open_content(key, one.ciphertext, aad=aad(one))
    with pytest.raises(VerificationError):
        open_content(key, one.ciphertext, aad=aad(other))


def test_record_plans_may_replace_an_earlier_record(world: Any) -> None:
    plan = world.plan(1)
    amended = [
        RecordPlan(
            compartment=plan.records[0].compartment,
            header={},
            resources=[("", b"{}")],
            replaces="ab" * 16,
        )
    ]
    from careledger.records import seal_submission

    submission = seal_submission(
        msgspec.structs.replace(plan, records=amended, for_=None),
        signer=world.author_key,
        now_ms=world.now_ms,
        rand=world.rand,
    )
    manifest = world.manifests(submission)[0]
    assert manifest.replaces == "ab" * 16
    assert manifest.for_ is msgspec.UNSET
    assert world.check(submission)
