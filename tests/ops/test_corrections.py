"""The corrections of the denoiser, against Gaussian conditioning and finite differences."""

import dataclasses

import pytest
import torch

from vipaint_ops import NoiseSchedule, Observation, operators
from vipaint_ops.diffusion.prior import CountedPrior
from vipaint_ops.diffusion.schedule import CLEAN, ReverseStep, reverse_kernel
from vipaint_ops.diffusion.streams import NoiseStreams
from vipaint_ops.inference.corrections import CORRECTIONS, DPS, CatchUp, Kalman, PseudoInverse, decoder_gain
from vipaint_ops.inference.linearised import KrylovSpace, Linearised, clean_variance
from vipaint_ops.priors.analytic import GaussianMixturePrior

DOUBLE = torch.float64
VP, FLOW = NoiseSchedule.scaled_linear(0.0015, 0.0195), NoiseSchedule.rectified_flow()
SHAPE, SIZE = (2, 2, 3), 12
EXACT = Kalman(isotropic_below=0.0, solver_iterations=SIZE, spread_iterations=SIZE, spread_above=0.0)
STILL = dataclasses.replace(EXACT, spread_iterations=0)

both_schedules = pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
both_observations = pytest.mark.parametrize("kind", ["hole", "matrix"])
every_correction = pytest.mark.parametrize("name", CORRECTIONS)


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def gaussian(schedule: NoiseSchedule = VP, isotropic: bool = False, kind=GaussianMixturePrior) -> GaussianMixturePrior:
    factor = draw(SIZE, SIZE, seed=1)
    covariance = factor @ factor.T / SIZE + 0.1 * torch.eye(SIZE, dtype=DOUBLE)
    if isotropic:
        covariance = 0.6 * torch.eye(SIZE, dtype=DOUBLE)
    return kind(torch.ones(1, dtype=DOUBLE), draw(1, *SHAPE, seed=2), covariance[None], schedule)


class BentPrior(GaussianMixturePrior):
    """A Gaussian prior behind a decoder that bends and mixes."""

    def decode(self, z0):
        return torch.tanh(1.5 * z0) + 0.3 * z0.roll(1, -1) ** 2


class ScaledPrior(GaussianMixturePrior):
    """A Gaussian prior behind a decoder that triples."""

    def decode(self, z0):
        return 3 * z0


def observe(kind: str, noise_std: float = 0.3) -> Observation:
    if kind == "matrix":
        return Observation(draw(1, 5, seed=4), operators.Linear(draw(5, SIZE, seed=5), SHAPE), noise_std)
    mask = torch.tensor([[1.0, 0, 1], [0, 0.5, 1]], dtype=DOUBLE)
    return Observation(mask * draw(1, *SHAPE, seed=3), operators.Inpainting(mask), noise_std)


def conditioned(prior: GaussianMixturePrior, observation: Observation, z: torch.Tensor, t: float):
    """Mean and covariance of z_0 given z_t and y, in closed form."""
    alpha, sigma = prior.schedule.level(t)
    seen = Observation(z.flatten(1), operators.Linear(alpha * torch.eye(SIZE, dtype=DOUBLE)), sigma)
    given_z = prior.posterior(seen)
    both = GaussianMixturePrior(given_z.weights, given_z.means.view(1, *SHAPE), given_z.covariances, prior.schedule)
    return both.posterior(observation).moments()


def streams(rows: int, seed: int = 0) -> NoiseStreams:
    return NoiseStreams(seed, range(rows))


def corrected(correction, prior, observation, z, t=0.4, below=CLEAN, noise=None):
    """The correction of ``z`` at time ``t``, before a step to the level ``below``."""
    step = ReverseStep(t, prior.schedule.level(t), below)
    return correction(CountedPrior(prior), observation, z, step, noise or streams(len(z)))


def linearised(prior, observation, z, t=0.4) -> Linearised:
    return Linearised(CountedPrior(prior), observation, z, t)


