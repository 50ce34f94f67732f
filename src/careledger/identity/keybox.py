"""The key box: a person's device secrets, encrypted so that one way in is enough and no way in is the custodians'.

The secrets are encrypted under a random account key, which is wrapped once per way: a passphrase, the recovery kit, or
two halves of which a manager has one and the custodians together the other. Custodians keep the box, so that a new
device needs only one way in. Every ciphertext is bound to the token and to its way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Final, NamedTuple

import msgspec

from careledger.errors import Error, MalformedError, NotFoundError, NotPermittedError
from careledger.identity.fields import Sequence, TokenText, Version
from careledger.identity.token import Token
from careledger.seal import (
    Key,
    Payload,
    SealingKey,
    SigningKey,
    b64,
    decode,
    encode,
    kdf,
    open_random,
    passphrase_key,
    seal_random,
    unb64,
)

__all__ = [
    "ACCOUNT_KEY_BYTES",
    "DeviceSecrets",
    "KeyBox",
    "KitWay",
    "ManagedWay",
    "PassphraseWay",
    "Way",
    "add_kit_way",
    "add_passphrase_way",
    "create_key_box",
    "device_secrets",
    "encode_key_box",
    "halves_key",
    "open_key_box",
    "parse_key_box",
    "remove_way",
    "renewed_secrets",
    "unlock_with_passphrase",
    "unlock_with_root",
    "wrap_with_halves",
]

ACCOUNT_KEY_BYTES: Final = 32
KEY_BOX_BYTES_MAX: Final = 65536
WAYS_MAX: Final = 16
OLDER_MAX: Final = 256
"""Sealing seeds of earlier key lists that a box carries; a person rotates a few times in a life."""

Wrapped = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Rand = Callable[[int], bytes]


class DeviceSecrets(NamedTuple):
    """The two 32-byte seeds in force since operation `sequence`, and the older sealing seeds by their sequence."""

    sequence: int
    sign: bytes
    seal: bytes
    older: tuple[tuple[int, bytes], ...] = ()

    def signing_key(self) -> SigningKey:
        return SigningKey(self.sign)

    def sealing_key(self) -> SealingKey:
        return SealingKey(self.seal)

    def keys(self) -> list[Key]:
        """The public key list as operations carry it."""
        return [Key.sign(self.signing_key().public), Key.seal(self.sealing_key().public)]

    def __repr__(self) -> str:
        return f"DeviceSecrets(sequence={self.sequence})"


class PassphraseWay(Payload, frozen=True, kw_only=True, tag_field="way", tag="passphrase"):
    """Argon2id over the passphrase; its parameters travel along (RFC 9106)."""

    salt: str
    memory_kib: int
    iterations: int
    lanes: int
    wrapped: Wrapped


class KitWay(Payload, frozen=True, kw_only=True, tag_field="way", tag="kit"):
    """KDF(root, key-box)."""

    wrapped: Wrapped


class ManagedWay(Payload, frozen=True, kw_only=True, tag_field="way", tag="managed"):
    """K_m ⊕ K_c: `manager` holds K_m, the custodians hold t-of-n shares of K_c."""

    manager: TokenText
    wrapped: Wrapped


Way = PassphraseWay | KitWay | ManagedWay


class KeyBox(Payload, frozen=True, kw_only=True):
    """`box` = nonce ‖ AES-256-GCM(account key, canonical secrets); `ways` wrap the account key."""

    v: Version
    token: TokenText
    ways: Annotated[list[Way], msgspec.Meta(min_length=1, max_length=WAYS_MAX)]
    box: Annotated[str, msgspec.Meta(max_length=KEY_BOX_BYTES_MAX)]

    TYPE: ClassVar[str] = "application/vnd.careledger.key-box+json"


class _Older(Payload, frozen=True, kw_only=True):
    sequence: Sequence
    seal: str


class _Secrets(Payload, frozen=True, kw_only=True):
    v: Version
    sequence: Sequence
    sign: str
    seal: str
    older: Annotated[list[_Older], msgspec.Meta(max_length=OLDER_MAX)]


def device_secrets(*, sequence: int, rand: Rand) -> DeviceSecrets:
    """Fresh independent seeds for signing and sealing."""
    return DeviceSecrets(sequence, rand(32), rand(32))


def renewed_secrets(before: DeviceSecrets, *, sequence: int, rand: Rand) -> DeviceSecrets:
    """Fresh seeds for a rotation; the old sealing seed stays among `older`, to open what was sealed to it."""
    return DeviceSecrets(sequence, rand(32), rand(32), (*before.older, (before.sequence, before.seal)))


def create_key_box(secrets: DeviceSecrets, *, token: Token, account_key: bytes, ways: list[Way], rand: Rand) -> KeyBox:
    """Encrypt the secrets under `account_key` (32 random bytes), which `ways` already wrap."""
    older = [_Older(sequence=sequence, seal=b64(seal)) for sequence, seal in secrets.older]
    plain = _Secrets(v=1, sequence=secrets.sequence, sign=b64(secrets.sign), seal=b64(secrets.seal), older=older)
    box = seal_random(account_key, encode(plain), aad=_aad(token, "box"), rand=rand)
    return KeyBox(v=1, token=token, ways=ways, box=b64(box))


def passphrase_way(passphrase: str, *, token: Token, account_key: bytes, rand: Rand, memory_kib: int = 65536) -> Way:
    """Wrap the account key for a passphrase (Argon2id, 64 MiB, 3 passes)."""
    salt, iterations, lanes = rand(16), 3, 1
    key = passphrase_key(passphrase, salt=salt, memory_kib=memory_kib, iterations=iterations, lanes=lanes)
    wrapped = seal_random(key, account_key, aad=_aad(token, "passphrase"), rand=rand)
    return PassphraseWay(
        salt=b64(salt), memory_kib=memory_kib, iterations=iterations, lanes=lanes, wrapped=b64(wrapped)
    )


def kit_way(root: bytes, *, token: Token, account_key: bytes, rand: Rand) -> Way:
    """Wrap the account key for the recovery kit."""
    wrapped = seal_random(kdf(root, "key-box"), account_key, aad=_aad(token, "kit"), rand=rand)
    return KitWay(wrapped=b64(wrapped))


def add_passphrase_way(box: KeyBox, passphrase: str, *, account_key: bytes, rand: Rand) -> KeyBox:
    """The box with one more passphrase; `account_key` as an unlock returned it."""
    return _with_way(box, passphrase_way(passphrase, token=box.token, account_key=account_key, rand=rand))


def add_kit_way(box: KeyBox, root: bytes, *, account_key: bytes, rand: Rand) -> KeyBox:
    """The box with one more recovery kit."""
    return _with_way(box, kit_way(root, token=box.token, account_key=account_key, rand=rand))


def remove_way(box: KeyBox, index: int) -> KeyBox:
    """The box without one way in. Who kept the account key still opens *this* box: rotate to shut them out."""
    ways = [way for place, way in enumerate(box.ways) if place != index]
    if len(ways) != len(box.ways) - 1 or not ways:
        raise NotPermittedError("last-way", "a key box keeps at least one way in: add another before removing this one")
    return msgspec.structs.replace(box, ways=ways)


def unlock_with_passphrase(box: KeyBox, passphrase: str) -> bytes:
    """The account key, by any of the box's passphrases. Raises NotPermittedError `wrong-passphrase`, `no-such-way`."""
    tried = False
    for way in box.ways:
        if isinstance(way, PassphraseWay):
            tried = True
            key = passphrase_key(
                passphrase,
                salt=unb64(way.salt, size=16),
                memory_kib=way.memory_kib,
                iterations=way.iterations,
                lanes=way.lanes,
            )
            account_key = _unwrap(key, way.wrapped, box.token, "passphrase")
            if account_key is not None:
                return account_key
    if not tried:
        raise NotFoundError("no-such-way", "this key box has no passphrase: use the recovery kit")
    raise NotPermittedError("wrong-passphrase", "the passphrase does not open this key box: try again or use the kit")


