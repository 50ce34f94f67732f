"""Rules for identities and licences: enrolment with a quota, operations, and who may practise."""

from __future__ import annotations

from typing import Final

import msgspec

from careledger.directory.signers import current_keys, open_signed, signed_by_member, signed_by_node
from careledger.directory.state import Staging
from careledger.directory.transactions import Enrol
from careledger.directory.values import LicenceState, QuotaState
from careledger.errors import ConflictError, MalformedError, NotFoundError, NotPermittedError, VerificationError
from careledger.identity import Applied, Inception, Licence, Rotate, apply_parsed, parse_operation
from careledger.identity.fields import ZERO_HASH
from careledger.seal import Envelope, VerifyKey, envelope_message_id

__all__ = ["apply_bare_inception", "apply_enrol", "apply_licence", "apply_operation_transaction", "store_identity"]

_DAY_MS: Final = 86_400_000


def store_identity(staging: Staging, applied: Applied, *, new_keys: bool, claim: str | None = None) -> None:
    """Stage an identity's new state, and its key list where the operation changed it."""
    staging.put("identity", applied.token, applied.state)
    if new_keys:
        staging.put_keys(applied.token, applied.state.sequence, applied.keys, claim)


def apply_bare_inception(_staging: Staging, _envelope: Envelope) -> None:
    """Always refuses: identities enter through a member's node, which answers for their number."""
    raise NotPermittedError("not-enrolled", "an inception enters through a member's node: send it to a node to enrol")


def apply_enrol(staging: Staging, envelope: Envelope) -> None:
    """An inception brought in by a member's node, within the member's quota of the day."""
    enrol, signer = open_signed(staging, envelope, Enrol)
    node = signed_by_node(staging, signer, enrol.node)
    parsed = parse_operation(enrol.inception)
    if not isinstance(parsed.operation, Inception):
        raise VerificationError("wrong-type", "only an inception can be enrolled; send other operations as they are")
    _count_inception(staging, node.member)
    known = staging.identity(parsed.token)
    store_identity(staging, apply_parsed(known, parsed, network=staging.network, now_ms=staging.time_ms), new_keys=True)


def apply_operation_transaction(staging: Staging, envelope: Envelope) -> None:
    """An update, rotation or deactivation of an identity that is known."""
    parsed = parse_operation(envelope)
    state = staging.identity(parsed.token)
    keys = staging.keys_in_force(parsed.token)
    manager_keys: dict[str, VerifyKey] | None = None
    operation, claim = parsed.operation, None
    if isinstance(operation, Rotate) and operation.claim is not msgspec.UNSET:
        claim = operation.claim.manager
        manager_keys = current_keys(staging, envelope, claim)
    applied = apply_parsed(
        state,
        parsed,
        network=staging.network,
        now_ms=staging.time_ms,
        keys=() if keys is None else keys.keys,
        manager_keys=manager_keys,
    )
    new_keys = claim is not None or state is None or applied.state.keys_hash != state.keys_hash
    store_identity(staging, applied, new_keys=new_keys, claim=claim)


def apply_licence(staging: Staging, envelope: Envelope) -> None:
    """A licensor's statement about a person's licence, linked to the one before."""
    statement, signer = open_signed(staging, envelope, Licence)
    licensor = signed_by_member(staging, signer, statement.licensor)
    if "licensor" not in licensor.roles:
        raise NotPermittedError("not-a-licensor", "only a member with the role licensor attests licences")
    person = staging.identity(statement.person)
    if person is None or person.kind != "person":
        raise NotFoundError("unknown-identity", f"the directory knows no person {statement.person}")
    if statement.until <= statement.from_:
        raise MalformedError("bad-licence", "a licence ends after it begins")
    known = staging.licence(statement.licence)
    if known is None:
        if statement.prev != ZERO_HASH:
            raise VerificationError("bad-prev", "the first statement of a licence links to nothing: prev is zeros")
    else:
        _check_follows(known, statement)
    after = LicenceState(
        v=1,
        licence=statement.licence,
        licensor=statement.licensor,
        person=statement.person,
        role=statement.role,
        from_=statement.from_,
        until=statement.until,
        status=statement.status,
        changed=staging.time_ms,
        head=envelope_message_id(envelope).hex(),
    )
    staging.put("licence", statement.licence, after)


def _check_follows(known: LicenceState, statement: Licence) -> None:
    if (known.licensor, known.person, known.role) != (statement.licensor, statement.person, statement.role):
        raise ConflictError("exists", "a licence of that id belongs to another licensor, person or role")
    if known.status == "revoked":
        raise NotPermittedError("revoked", "the licence was revoked; a new one needs a new id")
    if statement.prev != known.head:
        raise VerificationError("bad-prev", "the statement does not follow the licence's last one: sign again on it")


def _count_inception(staging: Staging, member: str) -> None:
    day = staging.time_ms // _DAY_MS
    quota = staging.quota(member)
    count = quota.count if quota is not None and quota.day == day else 0
    limit = staging.integer("inceptions_per_member_per_day")
    if count >= limit:
        raise NotPermittedError(
            "over-quota", f"the member has enrolled {limit} identities today, its quota: try tomorrow"
        )
    staging.put("quota", member, QuotaState(v=1, day=day, count=count + 1))
