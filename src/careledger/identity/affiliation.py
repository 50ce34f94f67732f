"""Affiliations and licences: what makes a person a clinician *for* an organisation, and a clinician at all.

An affiliation is an organisation's own word, good for a day at most, so that nobody has to be told when somebody
leaves. A licence is attested by a member with the role `licensor`; its status is kept by the directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, Literal

import msgspec

from careledger.errors import NotPermittedError, VerificationError
from careledger.identity.fields import ZERO_HASH, Hash, Id16, Milliseconds, Name, TokenText, Version
from careledger.identity.token import Token
from careledger.seal import Envelope, Payload, SigningKey, VerifyKey, decode, encode, sign, verify

__all__ = [
    "AFFILIATION_MS_MAX",
    "Affiliation",
    "Licence",
    "check_affiliation",
    "sign_affiliation",
    "sign_licence",
]

AFFILIATION_MS_MAX: Final = 24 * 3600 * 1000
"""An affiliation holds at most 24 hours (design 5.1)."""
_SKEW_MS: Final = 120_000
"""Clocks may differ by as much as a request may be old (design 5.4)."""
_PAYLOAD_BYTES_MAX: Final = 2048


class Affiliation(Payload, frozen=True, kw_only=True):
    """`organisation` says that `person` acts for it as `role` from `from` to `until` (ms UTC)."""

    v: Version
    network: Hash
    organisation: TokenText
    person: TokenText
    role: Name
    from_: Milliseconds = msgspec.field(name="from")
    until: Milliseconds

    TYPE: ClassVar[str] = "application/vnd.careledger.affiliation+json"


class Licence(Payload, frozen=True, kw_only=True):
    """`licensor` attests that `person` may practise as `role`. `prev` is the message id of the licence's statement
    before, zeros for the first: an old "active" can't be replayed after a suspension."""

    v: Version
    network: Hash
    licence: Id16
    prev: Hash
    licensor: TokenText
    person: TokenText
    role: Name
    from_: Milliseconds = msgspec.field(name="from")
    until: Milliseconds
    status: Literal["active", "suspended", "revoked"]

    TYPE: ClassVar[str] = "application/vnd.careledger.licence+json"


def sign_affiliation(
    *,
    network: str,
    organisation: Token,
    person: Token,
    role: str,
    from_ms: int,
    until_ms: int,
    signer: tuple[str, SigningKey],
) -> Envelope:
    """The organisation's signed affiliation; `signer` = (keyid, its current signing key).

    Raises AssertionError for more than 24 hours: nobody would accept it.
    """
    if not 0 < until_ms - from_ms <= AFFILIATION_MS_MAX:
        raise AssertionError("an affiliation holds for more than nothing and at most 24 hours")
    payload = Affiliation(
        v=1, network=network, organisation=organisation, person=person, role=role, from_=from_ms, until=until_ms
    )
    return sign(Affiliation.TYPE, encode(payload), [signer])


def check_affiliation(
    envelope: Envelope,
    *,
    keys: Mapping[str, VerifyKey],
    network: str,
    person: Token,
    organisation: Token,
    now_ms: int,
) -> Affiliation:
    """The affiliation, proven to be signed by `keys` (keyid → the organisation's current keys) and in force now.

    Raises VerificationError as seal.verify and `wrong-network`; MalformedError as seal.decode; NotPermittedError
    `not-affiliated` (another person or organisation, longer than 24 hours, not begun), `expired`.
    """
    payload = verify(envelope, payload_type=Affiliation.TYPE, keys=keys)
    found = decode(payload, Affiliation, size_max=_PAYLOAD_BYTES_MAX)
    if any(not signature.keyid.startswith(organisation + "#") for signature in envelope.signatures):
        raise NotPermittedError("not-affiliated", "the affiliation is not signed by the organisation it names")
    if found.network != network:
        raise VerificationError("wrong-network", "the affiliation was signed for another network")
    if found.person != person or found.organisation != organisation:
        raise NotPermittedError("not-affiliated", "the affiliation names another person or organisation")
    if not 0 < found.until - found.from_ <= AFFILIATION_MS_MAX:
        raise NotPermittedError("not-affiliated", "an affiliation must hold at most 24 hours: ask for a new one")
    if found.from_ > now_ms + _SKEW_MS:
        raise NotPermittedError("not-affiliated", "the affiliation has not begun yet: check the clock")
    if found.until <= now_ms:
        raise NotPermittedError("expired", "the affiliation has ended: ask the organisation for today's")
    return found


def sign_licence(
    *,
    network: str,
    licence: str,
    licensor: Token,
    person: Token,
    role: str,
    from_ms: int,
    until_ms: int,
    status: Literal["active", "suspended", "revoked"],
    signer: tuple[str, SigningKey],
    prev: str = ZERO_HASH,
) -> Envelope:
    """A licensor's signed statement, a directory transaction; `licence` = hex of 16 random bytes, kept for its life."""
    payload = Licence(
        v=1,
        network=network,
        licence=licence,
        prev=prev,
        licensor=licensor,
        person=person,
        role=role,
        from_=from_ms,
        until=until_ms,
        status=status,
    )
    return sign(Licence.TYPE, encode(payload), [signer])
