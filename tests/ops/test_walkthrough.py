"""The Python code of the pages runs as it stands, in order, in a temporary folder.

The presets have a few steps, and the model of the page has random weights.
"""

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.ops.tiny_pipelines import sd15
from vipaint_ops import PRESETS

ROOT = Path(__file__).parents[2]
MODEL = "models/stable-diffusion-v1-5"


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.S | re.M)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A temporary folder with what the pages find in the clone, and with short presets."""
    fast = PRESETS["fast"]
    short = dataclasses.replace(fast.fit, start_chains=2, start_steps=2, samples=2, decoder="exact")
    quick = fast._replace(fit=short, refine=dataclasses.replace(fast.refine, steps=3, decoder="exact"))
    for name in ("fast", "balanced"):
        monkeypatch.setitem(PRESETS, name, quick)
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.chdir(tmp_path)
    for name in ("docs/vipaint_pipeline.py", "vipaint_ops/assets/demo_scene.png"):
        Path(name).parent.mkdir(parents=True)
        shutil.copy(ROOT / name, name)
    return tmp_path


def run(page):
    names = {}
    for code in blocks(page):
        exec(compile(code, page, "exec"), names)
    return names


def test_the_readme(folder):
    run("README.md")
    assert len(list(folder.glob("sample_*.png"))) == 8


def test_the_walk_through_diffusers(folder):
    sd15().save_pretrained(MODEL)
    Image.fromarray(np.zeros((24, 16, 3), np.uint8)).save("photo.png")
    Image.fromarray(np.eye(24, 16, dtype=np.uint8) * 255).save("hole.png")
    names = run("docs/diffusers.md")
    written = {path.name for path in folder.glob("*.*")}
    assert written >= {"sample_3.png", "mean.png", "spread.png", "half.safetensors", "garden.png"}
    assert Image.open("garden.png").size == (16, 24)
    assert names["large"].images.shape == names["sharp"].images.shape == (2, 3, 64, 64)
    assert names["small"].y.shape == (1, 3, 16, 16)
