"""Metrics against closed forms."""

import math

import numpy as np
import pytest
import torch

from tests.ops.no_float64 import no_float64, on_device
from vipaint_ops.errors import InputError
from vipaint_ops.evaluation import metrics
from vipaint_ops.measurement.observation import Observation
from vipaint_ops.operators import Inpainting


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, seed: int = 0, side: int = 16) -> torch.Tensor:
    return 2 * torch.rand(count, 3, side, side, generator=seeded(seed)) - 1


def test_psnr_of_a_constant_error_is_its_closed_form_per_picture():
    x = pictures(3)
    error = torch.tensor([0.02, 0.2, 2.0]).view(3, 1, 1, 1)
    assert torch.allclose(metrics.psnr(x + error, x), torch.tensor([40.0, 20.0, 0.0]), atol=1e-3)
    assert metrics.psnr(x, x).isinf().all()


def test_psnr_in_minus_one_to_one_equals_that_of_zero_to_one_with_peak_one():
    x, y = pictures(1, 1), pictures(1, 2)
    mse = ((x + 1) / 2 - (y + 1) / 2).square().mean().item()
    assert metrics.psnr(x, y).item() == pytest.approx(-10 * math.log10(mse), abs=1e-4)


def test_masked_psnr_depends_on_the_weighted_pixels_only():
    truth = pictures(1)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    damaged = truth + 0.2 * mask + 5 * (1 - mask)
    assert metrics.psnr(damaged.expand(4, -1, -1, -1), truth, mask).tolist() == pytest.approx([20.0] * 4, abs=1e-3)


def test_ssim_is_one_for_equals_symmetric_and_lower_for_noisier():
    x = pictures(2, side=32)
    noise = torch.randn(x.shape, generator=seeded(5))
    values = [metrics.ssim(x + std * noise, x) for std in (0.0, 0.1, 0.5)]
    assert values[0].shape == (2,)
    assert torch.allclose(values[0], torch.ones(2), atol=1e-5)
    assert (values[0] > values[1]).all()
    assert (values[1] > values[2]).all()
    assert torch.allclose(metrics.ssim(x + noise, x), metrics.ssim(x, x + noise), atol=1e-6)


def test_ssim_of_flat_pictures_is_its_closed_form():
    # Without structure only the luminance term stays: (2 a b + c1) / (a^2 + b^2 + c1) on [0, 1].
    x, y = torch.full((1, 3, 16, 16), 0.0), torch.full((1, 3, 16, 16), 0.6)
    expected = (2 * 0.5 * 0.8 + 1e-4) / (0.5**2 + 0.8**2 + 1e-4)
    assert metrics.ssim(x, y).item() == pytest.approx(expected, abs=1e-4)


def test_ssim_of_a_batch_with_one_picture_is_that_of_each_with_it():
    x, y = pictures(3, 1), pictures(1, 2)
    together = metrics.ssim(x, y)
    assert together.shape == (3,)
    assert torch.equal(together, metrics.ssim(y, x))
    assert torch.allclose(together, torch.cat([metrics.ssim(one[None], y) for one in x]), atol=1e-6)


def test_ssim_refuses_pictures_smaller_than_its_window():
    with pytest.raises(InputError, match="images are 10x10"):
        metrics.ssim(pictures(1, side=10), pictures(1, side=10))


def test_consistency_is_the_residual_in_noise_units_over_observed_entries():
    truth = pictures(1)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :4] = 1
    observation = Observation(mask * truth, Inpainting(mask), noise_std=0.05)
    images = truth + torch.tensor([0.0, 0.05, -0.15]).view(3, 1, 1, 1) * mask + (1 - mask)
    assert metrics.consistency(images, observation).tolist() == pytest.approx([0.0, 1.0, 3.0], abs=1e-4)


def test_diversity_is_the_mean_distance_of_pairs_over_hidden_pixels():
    levels = torch.tensor([0.0, 0.1, 0.4]).view(3, 1, 1, 1)
    images = pictures(1) + levels
    assert metrics.diversity(images) == pytest.approx((0.1 + 0.3 + 0.4) / 3, abs=1e-5)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :12] = 1
    varied_outside = images + mask * pictures(3, 9)
    assert metrics.diversity(varied_outside, mask) == pytest.approx(0.8 / 3, abs=1e-5)
    assert math.isnan(metrics.diversity(images[:1]))


def test_diversity_of_independent_gaussians_is_sqrt_two_standard_deviations():
    images = 0.3 * torch.randn(12, 3, 32, 32, generator=seeded())
    assert metrics.diversity(images) == pytest.approx(0.3 * math.sqrt(2), rel=0.02)