@both_schedules
@both_observations
@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_kalman_is_the_exact_mean_for_a_gaussian_prior(schedule, kind, t):
    prior, observation, z = gaussian(schedule), observe(kind), draw(3, *SHAPE, seed=6)
    found = corrected(STILL, prior, observation, z, t)
    exact = torch.stack([conditioned(prior, observation, row[None], t)[0] for row in z])
    torch.testing.assert_close(found.z0.flatten(1), exact, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.prediction, prior.denoise(z, torch.full((3,), t, dtype=DOUBLE)))


@both_schedules
@both_observations
def test_kalman_draws_have_the_exact_conditional_moments(schedule, kind):
    prior, observation, count = gaussian(schedule), observe(kind), 4000
    z = draw(1, *SHAPE, seed=6)
    found = corrected(EXACT, prior, observation, z.expand(count, *SHAPE))
    mean, covariance = conditioned(prior, observation, z, 0.4)
    deviation = found.z0.flatten(1) - mean
    assert (deviation.mean(0).abs() < 5 * (covariance.diagonal() / count).sqrt()).all()
    products = deviation[:, :, None] * deviation[:, None, :]
    assert ((products.mean(0) - covariance).abs() < 5 * products.std(0) / count**0.5).all()


@both_schedules
@pytest.mark.parametrize(
    ("correction", "tolerance"),
    [(PseudoInverse(), 1e-12), (Kalman(isotropic_below=0.0, solver_iterations=2, spread_iterations=0), 1e-6)],
)
def test_pseudo_inverse_and_kalman_are_exact_when_the_covariance_is_isotropic(schedule, correction, tolerance):
    """One variance for every latent is then no approximation; S has two eigenvalues, so Kalman needs two iterations."""
    prior, observation, z = gaussian(schedule, isotropic=True), observe("hole"), draw(2, *SHAPE, seed=6)
    found = corrected(correction, prior, observation, z)
    exact = torch.stack([conditioned(prior, observation, row[None], 0.4)[0] for row in z])
    torch.testing.assert_close(found.z0.flatten(1), exact, rtol=0, atol=tolerance)


def test_pseudo_inverse_follows_its_formula_elsewhere():
    prior, observation, z, t = gaussian(), observe("hole"), draw(1, *SHAPE, seed=6), 0.4
    alpha, sigma = VP.level(t)
    times = torch.tensor([t], dtype=DOUBLE)
    prediction = prior.denoise(z, times)
    covariance = sigma**2 / alpha * torch.autograd.functional.jacobian(lambda v: prior.denoise(v, times), z)
    mask = observation.operator.mask.expand(SHAPE)
    variance = mask**2 * clean_variance(VP.level(t), prior.data_std) + observation.noise_std**2
    weighted = mask * observation.residual(prediction) / variance
    found = corrected(PseudoInverse(), prior, observation, z, t)
    torch.testing.assert_close(
        found.z0.flatten(), prediction.flatten() + covariance.reshape(12, 12) @ weighted.flatten()
    )


@both_observations
@pytest.mark.parametrize("kind_of_prior", [GaussianMixturePrior, BentPrior])
@pytest.mark.parametrize("s", [0.0, 0.3])
def test_dps_steps_down_the_gradient_of_the_norm(kind, kind_of_prior, s):
    prior, observation, z, t = gaussian(kind=kind_of_prior), observe(kind), draw(1, *SHAPE, seed=6), 0.4

    def norm(v: torch.Tensor) -> torch.Tensor:
        return observation.residual(prior.decode(prior.denoise(v, torch.full((1,), t, dtype=DOUBLE)))).norm()

    basis, width = torch.eye(SIZE, dtype=DOUBLE).view(SIZE, *SHAPE), 1e-5
    gradient = torch.stack([(norm(z + width * e) - norm(z - width * e)) / (2 * width) for e in basis]).view(1, *SHAPE)
    to = VP.level(s) if s else CLEAN
    found = corrected(DPS(0.7), prior, observation, z, t, to)
    moved = reverse_kernel(to, VP.level(t)).on_z0 * (found.z0 - found.prediction)
    torch.testing.assert_close(moved, -0.7 * gradient, rtol=1e-5, atol=1e-9)


