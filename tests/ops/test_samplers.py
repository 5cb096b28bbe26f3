"""The samplers beside VIPaint: exactness where there is some, laws of each, seeds and batches of all."""

from dataclasses import replace

import pytest
import torch

from tests.ops.gaussian_chain import DOUBLE, FLOW, VP, draw, gaussian
from vipaint_ops import InputError, Observation, operators, samplers
from vipaint_ops.inference.corrections import Kalman
from vipaint_ops.measurement.likelihood import StudentT
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

SHAPE, SIZE = (2, 2, 4), 16
ALL = {
    "kalman": (samplers.kalman, KalmanConfig(steps=4)),
    "dps": (samplers.dps, DPSConfig(steps=20)),
    "blended": (samplers.blended, BlendedConfig(steps=20)),
    "copaint": (samplers.copaint, CoPaintConfig(steps=12, travel_length=4, travel_visits=2)),
    "repaint": (samplers.repaint, RePaintConfig(steps=12, travel_length=4, travel_visits=2)),
    "ddnm": (samplers.ddnm, DDNMConfig(steps=12, travel_length=4, travel_visits=2)),
    "ding": (samplers.ding, DInGConfig(steps=12)),
    "lanpaint": (samplers.lanpaint, LanPaintConfig(steps=8)),
    "latino": (samplers.latino, LATINOConfig(steps=8, ode_steps=2)),
    "pigdm": (samplers.pigdm, PiGDMConfig(steps=12)),
    "psld": (samplers.psld, PSLDConfig(steps=20)),
    "resample": (
        samplers.resample,
        ReSampleConfig(steps=12, every=2, ahead=2, pixel_iterations=40, latent_iterations=20),
    ),
    "red_diff": (samplers.red_diff, RedDiffConfig(steps=20)),
    "red_diff_v": (samplers.red_diff_v, RedDiffVConfig(steps=20)),
}
both_schedules = pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
every_sampler = pytest.mark.parametrize("name", ALL)
MASK = torch.tensor([[1.0, 0, 1, 1], [0, 0, 1, 1]], dtype=DOUBLE)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def observe(noise_std: float = 0.3) -> Observation:
    return Observation(MASK * draw(1, *SHAPE, seed=4), operators.Inpainting(MASK), noise_std)


def prior_of(schedule=VP) -> GaussianMixturePrior:
    return gaussian(schedule, SHAPE)


def sample(name: str, prior, count: int, seed: int = 0, observation=None, options=None, **changes):
    """Samples of a sampler: ``options`` go to the call, ``changes`` to the configuration."""
    sampler, config = ALL[name]
    config = replace(config, **changes)
    return sampler(prior, observation or observe(), count, config, generator=seeded(seed), **(options or {}))


@both_schedules
@pytest.mark.parametrize("kind", ["hole", "matrix"])
def test_kalman_samples_a_gaussian_posterior_exactly(schedule, kind):
    """With the solver at full rank and the spread at all levels; the chain ends 0.05 deviations from clean."""
    prior, observation, count = prior_of(schedule), observe(), 500
    if kind == "matrix":
        observation = Observation(draw(1, 5, seed=5), operators.Linear(draw(5, SIZE, seed=6), SHAPE), 0.3)
    settings = Kalman(isotropic_below=0.0, solver_iterations=SIZE, spread_iterations=SIZE, spread_above=0.0)
    options = {"steps": 12, "batch_size": count, "decoder": "exact"}
    result = sample("kalman", prior, count, observation=observation, correction=settings, **options)
    mean, covariance = prior.posterior(observation).moments()
    deviation = result.latents.flatten(1) - mean
    assert (deviation.mean(0).abs() < 5 * (covariance.diagonal() / count).sqrt()).all()
    products = deviation[:, :, None] * deviation[:, None, :]
    assert ((products.mean(0) - covariance).abs() < 5 * products.std(0) / count**0.5).all()


