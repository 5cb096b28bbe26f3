"""The files that the registry and the wheel publish, and their metadata. No build, no network."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from PIL import Image
from setuptools import find_packages

from tools.package_files import LIBRARY, registry_files, tracked_files

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
LOADED = ("locales", "nodes", "subgraphs", "vipaint_ops", "web", "workflows")
PUBLISHED = {*LOADED, "__init__.py", "pyproject.toml", "requirements.txt"}
PUBLISHED |= {"LICENSE", "README.md", "CHANGELOG.md", "docs"}


@cache
def pyproject() -> dict:
    tomllib = pytest.importorskip("tomllib", reason="in the standard library from Python 3.11 on")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_registry_gets_the_pack_and_nothing_for_development():
    assert {name.partition("/")[0] for name in registry_files()} == PUBLISHED


@pytest.mark.parametrize("folder", LOADED)
def test_folders_that_the_pack_loads_are_published_whole(folder):
    tracked = {name for name in tracked_files() if name.startswith(f"{folder}/")}
    assert tracked
    assert tracked <= set(registry_files())


def test_images_of_the_readme_are_published():
    images = re.findall(r"!\[[^]]*\]\((?!https?:)([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert images
    assert set(images) <= set(registry_files())


def test_published_code_calls_neither_eval_nor_exec():
    """The registry does not accept packs that do."""
    for name in registry_files():
        if name.endswith(".py"):
            nodes = ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8")))
            calls = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
            assert not calls & {"eval", "exec"}, name


def test_the_wheel_has_every_module_and_asset():
    setuptools = pyproject()["tool"]["setuptools"]
    found = set(find_packages(str(ROOT), include=setuptools["packages"]["find"]["include"]))
    library = {Path(name) for name in tracked_files() if name.startswith(LIBRARY)}
    assert found == {".".join(path.parent.parts) for path in library if path.suffix == ".py"}
    assets = [path.relative_to(LIBRARY) for path in library if path.suffix != ".py"]
    patterns = setuptools["package-data"]["vipaint_ops"]
    assert not [path for path in assets if not any(path.match(pattern) for pattern in patterns)]


def test_metadata_of_the_registry():
    project, comfy = pyproject()["project"], pyproject()["tool"]["comfy"]
    repository = project["urls"]["Repository"]
    assert all(url.startswith(repository) for url in project["urls"].values())
    raw = repository.replace("github.com", "raw.githubusercontent.com") + "/main/"
    for key in ("Icon", "Banner"):
        assert comfy[key].startswith(raw)
        assert (ROOT / comfy[key].removeprefix(raw)).is_file()
    assert re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])


def test_icon_is_square_and_banner_is_wide():
    with Image.open(IMAGES / "icon.png") as icon, Image.open(IMAGES / "banner.png") as banner:
        width, height = banner.size
        assert icon.width == icon.height <= 400
        assert width * 9 == height * 21
