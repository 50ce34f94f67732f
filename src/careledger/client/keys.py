"""A folder with one identity's secrets, and what its software must remember between two runs.

The device's seeds lie in a key box (careledger.identity) that a passphrase opens; the root secret of the recovery kit
is never written. Everything remembered (documents, consent heads, what was imported, receipts) is encrypted under keys
derived from the account key, because a list of what somebody imported is itself about a person. Every file is written
whole, synced and renamed, mode 0600: a crash leaves the old or the new one.

    identity.json    {v, network, token, kind}: nothing secret, nothing about health
    box.json         the key box
    state/<name>     nonce ‖ AES-256-GCM(KDF(account key, key-box, name), MessagePack)
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec

from careledger.errors import ConflictError, Error, MalformedError, NotFoundError, UnavailableError, VerificationError
from careledger.identity import (
    DeviceSecrets,
    KeyBox,
    add_passphrase_way,
    check_token,
    create_key_box,
    encode_key_box,
    kit_way,
    open_key_box,
    parse_key_box,
    unlock_with_passphrase,
    unlock_with_root,
)
from careledger.private_files import write_private
from careledger.seal import (
    Payload,
    SealingKey,
    SealingPublicKey,
    SigningKey,
    decode,
    encode,
    kdf,
    keyid,
    open_random,
    parse_keyid,
    seal_random,
)

__all__ = ["HeldKeys", "KeyFolder", "MemoryState", "State"]

Kind = Literal["person", "organisation", "software"]
T = TypeVar("T")

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,120}")
_RENEWED: Final = "state.renewed"
_FILE_BYTES_MAX: Final = 64 << 20
"""The largest state is the index of imported resources: 64 bytes each, so this is a million."""


class HeldKeys:
    """An identity's private keys in use: signs under its current keyid, opens what was sealed to any keyid it had."""

    __slots__ = ("_recipient", "_sealing", "device", "kind", "sequence", "signing", "token")

    def __init__(self, *, token: str, kind: Kind, device: DeviceSecrets, sequence: int | None = None) -> None:
        """`sequence`: the newest operation of the identity under these keys (updates raise it), else the device's."""
        self.token = token
        self.kind = kind
        self.device = device
        self.sequence = device.sequence if sequence is None else sequence
        self.signing: SigningKey = device.signing_key()
        self._sealing: dict[bytes, SealingKey] = {}
        self._recipient: SealingPublicKey | None = None

    @property
    def keyid(self) -> str:
        return keyid(self.token, self.sequence)

    @property
    def signer(self) -> tuple[str, SigningKey]:
        """(keyid, signing key), as seal.sign takes it."""
        return self.keyid, self.signing

    @property
    def recipient(self) -> tuple[str, SealingPublicKey]:
        """(keyid, public key), for what is sealed to oneself."""
        public = self.sealing().public
        if self._recipient is None or self._recipient.raw != public:
            self._recipient = SealingPublicKey(public)
        return self.keyid, self._recipient

    def sealing(self, to: str | None = None) -> SealingKey:
        """The private key of keyid `to` (None: the current one): the one in force after that operation.

        Raises NotFoundError `not-addressed`: `to` is somebody else's, or older than what this folder holds.
        """
        if to is None:
            return self._parsed(self.device.seal)
        token, sequence = parse_keyid(to)
        if token == self.token:
            seeds = [*self.device.older, (self.device.sequence, self.device.seal)]
            held = [seed for since, seed in seeds if since <= sequence]
            if held:
                return self._parsed(held[-1])
        raise NotFoundError("not-addressed", f"what is sealed to {to[:80]} can't be opened with the keys held here")

    def _parsed(self, seed: bytes) -> SealingKey:
        found = self._sealing.get(seed)
        if found is None:
            found = self._sealing[seed] = SealingKey(seed)
        return found

    def __repr__(self) -> str:
        return f"HeldKeys({self.keyid})"


