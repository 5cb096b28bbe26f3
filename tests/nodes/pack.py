"""Modules of the pack that import the library, as ComfyUI loads them: in a package that is the repository's folder."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

_NAME = "vipaint_pack"


def load(name: str) -> ModuleType:
    """The module of that name, such as ``nodes.host.schedule``, without the extension's entry point."""
    if _NAME not in sys.modules:
        package = sys.modules[_NAME] = ModuleType(_NAME)
        package.__path__ = [str(Path(__file__).parents[2])]
    return importlib.import_module(f"{_NAME}.{name}")