def unlock_with_root(box: KeyBox, root: bytes) -> bytes:
    """The account key, by the recovery kit's root secret. Raises NotPermittedError `wrong-kit`."""
    for way in box.ways:
        if isinstance(way, KitWay):
            account_key = _unwrap(kdf(root, "key-box"), way.wrapped, box.token, "kit")
            if account_key is not None:
                return account_key
    raise NotPermittedError("wrong-kit", "this recovery kit does not open this key box: a newer kit may exist")


def halves_key(one: bytes, other: bytes) -> bytes:
    """K_m ⊕ K_c: neither half alone says anything about the key."""
    if len(one) != ACCOUNT_KEY_BYTES or len(other) != ACCOUNT_KEY_BYTES:
        raise MalformedError("bad-half", f"each half of the wrapping key has {ACCOUNT_KEY_BYTES} bytes")
    return bytes(left ^ right for left, right in zip(one, other, strict=True))


def wrap_with_halves(
    account_key: bytes, *, token: Token, manager: Token, halves: tuple[bytes, bytes], rand: Rand
) -> Way:
    """Wrap the account key under K_m ⊕ K_c."""
    wrapped = seal_random(halves_key(*halves), account_key, aad=_aad(token, "managed", manager), rand=rand)
    return ManagedWay(manager=manager, wrapped=b64(wrapped))


