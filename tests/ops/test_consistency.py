"""Whether samples explain their observation, and that those that do not are drawn again."""

import pytest
import torch

from tests.ops.gaussian_chain import DOUBLE, FLOW, VP, draw, gaussian, partly_seen, unfitted
from vipaint_ops import FitConfig, InputError, Observation, RefineConfig, fit_posterior, operators, sample_posterior
from vipaint_ops.priors.analytic import GaussianMixturePrior
from vipaint_ops.vipaint.consistency import TOLERATED, chance, excess

SHAPE = (2, 4)
both_schedules = pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample(prior, count: int, attempts: int, first: int = 0):
    """From a posterior that begins so low that the chain cannot find back to the observation."""
    config, posterior = RefineConfig(steps=3, attempts=attempts), unfitted(prior, (0.5, 0.001))
    return sample_posterior(prior, partly_seen(), posterior, count, config, generator=seeded(), first=first)


@pytest.mark.parametrize(("count", "quantile"), [(1, 10.828), (10, 29.588), (100, 149.449), (1000, 1143.92)])
def test_chance_is_the_quantile_of_chi_square(count, quantile):
    assert chance(count) == pytest.approx(quantile, rel=0.04)


def likely(prior, seed: int) -> Observation:
    """An observation of a draw of the prior."""
    mask, picture = partly_seen().operator.mask, prior.sample(1, seeded(seed))
    return Observation(mask * (picture + 0.3 * draw(1, *SHAPE, seed=seed)), operators.Inpainting(mask), 0.3)


def test_exact_samples_are_allowed():
    prior, allowed = gaussian(VP), []
    for seed in range(300):
        exact = prior.posterior(likely(prior, seed)).sample(10, seeded(seed))
        allowed.append((excess(prior, likely(prior, seed), exact) < 1).double().mean())
    assert torch.stack(allowed).mean() > 0.998


def test_excess_grows_as_the_square_of_the_residual():
    prior, observation = gaussian(VP), partly_seen()
    shift = draw(3, *SHAPE, seed=7)
    one, three = (excess(prior, observation, z) for z in (observation.y + shift, observation.y + 3 * shift))
    torch.testing.assert_close(three, 9 * one)
    squares = (observation.residual(observation.y + shift) ** 2).flatten(1).sum(1)
    torch.testing.assert_close(one, squares / (TOLERATED**2 * 0.3**2 * chance(5)))


@pytest.mark.parametrize("masked", [True, False])
def test_what_the_autoencoder_cannot_do_is_allowed_behind_a_mask(masked):
    class Blind(GaussianMixturePrior):
        """An autoencoder that knows nothing but zero."""

        def encode(self, x):
            return torch.zeros_like(x)

    plain = gaussian(VP)
    prior = Blind(plain.weights, plain.means, plain.covariances, VP)
    observation = partly_seen(1e-3)
    if not masked:
        whole = operators.Linear(torch.eye(8, dtype=DOUBLE), SHAPE)
        observation = Observation(observation.y.flatten(1), whole, 1e-3)
    zero = torch.zeros(1, *SHAPE, dtype=DOUBLE)
    found = excess(prior, observation, zero)
    assert found.item() == pytest.approx(1 / TOLERATED**2) if masked else found.item() > 1e4


@both_schedules
def test_what_misses_the_observation_is_drawn_again_and_the_best_attempt_kept(schedule):
    prior = gaussian(schedule)
    once, thrice = sample(prior, 6, 1), sample(prior, 6, 3)
    before, after = (excess(prior, partly_seen(), r.images) for r in (once, thrice))
    assert (before > 1).any()
    assert (after <= before).all()
    assert (after[before > 1] < before[before > 1]).any()
    kept = before <= 1
    torch.testing.assert_close(thrice.latents[kept], once.latents[kept], rtol=0, atol=0)
    assert once.evaluations.denoiser < thrice.evaluations.denoiser <= 3 * once.evaluations.denoiser


@both_schedules
def test_attempts_are_the_same_in_any_batch_and_cost_the_same(schedule):
    prior = gaussian(schedule)
    whole = sample(prior, 4, 3)
    alone = [sample(prior, 1, 3, first=k) for k in range(4)]
    torch.testing.assert_close(torch.cat([s.latents for s in alone]), whole.latents, rtol=1e-9, atol=1e-9)
    assert sum((s.evaluations for s in alone[1:]), alone[0].evaluations) == whole.evaluations


@both_schedules
def test_a_chain_that_is_right_is_never_repeated(schedule):
    prior = gaussian(schedule)
    observation = likely(prior, 0)
    posterior = fit_posterior(prior, observation, FitConfig(iterations=0), generator=seeded())
    once, thrice = (
        sample_posterior(prior, observation, posterior, 64, RefineConfig(attempts=n), generator=seeded())
        for n in (1, 3)
    )
    torch.testing.assert_close(once.latents, thrice.latents, rtol=0, atol=0)
    assert once.evaluations.denoiser == thrice.evaluations.denoiser


def test_no_attempt_is_refused():
    with pytest.raises(InputError, match="attempts is 0"):
        RefineConfig(attempts=0)
