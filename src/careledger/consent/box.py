"""Boxes: what a consent event gives away, sealed to the one who gets it, and how a reader comes to every epoch's seed.

A box is bound by HPKE's `info` to its event's number and predecessor and to its recipient, so it can't be lent to
another event. A seed opens its own epoch and, through the `prev` of rekeys, every earlier one; never a later one.
Spec: docs/spec/consent.md section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from careledger.consent.event import (
    Compartments,
    ConsentEvent,
    File,
    Grant,
    Hex16,
    Rekey,
    box_hash,
    named_boxes,
)
from careledger.errors import MalformedError, NotFoundError, VerificationError
from careledger.seal import (
    SealingKey,
    SealingPublicKey,
    b64,
    canonical,
    info,
    kdf,
    open_content,
    seal_content,
    unb64,
)

__all__ = [
    "GrantBox",
    "OwnBox",
    "Seeds",
    "box_for",
    "box_info",
    "encrypt_previous_seed",
    "file_info",
    "find_box",
    "open_filed",
    "open_grant_box",
    "open_own_box",
    "seal_box",
    "seeds_from_rekeys",
]

Seeds: TypeAlias = dict[tuple[str, int], bytes]
"""Compartment seeds by (compartment id in hex, epoch)."""

_Seed = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Epoch = Annotated[int, Meta(ge=1, le=(1 << 32) - 1)]
_Name = Annotated[str, Meta(max_length=64)]
_Names = Annotated[dict[Hex16, _Name], Meta(max_length=16)]
_SeedMap = Annotated[dict[Hex16, tuple[_Epoch, _Seed]], Meta(max_length=16)]


class GrantBox(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a grantee learns: category names of its compartments, their seeds, or single records' K_consent."""

    names: _Names
    seeds: _SeedMap
    records: Annotated[dict[Hex16, _Seed], Meta(max_length=1000)] = {}


