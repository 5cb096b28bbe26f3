"""ReSample: where it optimises, when it stops, and the way back to a noise level."""

from types import SimpleNamespace

import pytest
import torch

from tests.ops.gaussian_chain import DOUBLE, VP, draw, gaussian
from vipaint_ops import InputError, Observation, operators
from vipaint_ops.diffusion.schedule import reverse_kernel
from vipaint_ops.diffusion.streams import NoiseStreams
from vipaint_ops.samplers import ReSampleConfig, resample
from vipaint_ops.samplers.resample import consistent, stochastic_resample

SHAPE = (1, 2, 4)
MASK = torch.tensor([[1.0, 0, 1, 1], [0, 0, 1, 1]], dtype=DOUBLE)
OBSERVATION = Observation(MASK * draw(1, *SHAPE, seed=4), operators.Inpainting(MASK), 0.3)


def test_it_optimises_as_often_as_published():
    settings = ReSampleConfig()
    left = [n for n in range(settings.steps) if settings.optimises(n, settings.steps)]
    assert (len(left), sum(n >= settings.steps // 3 for n in left)) == (33, 17)


def test_an_optimisation_stops_at_the_noise_for_each_row():
    start = torch.cat([OBSERVATION.y + 0.1, OBSERVATION.y + 2, OBSERVATION.y - 1])
    found = consistent(OBSERVATION, lambda x: x, start, 0.05, 200)
    error = OBSERVATION.residual(found).square().flatten(1).sum(1) / 5
    assert torch.equal(found[0], start[0])
    assert (error[1:] <= 0.09).all()
    assert (error[1:] > 0.05).all()
    assert torch.equal(found[:, :, MASK == 0], start[:, :, MASK == 0])
    for row, whole in zip(start, found, strict=True):
        torch.testing.assert_close(consistent(OBSERVATION, lambda x: x, row[None], 0.05, 200)[0], whole)


def test_an_optimisation_ends_after_its_iterations():
    start = OBSERVATION.y + 5
    moved = consistent(OBSERVATION, lambda x: x, start, 1e-2, 3) - start
    assert 0.025 < moved.abs().max() <= 0.0301


@pytest.mark.parametrize("gamma", [0.5, 40.0])
def test_the_way_back_is_the_product_of_two_gaussians(gamma):
    s, t = VP.level(0.4), VP.level(0.5)
    z0, z = draw(1, *SHAPE, seed=1), draw(1, *SHAPE, seed=2)
    still = SimpleNamespace(normal=torch.zeros_like)
    v = gamma * reverse_kernel(s, t).variance
    precision = 1 / v + 1 / s.sigma**2
    mean = (z / v + s.alpha * z0 / s.sigma**2) / precision
    # The chain's place has the variance v, what the optimisation found that of the noise level.
    expected = (v * s.alpha * z0 + s.sigma**2 * z) / (v + s.sigma**2)
    torch.testing.assert_close(mean, expected)
    torch.testing.assert_close(stochastic_resample(z0, z, s, t, gamma, still), expected)
    draws = stochastic_resample(z0, z.expand(4000, *SHAPE), s, t, gamma, NoiseStreams(0, range(4000)))
    assert (draws.var(0) * precision).log().abs().max() < 0.15


@pytest.mark.parametrize("name", ["every", "ahead"])
def test_impossible_settings_are_refused(name):
    with pytest.raises(InputError, match=name):
        ReSampleConfig(**{name: 0})


def test_samples_agree_with_the_observation():
    settings = ReSampleConfig(steps=6, every=3, ahead=2, pixel_iterations=50, latent_rate=0.1)
    images = resample(gaussian(VP, SHAPE), OBSERVATION, 2, settings, generator=torch.Generator().manual_seed(0)).images
    error = OBSERVATION.residual(images).square().flatten(1).sum(1) / 5
    assert (error <= 0.09).all()
