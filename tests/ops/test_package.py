"""The package from outside: what it imports, what ComfyUI loads, and what the README promises."""

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import vipaint_ops
from vipaint_ops.cli.commands import COMMANDS
from vipaint_ops.cli.parser import build_parser

ROOT = Path(__file__).parents[2]
HOST = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "latent_preview", "nodes", "server"}
OPTIONAL = {"PIL", "diffusers", "kornia", "matplotlib"}  # not tqdm, which torch itself imports where it is
PUBLIC = {
    "DiffusionPrior",
    "FitConfig",
    "HierarchicalPosterior",
    "InputError",
    "NoiseSchedule",
    "Observation",
    "RefineConfig",
    "SampleResult",
    "analytic",
    "fit_posterior",
    "load_embedded_prior",
    "operators",
    "sample_posterior",
    "samplers",
}


def imports(source: Path) -> Iterator[str]:
    """Absolute names of every module that a file of vipaint_ops imports, at any depth."""
    package = ("vipaint_ops", *source.relative_to(ROOT / "vipaint_ops").parts[:-1])
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def readme_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S | re.M)


def test_importing_the_library_loads_no_host_and_nothing_optional():
    command = "import sys, vipaint_ops; print(*{name.partition('.')[0] for name in sys.modules})"
    output = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(output.stdout.split()) & (HOST | OPTIONAL)


@pytest.mark.parametrize("source", sorted((ROOT / "vipaint_ops").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_of_the_library_imports_the_host(source):
    assert not {name.partition(".")[0] for name in imports(source)} & HOST


def test_every_promised_name_is_public():
    assert set(vipaint_ops.__all__) >= PUBLIC
    assert not [name for name in vipaint_ops.__all__ if not hasattr(vipaint_ops, name)]
    assert set(vipaint_ops.__all__) == set(vipaint_ops._HOMES)


def load_pack(monkeypatch, folder: Path) -> types.ModuleType:
    """Load the pack's root as ComfyUI does: under its path for a name, dots replaced."""
    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, f"{name}.nodes", sys.modules[f"{name}.nodes"])
    return module


def test_the_pack_is_harmless_to_import_without_comfyui(monkeypatch):
    assert "comfy_api" not in sys.modules
    pack = load_pack(monkeypatch, ROOT)
    assert pack.comfy_entrypoint
    assert pack.WEB_DIRECTORY == "./web"
    assert not hasattr(pack, "NODE_CLASS_MAPPINGS"), "ComfyUI would never ask the V3 entry point"


def test_the_version_is_one_and_every_direct_dependency_has_a_tested_one():
    tomllib = pytest.importorskip("tomllib", reason="in the standard library from Python 3.11 on")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    assert project["version"] == vipaint_ops.__version__
    names = {re.split(r"[\[<>=]", requirement)[0] for requirement in wanted} - {"vipaint"}
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    assert names == set(pinned)


def test_requirements_leave_the_host_alone():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if re.match(r"(torch|numpy|kornia|safetensors)\b", line)]


def test_readme_commands_parse():
    lines = [line for block in readme_blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("vipaint ")]
    assert {command[1] for command in commands} == {*COMMANDS}
    for command in commands:
        build_parser().parse_args(command[1:])


def test_readme_python_is_ten_lines_of_what_exists():
    (example,) = readme_blocks("python")
    tree = ast.parse(example)
    assert len(tree.body) <= 13
    lines = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    exec(compile(ast.Module(lines, []), "README.md", "exec"), {})
