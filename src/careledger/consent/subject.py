"""What the subject's software writes: ready-made events, signed and with their boxes.

Pure but for HPKE's ephemeral: seeds and ids come from `rand`, the time from `now_ms`. Each function returns messages
that `fold` accepts after `state`, or raises; it never returns something a custodian would refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from careledger.consent.box import GrantBox, OwnBox, Seeds, box_info, encrypt_previous_seed, file_info, seal_box
from careledger.consent.event import (
    CONSENT_TYPE,
    SLOTS,
    Box,
    Compartments,
    ConsentEvent,
    EventMessage,
    File,
    Grant,
    Joint,
    Merge,
    Range,
    Rekey,
    RekeyedSlot,
    Revoke,
    Right,
    Role,
    Slot,
    box_hash,
)
from careledger.consent.state import EMPTY, ConsentState, fold
from careledger.errors import NotFoundError, UnavailableError
from careledger.seal import SealingKey, SealingPublicKey, SigningKey, b64, canonical, dsse, unb64

__all__ = [
    "FirstCompartments",
    "Rekeyed",
    "Writer",
    "first_compartments",
    "make_file",
    "make_grant",
    "make_merge",
    "make_rekey",
    "make_revocation",
    "make_revocation_with_rekey",
    "remaining_grantees",
]

Rand = Callable[[int], bytes]
Recipient = tuple[str, SealingPublicKey]
"""Whom a box is sealed to: keyid (token#sequence) and public key."""

SPARE = "spare"
INBOX = "inbox"


class Writer(msgspec.Struct, frozen=True, kw_only=True):
    """Who writes for whom: the signer (keyid and key, with its role) and the key that the subject's own boxes go to."""

    network: str
    subject: str
    signer: tuple[str, SigningKey]
    owner: Recipient
    role: Role = "subject"


class FirstCompartments(msgspec.Struct, frozen=True, kw_only=True):
    """The first event, with what the subject must remember: names and seeds of its compartments."""

    message: EventMessage
    names: dict[str, str]
    """Compartment id to category name."""
    seeds: Seeds

    def id_of(self, name: str) -> str:
        """The compartment id of a category. Raises NotFoundError `unknown-category`."""
        for compartment, known in self.names.items():
            if known == name:
                return compartment
        raise NotFoundError("unknown-category", f"there is no category {name!r}")


class Rekeyed(msgspec.Struct, frozen=True, kw_only=True):
    """A rekey message with the new seeds."""

    message: EventMessage
    seeds: Seeds


def first_compartments(
    writer: Writer, *, categories: Sequence[str], now_ms: int, rand: Rand, state: ConsentState = EMPTY
) -> FirstCompartments:
    """The subject's 16 compartments: `categories` (at most 15), `inbox`, and spares for the rest.

    Ids are random and the slots ordered by id, so neither tells which category is which.
    """
    spares = SLOTS - 1 - len(categories)
    if spares < 0 or len(set(categories)) != len(categories) or INBOX in categories:
        raise AssertionError(f"at most {SLOTS - 1} different categories besides the inbox, got {list(categories)}")
    wanted = [*categories, INBOX, *(SPARE if spares == 1 else f"{SPARE}-{i + 1}" for i in range(spares))]
    names = {rand(16).hex(): name for name in wanted}
    seeds: Seeds = {(compartment, 1): rand(32) for compartment in names}
    slots = [
        Slot(compartment=compartment, epoch=1, key=b64(SealingKey(seeds[compartment, 1]).public))
        for compartment in sorted(names)
    ]
    own = _seal_own(writer, state, OwnBox(names=names, seeds={c: (1, seeds[c, 1]) for c in names}))
    inbox = next(compartment for compartment, name in names.items() if name == INBOX)
    event = Compartments(**_common(writer, state, now_ms), slots=slots, inbox=inbox, own=box_hash(own))
    return FirstCompartments(message=_sign(writer, state, event, [own]), names=names, seeds=seeds)


def make_grant(
    writer: Writer,
    state: ConsentState,
    *,
    grantee: str,
    to: Recipient,
    rights: Sequence[Right],
    purposes: Sequence[str],
    expires: int,
    compartments: Sequence[str] = (),
    records: Mapping[str, bytes] | None = None,
    names: Mapping[str, str] | None = None,
    seeds: Mapping[tuple[str, int], bytes] | None = None,
    range: Range | UnsetType = UNSET,
    joint: Joint | UnsetType = UNSET,
    policy: str,
    text_hash: str,
    text_language: str,
    now_ms: int,
    rand: Rand,
) -> EventMessage:
    """A grant of `compartments` (with the seed of each one's current epoch when `read` is among the rights), or of
    single `records` (id to K_consent).

    `to` is the grantee's keyid and key: for an organisation its reading key.
    Raises NotFoundError `no-seed` when a current seed isn't among `seeds`.
    """
    readable = compartments if "read" in rights else ()
    content = GrantBox(
        names={compartment: (names or {}).get(compartment, "") for compartment in compartments},
        seeds={c: _current_seed(state, seeds or {}, c) for c in readable},
        records=dict(records or {}),
    )
    bound_to = box_info(writer.network, "grant", subject=writer.subject, seq=state.seq + 1, prev=state.head, to=to[0])
    box = seal_box(content, to[1], bound_to=bound_to)
    event = Grant(
        **_common(writer, state, now_ms),
        grant=rand(16).hex(),
        grantee=grantee,
        to=to[0],
        rights=sorted(rights),
        compartments=sorted(compartments) or UNSET,
        records=sorted(records) if records else UNSET,
        range=range,
        purposes=sorted(purposes),
        expires=expires,
        joint=joint,
        box=box_hash(box),
        policy=policy,
        text_hash=text_hash,
        text_language=text_language,
    )
    return _sign(writer, state, event, [box])


def make_revocation(writer: Writer, state: ConsentState, grant: str, *, now_ms: int) -> EventMessage:
    """The revocation alone: enough for honest custodians; the rekey after it is for the dishonest."""
    return _sign(writer, state, Revoke(**_common(writer, state, now_ms), grant=grant), [])


def remaining_grantees(state: ConsentState, compartments: Sequence[str], *, now_ms: int) -> dict[str, list[str]]:
    """Who may still read which of the compartments: grantee token to compartment ids."""
    remaining: dict[str, set[str]] = {}
    for given in state.grants.values():
        terms = given.terms
        if given.revoked or terms.expires <= now_ms or "read" not in terms.rights:
            continue
        shared = set(terms.compartments or ()) & set(compartments)
        if shared:
            remaining.setdefault(terms.grantee, set()).update(shared)
    return {grantee: sorted(remaining[grantee]) for grantee in sorted(remaining)}


def make_rekey(
    writer: Writer,
    state: ConsentState,
    compartments: Sequence[str],
    *,
    seeds: Mapping[tuple[str, int], bytes],
    recipients: Mapping[str, Recipient | None],
    now_ms: int,
    rand: Rand,
    fresh: Mapping[str, SealingKey] | None = None,
) -> Rekeyed:
    """Move `compartments` up an epoch and seal the new seeds to whom `remaining_grantees` names.

    `recipients` maps each of these to keyid and key; None leaves one out on purpose (a deactivated identity).
    `fresh` has new keys by compartment that were made ahead; they must be used once. Others come from `rand`.
    Raises UnavailableError `unknown-recipient` for a grantee that isn't in it; NotFoundError `no-seed`.
    """
    given = fresh or {}
    renewed: dict[str, tuple[int, bytes]] = {}
    slots: list[RekeyedSlot] = []
    for compartment in sorted(compartments):
        epoch, old = _current_seed(state, seeds, compartment)
        new = given.get(compartment) or SealingKey(rand(32))
        renewed[compartment] = (epoch + 1, new.seed)
        prev = encrypt_previous_seed(
            old, new.seed, network=writer.network, subject=writer.subject, compartment=compartment, epoch=epoch + 1
        )
        slots.append(RekeyedSlot(compartment=compartment, epoch=epoch + 1, key=b64(new.public), prev=prev))
    own = _seal_own(writer, state, OwnBox(names={}, seeds=renewed))
    named: list[Box] = []
    boxes: list[bytes] = [own]
    for grantee, readable in remaining_grantees(state, compartments, now_ms=now_ms).items():
        if grantee not in recipients:
            raise UnavailableError("unknown-recipient", f"the key of {grantee}, who may still read, was not given")
        to = recipients[grantee]
        if to is None:
            continue
        content = GrantBox(names={}, seeds={compartment: renewed[compartment] for compartment in readable})
        box = _seal_for(writer, state, content, to)
        named.append(Box(to=to[0], hash=box_hash(box)))
        boxes.append(box)
    event = Rekey(**_common(writer, state, now_ms), slots=slots, boxes=named, own=box_hash(own))
    new_seeds: Seeds = {(compartment, epoch): seed for compartment, (epoch, seed) in renewed.items()}
    return Rekeyed(message=_sign(writer, state, event, boxes), seeds=new_seeds)


def make_revocation_with_rekey(
    writer: Writer,
    state: ConsentState,
    grant: str,
    *,
    seeds: Mapping[tuple[str, int], bytes],
    recipients: Mapping[str, Recipient | None],
    now_ms: int,
    rand: Rand,
    fresh: Mapping[str, SealingKey] | None = None,
) -> tuple[list[EventMessage], Seeds]:
    """Revoke `grant` and move the compartments it let somebody read up an epoch: [revoke, rekey], and the new seeds.

    A grant by record ids or without `read` gave no seeds, so there is nothing to rekey: [revoke] alone.
    Raises VerificationError `unknown-grant`, `already-revoked`, and as `make_rekey`.
    """
    event = Revoke(**_common(writer, state, now_ms), grant=grant)
    revocation, after = _signed(writer, state, event, [])
    terms = state.grants[grant].terms
    compartments = (terms.compartments or []) if "read" in terms.rights else []
    if not compartments:
        return [revocation], {}
    rekeyed = make_rekey(
        writer, after, compartments, seeds=seeds, recipients=recipients, now_ms=now_ms, rand=rand, fresh=fresh
    )
    return [revocation, rekeyed.message], rekeyed.seeds


def make_file(
    writer: Writer, state: ConsentState, *, record: str, compartment: str, consent_key: bytes, now_ms: int
) -> EventMessage:
    """Move a record into a compartment: its K_consent (32 bytes) sealed to that compartment's current key.

    Raises NotFoundError `unknown-compartment`.
    """
    if compartment not in state.compartments:
        raise NotFoundError("unknown-compartment", f"the subject has no compartment {compartment}")
    epoch, key = state.compartments[compartment]
    bound_to = file_info(writer.network, subject=writer.subject, record=record, compartment=compartment, epoch=epoch)
    secret = SealingPublicKey(unb64(key)).seal(consent_key, info=bound_to)
    event = File(
        **_common(writer, state, now_ms), record=record, compartment=compartment, epoch=epoch, secret=b64(secret)
    )
    return _sign(writer, state, event, [])


def make_merge(writer: Writer, state: ConsentState, keep: str, *, now_ms: int) -> EventMessage:
    """Repair a fork of two branches, keeping the grants of the one whose head is `keep`.

    A `make_rekey` of all compartments should follow, since the branches may have given different keys.
    Raises AssertionError when the state has not two heads or `keep` is none of them.
    """
    if len(state.heads) != 2 or keep not in state.heads:
        raise AssertionError("a merge needs a fork of two heads, and keeps one of them")
    common = {**_common(writer, state, now_ms), "prev": keep}
    event = Merge(**common, prevs=sorted(state.heads), keep=keep)
    return _envelope(writer, canonical.encode(event), [])


def _common(writer: Writer, state: ConsentState, now_ms: int) -> dict[str, Any]:
    return {
        "network": writer.network,
        "subject": writer.subject,
        "seq": state.seq + 1,
        "prev": state.head,
        "time": now_ms,
        "role": writer.role,
    }


def _current_seed(state: ConsentState, seeds: Mapping[tuple[str, int], bytes], compartment: str) -> tuple[int, bytes]:
    epoch = state.compartments[compartment][0] if compartment in state.compartments else 0
    seed = seeds.get((compartment, epoch))
    if seed is None:
        raise NotFoundError("no-seed", f"the seed of compartment {compartment}, epoch {epoch}, is not at hand")
    return epoch, seed


def _seal_own(writer: Writer, state: ConsentState, content: OwnBox) -> bytes:
    return _seal_for(writer, state, content, writer.owner)


def _seal_for(writer: Writer, state: ConsentState, content: OwnBox | GrantBox, to: Recipient) -> bytes:
    bound_to = box_info(writer.network, "rekey", subject=writer.subject, seq=state.seq + 1, prev=state.head, to=to[0])
    return seal_box(content, to[1], bound_to=bound_to)


def _sign(writer: Writer, state: ConsentState, event: ConsentEvent, boxes: list[bytes]) -> EventMessage:
    return _signed(writer, state, event, boxes)[0]


def _signed(
    writer: Writer, state: ConsentState, event: ConsentEvent, boxes: list[bytes]
) -> tuple[EventMessage, ConsentState]:
    """Sign an event after making sure that it may follow `state`, so that no refusal comes from a custodian; returns
    the state after it too."""
    payload = canonical.encode(event)
    after = fold(state, event, dsse.message_id(CONSENT_TYPE, payload).hex())
    return _envelope(writer, payload, boxes), after


def _envelope(writer: Writer, payload: bytes, boxes: list[bytes]) -> EventMessage:
    envelope = dsse.sign(CONSENT_TYPE, payload, [writer.signer])
    return EventMessage(envelope=canonical.encode(envelope), boxes=boxes)
