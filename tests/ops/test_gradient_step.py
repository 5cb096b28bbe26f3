"""The step that DPS, PSLD and ReSample share, and the lengths published for it."""

import pytest
import torch

from tests.ops.gaussian_chain import DOUBLE, FLOW, VP, draw, gaussian
from vipaint_ops import Observation, operators
from vipaint_ops.diffusion.prior import CountedPrior
from vipaint_ops.diffusion.schedule import ReverseStep, reverse_mean
from vipaint_ops.diffusion.streams import NoiseStreams
from vipaint_ops.samplers import DPSConfig, PSLDConfig, ReSampleConfig, dps, psld
from vipaint_ops.samplers.gradient_step import gradient_step, in_units_of, relative_length, residual_norm

SHAPE = (1, 2, 4)


@pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
def test_it_is_a_reverse_step_less_the_gradient_at_the_noisy_latent(schedule):
    prior, z, t, s = gaussian(schedule, SHAPE), draw(3, *SHAPE, seed=6), 0.6, 0.4
    level, below = schedule.level(t), schedule.level(s)
    times = torch.full((3,), t, dtype=DOUBLE)

    def loss(z0):
        return (z0**2).flatten(1).sum(1)

    v = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(prior.denoise(v, times)).sum(), v)
    counted = CountedPrior(prior)
    found = gradient_step(counted, z, ReverseStep(t, level, below), loss, 0.3, NoiseStreams(0, range(3)))
    expected, _ = reverse_mean(z, prior.denoise(z, times), below, level, eta=0.0)
    torch.testing.assert_close(found, expected - 0.3 * in_units_of(counted, below, level) * gradient)


def test_a_published_length_stays_as_it_is_where_it_was_published():
    whole = gaussian(VP, (3, 2, 2))
    assert relative_length(whole, 1000, 12, 1000) == 1.0
    assert relative_length(whole, 100, 12, 1000) == pytest.approx(10.0)
    assert relative_length(whole, 1000, 48, 1000) == pytest.approx(0.5)
    unit = CountedPrior(whole)
    unit.data_std = 1.0
    assert in_units_of(unit, VP.level(0.2), VP.level(0.7)) == pytest.approx(1.0)


def test_norms_are_of_each_sample():
    observation = Observation(draw(1, *SHAPE, seed=1), operators.Inpainting(torch.ones(2, 4, dtype=DOUBLE)), 0.1)
    pictures = draw(3, *SHAPE, seed=2)
    alone = [(observation.y - picture).norm() for picture in pictures]
    torch.testing.assert_close(residual_norm(observation, pictures), torch.stack(alone))


@pytest.mark.parametrize("method", [dps, psld])
@pytest.mark.parametrize("operator", [operators.GaussianBlur(3, 1.0), operators.SuperResolution(2, "average")])
def test_any_operator_will_do(method, operator):
    prior = gaussian(VP, (1, 4, 4))
    observation = Observation(operator(draw(1, 1, 4, 4, seed=1)), operator, 0.1)
    residuals = []
    for length in (0.0, 1.0):
        config = DPSConfig(steps=15, scale=length) if method is dps else PSLDConfig(steps=15, omega=length, gamma=0.0)
        images = method(prior, observation, 8, config, generator=torch.Generator().manual_seed(0)).images
        residuals.append(residual_norm(observation, images).mean())
    assert residuals[1] < 0.9 * residuals[0]


def test_presets_are_the_published_constants():
    assert (DPSConfig().scale, DPSConfig.deblurring().scale, DPSConfig.super_resolution().scale) == (0.5, 0.3, 0.3)
    presets = (
        PSLDConfig(),
        PSLDConfig.super_resolution(),
        PSLDConfig.stable_diffusion(),
        PSLDConfig.stable_diffusion_box(),
    )
    assert [(c.omega, c.gamma) for c in presets] == [(0.1, 0.1), (0.9, 0.1), (1.0, 0.1), (0.1, 0.01)]
    assert ReSampleConfig.inpainting().latent_iterations == 200
