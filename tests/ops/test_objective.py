"""The bound, term by term against closed forms, as a bound on an evidence, and its gradients."""

from itertools import pairwise

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from tests.ops.gaussian_chain import (
    DOUBLE,
    FLOW,
    VP,
    bound,
    draw,
    exact_top_kl,
    gaussian,
    marginal,
    prediction_map,
    step_map,
    walk_moments,
)
from vipaint_ops import FitConfig, HierarchicalPosterior, Observation, fit_posterior, operators
from vipaint_ops.diffusion.prior import CountedPrior
from vipaint_ops.diffusion.streams import NoiseStreams
from vipaint_ops.inference.linearised import clean_variance
from vipaint_ops.priors.analytic import GaussianMixturePrior
from vipaint_ops.vipaint.objective import bound_terms, gaussian_kl, top_kl

SHAPE, SIZE = (2, 4), 8
TIMES = (0.75, 0.6, 0.45)
both_schedules = pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
both_observations = pytest.mark.parametrize("kind", ["hole", "matrix"])


def hierarchy(seed: int = 0, eta: float = 1.0, times=TIMES) -> HierarchicalPosterior:
    means, gates = (draw(len(times), *SHAPE, seed=10 * seed + i) for i in (3, 4))
    return HierarchicalPosterior(times, means, 0.3 * draw(len(times), *SHAPE, seed=10 * seed + 5) - 0.7, gates, eta)


def observe(kind: str) -> Observation:
    if kind == "matrix":
        return Observation(draw(1, 5, seed=7), operators.Linear(draw(5, SIZE, seed=8), SHAPE), 0.3)
    mask = torch.tensor([[1.0, 0, 0.5, 1], [0, 0, 1, 1]], dtype=DOUBLE)
    return Observation(mask * draw(1, *SHAPE, seed=7), operators.Inpainting(mask), 0.3)


def terms_of(prior, observation, q, count: int, seed: int = 0):
    return bound_terms(CountedPrior(prior), observation, q, NoiseStreams(seed, range(count)))


def measurement(prior: GaussianMixturePrior, observation: Observation, time: float):
    """p(y | z_1) of the bound: y = matrix z_1 + offset + N(0, variance), where y is measured."""
    level = prior.schedule.level(time)
    seen = observation.observed.flatten()
    basis = torch.eye(SIZE, dtype=DOUBLE).view(SIZE, *SHAPE)
    operator = observation.operator(basis).flatten(1).T[seen]
    open_variance = clean_variance(level, prior.data_std)
    variance = observation.noise_std**2 + (operator**2).sum(1) * open_variance
    matrix, offset = prediction_map(prior, level)
    return operator @ matrix, operator @ offset, variance, observation.y.flatten()[seen]


def log_evidence(prior: GaussianMixturePrior, observation: Observation, q: HierarchicalPosterior) -> torch.Tensor:
    """ln p(y) of the chain the bound is defined on: p(z_K), the reverse steps, p(y | z_1), jointly Gaussian."""
    levels = [prior.schedule.level(t) for t in q.times]
    law = marginal(prior, levels[0])
    mean, covariance = law.mean, law.covariance_matrix
    for above, level in pairwise(levels):
        step, offset, variance = step_map(prior, level, above, q.eta)
        mean = step @ mean + offset
        covariance = step @ covariance @ step.T + variance * torch.eye(SIZE, dtype=DOUBLE)
    matrix, offset, variance, y = measurement(prior, observation, q.times[-1])
    return MultivariateNormal(matrix @ mean + offset, matrix @ covariance @ matrix.T + variance.diag()).log_prob(y)


def exact_hierarchy(prior: GaussianMixturePrior, observation: Observation, eta: float) -> HierarchicalPosterior:
    """For independent latents seen through a mask: p(z_K | y) and p(z_i | z_{i+1}, y), which the family holds.

    Backwards from y, every keypoint has a likelihood exp(-precision z^2 / 2 + information z), entry by entry, and
    p(z_i | z_{i+1}, y) is the prior's step pulled towards information / precision.
    """
    levels = [prior.schedule.level(t) for t in TIMES]
    means, log_stds, gates = (torch.zeros(len(TIMES), SIZE, dtype=DOUBLE) for _ in range(3))
    matrix, offset, variance, y = measurement(prior, observation, TIMES[-1])
    precision = (matrix**2 / variance[:, None]).sum(0)
    information = (matrix * ((y - offset) / variance)[:, None]).sum(0)
    for k in range(len(TIMES) - 1, 0, -1):
        step, offset, variance = step_map(prior, levels[k], levels[k - 1], eta)
        gate = 1 / (1 + variance * precision)
        gates[k] = gate.logit().clamp(max=40)
        means[k] = torch.where(precision > 0, information / precision / levels[k].alpha, 0.0)
        log_stds[k] = 0.5 * (variance * gate).log()
        slope = step.diagonal()
        precision, information = precision * gate * slope**2, slope * gate * (information - precision * offset)
    law = marginal(prior, levels[0])
    precision_above = 1 / law.variance
    top = (precision_above * law.mean + information) / (precision_above + precision)
    means[0], log_stds[0] = top / levels[0].alpha, -0.5 * (precision_above + precision).log()
    return HierarchicalPosterior(TIMES, *(v.view(-1, *SHAPE) for v in (means, log_stds, gates)), eta)


