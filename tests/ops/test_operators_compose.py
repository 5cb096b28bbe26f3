"""Grey, crops and compositions, and pictures padded for a model."""

import pytest
import torch
from kornia.color import rgb_to_grayscale

from tests.ops.gaussian_chain import VP, gaussian
from tests.ops.operator_cases import CPU, dense
from vipaint_ops import FitConfig, Observation, samplers
from vipaint_ops.diffusion.prior import CountedPrior
from vipaint_ops.errors import InputError
from vipaint_ops.images.padding import crop_to, pad_observation
from vipaint_ops.operators import Blur, Compose, Crop, GaussianBlur, Grey, Inpainting, MotionBlur, SuperResolution
from vipaint_ops.vipaint.published.v2 import PublishedV2

DOUBLE = torch.float64


def picture(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def hole(height, width):
    mask = torch.ones(1, 1, height, width, dtype=DOUBLE)
    mask[..., 1:4, 2:6] = 0
    return Inpainting(mask)


MEASUREMENTS = {
    "mask": hole(10, 13),
    "gaussian": GaussianBlur(7, 1.0),
    "motion": MotionBlur(5, 20.0),
    "bicubic": SuperResolution(3),
    "average": SuperResolution(2, "average"),
    "grey": Grey(),
    "chain": Compose(GaussianBlur(5, 1.0), SuperResolution(2), hole(10, 13)),
}


def test_grey_is_the_luma_of_kornia():
    x = picture(2, 3, 5, 7)
    torch.testing.assert_close(Grey()(x), rgb_to_grayscale(x))
    with pytest.raises(InputError, match="4 channels"):
        Grey()(picture(1, 4, 5, 7))


def test_stages_are_applied_in_the_order_given():
    blur, down, mask = Blur(picture(3, 5, seed=1)), SuperResolution(2), hole(6, 8)
    chain, x = Compose(blur, down, mask), picture(2, 3, 12, 16)
    assert torch.equal(chain(x), mask(down(blur(x))))
    y = chain(x)
    assert torch.equal(chain.adjoint(y), blur.adjoint(down.adjoint(mask.adjoint(y))))
    assert chain.picture_size((6, 8)) == (12, 16)
    assert torch.equal(chain.observed(y), mask.observed(y))
    nested = Compose(Compose(blur, down), mask)
    assert nested.stages == chain.stages
    assert torch.equal(nested(x), y)


def test_kernels_are_checked_against_the_picture_not_the_measurements():
    chain = Compose(GaussianBlur(9, 1.0), SuperResolution(2))
    assert chain.picture_size((5, 5)) == (10, 10)
    with pytest.raises(InputError, match=r"9x9.*8x8"):
        chain.picture_size((4, 4))


@pytest.mark.parametrize(
    "chain",
    [
        Compose(hole(8, 10), SuperResolution(2), hole(4, 5)),
        Compose(Grey(), SuperResolution(2), hole(4, 5)),
        Compose(SuperResolution(2, "average"), hole(4, 5), Grey()),
    ],
)
def test_squared_is_exact_where_nothing_correlated_is_mixed(chain):
    variances = picture(1, 3, 8, 10).abs()
    matrix = dense(chain, (3, 8, 10), DOUBLE)
    torch.testing.assert_close(chain.squared(variances).flatten(), matrix**2 @ variances.flatten())


@pytest.mark.parametrize("down", [SuperResolution(2, "average"), SuperResolution(2)])
def test_squared_has_the_right_mean_where_stages_mix_what_is_correlated(down):
    chain = Compose(GaussianBlur(5, 1.0), down)
    matrix = dense(chain, (1, 24, 24), DOUBLE)
    exact = (matrix**2).sum(1).view(12, 12)
    found = chain.squared(torch.ones(2, 1, 24, 24, dtype=DOUBLE))
    assert torch.equal(found[0], found[1])
    assert found[0].mean().item() == pytest.approx(exact.mean().item(), rel=0.03)
    assert found[0, 0, 6, 6].item() == pytest.approx(exact[6, 6].item(), rel=0.2)  # edges pull the mean up


def test_masks_one_after_another_are_inverted_exactly():
    soft = Inpainting(torch.linspace(0, 1, 20, dtype=DOUBLE).view(1, 1, 4, 5))
    chain = Compose(hole(4, 5), Crop(4, 5), soft)
    assert chain.selects
    matrix, y = dense(chain, (1, 4, 5), DOUBLE), picture(1, 1, 4, 5)
    torch.testing.assert_close(chain.pinv(y).flatten(), torch.linalg.pinv(matrix) @ y.flatten())


def test_a_row_that_is_solved_waits_for_the_others():
    chain, y = Compose(GaussianBlur(5, 1.0), SuperResolution(2)), picture(3, 1, 6, 6)
    y[1] = 0
    inverse = chain.pinv(y)
    assert inverse.isfinite().all()
    assert (inverse[1] == 0).all()
    assert (chain(inverse) - y).flatten(1).norm(dim=1).le(1e-2 * y[0].norm()).all()


def test_crops_refuse_pictures_of_another_size():
    with pytest.raises(InputError, match=r"10x12.*8x9.*11x12"):
        Crop(8, 9, below=3, right=3)(torch.zeros(1, 1, 10, 12))


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_padding_leaves_the_measurements_of_the_picture_as_they_are(name):
    operator = MEASUREMENTS[name]
    height, width = operator.picture_size((10, 13))
    x = picture(1, 3, height, width)
    y = operator(x)
    padded = pad_observation(Observation(y, operator, 0.1), 16)
    sides = padded.operator.picture_size(tuple(y.shape[2:]))
    assert not [side for side in sides if side % 16]
    assert sides >= (height, width)
    larger = picture(1, 3, *sides, seed=2)
    larger[..., :height, :width] = x
    assert torch.equal(padded.y, y)
    assert torch.equal(padded.operator(larger), y)
    inverse = padded.operator.pinv(y)
    assert inverse.shape[2:] == sides
    assert torch.equal(crop_to(inverse, height, width), operator.pinv(y))
    assert torch.equal(padded.observed, operator.observed(y))
    assert padded.to(CPU, torch.float32).y.dtype == torch.float32


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_pictures_of_sides_that_fit_are_not_padded(name):
    operator = MEASUREMENTS[name]
    x = picture(1, 3, *operator.picture_size((10, 13)))
    observation = Observation(operator(x), operator, 0.1)
    assert pad_observation(observation, 1) is observation


def test_methods_for_masks_take_a_padded_mask_for_one_with_a_hidden_border():
    """The border belongs to the hole in the mask they see, wherever the picture was padded."""
    prior, mask = gaussian(VP, (1, 4, 6)), torch.tensor([[1.0, 0, 1, 0.5, 1]] * 3, dtype=DOUBLE)
    y = mask * picture(1, 1, 3, 5)
    padded = pad_observation(Observation(y, Inpainting(mask), 0.1), 2)
    pad = torch.nn.functional.pad
    hidden = Observation(pad(y, (0, 1, 0, 1)), Inpainting(pad(mask, (0, 1, 0, 1))), 0.1)
    config = samplers.BlendedConfig(steps=5)
    sampled, recipes = [], []
    for observation in (padded, hidden):
        generator = torch.Generator().manual_seed(0)
        sampled.append(samplers.blended(prior, observation, 2, config, generator=generator).latents)
        recipes.append(PublishedV2(CountedPrior(prior), observation, FitConfig.published_v2()))
    assert torch.equal(*sampled)
    starts = [recipe.start((0.5, 0.25), 0, None).means for recipe in recipes]
    assert torch.equal(*starts)
    assert torch.equal(*(recipe._mask for recipe in recipes))


@pytest.mark.parametrize("operator", [GaussianBlur(3, 1.0), Grey(), Compose(Crop(3, 5, 1, 1), GaussianBlur(3, 1.0))])
def test_methods_for_masks_refuse_everything_else(operator):
    prior, observation = gaussian(VP, (1, 4, 6)), Observation(torch.zeros(1, 1, 3, 5), operator, 0.1)
    with pytest.raises(InputError, match="Inpainting"):
        samplers.blended(prior, observation, 1, generator=torch.Generator())
    with pytest.raises(InputError, match="with a mask"):
        PublishedV2(CountedPrior(prior), observation, FitConfig.published_v2())


def test_a_measured_size_that_cannot_be_is_refused_before_padding():
    with pytest.raises(InputError, match=r"61x61.*40x40"):
        pad_observation(Observation(torch.zeros(1, 3, 40, 40), GaussianBlur(), 0.1), 8)
