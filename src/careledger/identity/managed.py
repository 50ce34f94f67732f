"""A patient without a device: a provider manages the identity together with the custodians, until it is claimed.

The account key is wrapped under K_m ⊕ K_c. The manager keeps K_m; K_c is split t-of-n to the custodians, each share
sealed to one of them, so that a manager can't use the identity without custodians that log it, nor they without it.
The printed code is the root: `claim` rotates with it, and from then on neither K_m nor any share opens anything, since
new seeds are under a new account key that no managed way wraps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from careledger.errors import VerificationError
from careledger.identity.keybox import KeyBox, Way, unwrap_managed, wrap_with_halves
from careledger.identity.token import Token
from careledger.seal import SealingKey, SealingPublicKey, combine, info, split

__all__ = ["ManagedHalves", "open_custodian_share", "seal_custodian_shares", "split_account_key", "unlock_managed"]

_WAY = "managed"
_SHARE_BYTES = 33


class ManagedHalves(NamedTuple):
    """The way for the key box; K_m for the manager; the n shares (y ‖ x, 33 bytes) of K_c in custodian order."""

    way: Way
    manager_half: bytes
    custodian_shares: list[bytes]

    def __repr__(self) -> str:
        return f"ManagedHalves(n={len(self.custodian_shares)})"


def split_account_key(
    account_key: bytes, *, token: Token, manager: Token, n: int, threshold: int, rand: Callable[[int], bytes]
) -> ManagedHalves:
    """Wrap the account key under two fresh halves and split the custodians' half t-of-n."""
    manager_half, custodian_half = rand(32), rand(32)
    way = wrap_with_halves(account_key, token=token, manager=manager, halves=(manager_half, custodian_half), rand=rand)
    coefficients = [rand(32) for _ in range(threshold - 1)]
    return ManagedHalves(way, manager_half, split(custodian_half, n=n, t=threshold, coefficients=coefficients))


def unlock_managed(box: KeyBox, *, manager: Token, manager_half: bytes, custodian_shares: Sequence[bytes]) -> bytes:
    """The account key, from K_m and any t shares. Raises NotFoundError `no-such-way` (claimed), NotPermittedError
    `wrong-halves` (too few or wrong shares), VerificationError `bad-share`."""
    return unwrap_managed(box, manager=manager, halves=(manager_half, combine(custodian_shares)))


def seal_custodian_shares(
    shares: Sequence[bytes],
    *,
    network: str,
    subject: Token,
    sequence: int,
    custodians: Sequence[tuple[str, SealingPublicKey]],
) -> list[bytes]:
    """Each share sealed to its custodian (keyid, key), bound to the subject and its `sequence`."""
    return [
        key.seal(share, info=info(network, "key-box", subject=subject, to=keyid, seq=sequence, way=_WAY))
        for share, (keyid, key) in zip(shares, custodians, strict=True)
    ]


def open_custodian_share(
    sealed: bytes, *, network: str, subject: Token, sequence: int, to: str, key: SealingKey, place: int
) -> bytes:
    """A custodian's share of K_c; `place` is its 1-based place in the subject's document.

    Raises VerificationError `not-openable`, `bad-share` (another place or size).
    """
    share = key.open(sealed, info=info(network, "key-box", subject=subject, to=to, seq=sequence, way=_WAY))
    if len(share) != _SHARE_BYTES or share[-1] != place:
        raise VerificationError("bad-share", "the sealed share is not this custodian's: the manager must split again")
    return share