@every_sampler
@both_schedules
def test_batches_change_nothing_but_memory(name, schedule):
    prior = prior_of(schedule)
    whole = sample(name, prior, 5, batch_size=5)
    assert whole.latents.shape == whole.images.shape == (5, *SHAPE)
    assert whole.latents.isfinite().all()
    parts = sample(name, prior, 5, batch_size=2)
    torch.testing.assert_close(parts.latents, whole.latents)
    # Methods that encode the observation do so once a batch.
    assert replace(parts.evaluations, encoder_forward=0) == replace(whole.evaluations, encoder_forward=0)
    alone = torch.cat([sample(name, prior, 1, options={"first": k}).latents for k in range(5)])
    torch.testing.assert_close(alone, whole.latents)


@every_sampler
def test_a_seed_repeats_and_another_does_not(name):
    first, again, other = (sample(name, prior_of(), 3, seed).latents for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first - other).flatten(1).norm(dim=1).min() > 0.1
    assert torch.pdist(first.flatten(1)).min() > 0.1


@every_sampler
def test_chains_begin_from_the_noise_that_is_given(name):
    prior, noise = prior_of(), draw(3, *SHAPE, seed=9)
    whole = sample(name, prior, 3, options={"noise": noise}, batch_size=2).latents
    alone = sample(name, prior, 1, options={"first": 2, "noise": noise[2:]}).latents
    torch.testing.assert_close(alone, whole[2:])
    assert (whole - sample(name, prior, 3).latents).flatten(1).norm(dim=1).min() > 0.01
    with pytest.raises(InputError, match="noise has shape"):
        sample(name, prior, 2, options={"noise": noise})


@every_sampler
@both_schedules
def test_given_times_replace_the_steps(name, schedule):
    prior = prior_of(schedule)
    times = tuple(ALL[name][1].grid(prior))
    torch.testing.assert_close(sample(name, prior, 2, times=times).latents, sample(name, prior, 2).latents)
    few = sample(name, prior, 2, times=(1.0, *times[1::2])).latents
    assert few.isfinite().all()
    for wrong in ((), (0.5, 0.5), (0.3, 0.5), (1.5, 0.5), (0.5, 0.0)):
        with pytest.raises(InputError, match="times are"):
            sample(name, prior, 2, times=wrong)


@every_sampler
def test_robust_noise_is_used_or_refused(name):
    observation = observe()
    robust = Observation(observation.y, observation.operator, observation.noise_std, StudentT())
    if name in ("dps", "kalman", "pigdm"):
        assert (sample(name, prior_of(), 2, observation=robust).latents != sample(name, prior_of(), 2).latents).any()
    else:
        with pytest.raises(InputError, match="takes noise as Gaussian"):
            sample(name, prior_of(), 2, observation=robust)


@every_sampler
def test_progress_runs_over_all_batches(name):
    seen = []
    sample(name, prior_of(), 3, options={"callback": seen.append}, batch_size=2, steps=4)
    assert [(p.step, p.total) for p in seen] == [(i + 1, 8) for i in range(8)]


@every_sampler
def test_no_samples_are_refused(name):
    for count, changes in ((0, {}), (1, {"batch_size": 0})):
        with pytest.raises(InputError):
            sample(name, prior_of(), count, **changes)


@every_sampler
def test_no_steps_are_refused(name):
    with pytest.raises(InputError):
        sample(name, prior_of(), 1, steps=0)


@both_schedules
def test_dps_without_a_step_samples_the_prior(schedule):
    prior, count = prior_of(schedule), 500
    x = sample("dps", prior, count, scale=0.0, steps=50, batch_size=count).latents.flatten(1)
    mean, covariance = prior.moments()
    assert ((x.mean(0) - mean).abs() < 5 * (covariance.diagonal() / count).sqrt()).all()
    assert (x.std(0) / covariance.diagonal().sqrt()).log().abs().max() < 5 / (2 * count) ** 0.5 + 0.02


@both_schedules
def test_dps_pulls_towards_the_observation(schedule):
    prior, observation = prior_of(schedule), observe()
    residuals = [
        observation.residual(sample("dps", prior, 20, scale=scale, steps=30).images).flatten(1).norm(dim=1).mean()
        for scale in (0.0, 0.1, 0.3)
    ]
    assert residuals[0] > residuals[1] > residuals[2]


