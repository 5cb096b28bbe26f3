"""Robust noise: its density, what it does to the corrections, and who refuses it."""

import pytest
import torch
from torch.distributions import StudentT as TorchStudentT

from benchmarks.problems import power_law_prior
from tests.ops.test_corrections import SIZE, BentPrior, corrected, draw, gaussian, observe, streams
from vipaint_ops import FitConfig, NoiseSchedule, Observation, RefineConfig, fit_posterior, operators, sample_posterior
from vipaint_ops.diffusion.prior import CountedPrior
from vipaint_ops.errors import InputError
from vipaint_ops.evaluation.degrade import degrade
from vipaint_ops.images.padding import pad_observation
from vipaint_ops.inference.corrections import CORRECTIONS, DPS, Kalman, root_weights
from vipaint_ops.measurement.likelihood import Gaussian, StudentT
from vipaint_ops.samplers import KalmanConfig, kalman

DOUBLE = torch.float64
VP = NoiseSchedule.scaled_linear(0.0015, 0.0195)
every_correction = pytest.mark.parametrize("name", CORRECTIONS)


def robust(observation: Observation, degrees: float = 2.0) -> Observation:
    return Observation(observation.y, observation.operator, observation.noise_std, StudentT(degrees))


@pytest.mark.parametrize("degrees", [0.5, 1.0, 4.0, 30.0])
def test_the_density_is_torchs(degrees):
    residual, variance = draw(3, 5, seed=1), draw(3, 5, seed=2) ** 2
    expected = TorchStudentT(degrees, torch.zeros((), dtype=DOUBLE), variance.sqrt()).log_prob(residual)
    torch.testing.assert_close(StudentT(degrees).log_prob(residual, variance), expected)


def test_the_likelihood_of_an_observation_is_the_density_of_what_is_seen():
    observation, x = robust(observe("hole"), 3.0), draw(2, 2, 2, 3, seed=7)
    scale = (observation.noise_std**2 + 0.2 * observation.operator.squared(torch.ones_like(x))).sqrt()
    density = TorchStudentT(3.0, observation.operator(x), scale).log_prob(observation.y)
    expected = torch.where(observation.observed, density, 0.0).flatten(1).sum(1)
    torch.testing.assert_close(observation.log_likelihood(x, torch.full((1, 1, 1, 1), 0.2, dtype=DOUBLE)), expected)


def test_infinitely_many_degrees_are_gaussian():
    residual, variance = draw(3, 5, seed=1), draw(3, 5, seed=2) ** 2 + 0.1
    many = StudentT(1e7)
    torch.testing.assert_close(
        many.log_prob(residual, variance), Gaussian().log_prob(residual, variance), rtol=0, atol=1e-4
    )
    torch.testing.assert_close(many.weights(residual, 0.1, variance), torch.ones_like(residual), rtol=0, atol=1e-4)


def test_the_weight_is_the_gradient_of_the_density():
    """Where the prediction is certain: d ln p / d r = -w r / s^2, which makes reweighted least squares an EM step."""
    residual = draw(20, seed=1).requires_grad_()
    law, variance = StudentT(2.0), torch.tensor(0.3, dtype=DOUBLE)
    (gradient,) = torch.autograd.grad(law.log_prob(residual, variance).sum(), residual)
    weights = law.weights(residual.detach(), 0.3, torch.zeros_like(residual))
    torch.testing.assert_close(gradient, -weights * residual.detach() / 0.3)


def test_the_gradient_agrees_with_finite_differences():
    observation, x = robust(observe("matrix")), draw(1, 2, 2, 3, seed=7).requires_grad_()
    assert torch.autograd.gradcheck(observation.log_likelihood, (x,))


def test_an_uncertain_prediction_trusts_every_measurement_more():
    residual = torch.tensor([0.1, 1.0, 2.0], dtype=DOUBLE)
    certain, uncertain = (StudentT(1.0).weights(residual, 0.01, torch.full((3,), p, dtype=DOUBLE)) for p in (0.0, 1.0))
    assert (certain < uncertain).all()
    assert (certain[1:] < certain[:-1]).all()


@pytest.mark.parametrize(
    "correction", [DPS(), Kalman(isotropic_below=0.0, spread_iterations=0, solver_iterations=4)], ids=["dps", "kalman"]
)
def test_a_correction_equals_the_gaussian_one_of_whitened_measurements(correction):
    """Rows of y and A times sqrt(w) have Gaussian noise of noise_std."""
    prior, z, t = gaussian(kind=BentPrior), draw(1, 2, 2, 3, seed=6), 0.3
    observation = robust(observe("matrix"))
    guided = corrected(correction, prior, observation, z, t)
    picture = prior.decode(guided.prediction)
    level = prior.schedule.level(t)
    root = root_weights(CountedPrior(prior), observation, guided.prediction, picture, level, streams(1))
    matrix = torch.diag(root[0]) @ draw(5, SIZE, seed=5)
    whitened = Observation(root * observation.y, operators.Linear(matrix, (2, 2, 3)), observation.noise_std)
    expected = corrected(correction, prior, whitened, z, t)
    torch.testing.assert_close(guided.z0, expected.z0, rtol=1e-6, atol=1e-8)


