"""Who imports whom within nodes/: the host's room knows neither the loaders nor any node."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

NODES = Path(__file__).parents[2] / "nodes"


def imported(source: Path) -> set[str]:
    """Modules of the pack that a file imports, at any depth, as paths from the repository's folder with dots."""
    parts = source.relative_to(NODES.parent).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = [*parts[: len(parts) - node.level + 1], *filter(None, [node.module])]
            found |= {".".join([*above, alias.name]) for alias in node.names}
    return found


@pytest.mark.parametrize(("room", "allowed"), [("host", ("host",)), ("ldm", ("ldm", "host", "search", "sockets"))])
def test_arrows_lead_from_nodes_to_loaders_to_the_host(room, allowed):
    sources = sorted((NODES / room).glob("*.py"))
    assert sources
    others = {
        f"{source.name}: {module}"
        for source in sources
        for module in imported(source)
        if module.startswith("nodes.") and module.split(".")[1] not in allowed
    }
    assert not others


def test_relative_imports_are_understood():
    assert "nodes.host.codebook.Codebook" in imported(NODES / "ldm" / "networks.py")
    assert "vipaint_ops.errors.InputError" in imported(NODES / "host" / "prior.py")
