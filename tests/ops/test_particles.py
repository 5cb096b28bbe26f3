"""Particles: laws of weights and resampling, exact evidences, and modes in proportion to their weight."""

import math
from dataclasses import replace

import pytest
import torch
from torch.autograd.functional import jacobian
from torch.distributions import MultivariateNormal

from benchmarks.problems import mixture_problem
from tests.ops.gaussian_chain import DOUBLE, FLOW, VP, draw
from vipaint_ops import FitConfig, InputError, Observation, RefineConfig, fit_posterior, operators, sample_posterior
from vipaint_ops.diffusion.prior import CountedPrior
from vipaint_ops.diffusion.schedule import ReverseStep
from vipaint_ops.diffusion.streams import NoiseStreams
from vipaint_ops.evaluation.metrics import sliced_wasserstein
from vipaint_ops.inference.chain import KEPT, MOVES, noisiest, pure_noise
from vipaint_ops.inference.corrections import DPS, Kalman
from vipaint_ops.inference.particles import LEAST_EFFECTIVE, effective_share, systematic, tempered
from vipaint_ops.inference.twist import FEW, ExactTwist
from vipaint_ops.measurement.likelihood import StudentT
from vipaint_ops.priors.analytic import GaussianMixturePrior
from vipaint_ops.samplers import KalmanConfig, kalman
from vipaint_ops.vipaint.objective import gaussian_kl
from vipaint_ops.vipaint.posterior import HierarchicalPosterior, log_ratio

SIZE, MEASURED = 6, 3
both_schedules = pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(schedule=VP, isotropic=False) -> GaussianMixturePrior:
    factor = draw(SIZE, SIZE, seed=1)
    covariance = 0.7 * torch.eye(SIZE, dtype=DOUBLE) if isotropic else factor @ factor.T / SIZE
    return GaussianMixturePrior(torch.ones(1, dtype=DOUBLE), draw(1, SIZE, seed=2), covariance[None], schedule)


def observe(noise_std: float = 0.2) -> Observation:
    return Observation(draw(1, MEASURED, seed=3), operators.Linear(draw(MEASURED, SIZE, seed=4)), noise_std)


def twist(prior, z, t: float, below: float = 0.1, observation: Observation | None = None) -> ExactTwist:
    step, streams = ReverseStep(t, prior.schedule.level(t), prior.schedule.level(below)), NoiseStreams(0, range(len(z)))
    return ExactTwist(CountedPrior(prior), observation or observe(), z, step, Kalman(), streams)


@both_schedules
def test_the_evidence_of_a_latent_is_that_of_gaussian_conditioning(schedule):
    prior, z, t = gaussian(schedule), draw(4, SIZE, seed=5), 0.5
    alpha, sigma = schedule.level(t)
    exact = []
    for row in z:
        seen = Observation(row[None], operators.Linear(alpha * torch.eye(SIZE, dtype=DOUBLE)), sigma)
        exact.append(prior.posterior(seen).posterior(observe()).log_evidence)
    torch.testing.assert_close(twist(prior, z, t).log_likelihood, torch.tensor(exact, dtype=DOUBLE))


def test_the_evidence_takes_the_derivative_of_the_denoiser():
    """Where 80 dimensions decide between modes, a slope over several deviations of the noise is another number."""
    plain, observation, _ = mixture_problem(80, 2, 3203)
    prior = CountedPrior(plain)
    t = prior.schedule.time_at_ratio(2 * prior.data_std)
    alpha, sigma = prior.schedule.level(t)
    z = alpha * plain.sample(6, seeded()) + sigma * draw(6, 80, seed=5)
    matrix = observation.operator(torch.eye(80, dtype=DOUBLE)).T
    found = twist(plain, z, t, observation=observation).log_likelihood
    noise = observation.noise_std**2 * torch.eye(2, dtype=DOUBLE)
    for row, log_likelihood in zip(z, found, strict=True):
        slope = jacobian(lambda x: prior.denoise(x[None], t)[0], row)
        covariance = sigma**2 / alpha * matrix @ slope @ matrix.T + noise
        law = MultivariateNormal(prior.denoise(row[None], t)[0] @ matrix.T, covariance)
        torch.testing.assert_close(log_likelihood, law.log_prob(observation.y[0]), rtol=2e-3, atol=0.01)


@both_schedules
@pytest.mark.parametrize("below", [0.45, 0.1])
def test_weights_are_even_on_an_isotropic_gaussian(schedule, below):
    """The predicted evidence of a step is the evidence after it, for steps of every length."""
    prior, z = gaussian(schedule, isotropic=True), draw(5, SIZE, seed=5)
    rows = torch.tensor([0, 0, 3, 2, 4])
    z_s, predicted = twist(prior, z, 0.5, below).move(rows)
    torch.testing.assert_close(twist(prior, z_s, below).log_likelihood, predicted, rtol=1e-7, atol=1e-7)


