"""An installation without extras: what works nevertheless, and what says how to install the rest."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from diffusers import DDPMScheduler, LDMPipeline

from tests.ops.conftest import tiny_networks

ROOT = Path(__file__).parents[2]
SCENE = str(ROOT / "vipaint_ops" / "assets" / "demo_scene.png")
EXTRA = ("PIL", "diffusers", "matplotlib", "tqdm", "transformers")

DIFFUSERS = ("diffusers", "PIL", "tqdm")
MATPLOTLIB = ("matplotlib", "PIL")

# Each use, and the packages that it needs.
USES = {
    "import vipaint_ops.evaluation.plots, vipaint_ops.priors.diffusers, vipaint_ops.images.masks": (),
    "import vipaint_ops; vipaint_ops.load_embedded_prior()": DIFFUSERS,
    "from vipaint_ops.priors.diffusers import from_pipeline; from_pipeline('plain')": DIFFUSERS,
    "from vipaint_ops.priors.diffusers import from_pipeline; from_pipeline('text')": (*DIFFUSERS, "transformers"),
    "from vipaint_ops.evaluation.plots import fit_curves; fit_curves([{'likelihood': 1.0}])": MATPLOTLIB,
    "import torch; from vipaint_ops.evaluation import plots; plots.heat_map(torch.ones(1, 1, 8, 8), 1.0)": MATPLOTLIB,
    "import torch; from vipaint_ops.evaluation import plots; "
    "plots.contact_sheet([('a', torch.zeros(3, 8, 8))], 1)": MATPLOTLIB,
    f"from vipaint_ops.images.pictures import load_image; load_image({SCENE!r})": ("PIL",),
    "import torch; from vipaint_ops.images.pictures import save_image; save_image('a.png', torch.zeros(1, 3, 8, 8))": (
        "PIL",
    ),
}
COMMAND_LINES = {
    "demo": ["demo", "--out", "out"],
    "inpaint": ["inpaint", "--image", SCENE, "--mask", SCENE, "--out", "out"],
    "fit": ["fit", "--image", SCENE, "--mask", SCENE, "--posterior", "fit.safetensors"],
    "deblur": ["deblur", "--image", SCENE, "--out", "out"],
    "upscale": ["upscale", "--image", SCENE, "--out", "out"],
    "degrade": ["degrade", "--image", SCENE, "--factor", "2", "--out", "out"],
    "compare": ["compare", SCENE, "--truth", SCENE],
    "sample": ["sample", "--image", SCENE, "--mask", SCENE, "--posterior", "fit.safetensors", "--out", "out"],
}
COMMAND_NEEDS = ("PIL", "diffusers", "matplotlib", "tqdm")

# The path finder finds nothing of the packages, as if they were not installed.
WITHOUT = """
import contextlib, io, json, sys
from importlib.machinery import PathFinder

absent, uses, command_lines = json.load(sys.stdin)

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else super().find_spec(name, path, target)

sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]

import vipaint_ops
from vipaint_ops.cli import main

said = {}
for use in uses:
    try:
        exec(use, {})
    except vipaint_ops.InputError as error:
        said[use] = str(error)
for command, arguments in command_lines.items():
    with contextlib.redirect_stderr(io.StringIO()) as stream:
        status = main(arguments)
    said[command] = f"{status} {stream.getvalue()}"
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a pipeline, and one with the index of a pipeline that takes text."""
    folder = tmp_path_factory.mktemp("pipelines")
    denoiser, autoencoder = tiny_networks()
    LDMPipeline(vqvae=autoencoder, unet=denoiser, scheduler=DDPMScheduler()).save_pretrained(folder / "plain")
    (folder / "text").mkdir()
    index = {"_class_name": "StableDiffusionPipeline", "text_encoder": ["transformers", "CLIPTextModel"]}
    (folder / "text" / "model_index.json").write_text(json.dumps(index))
    return folder


def message(package):
    return f"package {package!r} is missing: run pip install '.[cli]' in the folder of this project"


@pytest.mark.parametrize("absent", [*((package,) for package in EXTRA), EXTRA], ids=" ".join)
def test_what_needs_an_absent_package_says_how_to_install_it(absent, folder):
    commands = COMMAND_LINES if set(COMMAND_NEEDS) & set(absent) else {}
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{WITHOUT}"]
    run = subprocess.run(
        command, cwd=folder, input=json.dumps([absent, list(USES), commands]), capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    for use, needs in USES.items():
        lacking = [package for package in needs if package in absent]
        if lacking:
            assert said[use] in map(message, lacking)
        elif "text" not in use:
            assert use not in said
    for name in commands:
        status, text = said[name].split(" ", 1)
        assert status == "2"
        assert text in [f"vipaint: error: {message(package)}\n" for package in absent]
    assert not (folder / "out").exists()
