"""Who signed a transaction: the current keys of an identity, a member or a node, and nothing older.

The signature is checked on the bytes before the bytes are parsed, so that only who is known can feed the parsers.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from careledger.directory.state import Staging
from careledger.directory.values import MemberState, NodeState
from careledger.errors import MalformedError, NotFoundError, NotPermittedError, VerificationError
from careledger.identity import Token, verify_key
from careledger.seal import Envelope, VerifyKey, decode, keyid, parse_keyid, verify

__all__ = ["current_keys", "open_signed", "signed_by_member", "signed_by_node"]

_PAYLOAD_BYTES_MAX = 49_152


class _OfNetwork(Protocol):
    @property
    def network(self) -> str: ...


P = TypeVar("P", bound=_OfNetwork)


def open_signed(staging: Staging, envelope: Envelope, kind: type[P]) -> tuple[P, Token]:
    """The payload and the identity whose key in force signed it, alone.

    Raises MalformedError `too-many-signatures`, `bad-keyid`, those of seal.decode; VerificationError `no-signature`,
    `bad-signature`, `unknown-key` (not in force), `wrong-network`; NotFoundError `unknown-identity`; NotPermittedError
    `deactivated`.
    """
    if len(envelope.signatures) > 1:
        raise MalformedError("too-many-signatures", f"one signature is needed, not {len(envelope.signatures)}")
    signer = parse_keyid(envelope.signatures[0].keyid)[0] if envelope.signatures else ""
    keys = current_keys(staging, envelope, signer) if signer else {}
    kind_name: Any = kind
    data = verify(envelope, payload_type=kind_name.TYPE, keys=keys)
    payload = decode(data, kind, size_max=_PAYLOAD_BYTES_MAX)
    if payload.network != staging.network:
        raise VerificationError("wrong-network", "the transaction was signed for another network")
    return payload, signer


def current_keys(staging: Staging, envelope: Envelope, token: Token) -> dict[str, VerifyKey]:
    """keyid → key for those of the envelope's signatures that name `token`'s keys in force.

    A keyid of an older sequence counts while the same keys are in force. Raises NotFoundError `unknown-identity`,
    NotPermittedError `deactivated`, MalformedError `bad-keyid`.
    """
    state = staging.identity(token)
    if state is None:
        raise NotFoundError("unknown-identity", f"the directory knows no identity {token}")
    keys = staging.keys_in_force(token)
    if state.status != "active" or keys is None or not keys.keys:
        raise NotPermittedError("deactivated", f"the identity {token} was deactivated")
    found: dict[str, VerifyKey] = {}
    for signature in envelope.signatures:
        name, sequence = parse_keyid(signature.keyid)
        if name == token and keys.sequence <= sequence <= state.sequence:
            found[keyid(token, sequence)] = verify_key(keys.keys[0])
    return found


def signed_by_member(staging: Staging, signer: Token, named: Token) -> MemberState:
    """The active member that signed and that the payload names.

    Raises NotPermittedError `not-a-member`, VerificationError `wrong-signer`.
    """
    if signer != named:
        raise VerificationError("wrong-signer", "the transaction is signed by another member than it names")
    member = staging.member(signer)
    if member is None or member.status != "active":
        raise NotPermittedError("not-a-member", f"{signer} is no member of the network")
    return member


def signed_by_node(staging: Staging, signer: Token, named: Token) -> NodeState:
    """The active member's node that signed and that the payload names.

    Raises NotPermittedError `not-a-node`, VerificationError `wrong-signer`.
    """
    if signer != named:
        raise VerificationError("wrong-signer", "the transaction is signed by another node than it names")
    node = staging.node(signer)
    if node is None or node.status != "active":
        raise NotPermittedError("not-a-node", f"{signer} is no member's node")
    return node
