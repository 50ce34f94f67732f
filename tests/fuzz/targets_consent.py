"""What of careledger.consent and careledger.access reads bytes from outside: only careledger.errors.Error may come out.

Each target takes arbitrary bytes; where something is accepted, it also asserts what acceptance promises.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from careledger import access, consent, tlog
from careledger.consent import box as boxes
from careledger.seal import (
    Envelope,
    SealingKey,
    SealingPublicKey,
    SigningKey,
    VerifyKey,
    decode,
    encode,
    sign,
    unb64,
)

NETWORK = "ab" * 32
SUBJECT, READER, NODE = ("cl1" + letter * 46 for letter in "qpz")
NOW = 1_760_000_000_000
KEYID = SUBJECT + "#0"
SIGN = SigningKey(bytes(32))
SEAL = SealingKey(bytes(32))
FRESH = SealingKey(b"f" * 32)
READER_SIGN = SigningKey(b"r" * 32)
KEYS = {KEYID: VerifyKey(SIGN.public), READER + "#0": VerifyKey(READER_SIGN.public)}
LOG = tlog.Signer(access.origin(NETWORK, NODE), SigningKey(b"n" * 32))


def _counting() -> Callable[[int], bytes]:
    count = iter(range(1 << 30))
    return lambda size: hashlib.shake_256(str(next(count)).encode()).digest(size)


def _chain() -> tuple[list[consent.EventMessage], list[tuple[consent.ConsentEvent, str]], consent.ConsentState]:
    rand = _counting()
    public = SealingPublicKey(SEAL.public)
    writer = consent.Writer(network=NETWORK, subject=SUBJECT, signer=(KEYID, SIGN), owner=(KEYID, public))
    state, messages, events = consent.EMPTY, [], []

    def add(message: consent.EventMessage) -> None:
        nonlocal state
        pair = consent.check_event(message, network=NETWORK, subject=SUBJECT, keys=KEYS, state=state)
        state = consent.fold(state, *pair)
        messages.append(message)
        events.append(pair)

    first = consent.first_compartments(writer, categories=["about"], now_ms=NOW, rand=rand)
    add(first.message)
    about = first.id_of("about")
    add(
        consent.make_grant(
            writer,
            state,
            grantee=READER,
            to=(READER + "#0", public),
            rights=["read"],
            purposes=["TREAT"],
            expires=NOW + 1,
            compartments=[about],
            names=first.names,
            seeds=first.seeds,
            policy="",
            text_hash="00" * 32,
            text_language="en",
            now_ms=NOW,
            rand=rand,
        )
    )
    add(consent.make_file(writer, state, record="ab" * 16, compartment=about, consent_key=bytes(32), now_ms=NOW))
    add(
        consent.make_rekey(
            writer, state, [about], seeds=first.seeds, recipients={READER: None}, now_ms=NOW + 2, rand=rand
        ).message
    )
    return messages, events, state


MESSAGES, EVENTS, STATE = _chain()
REQUEST = access.AccessRequest(
    network=NETWORK,
    reader=READER,
    subject=SUBJECT,
    records=["ab" * 16],
    purpose="TREAT",
    basis=access.Basis(kind="grant"),
    key=hashlib.sha256(FRESH.public).hexdigest(),
    head=access.Head(seq=0, hash="00" * 32),
    client="fuzz",
    time=NOW,
    nonce="00" * 16,
)
ENVELOPE, REQUEST_ID = access.sign_request(REQUEST, (READER + "#0", READER_SIGN))
MESSAGE = access.AccessMessage(request=ENVELOPE, key=FRESH.public)
BODY = access.build_entry(
    network=NETWORK,
    node=NODE,
    index=0,
    received=NOW,
    directory_height=1,
    directory_age=0,
    consent_seq=0,
    consent_hash="00" * 32,
    kind="access",
    decision="allow",
    reason="grant",
    counters={"requests": 1},
    envelopes=(ENVELOPE,),
)


def _receipt(body: bytes) -> access.Receipt:
    salt = bytes(32)
    leaf = access.leaf("access", salt, body)
    root = tlog.root_of([tlog.leaf_hash(leaf)])
    note = tlog.sign_checkpoint(tlog.Checkpoint(origin=LOG.name, size=1, root=root), signer=LOG)
    return access.Receipt(salt=salt, body=body, proof=tlog.format_proof(0, [], note))


RECEIPT = _receipt(BODY)
PLACE = {"network": NETWORK, "request": REQUEST_ID, "node": NODE, "index": 0}


def event_payload(data: bytes) -> None:
    assert encode(consent.decode_event(data)) == data


def event_message(data: bytes) -> None:
    message = consent.decode_event_message(data)
    event, message_id = consent.read_event(message, network=NETWORK, subject=SUBJECT, keys=KEYS)
    state = consent.fold_fork(SUBJECT, [*EVENTS, (event, message_id)])
    assert state.seq >= STATE.seq


def signed_event(data: bytes) -> None:
    """Any payload, signed by the subject itself: the rules must hold against the subject's own software."""
    message = consent.EventMessage(envelope=encode(sign(consent.CONSENT_TYPE, data, [(KEYID, SIGN)])), boxes=[])
    event, message_id = consent.read_event_view(message, network=NETWORK, subject=SUBJECT, keys=KEYS)
    state = consent.fold_fork(SUBJECT, [*EVENTS, (event, message_id)])
    assert state.forked or state.seq == STATE.seq + 1 or event in [known for known, _ in EVENTS]


