"""Writes vectors/identity/*.json: `python tests/vectors/make_identity_vectors.py`.

Everything is a function of fixed seeds, so a second run writes the same files; run it only when a format changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from careledger import identity as idy
from careledger.identity.keybox import wrap_with_halves
from careledger.seal import Envelope, Key, SigningKey, decode, encode, envelope_message_id, keyid, sign, split, unb64

FOLDER = Path(__file__).resolve().parents[2] / "vectors" / "identity"
NETWORK = hashlib.sha256(b"network of the identity vectors").hexdigest()
T0 = 1_760_000_000_000
HOW = "made with tests/vectors/make_identity_vectors.py from fixed seeds (SHAKE256 of a counter); deterministic"


def seeded(name: str) -> Callable[[int], bytes]:
    count = 0

    def draw(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{name} {count}".encode()).digest(size)

    return draw


def write(name: str, section: str, vectors: list[Any], how: str = HOW, source: str = "careledger", **more: Any) -> None:
    content = {
        "source": source,
        "section": section,
        "how_made": how,
        "licence": more.pop("licence", "Apache-2.0, part of careledger"),
        **more,
        "vectors": vectors,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def text(value: Any) -> str:
    return encode(value).decode()


def bech32m() -> None:
    valid = [
        "A1LQFN3A",
        "a1lqfn3a",
        "an83characterlonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11sg7hg6",
        "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx",
        "11" + "l" * 82 + "ludsr8",
        "split1checkupstagehandshakeupstreamerranterredcaperredlc445v",
        "?1v759aa",
    ]
    invalid = [
        ("\x201xj0phk", "character of the prefix out of range"),
        ("\x7f1g6xzxy", "character of the prefix out of range"),
        ("\x801vctc34", "character of the prefix out of range"),
        ("an84characterslonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11d6pts4", "too long"),
        ("qyrz8wqd2c9m", "no separator"),
        ("1qyrz8wqd2c9m", "empty prefix"),
        ("y1b0jsk6g", "invalid data character"),
        ("lt1igcx5c0", "invalid data character"),
        ("in1muywd", "checksum too short"),
        ("mm1crxm3i", "invalid character in the checksum"),
        ("au1s5cgom", "invalid character in the checksum"),
        ("M1VUXWEZ", "checksum of the upper-case prefix"),
        ("16plkw9", "empty prefix"),
        ("1p2gdwpf", "empty prefix"),
    ]
    vectors = [{"comment": "valid", "text": item, "valid": True} for item in valid]
    vectors += [{"comment": why, "text": item, "valid": False} for item, why in invalid]
    write(
        "bech32m-bip350",
        "BIP-350, test vectors for Bech32m",
        vectors,
        how="copied from the BIP; the text is all that is checked, the data means nothing",
        source="https://github.com/bitcoin/bips/blob/master/bip-0350.mediawiki",
        licence="BSD-2-Clause (the BIP's own licence)",
    )


def tokens() -> None:
    rand = seeded("tokens")
    vectors: list[dict[str, Any]] = []
    for kind, made in (
        ("person", idy.new_person(custodians=[], rand=rand)),
        ("organisation", idy.new_organisation(nodes=[], rand=rand)),
        ("software", idy.new_software(rand=rand)),
    ):
        payload = unb64(made.envelope.payload).decode()
        vectors.append({"comment": kind, "inception": payload, "token": made.token, "outcome": "accept"})
    good = vectors[0]["token"]
    swapped = good[:20] + good[21] + good[20] + good[22:]
    wrong = [good.upper(), good[:-1], good + "q", swapped, good.replace("cl1", "cm1"), good[:3] + "b" + good[4:], ""]
    vectors += [{"comment": "not a token", "token": item, "outcome": "bad-token"} for item in wrong]
    write("tokens", "docs/spec/identity.md section 1", vectors)


def resigned(envelope: Envelope, kind: Any, signers: list[tuple[str, SigningKey]], **fields: Any) -> Envelope:
    payload = decode(unb64(envelope.payload), kind)
    return sign(kind.TYPE, encode(msgspec.structs.replace(payload, **fields)), signers)


def operations() -> None:
    """A life: each vector is applied to the state that `state` names (the last accepted one unless null)."""
    rand = seeded("operations")
    manager = idy.new_organisation(nodes=[], rand=rand)
    manager_signer = (keyid(manager.token, 0), manager.secrets.device.signing_key())
    person = idy.new_person(custodians=[], rand=rand, manager=manager.token)
    device, root = person.secrets.device, person.secrets.root
    vectors: list[dict[str, Any]] = []
    state: idy.IdentityState | None = None
    keys: list[Any] = []
    now = T0

    def step(comment: str, envelope: Envelope, outcome: str = "accept", network: str = NETWORK) -> None:
        nonlocal state, keys, now
        now += 1000
        entry: dict[str, Any] = {
            "comment": comment,
            "before": None if state is None else text(state),
            "keys": text(keys),
            "envelope": text(envelope),
            "network": network,
            "now_ms": now,
            "outcome": outcome,
        }
        if outcome == "accept":
            managers = {manager_signer[0]: idy.verify_key(manager.secrets.device.keys()[0])}
            applied = idy.apply_operation(
                state, envelope, network=network, now_ms=now, keys=keys, manager_keys=managers
            )
            state, keys = applied.state, list(applied.keys)
            entry |= {"message_id": envelope_message_id(envelope).hex(), "after": text(state), "keys_after": text(keys)}
        vectors.append(entry)

    def rotation(new: idy.DeviceSecrets, **more: Any) -> Any:
        assert state is not None
        free = idy.Document(v=1, custodians=[], threshold=0, services=[], nodes=[])
        return idy.build_rotate(
            network=NETWORK, token=person.token, state=state, root=root, device=new, document=free, rand=rand, **more
        )

    step("inception", person.envelope)
    assert state is not None
    step("the same inception again", person.envelope, "exists")
    document = idy.open_document(person.salt, person.document, state.document)
    changed = msgspec.structs.replace(document, services=["https://phr.example"])

    def update() -> Envelope:
        assert state is not None
        return idy.build_update(
            network=NETWORK,
            token=person.token,
            state=state,
            document=changed,
            device=device.signing_key(),
            rand=rand,
        )[0]

    first = update()
    step("update for another network", first, "wrong-network", hashlib.sha256(b"other").hexdigest())
    step(
        "update signed by the root's next key",
        resigned(first, idy.Update, [(keyid(person.token, 0), idy.root_signing_key(root, 1))]),
        "bad-signature",
    )
    step(
        "update whose keyid names the new sequence",
        resigned(first, idy.Update, [(keyid(person.token, 1), device.signing_key())]),
        "unknown-key",
    )
    step(
        "update that links to nothing",
        resigned(first, idy.Update, [(keyid(person.token, 0), device.signing_key())], prev="00" * 32),
        "bad-prev",
    )
    step("update", first)
    step("the same update again", first, "bad-sequence")
    second = idy.renewed_secrets(device, sequence=2, rand=rand)
    new_root = rand(32)
    claim = rotation(second, claim=manager.token, new_root=new_root)
    step("claim without the manager's signature", claim.envelope, "not-the-manager")
    stranger = SigningKey(rand(32))
    step(
        "claim signed by the manager alone",
        sign(idy.Rotate.TYPE, unb64(claim.envelope.payload), [manager_signer]),
        "no-signature",
    )
    step(
        "claim countersigned with another key",
        idy.countersign_claim(claim.envelope, manager=manager.token, signer=(manager_signer[0], stranger)),
        "bad-signature",
    )
    step(
        "rotation signed by the device key",
        resigned(claim.envelope, idy.Rotate, [(keyid(person.token, 2), device.signing_key())], claim=msgspec.UNSET),
        "bad-signature",
    )
    step(
        "rotation that reveals the device key",
        resigned(
            claim.envelope,
            idy.Rotate,
            [(keyid(person.token, 2), device.signing_key())],
            claim=msgspec.UNSET,
            signer=device.keys()[0],
        ),
        "bad-next",
    )
    next_key = idy.root_signing_key(root, 1)
    step(
        "rotation that commits to the same next key",
        resigned(
            claim.envelope, idy.Rotate, [(keyid(person.token, 2), next_key)], claim=msgspec.UNSET, next=state.next
        ),
        "bad-next",
    )
    step(
        "rotation whose next key is the new device key",
        resigned(
            claim.envelope,
            idy.Rotate,
            [(keyid(person.token, 2), next_key)],
            claim=msgspec.UNSET,
            next=idy.next_hash(second.signing_key().public),
        ),
        "bad-next",
    )
    step("claim", idy.countersign_claim(claim.envelope, manager=manager.token, signer=manager_signer))
    device, root = second, new_root
    step(
        "update signed by the key before the rotation",
        resigned(update(), idy.Update, [(keyid(person.token, 2), person.secrets.device.signing_key())]),
        "bad-signature",
    )
    third = idy.renewed_secrets(second, sequence=3, rand=rand)
    old_kit = idy.root_signing_key(person.secrets.root, 3)
    step(
        "rotation with the old kit, which the manager may have kept",
        resigned(
            rotation(third).envelope, idy.Rotate, [(keyid(person.token, 3), old_kit)], signer=Key.sign(old_kit.public)
        ),
        "bad-next",
    )
    step("rotation", rotation(third).envelope)
    device = third
    assert state is not None
    end = idy.build_deactivate(network=NETWORK, token=person.token, state=state, root=root)
    step(
        "deactivation signed by the device key",
        resigned(end, idy.Deactivate, [(keyid(person.token, 4), device.signing_key())]),
        "bad-signature",
    )
    step("deactivation", end)
    step("deactivation again", end, "deactivated")
    payload = unb64(person.envelope.payload)
    signer = [(keyid(person.token, 0), person.secrets.device.signing_key())]
    state, keys = None, []
    for comment, data, outcome in (
        ("unknown version", payload.replace(b'"v":1', b'"v":2'), "bad-field"),
        ("unknown field", payload[:-1] + b',"w":1}', "unknown-field"),
        ("white space", payload.replace(b'"v":1', b'"v": 1'), "not-canonical"),
        ("unknown kind", payload.replace(b'"person"', b'"robot"'), "bad-field"),
        ("cut off", payload[:-2], "not-json"),
    ):
        step(f"inception: {comment}", sign(idy.Inception.TYPE, data, signer), outcome)
    small = payload.replace(device_pub(person).encode(), b"AQ" + b"A" * 41)
    step("inception: signing key of small order", sign(idy.Inception.TYPE, small, signer), "bad-key")
    step(
        "inception: signed for another token",
        resigned(person.envelope, idy.Inception, [(keyid(manager.token, 0), signer[0][1])]),
        "unknown-key",
    )
    write(
        "operations",
        "docs/spec/identity.md sections 2 and 3",
        vectors,
        manager={"keyid": manager_signer[0], "keys": text(manager.secrets.device.keys())},
        token=person.token,
    )


def device_pub(person: Any) -> str:
    pub: str = person.secrets.device.keys()[0].pub
    return pub


def documents() -> None:
    rand = seeded("documents")
    nodes = [idy.new_software(rand=rand) for _ in range(4)]
    tokens = [node.token for node in nodes]
    vectors: list[dict[str, Any]] = []

    def add(comment: str, data: bytes, outcome: str = "accept", hash_of: bytes | None = None) -> None:
        salt = rand(32)
        committed = hashlib.sha256(salt + (data if hash_of is None else hash_of)).hexdigest()
        vectors.append(
            {"comment": comment, "salt": salt.hex(), "document": data.decode(), "hash": committed, "outcome": outcome}
        )

    person = idy.new_person(custodians=tokens, rand=rand, services=["https://phr.example/a"])
    organisation = idy.new_organisation(nodes=tokens, rand=rand)
    managed = idy.new_person(custodians=tokens, rand=rand, manager=organisation.token)
    add("person", person.document)
    add("person with a manager", managed.document)
    add("organisation", organisation.document)
    add("another document's hash", person.document, "bad-document-hash", managed.document)
    base = decode(person.document, idy.Document)
    for comment, fields in (
        ("threshold above n", {"threshold": 5}),
        ("threshold not above f", {"threshold": 1}),
        ("the same custodian twice", {"custodians": [tokens[0], *tokens[:3]]}),
        ("the same node twice", {"nodes": [tokens[0], tokens[0]]}),
        ("reading key for signing", {"reading_key": nodes[0].secrets.device.keys()[0]}),
    ):
        add(comment, encode(msgspec.structs.replace(base, **fields)), "bad-document")
    add("unknown version", person.document.replace(b'"v":1', b'"v":2'), "bad-field")
    add("null", person.document.replace(b'"nodes":[]', b'"manager":null,"nodes":[]'), "bad-field")
    thresholds = [[n, idy.default_threshold(n), idy.faults(n)] for n in range(0, 20)]
    write("documents", "docs/spec/identity.md section 4", vectors, thresholds_n_t_f=thresholds)


def kits() -> None:
    rand = seeded("kits")
    vectors: list[dict[str, Any]] = []
    for number in range(3):
        root = rand(32) if number else bytes(32)
        keys = {str(sequence): idy.root_signing_key(root, sequence).public.hex() for sequence in (1, 2, 1000)}
        next_1 = idy.next_hash(idy.root_signing_key(root, 1).public)
        vectors.append(
            {
                "comment": "root",
                "root": root.hex(),
                "code": idy.kit_code(root),
                "next_keys": keys,
                "next_1": next_1,
                "outcome": "accept",
            }
        )
    code = vectors[1]["code"]
    spaced = " ".join(code[i : i + 4] for i in range(0, 64, 4))
    vectors.append({"comment": "typed in groups", "root": vectors[1]["root"], "code": spaced, "outcome": "accept"})
    vectors.append({"comment": "capitals", "root": vectors[1]["root"], "code": code.upper(), "outcome": "accept"})
    wrong = [code[:-1], code[:-1] + ("p" if code[-1] == "q" else "q"), code[:40] + code[40:].upper(), "", "clkit1"]
    vectors += [{"comment": "wrong", "code": item, "outcome": "bad-kit-code"} for item in wrong]
    write("kit-codes", "docs/spec/identity.md section 5", vectors)


def key_boxes() -> None:
    rand = seeded("key boxes")
    person = idy.new_person(custodians=[], rand=rand)
    manager = idy.new_organisation(nodes=[], rand=rand).token
    account_key, halves, root = rand(32), (rand(32), rand(32)), person.secrets.root
    secrets = idy.renewed_secrets(person.secrets.device, sequence=4, rand=rand)
    passphrase = "Grüne Äpfel, 3 Stück"
    ways = [
        idy.passphrase_way(passphrase, token=person.token, account_key=account_key, rand=rand, memory_kib=256),
        idy.kit_way(root, token=person.token, account_key=account_key, rand=rand),
        wrap_with_halves(account_key, token=person.token, manager=manager, halves=halves, rand=rand),
    ]
    box = idy.create_key_box(secrets, token=person.token, account_key=account_key, ways=ways, rand=rand)
    shares = split(halves[1], n=4, t=3, coefficients=[rand(32), rand(32)])
    opened = {
        "sequence": secrets.sequence,
        "sign": secrets.sign.hex(),
        "seal": secrets.seal.hex(),
        "older": [[sequence, seal.hex()] for sequence, seal in secrets.older],
    }
    common = {
        "box": text(box),
        "account_key": account_key.hex(),
        "passphrase": passphrase,
        "root": root.hex(),
        "manager": manager,
        "manager_half": halves[0].hex(),
        "custodian_shares": [share.hex() for share in shares],
    }
    other = idy.new_person(custodians=[], rand=rand).token
    vectors = [
        {"comment": "three ways in", **common, "opened": opened, "outcome": "accept"},
        {
            "comment": "another token",
            **common,
            "box": text(msgspec.structs.replace(box, token=other)),
            "outcome": "refuse",
        },
        {
            "comment": "ways exchanged",
            **common,
            "box": text(
                msgspec.structs.replace(
                    box,
                    ways=[
                        msgspec.structs.replace(way, wrapped=wrapped.wrapped)
                        for way, wrapped in zip(box.ways, [*box.ways[1:], box.ways[0]], strict=True)
                    ],
                )
            ),
            "outcome": "refuse",
        },
        {
            "comment": "wrong secrets",
            **common,
            "passphrase": passphrase + " ",
            "root": rand(32).hex(),
            "manager_half": rand(32).hex(),
            "outcome": "refuse",
        },
    ]
    write("key-boxes", "docs/spec/identity.md sections 6 and 7", vectors)


def affiliations() -> None:
    rand = seeded("affiliations")
    organisation, other = (idy.new_organisation(nodes=[], rand=rand) for _ in range(2))
    person = idy.new_person(custodians=[], rand=rand)
    key, name = organisation.secrets.device.signing_key(), keyid(organisation.token, 0)
    hour = 3_600_000
    vectors: list[dict[str, Any]] = []

    def add(
        comment: str, outcome: str, signer: tuple[str, SigningKey] = (name, key), now: int = T0, **fields: Any
    ) -> None:
        base: dict[str, Any] = {
            "v": 1,
            "network": NETWORK,
            "organisation": organisation.token,
            "person": person.token,
            "role": "physician",
            "from_": T0 - hour,
            "until": T0 + hour,
        }
        envelope = sign(idy.Affiliation.TYPE, encode(idy.Affiliation(**(base | fields))), [signer])
        vectors.append({"comment": comment, "envelope": text(envelope), "now_ms": now, "outcome": outcome})

    add("in force", "accept")
    add("exactly 24 hours", "accept", from_=T0, until=T0 + 24 * hour)
    add("longer than 24 hours", "not-affiliated", from_=T0, until=T0 + 24 * hour + 1)
    add("ended", "expired", now=T0 + hour)
    add("last moment", "accept", now=T0 + hour - 1)
    add("not begun", "not-affiliated", now=T0 - hour - 120_001)
    add("begun within two minutes", "accept", now=T0 - hour - 120_000)
    add("ends before it begins", "not-affiliated", from_=T0, until=T0 - 1)
    add("another person", "not-affiliated", person=other.token)
    add("another organisation", "not-affiliated", organisation=other.token)
    add("another network", "wrong-network", network="00" * 32)
    add("signed by another organisation", "not-affiliated", (keyid(other.token, 0), other.secrets.device.signing_key()))
    add("signed with another key", "bad-signature", (name, SigningKey(rand(32))))
    add("signed under an unknown keyid", "unknown-key", (keyid(organisation.token, 1), key))
    add("role in capitals", "bad-field", role="Physician")
    keys = {
        name: organisation.secrets.device.signing_key().public.hex(),
        keyid(other.token, 0): other.secrets.device.signing_key().public.hex(),
    }
    write(
        "affiliations",
        "docs/spec/identity.md section 8",
        vectors,
        network=NETWORK,
        keys=keys,
        person=person.token,
        organisation=organisation.token,
    )


if __name__ == "__main__":
    for make in (bech32m, tokens, operations, documents, kits, key_boxes, affiliations):
        make()
