"""The arrows of docs/architecture.md: rooms import downwards only."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def imported(source: Path) -> set[str]:
    """First names of the absolute imports of a file, at any depth."""
    nodes = list(ast.walk(ast.parse(source.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0]
    return {name.partition(".")[0] for name in names}


def test_rooms_of_the_library_import_downwards_only():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run([*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_only_the_door_and_the_loaders_import_comfy():
    sources = [path for path in (ROOT / "nodes").rglob("*.py") if path.parent.name not in ("host", "ldm")]
    assert sources
    assert not [path.name for path in sources if imported(path) & {"comfy", "latent_preview"}]
