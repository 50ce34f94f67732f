"""Fixtures for tests that need a running network; what they hand out is tests/scene.py."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def scenes() -> ModuleType:
    """The module tests/scene.py: loaded only where a test asks for a network."""
    spec = importlib.util.spec_from_file_location("scene", Path(__file__).with_name("scene.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scene"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def scene(scenes: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One network of four nodes for the whole run: a test leaves it as it found it, but for more patients."""
    with scenes.Scene.played(tmp_path_factory.mktemp("network")) as played:
        yield played


@pytest.fixture
def new_scene(scenes: ModuleType, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes networks that the test may break."""
    with ExitStack() as stack:
        made = iter(range(9))
        yield lambda **options: stack.enter_context(scenes.Scene.played(tmp_path / f"network-{next(made)}", **options))
