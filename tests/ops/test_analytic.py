"""The analytic priors, against Bayes' rule, autograd and their own samples."""

import pytest
import torch
from torch.distributions import MultivariateNormal

from vipaint_ops import InputError, NoiseSchedule, Observation, operators
from vipaint_ops.priors.analytic import GaussianMixturePrior

DOUBLE = torch.float64
VP, FLOW = NoiseSchedule.scaled_linear(0.0015, 0.0195), NoiseSchedule.rectified_flow(2.0)


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def mixture(shared: bool = False, schedule: NoiseSchedule = VP, shape: tuple[int, ...] = (2, 2, 3)):
    """Three Gaussians of unlike weights over ``shape``, with covariances of their own or one for all."""
    size = torch.Size(shape).numel()
    factors = draw(1 if shared else 3, size, size, seed=1).expand(3, -1, -1)
    covariances = factors @ factors.mT / size + 0.2 * torch.eye(size, dtype=DOUBLE)
    return GaussianMixturePrior(torch.tensor([1.0, 2, 5], dtype=DOUBLE), draw(3, *shape, seed=2), covariances, schedule)


every_mixture = pytest.mark.parametrize("prior", [mixture(), mixture(shared=True)], ids=["own", "shared"])


def hole_observation() -> Observation:
    mask = torch.tensor([[1.0, 0, 1], [0, 0.5, 1]], dtype=DOUBLE)
    return Observation(mask * draw(1, 2, 2, 3, seed=3), operators.Inpainting(mask), 0.3)


def matrix_observation() -> Observation:
    return Observation(draw(1, 5, seed=4), operators.Linear(draw(5, 12, seed=5), (2, 2, 3)), 0.4)


def at(prior: GaussianMixturePrior, t: float) -> list[MultivariateNormal]:
    """torch's own components of p(z_t)."""
    alpha, sigma = prior.schedule.level(t)
    noise = sigma**2 * torch.eye(prior.covariances.shape[1], dtype=DOUBLE)
    return [
        MultivariateNormal(alpha * mean, alpha**2 * covariance + noise)
        for mean, covariance in zip(prior.means.flatten(1), prior.covariances, strict=True)
    ]


@every_mixture
@pytest.mark.parametrize("t", [0.02, 0.4, 0.9])
def test_log_prob_is_the_mixture_of_torch_densities(prior, t):
    z = draw(6, 2, 2, 3, seed=0)
    terms = [w.log() + law.log_prob(z.flatten(1)) for w, law in zip(prior.weights, at(prior, t), strict=True)]
    torch.testing.assert_close(prior.log_prob(z, t), torch.stack(terms).logsumexp(0))


@every_mixture
@pytest.mark.parametrize("observation", [hole_observation(), matrix_observation()], ids=["hole", "matrix"])
def test_posterior_obeys_bayes_rule(prior, observation):
    """ln p(x) + ln p(y|x) - ln p(y) = ln p(x|y), for every x."""
    posterior, x = prior.posterior(observation), 2 * draw(50, 2, 2, 3, seed=6)
    left = prior.log_prob(x) + observation.log_likelihood(x) - posterior.log_evidence
    torch.testing.assert_close(left, posterior.log_prob(x))


def test_what_a_hole_hides_does_not_move_the_posterior():
    prior, observation = mixture(), hole_observation()
    holes = ~observation.observed
    assert holes.any()
    other = Observation(observation.y + 9.0 * holes, observation.operator, observation.noise_std)
    first, second = prior.posterior(observation), prior.posterior(other)
    assert torch.equal(first.means, second.means)
    assert torch.equal(first.covariances, second.covariances)
    assert first.log_evidence == second.log_evidence


@every_mixture
@pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
@pytest.mark.parametrize("t", [0.05, 0.5, 0.9])
def test_score_is_the_gradient_of_log_prob(prior, schedule, t):
    """Tweedie's first moment: grad ln p(z_t) = (alpha zh - z) / sigma^2."""
    prior = GaussianMixturePrior(prior.weights, prior.means, prior.covariances, schedule)
    z = draw(5, 2, 2, 3, seed=7).requires_grad_()
    (score,) = torch.autograd.grad(prior.log_prob(z, t).sum(), z)
    alpha, sigma = schedule.level(t)
    prediction = prior.denoise(z, torch.full((5,), t, dtype=DOUBLE))
    torch.testing.assert_close((alpha * prediction - z) / sigma**2, score)


@every_mixture
@pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_tweedie_covariance_is_the_posterior_covariance(prior, schedule, t):
    """(sigma^2 / alpha) d zh / dz = Cov[z_0 | z_t]: z_t observes z_0 through alpha times the identity."""
    prior = GaussianMixturePrior(prior.weights, prior.means, prior.covariances, schedule)
    z, times = draw(1, 2, 2, 3, seed=8), torch.tensor([t], dtype=DOUBLE)
    alpha, sigma = schedule.level(t)
    jacobian = torch.autograd.functional.jacobian(lambda v: prior.denoise(v, times), z).reshape(12, 12)
    observation = Observation(z.flatten(1), operators.Linear(alpha * torch.eye(12, dtype=DOUBLE)), sigma)
    mean, covariance = prior.posterior(observation).moments()
    torch.testing.assert_close(prior.denoise(z, times).flatten(), mean)
    torch.testing.assert_close(sigma**2 / alpha * jacobian, covariance)


@every_mixture
def test_rows_may_have_times_of_their_own(prior):
    z, times = draw(3, 2, 2, 3, seed=9), torch.tensor([0.1, 0.5, 0.9], dtype=DOUBLE)
    alone = torch.cat([prior.denoise(z[i : i + 1], times[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(prior.denoise(z, times), alone)


@every_mixture
def test_samples_have_the_moments_of_the_mixture(prior):
    count = 40_000
    x = prior.sample(count, torch.Generator().manual_seed(0)).flatten(1)
    mean, covariance = prior.moments()
    variance = covariance.diagonal()
    assert ((x.mean(0) - mean).abs() < 5 * (variance / count).sqrt()).all()
    products = (x - mean)[:, :, None] * (x - mean)[:, None, :]
    assert ((products.mean(0) - covariance).abs() < 5 * products.std(0) / count**0.5).all()


@every_mixture
def test_moments_are_those_of_the_components(prior):
    second = sum(
        w * (s + torch.outer(m, m))
        for w, m, s in zip(prior.weights, prior.means.flatten(1), prior.covariances, strict=True)
    )
    mean, covariance = prior.moments()
    torch.testing.assert_close(mean, sum(w * m for w, m in zip(prior.weights, prior.means.flatten(1), strict=True)))
    torch.testing.assert_close(covariance, second - torch.outer(mean, mean))
    assert prior.data_std == pytest.approx(covariance.diagonal().mean().sqrt().item())


def test_the_decoder_is_the_identity():
    prior, x = mixture(), draw(2, 2, 2, 3, seed=0)
    assert torch.equal(prior.decode(x), x)
    assert torch.equal(prior.encode(x), x)


def test_bad_mixtures_are_refused():
    eye = torch.eye(4, dtype=DOUBLE)[None]
    with pytest.raises(InputError, match="shapes disagree"):
        GaussianMixturePrior(torch.ones(2), torch.zeros(1, 4), eye, VP)
    with pytest.raises(InputError, match="positive definite"):
        GaussianMixturePrior(torch.ones(1), torch.zeros(1, 4, dtype=DOUBLE), eye - 2, VP)
