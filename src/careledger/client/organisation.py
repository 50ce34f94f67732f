"""An organisation's own software: its staff's passes, its licences, its part in founding a network.

The organisation's folder holds the reading seeds, which no node has: grants to the organisation are sealed to the
reading key, and each affiliated person gets its seeds sealed in a *staff pass*, together with today's affiliation.
When somebody leaves, `renew_reading_key` makes a new one; what was granted before stays readable with the older seeds.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from careledger.client.keys import HeldKeys, State
from careledger.client.network import Network
from careledger.errors import MalformedError, NotFoundError, NotPermittedError
from careledger.identity import (
    AFFILIATION_MS_MAX,
    Document,
    build_update,
    check_affiliation,
    sign_affiliation,
    sign_licence,
)
from careledger.seal import (
    Envelope,
    Key,
    SealingKey,
    VerifyKey,
    decode,
    encode,
    envelope_message_id,
    info,
    parse_keyid,
)

__all__ = ["Organisation", "Staff", "StaffPass", "decode_staff_pass", "encode_staff_pass", "open_staff_pass"]

_ENVELOPE_MAX: Final = 1 << 13
_PASS_MAX: Final = 64 << 10
_READING: Final = "reading"
_SEED_SIZE: Final = 32

_Seed = Annotated[bytes, Meta(min_length=_SEED_SIZE, max_length=_SEED_SIZE)]


class StaffPass(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an organisation hands to a person who works for it (MessagePack map).

    `affiliation` is a canonical envelope, good for at most 24 hours; `sealed` are the reading seeds, MessagePack
    [[organisation's sequence since which it holds, seed], …], sealed to the person's key `to` with `info`
    {use key-box, subject: organisation, to, way: reading}.
    """

    affiliation: bytes
    to: str
    sealed: bytes


class Staff(msgspec.Struct, frozen=True, kw_only=True):
    """An opened pass: for whom the person acts, until when, and the organisation's reading keys by sequence."""

    organisation: str
    affiliation: bytes
    affiliation_id: str
    until: int
    reading: dict[int, SealingKey]

    def key_of(self, to: str) -> SealingKey:
        """The reading key of a keyid of the organisation; raises NotFoundError `not-addressed`."""
        token, sequence = parse_keyid(to)
        since = [number for number in self.reading if number <= sequence]
        if token != self.organisation or not since:
            raise NotFoundError("not-addressed", f"what is sealed to {to[:80]} can't be opened with this staff pass")
        return self.reading[max(since)]


_pass_decoder: Final = msgspec.msgpack.Decoder(StaffPass)
_seeds_decoder: Final = msgspec.msgpack.Decoder(list[tuple[int, _Seed]])


def encode_staff_pass(staff_pass: StaffPass) -> bytes:
    """The MessagePack form of a pass."""
    return msgspec.msgpack.encode(staff_pass)


def decode_staff_pass(data: bytes) -> StaffPass:
    """Parse a pass, nothing proven yet; raises MalformedError `bad-staff-pass`."""
    if len(data) <= _PASS_MAX:
        try:
            return _pass_decoder.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass
    raise MalformedError("bad-staff-pass", "this is not a staff pass; ask the organisation for today's")


async def open_staff_pass(staff_pass: StaffPass, keys: HeldKeys, *, network: Network) -> Staff:
    """Prove a pass and open its reading seeds.

    Raises NotPermittedError `not-affiliated`, `expired`; VerificationError (signature, `wrong-network`,
    `not-openable`, `wrong-keys`: the seeds are not those of the organisation's document).
    """
    envelope = decode(staff_pass.affiliation, Envelope, size_max=_ENVELOPE_MAX)
    names = [signature.keyid for signature in envelope.signatures]
    verify_keys: dict[str, VerifyKey] = {name: await network.verify_key(name) for name in names}
    claimed = parse_keyid(names[0])[0] if names else ""
    affiliation = check_affiliation(
        envelope,
        keys=verify_keys,
        network=network.id,
        person=keys.token,
        organisation=claimed,
        now_ms=network.now_ms(),
    )
    bound = info(network.id, "key-box", subject=affiliation.organisation, to=staff_pass.to, way=_READING)
    opened = keys.sealing(staff_pass.to).open(staff_pass.sealed, info=bound)
    try:
        seeds = dict(_seeds_decoder.decode(opened))
    except (msgspec.DecodeError, RecursionError):
        raise MalformedError("bad-staff-pass", "the pass opens, but holds no reading keys; ask for a new one") from None
    return Staff(
        organisation=affiliation.organisation,
        affiliation=staff_pass.affiliation,
        affiliation_id=envelope_message_id(envelope).hex(),
        until=affiliation.until,
        reading={since: SealingKey(seed) for since, seed in seeds.items()},
    )


