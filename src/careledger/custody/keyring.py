"""Whose key is it: signatures of people, organisations and nodes, checked against the directory replica.

Parsing a key costs as much as using it, so parsed keys are held by keyid; whether a keyid is still in force is asked
of the directory every time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping

from careledger.directory import Directory
from careledger.errors import Error, NotPermittedError, VerificationError
from careledger.identity import keys_hash, verify_key
from careledger.seal import SealingPublicKey, VerifyKey, keyid, parse_keyid, sealing_key

__all__ = ["Keyring", "KeysOf"]

_HELD_MAX = 20_000


class Keyring:
    """Parsed keys, bounded, checked against `directory` as it is at the moment of asking."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._held: OrderedDict[str, tuple[VerifyKey, str]] = OrderedDict()

    def of(self, *tokens: str | None, superseded: bool = False) -> KeysOf:
        """The keys of these identities alone, by keyid; the ones in force, unless `superseded` ones count too."""
        return KeysOf(self, frozenset(token for token in tokens if token is not None), superseded)

    @property
    def everybody(self) -> KeysOf:
        """Every key in force: for checks that bind each signature's token themselves."""
        return KeysOf(self, None, False)

    def verify_key(self, key_id: str, *, superseded: bool = False) -> VerifyKey:
        """The Ed25519 key that `key_id` names; unless `superseded`, only if it is still in force.

        Raises NotPermittedError `unknown-identity`, VerificationError `superseded-key`, MalformedError `bad-keyid`.
        """
        token, sequence = parse_keyid(key_id)
        held = self._held.get(key_id)
        if held is None:
            keys = self._directory.public_keys(token, sequence)
            if not keys:
                raise NotPermittedError(
                    "unknown-identity", f"the directory knows no key {key_id}: enrol first, or try again in a second"
                )
            held = self._held[key_id] = (verify_key(keys[0]), keys_hash(keys))
            if len(self._held) > _HELD_MAX:
                self._held.popitem(last=False)
        if not superseded:
            state = self._directory.identity(token)
            if state is None or state.status != "active" or state.keys_hash != held[1]:
                raise VerificationError(
                    "superseded-key", f"{key_id} is no longer in force: sign with the identity's current key"
                )
        return held[0]

    def sealing_key(self, token: str) -> tuple[str, SealingPublicKey]:
        """The identity's current keyid and X-Wing key. Raises NotPermittedError `unknown-identity`."""
        keys, state = self._directory.current_keys(token), self._directory.identity(token)
        if not keys or state is None:
            raise NotPermittedError("unknown-identity", f"the directory knows no current key of {token}")
        return keyid(token, state.sequence), sealing_key(keys)


class KeysOf(Mapping[str, VerifyKey]):
    """keyid -> key as signature checks take them; looked up in the directory when asked for."""

    def __init__(self, keyring: Keyring, tokens: frozenset[str] | None, superseded: bool) -> None:
        self._keyring = keyring
        self._tokens = tokens
        self._superseded = superseded

    def __getitem__(self, key_id: str) -> VerifyKey:
        if self._tokens is not None and key_id.partition("#")[0] not in self._tokens:
            raise KeyError(key_id)
        try:
            return self._keyring.verify_key(key_id, superseded=self._superseded)
        except Error:
            raise KeyError(key_id) from None

    def __iter__(self) -> Iterator[str]:
        raise TypeError("the keys of a directory are looked up, not listed")

    def __len__(self) -> int:
        raise TypeError("the keys of a directory are looked up, not counted")
