"""Trust row 1: a node's operator, or whoever steals its disk, finds no name, code, text or date of care on it."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from careledger.cli.scan import Scanner, strings_of
from careledger.fhir import ReadOptions, demo_patients, read_file


def _scanner(readings: list[Any]) -> Scanner:
    strings: set[str] = set()
    for reading in readings:
        for draft in reading.records:
            for _, data in draft.resources:
                strings |= strings_of(data)
    return Scanner(strings)


def test_no_long_string_of_a_chart_is_on_any_nodes_disk_during_the_story_or_after_it(new_scene: Any) -> None:
    scene = new_scene()
    readings = [read_file(name, [data], options=ReadOptions()) for name, data in demo_patients()]
    scanner = _scanner(readings)
    assert len(scanner.strings) > 200
    moments: list[int] = []

    def scan() -> None:
        """Everything a thief could copy at this moment: databases, write-ahead logs, tiles, logs, settings."""
        for node in scene.local.nodes:
            files = [path.name for path in node.folder.rglob("*") if path.is_file()]
            assert {"main.db", "main.db-wal", "keys.db", "checkpoint", "secrets.json", "node.log"} <= set(files)
            assert scanner.scan(node.folder) == set(), f"plaintext in the files of {node.name}"
        moments.append(len(moments))

    async def story() -> None:
        world, author, clinician = scene.world, scene.author, scene.clinician
        anonymous = [msgspec.structs.replace(reading, patient=None) for reading in readings]
        for patient, reading in zip(await world.patients(len(readings)), anonymous, strict=True):
            await world.let_write(patient, author.staff.organisation)
            sending = asyncio.create_task(author.author.import_reading(patient.subject, reading))
            while not sending.done():
                await asyncio.to_thread(scan)
            done = sending.result()
            assert done.safe == done.records == len(reading.records)
            grant = await world.let_read(patient, clinician.staff.organisation)
            listing = await clinician.reader.list(patient.subject, purpose="TREAT")
            records = [bytes.fromhex(manifest.record) for manifest in listing.manifests]
            opened = await clinician.reader.open(patient.subject, records, purpose="TREAT")
            assert {one.data for record in opened.records for one in record.resources} == {
                data for draft in reading.records for _, data in draft.resources
            }
            scan()
            await patient.revoke(grant)
            scan()

    scene.run(story())
    during = len(moments)
    assert during >= 3 * len(readings)
    scene.run(scene.until_published())
    scan()
    scene.local.stop()
    for node in scene.local.nodes:
        assert scanner.scan(node.folder) == set()


def test_the_same_scan_finds_what_a_careless_node_would_have_written(scene: Any, tmp_path: Path) -> None:
    """Planted in a copy of a node's own files: in its log output, in a table, in the write-ahead log alone."""
    scanner = _scanner([scene.reading])
    words = sorted(scanner.strings, key=len)[-4:]
    node = scene.local.nodes[0]
    copy = tmp_path / node.name
    scene.run(scene.chart(2))
    shutil.copytree(node.folder, copy)
    assert scanner.scan(copy) == set()
    with (copy / "node.log").open("a") as log:
        log.write(f'{{"event": "open", "name": "{words[0]}"}}\n')
    database = sqlite3.connect(copy / "store" / "main.db", isolation_level=None)
    database.execute("PRAGMA wal_autocheckpoint=0")
    database.execute("UPDATE entries SET body = ? WHERE idx = 1", (words[1].encode().hex(),))
    database.execute("UPDATE entries SET body = ? WHERE idx = 2", (words[2].encode(),))
    wal = (copy / "store" / "main.db-wal").read_bytes()
    database.close()
    (tmp_path / "main.db-wal").write_bytes(wal)
    assert scanner.scan(copy) == set(words[:3])
    (tmp_path / "only-the-log").mkdir()
    shutil.move(tmp_path / "main.db-wal", tmp_path / "only-the-log" / "main.db-wal")
    assert words[2] in scanner.scan(tmp_path / "only-the-log")
