"""Writes vectors/consent/chain.json and vectors/access/formats.json: `python tests/vectors/make_consent_formats.py`.

Keys, ids and times are fixed, but HPKE's ephemeral is random, so each run writes other boxes and message ids. Run it
only when a format changes; the files are otherwise data that both languages must read the same way for ever.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec

from careledger import access, consent, identity, tlog
from careledger.consent.box import box_info
from careledger.seal import (
    Envelope,
    SealingKey,
    SealingPublicKey,
    SigningKey,
    VerifyKey,
    decode,
    encode,
    envelope_message_id,
)

ROOT = Path(__file__).resolve().parents[2] / "vectors"
NETWORK = hashlib.sha256(b"network of the vectors").hexdigest()
NOW = 1_760_000_000_000
HOW = "made with tests/vectors/make_consent_formats.py: fixed keys, ids and times; HPKE ephemerals random"
COUNT = 0


def rand(size: int) -> bytes:
    global COUNT  # noqa: PLW0603 — a script's own source of fixed bytes
    COUNT += 1
    return hashlib.shake_256(f"vector {COUNT}".encode()).digest(size)


class Person:
    """A token with a real checksum, and keys from fixed seeds."""

    def __init__(self, name: str) -> None:
        self.token = identity.token_of(name.encode())
        self.keyid = self.token + "#0"
        self.sign_seed = hashlib.sha256(b"sign " + name.encode()).digest()
        self.seal_seed = hashlib.sha256(b"seal " + name.encode()).digest()
        self.sign = SigningKey(self.sign_seed)
        self.seal = SealingKey(self.seal_seed)
        self.signer = (self.keyid, self.sign)
        self.recipient = (self.keyid, SealingPublicKey(self.seal.public))

    def described(self) -> dict[str, str]:
        return {
            "keyid": self.keyid,
            "sign_seed": self.sign_seed.hex(),
            "sign_public": self.sign.public.hex(),
            "seal_seed": self.seal_seed.hex(),
        }


PATIENT, ADA, BEA, CLINIC, NODE = (Person(name) for name in ("patient", "ada", "bea", "clinic", "node"))
WRITER = consent.Writer(
    network=NETWORK, subject=PATIENT.token, signer=PATIENT.signer, owner=PATIENT.recipient, role="subject"
)


class Made:
    """The chain as it is written, with what a reader of the vectors must find."""

    def __init__(self) -> None:
        self.state = consent.EMPTY
        self.items: list[dict[str, Any]] = []

    def add(self, message: consent.EventMessage, **opened: Any) -> consent.ConsentEvent:
        event, message_id = consent.check_event(
            message,
            network=NETWORK,
            subject=PATIENT.token,
            keys={PATIENT.keyid: VerifyKey(PATIENT.sign.public)},
            state=self.state,
        )
        self.state = consent.fold(self.state, event, message_id)
        self.items.append(
            {
                "envelope": message.envelope.decode(),
                "boxes": [box.hex() for box in message.boxes],
                "message": consent.encode_event_message(message).hex(),
                "message_id": message_id,
                "state": state_of(self.state),
                **opened,
            }
        )
        return event


def state_of(state: consent.ConsentState) -> dict[str, Any]:
    return {
        "seq": state.seq,
        "head": state.head,
        "heads": list(state.heads),
        "epochs": {compartment: epoch for compartment, (epoch, _) in sorted(state.compartments.items())},
        "inbox": state.inbox,
        "grants": {grant: given.revoked for grant, given in sorted(state.grants.items())},
        "filed": dict(sorted(state.filed.items())),
        "contested": {record: list(places) for record, places in sorted(state.contested.items())},
    }


def opened_box(event: consent.ConsentEvent, box: bytes, who: Person) -> dict[str, Any]:
    use = "grant" if isinstance(event, consent.Grant) else "rekey"
    bound_to = box_info(NETWORK, use, subject=event.subject, seq=event.seq, prev=event.prev, to=who.keyid)
    plaintext = who.seal.open(box, info=bound_to)
    return {"box": box.hex(), "to": who.keyid, "info": bound_to.decode(), "plaintext": plaintext.hex()}


def chain() -> dict[str, Any]:
    made = Made()
    terms: dict[str, Any] = {
        "purposes": ["ETREAT", "TREAT"],
        "expires": NOW + 86_400_000,
        "policy": "https://careledger.example/policy/1",
        "text_hash": hashlib.sha256(b"text").hexdigest(),
        "text_language": "de-AT",
        "rand": rand,
    }
    first = consent.first_compartments(WRITER, categories=["about", "warnings", "private"], now_ms=NOW, rand=rand)
    seeds = dict(first.seeds)
    about, warnings = first.id_of("about"), first.id_of("warnings")
    event = made.add(first.message)
    made.items[-1]["opened"] = [opened_box(event, first.message.boxes[0], PATIENT)]

    def grant(who: Person, **changes: Any) -> consent.Grant:
        message = consent.make_grant(
            WRITER,
            made.state,
            grantee=who.token,
            to=who.recipient,
            names=first.names,
            seeds=seeds,
            now_ms=NOW + made.state.seq,
            **{**terms, **changes},
        )
        given = made.add(message)
        assert isinstance(given, consent.Grant)
        made.items[-1]["opened"] = [opened_box(given, message.boxes[0], who)]
        return given

    ended = grant(ADA, rights=["read"], compartments=[about, warnings])
    grant(
        CLINIC,
        rights=["read", "contribute"],
        compartments=[about],
        range=consent.Range(from_=NOW - 1000),
        joint=consent.Joint(k=1, tokens=[ADA.token, BEA.token]),
    )
    grant(BEA, rights=["read"], records={"ab" * 16: b"k" * 32})
    messages, new = consent.make_revocation_with_rekey(
        WRITER,
        made.state,
        ended.grant,
        seeds=seeds,
        recipients={CLINIC.token: CLINIC.recipient},
        now_ms=NOW + 10,
        rand=rand,
    )
    seeds.update(new)
    made.add(messages[0])
    rekey = made.add(messages[1])
    made.items[-1]["opened"] = [
        opened_box(rekey, messages[1].boxes[0], PATIENT),
        opened_box(rekey, messages[1].boxes[1], CLINIC),
    ]
    base = made.state
    filed = consent.make_file(WRITER, base, record="cd" * 16, compartment=about, consent_key=b"c" * 32, now_ms=NOW + 11)
    event = made.add(filed, secret=(b"c" * 32).hex())
    other_message = consent.make_revocation(WRITER, base, next(reversed(base.grants)), now_ms=NOW + 12)
    other = consent.read_event(
        other_message,
        network=NETWORK,
        subject=PATIENT.token,
        keys={PATIENT.keyid: VerifyKey(PATIENT.sign.public)},
    )
    events = [
        consent.read_event(
            consent.decode_event_message(bytes.fromhex(item["message"])),
            network=NETWORK,
            subject=PATIENT.token,
            keys={PATIENT.keyid: VerifyKey(PATIENT.sign.public)},
        )
        for item in made.items
    ]
    forked = consent.fold_fork(PATIENT.token, [*events, other])
    merge_message = consent.make_merge(WRITER, forked, made.state.head, now_ms=NOW + 13)
    merge = consent.read_event(
        merge_message,
        network=NETWORK,
        subject=PATIENT.token,
        keys={PATIENT.keyid: VerifyKey(PATIENT.sign.public)},
    )
    merged = consent.fold_fork(PATIENT.token, [*events, other, merge])
    return {
        "source": "careledger",
        "section": "docs/spec/consent.md sections 2 to 5",
        "how_made": HOW,
        "network": NETWORK,
        "people": {
            "patient": PATIENT.described(),
            "ada": ADA.described(),
            "bea": BEA.described(),
            "clinic": CLINIC.described(),
        },
        "seeds": [[compartment, epoch, seed.hex()] for (compartment, epoch), seed in sorted(seeds.items())],
        "events": made.items,
        "fork": {
            "message": consent.encode_event_message(other_message).hex(),
            "message_id": other[1],
            "state": state_of(forked),
        },
        "merge": {
            "message": consent.encode_event_message(merge_message).hex(),
            "message_id": merge[1],
            "state": state_of(merged),
        },
    }


def formats() -> dict[str, Any]:
    fresh = SealingKey(hashlib.sha256(b"fresh").digest())
    affiliation = encode(
        identity.sign_affiliation(
            network=NETWORK,
            organisation=CLINIC.token,
            person=ADA.token,
            role="clinician",
            from_ms=NOW - 1000,
            until_ms=NOW + 3_600_000,
            signer=CLINIC.signer,
        )
    )
    request = access.AccessRequest(
        network=NETWORK,
        reader=ADA.token,
        for_=CLINIC.token,
        affiliation=envelope_message_id(decode(affiliation, Envelope)).hex(),
        subject=PATIENT.token,
        records=["cd" * 16, "ef" * 16],
        purpose="TREAT",
        basis=access.Basis(kind="grant", grant="12" * 16),
        key=hashlib.sha256(fresh.public).hexdigest(),
        head=access.Head(seq=3, hash="aa" * 32),
        client="careledger/0.1 (vectors, é)",
        time=NOW,
        nonce="34" * 16,
    )
    listing = msgspec.structs.replace(
        request,
        for_=msgspec.UNSET,
        affiliation=msgspec.UNSET,
        records=msgspec.UNSET,
        list_=True,
        basis=access.Basis(kind="grant"),
    )
    envelope, request_id = access.sign_request(request, ADA.signer)
    list_envelope, list_id = access.sign_request(listing, ADA.signer)
    approval = access.sign_approval(
        network=NETWORK,
        request=request_id,
        subject=PATIENT.token,
        approver=BEA.token,
        expires=NOW + 60_000,
        signer=BEA.signer,
    )
    message = access.AccessMessage(request=envelope, key=fresh.public, affiliation=affiliation, approvals=[approval])
    body = access.build_entry(
        network=NETWORK,
        node=NODE.token,
        index=2,
        received=NOW + 5,
        directory_height=7,
        directory_age=1234,
        consent_seq=3,
        consent_hash="aa" * 32,
        kind="access",
        decision="allow",
        reason="grant",
        counters={"requests": 3, "requests_max": 100},
        envelopes=(envelope, affiliation, approval),
        grant="12" * 16,
    )
    salt = hashlib.sha256(b"salt").digest()
    leaf = access.leaf("access", salt, body)
    leaves = [b"entry 0", b"entry 1", leaf, b"entry 3", b"entry 4"]
    hashes = [tlog.leaf_hash(item) for item in leaves]
    origin = access.origin(NETWORK, NODE.token)
    signer = tlog.Signer(origin, NODE.sign)
    note = tlog.sign_checkpoint(tlog.Checkpoint(origin=origin, size=5, root=tlog.root_of(hashes)), signer=signer)
    proof = tlog.format_proof(2, tlog.inclusion_proof(hashes, 2), note)
    receipt = access.Receipt(salt=salt, body=body, proof=proof)
    shares = [(bytes.fromhex("cd" * 16), b"y" * 32 + b"\x01"), (bytes.fromhex("ef" * 16), b"z" * 32 + b"\x01")]
    sealed = access.seal_answer(
        shares, key=SealingPublicKey(fresh.public), network=NETWORK, request=request_id, node=NODE.token, index=2
    )
    answer = access.AccessAnswer(receipt=receipt, sealed=sealed)
    return {
        "source": "careledger",
        "section": "docs/spec/access.md",
        "how_made": HOW,
        "network": NETWORK,
        "now": NOW,
        "people": {"ada": ADA.described(), "bea": BEA.described(), "clinic": CLINIC.described()},
        "node": {"token": NODE.token, "origin": origin, "vkey": signer.vkey},
        "fresh_seed": fresh.seed.hex(),
        "request": {"envelope": envelope.decode(), "message_id": request_id.hex()},
        "list_request": {"envelope": list_envelope.decode(), "message_id": list_id.hex()},
        "affiliation": affiliation.decode(),
        "approval": approval.decode(),
        "message": access.encode_access_message(message).hex(),
        "entry": {"salt": salt.hex(), "body": body.decode(), "leaf": leaf.decode()},
        "proof": proof.decode(),
        "receipt": access.encode_receipt(receipt).hex(),
        "answer": {
            "sealed": sealed.hex(),
            "shares": [[record.hex(), share.hex()] for record, share in shares],
            "message": access.encode_access_answer(answer).hex(),
        },
    }


if __name__ == "__main__":
    for name, made in (("consent/chain.json", chain()), ("access/formats.json", formats())):
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