@both_schedules
def test_a_step_has_the_moments_of_the_conditioned_reverse_step(schedule):
    """In the directions that are measured."""
    prior, count = gaussian(schedule, isotropic=True), 4000
    z, s, t = draw(1, SIZE, seed=5), schedule.level(0.3), schedule.level(0.5)
    moved, _ = twist(prior, z.expand(count, SIZE), 0.5, 0.3).move(torch.arange(count))
    # z_s given z_t and y, with everything jointly Gaussian: z_t = a z_s + noise is one more measurement of z_s
    a, v = t.alpha / s.alpha, t.sigma**2 - (t.alpha / s.alpha * s.sigma) ** 2
    mean, variance = s.alpha * prior.means[0], s.alpha**2 * 0.7 + s.sigma**2
    gain = variance * a / (a**2 * variance + v)
    mean, variance = mean + gain * (z[0] - a * mean), variance * (1 - gain * a)
    matrix = observe().operator(torch.eye(SIZE, dtype=DOUBLE)).T
    total = s.alpha**2 * 0.7 + s.sigma**2
    on_z0 = s.alpha * 0.7 / total
    left = 0.7 - s.alpha * 0.7 * on_z0
    marginal = matrix @ matrix.T * (left + on_z0**2 * variance) + 0.04 * torch.eye(MEASURED, dtype=DOUBLE)
    cross = variance * on_z0 * matrix.T
    z0 = prior.means[0] + on_z0 * (mean - s.alpha * prior.means[0])
    expected = mean + cross @ torch.linalg.solve(marginal, observe().y[0] - matrix @ z0)
    covariance = variance * torch.eye(SIZE, dtype=DOUBLE) - cross @ torch.linalg.solve(marginal, cross.T)
    covariance, deviation = matrix @ covariance @ matrix.T, (moved - expected) @ matrix.T
    assert (deviation.mean(0).abs() < 5 * (covariance.diagonal() / count).sqrt()).all()
    products = deviation[:, :, None] * deviation[:, None, :]
    assert ((products.mean(0) - covariance).abs() < 5 * products.std(0) / count**0.5).all()


def test_effective_share_runs_from_one_particle_to_all():
    weights = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, -900.0, -900.0, -900.0], [1.0, 1.0, -900.0, -900.0]])
    torch.testing.assert_close(effective_share(weights), torch.tensor([1.0, 0.25, 0.5]))


def test_systematic_resampling_rounds_and_is_unbiased():
    log_weights, uniform = draw(1, 7, seed=6), (torch.arange(1000, dtype=DOUBLE) + 0.5) / 1000
    wanted = 7 * log_weights.softmax(1)
    children = systematic(log_weights.expand(1000, 7), uniform)
    counts = torch.stack([(children == i).sum(1) for i in range(7)], 1)
    assert ((counts - wanted).abs() < 1).all()
    torch.testing.assert_close(counts.double().mean(0, keepdim=True), wanted, rtol=0, atol=2e-3)


def test_tempering_is_as_little_as_keeps_the_effective_share():
    log_weights = torch.stack([torch.zeros(8, dtype=DOUBLE), 0.1 * draw(8, seed=7), 1e4 * draw(8, seed=7)])
    power = tempered(log_weights)
    assert power[:2].tolist() == [1.0, 1.0]
    assert 0 < power[2] < 1
    share = effective_share(power[:, None] * log_weights)
    assert share[2] == pytest.approx(LEAST_EFFECTIVE, abs=1e-5)
    assert (share >= LEAST_EFFECTIVE).all()


def shared_brightness(std: float, size: int = 400) -> CountedPrior:
    """Pictures whose elements differ by 0.1, and share a brightness."""
    covariance = 0.01 * torch.eye(size, dtype=DOUBLE) + std**2
    return CountedPrior(
        GaussianMixturePrior(torch.ones(1, dtype=DOUBLE), torch.zeros(1, size, dtype=DOUBLE), covariance[None], VP)
    )


def test_data_that_show_at_the_noisiest_level_are_moved_to():
    """The variance of the brightness after Langevin moves in closed form, and nearer to that of p(z_t) than noise."""
    prior, t = shared_brightness(8.0), 1.0
    z = noisiest(prior, t, NoiseStreams(0, range(4000)))
    alpha, sigma = prior.schedule.level(t)
    size = z.shape[1]
    exact = sigma**2 + alpha**2 * (0.01 + 64 * size)
    kept = KEPT + (1 - KEPT) * (1 - sigma**2 / exact)
    variance = sigma**2
    for _ in range(MOVES):
        variance = kept**2 * variance + (1 - KEPT**2) * sigma**2
    found = (z.sum(1) / size**0.5).var().item()
    assert found == pytest.approx(variance, rel=5 * (2 / 4000) ** 0.5)
    assert sigma**2 < variance < exact
    assert exact - variance < 0.5 * (exact - sigma**2)
    across = (z[:, 0] - z[:, 1]).var().item() / 2
    assert across == pytest.approx(sigma**2, rel=5 * (2 / 4000) ** 0.5)


def test_data_that_do_not_show_cost_nothing():
    prior, t = shared_brightness(1.0), 1.0
    torch.testing.assert_close(
        noisiest(prior, t, NoiseStreams(0, range(3))),
        pure_noise(prior, t, NoiseStreams(0, range(3))),
        rtol=0,
        atol=0,
    )
    assert prior.evaluations.denoiser == 0


