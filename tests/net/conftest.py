"""Real CometBFT networks, for tests that ask for one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def comet_net() -> ModuleType:
    """The module comet_net.py, with CometBFT built."""
    name = "careledger_comet_net"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("comet_net.py"))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        module.binary()
    return sys.modules[name]
