"""From a fitted posterior to samples: exactness on Gaussian priors, seeds, batches and cost."""

from dataclasses import replace

import pytest
import torch

from benchmarks.problems import inpainting_problem, power_law_prior
from tests.ops.gaussian_chain import FLOW, VP, gaussian, partly_seen, unfitted
from vipaint_ops import FitConfig, InputError, RefineConfig, fit_posterior, sample_posterior
from vipaint_ops.inference.chain import end_time, time_grid
from vipaint_ops.inference.corrections import CORRECTIONS, Kalman

SHAPE, SIZE = (2, 4), 8
SHORT = RefineConfig(steps=3)
every_guidance = pytest.mark.parametrize("guidance", CORRECTIONS.values(), ids=CORRECTIONS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample(prior, count: int, config: RefineConfig = SHORT, seed: int = 0, posterior=None, **options):
    posterior = posterior or unfitted(prior)
    return sample_posterior(prior, partly_seen(), posterior, count, config, generator=seeded(seed), **options)


@pytest.mark.parametrize(("schedule", "mask"), [(VP, "half"), (FLOW, "box")], ids=["vp-half", "flow-box"])
def test_samples_reach_the_exact_posterior_with_and_without_iterations(schedule, mask):
    """Over what is hidden: means within 0.1 posterior deviations (0.05 of it sampling noise), spreads without bias.

    The chain starts so noisy that 50 iterations change the error by less than its sampling noise.
    """
    prior, count = power_law_prior(schedule, side=8), 400
    for seed in range(3):
        observation, exact = inpainting_problem(prior, mask, 0.05, seeded(seed))
        mean, covariance = exact.moments()
        deviation = covariance.diagonal().sqrt()
        hidden = (observation.operator.mask == 0).flatten()
        for iterations in (50, 0):
            config = FitConfig(iterations=iterations, bound_every=0)
            posterior = fit_posterior(prior, observation, config, generator=seeded(seed))
            result = sample_posterior(
                prior, observation, posterior, count, RefineConfig(batch_size=count), generator=seeded(100 + seed)
            )
            x = result.latents.flatten(1)
            assert ((x.mean(0) - mean) / deviation)[hidden].square().mean().sqrt() < 0.1
            assert (x.std(0) / deviation)[hidden].log().mean().abs() < 0.06
            cost = result.evaluations
            assert 2 * cost.denoiser_forward + cost.condition_forward <= 150 * count, "branches of a guided model"


DING = RefineConfig(chain="ding", steps=60, guidance=Kalman(exact_below=0.0))


@pytest.mark.parametrize(("schedule", "mask"), [(VP, "half"), (FLOW, "box")], ids=["vp-half", "flow-box"])
def test_dings_transitions_keep_known_latents_and_come_near_the_posterior(schedule, mask):
    prior, count = power_law_prior(schedule, side=8), 400
    observation, exact = inpainting_problem(prior, mask, 0.01, seeded())
    posterior = fit_posterior(prior, observation, FitConfig(), generator=seeded())
    config = replace(DING, batch_size=count)
    result = sample_posterior(prior, observation, posterior, count, config, generator=seeded(1))
    mean, covariance = exact.moments()
    deviation, hidden = covariance.diagonal().sqrt(), (observation.operator.mask == 0).flatten()
    x = result.latents.flatten(1)
    assert ((x.mean(0) - mean) / deviation)[hidden].square().mean().sqrt() < 0.25
    assert (x.std(0) / deviation)[hidden].log().mean().abs() < 0.15
    torch.testing.assert_close(x[:, ~hidden], observation.y.flatten()[~hidden].expand(count, -1))
    assert result.evaluations.denoiser_backward == result.evaluations.decoder_backward == 0
    assert config.differentiates == frozenset()


def test_other_observations_than_masks_are_guided_in_place_of_ding():
    prior = gaussian()
    guided = sample(prior, 2, replace(DING, chain="guided", steps=3, attempts=1))
    torch.testing.assert_close(sample(prior, 2, replace(DING, steps=3)).latents, guided.latents)


@every_guidance
@pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
def test_batches_change_nothing_but_memory(guidance, schedule):
    """Sample k is the same in a batch of any size and alone, and a batch costs what its samples cost."""
    prior, config = gaussian(schedule), replace(SHORT, guidance=guidance)
    whole = sample(prior, 8, replace(config, batch_size=8))
    assert whole.latents.shape == whole.images.shape == (8, *SHAPE)
    for batch_size in (1, 3):
        parts = sample(prior, 8, replace(config, batch_size=batch_size))
        torch.testing.assert_close(parts.latents, whole.latents)
        assert parts.evaluations == whole.evaluations
    alone = [sample(prior, 1, config, first=k) for k in range(8)]
    torch.testing.assert_close(torch.cat([s.latents for s in alone]), whole.latents)
    assert sum((s.evaluations for s in alone[1:]), alone[0].evaluations) == whole.evaluations


@every_guidance
def test_a_seed_repeats_and_another_does_not(guidance):
    prior, config = gaussian(), replace(SHORT, guidance=guidance)
    first, again, other = (sample(prior, 3, config, seed).latents for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first - other).flatten(1).norm(dim=1).min() > 0.1
    assert torch.pdist(first.flatten(1)).min() > 0.1


def test_images_are_the_decoded_latents():
    class Doubled(type(gaussian())):
        def decode(self, z0):
            return 2 * z0

    plain = gaussian()
    result = sample(Doubled(plain.weights, plain.means, plain.covariances, VP), 2)
    assert torch.equal(result.images, 2 * result.latents)
    assert not result.images.requires_grad
    assert not result.latents.requires_grad


def test_without_noise_the_chain_is_a_function_of_its_start():
    """eta = 0 and no spread: two posteriors of no width give one sample."""
    prior = gaussian()
    posterior = unfitted(prior)
    posterior.log_stds.fill_(-40.0)
    config = RefineConfig(eta=0.0, steps=3, guidance=Kalman(spread_iterations=0))
    samples = sample(prior, 3, config, posterior=posterior).latents
    torch.testing.assert_close(samples, samples[:1].expand(3, *SHAPE))


@pytest.mark.parametrize("steps", [1, 4])
def test_the_cost_is_that_of_the_steps(steps):
    """Two products more for a spread, at the noise levels that have one."""
    prior, settings, count = gaussian(), Kalman(isotropic_below=0.0), 5
    times = time_grid(prior.schedule, 0.5, end_time(prior.schedule, prior.data_std), steps)
    spread = sum(t > prior.schedule.time_at_ratio(settings.spread_above * prior.data_std) for t in times)
    result = sample(prior, count, RefineConfig(steps=steps, guidance=settings))
    walk = len(unfitted(prior).times) - 1
    assert result.evaluations.denoiser_forward == count * (walk + steps)
    products = settings.solver_iterations * steps + settings.spread_iterations * spread
    assert result.evaluations.condition_forward == count * products
    assert result.evaluations.denoiser_backward == 0


def test_progress_runs_over_all_batches():
    seen = []
    sample(gaussian(), 5, replace(SHORT, batch_size=2), callback=seen.append)
    assert [(p.step, p.total) for p in seen] == [(i + 1, 9) for i in range(9)]


@pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
def test_a_last_keypoint_below_the_end_of_the_chain_takes_one_step(schedule):
    """There is nowhere further down to go, and no step may lead up."""
    prior = gaussian(schedule)
    result = sample(prior, 5, replace(SHORT, attempts=1), posterior=unfitted(prior, (0.5, 0.001)))
    assert result.evaluations.denoiser_forward == 5 * 2
    assert result.latents.isfinite().all()


def test_a_posterior_of_another_prior_is_refused():
    with pytest.raises(InputError, match="schedule"):
        sample(gaussian(VP), 1, posterior=unfitted(gaussian(FLOW)))


@pytest.mark.parametrize(
    ("count", "options"), [(0, {}), (-1, {}), (1, {"batch_size": 0}), (1, {"steps": 0}), (1, {"guidance": "spam"})]
)
def test_impossible_requests_are_refused(count, options):
    with pytest.raises(InputError):
        sample(gaussian(), count, replace(SHORT, **options))


def test_an_interrupt_passes_through():
    def stop(_):
        raise KeyboardInterrupt

    prior = gaussian()
    with pytest.raises(KeyboardInterrupt):
        sample(prior, 2, callback=stop)
    assert torch.is_grad_enabled()