class MemoryState:
    """State that ends with the process: for nodes' tests, benches and one-off commands."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    def load(self, name: str, kind: type[T]) -> T | None:
        data = self._values.get(name)
        return None if data is None else msgspec.msgpack.decode(data, type=kind)

    def save(self, name: str, value: object) -> None:
        self._values[name] = msgspec.msgpack.encode(value)


class _Public(Payload, frozen=True, kw_only=True):
    v: Literal[1]
    network: str
    token: str
    kind: Kind


class KeyFolder:
    """An opened folder. One process at a time should use it; two would lose each other's newest state, never keys."""

    def __init__(self, path: Path, public: _Public, box: KeyBox, account_key: bytes, rand: Callable[[int], bytes]):
        self.path = path
        self.network = public.network
        self.kind: Kind = public.kind
        self.token = public.token
        self.box = box
        self.account_key = account_key
        self._rand = rand
        self._state_keys: dict[str, bytes] = {}
        self._finish_renewal()
        self.keys = HeldKeys(token=public.token, kind=public.kind, device=open_key_box(box, account_key=account_key))
        newest = self.load("sequence", int)
        if newest is not None and newest >= self.keys.sequence:
            self.keys.sequence = newest

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        network: str,
        token: str,
        kind: Kind,
        device: DeviceSecrets,
        root: bytes,
        passphrase: str,
        rand: Callable[[int], bytes],
    ) -> KeyFolder:
        """Make a folder for a new identity, with two ways in: the passphrase and the recovery kit (`root`, not kept).

        Raises ConflictError `folder-in-use`; UnavailableError `disk`; MalformedError `bad-passphrase`.
        """
        if (path / "box.json").exists():
            raise ConflictError("folder-in-use", f"{path} already holds an identity; choose another folder")
        account_key = rand(32)
        ways = [kit_way(root, token=token, account_key=account_key, rand=rand)]
        box = create_key_box(device, token=token, account_key=account_key, ways=ways, rand=rand)
        box = add_passphrase_way(box, passphrase, account_key=account_key, rand=rand)
        public = _Public(v=1, network=network, token=check_token(token), kind=kind)
        _write(path / "identity.json", encode(public))
        _write(path / "box.json", encode_key_box(box))
        return cls(path, public, box, account_key, rand)

    @classmethod
    def open(cls, path: Path, *, passphrase: str, rand: Callable[[int], bytes]) -> KeyFolder:
        """Open a folder. Raises NotPermittedError `wrong-passphrase`; NotFoundError `no-keys`; MalformedError."""
        public, box = cls._read(path)
        return cls(path, public, box, unlock_with_passphrase(box, passphrase), rand)

    @classmethod
    def open_with_kit(cls, path: Path, *, root: bytes, rand: Callable[[int], bytes]) -> KeyFolder:
        """Open a folder with the recovery kit's root. Raises NotPermittedError `wrong-kit`; as `open`."""
        public, box = cls._read(path)
        return cls(path, public, box, unlock_with_root(box, root), rand)

    @staticmethod
    def _read(path: Path) -> tuple[_Public, KeyBox]:
        try:
            public = decode(_read(path / "identity.json"), _Public)
            box = parse_key_box(_read(path / "box.json"))
        except FileNotFoundError:
            raise NotFoundError("no-keys", f"{path} holds no identity; enrol first or name the right folder") from None
        if box.token != public.token:
            raise VerificationError("wrong-keys", f"{path} holds the key box of another identity; restore its backup")
        return public, box

    def renew(self, device: DeviceSecrets, *, root: bytes, passphrase: str) -> None:
        """After a rotation: new seeds under a *new* account key, with both ways in made again.

        What is remembered is encrypted again, aside; the key box is replaced; then the copy takes its place. A crash
        in between is repaired by the next `open`. Who kept the old account key opens nothing written from now on.
        """
        account_key = self._rand(32)
        ways = [kit_way(root, token=self.token, account_key=account_key, rand=self._rand)]
        box = create_key_box(device, token=self.token, account_key=account_key, ways=ways, rand=self._rand)
        box = add_passphrase_way(box, passphrase, account_key=account_key, rand=self._rand)
        before = {name: self._sealed(name) for name in self._names()}
        before["sequence"] = msgspec.msgpack.encode(device.sequence)
        for name, data in before.items():
            if data is not None:
                wire = seal_random(_state_key(account_key, name), data, aad=name.encode(), rand=self._rand)
                _write(self.path / _RENEWED / name, wire)
        _write(self.path / "box.json", encode_key_box(box))
        self.box, self.account_key, self._state_keys = box, account_key, {}
        self._finish_renewal()
        self.keys = HeldKeys(token=self.token, kind=self.kind, device=device)

    def _finish_renewal(self) -> None:
        """Put a renewed state in place if it belongs to the key box that is; else it never took effect: drop it."""
        aside = self.path / _RENEWED
        if not aside.is_dir():
            return
        try:
            wire = _read(aside / "sequence")
            open_random(self._key("sequence"), wire, aad=b"sequence")
        except (FileNotFoundError, VerificationError):
            shutil.rmtree(aside, ignore_errors=True)
            return
        shutil.rmtree(self.path / "state", ignore_errors=True)
        os.replace(aside, self.path / "state")

    def join(self, network: str) -> None:
        """Name the network of an identity that was made before its network was founded.

        Raises ConflictError `other-network`.
        """
        if self.network not in ("", network):
            raise ConflictError(
                "other-network", f"{self.path} belongs to network {self.network[:16]}, not {network[:16]}"
            )
        self.network = network
        _write(self.path / "identity.json", encode(_Public(v=1, network=network, token=self.token, kind=self.kind)))

    def discard(self) -> None:
        """Delete the keys for good; the folder itself where nothing else is in it."""
        shutil.rmtree(self.path / "state", ignore_errors=True)
        for name in ("box.json", "identity.json"):
            (self.path / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def check_passphrase(self, passphrase: str) -> None:
        """Raises NotPermittedError `wrong-passphrase`: asked again before what can't be undone."""
        unlock_with_passphrase(self.box, passphrase)

    def load(self, name: str, kind: type[T]) -> T | None:
        """What was saved under `name`, or None.

        Raises VerificationError `not-openable` (altered), MalformedError `bad-state`.
        """
        data = self._sealed(name)
        if data is None:
            return None
        try:
            return msgspec.msgpack.decode(data, type=kind)
        except msgspec.DecodeError:
            raise MalformedError(
                "bad-state", f"{self.path}/state/{name} was written by other software; move it aside and go on"
            ) from None

    def save(self, name: str, value: object) -> None:
        """Remember `value` (anything MessagePack carries) under `name`; durable when it returns."""
        self._seal(name, msgspec.msgpack.encode(value))

    def _sealed(self, name: str) -> bytes | None:
        try:
            wire = _read(self._file(name))
        except FileNotFoundError:
            return None
        return open_random(self._key(name), wire, aad=name.encode())

    def _seal(self, name: str, data: bytes) -> None:
        _write(self._file(name), seal_random(self._key(name), data, aad=name.encode(), rand=self._rand))

    def _key(self, name: str) -> bytes:
        found = self._state_keys.get(name)
        if found is None:
            found = self._state_keys[name] = _state_key(self.account_key, name)
        return found

    def _file(self, name: str) -> Path:
        if _NAME.fullmatch(name) is None:
            raise AssertionError(f"a state's name is lower-case letters, digits, dots and hyphens: {name!r}")
        return self.path / "state" / name

    def _names(self) -> list[str]:
        folder = self.path / "state"
        return sorted(file.name for file in folder.iterdir() if _NAME.fullmatch(file.name)) if folder.is_dir() else []

    def __repr__(self) -> str:
        return f"KeyFolder({self.path}, {self.token})"


State = KeyFolder | MemoryState
"""Where a client remembers: `load(name, kind)` and `save(name, value)`."""


def _state_key(account_key: bytes, name: str) -> bytes:
    return kdf(account_key, "key-box", name.encode())


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _disk(file, error) from None
    if len(data) > _FILE_BYTES_MAX:
        raise MalformedError("too-large", f"{file} is larger than {_FILE_BYTES_MAX} bytes; it was not written by us")
    return data


def _write(file: Path, data: bytes) -> None:
    """Replace a file of the key folder, which is made if it is not there. Raises UnavailableError `disk`."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(file, data)
    except OSError as error:
        raise _disk(file, error) from None


def _disk(file: Path, error: OSError) -> Error:
    what = type(error).__name__
    return UnavailableError("disk", f"{file} can't be read or written ({what}); check space and permissions")
