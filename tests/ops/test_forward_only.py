"""DInG, LanPaint and LATINO, the methods of forward passes: their laws, costs, known latents and proximal step."""

import math
import warnings
from dataclasses import replace

import pytest
import torch

from tests.ops.gaussian_chain import DOUBLE, FLOW, VP, draw, gaussian
from vipaint_ops import InputError, NoiseSchedule, Observation, operators
from vipaint_ops.diffusion.prior import CountedPrior
from vipaint_ops.diffusion.schedule import Level
from vipaint_ops.evaluation.metrics import moment_errors
from vipaint_ops.inference.ding import fresh_std
from vipaint_ops.inference.known import Known, filled
from vipaint_ops.priors.analytic import GaussianMixturePrior
from vipaint_ops.samplers import (
    BlendedConfig,
    DInGConfig,
    LanPaintConfig,
    LATINOConfig,
    RePaintConfig,
    blended,
    ding,
    lanpaint,
    latino,
    repaint,
)
from vipaint_ops.samplers.lanpaint import oscillator
from vipaint_ops.samplers.latino import proximal

SHAPE = (1, 4, 4)
MASK = (torch.arange(16).view(4, 4) % 4 < 2).to(DOUBLE)
HIDDEN = MASK.flatten() == 0
both_schedules = pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
MASKED = {"ding": (ding, DInGConfig(steps=12)), "lanpaint": (lanpaint, LanPaintConfig(steps=8))}
ALL = MASKED | {"latino": (latino, LATINOConfig(steps=8, ode_steps=2))}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def observe(noise_std: float = 1e-3, schedule=VP) -> Observation:
    x = gaussian(schedule, SHAPE).sample(1, seeded(3))
    return Observation(MASK * x, operators.Inpainting(MASK), noise_std)


def sample(method, config, prior, observation, count=3):
    return method(prior, observation, count, replace(config, batch_size=count), generator=seeded())


def errors(method, config, schedule, count=300):
    """Errors of mean and spread over the hidden latents, where the known ones are exact."""
    prior, observation = gaussian(schedule, SHAPE), observe(schedule=schedule)
    x = sample(method, config, prior, observation, count).latents.flatten(1)[:, HIDDEN]
    mean, covariance = prior.posterior(observation).moments()
    return moment_errors(x, mean[HIDDEN], covariance.diagonal().sqrt()[HIDDEN])


class Pooled(GaussianMixturePrior):
    """A Gaussian prior whose pictures have twice the sides, with an encoder that also sees one pixel around."""

    def decode(self, z0):
        return z0.repeat_interleave(2, -1).repeat_interleave(2, -2)

    def encode(self, x):
        return torch.nn.functional.avg_pool2d(x, 4, 2, 1)


def pooled() -> tuple[Pooled, Observation]:
    plain = gaussian(VP, SHAPE)
    mask = MASK.repeat_interleave(2, -1).repeat_interleave(2, -2)
    y = mask * draw(1, 1, 8, 8, seed=4)
    return Pooled(plain.weights, plain.means, plain.covariances, VP), Observation(y, operators.Inpainting(mask), 0.1)


@both_schedules
@pytest.mark.parametrize("name", MASKED)
def test_known_latents_are_kept_exactly(name, schedule):
    observation = observe(schedule=schedule)
    x = sample(*MASKED[name], gaussian(schedule, SHAPE), observation).latents
    known = observation.observed.expand(3, *SHAPE)
    assert torch.equal(x[known], observation.y.expand(3, *SHAPE)[known])
    assert torch.pdist(x.flatten(1)).min() > 0.1


@both_schedules
def test_lanpaint_approaches_the_posterior_with_more_inner_steps(schedule):
    """From replacement (no inner steps) to the sampling noise, which is 0.06 for 300 samples."""
    none, few, many = (errors(lanpaint, LanPaintConfig(inner_steps=n), schedule) for n in (0, 5, 20))
    assert none.mean > 0.4
    assert 0.15 < few.mean < 0.4
    assert many.mean < 0.13
    assert abs(many.log_std) < 0.06


@both_schedules
def test_the_bias_of_ding_falls_with_its_steps(schedule):
    published, many = (errors(ding, DInGConfig(steps=n), schedule) for n in (28, 150))
    assert 0.2 < published.mean < 0.4
    assert many.mean < 0.75 * published.mean
    assert abs(published.log_std) < 0.1
    assert abs(many.log_std) < 0.06


@both_schedules
def test_latino_is_biased_and_in_single_passes_too_narrow(schedule):
    default, one_pass = (errors(latino, c, schedule) for c in (LATINOConfig(), LATINOConfig.consistency_model()))
    assert 0.25 < default.mean < 0.5
    assert abs(default.log_std) < 0.12
    assert -0.45 < one_pass.log_std < -0.2


@pytest.mark.parametrize("guided", [0.0, 5.0])
def test_guidance_of_lanpaint_speeds_it_up(guided):
    """Twenty inner steps are enough with guidance, and are not without."""
    found = errors(lanpaint, LanPaintConfig(inner_steps=20, guidance=guided), VP)
    assert (found.mean < 0.13) == (guided > 0)


@pytest.mark.parametrize("friction", [0.5, 2.0, 15.0, 1000.0])
@pytest.mark.parametrize("time", [0.01, 0.3, 2.0])
def test_the_oscillator_keeps_its_law(time, friction):
    kernel = oscillator(time, friction)
    law = kernel.matrix @ kernel.matrix.T + kernel.factor @ kernel.factor.T
    torch.testing.assert_close(law, torch.eye(2, dtype=DOUBLE))
    if friction == 1000.0:
        assert math.isclose(kernel.matrix[0, 0].item(), math.exp(-time), rel_tol=1e-3)


