"""docs/vipaint_pipeline.py, the example of a community pipeline of diffusers."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from tests.ops import tiny_pipelines
from vipaint_ops import InputError, Observation, operators, restore
from vipaint_ops.images.masks import composite, without_shift
from vipaint_ops.priors.diffusers import from_pipeline

EXAMPLE = Path(__file__).parents[2] / "docs" / "vipaint_pipeline.py"
WIDTH, HEIGHT = 22, 15
QUICK = {"method": "ddnm", "steps": 4}


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Loads a saved tiny pipeline as a VIPaintPipeline, whose code diffusers copies to a temporary folder."""
    patch = pytest.MonkeyPatch()
    patch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))

    def load(name):
        folder = tmp_path_factory.mktemp(name) / "model"
        getattr(tiny_pipelines, name)().save_pretrained(folder)
        example = str(EXAMPLE)
        return folder, diffusers.DiffusionPipeline.from_pretrained(
            folder, custom_pipeline=example, trust_remote_code=True
        )

    yield load
    patch.undo()


@pytest.fixture(scope="module")
def stable_diffusion(load):
    return load("sd15")


@pytest.fixture
def pictures():
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[:, 12:] = 255
    return {"image": Image.fromarray(pixels), "mask_image": Image.fromarray(mask)}


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def test_white_is_painted_and_all_else_is_the_picture(stable_diffusion, pictures):
    _, pipeline = stable_diffusion
    images = pipeline("a house", **pictures, num_images_per_prompt=3, generator=seeded(), **QUICK).images
    assert [image.size for image in images] == [(WIDTH, HEIGHT)] * 3
    arrays = np.stack([np.asarray(image) for image in images])
    assert (arrays[:, :, :12] == np.asarray(pictures["image"])[:, :12]).all()
    assert (arrays[0, :, 12:] != arrays[1, :, 12:]).any()
    again = pipeline("a house", **pictures, num_images_per_prompt=3, generator=seeded(), **QUICK).images
    assert (np.stack([np.asarray(image) for image in again]) == arrays).all()


def test_the_images_are_those_of_the_library(stable_diffusion, pictures):
    folder, pipeline = stable_diffusion
    (images,) = pipeline(
        "a house",
        **pictures,
        negative_prompt="a tree",
        num_images_per_prompt=2,
        generator=seeded(),
        output_type="pt",
        return_dict=False,
        **QUICK,
    )
    picture = torch.from_numpy(np.array(pictures["image"])).permute(2, 0, 1)[None] / 127.5 - 1
    known = torch.ones(1, 1, HEIGHT, WIDTH)
    known[..., 12:] = 0
    prior = from_pipeline(folder, "a house", "a tree", 3.0)
    observation = Observation(known * picture, operators.Inpainting(known), 0.02)
    seed = int(torch.randint(2**62, (1,), generator=seeded()))
    expected = restore(prior, observation, 2, seed=seed, **QUICK).images
    expected = composite(without_shift(expected, picture, known), picture, known)
    torch.testing.assert_close(images, (expected / 2 + 0.5).clamp(0, 1), rtol=1e-4, atol=1e-4)


def test_arrays_tensors_and_latents(stable_diffusion, pictures):
    _, pipeline = stable_diffusion
    arrays = {name: np.asarray(image, dtype=np.float32) / 255 for name, image in pictures.items()}
    results = [
        pipeline("a house", **given, num_images_per_prompt=1, generator=seeded(), output_type="np", **QUICK).images
        for given in (pictures, {"image": arrays["image"], "mask_image": arrays["mask_image"][..., None]})
    ]
    np.testing.assert_allclose(*results, atol=1e-4)
    latents = pipeline(**pictures, num_images_per_prompt=2, output_type="latent", **QUICK).images
    assert latents.shape == (2, 4, 8, 12)


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux", "qwen_image"])
def test_every_family_of_the_library(name, load, pictures):
    _, pipeline = load(name)
    images = pipeline("a house", **pictures, guidance_scale=1.0, num_images_per_prompt=1, **QUICK).images
    assert [image.size for image in images] == [(WIDTH, HEIGHT)]


def test_wrong_inputs_are_named(stable_diffusion, pictures):
    _, pipeline = stable_diffusion
    with pytest.raises(InputError, match="mask_image is missing"):
        pipeline("a house", image=pictures["image"])
    with pytest.raises(InputError, match="of one size"):
        pipeline("a house", image=pictures["image"], mask_image=pictures["mask_image"].resize((8, 8)))
    with pytest.raises(InputError, match="preset is 'best'"):
        pipeline("a house", **pictures, preset="best")
