"""Noise levels estimated from pictures, against the noise that was added."""

import pytest
import torch

from tests.ops.conftest import scene
from tools import scenes
from tools.train_prior import to_unit
from vipaint_ops.errors import InputError
from vipaint_ops.measurement.noise_level import covering_level, model_level, noise_level
from vipaint_ops.operators import GaussianBlur

LEVELS = (0.02, 0.05, 0.1, 0.2)


def noisy(picture: torch.Tensor, level: float, seed: int = 0) -> torch.Tensor:
    return picture + level * torch.randn(picture.shape, generator=torch.Generator().manual_seed(seed))


def box(height: int, width: int) -> torch.Tensor:
    mask = torch.ones(1, 1, height, width)
    mask[..., height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 0
    return mask


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("side", [64, 256])
def test_the_noise_of_a_smooth_picture_is_found(level, side):
    assert noise_level(noisy(scene(side, side), level)) == pytest.approx(level, rel=0.04)


@pytest.mark.parametrize("level", LEVELS)
def test_the_noise_of_drawn_scenes_is_found(level):
    """Edges are texture to it: at 64 pixels theirs add up to 0.004."""
    found = [noise_level(noisy(picture[None], level)) for picture in to_unit(scenes.sample_scenes(8, 5)[0])]
    assert level < sum(found) / len(found) < level + 0.005


@pytest.mark.parametrize("level", LEVELS)
def test_noise_on_top_of_a_blur_is_found(level):
    blurred = GaussianBlur(25, 2.0)(torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1)
    assert noise_level(noisy(blurred, level)) == pytest.approx(level, rel=0.05)


@pytest.mark.parametrize("under", [0.0, 1.0, float("nan")])
def test_a_hole_changes_nothing_much(under):
    """Whatever lies in it, and however hard its edge is."""
    picture, mask = noisy(scene(96, 80), 0.05), box(96, 80)
    holed = torch.where(mask > 0, picture, under)
    assert noise_level(holed, mask) == pytest.approx(noise_level(picture), rel=0.04)


def test_known_in_part_counts_as_hidden():
    picture = noisy(scene(), 0.05)
    assert noise_level(picture, box(64, 64) * 0.5 + 0.5) == noise_level(picture, box(64, 64))


def test_it_agrees_with_scikit_image():
    restoration = pytest.importorskip("skimage.restoration")
    pytest.importorskip("pywt")
    for seed, level in enumerate(LEVELS):
        picture = noisy(scene(200, 150), level, seed)
        expected = restoration.estimate_sigma(picture[0].numpy(), channel_axis=0, average_sigmas=True)
        assert noise_level(picture) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("picture", "mask", "message"),
    [
        (torch.zeros(1, 3, 3, 9), None, "3x9"),
        (torch.zeros(1, 3, 8, 8), None, "squares of 4x4"),
        (torch.zeros(1, 3, 64, 64), torch.arange(64).remainder(3).gt(0).float(), "only 0 squares of 4x4"),
    ],
)
def test_too_little_is_refused(picture, mask, message):
    with pytest.raises(InputError, match=message):
        noise_level(picture, mask)


@pytest.mark.parametrize("kept", [0.0, 0.6, 1.0])
def test_the_covering_level_counts_noise_once(kept):
    """Whether an autoencoder drops the noise, or keeps some of it: the level is that of noise and its own error."""
    clean, noise = scene(128, 128), noisy(torch.zeros(1, 3, 128, 128), 0.05)
    error = 0.03 * torch.sign(scene(128, 128).roll(40, -1))
    reconstruction = clean + error + kept * noise
    dropped = (1 - kept**2) ** 0.5  # of the power, as for a linear projection
    picture = clean + kept * noise + dropped * noisy(torch.zeros(1, 3, 128, 128), 0.05, seed=1)
    expected = (0.05**2 + 0.03**2) ** 0.5
    assert covering_level(picture, reconstruction) == pytest.approx(expected, rel=0.05)


def test_the_covering_level_is_that_of_a_perfect_autoencoder():
    picture = noisy(scene(), 0.05)
    assert covering_level(picture, picture) == noise_level(picture)


def test_the_models_level_looks_at_known_pixels_alone():
    """Whatever is under the mask, and beyond the last whole cell: the level is the same."""
    picture = noisy(scene(66, 70), 0.05)
    mask = (torch.arange(70) < 40).float().expand(1, 1, 66, 70)
    seen = []

    def autoencode(x):
        seen.append(x)
        return x.clamp(-0.9, 0.9)

    level = model_level(picture, autoencode, 4, mask)
    changed = torch.where(mask > 0, picture, torch.rand(1, 3, 66, 70))
    assert model_level(changed, autoencode, 4, mask) == level
    assert seen[0].shape == (1, 3, 64, 68)
    assert torch.equal(*seen)


def test_a_picture_smaller_than_a_cell_has_no_model_level():
    with pytest.raises(InputError, match="smaller than a latent cell"):
        model_level(torch.zeros(1, 3, 6, 64), lambda x: x, 8)
