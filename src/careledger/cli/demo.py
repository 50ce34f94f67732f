"""`careledger demo`: the whole story on a network that this command starts, and its facts as one line of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from careledger.bench import World
from careledger.bench.world import now_ms
from careledger.cli.session import run_loop
from careledger.cli.story import Story
from careledger.cli.tamper import flip_a_byte, sign_again
from careledger.custody import read_cosigned, read_log_file
from careledger.directory.engines.cometbft.install import find_engine
from careledger.errors import MalformedError, NotFoundError
from careledger.fhir import FileReading, ReadOptions, demo_patients, read_folder
from careledger.node import Engine, LocalNetwork
from careledger.verify import Known, trust_of_genesis, verify_log

__all__ = ["run_demo"]

FACTS = (
    *("patients", "resources", "records", "nodes", "threshold", "engine", "submissions"),
    *("opened_records", "opened_resources", "bytes_equal", "refused_without_grant", "revocation_effective_ms"),
    *("refused_after_revocation", "audit_entries", "audit_complete", "tamper_detected", "tamper_index"),
    *("resigned_detected", "plaintext_on_disk", "strings_checked", "scan_selftest", "seconds"),
)
"""The names of the last line, in design section 9's order."""
_CHUNK = 1 << 20


def run_demo(
    *, data: Path | None, nodes: int, folder: Path | None, check: bool, out: TextIO, engine: Engine = "embedded"
) -> int:
    """Play the story; with `check` print the facts as the last line on `out` and return 0 only if they all hold.

    Without `check` the network stays up afterwards until interrupted. Raises the Errors of what fails.
    """
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    place = folder or Path(tempfile.mkdtemp(prefix="careledger-demo-"))
    if folder is not None and any(folder.glob("node-*")):
        raise MalformedError("folder-in-use", f"{folder} holds a demo already; choose another folder or delete it")
    try:
        return run_loop(_play(place, data=data, nodes=nodes, engine=engine, check=check, out=out, console=console))
    finally:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)


async def _play(
    folder: Path, *, data: Path | None, nodes: int, engine: Engine, check: bool, out: TextIO, console: Console
) -> int:
    if engine == "cometbft":
        find_engine()  # before anything is begun
    local = LocalNetwork.found(folder, count=nodes, now_ms=now_ms(), engine=engine)
    started = time.perf_counter()
    try:
        await local.start()
        seconds = {"start": time.perf_counter() - started}
        console.print(f"[bold]1[/] {nodes} nodes of {nodes} organisations are up ({seconds['start']:.1f} s)")
        async with World(local) as world:
            story = Story(local, world)
            story.seconds |= seconds
            await _tell(story, _readings(data, console), console)
            facts = _facts(story, nodes, engine)
            if not check:
                await _stay(local, console)
                return 0
        local.stop()
        _tamper(story, facts, folder, console)
        out.write(json.dumps({name: facts[name] for name in FACTS}, separators=(",", ":")) + "\n")
        out.flush()
        return 0 if _holds(facts) else 1
    finally:
        local.stop()


def _readings(data: Path | None, console: Console) -> list[tuple[str, FileReading]]:
    """The files' readings; a file that is refused is named and left out, unless none is left."""
    if data is None:
        sources: dict[str, Path | bytes] = dict(demo_patients())
    else:
        paths = sorted(data.iterdir()) if data.is_dir() else [data]
        sources = {path.name: path for path in paths if path.name.endswith((".json", ".json.gz", ".ndjson"))}
    if not sources:
        raise NotFoundError("no-data", f"{data} holds no .json or .json.gz file; point --data at FHIR R4 bundles")

    def chunks(name: str) -> Iterator[bytes]:
        source = sources[name]
        if isinstance(source, bytes):
            yield source
            return
        with source.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    readings = []
    for outcome in read_folder(list(sources), chunks, options=ReadOptions()):
        if outcome.refused is not None:
            console.print(f"careledger: {escape(f'{outcome.file}: {outcome.refused}')}")
        elif outcome.reading is not None:
            readings.append((outcome.file, outcome.reading))
    if not readings:
        raise NotFoundError("no-data", "no file could be read as one person's FHIR R4 record")
    return readings