def test_energy_distance_of_two_points_is_twice_their_distance_over_hidden_pixels():
    mask = torch.tensor([1.0, 0.0])[None, None, None].expand(1, 1, 3, 2)
    zero, apart = torch.zeros(3, 2, 3, 2), torch.zeros(4, 2, 3, 2)
    apart[..., 1] = 0.25
    assert metrics.energy_distance(zero, apart, mask) == pytest.approx(0.5)
    apart[..., 0] = 7.0
    assert metrics.energy_distance(zero, apart, mask) == pytest.approx(0.5)


def test_energy_distance_of_one_law_is_zero_on_average():
    draws = torch.randn(300, 2, 4, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = torch.tensor([metrics.energy_distance(x, y) for x, y in draws])
    assert found.mean().abs() < 4 * found.std() / 300**0.5


@pytest.mark.parametrize("order", [1, 2])
def test_sliced_wasserstein_of_a_shift_is_the_mean_projected_shift(order):
    x = torch.randn(50, 1, dtype=torch.float64, generator=seeded())
    # In one dimension every direction is +-1.
    assert metrics.sliced_wasserstein(x, x + 0.7, 8, generator=seeded(), order=order) == pytest.approx(0.7)
    x = torch.randn(40, 3, dtype=torch.float64, generator=seeded())
    distance = metrics.sliced_wasserstein(x, x + torch.tensor([3.0, 0, 0]), 20000, generator=seeded(), order=order)
    # A direction on the sphere in three dimensions has a first coordinate uniform on [-1, 1].
    assert distance == pytest.approx({1: 3 / 2, 2: 3 / math.sqrt(3)}[order], rel=0.02)


def test_sliced_wasserstein_of_unequal_counts_is_that_of_repeated_samples():
    x, y = (torch.randn(n, 4, dtype=torch.float64, generator=seeded(n)) for n in (6, 9))
    direct = metrics.sliced_wasserstein(x, y, 50, generator=seeded())
    repeated = metrics.sliced_wasserstein(x.repeat_interleave(3, 0), y.repeat_interleave(2, 0), 50, generator=seeded())
    assert direct == pytest.approx(repeated, rel=1e-9)
    assert direct == pytest.approx(metrics.sliced_wasserstein(y, x, 50, generator=seeded()), rel=1e-9)
    assert metrics.sliced_wasserstein(x, x.repeat_interleave(2, 0), 50, generator=seeded()) == pytest.approx(0)


def test_moment_errors_of_exact_samples_are_the_sampling_noise():
    mean, std = torch.linspace(-1, 1, 5000), torch.linspace(0.1, 2, 5000)
    for count in (8, 200):
        samples = mean + std * torch.randn(count, 5000, generator=seeded(count))
        errors = metrics.moment_errors(samples, mean, std)
        assert errors.mean == pytest.approx(1 / math.sqrt(count), rel=0.05)
        assert abs(errors.log_std) < 4 * math.sqrt(1 / (2 * (count - 1)) / 5000)


def test_moment_errors_measure_a_known_shift_and_scale():
    noise = np.random.default_rng(0).standard_normal((4000, 50))
    errors = metrics.moment_errors(torch.from_numpy(0.5 + 0.8 * noise), torch.zeros(50), torch.ones(50))
    assert errors.mean == pytest.approx(0.5, abs=0.01)
    assert errors.log_std == pytest.approx(math.log(0.8), abs=0.01)


def test_no_float64_on_the_device():
    with no_float64():
        x, y = (on_device(pictures(3, seed)) for seed in (0, 1))
        mask = on_device(torch.tensor([1.0, 0.0]).repeat(1, 1, 16, 8))
        assert metrics.psnr(x, y, mask).cpu().isfinite().all()
        assert metrics.ssim(x, y).cpu().isfinite().all()
        moments = metrics.moment_errors(x, y.mean(0), y.std(0))
        distances = metrics.sliced_wasserstein(x, y, 8, generator=seeded()), metrics.energy_distance(x, y, mask)
    assert np.isfinite([*moments, *distances]).all()


def test_a_seam_is_the_step_across_the_edge_against_those_beside_it():
    ramp = torch.linspace(-1, 1, 32).expand(1, 3, 32, 32).contiguous()
    mask = (torch.arange(32) < 16).float().expand(1, 1, 32, 32)
    assert metrics.seam(ramp, mask).item() == pytest.approx(1, rel=1e-4)
    step = 2 / 31
    assert metrics.seam(ramp + 3 * step * (1 - mask), mask).item() > 3
    assert metrics.seam(torch.cat([ramp, -ramp]), 1 - mask).tolist() == pytest.approx([1, 1], rel=1e-4)
    far = ramp.clone()
    far[..., 26:] = torch.rand(1, 3, 32, 6)
    assert torch.equal(metrics.seam(far, mask), metrics.seam(ramp, mask))


def test_a_seam_needs_an_edge():
    with pytest.raises(InputError, match="mask has no edge"):
        metrics.seam(torch.zeros(1, 3, 8, 8), torch.ones(1, 1, 8, 8))
