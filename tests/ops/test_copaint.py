"""CoPaint: its objective, its optimisation, its schedules, and what its samples are worth on a Gaussian."""

from dataclasses import replace

import pytest
import torch

from tests.ops.gaussian_chain import DOUBLE, FLOW, VP, draw, gaussian
from vipaint_ops import InputError, Observation, operators
from vipaint_ops.diffusion.prior import CountedPrior
from vipaint_ops.priors.analytic import GaussianMixturePrior
from vipaint_ops.samplers import CoPaintConfig, copaint
from vipaint_ops.samplers.copaint import Objective, optimised

SHAPE = (2, 2, 4)
MASK = torch.tensor([[1.0, 0, 1, 1], [0, 0, 1, 1]], dtype=DOUBLE)
HIDDEN = (MASK == 0).expand(SHAPE).flatten()
both_schedules = pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
PRESETS = {
    "default": CoPaintConfig(),
    "imagenet": CoPaintConfig.imagenet(),
    "imagenet512": CoPaintConfig.imagenet512(),
    "fast": CoPaintConfig.fast(),
    "fast_imagenet": CoPaintConfig.fast_imagenet(),
    "time_travel": CoPaintConfig.time_travel(),
}


class BentPrior(GaussianMixturePrior):
    """A Gaussian prior behind a decoder that bends, mixes and enlarges."""

    def decode(self, z0):
        return (torch.tanh(1.5 * z0) + 0.3 * z0.roll(1, -1) ** 2).repeat_interleave(2, -1)

    def encode(self, x):
        return x[..., ::2]


def bent(schedule) -> BentPrior:
    plain = gaussian(schedule, SHAPE)
    return BentPrior(plain.weights, plain.means, plain.covariances, schedule)


def observe(noise_std: float = 0.1) -> Observation:
    return Observation(MASK * draw(1, *SHAPE, seed=4), operators.Inpainting(MASK), noise_std)


def bent_objective(schedule, prediction_steps: int, weight: float = 0.2) -> tuple[Objective, torch.Tensor]:
    """One of three samples, and where they begin."""
    observation = Observation(draw(1, 5, seed=5), operators.Linear(draw(5, 32, seed=6) / 5, (2, 2, 8)), 0.1)
    times, z = [0.7, 0.5, 0.2][:prediction_steps], draw(3, *SHAPE, seed=7)
    return Objective(CountedPrior(bent(schedule)), observation, times, z + 0.3, weight, torch.ones(3)), z


def sample(config: CoPaintConfig, prior, count: int = 1, observation=None, noise=None, callback=None):
    return copaint(
        prior,
        observation or observe(),
        count,
        replace(config, batch_size=count),
        generator=torch.Generator().manual_seed(0),
        noise=noise,
        callback=callback,
    )