async def _tell(story: Story, readings: list[tuple[str, FileReading]], console: Console) -> None:
    first, second, third = (story.organisation(number) for number in range(3))
    await story.enrol(readings)
    console.print(f"[bold]2[/] {len(story.charts)} patients are enrolled; each let {first} contribute")
    with Progress(
        TextColumn("  sealing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console, transient=True
    ) as progress:
        task = progress.add_task("import", total=len(story.charts))
        await story.import_charts(progress=lambda _: progress.advance(task))
    story.count()
    facts = story.facts
    console.print(
        f"[bold]3[/] {first} sealed {facts['resources']} resources as {facts['records']} records, "
        f"safe at every custodian ({story.seconds['import']:.1f} s)"
    )
    code = await story.refuse_without_grant()
    console.print(f"[bold]4[/] a clinician of {third} asks without a grant: [red]refused[/] ({code})")
    await story.grant()
    await story.open_charts()
    story.count()
    console.print(
        f"[bold]5[/] the patients grant {second}; its clinician opens {facts['opened_records']} records, "
        f"{facts['opened_resources']} resources, bytes equal: {facts['bytes_equal']} ({story.seconds['open']:.1f} s)"
    )
    await story.revoke()
    console.print(
        f"[bold]6[/] the first patient revokes: effective after {facts['revocation_effective_ms']} ms; "
        f"the clinician asks again: [red]refused[/] ({facts['refused_after_revocation']})"
    )
    await story.audit()
    console.print(
        f"[bold]7[/] the patients read who asked: {facts['audit_entries']} accesses, "
        f"complete under cosigned checkpoints: {facts['audit_complete']}"
    )


def _facts(story: Story, nodes: int, engine: Engine) -> dict[str, object]:
    return story.facts | {"nodes": nodes, "engine": engine}


def _tamper(story: Story, facts: dict[str, object], folder: Path, console: Console) -> None:
    """Scan the disks, then tamper with copies: a flipped byte, and an operator who rewrites and signs again."""
    story.scan(folder / "scan-selftest")
    shutil.rmtree(folder / "scan-selftest")
    facts |= {name: story.facts[name] for name in ("plaintext_on_disk", "strings_checked", "scan_selftest")}
    console.print(
        f"[bold]8[/] {facts['strings_checked']} long strings of the charts were looked for on the nodes' disks: "
        f"{facts['plaintext_on_disk']} found (the scan finds planted ones: {facts['scan_selftest']})"
    )

    verify = _verifier(story.local)
    flipped = flip_a_byte(story.local, folder / "tampered", rand=os.urandom, verify=verify)
    facts |= {"tamper_detected": flipped.detected, "tamper_index": flipped.index}
    console.print(f"[bold]9[/] one byte of a log flipped: {escape(flipped.line)}")
    resigned = sign_again(story.local, folder / "tampered", rand=os.urandom, verify=verify)
    facts["resigned_detected"] = resigned.detected
    console.print(f"[bold]10[/] an operator rewrites an entry and signs again: {escape(resigned.line)}")
    facts["seconds"] = {name: round(value, 3) for name, value in story.seconds.items()}


def _verifier(local: LocalNetwork) -> Callable[[Path], None]:
    """What an auditor does with a log folder: the network's keys, and what the other members remember of the log."""
    trust = trust_of_genesis(local.genesis, network=local.network)
    tokens = {node.name: node.token for node in local.nodes}

    def verify(copy: Path) -> None:
        token = tokens[copy.name]
        origin = trust.log(token).name
        known = []
        for node in local.nodes:
            remembered = read_cosigned(node.folder / "witness.db", origin)
            if remembered is not None:
                size, root = remembered
                known.append(Known(size=size, root=root.hex(), source=f"the witness of {node.name}"))
        verify_log(
            lambda path: read_log_file(copy / "log", path),
            verifier=trust.log(token),
            witnesses=trust.witnesses(besides=token),
            cosignatures_needed=trust.log_needed,
            known=known,
        )

    return verify


def _holds(facts: dict[str, object]) -> bool:
    """Whether every fact is what the story promises."""
    return (
        facts["bytes_equal"] is True
        and facts["opened_records"] == facts["records"]
        and facts["opened_resources"] == facts["resources"]
        and facts["refused_without_grant"] == "no-grant"
        and facts["refused_after_revocation"] == "revoked"
        and facts["audit_complete"] is True
        and facts["tamper_detected"] is True
        and facts["resigned_detected"] is True
        and facts["plaintext_on_disk"] == 0
        and facts["scan_selftest"] is True
    )


async def _stay(local: LocalNetwork, console: Console) -> None:
    """Keep the network up until interrupted."""
    console.print("The network stays up. The API of each organisation's node (press Ctrl-C to stop):")
    for node in local.nodes:
        console.print(f"  {node.name}  {node.url}/health")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        console.print("Stopping.")
        raise