@both_schedules
@pytest.mark.parametrize("eta", [1.0, 0.4])
def test_transitions_are_the_divergences_of_torch(schedule, eta):
    prior, q = gaussian(schedule), hierarchy(eta=eta)
    terms = terms_of(prior, observe("hole"), q, 20)
    keypoints = list(q.walk(CountedPrior(prior), NoiseStreams(0, range(20))))
    expected = sum(
        kl_divergence(Normal(k.q_mean, k.q_log_std.exp()), Normal(k.p_mean, k.p_variance**0.5)).flatten(1).sum(1)
        for k in keypoints[1:]
    )
    torch.testing.assert_close(terms.transitions, expected)


@both_schedules
@pytest.mark.parametrize("eta", [1.0, 0.4])
def test_expected_transitions_are_their_closed_form(schedule, eta):
    prior, q, count = gaussian(schedule), hierarchy(eta=eta), 4000
    expected, levels = 0.0, [schedule.level(t) for t in TIMES]
    moments = walk_moments(prior, q)
    for k in (1, 2):
        step, offset, variance = step_map(prior, levels[k], levels[k - 1], eta)
        shut = 1 - q.gates[k].flatten().sigmoid()
        mean, covariance = moments[k - 1]
        difference = shut * (levels[k].alpha * q.means[k].flatten() - step @ mean - offset)
        spread = shut**2 * (step @ covariance @ step.T).diagonal()
        ratio = (2 * q.log_stds[k].flatten()).exp() / variance
        expected += 0.5 * (ratio - ratio.log() - 1 + (difference**2 + spread) / variance).sum()
    draws = terms_of(prior, observe("hole"), q, count).transitions
    assert (draws.mean() - expected).abs() < 5 * draws.std() / count**0.5


@both_schedules
@both_observations
def test_likelihood_is_the_normal_density_with_the_open_variance(schedule, kind):
    prior, q, observation = gaussian(schedule), hierarchy(), observe(kind)
    *_, bottom = q.walk(CountedPrior(prior), NoiseStreams(0, range(20)))
    matrix, offset, variance, y = measurement(prior, observation, TIMES[-1])
    expected = Normal(bottom.z.flatten(1) @ matrix.T + offset, variance.sqrt()).log_prob(y).sum(1)
    torch.testing.assert_close(terms_of(prior, observation, q, 20).likelihood, -expected)


@both_schedules
@both_observations
def test_expected_likelihood_is_its_closed_form(schedule, kind):
    prior, q, observation, count = gaussian(schedule), hierarchy(), observe(kind), 4000
    mean, covariance = walk_moments(prior, q)[-1]
    matrix, offset, variance, y = measurement(prior, observation, TIMES[-1])
    spread = (matrix @ covariance @ matrix.T).diagonal()
    expected = (Normal(matrix @ mean + offset, variance.sqrt()).log_prob(y) - 0.5 * spread / variance).sum()
    draws = -terms_of(prior, observation, q, count).likelihood
    assert (draws.mean() - expected).abs() < 5 * draws.std() / count**0.5


def test_gaussian_kl_is_torchs():
    mean, log_std, other = draw(3, *SHAPE, seed=0), draw(*SHAPE, seed=1), draw(3, *SHAPE, seed=2)
    expected = kl_divergence(Normal(mean, log_std.exp()), Normal(other, 0.7**0.5)).flatten(1).sum(1)
    torch.testing.assert_close(gaussian_kl(mean, log_std, other, 0.7), expected)


@both_schedules
@pytest.mark.parametrize("seed", range(3))
def test_the_value_of_the_top_is_the_divergence_of_two_gaussians(schedule, seed):
    prior, q = gaussian(schedule), hierarchy(seed)
    exact = exact_top_kl(prior, q)
    for points, count in ((8, 2000), (100, 200)):
        value = top_kl(CountedPrior(prior), q, NoiseStreams(0, range(count)), points)
        assert (value.mean() - exact).abs() < 0.01 * exact + 5 * value.std() / count**0.5 < 0.1 * exact


def test_the_top_may_be_pure_noise():
    """At time 1 a flow has no signal left: the divergence is that of q(z_1) from standard noise."""
    q = hierarchy(times=(1.0, 0.6))
    value = top_kl(CountedPrior(gaussian(FLOW)), q, NoiseStreams(0, range(2))).mean()
    torch.testing.assert_close(value, exact_top_kl(gaussian(FLOW), q), rtol=1e-3, atol=0)


