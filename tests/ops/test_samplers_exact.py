"""Every sampler on Gaussian priors, against the exact posterior: what each gets right, and the error it is known for.

``bias`` is that of the sample mean in standard deviations of the posterior (root mean square), ``spread`` the samples'
standard deviation over the posterior's (geometric mean), both where the mask shows the picture and in the hole.
"""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch

from tests.ops.gaussian_chain import DOUBLE, FLOW, VP, draw, gaussian
from tests.ops.test_samplers import ALL
from vipaint_ops import Observation, operators, samplers
from vipaint_ops.inference.chain import end_time, start_time, time_grid
from vipaint_ops.inference.corrections import Kalman
from vipaint_ops.priors.analytic import GaussianMixturePrior
from vipaint_ops.samplers import (
    BlendedConfig,
    CoPaintConfig,
    DDNMConfig,
    DInGConfig,
    DPSConfig,
    KalmanConfig,
    LanPaintConfig,
    LATINOConfig,
    PiGDMConfig,
    PSLDConfig,
    RedDiffConfig,
    RedDiffVConfig,
    RePaintConfig,
    ReSampleConfig,
)

SHAPE, COUNT, NOISE_STD = (1, 4, 4), 80, 0.3
MASK = (torch.arange(16).view(4, 4) % 4 < 2).to(DOUBLE)
FULL_RANK = Kalman(isotropic_below=0.0, solver_iterations=16, spread_iterations=16, spread_above=0.0)
FINE = tuple(time_grid(VP, start_time(VP, 1.0), end_time(VP, 1.0), 60))
METHODS = {
    "kalman": (samplers.kalman, KalmanConfig(steps=10, correction=FULL_RANK, batch_size=COUNT)),
    "pigdm": (samplers.pigdm, PiGDMConfig(times=FINE, batch_size=COUNT)),
    "dps": (samplers.dps, DPSConfig(steps=40, batch_size=COUNT)),
    "dps, longer steps": (samplers.dps, DPSConfig(steps=40, scale=2.0, batch_size=COUNT)),
    "psld": (samplers.psld, PSLDConfig(steps=40, batch_size=COUNT)),
    "psld, longer steps": (samplers.psld, PSLDConfig(steps=40, omega=1.0, batch_size=COUNT)),
    "resample": (
        samplers.resample,
        ReSampleConfig(steps=40, pixel_iterations=100, latent_iterations=50, batch_size=COUNT),
    ),
    "red_diff": (samplers.red_diff, RedDiffConfig(steps=100, batch_size=COUNT)),
    "red_diff_v": (samplers.red_diff_v, RedDiffVConfig(steps=150, batch_size=COUNT)),
    "blended": (samplers.blended, BlendedConfig(steps=40, batch_size=COUNT)),
    "repaint": (samplers.repaint, RePaintConfig(steps=40, travel_length=10, travel_visits=3, batch_size=COUNT)),
    "ddnm": (samplers.ddnm, DDNMConfig(steps=40, batch_size=COUNT)),
    "ding": (samplers.ding, DInGConfig(batch_size=COUNT)),
    "lanpaint": (samplers.lanpaint, LanPaintConfig(batch_size=COUNT)),
    "latino": (samplers.latino, LATINOConfig(batch_size=COUNT)),
    "latino, one pass": (samplers.latino, LATINOConfig.consistency_model()),
    "copaint": (samplers.copaint, CoPaintConfig(steps=25, batch_size=COUNT)),
}
RIGHT, ALMOST, COLLAPSED = (0.0, 0.2), (0.8, 1.2), (0.0, 0.5)
# Method, whether latents are correlated, and where each figure lies.
CLAIMS = {
    "kalman is right": (
        "kalman",
        True,
        {"bias seen": RIGHT, "bias hole": RIGHT, "spread seen": ALMOST, "spread hole": ALMOST},
    ),
    "pigdm is right for independent latents": (
        "pigdm",
        False,
        {"bias seen": RIGHT, "bias hole": RIGHT, "spread seen": ALMOST, "spread hole": ALMOST},
    ),
    "pigdm is biased for correlated ones": ("pigdm", True, {"bias seen": (0.2, 0.4), "bias hole": (0.15, 0.4)}),
    "dps with short steps stays with the prior": ("dps", False, {"bias seen": (1.2, 3.0), "spread seen": (1.6, 3.0)}),
    "dps with longer ones comes nearer": (
        "dps, longer steps",
        False,
        {"bias seen": (0.1, 0.9), "spread seen": (0.8, 1.5)},
    ),
    "psld with short steps stays with the prior": ("psld", False, {"bias seen": (0.8, 2.0), "spread seen": (1.4, 2.5)}),
    "psld with longer ones collapses on y": (
        "psld, longer steps",
        False,
        {"bias seen": (0.2, 0.6), "spread seen": COLLAPSED, "bias hole": RIGHT},
    ),
    "resample keeps a spread, about a wrong mean": (
        "resample",
        True,
        {"bias hole": (0.3, 1.0), "spread seen": ALMOST, "spread hole": ALMOST},
    ),
    "red_diff collapses": (
        "red_diff",
        False,
        {"bias seen": (0.2, 0.6), "spread seen": (0.0, 0.3), "spread hole": COLLAPSED},
    ),
    "red_diff_v has the mean, for independent latents": (
        "red_diff_v",
        False,
        {"bias seen": RIGHT, "bias hole": RIGHT, "spread hole": ALMOST},
    ),
    "red_diff_v is too sure of what it sees": ("red_diff_v", False, {"spread seen": (0.1, 0.6)}),
    "blended takes y as exact and its hole knows little of it": (
        "blended",
        True,
        {"bias seen": (0.2, 0.6), "spread seen": (0.0, 0.01), "bias hole": (0.4, 0.8)},
    ),
    "repaint does so too, its hole knows more": (
        "repaint",
        True,
        {"bias seen": (0.2, 0.6), "spread seen": (0.0, 0.01), "bias hole": (0.1, 0.4)},
    ),
    "ddnm is too sure of what it sees": ("ddnm", True, {"bias seen": (0.0, 0.3), "spread seen": (0.4, 0.8)}),
    "ding takes y as exact, its hole knows more": (
        "ding",
        True,
        {"bias seen": (0.2, 0.6), "spread seen": (0.0, 0.01), "bias hole": (0.1, 0.35), "spread hole": ALMOST},
    ),
    "lanpaint does so too": (
        "lanpaint",
        True,
        {"bias seen": (0.2, 0.6), "spread seen": (0.0, 0.01), "bias hole": (0.1, 0.4), "spread hole": ALMOST},
    ),
    "latino allows for noise, its hole knows less": (
        "latino",
        True,
        {"bias seen": (0.0, 0.2), "spread seen": (0.4, 0.8), "bias hole": (0.3, 0.6), "spread hole": ALMOST},
    ),
    "latino in single passes is too narrow": ("latino, one pass", True, {"spread hole": (0.5, 0.8)}),
    "copaint takes y as exact": (
        "copaint",
        True,
        {"bias seen": (0.2, 0.6), "spread seen": (0.0, 0.2), "bias hole": RIGHT},
    ),
}


