"""The key box, the recovery kit, and a patient whose identity a provider manages until it is claimed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import msgspec
import pytest

from careledger.errors import Error, MalformedError, NotFoundError, NotPermittedError, VerificationError
from careledger.identity import (
    DeviceSecrets,
    add_kit_way,
    add_passphrase_way,
    apply_operation,
    build_rotate,
    build_update,
    check_claim,
    countersign_claim,
    create_key_box,
    device_secrets,
    encode_key_box,
    find_next_key,
    kit_code,
    kit_way,
    new_managed_person,
    new_organisation,
    new_person,
    new_software,
    next_hash,
    open_custodian_share,
    open_document,
    open_key_box,
    parse_key_box,
    parse_kit_code,
    passphrase_way,
    remove_way,
    renewed_secrets,
    root_signing_key,
    seal_custodian_shares,
    unlock_managed,
    unlock_with_passphrase,
    unlock_with_root,
    verify_key,
)
from careledger.identity.keybox import WAYS_MAX, halves_key
from careledger.seal import b64, keyid, unb64

NETWORK = "ab" * 32
Rand = Callable[[int], bytes]
TOKEN = "cl1" + "q" * 46
OTHER = "cl1" + "p" * 46


def small_box(rand: Rand, *, account_key: bytes, token: str = TOKEN) -> Any:
    """A box with a passphrase (little memory, for tests) and a kit."""
    ways = [
        passphrase_way("correct horse", token=token, account_key=account_key, rand=rand, memory_kib=64),
        kit_way(b"k" * 32, token=token, account_key=account_key, rand=rand),
    ]
    secrets = DeviceSecrets(3, b"s" * 32, b"e" * 32, ((0, b"o" * 32),))
    return create_key_box(secrets, token=token, account_key=account_key, ways=ways, rand=rand)


def test_each_way_in_gives_the_secrets(rand: Rand) -> None:
    account_key = rand(32)
    box = parse_key_box(encode_key_box(small_box(rand, account_key=account_key)))
    for found in (unlock_with_passphrase(box, "correct horse"), unlock_with_root(box, b"k" * 32)):
        assert found == account_key
        assert open_key_box(box, account_key=found) == DeviceSecrets(3, b"s" * 32, b"e" * 32, ((0, b"o" * 32),))


def test_wrong_passphrase_kit_or_account_key_opens_nothing(rand: Rand) -> None:
    box = small_box(rand, account_key=rand(32))
    with pytest.raises(NotPermittedError) as caught:
        unlock_with_passphrase(box, "wrong horse")
    assert caught.value.code == "wrong-passphrase"
    with pytest.raises(NotPermittedError) as caught:
        unlock_with_root(box, b"w" * 32)
    assert caught.value.code == "wrong-kit"
    with pytest.raises(VerificationError):
        open_key_box(box, account_key=bytes(32))


def test_box_holds_no_secret_in_the_clear(rand: Rand) -> None:
    account_key = rand(32)
    data = encode_key_box(small_box(rand, account_key=account_key))
    for secret in (b"s" * 32, b"e" * 32, b"o" * 32, account_key, b"k" * 32):
        assert secret not in data
        assert b64(secret).encode()[:40] not in data
        assert secret.hex().encode() not in data


def test_box_is_bound_to_its_token_and_each_way_to_its_kind(rand: Rand) -> None:
    account_key = rand(32)
    box = small_box(rand, account_key=account_key)
    moved = msgspec.structs.replace(box, token=OTHER)
    with pytest.raises(VerificationError):
        open_key_box(moved, account_key=account_key)
    with pytest.raises(NotPermittedError):
        unlock_with_root(moved, b"k" * 32)
    with pytest.raises(NotPermittedError):
        unlock_with_passphrase(moved, "correct horse")
    swapped = msgspec.structs.replace(
        box,
        ways=[
            msgspec.structs.replace(box.ways[0], wrapped=box.ways[1].wrapped),
            msgspec.structs.replace(box.ways[1], wrapped=box.ways[0].wrapped),
        ],
    )
    with pytest.raises(NotPermittedError):
        unlock_with_root(swapped, b"k" * 32)


def test_every_byte_of_the_box_is_authenticated(rand: Rand) -> None:
    account_key = rand(32)
    box = small_box(rand, account_key=account_key)
    data = unb64(box.box)
    for place in range(0, len(data), 7):
        altered = bytearray(data)
        altered[place] ^= 1
        with pytest.raises(VerificationError):
            open_key_box(msgspec.structs.replace(box, box=b64(bytes(altered))), account_key=account_key)


def test_ways_can_be_added_and_removed_but_not_the_last(rand: Rand) -> None:
    account_key = rand(32)
    box = add_kit_way(small_box(rand, account_key=account_key), b"n" * 32, account_key=account_key, rand=rand)
    assert unlock_with_root(box, b"n" * 32) == account_key
    assert unlock_with_root(box, b"k" * 32) == account_key
    without = remove_way(remove_way(box, 0), 0)
    with pytest.raises(NotFoundError):
        unlock_with_passphrase(without, "correct horse")
    with pytest.raises(NotPermittedError):
        unlock_with_root(without, b"k" * 32)
    assert unlock_with_root(without, b"n" * 32) == account_key
    for index in (0, 5):
        with pytest.raises(NotPermittedError) as caught:
            remove_way(without, index)
        assert caught.value.code == "last-way"
    while len(box.ways) < WAYS_MAX:
        box = add_kit_way(box, b"n" * 32, account_key=account_key, rand=rand)
    with pytest.raises(NotPermittedError) as caught:
        add_kit_way(box, b"n" * 32, account_key=account_key, rand=rand)
    assert caught.value.code == "too-many-ways"


def test_passphrase_added_with_full_cost_opens(rand: Rand) -> None:
    account_key = rand(32)
    box = add_passphrase_way(small_box(rand, account_key=account_key), "näher", account_key=account_key, rand=rand)
    assert (box.ways[-1].memory_kib, box.ways[-1].iterations) == (65536, 3)
    # Composed and decomposed spellings are one passphrase.
    assert unlock_with_passphrase(box, "na\u0308her") == account_key


def test_key_box_that_asks_for_too_much_memory_is_refused(rand: Rand) -> None:
    box = small_box(rand, account_key=rand(32))
    greedy = msgspec.structs.replace(box, ways=[msgspec.structs.replace(box.ways[0], memory_kib=1 << 30)])
    with pytest.raises(MalformedError):
        unlock_with_passphrase(greedy, "correct horse")


def test_key_box_without_form_is_refused(rand: Rand) -> None:
    data = encode_key_box(small_box(rand, account_key=rand(32)))
    for wrong in (b"", b"{}", data + b" ", data.replace(b'"v":1', b'"v":2'), data.replace(b'"kit"', b'"cat"')):
        with pytest.raises(MalformedError):
            parse_key_box(wrong)


def test_secrets_do_not_show_in_representations(rand: Rand) -> None:
    person = new_person(custodians=[], rand=rand)
    for shown in (repr(person.secrets), repr(person.secrets.device), repr(person)):
        for secret in (person.secrets.root, person.secrets.device.sign, person.secrets.device.seal):
            assert secret.hex() not in shown
            assert repr(secret)[2:-1] not in shown


# The recovery kit


def test_kit_code_round_trips_and_forgives_how_it_is_typed(rand: Rand) -> None:
    root = rand(32)
    code = kit_code(root)
    assert code.startswith("clkit1")
    assert len(code) == 64
    grouped = "\n".join(" ".join(code[i : i + 4] for i in range(j, j + 16, 4)) for j in range(0, 64, 16))
    for typed in (code, code.upper(), grouped, grouped.upper().replace(" ", "-"), f"  {code}\r\n"):
        assert parse_kit_code(typed) == root


def test_mistyped_kit_code_is_refused_without_being_repeated(rand: Rand) -> None:
    code = kit_code(rand(32))
    for wrong in (
        code[:-1] + ("q" if code[-1] != "q" else "p"),
        code[:-1],
        "",
        "x" * 500,
        TOKEN,
        code[:3] + code[3:].upper(),
    ):
        with pytest.raises(MalformedError) as caught:
            parse_kit_code(wrong)
        assert caught.value.code == "bad-kit-code"
        assert code[8:16] not in caught.value.message


def test_next_keys_differ_by_sequence_and_root(rand: Rand) -> None:
    one, other = rand(32), rand(32)
    publics = {root_signing_key(root, number).public for root in (one, other) for number in range(1, 6)}
    assert len(publics) == 10
    with pytest.raises(AssertionError):
        root_signing_key(one[:31], 1)


def test_kit_finds_the_committed_key_after_updates(rand: Rand) -> None:
    person = new_person(custodians=[], rand=rand)
    applied = apply_operation(None, person.envelope, network=NETWORK, now_ms=1)
    for _ in range(3):
        document = open_document(person.salt, person.document, person_hash(person))
        envelope, *_ = build_update(
            network=NETWORK,
            token=person.token,
            state=applied.state,
            document=document,
            device=person.secrets.device.signing_key(),
            rand=rand,
        )
        applied = apply_operation(applied.state, envelope, network=NETWORK, now_ms=2, keys=applied.keys)
    key = find_next_key(person.secrets.root, committed=applied.state.next, sequence=applied.state.sequence)
    assert next_hash(key.public) == applied.state.next
    with pytest.raises(NotFoundError) as caught:
        find_next_key(rand(32), committed=applied.state.next, sequence=applied.state.sequence)
    assert caught.value.code == "wrong-kit"


def person_hash(person: Any) -> str:
    from careledger.identity import document_hash

    return document_hash(person.salt, person.document)


# Managed identities


class Clinic:
    def __init__(self, rand: Rand) -> None:
        self.rand = rand
        self.nodes = [new_software(rand=rand) for _ in range(4)]
        self.provider = new_organisation(nodes=[], rand=rand)
        self.managed = new_managed_person(
            custodians=[node.token for node in self.nodes], manager=self.provider.token, rand=rand
        )

    def claim(self) -> Any:
        """The patient claims with the printed code; the new document names no manager."""
        identity = self.managed.identity
        root = parse_kit_code(kit_code(identity.secrets.root))
        old = open_key_box(self.managed.key_box, account_key=unlock_with_root(self.managed.key_box, root))
        state = apply_operation(None, identity.envelope, network=NETWORK, now_ms=1).state
        document = open_document(identity.salt, identity.document, state.document)
        free = msgspec.structs.replace(document, manager=msgspec.UNSET)
        check_claim(document, free, manager=self.provider.token)
        made = build_rotate(
            network=NETWORK,
            token=identity.token,
            state=state,
            root=root,
            new_root=self.rand(32),
            device=renewed_secrets(old, sequence=1, rand=self.rand),
            document=free,
            rand=self.rand,
            claim=self.provider.token,
        )
        key = self.provider.secrets.device.signing_key()
        name = keyid(self.provider.token, 0)
        envelope = countersign_claim(made.envelope, manager=self.provider.token, signer=(name, key))
        applied = apply_operation(
            state,
            envelope,
            network=NETWORK,
            now_ms=2,
            manager_keys={name: verify_key(self.provider.secrets.device.keys()[0])},
        )
        return made, applied


@pytest.fixture
def clinic(rand: Rand) -> Clinic:
    return Clinic(rand)


def test_manager_and_any_t_custodians_open_a_managed_key_box(clinic: Clinic) -> None:
    managed = clinic.managed
    for shares in combinations(managed.custodian_shares, 3):
        account_key = unlock_managed(
            managed.key_box,
            manager=clinic.provider.token,
            manager_half=managed.manager_half,
            custodian_shares=shares,
        )
        assert open_key_box(managed.key_box, account_key=account_key) == managed.identity.secrets.device


def test_manager_alone_custodians_alone_and_too_few_of_them_open_nothing(clinic: Clinic, rand: Rand) -> None:
    managed = clinic.managed

    def unlock(**fields: Any) -> bytes:
        base: dict[str, Any] = {
            "manager": clinic.provider.token,
            "manager_half": managed.manager_half,
            "custodian_shares": managed.custodian_shares[:3],
        }
        return unlock_managed(managed.key_box, **(base | fields))

    for shares in combinations(managed.custodian_shares, 2):
        with pytest.raises(NotPermittedError) as caught:
            unlock(custodian_shares=shares)
        assert caught.value.code == "wrong-halves"
    with pytest.raises(VerificationError):
        unlock(custodian_shares=[])
    for half in (bytes(32), rand(32)):
        with pytest.raises(NotPermittedError):
            unlock(manager_half=half, custodian_shares=managed.custodian_shares)
    with pytest.raises(MalformedError):
        unlock(manager_half=b"short")
    with pytest.raises(NotFoundError):
        unlock(manager=OTHER)
    # Neither half is the wrapping key itself.
    with pytest.raises(VerificationError):
        open_key_box(managed.key_box, account_key=managed.manager_half)


def test_halves_of_two_patients_do_not_mix(clinic: Clinic, rand: Rand) -> None:
    other = new_managed_person(
        custodians=[node.token for node in clinic.nodes], manager=clinic.provider.token, rand=rand
    )
    with pytest.raises(NotPermittedError):
        unlock_managed(
            clinic.managed.key_box,
            manager=clinic.provider.token,
            manager_half=other.manager_half,
            custodian_shares=clinic.managed.custodian_shares,
        )
    with pytest.raises(NotPermittedError):
        unlock_managed(
            clinic.managed.key_box,
            manager=clinic.provider.token,
            manager_half=clinic.managed.manager_half,
            custodian_shares=[*clinic.managed.custodian_shares[:2], other.custodian_shares[2]],
        )


def test_custodian_opens_its_own_share_of_this_subject_only(clinic: Clinic) -> None:
    managed, token = clinic.managed, clinic.managed.identity.token
    keys = [node.secrets.device.sealing_key() for node in clinic.nodes]
    names = [keyid(node.token, 0) for node in clinic.nodes]
    from careledger.seal import SealingPublicKey

    recipients = [(name, SealingPublicKey(key.public)) for name, key in zip(names, keys, strict=True)]
    sealed = seal_custodian_shares(
        managed.custodian_shares, network=NETWORK, subject=token, sequence=0, custodians=recipients
    )

    def opened(wire: bytes, **fields: Any) -> bytes:
        base: dict[str, Any] = {
            "network": NETWORK,
            "subject": token,
            "sequence": 0,
            "to": names[1],
            "key": keys[1],
            "place": 2,
        }
        return open_custodian_share(wire, **(base | fields))

    assert opened(sealed[1]) == managed.custodian_shares[1]
    for fields in (
        {"subject": OTHER},
        {"network": "cd" * 32},
        {"sequence": 1},
        {"to": names[0]},
        {"key": keys[0]},
        {"place": 1},
    ):
        with pytest.raises(VerificationError):
            opened(sealed[1], **fields)
    swapped = seal_custodian_shares(
        managed.custodian_shares[:1] * 4, network=NETWORK, subject=token, sequence=0, custodians=recipients
    )
    with pytest.raises(VerificationError) as caught:
        opened(swapped[1])
    assert caught.value.code == "bad-share"
    short = recipients[1][1].seal(
        b"x",
        info=__import__("careledger.seal").seal.info(
            NETWORK, "key-box", subject=token, to=names[1], seq=0, way="managed"
        ),
    )
    with pytest.raises(VerificationError) as caught:
        opened(short)
    assert caught.value.code == "bad-share"


def test_claimed_identity_is_closed_to_the_provider(clinic: Clinic, rand: Rand) -> None:
    managed, identity = clinic.managed, clinic.managed.identity
    made, applied = clinic.claim()
    # New keys, a new next key, and the old sealing seed kept for what was sealed before.
    assert list(applied.keys) == made.secrets.device.keys()
    assert made.secrets.device.older == ((0, identity.secrets.device.seal),)
    # The provider printed the old kit; even if it kept it, it can't rotate any more.
    with pytest.raises(NotFoundError):
        find_next_key(identity.secrets.root, committed=applied.state.next, sequence=applied.state.sequence)
    # Nor does anything it had open the new key box.
    account_key = rand(32)
    box = create_key_box(
        made.secrets.device,
        token=identity.token,
        account_key=account_key,
        ways=[kit_way(made.secrets.root, token=identity.token, account_key=account_key, rand=rand)],
        rand=rand,
    )
    with pytest.raises(NotFoundError) as caught:
        unlock_managed(
            box,
            manager=clinic.provider.token,
            manager_half=managed.manager_half,
            custodian_shares=managed.custodian_shares,
        )
    assert caught.value.code == "no-such-way"
    with pytest.raises(NotPermittedError):
        unlock_with_root(box, identity.secrets.root)
    old_account_key = unlock_with_root(managed.key_box, identity.secrets.root)
    with pytest.raises(VerificationError):
        open_key_box(box, account_key=old_account_key)
    # And the old managed way, moved into the new box, opens nothing of it.
    grafted = msgspec.structs.replace(box, ways=[*box.ways, managed.key_box.ways[0]])
    found = unlock_managed(
        grafted,
        manager=clinic.provider.token,
        manager_half=managed.manager_half,
        custodian_shares=managed.custodian_shares,
    )
    with pytest.raises(VerificationError):
        open_key_box(grafted, account_key=found)


def test_claim_without_a_new_root_is_a_bug(clinic: Clinic, rand: Rand) -> None:
    identity = clinic.managed.identity
    state = apply_operation(None, identity.envelope, network=NETWORK, now_ms=1).state
    with pytest.raises(AssertionError):
        build_rotate(
            network=NETWORK,
            token=identity.token,
            state=state,
            root=identity.secrets.root,
            device=device_secrets(sequence=1, rand=rand),
            document=open_document(identity.salt, identity.document, state.document),
            rand=rand,
            claim=clinic.provider.token,
        )


def test_provider_signs_only_claims_that_name_it(clinic: Clinic, rand: Rand) -> None:
    made, _ = clinic.claim()
    stranger = new_organisation(nodes=[], rand=rand)
    signer = (keyid(stranger.token, 0), stranger.secrets.device.signing_key())
    for envelope in (made.envelope, clinic.managed.identity.envelope):
        with pytest.raises(Error) as caught:
            countersign_claim(envelope, manager=stranger.token, signer=signer)
        assert caught.value.code == "bad-claim"


def test_halves_are_xored_and_must_have_the_key_s_size() -> None:
    assert halves_key(b"\x0f" * 32, b"\xf1" * 32) == b"\xfe" * 32
    for one, other in ((b"", bytes(32)), (bytes(32), bytes(31))):
        with pytest.raises(MalformedError):
            halves_key(one, other)