class Organisation:
    """The organisation's key holder at work. Signs with the organisation's current key."""

    def __init__(self, network: Network, keys: HeldKeys, *, state: State) -> None:
        self.network = network
        self.keys = keys
        self.state = state

    def remember_reading_seed(self, seed: bytes, *, sequence: int = 0) -> None:
        """Keep a reading seed (of a new organisation, or after a renewal) in the folder."""
        seeds = self._reading()
        seeds[sequence] = seed
        self.state.save("reading", sorted(seeds.items()))

    def _reading(self) -> dict[int, bytes]:
        return dict(self.state.load("reading", list[tuple[int, _Seed]]) or [])

    async def staff_pass(self, person: str, *, role: str, hours: int = 24, from_ms: int | None = None) -> StaffPass:
        """Today's pass for a person. `hours` at most 24. Raises NotPermittedError `too-long`; as Network.identity."""
        if not 0 < hours * 3600 * 1000 <= AFFILIATION_MS_MAX:
            raise NotPermittedError("too-long", "an affiliation holds at most 24 hours; renew it every day")
        begin = self.network.now_ms() if from_ms is None else from_ms
        envelope = sign_affiliation(
            network=self.network.id,
            organisation=self.keys.token,
            person=person,
            role=role,
            from_ms=begin,
            until_ms=begin + hours * 3600 * 1000,
            signer=self.keys.signer,
        )
        to, key = await self.network.sealing_key(person)
        bound = info(self.network.id, "key-box", subject=self.keys.token, to=to, way=_READING)
        seeds = msgspec.msgpack.encode(sorted(self._reading().items()))
        return StaffPass(affiliation=encode(envelope), to=to, sealed=key.seal(seeds, info=bound))

    async def license(
        self,
        person: str,
        *,
        role: str,
        until_ms: int,
        licence: str | None = None,
        status: Literal["active", "suspended", "revoked"] = "active",
        prev: str | None = None,
    ) -> str:
        """Attest a licence (the organisation needs the role `licensor`); returns its id once the directory has it.

        `licence` and `prev` (the message id of its last statement) change an existing one. Raises what the directory
        refuses it with.
        """
        licence = self.network.rand(16).hex() if licence is None else licence
        more = {} if prev is None else {"prev": prev}
        envelope = sign_licence(
            network=self.network.id,
            licence=licence,
            licensor=self.keys.token,
            person=person,
            role=role,
            from_ms=self.network.now_ms(),
            until_ms=until_ms,
            status=status,
            signer=self.keys.signer,
            **more,
        )
        await self.network.transact([envelope])
        return licence

    async def renew_reading_key(self) -> int:
        """Put a fresh reading key into the organisation's document, after somebody left; returns its sequence.

        The seed is in the folder before the directory knows of it: a crash in between loses nothing. Publish the
        document afterwards (`enrolment.publish_organisation`).
        """
        seed = self.network.rand(_SEED_SIZE)
        subject = await self.network.subject(self.keys.token, fresh=True)
        document: Document = msgspec.structs.replace(subject.document, reading_key=Key.seal(SealingKey(seed).public))
        sequence = subject.identity.state.sequence + 1
        self.remember_reading_seed(seed, sequence=sequence)
        envelope, data, salt = build_update(
            network=self.network.id,
            token=self.keys.token,
            state=subject.identity.state,
            document=document,
            device=self.keys.signing,
            rand=self.network.rand,
        )
        await self.network.transact([envelope])
        self.keys.sequence = sequence
        self.state.save("sequence", sequence)
        self.state.save("document", (data, salt))
        return sequence