@every_correction
@pytest.mark.parametrize("kind_of_prior", [GaussianMixturePrior, BentPrior])
def test_a_correction_does_not_depend_on_the_batch(name, kind_of_prior):
    prior, observation, z = gaussian(kind=kind_of_prior), observe("hole"), draw(4, *SHAPE, seed=6)
    below = VP.level(0.3)
    together = corrected(CORRECTIONS[name], prior, observation, z, below=below)
    for row in range(4):
        one = z[row : row + 1]
        alone = corrected(CORRECTIONS[name], prior, observation, one, below=below, noise=NoiseStreams(0, [row]))
        torch.testing.assert_close(alone.z0[0], together.z0[row])


@every_correction
def test_a_correction_leaves_no_graph_behind(name):
    z = draw(2, *SHAPE, seed=6)
    found = corrected(CORRECTIONS[name], gaussian(), observe("hole"), z)
    assert not any(tensor.requires_grad for tensor in (z, found.z0, found.prediction))


@both_observations
def test_products_with_a_linear_decoder_are_those_of_the_matrices(kind):
    """J v = A D v and C J^T u, with C the exact covariance of z_0 given z_t and D = 3."""
    prior, observation, z, t = gaussian(kind=ScaledPrior), observe(kind), draw(2, *SHAPE, seed=6), 0.4
    model, v = linearised(prior, observation, z, t), draw(2, *SHAPE, seed=7)
    torch.testing.assert_close(model.forward(v), observation.operator(3 * v))
    torch.testing.assert_close(model.forward(1e-3 * v), observation.operator(3e-3 * v))
    alpha, sigma = VP.level(t)
    identity = torch.eye(SIZE, dtype=DOUBLE)
    covariance = torch.linalg.inv(torch.linalg.inv(prior.covariances[0]) + alpha**2 / sigma**2 * identity)
    u = draw(2, *observation.y.shape[1:], seed=8)
    adjoint = 3 * observation.operator.adjoint(u).flatten(1)
    torch.testing.assert_close(model.gain_times(u).flatten(1), adjoint @ covariance)
    torch.testing.assert_close(model.covariance_times(v).flatten(1), v.flatten(1) @ covariance)


@both_observations
def test_products_with_a_bent_decoder_agree_with_finite_differences(kind):
    prior, observation, z, t = gaussian(kind=BentPrior), observe(kind), draw(1, *SHAPE, seed=6), 0.4
    model = linearised(prior, observation, z, t)
    times = torch.tensor([t], dtype=DOUBLE)

    def measured(prediction: torch.Tensor) -> torch.Tensor:
        return observation.operator(prior.decode(prediction))

    v, u, width = draw(1, *SHAPE, seed=7), draw(1, *observation.y.shape[1:], seed=8), 1e-5
    along = (measured(model.z0 + width * v) - measured(model.z0 - width * v)) / (2 * width)
    model.step = 0.02
    error = (model.forward(v) - along).norm()
    model.step /= 2
    assert (model.forward(v) - along).norm() / error == pytest.approx(0.5, abs=0.05)  # a chord: of first order
    model.step = 1e-7
    torch.testing.assert_close(model.forward(v), along, rtol=1e-5, atol=1e-5)
    basis = torch.eye(SIZE, dtype=DOUBLE).view(SIZE, 1, *SHAPE)
    columns = [
        (measured(prior.denoise(z + width * e, times)) - measured(prior.denoise(z - width * e, times))) / (2 * width)
        for e in basis
    ]
    alpha, sigma = VP.level(t)
    expected = sigma**2 / alpha * torch.stack([(c * u).sum() for c in columns])
    torch.testing.assert_close(model.gain_times(u).flatten(), expected, rtol=1e-5, atol=1e-8)


@both_observations
@pytest.mark.parametrize("iterations", [1, 2, 4, 8, 16])
def test_the_solve_never_worsens_the_residual(kind, iterations):
    """Even for a denoiser no density has: one whose Jacobian is not symmetric and has eigenvalues of both signs."""

    class Asymmetric(GaussianMixturePrior):
        def denoise(self, z, t):
            return (z.flatten(1) @ draw(SIZE, SIZE, seed=9)).view_as(z)

    model, u = linearised(gaussian(kind=Asymmetric), observe(kind), draw(4, *SHAPE, seed=6)), observe(kind).y
    residual = torch.where(observe(kind).observed, draw(4, *u.shape[1:], seed=8), 0.0)
    left = residual - model.forward(KrylovSpace(model, residual, iterations).solve(residual))
    assert (left.flatten(1).norm(dim=1) <= residual.flatten(1).norm(dim=1) * (1 + 1e-9)).all()


