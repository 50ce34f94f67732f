"""The machine that figures were measured on, so that two runs can be compared.

Code that runs once every few milliseconds costs several times its microbenchmark where caches are shared with other
tenants; so the calibration has a seal that was hot and one after 5 ms of nothing, a disk sync, and how much two
processes at once slow each other down.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import cryptography
import msgspec

from careledger.seal import SealingKey, SealingPublicKey

__all__ = ["calibration", "cpu_s", "describe", "rss_mb"]

_BURN = (
    "import time,hashlib\n"
    "b=time.process_time();w=time.perf_counter()\n"
    "for _ in range({}): hashlib.sha256(b'x'*64).digest()\n"
    "print(time.perf_counter()-w)"
)


def describe() -> dict[str, Any]:
    """Cores, Python and libraries."""
    return {
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cryptography": cryptography.__version__,
        "msgspec": msgspec.__version__,
        "load_1min": round(os.getloadavg()[0], 2),
    }


def calibration(folder: Path, *, quick: bool = False) -> dict[str, Any]:
    """Medians: microseconds of a hot and a cold HPKE seal (X-Wing) and of a sync of a growing file; the slowdown that
    a second process computing at the same time brings."""
    count = 5 if quick else 200
    key, info = SealingPublicKey(SealingKey(bytes(32)).public), b"bench"

    def seal() -> None:
        key.seal(b"x" * 64, info=info)

    hot = _median_us(seal, count)
    cold = _median_us(seal, min(count, 60), before=lambda: time.sleep(0.005))
    return {
        "seal_hot_us": hot,
        "seal_cold_us": cold,
        "sync_p50_us": _sync_us(folder, 5 if quick else 100),
        "two_processes_slowdown": _slowdown(20_000 if quick else 400_000),
    }


def _median_us(work: Callable[[], None], count: int, *, before: Callable[[], None] | None = None) -> float:
    took = []
    for _ in range(count):
        if before is not None:
            before()
        started = time.perf_counter()
        work()
        took.append(time.perf_counter() - started)
    return round(median(took) * 1e6, 1)


def _sync_us(folder: Path, count: int) -> float:
    path = folder / "sync-probe"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:

        def sync() -> None:
            os.write(descriptor, bytes(4096))
            os.fdatasync(descriptor)

        return _median_us(sync, count)
    finally:
        os.close(descriptor)
        path.unlink()


def _slowdown(turns: int) -> float:
    """Time of two processes at once over that of one alone: 1.0 means that the cores don't get in each other's way."""

    def run(count: int) -> float:
        started = [
            subprocess.Popen([sys.executable, "-c", _BURN.format(turns)], stdout=subprocess.PIPE)  # noqa: S603 - ours
            for _ in range(count)
        ]
        return max(float(one.communicate()[0]) for one in started)

    return round(run(2) / run(1), 2)


def cpu_s(pid: int) -> float:
    """User and system seconds of a process so far (Linux; 0 elsewhere)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB of 10^6 bytes (Linux; 0 elsewhere)."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    for line in text.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0