@pytest.mark.parametrize("steps", [3, 7])
def test_dps_costs_one_forward_and_one_backward_a_step(steps):
    cost = sample("dps", prior_of(), 4, steps=steps).evaluations
    assert cost.denoiser_forward == cost.denoiser_backward == cost.decoder_backward == 4 * steps
    assert cost.decoder_forward == 4 * (steps + 1)


@both_schedules
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_blended_keeps_what_is_known_exactly(schedule, eta):
    prior, observation = prior_of(schedule), observe()
    x = sample("blended", prior, 4, eta=eta).latents
    known = observation.observed.expand(4, *SHAPE)
    assert torch.equal(x[known], observation.y.expand(4, *SHAPE)[known])
    assert torch.pdist(x.flatten(1)).min() > 0.1


@both_schedules
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_blended_fills_independent_latents_with_the_prior(schedule, eta):
    """Where nothing known says anything of the hole, replacement is exact."""
    prior, count = gaussian(schedule, SHAPE, correlated=False), 500
    x = sample("blended", prior, count, eta=eta, steps=50, batch_size=count).latents[:, :, MASK == 0]
    mean = prior.means[0][:, MASK == 0]
    assert ((x.mean(0) - mean).abs() < 5 * (0.6 / count) ** 0.5).all()
    assert (x.std(0) / 0.6**0.5).log().abs().max() < 5 / (2 * count) ** 0.5 + 0.02


def test_blended_lets_no_hole_into_a_known_latent():
    """A latent is known when all of the pixels it covers are: one hidden pixel frees it."""

    class Pooled(GaussianMixturePrior):
        def decode(self, z0):
            return z0.repeat_interleave(2, -1).repeat_interleave(2, -2)

        def encode(self, x):
            return torch.nn.functional.avg_pool2d(x, 2)

    plain = prior_of()
    prior = Pooled(plain.weights, plain.means, plain.covariances, VP)
    mask = torch.ones(4, 8, dtype=DOUBLE)
    mask[1, 3] = 0
    y = mask * draw(1, 2, 4, 8, seed=4)
    observation = Observation(y, operators.Inpainting(mask), 0.1)
    x = sample("blended", prior, 3, observation=observation).latents
    free = torch.zeros(2, 4, dtype=torch.bool)
    free[0, 1] = True
    known = prior.encode(y).expand(3, *SHAPE)
    assert torch.equal(x[..., ~free], known[..., ~free])
    assert not torch.isclose(x[..., free], known[..., free]).any()
    elsewhere = Observation(y + 5 * (1 - mask), observation.operator, 0.1)
    assert torch.equal(sample("blended", prior, 3, observation=elsewhere).latents, x)


def test_a_mask_of_its_own_for_every_channel_is_kept():
    mask = torch.stack([MASK, torch.ones_like(MASK)])[None]
    observation = Observation(mask * draw(1, *SHAPE, seed=4), operators.Inpainting(mask), 0.1)
    x = sample("blended", prior_of(), 2, observation=observation).latents
    known = (MASK == 1).expand(2, *SHAPE)
    assert torch.equal(x[known], observation.y.expand(2, *SHAPE)[known])


def test_blended_needs_no_gradient():
    assert sample("blended", prior_of(), 2, steps=5).evaluations.denoiser_backward == 0


@pytest.mark.parametrize(
    "observation",
    [
        Observation(draw(1, 5, seed=5), operators.Linear(draw(5, SIZE, seed=6), SHAPE), 0.3),
        Observation(draw(1, 8, seed=5), operators.Inpainting(torch.ones(8, dtype=DOUBLE)), 0.3),
    ],
    ids=["matrix", "no picture"],
)
def test_blended_needs_an_inpainting_observation_of_a_picture(observation):
    with pytest.raises(InputError, match="Inpainting"):
        sample("blended", prior_of(), 1, observation=observation)