@both_observations
def test_only_a_small_space_leaves_something_unexplained(kind):
    observation = observe(kind)
    model = linearised(gaussian(), observation, draw(3, *SHAPE, seed=6))
    residual = model.residual
    some, none = (KrylovSpace(model, residual, size).unexplained(residual) for size in (1, SIZE))
    share = some.flatten(1).norm(dim=1) / residual.flatten(1).norm(dim=1)
    assert ((share > 0.03) & (share < 1)).all()
    assert (none.abs() < 1e-6).all()


@both_observations
def test_a_space_grown_in_two_parts_is_the_space_grown_at_once(kind):
    model = linearised(gaussian(), observe(kind), draw(3, *SHAPE, seed=6))
    whole, grown = KrylovSpace(model, model.residual, 4), KrylovSpace(model, model.residual, 1)
    grown.grow(3)
    torch.testing.assert_close(grown.solve(model.residual), whole.solve(model.residual))


def test_without_a_draw_only_what_is_left_unexplained_costs_more():
    """Every sample decides for itself, so that it stays the same in any batch; the cost is that of the batch."""
    near, z = observe("hole"), draw(3, *SHAPE, seed=6)
    still = Observation(near.operator(linearised(gaussian(), near, z[:1]).picture), near.operator, near.noise_std)

    def update(z, size):
        prior = CountedPrior(gaussian())
        kalman = Kalman(isotropic_below=0.0, solver_iterations=size, spread_iterations=0)
        made = kalman(prior, still, z, ReverseStep(0.4, VP.level(0.4), CLEAN), streams(len(z))).z0
        return made, prior.evaluations.denoiser

    together, cost = update(z, 1)
    alone = torch.cat([update(row[None], 1)[0] for row in z])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)
    assert cost == 3 * 3
    assert update(z[:1], 1)[1] == 2
    assert update(z, SIZE)[1] == 3 * (1 + SIZE)


