"""Trust row 2: all n custodians pool every secret, every store and every share, and still read no record.

The attackers' procedure is proven to work: given the one thing they lack, a consent key, it opens every record.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from careledger.consent import ConsentEvent, decode_event_message
from careledger.consent.box import open_grant_box, open_own_box
from careledger.consent.event import Compartments, Grant, Rekey, decode_event
from careledger.custody.shelf import RecordRow, Shelf
from careledger.custody.store import Store
from careledger.errors import Error
from careledger.records import Manifest
from careledger.records.keys import consent_key, content_aad, content_key
from careledger.records.locks import Lock, decode_lock, decode_shares, open_lock
from careledger.records.manifest import SubmissionStatement
from careledger.seal import Envelope, SealingKey, combine, decode, open_content, share_commitment, unb64

COLUMNS = "entry, record, submission, position, compartment, epoch, recorded, author, manifest_at, manifest_length"


class Loot:
    """Everything of one custodian, opened with its own software and its own keys."""

    def __init__(self, scene: Any, node: Any) -> None:
        self.settings = scene.secrets(node)
        self.store = Store(node.folder / "store")
        shelf = Shelf(self.store)
        self.rows = [RecordRow(*row) for row in self.store.reading.execute(f"SELECT {COLUMNS} FROM records")]
        self.shares = {row.record_id: shelf.share(row) for row in self.rows}
        self.ciphertexts = {row.record_id: shelf.ciphertext(row) for row in self.rows}
        self.manifests = {row.record_id: decode(shelf.manifest(row), Manifest) for row in self.rows}
        self.locks: list[tuple[SubmissionStatement, Lock]] = []
        reading = self.store.reading
        for number, envelope in reading.execute("SELECT id, envelope FROM submissions").fetchall():
            statement = decode(unb64(decode(envelope, Envelope).payload), SubmissionStatement)
            locks = reading.execute("SELECT lock FROM locks WHERE submission = ?", (number,))
            self.locks += [(statement, decode_lock(lock)) for (lock,) in locks]
        messages = [decode_event_message(event) for (event,) in reading.execute("SELECT event FROM consent")]
        self.events = [
            (decode_event(unb64(decode(one.envelope, Envelope, size_max=1 << 20).payload)), one) for one in messages
        ]

    def close(self) -> None:
        self.store.close()

    def seeds(self) -> set[bytes]:
        """Every 32-byte value in secrets.json."""
        secrets = msgspec.json.decode((self.settings.path / "secrets.json").read_bytes(), type=dict[str, Any])
        texts = [value for value in secrets.values() if isinstance(value, str) and value]
        return {unb64(text) for text in [*texts, *secrets.get("former_sealing", {}).values()]}


def thirty_twos(folder: Path) -> Iterable[bytes]:
    """Every 32-byte value in any column of any database of a node: wrapping keys by halves, salts, digests, roots."""
    for path in folder.rglob("*.db"):
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in database.execute(f'SELECT * FROM "{table}"'):
                for value in row:
                    if isinstance(value, bytes) and 32 <= len(value) <= 64 and len(value) % 32 == 0:
                        yield from (value[at : at + 32] for at in range(0, len(value), 32))
        database.close()


def try_records(loot: list[Loot], consents: dict[bytes, list[bytes]]) -> int:
    """How many records open with these candidates for K_consent, once all shares are put together."""
    opened = 0
    for record, manifest in loot[0].manifests.items():
        shares = [one.shares[record] for one in loot]
        release = combine(shares[:3])
        assert all(combine(list(some)) == release for some in itertools.combinations(shares, 3)), "K_release is theirs"
        for share in shares:
            assert share_commitment(record, share).hex() == manifest.shares[share[-1] - 1]
        aad = content_aad(
            network=manifest.network,
            subject=manifest.subject,
            author=manifest.author,
            record=manifest.record,
            compartment=manifest.compartment,
            epoch=manifest.epoch,
        )
        for candidate in consents.get(record, []):
            try:
                open_content(content_key(candidate, release), loot[0].ciphertexts[record], aad=aad)
            except Error:
                continue
            opened += 1
            break
    return opened


def secrets_of(loot: list[Loot], keys: Iterable[SealingKey]) -> list[Any]:
    """What opens with these private keys: locks of submissions, boxes of consent events. Own release locks are known.

    Returns everything else that opened.
    """
    found: list[Any] = []
    held = list(keys)
    for statement, lock in loot[0].locks:
        for key in held:
            try:
                secret = open_lock(lock, statement=statement, key=key)
            except Error:
                continue
            if lock.use == "release":
                assert decode_shares(secret)
            else:
                found.append(secret)
    for event, message in loot[0].events:
        for box, key in itertools.product(message.boxes, held):
            found += opened_boxes(event, box, key)
    return found


def opened_boxes(event: ConsentEvent, box: bytes, key: SealingKey) -> list[Any]:
    """What a box of a consent event opens to with this key, for whomever it may be addressed to."""
    found: list[Any] = []
    own = [event.subject + "#0"] if isinstance(event, Compartments | Rekey) else []
    granted = [event.to] if isinstance(event, Grant) else []
    if isinstance(event, Rekey):
        granted = [named.to for named in event.boxes]
    for to in own:
        with suppress(Error):
            found.append(open_own_box(event, box, keyid=to, key=key))
    for to in granted:
        with suppress(Error):
            found.append(open_grant_box(event, box, keyid=to, key=key))
    return found


def test_all_nodes_secrets_stores_and_shares_open_no_record(new_scene: Any) -> None:
    scene = new_scene()

    async def story() -> Any:
        chart = await scene.chart(4)
        await scene.open(chart)
        grant = await scene.world.let_read(chart.patient, scene.stranger.keys.token)
        await chart.patient.revoke(grant)
        await scene.until_published()
        return chart

    chart = scene.run(story())
    seeds = {place: chart.patient.chain.compartment_key(*place) for place in chart.patient.chain.seeds()}
    scene.local.stop()
    loot = [Loot(scene, node) for node in scene.local.nodes]
    assert len(loot[0].manifests) == 4
    assert all(one.manifests.keys() == loot[0].manifests.keys() for one in loot)

    own = set().union(*(one.seeds() for one in loot))
    assert len(own) >= 5 * len(loot)
    everything = own.union(*(thirty_twos(node.folder) for node in scene.local.nodes))
    shares = {share[:32] for one in loot for share in one.shares.values()}
    releases = {combine([one.shares[record] for one in loot[:3]]) for record in loot[0].manifests}
    everything |= shares | releases
    assert len(everything) > 200

    # Every private key there is, on every lock and box; every value there is, as if it were a private key, on the
    # owner and consent locks; and every value as consent key, or as the secret that consent keys come from.
    assert secrets_of(loot, (SealingKey(seed) for seed in own)) == []
    sealed = [(statement, lock) for statement, lock in loot[0].locks if lock.use != "release"]
    for seed in everything - own:
        for statement, lock in sealed:
            try:
                open_lock(lock, statement=statement, key=SealingKey(seed))
            except Error:
                continue
            raise AssertionError(f"a value on the nodes' disks opens the {lock.use} lock")
    candidates = {
        record: [key for value in everything for key in (value, consent_key(value, record))]
        for record in loot[0].manifests
    }
    assert try_records(loot, candidates) == 0

    # The same procedure with the one thing they lack.
    consents: dict[bytes, list[bytes]] = {}
    for statement, lock in sealed:
        if lock.use == "consent":
            secret = open_lock(lock, statement=statement, key=seeds[lock.compartment, lock.epoch])
            for record, manifest in loot[0].manifests.items():
                if manifest.submission == statement.submission and manifest.compartment == lock.compartment:
                    consents[record] = [consent_key(secret, record)]
    assert try_records(loot, consents) == 4
    assert secrets_of(loot, [chart.patient.keys.sealing()]), "the subject's key opens its own boxes and owner locks"
    for one in loot:
        one.close()
