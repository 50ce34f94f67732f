"""The rule that applies an operation: pure, linked, and signed by whom it must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from careledger.errors import Error, MalformedError
from careledger.identity import (
    Applied,
    Deactivate,
    Inception,
    Rotate,
    Update,
    apply_operation,
    build_deactivate,
    build_rotate,
    build_update,
    check_keys,
    document_hash,
    keys_current,
    keys_hash,
    new_person,
    new_software,
    next_hash,
    open_document,
    parse_operation,
    renewed_secrets,
    root_signing_key,
)
from careledger.identity.operations import OPERATION_BYTES_MAX
from careledger.seal import ALG_SEAL, ALG_SIGN, Envelope, Key, SigningKey, decode, encode, keyid, sign, unb64

NETWORK = "ab" * 32
Rand = Callable[[int], bytes]


@pytest.fixture
def person(rand: Rand) -> Any:
    return new_person(custodians=[], rand=rand)


@pytest.fixture
def begun(person: Any) -> Applied:
    return apply_operation(None, person.envelope, network=NETWORK, now_ms=7)


def rotated(person: Any, begun: Applied, rand: Rand, **more: Any) -> Any:
    return build_rotate(
        network=more.pop("network", NETWORK),
        token=person.token,
        state=begun.state,
        root=person.secrets.root,
        device=renewed_secrets(person.secrets.device, sequence=begun.state.sequence + 1, rand=rand),
        document=open_document(person.salt, person.document, begun.state.document),
        rand=rand,
        **more,
    )


def resigned(envelope: Envelope, kind: Any, signers: list[tuple[str, SigningKey]], **fields: Any) -> Envelope:
    payload = decode(unb64(envelope.payload), kind)
    return sign(kind.TYPE, encode(msgspec.structs.replace(payload, **fields)), signers)


def code_of(act: Callable[[], Any]) -> str:
    with pytest.raises(Error) as caught:
        act()
    return caught.value.code


def test_inception_gives_the_first_state(person: Any, begun: Applied) -> None:
    state = begun.state
    assert (begun.token, state.sequence, state.status, state.effective_at) == (person.token, 0, "active", 7)
    assert state.keys_hash == keys_hash(person.secrets.device.keys())
    assert state.next == next_hash(root_signing_key(person.secrets.root, 1).public)
    assert state.document == document_hash(person.salt, person.document)
    assert keys_current(state, begun.keys)


def test_device_and_root_are_independent(person: Any) -> None:
    """A thief of the device has nothing that the next key derives from."""
    device = person.secrets.device
    assert len({device.sign, device.seal, person.secrets.root}) == 3
    assert root_signing_key(person.secrets.root, 1).public not in (
        SigningKey(device.sign).public,
        SigningKey(device.seal).public,
    )


def test_same_operation_gives_the_same_result(person: Any) -> None:
    one, other = (apply_operation(None, person.envelope, network=NETWORK, now_ms=7) for _ in range(2))
    assert one == other


def test_inception_does_not_depend_on_the_network(person: Any, begun: Applied) -> None:
    assert apply_operation(None, person.envelope, network="cd" * 32, now_ms=7) == begun


@pytest.mark.parametrize("signature", ["another key", "another token", "two"])
def test_inception_signed_otherwise_is_refused(person: Any, rand: Rand, signature: str) -> None:
    mine, other = person.secrets.device.signing_key(), SigningKey(rand(32))
    signers = {
        "another key": [(keyid(person.token, 0), other)],
        "another token": [(keyid(new_software(rand=rand).token, 0), mine)],
        "two": [(keyid(person.token, 0), mine), (keyid(person.token, 1), mine)],
    }[signature]
    forged = resigned(person.envelope, Inception, signers)
    assert code_of(lambda: apply_operation(None, forged, network=NETWORK, now_ms=7)) in ("bad-signature", "unknown-key")


def test_next_key_that_is_the_device_s_own_is_refused(person: Any, begun: Applied, rand: Rand) -> None:
    device = person.secrets.device
    own = next_hash(device.signing_key().public)
    payload = msgspec.structs.replace(decode(unb64(person.envelope.payload), Inception), next=own)
    from careledger.identity import token_of

    token = token_of(encode(payload))
    envelope = sign(Inception.TYPE, encode(payload), [(keyid(token, 0), device.signing_key())])
    assert code_of(lambda: apply_operation(None, envelope, network=NETWORK, now_ms=7)) == "bad-next"
    made = rotated(person, begun, rand)
    signer = [(keyid(person.token, 1), root_signing_key(person.secrets.root, 1))]
    own = next_hash(made.secrets.device.signing_key().public)
    again = resigned(made.envelope, Rotate, signer, next=own)
    assert code_of(lambda: apply_operation(begun.state, again, network=NETWORK, now_ms=8)) == "bad-next"


def test_rotation_must_commit_to_a_fresh_next_key(person: Any, begun: Applied, rand: Rand) -> None:
    made = rotated(person, begun, rand)
    signer = [(keyid(person.token, 1), root_signing_key(person.secrets.root, 1))]
    again = resigned(made.envelope, Rotate, signer, next=begun.state.next)
    assert code_of(lambda: apply_operation(begun.state, again, network=NETWORK, now_ms=8)) == "bad-next"


def test_rotation_changes_everything_it_carries(person: Any, begun: Applied, rand: Rand) -> None:
    made = rotated(person, begun, rand)
    after = apply_operation(begun.state, made.envelope, network=NETWORK, now_ms=8)
    assert (after.state.sequence, after.state.effective_at) == (1, 8)
    assert list(after.keys) == made.secrets.device.keys()
    assert not keys_current(after.state, begun.keys)
    assert after.state.document == document_hash(made.salt, made.document)
    assert after.state.next == next_hash(root_signing_key(person.secrets.root, 2).public)
    assert made.secrets.device.older == ((0, person.secrets.device.seal),)


def test_signer_with_another_algorithm_is_refused(person: Any, begun: Applied, rand: Rand) -> None:
    made = rotated(person, begun, rand)
    key = root_signing_key(person.secrets.root, 1)
    signer = Key(alg=ALG_SEAL, pub=Key.sign(key.public).pub)
    again = resigned(made.envelope, Rotate, [(keyid(person.token, 1), key)], signer=signer)
    assert code_of(lambda: apply_operation(begun.state, again, network=NETWORK, now_ms=8)) == "bad-next"


def test_keyid_must_name_the_new_sequence(person: Any, begun: Applied, rand: Rand) -> None:
    made = rotated(person, begun, rand)
    key = root_signing_key(person.secrets.root, 1)
    for wrong in (0, 2):
        again = resigned(made.envelope, Rotate, [(keyid(person.token, wrong), key)])
        assert code_of(lambda e=again: apply_operation(begun.state, e, network=NETWORK, now_ms=8)) == "unknown-key"


def test_rotation_for_another_network_is_refused(person: Any, begun: Applied, rand: Rand) -> None:
    made = rotated(person, begun, rand, network="cd" * 32)
    assert code_of(lambda: apply_operation(begun.state, made.envelope, network=NETWORK, now_ms=8)) == "wrong-network"


def test_rotation_of_one_identity_does_not_move_another(begun: Applied, rand: Rand) -> None:
    """The same root for two identities: the link to the history keeps them apart."""
    other = new_person(custodians=[], rand=rand)
    other_begun = apply_operation(None, other.envelope, network=NETWORK, now_ms=7)
    made = rotated(other, other_begun, rand)
    assert code_of(lambda: apply_operation(begun.state, made.envelope, network=NETWORK, now_ms=8)) == "bad-prev"


def test_update_needs_the_key_list_in_force(person: Any, begun: Applied, rand: Rand) -> None:
    document = open_document(person.salt, person.document, begun.state.document)
    envelope, data, salt = build_update(
        network=NETWORK,
        token=person.token,
        state=begun.state,
        document=document,
        device=person.secrets.device.signing_key(),
        rand=rand,
    )
    after = apply_operation(begun.state, envelope, network=NETWORK, now_ms=8, keys=begun.keys)
    assert after.state.document == document_hash(salt, data)
    assert (after.state.next, after.state.keys_hash) == (begun.state.next, begun.state.keys_hash)
    with pytest.raises(AssertionError):
        apply_operation(begun.state, envelope, network=NETWORK, now_ms=8, keys=())
    root_signed = resigned(envelope, Update, [(keyid(person.token, 0), root_signing_key(person.secrets.root, 1))])
    assert (
        code_of(lambda: apply_operation(begun.state, root_signed, network=NETWORK, now_ms=8, keys=begun.keys))
        == "bad-signature"
    )


def test_device_key_cannot_deactivate(person: Any, begun: Applied) -> None:
    true = build_deactivate(network=NETWORK, token=person.token, state=begun.state, root=person.secrets.root)
    device = person.secrets.device.signing_key()
    forged = resigned(true, Deactivate, [(keyid(person.token, 1), device)])
    assert code_of(lambda: apply_operation(begun.state, forged, network=NETWORK, now_ms=8)) == "bad-signature"
    own = resigned(true, Deactivate, [(keyid(person.token, 1), device)], signer=Key.sign(device.public))
    assert code_of(lambda: apply_operation(begun.state, own, network=NETWORK, now_ms=8)) == "bad-next"
    assert apply_operation(begun.state, true, network=NETWORK, now_ms=8).state.status == "deactivated"


def test_keys_are_one_signing_then_one_sealing_key(person: Any) -> None:
    sign_key, seal_key = person.secrets.device.keys()
    assert check_keys([sign_key, seal_key]).raw == person.secrets.device.signing_key().public
    small_order = Key(alg=ALG_SIGN, pub="AQ" + "A" * 41)
    for wrong in (
        [seal_key, sign_key],
        [sign_key],
        [sign_key, sign_key],
        [sign_key, seal_key, seal_key],
        [sign_key, Key(alg=ALG_SEAL, pub=sign_key.pub)],
        [small_order, seal_key],
        [Key(alg="RSA", pub=sign_key.pub), seal_key],
        [],
    ):
        with pytest.raises(MalformedError):
            check_keys(wrong)


@pytest.mark.parametrize("wrong", ["order", "small order", "size", "algorithm"])
def test_rotation_to_keys_without_form_is_refused(person: Any, begun: Applied, rand: Rand, wrong: str) -> None:
    made = rotated(person, begun, rand)
    sign_key, seal_key = made.secrets.device.keys()
    keys = {
        "order": [seal_key, sign_key],
        "small order": [Key(alg=ALG_SIGN, pub="AQ" + "A" * 41), seal_key],
        "size": [sign_key, Key.seal(bytes(1215))],
        "algorithm": [Key(alg="RSA", pub=sign_key.pub), seal_key],
    }[wrong]
    signer = [(keyid(person.token, 1), root_signing_key(person.secrets.root, 1))]
    envelope = resigned(made.envelope, Rotate, signer, keys=keys)
    code = code_of(lambda: apply_operation(begun.state, envelope, network=NETWORK, now_ms=8))
    assert code in ("bad-key", "bad-base64")


def test_unknown_versions_fields_and_sizes_are_refused(person: Any) -> None:
    payload = unb64(person.envelope.payload)
    key = [(keyid(person.token, 0), person.secrets.device.signing_key())]
    cases = {
        "bad-field": payload.replace(b'"v":1', b'"v":2'),
        "unknown-field": payload[:-1] + b',"w":1}',
        "not-canonical": payload.replace(b'"v":1', b'"v": 1'),
        "too-large": payload + b" " * OPERATION_BYTES_MAX,
    }
    for code, data in cases.items():
        assert code_of(lambda d=data: parse_operation(sign(Inception.TYPE, d, key))) == code
    assert code_of(lambda: parse_operation(sign("text/plain", payload, key))) == "wrong-type"
    for kind in ("person", "organisation", "software"):
        assert kind.encode() in payload or payload.replace(b'"person"', f'"{kind}"'.encode())
    bad_kind = payload.replace(b'"person"', b'"robot"')
    assert code_of(lambda: parse_operation(sign(Inception.TYPE, bad_kind, key))) == "bad-field"
