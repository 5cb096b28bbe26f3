"""Fits and samplers run on a device without float64 (Apple's MPS), by the stand-in of no_float64.py."""

import pytest
import torch

from tests.ops.no_float64 import DEVICE, Float64Error, no_float64, on_device
from vipaint_ops import (
    FitConfig,
    NoiseSchedule,
    Observation,
    RefineConfig,
    fit_posterior,
    operators,
    sample_posterior,
    samplers,
)
from vipaint_ops.inference.corrections import CORRECTIONS
from vipaint_ops.priors.analytic import GaussianMixturePrior
from vipaint_ops.samplers import KalmanConfig, kalman

SHAPE = (3, 4, 4)
FIT = FitConfig(iterations=2, samples=2, start_chains=2, start_steps=2, bound_every=1)


class StandardNormal:
    """The prior N(0, 1) over latents that are their own pictures."""

    schedule = NoiseSchedule.scaled_linear(0.00085, 0.012)
    latent_shape, identity, data_std, device, dtype = SHAPE, "standard normal", 1.0, DEVICE, torch.float32

    def denoise(self, z, t):
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return z * (alpha / (alpha**2 + sigma**2)).view(-1, 1, 1, 1)

    def decode(self, z0):
        return z0

    def encode(self, x):
        return x


def observe(pixels: int = 16) -> Observation:
    mask = torch.zeros(16)
    mask[:pixels] = 1
    mask = on_device(mask.view(1, 1, 4, 4))
    return Observation(mask * on_device(torch.ones(1, *SHAPE)), operators.Inpainting(mask), 0.1)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_stand_in_refuses_float64():
    with no_float64(), pytest.raises(Float64Error):
        on_device(torch.ones(2)).double()


@pytest.mark.parametrize("name", [name for name in samplers.__all__ if not name.endswith("Config")])
def test_samplers_make_no_float64_on_the_device(name):
    classes = {n.removesuffix("Config").lower(): getattr(samplers, n) for n in samplers.__all__ if n.endswith("Config")}
    config = classes[name.replace("_", "")](steps=2, batch_size=2)
    with no_float64():
        result = getattr(samplers, name)(StandardNormal(), observe(), 2, config, generator=seeded())
    assert result.images.device.type == "cpu"
    assert result.images.isfinite().all()


@pytest.mark.parametrize("guidance", CORRECTIONS.values(), ids=CORRECTIONS)
def test_a_fit_and_its_samples_make_no_float64_on_the_device(guidance):
    with no_float64():
        prior, observation = StandardNormal(), observe(8)
        posterior = fit_posterior(prior, observation, FIT, generator=seeded())
        config = RefineConfig(guidance, steps=2)
        result = sample_posterior(prior, observation, posterior, 2, config, generator=seeded())
    assert result.images.isfinite().all()


@pytest.mark.parametrize("pixels", [2, 16], ids=["weighed exactly", "tempered"])
def test_particles_make_no_float64_on_the_device(pixels):
    with no_float64():
        result = kalman(StandardNormal(), observe(pixels), 2, KalmanConfig(particles=2, steps=3), generator=seeded())
    assert result.images.isfinite().all()


def test_an_analytic_prior_and_its_posterior_make_no_float64_on_the_device():
    means = torch.arange(6.0).view(2, 3)
    weights, covariances = torch.tensor([0.3, 0.7]), torch.eye(3).expand(2, 3, 3)
    there = GaussianMixturePrior(weights, means, covariances, StandardNormal.schedule)
    observation = Observation(torch.ones(1, 3), operators.Inpainting(torch.tensor([1.0, 0, 1])), 0.5)
    z, t = torch.ones(2, 3), torch.tensor([0.3, 0.6])
    with no_float64():
        here = GaussianMixturePrior(*map(on_device, (weights, means, covariances)), StandardNormal.schedule)
        seen = Observation(on_device(observation.y), observation.operator.to(DEVICE, torch.float32), 0.5)
        exact = here.posterior(seen)
        found = [here.denoise(on_device(z), on_device(t)), exact.means, exact.weights, here.sample(4, seeded())]
        found += [here.log_prob(on_device(z), 0.4), *exact.moments()]
        assert all(tensor.device == DEVICE for tensor in found)
        found = [tensor.cpu() for tensor in found]
    law = there.posterior(observation)
    expected = [there.denoise(z, t), law.means, law.weights, there.sample(4, seeded()), there.log_prob(z, 0.4)]
    for one, other in zip(found, [*expected, *law.moments()], strict=True):
        torch.testing.assert_close(one, other)
