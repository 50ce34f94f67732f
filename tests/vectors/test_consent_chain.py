"""vectors/consent/chain.json: a whole chain with its boxes, a fork and its repair, as bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from careledger import consent
from careledger.consent import ConsentState, fold, fold_fork
from careledger.errors import Error
from careledger.seal import SealingKey, VerifyKey, canonical, dsse

FILE = Path(__file__).resolve().parents[2] / "vectors" / "consent" / "chain.json"
VECTORS = json.loads(FILE.read_text(encoding="utf-8"))
PEOPLE = {person["keyid"]: person for person in VECTORS["people"].values()}
PATIENT = VECTORS["people"]["patient"]
SUBJECT = PATIENT["keyid"].partition("#")[0]
SEEDS = {(compartment, epoch): bytes.fromhex(seed) for compartment, epoch, seed in VECTORS["seeds"]}


def read(item: dict[str, Any]) -> tuple[consent.ConsentEvent, str]:
    return consent.read_event(
        consent.decode_event_message(bytes.fromhex(item["message"])),
        network=VECTORS["network"],
        subject=SUBJECT,
        keys={PATIENT["keyid"]: VerifyKey(bytes.fromhex(PATIENT["sign_public"]))},
    )


def described(state: ConsentState) -> dict[str, Any]:
    return {
        "seq": state.seq,
        "head": state.head,
        "heads": list(state.heads),
        "epochs": {compartment: epoch for compartment, (epoch, _) in state.compartments.items()},
        "inbox": state.inbox,
        "grants": {grant: given.revoked for grant, given in state.grants.items()},
        "filed": dict(state.filed),
        "contested": {record: list(places) for record, places in state.contested.items()},
    }


def test_every_event_and_the_state_after_it() -> None:
    state = consent.EMPTY
    for item in VECTORS["events"]:
        message = consent.decode_event_message(bytes.fromhex(item["message"]))
        assert message.envelope == item["envelope"].encode()
        assert [box.hex() for box in message.boxes] == item["boxes"]
        assert consent.encode_event_message(message).hex() == item["message"]
        event, message_id = read(item)
        assert message_id == item["message_id"]
        state = fold(state, event, message_id)
        assert described(state) == item["state"]
    assert {type(read(item)[0]).__name__ for item in VECTORS["events"]} == {
        "Compartments",
        "Grant",
        "Revoke",
        "Rekey",
        "File",
    }


def test_fork_and_merge() -> None:
    events = [read(item) for item in VECTORS["events"]]
    fork, merge = read(VECTORS["fork"]), read(VECTORS["merge"])
    assert (fork[1], merge[1]) == (VECTORS["fork"]["message_id"], VECTORS["merge"]["message_id"])
    assert described(fold_fork(SUBJECT, [*events, fork])) == VECTORS["fork"]["state"]
    assert described(fold_fork(SUBJECT, [merge, fork, *events])) == VECTORS["merge"]["state"]


def test_every_box_opens_for_its_addressee_alone() -> None:
    opened = 0
    for item in VECTORS["events"]:
        for box in item.get("opened", []):
            opened += 1
            key = SealingKey(bytes.fromhex(PEOPLE[box["to"]]["seal_seed"]))
            plaintext = key.open(bytes.fromhex(box["box"]), info=box["info"].encode())
            assert plaintext.hex() == box["plaintext"]
            event = read(item)[0]
            own = box["to"] == PATIENT["keyid"]
            reader = consent.open_own_box if own else consent.open_grant_box
            content = reader(event, bytes.fromhex(box["box"]), keyid=box["to"], key=key)
            for compartment, (epoch, seed) in content.seeds.items():
                assert SEEDS[compartment, epoch] == seed
            for other in PEOPLE.values():
                if other["keyid"] != box["to"]:
                    with pytest.raises(Error):
                        SealingKey(bytes.fromhex(other["seal_seed"])).open(
                            bytes.fromhex(box["box"]), info=box["info"].encode()
                        )
    assert opened == 6


def test_old_seeds_follow_from_new_ones_and_filed_secrets_open() -> None:
    events = [read(item)[0] for item in VECTORS["events"]]
    newest = {(compartment, epoch): seed for (compartment, epoch), seed in SEEDS.items() if epoch == 2}
    found = consent.seeds_from_rekeys(newest, events)
    assert len(newest) == 2
    assert found == {place: seed for place, seed in SEEDS.items() if (place[0], 2) in newest}
    filed, item = next((e, i) for e, i in zip(events, VECTORS["events"], strict=True) if isinstance(e, consent.File))
    assert consent.open_filed(filed, SEEDS[filed.compartment, filed.epoch]).hex() == item["secret"]


def test_payloads_are_canonical() -> None:
    for item in [*VECTORS["events"], VECTORS["fork"], VECTORS["merge"]]:
        message = consent.decode_event_message(bytes.fromhex(item["message"]))
        envelope = canonical.decode(message.envelope, dsse.Envelope)
        payload = canonical.unb64(envelope.payload)
        assert msgspec.json.encode(msgspec.json.decode(payload), order="sorted") == payload
