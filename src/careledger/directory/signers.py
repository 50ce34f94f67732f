"""Who signed a transaction: the current keys of an identity, a member or a node, and nothing older."""

from __future__ import annotations

from typing import TypeVar

from careledger.directory.state import Staging
from careledger.directory.values import MemberState, NodeState
from careledger.errors import MalformedError, NotFoundError, NotPermittedError, VerificationError
from careledger.identity import Token, verify_key
from careledger.seal import Envelope, Payload, VerifyKey, decode, keyid, parse_keyid, unb64, verify

__all__ = ["current_keys", "decode_payload", "require_member", "require_node", "signer_of"]

_PAYLOAD_BYTES_MAX = 49_152

P = TypeVar("P", bound=Payload)


def decode_payload(envelope: Envelope, kind: type[P]) -> P:
    """The payload, decoded strictly and not yet proven. Raises MalformedError."""
    return decode(unb64(envelope.payload), kind, size_max=_PAYLOAD_BYTES_MAX)


def signer_of(envelope: Envelope) -> Token:
    """The token in the one signature's keyid, not yet proven. Raises VerificationError `no-signature`."""
    if len(envelope.signatures) != 1:
        raise VerificationError("no-signature", f"one signature is needed, not {len(envelope.signatures)}")
    return parse_keyid(envelope.signatures[0].keyid)[0]


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


def require_member(staging: Staging, envelope: Envelope, token: Token, network: str) -> MemberState:
    """The active member that signed, alone and with its current key.

    Raises NotPermittedError `not-a-member`, VerificationError `wrong-network`, `bad-signature`, `unknown-key`, ….
    """
    member = staging.member(token)
    if member is None or member.status != "active":
        raise NotPermittedError("not-a-member", f"{token} is no member of the network")
    _check_signed(staging, envelope, token, network)
    return member


def require_node(staging: Staging, envelope: Envelope, token: Token, network: str) -> NodeState:
    """The active member's node that signed, alone and with its current key.

    Raises NotPermittedError `not-a-node` and as require_member.
    """
    node = staging.node(token)
    if node is None or node.status != "active":
        raise NotPermittedError("not-a-node", f"{token} is no member's node")
    _check_signed(staging, envelope, token, network)
    return node


def _check_signed(staging: Staging, envelope: Envelope, token: Token, network: str) -> None:
    if network != staging.network:
        raise VerificationError("wrong-network", "the transaction was signed for another network")
    if len(envelope.signatures) != 1:
        raise MalformedError("too-many-signatures", f"one signature is needed, not {len(envelope.signatures)}")
    verify(envelope, payload_type=envelope.payloadType, keys=current_keys(staging, envelope, token))