def test_passes_of_lanpaint_are_those_published_for_stable_diffusion():
    prior = gaussian(NoiseSchedule.scaled_linear(0.00085, 0.012), SHAPE)
    unit = GaussianMixturePrior(prior.weights, 0 * prior.means, torch.eye(16, dtype=DOUBLE)[None], prior.schedule)
    cost = sample(lanpaint, LanPaintConfig(refreshes=0), unit, observe(), 1).evaluations
    assert (cost.denoiser_forward, cost.decoder_forward, cost.encoder_forward) == (109, 1, 1)


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_differentiated_and_all_passes_are_counted(name):
    method, config = ALL[name] if name != "ding" else (ding, DInGConfig())
    with torch.inference_mode():
        cost = sample(method, config, gaussian(VP, SHAPE), observe(), 2).evaluations
    assert cost.denoiser_backward == cost.decoder_backward == cost.encoder_backward == 0
    if name == "latino":
        assert (cost.denoiser_forward, cost.decoder_forward, cost.encoder_forward) == (32, 18, 16)
    else:
        assert (cost.decoder_forward, cost.encoder_forward) == (2 * 4, 1 + 2 * 3)


@pytest.mark.parametrize("name", ALL)
def test_nothing_under_the_mask_is_looked_at(name):
    prior, observation = pooled()
    hidden = 1 - observation.observed.to(DOUBLE)
    other = Observation(observation.y + 7 * hidden, observation.operator, observation.noise_std)
    first, second = (sample(*ALL[name], prior, seen).latents for seen in (observation, other))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", MASKED)
def test_other_observations_are_refused(name):
    method, config = MASKED[name]
    matrix = Observation(draw(1, 5, seed=5), operators.Linear(draw(5, 16, seed=6), SHAPE), 0.3)
    with pytest.raises(InputError, match="replaces known pixels"):
        sample(method, config, gaussian(VP, SHAPE), matrix)


def test_known_latents_are_encoded_with_the_prediction_in_the_hole():
    prior, observation = pooled()
    known = Known(CountedPrior(prior), observation, refreshes=2)
    first, z0 = known.latents, draw(2, *SHAPE, seed=8)
    known.refresh(z0, Level(0.1, 0.9))
    assert known.latents is first
    known.refresh(z0, Level(0.4, 0.9))
    expected = prior.encode(torch.where(observation.observed, observation.y, prior.decode(z0)))
    torch.testing.assert_close(known.latents, expected)
    after = known.latents
    known.refresh(2 * z0, Level(0.5, 0.9))
    assert known.latents is after
    known.refresh(2 * z0, Level(0.999, 0.01))
    assert (known.latents != after).any()


OVERWRITING = MASKED | {"blended": (blended, BlendedConfig(steps=4)), "repaint": (repaint, RePaintConfig(steps=4))}


@pytest.mark.parametrize("name", OVERWRITING)
@pytest.mark.parametrize("scattered", [True, False])
def test_known_pixels_that_fill_no_latent_are_told(name, scattered):
    """They share every latent with a hidden pixel, and have no effect."""
    prior, halved = pooled()
    mask = torch.zeros_like(halved.y)
    mask[..., ::2, ::2] = 1
    observation = Observation(mask * halved.y, operators.Inpainting(mask), 0.1) if scattered else halved
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        sample(*OVERWRITING[name], prior, observation, 1)
    assert sum("0% of the known pixels" in str(warning.message) for warning in seen) == scattered


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 1, 5, 9)])
def test_a_hole_is_filled_from_the_known_pixels_alone(shape):
    x, holes = draw(*shape, seed=1), (draw(*shape, seed=2) > -0.5).to(DOUBLE)
    full = filled(x, holes)
    torch.testing.assert_close(filled(x + 9 * holes, holes), full)
    assert torch.equal(full[holes == 0], x[holes == 0])
    assert full.min() >= x[holes == 0].min()
    assert full.max() <= x[holes == 0].max()
    assert not filled(x, torch.ones_like(x)).any()


def test_fresh_noise_of_ding_is_that_of_a_flow():
    level = FLOW.level(0.4)
    assert math.isclose(fresh_std(level, 1.0), level.sigma * (1 - level.alpha))
    size = math.hypot(level.alpha, level.sigma)
    scaled = Level(level.alpha / size, level.sigma / size)
    assert math.isclose(fresh_std(scaled, 1.0), fresh_std(level, 1.0) / size)


@pytest.mark.parametrize(
    "operator",
    [
        operators.Inpainting(MASK),
        operators.SuperResolution(2, "bicubic"),
        operators.GaussianBlur(3, 1.0),
        operators.Linear(draw(5, 16, seed=6), SHAPE),
    ],
    ids=["hole", "bicubic", "blur", "matrix"],
)
@pytest.mark.parametrize("weight", [0.1, 10.0, 1e4])
def test_the_proximal_step_solves_its_equation(operator, weight):
    """u - x = weight A^T (y - A u), for each row, within the tolerance of the dual system."""
    x = draw(3, *SHAPE, seed=1)
    y = operator(draw(1, *SHAPE, seed=2))
    observation = Observation(y, operator, 0.1)
    u = proximal(observation, x, weight)
    gap = (u - x) / weight - operator.adjoint(observation.residual(u))
    assert gap.abs().max() < 5e-3 * operator.adjoint(observation.residual(x)).abs().max()
    torch.testing.assert_close(proximal(observation, x[1:2], weight), u[1:2], rtol=1e-3, atol=2e-3)


def test_the_proximal_step_leaves_a_picture_that_fits():
    observation = observe()
    x = observation.y + (1 - MASK)
    torch.testing.assert_close(proximal(observation, x, 100.0), x)