def box(data: bytes) -> None:
    """Any plaintext in a box that opens."""
    event = EVENTS[1][0]
    assert isinstance(event, consent.Grant)
    bound_to = boxes.box_info(NETWORK, "grant", subject=SUBJECT, seq=event.seq, prev=event.prev, to=event.to)
    sealed = SealingPublicKey(SEAL.public).seal(data, info=bound_to)
    named = consent.Grant(**{**{name: getattr(event, name) for name in event.__struct_fields__}, "box": _hash(sealed)})
    opened = consent.open_grant_box(named, sealed, keyid=event.to, key=SEAL)
    assert all(len(seed) == 32 for _, seed in opened.seeds.values())


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def access_message(data: bytes) -> None:
    message = access.decode_access_message(data)
    checked = access.check_request(message, keys=KEYS, network=NETWORK, now_ms=NOW, affiliations={})
    assert checked.reader in (READER, SUBJECT)


def request_payload(data: bytes) -> None:
    """Any payload, signed by a reader."""
    envelope = encode(sign(access.AccessRequest.TYPE, data, [(READER + "#0", READER_SIGN)]))
    message = access.AccessMessage(
        request=envelope[: 1 << 17], key=FRESH.public, affiliation=data[: 1 << 13], approvals=[]
    )
    access.check_request(message, keys=KEYS, network=NETWORK, now_ms=NOW, affiliations={})


def backing(data: bytes) -> None:
    """Any bytes as approval."""
    message = access.AccessMessage(request=ENVELOPE, key=FRESH.public, approvals=[data])
    checked = access.check_request(message, keys=KEYS, network=NETWORK, now_ms=NOW, affiliations={})
    assert len(checked.approvals) <= 1


def entry_body(data: bytes) -> None:
    entry = access.decode_entry(data)
    assert encode(entry) == data
    access.request_of(entry, keys=KEYS, affiliations={})


def leaf(data: bytes) -> None:
    kind, commitment = access.parse_leaf(data)
    assert data.split() == [b"careledger/entry/v1", kind.encode(), commitment.hex().encode()]


def receipt(data: bytes) -> None:
    parsed = access.decode_receipt(data)
    entry = access.verify_receipt(parsed, network=NETWORK, node=NODE, log_verifier=LOG.verifier, kind="access")
    assert entry.index == 0


def logged_body(data: bytes) -> None:
    """Any body that is truly in the log."""
    access.verify_access_receipt(
        _receipt(data), network=NETWORK, node=NODE, log_verifier=LOG.verifier, request=REQUEST_ID
    )


def answer(data: bytes) -> None:
    parsed = access.decode_access_answer(data)
    assert access.decode_access_answer(access.encode_access_answer(parsed)) == parsed


def sealed_answer(data: bytes) -> None:
    """Any plaintext in an answer that opens."""
    bound_to = boxes.info(NETWORK, "answer", request=REQUEST_ID.hex(), node=NODE, index=0)
    sealed = SealingPublicKey(FRESH.public).seal(data, info=bound_to)
    shares = access.open_answer(sealed, key=FRESH, **PLACE)
    assert all(len(record) == 16 and len(share) == 33 for record, share in shares)


def _payload(envelope: bytes) -> bytes:
    return unb64(decode(envelope, Envelope).payload)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "consent_event_payload": event_payload,
    "consent_event_message": event_message,
    "consent_signed_event": signed_event,
    "consent_box": box,
    "access_message": access_message,
    "access_request_payload": request_payload,
    "access_backing": backing,
    "access_entry_body": entry_body,
    "access_leaf": leaf,
    "access_receipt": receipt,
    "access_logged_body": logged_body,
    "access_answer": answer,
    "access_sealed_answer": sealed_answer,
}

_PAYLOADS = [_payload(message.envelope) for message in MESSAGES]
_BOX = SEAL.open(
    MESSAGES[1].boxes[0],
    info=boxes.box_info(NETWORK, "grant", subject=SUBJECT, seq=2, prev=EVENTS[1][0].prev, to=READER + "#0"),
)
_APPROVAL = access.sign_approval(
    network=NETWORK, request=REQUEST_ID, subject=SUBJECT, approver=SUBJECT, expires=NOW, signer=(KEYID, SIGN)
)
_ANSWER = access.encode_access_answer(access.AccessAnswer(receipt=RECEIPT, sealed=b"x", submissions=[b"y"]))
_SHARES = b"\x91\x92\xc4\x10" + bytes(16) + b"\xc4\x21" + bytes(33)

SEEDS: dict[str, list[bytes]] = {
    "consent_event_payload": _PAYLOADS,
    "consent_event_message": [consent.encode_event_message(message) for message in MESSAGES],
    "consent_signed_event": _PAYLOADS,
    "consent_box": [_BOX],
    "access_message": [access.encode_access_message(MESSAGE)],
    "access_request_payload": [_payload(ENVELOPE)],
    "access_backing": [_APPROVAL],
    "access_entry_body": [BODY],
    "access_leaf": [access.leaf("access", bytes(32), BODY)],
    "access_receipt": [access.encode_receipt(RECEIPT)],
    "access_logged_body": [BODY],
    "access_answer": [_ANSWER],
    "access_sealed_answer": [_SHARES],
}
