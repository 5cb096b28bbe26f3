"""RED-diff and RED-diff V: the gradients they follow, without one through the denoiser."""

import math

import pytest
import torch

from tests.ops.gaussian_chain import DOUBLE, VP, draw, gaussian
from vipaint_ops import Observation, operators
from vipaint_ops.diffusion.streams import NoiseStreams
from vipaint_ops.samplers import RedDiffConfig, RedDiffVConfig, red_diff, red_diff_v
from vipaint_ops.samplers.red_diff import BETAS, scattered

SHAPE = (1, 2, 4)
MASK = torch.tensor([[1.0, 0, 1, 1], [0, 0, 1, 1]], dtype=DOUBLE)
OBSERVATION = Observation(MASK * draw(1, *SHAPE, seed=4), operators.Inpainting(MASK), 0.3)


def test_its_steps_are_those_of_the_paper():
    """mean |y - A mu|^2 / 2 + lambda (sigma / alpha) mean((eps_h - eps) mu), both means, by Adam."""
    prior, first, times = gaussian(VP, SHAPE), draw(1, *SHAPE, seed=5), (0.7, 0.5, 0.2)
    prior.data_std = 1.0
    settings = RedDiffConfig(times=times, weight=0.6)
    generator = torch.Generator()
    found = red_diff(prior, OBSERVATION, 1, settings, generator=generator.manual_seed(0), noise=first).latents
    streams = NoiseStreams(NoiseStreams.seed_from(generator.manual_seed(0)), range(1))
    mu = OBSERVATION.y.clone().requires_grad_()
    adam = torch.optim.Adam([mu], lr=0.1, betas=BETAS)
    for t, eps in zip(times, (first, streams.normal(first), streams.normal(first)), strict=True):
        alpha, sigma = VP.level(t)
        z = (alpha * mu + sigma * eps).detach()
        predicted = (z - alpha * prior.denoise(z, torch.tensor([t], dtype=DOUBLE))) / sigma
        loss = OBSERVATION.residual(mu).square().sum() / 5 / 2 + 0.6 * sigma / alpha * ((predicted - eps) * mu).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    torch.testing.assert_close(found, mu.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("method", "config"), [(red_diff, RedDiffConfig), (red_diff_v, RedDiffVConfig)])
def test_no_gradient_goes_through_the_denoiser(method, config):
    cost = method(gaussian(VP, SHAPE), OBSERVATION, 2, config(steps=5), generator=torch.Generator()).evaluations
    assert (cost.denoiser_forward, cost.denoiser_backward) == (10, 0)
    assert (cost.decoder_forward, cost.decoder_backward) == (12, 10)


def test_the_scattered_order_visits_every_level_and_every_part():
    order = scattered(100)
    assert sorted(order) == list(range(100))
    parts = [{i // 25 for i in order[start : start + 8]} for start in range(0, 96, 8)]
    assert all(len(part) == 4 for part in parts)


def test_the_fitted_spread_is_where_the_two_weights_meet():
    """Of independent latents of variance S, with precision w = 1 / noise^2 of what is seen: w + 1 / S =
    ln(S / s^2) / (S - s^2), from the integral over noise levels; far below the posterior's 1 / s^2 = w + 1 / S."""
    prior, variance = gaussian(VP, SHAPE, correlated=False), 0.6
    noise_std = 1.5
    observation = Observation(OBSERVATION.y, OBSERVATION.operator, noise_std)
    settings = RedDiffVConfig(steps=200, batch_size=50)
    x = red_diff_v(prior, observation, 50, settings, generator=torch.Generator().manual_seed(0)).latents
    found = x[:, :, MASK == 1].var(0).mean().item()
    low, high = 1e-9, variance
    for _ in range(60):
        middle = math.sqrt(low * high)
        excess = math.log(variance / middle) / (variance - middle) - noise_std**-2 - 1 / variance
        low, high = (middle, high) if excess > 0 else (low, middle)
    assert found == pytest.approx(middle, rel=0.3)
    assert found < 0.9 / (noise_std**-2 + 1 / variance)
