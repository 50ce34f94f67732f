"""Other people's software, for the tests that put it on the other end."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def check_log() -> ModuleType:
    """The module check_log.py: `check(folder, vkey_file)` and its parts, with its Go programs built."""
    name = "careledger_interop_check_log"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "check_log.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    module = sys.modules[name]
    module.binaries()
    return module