@every_correction
def test_a_robust_correction_does_not_depend_on_the_batch_and_leaves_no_graph(name):
    from vipaint_ops.diffusion.streams import NoiseStreams

    prior, observation, z = gaussian(kind=BentPrior), robust(observe("hole")), draw(3, 2, 2, 3, seed=6)
    together = corrected(CORRECTIONS[name], prior, observation, z)
    assert not together.z0.requires_grad
    for row in range(3):
        one, noise = z[row : row + 1], NoiseStreams(0, [row])
        alone = corrected(CORRECTIONS[name], prior, observation, one, noise=noise)
        torch.testing.assert_close(alone.z0[0], together.z0[row])


def test_wrong_measurements_hardly_move_the_mean():
    """Five in a hundred are off by thrice the prior's std: the error is less than 0.7 of the Gaussian's, and nothing is
    lost where none is wrong (measured: 0.55 and 1.08)."""
    errors: dict[str, list[float]] = {"gaussian": [], "robust": [], "gaussian, right": [], "robust, right": []}
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        prior = power_law_prior(VP, side=12)
        prior.data_std = 0.5
        truth = prior.sample(1, generator)
        whole = operators.Inpainting(torch.ones(12, 12, dtype=DOUBLE))
        right = degrade(truth, whole, 0.05, generator=generator)
        wrong = (torch.rand(right.y.shape, generator=generator) < 0.05) & right.observed
        side = torch.where(torch.rand(right.y.shape, generator=generator) < 0.5, -1.5, 1.5).double()
        spoilt = Observation(torch.where(wrong, side, right.y), whole, 0.05)
        for suffix, observation in (("", spoilt), (", right", right)):
            for name, seen in (("gaussian", observation), ("robust", robust(observation))):
                noise = torch.Generator().manual_seed(9)
                samples = kalman(prior, seen, 4, KalmanConfig(steps=12), generator=noise).images
                errors[name + suffix].append((samples.mean(0) - truth[0]).square().mean().sqrt().item())
    mean = {name: sum(values) / len(values) for name, values in errors.items()}
    assert mean["robust"] < 0.7 * mean["gaussian"]
    assert mean["robust, right"] < 1.2 * mean["gaussian, right"]


def test_what_is_made_of_an_observation_keeps_its_likelihood():
    picture = draw(1, 3, 10, 10, seed=1).float()
    mask = operators.Inpainting(torch.ones(10, 10))
    observation = degrade(picture, mask, 0.1, generator=torch.Generator().manual_seed(0), likelihood=StudentT(2.0))
    assert observation.likelihood == StudentT(2.0)
    assert observation.to(torch.device("cpu"), DOUBLE).likelihood == StudentT(2.0)
    assert pad_observation(observation, 8).likelihood == StudentT(2.0)
    plain = Observation(observation.y, mask, 0.1)
    assert len({o.digest for o in (plain, observation, robust(plain, 4.0))}) == 3


def test_noise_is_drawn_from_its_law():
    def quantiles(likelihood) -> torch.Tensor:
        drawn = likelihood.draw(torch.zeros(200_000, dtype=DOUBLE), torch.Generator().manual_seed(3))
        return drawn.quantile(torch.tensor([0.25, 0.75, 0.95], dtype=DOUBLE))

    torch.testing.assert_close(
        quantiles(StudentT(1.0)), torch.tensor([-1.0, 1.0, 6.3138], dtype=DOUBLE), rtol=0.05, atol=0
    )
    torch.testing.assert_close(
        quantiles(Gaussian()), torch.tensor([-0.6745, 0.6745, 1.6449], dtype=DOUBLE), rtol=0.03, atol=0
    )


@pytest.mark.parametrize("objective", ["published_v1", "published_v2"])
def test_published_settings_refuse_robust_noise(objective):
    prior, observation = gaussian(), robust(observe("hole"))
    generator = torch.Generator().manual_seed(0)
    fit, refine = getattr(FitConfig, objective)(), getattr(RefineConfig, objective)()
    with pytest.raises(InputError, match="takes noise as Gaussian"):
        fit_posterior(prior, observation, fit, generator=generator)
    posterior = fit_posterior(
        prior, observation, FitConfig(iterations=1, start_chains=2, start_steps=2), generator=generator
    )
    with pytest.raises(InputError, match="takes noise as Gaussian"):
        sample_posterior(prior, observation, posterior, 1, refine, generator=generator)


@pytest.mark.parametrize("degrees", [0.0, -1.0, float("nan"), float("inf")])
def test_degrees_that_are_none_are_refused(degrees):
    with pytest.raises(InputError, match="degrees is"):
        StudentT(degrees)
