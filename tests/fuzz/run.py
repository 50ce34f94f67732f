"""Run the fuzz targets of this folder: `python tests/fuzz/run.py --inputs 1000000` runs every one in its own process,
as many at a time as there are cores.

A target takes bytes and may raise nothing but careledger.errors.Error. With atheris (Linux) inputs are guided by
coverage; without it they are mutations of the seeds. The last line on stdout is a summary in JSON; exit 1 if anything
else was raised. The input that did it is kept in --crashes, and `--target NAME --replay FILE` shows its traceback.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
INPUT_BYTES_MAX = 65_536
INPUT_S = 20
"""An input that takes longer is a finding too."""
DICTIONARY = [
    b"{}",
    b"[]",
    b'""',
    b"null",
    b"0",
    b"-1",
    b"1e9",
    b"9007199254740993",
    b"18446744073709551616",
    b"\x00" * 32,
    b"\xff" * 8,
    b"\xc0",
    b"\xc1",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\r\n\r\n",
    b"\xe2\x80\xa8",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"#0",
    b"../",
    b"[" * 300,
    b'{"a":' * 300,
    b"\x91" * 300,
]


class Target(NamedTuple):
    """One parser of foreign bytes with inputs to begin from."""

    name: str
    call: Callable[[bytes], object]
    seeds: list[bytes]


class Result(NamedTuple):
    """What a run of one target found: inputs tried, what failed (empty: nothing), seconds."""

    target: str
    inputs: int
    failure: str
    seconds: float


def load() -> dict[str, Target]:
    """Every target of every targets_*.py, by name."""
    found: dict[str, Target] = {}
    for path in sorted(HERE.glob("targets_*.py")):
        spec = importlib.util.spec_from_file_location(f"careledger_fuzz_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        assert module.TARGETS.keys() == module.SEEDS.keys(), f"{path.name} names other seeds than targets"
        for name, call in module.TARGETS.items():
            assert name not in found, f"two targets are called {name}"
            found[name] = Target(name, call, list(module.SEEDS[name]))
    return found


def mutations(seeds: Sequence[bytes], *, seed: int) -> Iterator[bytes]:
    """Endless inputs: seeds with bits flipped, bytes put in and taken out, parts repeated, exchanged and cut off."""
    rng = random.Random(seed)
    pool = [*seeds, b""]
    while True:
        data = bytearray(rng.choice(pool))
        for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
            _mutate(data, rng, pool)
        yield bytes(data[:INPUT_BYTES_MAX])


def _mutate(data: bytearray, rng: random.Random, pool: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 1, 2, 4, 16, 64)))
    kind = rng.randrange(8)
    if kind == 0 and data:
        data[at % len(data)] ^= 1 << rng.randrange(8)
    elif kind == 1 and data:
        data[at % len(data)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif kind == 2:
        del data[at:end]
    elif kind == 3:
        data[at:at] = rng.choice(DICTIONARY)
    elif kind == 4:
        data[at:at] = data[at:end] * rng.choice((1, 2, 50))
    elif kind == 5:
        other = rng.choice(pool)
        start = rng.randrange(len(other) + 1)
        data[at:end] = other[start : start + rng.choice((1, 8, 64, 4096))]
    elif kind == 6:
        data[at:end] = rng.randbytes(end - at)
    else:
        del data[at:]


def try_one(target: Target, data: bytes) -> bool:
    """Whether the target accepts the input; raises what is not a refusal."""
    from careledger.errors import Error

    try:
        target.call(data)
    except Error:
        return False
    return True


def run_mutations(target: Target, *, inputs: int, seed: int) -> tuple[int, bytes | None, str]:
    """(inputs tried, the one that failed, how) of the seeds and then mutations of them."""
    stream = mutations(target.seeds, seed=seed)
    for number in range(inputs):
        data = target.seeds[number] if number < len(target.seeds) else next(stream)
        started = time.perf_counter()
        try:
            try_one(target, data)
        except Exception:
            return number + 1, data, traceback.format_exc(limit=-6)
        if time.perf_counter() - started > INPUT_S:
            return number + 1, data, f"an input took more than {INPUT_S} s"
    return inputs, None, ""


def _run_atheris(name: str, *, inputs: int, seed: int, crashes: Path) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["careledger"]):
        target = load()[name]
    corpus = Path(tempfile.mkdtemp(prefix="careledger-corpus-"))
    for number, data in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(data)
    words = crashes / f"{name}.dict"
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in DICTIONARY if len(word) < 64)
    words.write_text("".join(f'"{word}"\n' for word in escaped))

    def one(data: bytes) -> None:
        try_one(target, data)

    options = [
        f"-runs={inputs}",
        f"-seed={seed}",
        f"-max_len={max(map(len, [bytes(INPUT_BYTES_MAX), *target.seeds]))}",
        f"-timeout={INPUT_S}",
        f"-dict={words}",
        f"-artifact_prefix={crashes}/{name}-",
        "-rss_limit_mb=1500",
        "-len_control=20",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def run_apart(name: str, *, engine: str, inputs: int, seed: int, crashes: Path) -> Result:
    """Run one target in a process of its own."""
    started = time.perf_counter()
    command = [sys.executable, str(HERE / "run.py"), "--target", name, "--inputs", str(inputs), "--seed", str(seed)]
    command += ["--engine", engine, "--crashes", str(crashes), "--alone"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    said = done.stdout + done.stderr
    counted = re.findall(r"(?:stat::number_of_executed_units:\s*|^inputs )(\d+)", said, re.MULTILINE)
    tried = int(counted[-1]) if counted else 0
    failure = "" if done.returncode == 0 else said[-3000:].strip()
    return Result(name, tried, failure, round(time.perf_counter() - started, 1))


def _alone(arguments: argparse.Namespace) -> int:
    if arguments.engine == "atheris":
        _run_atheris(arguments.target[0], inputs=arguments.inputs, seed=arguments.seed, crashes=arguments.crashes)
    target = load()[arguments.target[0]]
    tried, data, failure = run_mutations(target, inputs=arguments.inputs, seed=arguments.seed)
    print(f"inputs {tried}")
    if data is not None:
        (arguments.crashes / f"{target.name}-{arguments.seed}").write_bytes(data)
        print(failure)
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, help="for each target")
    parser.add_argument("--target", action="append", help="only this one (may be repeated)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=("auto", "atheris", "mutations"), default="auto")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at the same time")
    parser.add_argument("--crashes", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--replay", type=Path, help="run the target on this file's bytes")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    if arguments.engine == "auto":
        arguments.engine = "atheris" if importlib.util.find_spec("atheris") else "mutations"
    arguments.crashes.mkdir(parents=True, exist_ok=True)
    if arguments.alone:
        return _alone(arguments)
    targets = load()
    unknown = set(arguments.target or ()) - targets.keys()
    if unknown:
        print(f"run.py: there is no target {min(unknown)}; --list names them", file=sys.stderr)
        return 2
    if arguments.list:
        print("\n".join(targets))
        return 0
    if arguments.replay is not None:
        print("accepted" if try_one(targets[arguments.target[0]], arguments.replay.read_bytes()) else "refused")
        return 0
    results = []
    started = time.perf_counter()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        options = {"engine": arguments.engine, "inputs": arguments.inputs, "seed": arguments.seed}
        waiting = [
            pool.submit(run_apart, name, crashes=arguments.crashes, **options) for name in arguments.target or targets
        ]
        for ended in as_completed(waiting):
            result = ended.result()
            results.append(result)
            verdict = "FAILED" if result.failure else "ok"
            print(f"{verdict:6} {result.target}: {result.inputs} inputs in {result.seconds} s", flush=True)
            if result.failure:
                print(result.failure, flush=True)
    failed = [one.target for one in results if one.failure]
    summary = {
        "engine": arguments.engine,
        "targets": len(results),
        "inputs": sum(one.inputs for one in results),
        "inputs_each": arguments.inputs,
        "failed": failed,
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(json.dumps(summary))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