def unwrap_managed(box: KeyBox, *, manager: Token, halves: tuple[bytes, bytes]) -> bytes:
    """The account key, by K_m and K_c. Raises NotFoundError `no-such-way`; NotPermittedError `wrong-halves`."""
    ways = [way for way in box.ways if isinstance(way, ManagedWay) and way.manager == manager]
    if not ways:
        raise NotFoundError("no-such-way", "this key box is not managed by this provider: it was claimed, or never was")
    for way in ways:
        account_key = _unwrap(halves_key(*halves), way.wrapped, box.token, "managed", manager)
        if account_key is not None:
            return account_key
    raise NotPermittedError("wrong-halves", "the manager's and the custodians' halves do not open this key box")


def open_key_box(box: KeyBox, *, account_key: bytes) -> DeviceSecrets:
    """The device secrets. Raises VerificationError `not-openable`, MalformedError when what was sealed has no form."""
    plain = open_random(account_key, unb64(box.box), aad=_aad(box.token, "box"))
    found = decode(plain, _Secrets)
    older = tuple((item.sequence, unb64(item.seal, size=32)) for item in found.older)
    return DeviceSecrets(found.sequence, unb64(found.sign, size=32), unb64(found.seal, size=32), older)


def encode_key_box(box: KeyBox) -> bytes:
    """The canonical bytes that custodians keep."""
    return encode(box)


def parse_key_box(data: bytes) -> KeyBox:
    """The key box of exactly these bytes. Raises MalformedError as seal.decode."""
    return decode(data, KeyBox, size_max=KEY_BOX_BYTES_MAX)


def _with_way(box: KeyBox, way: Way) -> KeyBox:
    if len(box.ways) >= WAYS_MAX:
        raise NotPermittedError("too-many-ways", f"a key box has at most {WAYS_MAX} ways in: remove one first")
    return msgspec.structs.replace(box, ways=[*box.ways, way])


def _unwrap(key: bytes, wrapped: str, token: Token, way: str, manager: Token | None = None) -> bytes | None:
    try:
        account_key = open_random(key, unb64(wrapped), aad=_aad(token, way, manager))
    except Error:
        return None
    return account_key if len(account_key) == ACCOUNT_KEY_BYTES else None


def _aad(token: Token, way: str, manager: Token | None = None) -> bytes:
    fields: dict[str, str | int] = {"v": 1, "use": "key-box", "token": token, "way": way}
    if manager is not None:
        fields["manager"] = manager
    return encode(fields)