class OwnBox(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the subject keeps for its other devices: category names and new seeds."""

    names: _Names
    seeds: _SeedMap


_B = TypeVar("_B", GrantBox, OwnBox)

_encoder = msgspec.msgpack.Encoder(order="sorted")
_grant_box = msgspec.msgpack.Decoder(GrantBox)
_own_box = msgspec.msgpack.Decoder(OwnBox)


def box_info(network: str, use: str, *, subject: str, seq: int, prev: str, to: str) -> bytes:
    """HPKE `info` of a box: use `grant` for a grant's, `rekey` for every other."""
    return info(network, use, subject=subject, seq=seq, prev=prev, to=to)


def file_info(network: str, *, subject: str, record: str, compartment: str, epoch: int) -> bytes:
    """HPKE `info` of a filed record's secret."""
    return info(network, "file", subject=subject, record=record, compartment=compartment, epoch=epoch)


def seal_box(content: GrantBox | OwnBox, to: SealingPublicKey, *, bound_to: bytes) -> bytes:
    """Seal a box; `bound_to` is box_info's result."""
    return to.seal(_encoder.encode(content), info=bound_to)


def open_own_box(
    event: ConsentEvent, box: bytes, *, keyid: str, key: SealingKey, derive: Callable[[bytes], SealingKey] = SealingKey
) -> OwnBox:
    """Open the box that the subject sealed to itself; `keyid` is the token#sequence it was sealed to.

    `derive` gives the key of a seed, for who may have it already.
    Raises VerificationError `wrong-box` (not of this event), `not-openable`, `wrong-seed` (not the seed of the key
    that the event publishes); MalformedError `bad-box`.
    """
    if not isinstance(event, Compartments | Rekey) or event.own != box_hash(box):
        raise VerificationError("wrong-box", f"event {event.seq} does not name this box as the subject's own")
    content = _parse(_own_box, key.open(box, info=_info_of(event, keyid)))
    _check_seeds(event, content.seeds, derive)
    return content


def open_grant_box(event: ConsentEvent, box: bytes, *, keyid: str, key: SealingKey) -> GrantBox:
    """Open a box of a grant or rekey that was sealed to `keyid` (a person's key or an organisation's reading key).

    Raises like `open_own_box`. The seeds of a rekey are checked against the keys it publishes; those of a grant
    belong to keys of earlier events, so `seeds_from_rekeys` is given them together with those.
    """
    if not isinstance(event, Grant | Rekey) or box_hash(box) not in named_boxes(event):
        raise VerificationError("wrong-box", f"event {event.seq} does not name this box")
    if isinstance(event, Grant) and event.to != keyid:
        raise VerificationError("wrong-box", f"grant {event.grant} is sealed to {event.to}, not to {keyid}")
    content = _parse(_grant_box, key.open(box, info=_info_of(event, keyid)))
    if isinstance(event, Rekey):
        _check_seeds(event, content.seeds, SealingKey)
    return content


def box_for(event: Rekey, boxes: Iterable[bytes], keyid: str) -> bytes | None:
    """The box of a rekey for `keyid` among those at hand, or None."""
    hashes = {box.hash for box in event.boxes if box.to == keyid}
    return next((box for box in boxes if box_hash(box) in hashes), None)


def encrypt_previous_seed(
    old_seed: bytes, new_seed: bytes, *, network: str, subject: str, compartment: str, epoch: int
) -> str:
    """A rekey slot's `prev`: the seed of `epoch` − 1 under KDF(new seed, "prev"), in base64url."""
    aad = _prev_aad(network, subject, compartment, epoch)
    return b64(seal_content(kdf(new_seed, "prev"), old_seed, aad=aad))


def seeds_from_rekeys(known: Mapping[tuple[str, int], bytes], rekeys: Iterable[ConsentEvent]) -> Seeds:
    """All seeds that follow from `known`: each known seed and, step by step, those of the epochs before it.

    Events that aren't rekeys are passed over, so a whole chain can be given. Where a fork has two rekeys to one
    epoch, the one whose `prev` opens counts; a step that nothing opens ends the way back there.
    """
    steps: dict[tuple[str, int], list[tuple[Rekey, str]]] = {}
    for event in rekeys:
        if isinstance(event, Rekey):
            for slot in event.slots:
                steps.setdefault((slot.compartment, slot.epoch), []).append((event, slot.prev))
    seeds: Seeds = dict(known)
    for (compartment, newest), seed in known.items():
        epoch, current = newest, seed
        while epoch > 1 and (compartment, epoch) in steps and (compartment, epoch - 1) not in seeds:
            older = _previous_seed(current, compartment, epoch, steps[compartment, epoch])
            if older is None:
                break
            epoch, current = epoch - 1, older
            seeds[compartment, epoch] = older
    return seeds


def open_filed(event: File, seed: bytes) -> bytes:
    """K_consent of the record that `event` filed, with the seed of the compartment's epoch that it names.

    Raises VerificationError `not-openable`.
    """
    bound_to = file_info(
        event.network, subject=event.subject, record=event.record, compartment=event.compartment, epoch=event.epoch
    )
    return SealingKey(seed).open(unb64(event.secret), info=bound_to)


def find_box(boxes: Iterable[bytes], named: str) -> bytes:
    """The box with this hash. Raises NotFoundError `no-box`."""
    for box in boxes:
        if box_hash(box) == named:
            return box
    raise NotFoundError("no-box", f"the box {named[:16]} is not among those sent; ask another custodian")


def _previous_seed(seed: bytes, compartment: str, epoch: int, candidates: list[tuple[Rekey, str]]) -> bytes | None:
    key = kdf(seed, "prev")
    for event, prev in candidates:
        aad = _prev_aad(event.network, event.subject, compartment, epoch)
        try:
            return open_content(key, unb64(prev, size=48), aad=aad)
        except VerificationError:
            continue
    return None


def _prev_aad(network: str, subject: str, compartment: str, epoch: int) -> bytes:
    return canonical.encode({"compartment": compartment, "epoch": epoch, "network": network, "subject": subject})


def _info_of(event: ConsentEvent, to: str) -> bytes:
    use = "grant" if isinstance(event, Grant) else "rekey"
    return box_info(event.network, use, subject=event.subject, seq=event.seq, prev=event.prev, to=to)


def _check_seeds(
    event: Compartments | Rekey, seeds: Mapping[str, tuple[int, bytes]], derive: Callable[[bytes], SealingKey]
) -> None:
    keys = {slot.compartment: (slot.epoch, slot.key) for slot in event.slots}
    for compartment, (epoch, seed) in seeds.items():
        if keys.get(compartment) != (epoch, b64(derive(seed).public)):
            raise VerificationError(
                "wrong-seed", f"a seed for compartment {compartment} is not that of the key event {event.seq} publishes"
            )


def _parse(decoder: msgspec.msgpack.Decoder[_B], data: bytes) -> _B:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise MalformedError("bad-box", f"a box of {len(data)} bytes does not hold what its event says") from None
