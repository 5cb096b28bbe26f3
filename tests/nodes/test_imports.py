"""The names that nodes import from the library exist: node files themselves load inside ComfyUI only."""

import ast
import importlib
from pathlib import Path

import pytest

NODES = Path(__file__).parents[2] / "nodes"


@pytest.mark.parametrize("source", sorted(NODES.rglob("*.py")), ids=lambda path: str(path.relative_to(NODES)))
def test_every_name_from_the_library_exists(source):
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vipaint_ops"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
