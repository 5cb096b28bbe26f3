"""The forward model: measurements, noise and impulse response."""

import pytest
import torch

from vipaint_ops.errors import InputError
from vipaint_ops.evaluation import metrics
from vipaint_ops.evaluation.degrade import degrade, response
from vipaint_ops.operators import Inpainting, Linear


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def halves(side: int = 64) -> Inpainting:
    mask = torch.ones(1, 1, side, side)
    mask[..., side // 2 :] = 0
    return Inpainting(mask)


def test_the_truth_is_consistent_with_its_measurements():
    picture = 2 * torch.rand(1, 3, 64, 64, generator=seeded()) - 1
    observation = degrade(picture, halves(), 0.2, generator=seeded(1))
    assert observation.noise_std == 0.2
    assert metrics.consistency(picture, observation).item() == pytest.approx(1, abs=0.03)


def test_noise_is_unclamped_seeded_and_only_where_something_is_measured():
    white = torch.ones(1, 3, 64, 64)
    first, again, other = (degrade(white, halves(), 0.2, generator=seeded(s)).y for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.max() > 1.2
    assert (first[..., 32:] == 0).all()


def test_noise_follows_the_type_and_the_shape_of_the_measurements():
    matrix = torch.randn(5, 12, generator=seeded(), dtype=torch.float64)
    picture = torch.randn(1, 3, 2, 2, generator=seeded(), dtype=torch.float64)
    y = degrade(picture, Linear(matrix), 1e-9, generator=seeded()).y
    assert y.dtype == torch.float64
    assert torch.allclose(y, picture.flatten(1) @ matrix.T, atol=1e-7)


def test_a_picture_that_the_operator_does_not_take_is_refused():
    with pytest.raises(InputError, match="picture is 48x64 and the mask 64x64"):
        degrade(torch.zeros(1, 3, 48, 64), halves(), 0.05, generator=seeded())


@pytest.mark.parametrize(("height", "width"), [(6, 9), (5, 4)])
def test_the_response_is_the_column_of_the_middle_pixel(height, width):
    matrix = torch.randn(7, 3 * height * width, generator=seeded())
    point = torch.zeros(3, height, width)
    point[:, height // 2, width // 2] = 1
    assert torch.allclose(response(Linear(matrix), height, width)[0], matrix @ point.flatten(), atol=1e-5)