@both_schedules
def test_the_evidence_of_a_gaussian_is_exact(schedule):
    """Within a hundredth of a nat in 40 steps, for a prior of any covariance."""
    prior, config = gaussian(schedule), KalmanConfig(steps=40, particles=16, batch_size=64)
    populations = kalman(prior, observe(), 64, config, generator=seeded()).populations
    assert populations.evidence() == pytest.approx(prior.posterior(observe()).log_evidence, abs=0.05)
    assert (populations.effective > 0.9).all()
    assert (populations.tempering == 1).all()
    assert f"4 x 16 particles, least effective sample size {populations.effective.mean():.0%}" in str(populations)


@pytest.mark.parametrize("fitted", [False, True])
def test_particles_find_modes_in_proportion_to_their_weight(fitted):
    """From noise and from a fitted proposal; without particles the distance is several times as large."""
    distances, evidences = {1: 0.0, 16: 0.0}, 0.0
    for seed in range(4):
        prior, observation, exact = mixture_problem(8, 2, seed)
        reference = exact.sample(480, seeded(1))
        for size in distances:
            if fitted:
                q = fit_posterior(prior, observation, FitConfig(iterations=5, bound_every=0), generator=seeded())
                config = RefineConfig(particles=size, batch_size=480)
                result = sample_posterior(prior, observation, q, 480, config, generator=seeded())
            else:
                config = KalmanConfig(steps=32, particles=size, batch_size=480)
                result = kalman(prior, observation, 480, config, generator=seeded())
            distances[size] += sliced_wasserstein(result.latents, reference, 500, generator=seeded()) / 4
        evidences += (result.populations.evidence() - exact.log_evidence) / 4
    assert distances[16] < 0.4 * distances[1]
    assert abs(evidences) < 0.25


def test_the_walk_is_weighed_by_prior_over_proposal():
    """On average over q, ln p - ln q is minus the divergence, here in closed form: p is a standard normal."""
    one = torch.ones(1, dtype=DOUBLE)
    prior = GaussianMixturePrior(one, torch.zeros(1, SIZE, dtype=DOUBLE), torch.eye(SIZE, dtype=DOUBLE)[None], VP)
    means, log_stds, gates = draw(2, SIZE, seed=8), draw(2, SIZE, seed=9) / 4 - 0.3, draw(2, SIZE, seed=10)
    q, count = HierarchicalPosterior((0.8, 0.5), means, log_stds, gates), 20000
    walk = list(q.walk(CountedPrior(prior), NoiseStreams(0, range(count))))
    ratio = log_ratio(walk, prior.data_std)
    top = gaussian_kl((walk[0].level.alpha * means[0])[None], log_stds[0], 0.0, 1.0)
    steps = gaussian_kl(walk[1].q_mean, walk[1].q_log_std, walk[1].p_mean, walk[1].p_variance)
    assert (-ratio.mean() - top - steps.mean()).abs().item() < 5 * ratio.std().item() / count**0.5


def test_a_sample_is_the_same_with_its_population_or_in_any_batch():
    config = KalmanConfig(steps=6, particles=4, batch_size=8)
    together = kalman(gaussian(), observe(), 11, config, generator=seeded())
    split = replace(config, batch_size=1)
    rest = kalman(gaussian(), observe(), 4, split, generator=seeded(), first=5)
    assert together.latents.shape == (11, SIZE)
    assert len(together.populations.effective) == 3
    torch.testing.assert_close(rest.latents, together.latents[5:9], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(rest.populations.log_evidence, together.populations.log_evidence[1:3])


def test_many_measurements_are_tempered_and_the_result_says_so():
    size = FEW + 24
    one = torch.ones(1, dtype=DOUBLE)
    prior = GaussianMixturePrior(one, torch.zeros(1, size, dtype=DOUBLE), torch.eye(size, dtype=DOUBLE)[None], VP)
    observation = Observation(draw(1, size, seed=3), operators.Linear(torch.eye(size, dtype=DOUBLE)), 0.05)
    populations = kalman(prior, observation, 8, KalmanConfig(steps=8, particles=8), generator=seeded()).populations
    assert populations.tempering.item() < 1
    assert math.isnan(populations.log_evidence.item())
    assert "too many measurements for weights" in str(populations)
    assert (populations.effective >= LEAST_EFFECTIVE).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"particles": 0}, "at least 1"),
        ({"particles": 2, "guidance": DPS()}, "kalman"),
        ({"particles": 2, "eta": 0.5}, "eta"),
    ],
)
def test_settings_without_meaning_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        RefineConfig(**settings)


def test_kalman_refuses_no_particles():
    with pytest.raises(InputError, match="particles is 0"):
        KalmanConfig(particles=0)


def test_robust_noise_is_refused():
    robust = Observation(observe().y, observe().operator, 0.2, StudentT(4.0))
    with pytest.raises(InputError, match="weighing particles"):
        kalman(gaussian(), robust, 4, KalmanConfig(steps=2, particles=2), generator=seeded())