def problem(correlated: bool) -> tuple[GaussianMixturePrior, Observation]:
    prior = gaussian(VP, SHAPE, correlated)
    x = prior.sample(1, torch.Generator().manual_seed(3))
    y = MASK * (x + NOISE_STD * draw(1, *SHAPE, seed=4))
    return prior, Observation(y, operators.Inpainting(MASK), NOISE_STD)


@cache
def figures(name: str, correlated: bool) -> dict[str, float]:
    """Bias and spread, seen and in the hole."""
    method, config = METHODS[name]
    prior, observation = problem(correlated)
    x = method(prior, observation, COUNT, config, generator=torch.Generator().manual_seed(0)).latents.flatten(1)
    mean, covariance = prior.posterior(observation).moments()
    std = covariance.diagonal().sqrt()
    bias, spread = (x.mean(0) - mean) / std, (x.std(0) / std).clamp(min=1e-9)
    seen = observation.observed.flatten()
    return {
        f"{figure} {place}": value
        for place, where in (("seen", seen), ("hole", ~seen))
        for figure, value in (
            ("bias", bias[where].square().mean().sqrt().item()),
            ("spread", spread[where].log().mean().exp().item()),
        )
    }


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_a_method_gets_right_and_wrong(claim):
    name, correlated, bounds = CLAIMS[claim]
    found = figures(name, correlated)
    assert all(low <= found[key] <= high for key, (low, high) in bounds.items()), found


def test_every_method_has_a_claim():
    assert {name.split(",")[0] for name in METHODS} == {CLAIMS[claim][0].split(",")[0] for claim in CLAIMS} == set(ALL)


# The other passes of LATINO's ODE are even in time, so that their noise levels depend on the schedule.
BY_LEVEL = ALL | {"latino": (samplers.latino, LATINOConfig(ode_steps=1))}


