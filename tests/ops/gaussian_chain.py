"""Gaussian priors and what the prior's reverse chain is under them: linear maps with Gaussian noise."""

import torch
from torch.distributions import MultivariateNormal, kl_divergence

from vipaint_ops import HierarchicalPosterior, NoiseSchedule, Observation, operators
from vipaint_ops.diffusion.prior import CountedPrior
from vipaint_ops.diffusion.schedule import Level, reverse_kernel
from vipaint_ops.diffusion.streams import NoiseStreams
from vipaint_ops.priors.analytic import GaussianMixturePrior
from vipaint_ops.vipaint.objective import bound_terms
from vipaint_ops.vipaint.posterior import describe

DOUBLE = torch.float64
VP, FLOW = NoiseSchedule.scaled_linear(0.0015, 0.0195), NoiseSchedule.rectified_flow(3.0)


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def partly_seen(noise_std: float = 0.3) -> Observation:
    """Five of the eight elements of a 2 x 4 latent."""
    mask = torch.tensor([[1.0, 0, 1, 1], [0, 0, 1, 1]], dtype=DOUBLE)
    return Observation(mask * draw(1, 2, 4, seed=4), operators.Inpainting(mask), noise_std)


def unfitted(prior: GaussianMixturePrior, times: tuple[float, ...] = (0.7, 0.5)) -> HierarchicalPosterior:
    """A posterior over 2 x 4 latents that knows nothing of any observation."""
    means, gates = (draw(len(times), 2, 4, seed=seed) for seed in (5, 6))
    posterior = HierarchicalPosterior(times, means, torch.full_like(means, -0.3), gates)
    posterior.metadata = describe(prior)
    return posterior


def gaussian(schedule: NoiseSchedule = VP, shape: tuple[int, ...] = (2, 4), correlated: bool = True):
    """One Gaussian over ``shape`` with a mean, and a covariance of its own or 0.6 times the identity."""
    size = torch.Size(shape).numel()
    factor = draw(size, size, seed=1)
    covariance = 0.6 * torch.eye(size, dtype=DOUBLE)
    if correlated:
        covariance = factor @ factor.T / size + 0.1 * torch.eye(size, dtype=DOUBLE)
    return GaussianMixturePrior(torch.ones(1, dtype=DOUBLE), draw(1, *shape, seed=2), covariance[None], schedule)


def marginal(prior: GaussianMixturePrior, level: Level) -> MultivariateNormal:
    """p(z_t), flat."""
    mean, covariance = prior.moments()
    identity = torch.eye(len(mean), dtype=DOUBLE)
    return MultivariateNormal(level.alpha * mean, level.alpha**2 * covariance + level.sigma**2 * identity)


def prediction_map(prior: GaussianMixturePrior, level: Level) -> tuple[torch.Tensor, torch.Tensor]:
    """E[z_0 | z_t] = matrix z_t + offset."""
    mean, covariance = prior.moments()
    matrix = level.alpha * covariance @ marginal(prior, level).precision_matrix
    return matrix, mean - level.alpha * matrix @ mean


def step_map(prior: GaussianMixturePrior, s: Level, t: Level, eta: float) -> tuple[torch.Tensor, torch.Tensor, float]:
    """p(z_s | z_t) = N(matrix z_t + offset, variance): the DDIM step, linear in z_t and in the prediction."""
    variance = eta**2 * reverse_kernel(s, t).variance
    on_z = (s.sigma**2 - variance) ** 0.5 / t.sigma
    on_z0 = s.alpha - on_z * t.alpha
    matrix, offset = prediction_map(prior, t)
    return on_z * torch.eye(len(offset), dtype=DOUBLE) + on_z0 * matrix, on_z0 * offset, variance


def walk_moments(prior: GaussianMixturePrior, q: HierarchicalPosterior) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Mean and covariance of q(z) at every keypoint, top first."""
    level = prior.schedule.level(q.times[0])
    mean, covariance = level.alpha * q.means[0].flatten(), (2 * q.log_stds[0].flatten()).exp().diag()
    moments = [(mean, covariance)]
    for k in range(1, len(q.times)):
        above, level = level, prior.schedule.level(q.times[k])
        step, offset, _ = step_map(prior, level, above, q.eta)
        gate = q.gates[k].flatten().sigmoid()
        matrix = gate.diag() @ step
        mean = matrix @ mean + gate * offset + (1 - gate) * level.alpha * q.means[k].flatten()
        covariance = matrix @ covariance @ matrix.T + (2 * q.log_stds[k].flatten()).exp().diag()
        moments.append((mean, covariance))
    return moments


def exact_top_kl(prior: GaussianMixturePrior, q: HierarchicalPosterior) -> torch.Tensor:
    """KL(q(z_K) || p(z_K))."""
    level = prior.schedule.level(q.times[0])
    deviation = q.log_stds[0].flatten().exp()
    top = MultivariateNormal(level.alpha * q.means[0].flatten(), scale_tril=deviation.diag())
    return kl_divergence(top, marginal(prior, level))


def bound(prior: GaussianMixturePrior, observation: Observation, q: HierarchicalPosterior, count: int):
    """The bound with its top KL exact, over the same ``count`` draws at every call, and its standard error."""
    with torch.no_grad():
        terms = bound_terms(CountedPrior(prior), observation, q, NoiseStreams(0, range(count)))
    draws = -(terms.likelihood + terms.transitions)
    return draws.mean() - exact_top_kl(prior, q), draws.std() / count**0.5