@both_schedules
@pytest.mark.parametrize("prediction_steps", [1, 3])
def test_the_gradient_goes_through_decoder_and_all_steps_of_the_prediction(schedule, prediction_steps):
    objective, z = bent_objective(schedule, prediction_steps)
    rows, direction, step = torch.arange(3), draw(3, *SHAPE, seed=8), 1e-5
    z.requires_grad_()
    (gradient,) = torch.autograd.grad(objective(z, rows).objective.sum(), z)
    slopes = (gradient * direction).flatten(1).sum(1)
    with torch.no_grad():
        up, down = (objective(z + s * direction, rows).objective for s in (step, -step))
    torch.testing.assert_close((up - down) / (2 * step), slopes, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("step_size", [1e-3, 1.0, 1e4])
def test_no_step_raises_the_objective_of_any_sample(step_size):
    objective, z = bent_objective(VP, 1)
    before = objective(z, torch.arange(3))
    for steps in (1, 2, 3):
        moved, found = optimised(objective, z, steps, step_size)
        after = objective(moved, torch.arange(3))
        assert (found.objective <= before.objective).all()
        assert (found.objective < before.objective).any()
        for kept, value in zip(found, after, strict=True):
            torch.testing.assert_close(kept, value)
        before = after


def test_a_sample_backtracks_for_itself():
    """Each takes the first of step, 0.8 step, 0.64 step ... that does not raise its own objective."""
    objective, z = bent_objective(VP, 1)
    step, rows = 30.0, torch.arange(3)
    moved, _ = optimised(objective, z, 1, step)
    z.requires_grad_()
    here = objective(z, rows).objective
    (gradient,) = torch.autograd.grad(here.sum(), z)
    tries = []
    for row in range(3):
        tried = 0
        while objective((z - step * 0.8**tried * gradient)[row : row + 1], rows[row : row + 1]).objective > here[row]:
            tried += 1
        torch.testing.assert_close(moved[row], (z - step * 0.8**tried * gradient)[row])
        tries.append(tried)
    assert len(set(tries)) > 1


def test_an_objective_that_is_not_a_number_leaves_the_latent_where_it_is():
    class Broken(BentPrior):
        def decode(self, z0):
            return torch.full_like(super().decode(z0), torch.nan) + z0.sum()

    plain = gaussian(VP, SHAPE)
    prior = CountedPrior(Broken(plain.weights, plain.means, plain.covariances, VP))
    observation = Observation(draw(1, 5, seed=5), operators.Linear(draw(5, 32, seed=6), (2, 2, 8)), 0.1)
    z = draw(2, *SHAPE, seed=7)
    moved, _ = optimised(Objective(prior, observation, [0.5], z, 0.1, torch.ones(2)), z, 1, 0.1)
    assert torch.equal(moved, z)


@both_schedules
@pytest.mark.parametrize("kind", ["hole", "average", "matrix"])
def test_the_mismatch_falls_towards_zero(schedule, kind):
    """Slowly while there is little signal, then to nothing; the observation's noise does not stop it."""
    observation = observe()
    if kind == "average":
        observation = Observation(draw(1, 2, 1, 2, seed=5), operators.SuperResolution(2, "average"), 0.1)
    if kind == "matrix":
        observation = Observation(draw(1, 5, seed=5), operators.Linear(draw(5, 16, seed=6) / 4, SHAPE), 0.1)
    seen = []
    config = CoPaintConfig(steps=60)
    sample(config, gaussian(schedule, SHAPE), 3, observation, callback=lambda p: seen.append(p.terms["mismatch"]))
    assert seen[-1] < 0.05 * seen[0]
    assert all(b < 1.05 * a for a, b in zip(seen, seen[5:], strict=False))


def test_weight_holds_latents_back():
    prior = gaussian(VP, SHAPE)
    residuals = []
    for weight in (0.0, 3.0, 100.0):
        config = CoPaintConfig(steps=20, weight=weight, weight_growth=1.0)
        images = sample(config, prior, 4).images
        residuals.append(observe().residual(images).norm().item())
    assert residuals[0] < residuals[1] < residuals[2]


@pytest.mark.parametrize("travel_visits", [1, 2])
def test_a_level_costs_two_evaluations_and_one_gradient_a_step(travel_visits):
    """The published counts are 1245 and 498, with time travel 2565 and 1026, of 249 steps between 250 levels: there the
    latent that was accepted is evaluated once more at every level."""
    config = CoPaintConfig(steps=249, step_size=1e-6, travel_visits=travel_visits)
    prior = gaussian(VP, (2,))
    observation = Observation(draw(1, 1, seed=5), operators.Linear(draw(1, 2, seed=6), (2,)), 0.1)
    seen = []
    cost = sample(config, prior, 1, observation, callback=seen.append).evaluations
    levels = {1: 249, 2: 489 + 24}[travel_visits]
    assert cost.denoiser_backward == {1: 498, 2: 1026}[travel_visits] == 2 * levels
    assert cost.denoiser_forward == {1: 1245, 2: 2565}[travel_visits] - levels
    assert len(seen) == {1: 249, 2: 489}[travel_visits]


def test_a_prediction_in_more_steps_costs_as_many_more():
    prior = gaussian(VP, SHAPE)
    config = CoPaintConfig(steps=4, step_size=1e-6, prediction_steps=3)
    assert [config.prediction_times(list(range(n))) for n in (7, 3, 2, 1)] == [[0, 2, 4], [0, 1, 2], [0, 1], [0]]
    assert sample(config, prior).evaluations.denoiser_backward == 2 * (3 + 3 + 2 + 1)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_the_published_constants(name):
    steps, gradient_steps, step_size, growth, weight, weight_growth, visits = {
        "default": (250, 2, 0.02, 1.012, 1e-4, 1.01, 1),
        "imagenet": (250, 2, 0.02, 1.012, 0.01, 1.0, 1),
        "imagenet512": (100, 5, 0.0025, 1.05, 0.01, 1.0, 1),
        "fast": (100, 1, 0.02, 1.03, 1e-4, 1.01, 1),
        "fast_imagenet": (100, 1, 0.025, 1.03, 0.01, 1.0, 1),
        "time_travel": (250, 2, 0.02, 1.012, 1e-4, 1.01, 2),
    }[name]
    config = PRESETS[name]
    assert (config.steps, config.gradient_steps, config.step_size) == (steps, gradient_steps, step_size)
    assert config.step_growth == pytest.approx(growth**steps)
    assert (config.weight, config.weight_growth) == (weight, pytest.approx(weight_growth**steps))
    assert (config.travel_length, config.travel_visits) == (10, visits)
    assert config.follows_signal == (name != "imagenet512")


@pytest.mark.parametrize("changes", [{}, {"travel_length": 3, "travel_visits": 2}, {"follows_signal": False}])
def test_matched_noise_levels_give_the_same_under_both_schedules(changes):
    times = tuple(1 - i / 12 for i in range(12))
    matched = tuple(FLOW.time_at_log_snr(VP.log_snr(t)) for t in times)
    noise = draw(2, *SHAPE, seed=9)
    vp, flow = (
        sample(CoPaintConfig(times=t, step_size=0.1, weight=0.1, **changes), gaussian(s, SHAPE), 2, noise=noise)
        for s, t in ((VP, times), (FLOW, matched))
    )
    torch.testing.assert_close(flow.latents, vp.latents, rtol=1e-6, atol=1e-8)
    assert flow.evaluations == vp.evaluations


def test_the_decoder_s_size_and_gain_do_not_matter():
    """A picture of twice the latent's columns and three times its size is fitted by the same steps."""

    class Enlarged(GaussianMixturePrior):
        def decode(self, z0):
            return 3 * z0.repeat_interleave(2, -1)

        def encode(self, x):
            return x[..., ::2] / 3

    plain, y = gaussian(VP, SHAPE), MASK * draw(1, *SHAPE, seed=4)
    prior = Enlarged(plain.weights, plain.means, plain.covariances, VP)
    wide = Observation(prior.decode(y), operators.Inpainting(MASK.repeat_interleave(2, -1)), 0.1)
    config = CoPaintConfig(steps=10)
    latents = sample(config, prior, 2, wide).latents
    torch.testing.assert_close(
        latents, sample(config, plain, 2, Observation(y, operators.Inpainting(MASK), 0.1)).latents
    )


@both_schedules
def test_samples_fit_the_noise_and_are_too_narrow(schedule):
    """The errors CoPaint is known to have on a Gaussian, from both sides: the observed part has hardly any spread where
    the posterior has some, the hidden part a little too little, and its mean is off by less than half a deviation."""
    prior, observation, count = gaussian(schedule, SHAPE), observe(0.3), 200
    x = sample(CoPaintConfig(steps=50, step_growth=20.0), prior, count, observation).latents.flatten(1)
    mean, covariance = prior.posterior(observation).moments()
    std = covariance.diagonal().sqrt()
    spread = (x.std(0) / std).log()
    assert (spread[~HIDDEN] < -2).all()
    assert -0.3 < spread[HIDDEN].mean() < -0.02
    assert 0.1 < ((x.mean(0) - mean) / std)[HIDDEN].square().mean().sqrt() < 0.8


@pytest.mark.parametrize("name", ["gradient_steps", "prediction_steps", "travel_length", "travel_visits"])
def test_counts_are_at_least_one(name):
    with pytest.raises(InputError, match=name):
        CoPaintConfig(**{name: 0})