def test_a_move_is_lengthened_by_the_bounded_excess_of_its_residual():
    """Beyond any chance the factor is 1 + unexplained (bound - 1); where the residual is as predicted there is none."""
    prior, z = gaussian(), draw(3, *SHAPE, seed=6)

    def update(observation, bound):
        kalman = Kalman(isotropic_below=0.0, solver_iterations=2, spread_above=0.0, catch_up=CatchUp(most=bound))
        return corrected(kalman, prior, observation, z).z0

    near = observe("hole")
    far = Observation(near.y + 1e4, near.operator, near.noise_std)
    plain, some, more = (update(far, bound) for bound in (1.0, 2.0, 9.0))
    torch.testing.assert_close(more - plain, 8 * (some - plain))
    move = (plain - update(near, 1.0)).flatten(1).norm(dim=1)
    lengthened = (some - plain).flatten(1).norm(dim=1) / move
    assert ((lengthened > 1e-4) & (lengthened < 1)).all()
    still = Observation(near.operator(linearised(prior, near, z[:1]).picture), near.operator, near.noise_std)
    torch.testing.assert_close(update(still, 9.0)[:1], update(still, 1.0)[:1], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("isotropic", [False, True])
@pytest.mark.parametrize("iterations", [SIZE, 2 * SIZE])
def test_lanczos_draws_have_the_covariance(dtype, isotropic, iterations):
    """Also where the Krylov space ends long before the iterations do."""
    exact, count = gaussian(isotropic=isotropic), 4000
    prior = GaussianMixturePrior(*(x.to(dtype) for x in (exact.weights, exact.means, exact.covariances)), VP)
    z = draw(1, *SHAPE, seed=6).to(dtype).expand(count, *SHAPE)
    model = linearised(prior, observe("hole").to(z.device, dtype), z)
    draws = model.draw(streams(count, 1).normal(z), iterations).to(DOUBLE).flatten(1)
    _, covariance = conditioned(exact, observe("hole", noise_std=1e9), z[:1].to(DOUBLE), 0.4)
    products = draws[:, :, None] * draws[:, None, :]
    assert ((products.mean(0) - covariance).abs() < 5 * products.std(0) / count**0.5).all()


def test_lanczos_is_the_square_root():
    """Once the Krylov space is whole, the draw is C^(1/2) times the noise, not only alike in law."""
    prior, z, noise = gaussian(), draw(2, *SHAPE, seed=6), draw(2, *SHAPE, seed=7)
    _, covariance = conditioned(prior, observe("hole", noise_std=1e9), z[:1], 0.4)
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors @ values.sqrt().diag() @ vectors.T
    made = linearised(prior, observe("hole"), z).draw(noise, SIZE)
    torch.testing.assert_close(made.flatten(1), noise.flatten(1) @ root, rtol=0, atol=1e-8)


def test_decoder_gain_is_the_variance_the_decoder_multiplies():
    z = draw(3, *SHAPE, seed=6)
    for kind, gain in ((GaussianMixturePrior, 1.0), (ScaledPrior, 9.0)):
        prior = CountedPrior(gaussian(kind=kind))
        made = decoder_gain(prior, z, prior.decode(z), 0.5, streams(3))
        torch.testing.assert_close(made, torch.full((3, 1, 1, 1), gain, dtype=DOUBLE), rtol=1e-12, atol=0)


@both_schedules
def test_clean_variance_is_that_of_independent_latents(schedule):
    level = schedule.level(0.4)
    assert clean_variance(level, 0.7) == pytest.approx(1 / (1 / 0.7**2 + level.alpha**2 / level.sigma**2))


def test_kalman_costs_one_prediction_and_one_of_the_condition_an_iteration():
    prior, rows = CountedPrior(gaussian()), 3
    kalman = Kalman(isotropic_below=0.0, solver_iterations=5, spread_iterations=2)
    step = ReverseStep(0.4, VP.level(0.4), CLEAN)
    kalman(prior, observe("hole"), draw(rows, *SHAPE, seed=6), step, streams(rows))
    assert prior.evaluations.denoiser_forward == rows
    assert prior.evaluations.condition_forward == (5 + 2) * rows
    assert prior.evaluations.denoiser_backward == 0


def test_under_guidance_the_covariance_is_that_of_the_condition():
    class Guided(GaussianMixturePrior):
        def denoise(self, z, t):
            return 3 * super().denoise(z, t) - 2 * z

        def denoise_with_condition(self, z, t):
            return self.denoise(z, t), self.denoise_condition(z, t)

        def denoise_condition(self, z, t):
            return GaussianMixturePrior.denoise(self, z, t)

    z, v = draw(2, *SHAPE, seed=6), draw(2, *SHAPE, seed=7)
    guided, plain = (linearised(gaussian(kind=kind), observe("hole"), z) for kind in (Guided, GaussianMixturePrior))
    torch.testing.assert_close(guided.covariance_times(v), plain.covariance_times(v))
    torch.testing.assert_close(guided.z0, gaussian(kind=Guided).denoise(z, torch.full((2,), 0.4, dtype=DOUBLE)))


@both_schedules
@pytest.mark.parametrize("below", [0.39, 0.36, 0.3, 0.1])
def test_a_step_after_a_draw_is_fresher_than_ancestral_but_never_all_fresh(schedule, below):
    """From short steps to long ones; without a draw it is ancestral."""
    prior, z, t = gaussian(schedule), draw(2, *SHAPE, seed=6), 0.4
    s, kalman = schedule.level(below), Kalman(spread_above=0.0)
    eta = corrected(kalman, prior, observe("hole"), z, t, s).eta
    fresh = reverse_kernel(s, schedule.level(t)).variance / s.sigma**2
    assert 1 <= eta <= kalman.spread_eta
    assert eta**2 * fresh <= max(kalman.most_fresh + 1e-12, fresh)
    assert eta in (1.0, kalman.spread_eta) or eta**2 * fresh == pytest.approx(kalman.most_fresh)
    assert corrected(STILL, prior, observe("hole"), z, t, s).eta == 1