@pytest.mark.parametrize("name", BY_LEVEL)
def test_schedules_agree_at_the_same_noise_levels(name):
    """z is then the same up to a factor at every step, and the clean latents are the same."""
    method, config = BY_LEVEL[name]
    values = torch.linspace(-8.0, 4.0, 8, dtype=DOUBLE).tolist()
    observation = problem(True)[1]
    vp, flow = (
        method(
            gaussian(schedule, SHAPE),
            observation,
            2,
            replace(config, times=tuple(schedule.time_at_log_snr(v) for v in values)),
            generator=torch.Generator().manual_seed(0),
        ).latents
        for schedule in (VP, FLOW)
    )
    torch.testing.assert_close(vp, flow, rtol=1e-5, atol=1e-5)


class Magnified(GaussianMixturePrior):
    """Latents in other units: ``factor`` times as large, for the same pictures."""

    factor = 2.0

    def decode(self, z0):
        return z0 / self.factor

    def encode(self, x):
        return x * self.factor


@pytest.mark.parametrize(
    "name",
    ["dps", "psld", "resample", "red_diff", "red_diff_v", "pigdm", "kalman", "ding", "lanpaint", "latino"],
)
def test_units_of_latents_do_not_matter(name):
    method, config = BY_LEVEL[name]
    plain, observation = problem(True)
    other = Magnified(plain.weights, 2 * plain.means, 4 * plain.covariances, VP)
    values = torch.linspace(-7.0, 4.0, 8, dtype=DOUBLE).tolist()
    images = [
        method(
            prior,
            observation,
            2,
            replace(config, times=tuple(VP.time_at_log_snr(v - shift) for v in values)),
            generator=torch.Generator().manual_seed(0),
        ).images
        for prior, shift in ((plain, 0.0), (other, math.log(4.0)))
    ]
    torch.testing.assert_close(*images, rtol=1e-5, atol=1e-5)


class Louder(GaussianMixturePrior):
    """Pictures in other units: three times as large, for the same latents."""

    def decode(self, z0):
        return 3 * z0


def test_dps_depends_on_the_units_of_pictures_and_kalman_does_not():
    plain, observation = problem(True)
    louder = Louder(plain.weights, plain.means, plain.covariances, VP)
    heard = Observation(3 * observation.y, observation.operator, 3 * observation.noise_std)
    generator = torch.Generator()

    def latents(name, prior, seen, **changes):
        method, config = ALL[name]
        return method(prior, seen, 3, replace(config, **changes), generator=generator.manual_seed(0)).latents

    torch.testing.assert_close(latents("kalman", louder, heard), latents("kalman", plain, observation))
    before, after = latents("dps", plain, observation, scale=1.5), latents("dps", louder, heard, scale=1.5)
    assert (after - before).flatten(1).norm(dim=1).min() > 0.1
    torch.testing.assert_close(latents("dps", louder, heard, scale=0.5), before)


class Instant(GaussianMixturePrior):
    """A denoiser that costs nothing."""

    def denoise(self, z, t):
        return z / 2


@pytest.mark.parametrize(
    ("method", "config", "forward", "backward"),
    [
        (samplers.dps, DPSConfig(), 1000, 1000),
        (samplers.psld, PSLDConfig(), 1000, 1000),
        (samplers.resample, ReSampleConfig(pixel_iterations=1, latent_iterations=1), 665, 500),
        (samplers.red_diff, RedDiffConfig(), 1000, 0),
        (samplers.red_diff_v, RedDiffVConfig(), 1000, 0),
        (samplers.pigdm, PiGDMConfig(), 100, 100),
        (samplers.ding, DInGConfig(), 2 * 28 - 1, 0),
        (samplers.latino, LATINOConfig.consistency_model(), 8, 0),
        (samplers.latino, LATINOConfig(), 64, 0),
    ],
    ids=["dps", "psld", "resample", "red_diff", "red_diff_v", "pigdm", "ding", "latino published", "latino"],
)
def test_published_settings_cost_what_they_are_published_to(method, config, forward, backward):
    """Of the denoiser, a sample."""
    plain, observation = problem(True)
    prior = Instant(plain.weights, plain.means, plain.covariances, VP)
    cost = method(prior, observation, 1, config, generator=torch.Generator().manual_seed(0)).evaluations
    assert (cost.denoiser_forward, cost.denoiser_backward) == (forward, backward)
