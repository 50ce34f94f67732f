"""What each package exports, held here: a name that others rely on doesn't go, and none comes, by accident."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import careledger

PACKAGES = sorted(module.name for module in pkgutil.iter_modules(careledger.__path__, "careledger.") if module.ispkg)
NAMES = Path(__file__).parent / "exports.txt"


def held() -> dict[str, list[str]]:
    """exports.txt: a package a line, then its names."""
    lines = NAMES.read_text(encoding="ascii").splitlines()
    return {package: names.split() for package, _, names in (line.partition(":") for line in lines if line)}


def test_every_package_is_held() -> None:
    assert sorted(held()) == PACKAGES


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_exports_exactly_what_is_written_down(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == held()[package], "change tests/unit/exports.txt in the same commit"


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_exported_is_there_sorted_and_public(package: str) -> None:
    module = importlib.import_module(package)
    names = list(module.__all__)
    assert len(names) == len(set(names))
    assert all(hasattr(module, name) for name in names)
    assert not any(name.startswith("_") for name in names)


def _modules() -> list[str]:
    found = pkgutil.walk_packages(careledger.__path__, "careledger.")
    return sorted(module.name for module in found if not module.name.endswith("__main__"))


@pytest.mark.parametrize("name", _modules())
def test_every_module_says_why_it_exists_and_what_it_exports(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    for exported in getattr(module, "__all__", ()):
        assert hasattr(module, exported), f"{name} exports {exported}, which it doesn't have"


def test_the_version_is_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(?:[a-z0-9.]+)?", careledger.__version__)
