"""Entry bodies and leaves; and that an auditor can decide an entry again."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from careledger import access, consent
from careledger.access.entry import with_manifests
from careledger.consent import replay
from careledger.errors import MalformedError, VerificationError
from careledger.seal import canonical


def test_a_leaf_is_the_text_the_design_says() -> None:
    salt, body = b"s" * 32, b"{}"
    leaf = access.leaf("access", salt, body)
    assert leaf == b"careledger/entry/v1 access " + hashlib.sha256(salt + body).hexdigest().encode()
    assert access.parse_leaf(leaf) == ("access", hashlib.sha256(salt + body).digest())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"careledger/entry/v1 access",
        b"careledger/entry/v1 secret " + b"0" * 64,
        b"careledger/entry/v1 access " + b"A" * 64,
        b"careledger/entry/v1 access " + b"0" * 64 + b"\n",
        b"careledger/entry/v2 access " + b"0" * 64,
    ],
)
def test_other_leaves_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedError) as refused:
        access.parse_leaf(data)
    assert refused.value.code == "bad-leaf"


def test_a_leaf_of_no_known_kind_or_without_its_salt_is_a_bug() -> None:
    for kind, salt in (("secret", b"s" * 32), ("access", b"")):
        with pytest.raises(AssertionError):
            access.leaf(kind, salt, b"{}")


def test_a_built_body_is_the_canonical_encoding_of_its_struct(world: Any) -> None:
    body = world.body(world.check(world.message()), details={"b": [1, "x"], "a": True}, client='é " \\ \n')
    decoded = access.decode_entry(body)
    assert canonical.encode(decoded) == body
    assert decoded.envelopes and len(decoded.envelopes) == 2
    assert decoded.details == {"a": True, "b": [1, "x"]}


def test_a_manifest_is_spliced_as_it_is(world: Any) -> None:
    manifest = canonical.encode({"record": "cd" * 16, "shares": ["00"], "v": 1})
    body = world.body(
        world.check(world.message()), kind="keep", manifest=manifest, envelopes=(), subject=world.ada.token
    )
    assert b'"manifest":' + manifest in body
    assert access.decode_entry(body).manifest == {"record": "cd" * 16, "shares": ["00"], "v": 1}


def test_bodies_that_differ_in_their_manifest_are_those_that_would_be_built_one_by_one() -> None:
    fields: dict[str, Any] = {
        "network": "ab" * 32, "node": "cl1" + "q" * 46, "received": 8, "directory_height": 8, "directory_age": 8,
        "consent_seq": 8, "consent_hash": "8" * 64, "kind": "keep", "decision": "accept", "reason": "manifest",
        "counters": {},
    }  # fmt: skip
    manifests = [canonical.encode({"index": number, "manifest": 0}) for number in (8, 9, 10)]
    built = [access.build_entry(index=at, manifest=one, **fields) for at, one in enumerate(manifests, start=8)]
    spliced = with_manifests(built[0], index=8, manifests=manifests)
    assert [body for body, _ in spliced] == built
    assert [body[at:].startswith(one) for one, (body, at) in zip(manifests, spliced, strict=True)] == [True] * 3
    for body, index in ((built[0], 9), (built[1], 8)):
        with pytest.raises(AssertionError):
            with_manifests(body, index=index, manifests=manifests)


@pytest.mark.parametrize(
    "change",
    [
        (b'"v":1', b'"v":2'),
        (b'"kind":"access"', b'"kind":"secret"'),
        (b'"index":2', b'"index":-2'),
        (b'"index":2', b'"index":2.0'),
        (b'"index":2,', b'"index":2, '),
        (b'"index":2', b'"extra":1,"index":2'),
        (b'"decision":"allow"', b'"decision":"Allow!"'),
        (b'"requests":3', b'"requests":null'),
    ],
)
def test_bodies_are_strict(world: Any, change: tuple[bytes, bytes]) -> None:
    body = world.body(world.check(world.message()))
    assert change[0] in body
    with pytest.raises(MalformedError):
        access.decode_entry(body.replace(*change))


def test_numbers_out_of_range_are_a_bug(world: Any) -> None:
    with pytest.raises(AssertionError):
        world.body(world.check(world.message()), index=1 << 53)
    with pytest.raises(TypeError):
        world.body(world.check(world.message()), details={"share": 0.5})


def test_the_request_of_an_entry_is_proven_again(world: Any) -> None:
    checked = world.check(world.message())
    entry = access.decode_entry(world.body(checked))
    again = access.request_of(entry, keys=world.keys, affiliations={})
    for name in ("id", "reader", "for_", "affiliated", "subject", "records", "basis", "grant", "head", "envelopes"):
        assert getattr(again, name) == getattr(checked, name)
    without = access.decode_entry(world.body(checked, envelopes=checked.envelopes[:1]))
    assert access.request_of(without, keys=world.keys, affiliations={}).affiliated is None
    known = {checked.request.affiliation: checked.affiliation}
    assert access.request_of(without, keys=world.keys, affiliations=known).affiliated == checked.affiliated


def test_approvals_come_back_from_an_entry_with_and_without_affiliation(world: Any) -> None:
    for request, affiliation in (
        (world.request(), world.affiliation),
        (world.request(for_=msgspec.UNSET, affiliation=msgspec.UNSET), None),
    ):
        _, message_id = access.sign_request(request, world.ada.signer)
        approval = access.sign_approval(
            network=world.network,
            request=message_id,
            subject=world.patient.token,
            approver=world.bea.token,
            expires=world.now + 1,
            signer=world.bea.signer,
        )
        checked = world.check(world.message(request, affiliation=affiliation, approvals=[approval]))
        again = access.request_of(access.decode_entry(world.body(checked)), keys=world.keys, affiliations={})
        assert [item.approver for item in again.approvals] == [world.bea.token]


def test_an_entry_that_received_a_stale_or_forged_request_is_found_out(world: Any) -> None:
    checked = world.check(world.message())
    late = access.decode_entry(world.body(checked, received=world.now + 120_001))
    with pytest.raises(VerificationError) as refused:
        access.request_of(late, keys=world.keys, affiliations={})
    assert refused.value.code == "stale-request"
    forged = world.message(signer=(world.ada.keyid, world.bea.sign)).request
    entry = access.decode_entry(world.body(checked, envelopes=(forged,)))
    with pytest.raises(VerificationError) as refused:
        access.request_of(entry, keys=world.keys, affiliations={})
    assert refused.value.code == "bad-signature"
    for wrong in ({"kind": "system"}, {"envelopes": ()}):
        with pytest.raises(VerificationError) as refused:
            access.request_of(access.decode_entry(world.body(checked, **wrong)), keys=world.keys, affiliations={})
        assert refused.value.code == "not-an-access"


class Everybody:
    height = 7

    def __init__(self, time_ms: int) -> None:
        self.time_ms = time_ms

    def is_active(self, token: str, /) -> bool:
        return True

    def licensed(self, person: str, now_ms: int, /) -> bool:
        return True

    def member(self, organisation: str, /) -> bool:
        return True


def test_an_auditor_decides_again_and_names_an_entry_that_lies(world: Any) -> None:
    """The node allowed without a grant, denied what was granted, or claims another moment."""
    grant = consent.Grant(
        network=world.network,
        subject=world.patient.token,
        seq=1,
        prev="00" * 32,
        time=world.now - 1,
        grant="12" * 16,
        grantee=world.ada.token,
        to=world.ada.keyid,
        rights=["read"],
        records=["cd" * 16, "ef" * 16],
        purposes=["TREAT"],
        expires=world.now + 1,
        box="00" * 32,
        policy="",
        text_hash="00" * 32,
        text_language="en",
    )
    granted = consent.fold(consent.EMPTY, grant, "aa" * 32)
    nothing = msgspec.structs.replace(granted, grants={}, by_grantee={})
    directory = Everybody(world.now - 1234)
    manifests = [SimpleNamespace(record=record, compartment="", recorded=1) for record in ("cd" * 16, "ef" * 16)]
    request = world.request(head=access.Head(seq=1, hash="aa" * 32))
    checked = world.check(world.message(request))

    def entry(**changes: Any) -> access.EntryBody:
        return access.decode_entry(world.body(checked, consent_seq=1, **changes))

    def decide_again(body: access.EntryBody, state: consent.ConsentState, now: Everybody = directory) -> str:
        again = access.request_of(body, keys=world.keys, affiliations={})
        try:
            return replay(body, again, state, now, manifests).reason
        except VerificationError as error:
            return error.code

    assert decide_again(entry(), granted) == "grant"
    assert decide_again(entry(decision="deny", reason="no-grant"), nothing) == "no-grant"
    assert decide_again(entry(), nothing) == "wrong-decision"
    assert decide_again(entry(decision="deny", reason="no-grant"), granted) == "wrong-decision"
    assert decide_again(entry(decision="deny", reason="revoked"), nothing) == "wrong-decision"
    assert decide_again(entry(reason="owner"), granted) == "wrong-decision"
    assert decide_again(entry(counters={"requests": 9, "requests_max": 9}), granted) == "wrong-decision"
    assert decide_again(entry(consent_hash="bb" * 32), granted) == "wrong-moment"
    assert decide_again(entry(directory_height=6), granted) == "wrong-moment"
    assert decide_again(entry(directory_age=1), granted) == "wrong-moment"