@both_schedules
def test_the_surrogates_gradient_is_that_of_the_divergence(schedule):
    prior, q, groups, count = gaussian(schedule), hierarchy(), 40, 250
    parameters = [q.means.requires_grad_(), q.log_stds.requires_grad_()]
    exact = torch.cat([g[0].flatten() for g in torch.autograd.grad(exact_top_kl(prior, q), parameters)])
    found = []
    for seed in range(groups):
        surrogate = terms_of(prior, observe("hole"), q, count, seed).top_surrogate.mean()
        gradients = torch.autograd.grad(surrogate, parameters)
        assert all(torch.equal(g[1:], torch.zeros_like(g[1:])) for g in gradients)
        found.append(torch.cat([g[0].flatten() for g in gradients]))
    stacked = torch.stack(found)
    assert ((stacked.mean(0) - exact).abs() < 5 * stacked.std(0) / groups**0.5).all()


@both_schedules
@pytest.mark.parametrize("mixture", [False, True])
def test_gradients_of_likelihood_and_transitions_are_finite_differences(schedule, mixture):
    """With the same noise on both sides, so that the differences are exact."""
    prior = gaussian(schedule)
    if mixture:
        prior = GaussianMixturePrior(
            torch.ones(2, dtype=DOUBLE), draw(2, *SHAPE, seed=9), prior.covariances.expand(2, -1, -1) / 2, schedule
        )
    q, observation = hierarchy(), observe("matrix")

    def loss() -> torch.Tensor:
        terms = terms_of(prior, observation, q, 3)
        return (terms.likelihood + terms.transitions).mean()

    parameters = [q.means.requires_grad_(), q.log_stds.requires_grad_(), q.gates.requires_grad_()]
    gradients = torch.autograd.grad(loss(), parameters)
    width = 1e-5
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            flat, slopes = parameter.view(-1), []
            for i in range(0, flat.numel(), 3):
                centre = flat[i].item()
                flat[i] = centre + width
                up = loss()
                flat[i] = centre - width
                slopes.append((up - loss()) / (2 * width))
                flat[i] = centre
            torch.testing.assert_close(gradient.view(-1)[::3], torch.stack(slopes), rtol=1e-5, atol=1e-6)


def test_the_loss_has_the_gradient_of_all_three_terms():
    prior, q, observation = gaussian(), hierarchy(), observe("hole")
    parameters = [q.means.requires_grad_(), q.log_stds.requires_grad_(), q.gates.requires_grad_()]
    whole = torch.autograd.grad(terms_of(prior, observation, q, 4).loss, parameters)
    terms = terms_of(prior, observation, q, 4)
    parts = terms.likelihood.mean() + terms.transitions.mean() + terms.top_surrogate.mean()
    for a, b in zip(whole, torch.autograd.grad(parts, parameters), strict=True):
        torch.testing.assert_close(a, b)


@both_schedules
@both_observations
@pytest.mark.parametrize("eta", [1.0, 0.4])
def test_the_bound_is_below_the_evidence(schedule, kind, eta):
    prior, observation = gaussian(schedule), observe(kind)
    for seed in range(5):
        q = hierarchy(seed, eta)
        value, error = bound(prior, observation, q, 500)
        assert value + 5 * error < log_evidence(prior, observation, q)


@both_schedules
@both_observations
def test_the_bound_of_a_fit_is_tighter_and_still_below(schedule, kind):
    prior, observation = gaussian(schedule), observe(kind)
    values = []
    for iterations in (0, 50):
        config = FitConfig(keypoints=TIMES, iterations=iterations, bound_every=0)
        q = fit_posterior(prior, observation, config, generator=torch.Generator().manual_seed(0))
        value, error = bound(prior, observation, q, 2000)
        assert value - 5 * error < log_evidence(prior, observation, q)
        values.append(value)
    assert values[1] > values[0]


@both_schedules
@pytest.mark.parametrize("eta", [1.0, 0.4])
def test_the_bound_is_the_evidence_where_the_family_holds_the_posterior(schedule, eta):
    prior, observation = gaussian(schedule, correlated=False), observe("hole")
    q = exact_hierarchy(prior, observation, eta)
    value, error = bound(prior, observation, q, 4000)
    assert (value - log_evidence(prior, observation, q)).abs() < 5 * error < 0.5
    for parameter in (q.means, q.log_stds):
        parameter += 2
        assert bound(prior, observation, q, 4000)[0] < value - 5 * error
        parameter -= 2


@both_schedules
def test_at_the_posterior_the_gradient_of_the_loss_vanishes(schedule):
    prior, observation = gaussian(schedule, correlated=False), observe("hole")
    q = exact_hierarchy(prior, observation, 1.0)
    parameters = [q.means.requires_grad_(), q.log_stds.requires_grad_(), q.gates.requires_grad_()]
    gradients = [
        torch.cat([g.flatten() for g in torch.autograd.grad(terms_of(prior, observation, q, 100, s).loss, parameters)])
        for s in range(60)
    ]
    stacked = torch.stack(gradients)
    assert (stacked.mean(0).abs() <= 5 * stacked.std(0) / len(gradients) ** 0.5 + 1e-9).all()
