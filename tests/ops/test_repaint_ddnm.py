"""RePaint and DDNM, the methods without a gradient: time travel, replacement, pseudo-inverse, noise."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from tests.ops.gaussian_chain import DOUBLE, FLOW, VP, draw, gaussian
from vipaint_ops import InputError, Observation, operators
from vipaint_ops.diffusion.schedule import Level
from vipaint_ops.diffusion.streams import NoiseStreams
from vipaint_ops.evaluation.metrics import consistency, moment_errors
from vipaint_ops.priors.analytic import GaussianMixturePrior
from vipaint_ops.samplers import BlendedConfig, DDNMConfig, RePaintConfig, blended, ddnm, repaint
from vipaint_ops.samplers.ddnm import carried_noise, scalings
from vipaint_ops.samplers.travel import TravelConfig, noised

SHAPE, SIZE = (2, 2, 4), 16
MASK = torch.tensor([[1.0, 0, 1, 1], [0, 0, 1, 1]], dtype=DOUBLE)
HIDDEN = (MASK == 0).expand(SHAPE).flatten()
both_schedules = pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
OPERATORS = {
    "hole": operators.Inpainting(MASK),
    "average": operators.SuperResolution(2, "average"),
    "bicubic": operators.SuperResolution(2, "bicubic"),
    "matrix": operators.Linear(draw(5, SIZE, seed=6), SHAPE),
}


class Pooled(GaussianMixturePrior):
    """A Gaussian prior whose pictures are three times as large in value, and twice in sides."""

    def decode(self, z0):
        return 3 * z0.repeat_interleave(2, -1).repeat_interleave(2, -2)

    def encode(self, x):
        return torch.nn.functional.avg_pool2d(x, 2) / 3


def pooled() -> Pooled:
    plain = gaussian(VP, SHAPE)
    return Pooled(plain.weights, plain.means, plain.covariances, VP)


def observe(operator=OPERATORS["hole"], noise_std: float = 0.3, prior=None, schedule=VP) -> Observation:
    """A draw of the prior, seen with noise."""
    x = (prior or gaussian(schedule, SHAPE)).sample(1, torch.Generator().manual_seed(4))
    y = operator(x)
    return Observation(y + noise_std * draw(*y.shape, seed=5) * operator.observed(y), operator, noise_std)


def sample(method, config, prior, observation, count=3, noise=None):
    generator = torch.Generator().manual_seed(0)
    return method(prior, observation, count, replace(config, batch_size=count), generator=generator, noise=noise)


def errors(method, config, prior, observation, count=200):
    """Errors of mean and spread over the hidden latents."""
    x = sample(method, config, prior, observation, count).latents.flatten(1)[:, HIDDEN]
    mean, covariance = prior.posterior(observation).moments()
    return moment_errors(x, mean[HIDDEN], covariance.diagonal().sqrt()[HIDDEN])


def test_travel_goes_back_and_forth_as_published():
    """Seven levels, stretches of 2, each gone through twice; the noisiest stretch once."""
    assert TravelConfig(travel_length=2, travel_visits=2).path(7) == [0, 1, 2, 0, 1, 2, 3, 4, 2, 3, 4, 5, 6, 4, 5, 6, 7]
    assert TravelConfig(travel_length=2, travel_visits=3).path(3) == [0, 1, 2, 0, 1, 2, 0, 1, 2, 3]
    for steps in (1, 2, 5):
        assert TravelConfig(travel_length=5, travel_visits=9).path(steps) == list(range(steps + 1))
        assert TravelConfig(travel_length=1, travel_visits=1).path(steps) == list(range(steps + 1))


@pytest.mark.parametrize(
    ("config", "steps", "jumps"),
    [(RePaintConfig(), 2410, 216), (DDNMConfig(), 100, 0), (DDNMConfig.time_travel(), 280, 18)],
)
def test_published_numbers_of_evaluations(config, steps, jumps):
    path = config.path(config.steps)
    assert sum(b == a + 1 for a, b in pairwise(path)) == steps
    assert sum(b == a - config.travel_length for a, b in pairwise(path)) == jumps


@pytest.mark.parametrize(
    ("method", "config"), [(repaint, RePaintConfig(travel_visits=2)), (ddnm, DDNMConfig.time_travel())]
)
def test_a_step_costs_one_evaluation_and_no_gradient(method, config):
    config = replace(config, steps=20)
    cost = sample(method, config, gaussian(VP, SHAPE), observe(), 2).evaluations
    assert cost.denoiser_forward == 2 * sum(b > a for a, b in pairwise(config.path(20)))
    assert cost.denoiser_backward == cost.decoder_backward == 0


def test_noising_keeps_the_marginal():
    s, t, count = VP.level(0.2), VP.level(0.6), 20000
    z = torch.full((1, count), 0.7, dtype=DOUBLE)
    z = s.alpha * z + s.sigma * draw(1, count, seed=1)
    z = noised(z, s, t, NoiseStreams(0, [0]))
    assert abs(z.mean() - 0.7 * t.alpha) < 5 * t.sigma / count**0.5
    assert abs(z.std() / t.sigma - 1) < 5 / (2 * count) ** 0.5


@both_schedules
def test_repaint_without_travel_is_ancestral_replacement(schedule):
    prior, observation = gaussian(schedule, SHAPE), observe()
    plain = sample(blended, BlendedConfig(steps=10, eta=1.0), prior, observation).latents
    assert torch.equal(sample(repaint, RePaintConfig(steps=10, travel_visits=1), prior, observation).latents, plain)


@both_schedules
def test_travel_brings_replacement_closer_to_the_posterior(schedule):
    """Two latents with correlation 0.8, of which one is known to be 1: the other is N(0.8, 0.6^2).

    Plain replacement hardly lets the known one speak; the more often a stretch is gone through, the better.
    """
    covariance = torch.tensor([[[1.0, 0.8], [0.8, 1.0]]], dtype=DOUBLE)
    prior = GaussianMixturePrior(
        torch.ones(1, dtype=DOUBLE), torch.zeros(1, 1, 1, 2, dtype=DOUBLE), covariance, schedule
    )
    pixels = torch.tensor([[[[1.0, 0.0]]]], dtype=DOUBLE)
    observation = Observation(pixels, operators.Inpainting(pixels), 1e-3)
    plain, travelled = (
        sample(repaint, RePaintConfig(steps=40, travel_length=5, travel_visits=visits), prior, observation, 150)
        for visits in (1, 12)
    )
    gaps = [0.8 - x.latents[..., 1].mean().item() for x in (plain, travelled)]
    assert gaps[0] > 0.2
    assert -0.1 < gaps[1] < 0.8 * gaps[0]
    assert abs(travelled.latents[..., 1].std() / 0.6 - 1) < 0.2


def test_repaint_keeps_what_is_known_and_refuses_what_it_cannot_replace():
    prior, observation = gaussian(VP, SHAPE), observe()
    known = observation.observed.expand(3, *SHAPE)
    x = sample(repaint, RePaintConfig(steps=12, travel_length=3, travel_visits=2), prior, observation).latents
    assert torch.equal(x[known], observation.y.expand(3, *SHAPE)[known])
    for name in ("average", "matrix"):
        with pytest.raises(InputError, match="RePaint"):
            sample(repaint, RePaintConfig(), prior, observe(OPERATORS[name]))


@both_schedules
@pytest.mark.parametrize("name", OPERATORS)
def test_ddnm_fits_an_exact_observation_exactly(schedule, name):
    observation = observe(OPERATORS[name], schedule=schedule)
    x = sample(ddnm, DDNMConfig(steps=10, noisy=False), gaussian(schedule, SHAPE), observation).images
    assert observation.residual(x).abs().max() < 1e-9
    assert torch.pdist(x.flatten(1)).min() > 0.1


def test_ddnm_fits_an_exact_observation_through_an_autoencoder():
    """As far as the decoder can produce what was observed."""
    prior = pooled()
    picture = prior.decode(prior.sample(1, torch.Generator().manual_seed(4)))
    mask = MASK.repeat_interleave(2, -1).repeat_interleave(2, -2)
    observation = Observation(mask * picture, operators.Inpainting(mask), 0.1)
    x = sample(ddnm, DDNMConfig(steps=10, noisy=False), prior, observation).images
    assert observation.residual(x).abs().max() < 1e-9


@both_schedules
@pytest.mark.parametrize(("name", "least"), [("hole", 0.6), ("matrix", 0.2)])
def test_ddnm_plus_leaves_a_residual_of_about_the_noise(schedule, name, least):
    """Less where the simplified form takes the noise of A^+ y for larger than it is."""
    observation = observe(OPERATORS[name], noise_std=0.2, schedule=schedule)
    prior = gaussian(schedule, SHAPE)
    plus, exact = (
        sample(ddnm, DDNMConfig(steps=50, noisy=noisy), prior, observation, 50).images for noisy in (True, False)
    )
    assert least < consistency(plus, observation).mean() < 1.3
    assert consistency(exact, observation).max() < 1e-6


@both_schedules
def test_ddnm_is_narrower_than_the_posterior(schedule):
    """Its known errors on a Gaussian, from both sides: hidden latents spread too little, by less than a quarter, around
    a mean that is off, by less than half a deviation."""
    prior, observation = gaussian(schedule, SHAPE), observe(schedule=schedule)
    for noisy in (True, False):
        found = errors(ddnm, DDNMConfig(steps=50, noisy=noisy), prior, observation)
        assert -0.3 < found.log_std < -0.05
        assert 0.02 < found.mean < 0.5


@pytest.mark.parametrize("spectral", [True, False])
@pytest.mark.parametrize("noise_std", [0.0, 0.1, 0.7, 3.0])
def test_correction_and_noise_add_up_to_the_level(spectral, noise_std):
    """Of a latent that carries the noise of A^+ y, and of one in the null space."""
    for level in (Level(0.8, 0.6), Level(0.7, 0.3), Level(0.999, 0.04)):
        std = torch.tensor([noise_std, 0.0], dtype=DOUBLE)
        scale = scalings(level, std, std, 0.85, spectral)
        variance = (level.alpha * scale.correction * std) ** 2 + scale.fresh**2 + scale.kept**2
        torch.testing.assert_close(variance, torch.full((2,), level.sigma**2, dtype=DOUBLE))
        assert scale.correction[1] == 1
        assert (noise_std == 0) <= (scale.correction[0] == 1)


def test_the_last_step_of_ddnm_plus_trusts_the_prediction():
    scale = scalings(Level(1.0, 0.0), *torch.tensor([[0.1, 0.0]] * 2, dtype=DOUBLE), 0.85, True)
    assert scale.correction.tolist() == [0, 1]
    assert not scale.fresh.any()
    assert not scale.kept.any()


def test_noise_is_counted_in_units_of_latents():
    """What a latent averages over four pixels, a third of their size, has a sixth of their noise; a hidden one none."""
    mask = MASK.repeat_interleave(2, -1).repeat_interleave(2, -2)
    observation = Observation(draw(1, 2, 4, 8, seed=3), operators.Inpainting(mask), 0.6)
    by_pixel, by_latent = carried_noise(pooled(), observation, NoiseStreams(0, range(200)), True)
    torch.testing.assert_close(by_latent.mean(0)[0], 0.1 * MASK, rtol=0.05, atol=0)
    torch.testing.assert_close(by_pixel.mean(0)[0], 0.1 * mask, rtol=0.05, atol=0)


@pytest.mark.parametrize("eta", [0.0, 0.85])
@pytest.mark.parametrize("name", ["hole", "matrix"])
def test_matched_noise_levels_give_the_same_under_both_schedules(name, eta):
    times = tuple(1 - i / 12 for i in range(12))
    matched = tuple(FLOW.time_at_log_snr(VP.log_snr(t)) for t in times)
    observation, noise = observe(OPERATORS[name]), draw(2, *SHAPE, seed=9)
    methods = [(ddnm, DDNMConfig(eta=eta, travel_length=3, travel_visits=2))]
    if name == "hole":
        methods.append((repaint, RePaintConfig(travel_length=3, travel_visits=2)))
    for method, config in methods:
        vp, flow = (
            sample(method, replace(config, times=t), gaussian(s, SHAPE), observation, 2, noise).latents
            for s, t in ((VP, times), (FLOW, matched))
        )
        torch.testing.assert_close(flow, vp, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["travel_length", "travel_visits"])
def test_counts_are_at_least_one(name):
    with pytest.raises(InputError, match=name):
        RePaintConfig(**{name: 0})
