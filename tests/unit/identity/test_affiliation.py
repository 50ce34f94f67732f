"""Affiliations: an organisation's word for a day at most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from careledger.errors import Error
from careledger.identity import (
    AFFILIATION_MS_MAX,
    Affiliation,
    check_affiliation,
    new_organisation,
    new_person,
    sign_affiliation,
)
from careledger.seal import Envelope, SigningKey, encode, keyid, sign

NETWORK = "ab" * 32
NOW = 1_700_000_000_000
HOUR = 3_600_000


class Cast:
    def __init__(self, rand: Callable[[int], bytes]) -> None:
        self.hospital = new_organisation(nodes=[], rand=rand)
        self.other = new_organisation(nodes=[], rand=rand)
        self.doctor = new_person(custodians=[], rand=rand)
        self.stranger = new_person(custodians=[], rand=rand)
        self.key = self.hospital.secrets.device.signing_key()
        self.keys = {
            keyid(self.hospital.token, 0): _verify(self.hospital),
            keyid(self.other.token, 0): _verify(self.other),
        }

    def payload(self, **fields: Any) -> Affiliation:
        base: dict[str, Any] = {
            "v": 1,
            "network": NETWORK,
            "organisation": self.hospital.token,
            "person": self.doctor.token,
            "role": "physician",
            "from_": NOW - HOUR,
            "until": NOW + HOUR,
        }
        return Affiliation(**(base | fields))

    def signed(self, **fields: Any) -> Envelope:
        return sign(Affiliation.TYPE, encode(self.payload(**fields)), [(keyid(self.hospital.token, 0), self.key)])

    def check(self, envelope: Envelope, **fields: Any) -> Affiliation:
        base: dict[str, Any] = {
            "keys": self.keys,
            "network": NETWORK,
            "person": self.doctor.token,
            "organisation": self.hospital.token,
            "now_ms": NOW,
        }
        return check_affiliation(envelope, **(base | fields))

    def refusal(self, envelope: Envelope, **fields: Any) -> str:
        with pytest.raises(Error) as caught:
            self.check(envelope, **fields)
        return caught.value.code


def _verify(identity: Any) -> Any:
    from careledger.identity import verify_key

    return verify_key(identity.secrets.device.keys()[0])


@pytest.fixture
def cast(rand: Callable[[int], bytes]) -> Cast:
    return Cast(rand)


def test_affiliation_in_force_is_accepted(cast: Cast) -> None:
    envelope = sign_affiliation(
        network=NETWORK,
        organisation=cast.hospital.token,
        person=cast.doctor.token,
        role="physician",
        from_ms=NOW,
        until_ms=NOW + AFFILIATION_MS_MAX,
        signer=(keyid(cast.hospital.token, 0), cast.key),
    )
    assert cast.check(envelope).role == "physician"
    assert b'"from":' in encode(cast.check(envelope))


def test_somebody_else_s_affiliation_is_refused(cast: Cast) -> None:
    envelope = cast.signed()
    assert cast.refusal(envelope, person=cast.stranger.token) == "not-affiliated"
    assert cast.refusal(envelope, organisation=cast.other.token) == "not-affiliated"
    assert cast.refusal(cast.signed(person=cast.stranger.token)) == "not-affiliated"


def test_affiliation_signed_by_another_organisation_is_refused(cast: Cast) -> None:
    """The other organisation is known and its signature valid; it may still not speak for the hospital."""
    key = cast.other.secrets.device.signing_key()
    forged = sign(Affiliation.TYPE, encode(cast.payload()), [(keyid(cast.other.token, 0), key)])
    assert cast.refusal(forged) == "not-affiliated"
    own_name = sign(Affiliation.TYPE, encode(cast.payload()), [(keyid(cast.hospital.token, 0), key)])
    assert cast.refusal(own_name) == "bad-signature"


def test_unknown_key_type_and_network_are_refused(cast: Cast) -> None:
    assert cast.refusal(cast.signed(), keys={}) == "unknown-key"
    assert cast.refusal(cast.signed(network="cd" * 32)) == "wrong-network"
    other = msgspec.structs.replace(cast.signed(), payloadType="application/vnd.careledger.licence+json")
    assert cast.refusal(other) == "wrong-type"


@pytest.mark.parametrize(
    ("from_ms", "until", "code"),
    [
        (NOW - HOUR, NOW, "expired"),
        (NOW - 2 * AFFILIATION_MS_MAX, NOW - AFFILIATION_MS_MAX, "expired"),
        (NOW, NOW + AFFILIATION_MS_MAX + 1, "not-affiliated"),
        (NOW + 120_001, NOW + HOUR, "not-affiliated"),
        (NOW + HOUR, NOW - HOUR, "not-affiliated"),
        (NOW, NOW, "not-affiliated"),
    ],
)
def test_affiliation_outside_its_day_is_refused(cast: Cast, from_ms: int, until: int, code: str) -> None:
    assert cast.refusal(cast.signed(from_=from_ms, until=until)) == code


def test_clocks_may_differ_by_two_minutes(cast: Cast) -> None:
    assert cast.check(cast.signed(from_=NOW + 120_000)).from_ == NOW + 120_000


def test_nobody_signs_for_longer_than_a_day(cast: Cast) -> None:
    for until in (NOW + AFFILIATION_MS_MAX + 1, NOW, NOW - 1):
        with pytest.raises(AssertionError):
            sign_affiliation(
                network=NETWORK,
                organisation=cast.hospital.token,
                person=cast.doctor.token,
                role="physician",
                from_ms=NOW,
                until_ms=until,
                signer=(keyid(cast.hospital.token, 0), SigningKey(bytes(32))),
            )


@pytest.mark.parametrize("role", ["", "Physician", "a b", "x" * 65, "médecin", "-x"])
def test_role_is_a_short_word(cast: Cast, role: str) -> None:
    assert cast.refusal(cast.signed(role=role)) == "bad-field"
