"""Identities from their own operations: the inception makes the token, every later step is signed and linked.

Whether an operation is missing at the end only a proof of the directory's state tells (`check_state`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from careledger.errors import NotFoundError, VerificationError
from careledger.identity import IdentityState, Rotate, apply_parsed, parse_operation, verify_key
from careledger.seal import Envelope, Key, VerifyKey, decode, keyid, parse_keyid

__all__ = ["Identities"]

_ENVELOPE_MAX: Final = 1 << 16
_DEPTH_MAX: Final = 8
"""Managers whose own history has to be known to check a claim: a chain this long does not occur."""


class Identities:
    """Several identities with all their keys. Parsed when first asked for; errors are raised then."""

    def __init__(self, operations: Mapping[str, Sequence[bytes]], *, network: str) -> None:
        """`operations`: canonical envelopes by token, from the inception on."""
        self._operations = operations
        self._network = network
        self._known: dict[str, tuple[IdentityState, dict[str, VerifyKey]]] = {}

    def keys(self, names: Iterable[str]) -> dict[str, VerifyKey]:
        """The signing keys of these keyids. Raises as `verify_key`."""
        return {name: self.verify_key(name) for name in names}

    def verify_key(self, name: str) -> VerifyKey:
        """The key that a keyid of any sequence names.

        Raises NotFoundError `unknown-identity`; VerificationError `unknown-key`, `wrong-identity`, and
        identity.apply_parsed's codes.
        """
        found = self._identity(parse_keyid(name)[0], 0)[1].get(name)
        if found is None:
            raise VerificationError("unknown-key", f"the identity never had the key {name}")
        return found

    def check_state(self, token: str, proven: IdentityState | None) -> None:
        """Check that the operations lead to the state that the directory has.

        Raises VerificationError `wrong-identity`: no proof of it, or it proves another state.
        """
        state = self._identity(token, 0)[0]
        if proven is None or msgspec.structs.replace(state, effective_at=proven.effective_at) != proven:
            raise VerificationError(
                "wrong-identity", f"the operations of {token} do not give the state that the directory proves"
            )

    def _identity(self, token: str, depth: int) -> tuple[IdentityState, dict[str, VerifyKey]]:
        found = self._known.get(token)
        if found is None:
            found = self._known[token] = self._replayed(token, depth)
        return found

    def _replayed(self, token: str, depth: int) -> tuple[IdentityState, dict[str, VerifyKey]]:
        operations = self._operations.get(token)
        if not operations or depth > _DEPTH_MAX:
            raise NotFoundError(
                "unknown-identity", f"the operations of {token} are not there; get them, or export again"
            )
        state: IdentityState | None = None
        keys: tuple[Key, ...] = ()
        by_name: dict[str, VerifyKey] = {}
        for data in operations:
            parsed = parse_operation(decode(data, Envelope, size_max=_ENVELOPE_MAX))
            if parsed.token != token:
                raise VerificationError("wrong-identity", f"an operation of another identity stands among {token}'s")
            claim = parsed.operation.claim if isinstance(parsed.operation, Rotate) else msgspec.UNSET
            managers = None if claim is msgspec.UNSET else self._identity(claim.manager, depth + 1)[1]
            applied = apply_parsed(state, parsed, network=self._network, now_ms=0, keys=keys, manager_keys=managers)
            state, keys = applied.state, applied.keys
            if keys:
                by_name[keyid(token, state.sequence)] = verify_key(keys[0])
        assert state is not None
        return state, by_name
