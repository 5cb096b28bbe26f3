"""Several posteriors at once: their mixture, its files, what weighs them, and what they are for."""

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmarks.problems import mixture_problem
from tests.ops.gaussian_chain import FLOW, VP, draw, gaussian, partly_seen, unfitted
from vipaint_ops import (
    FitConfig,
    HierarchicalPosterior,
    InputError,
    RefineConfig,
    fit_posterior,
    load_embedded_prior,
    operators,
    sample_posterior,
)
from vipaint_ops.diffusion.prior import CountedPrior
from vipaint_ops.diffusion.streams import NoiseStreams
from vipaint_ops.evaluation.metrics import sliced_wasserstein
from vipaint_ops.images.pictures import load_image
from vipaint_ops.inference.twist import FEW
from vipaint_ops.measurement.likelihood import StudentT
from vipaint_ops.measurement.observation import Observation
from vipaint_ops.priors.embedded import EMBEDDED_PRIOR

SHORT = replace(FitConfig.several(6), start_steps=4, start_chains=3)
TIMES = (0.7, 0.5)
both_schedules = pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture(prior, count: int = 3) -> HierarchicalPosterior:
    """Unfitted posteriors that differ in their means."""
    parts = [unfitted(prior, TIMES) for _ in range(count)]
    for number, part in enumerate(parts):
        part.means = part.means + 100 * number
    joined = HierarchicalPosterior.joined(parts)
    joined.metadata = parts[0].metadata
    return joined


def test_parts_and_their_mixture_are_one_another():
    prior = gaussian()
    q = mixture(prior)
    assert q.components == 3
    assert q.latent_shape == prior.latent_shape
    for part, single in zip(q.parts(), [unfitted(prior, TIMES)] * 3, strict=True):
        assert part.components == 1
        assert part.latent_shape == prior.latent_shape
        assert torch.equal(part.log_stds, single.log_stds)
    assert torch.equal(HierarchicalPosterior.joined(q.parts()).means, q.means)
    alone = unfitted(prior, TIMES)
    assert HierarchicalPosterior.joined([alone]) is alone
    assert alone.parts() == [alone]


@both_schedules
def test_every_row_walks_down_its_own_component(schedule):
    """The walk of a row is that of its component alone, on the same stream; consecutive samples take turns."""
    prior = gaussian(schedule)
    q, counted = mixture(prior), CountedPrior(prior)
    walk = list(q.walk(counted, NoiseStreams(0, range(6))))
    dealt = NoiseStreams(0, range(6)).dealt(3).tolist()
    assert sorted(dealt[:3]) == [0, 1, 2]
    assert dealt[:3] == dealt[3:]
    for row, component in enumerate(dealt):
        alone = list(q.parts()[component].walk(counted, NoiseStreams(0, [row])))
        for mixed, single in zip(walk, alone, strict=True):
            torch.testing.assert_close(mixed.z[row : row + 1], single.z)
            torch.testing.assert_close(mixed.q_mean[row : row + 1], single.q_mean)


def test_a_sample_is_the_same_in_any_batch_and_drawn_again_from_its_own_component():
    prior = gaussian()
    q, config = mixture(prior), RefineConfig(steps=3, batch_size=7)
    together = sample_posterior(prior, partly_seen(), q, 7, config, generator=seeded()).latents
    alone = [sample_posterior(prior, partly_seen(), q, 1, config, generator=seeded(), first=k) for k in range(7)]
    torch.testing.assert_close(torch.cat([one.latents for one in alone]), together)


def test_files_keep_the_components(tmp_path):
    q = mixture(gaussian())
    q.save(tmp_path / "q.safetensors")
    again = HierarchicalPosterior.load(tmp_path / "q.safetensors")
    assert again.components == 3
    assert torch.equal(again.means, q.means)
    assert again.latent_shape == q.latent_shape


@pytest.mark.parametrize("components", ["0", "-1", "2", "many"])
def test_files_with_other_components_than_they_say_are_refused(tmp_path, components):
    path = tmp_path / "q.safetensors"
    mixture(gaussian()).save(path)
    with safe_open(path, "pt") as file:
        header = dict(file.metadata(), components=components)
    save_file(load_file(path), path, header)
    with pytest.raises(InputError):
        HierarchicalPosterior.load(path)


@both_schedules
def test_a_component_is_its_draw_with_noise(schedule):
    """Unfitted, z at every keypoint has the law of a draw of z_0 noised to it."""
    prior, config = gaussian(schedule), replace(SHORT, keypoint_ratios=(1.0, 0.4), start_chains=2000)
    q = fit_posterior(prior, partly_seen(), config, generator=seeded())
    top, bottom = (prior.schedule.level(t) for t in q.times)
    count = 4000
    for part in q.parts():
        walk = list(part.walk(CountedPrior(prior), NoiseStreams(1, range(count))))
        torch.testing.assert_close(walk[0].q_log_std, torch.full_like(walk[0].q_log_std, top.sigma).log())
        clean = part.means[0]
        mean, deviation = walk[1].z.mean(0), walk[1].z.std(0)
        assert ((mean - bottom.alpha * clean).abs() < 0.05 * bottom.sigma).all()
        # What the gate leaves to the prior's own step adds a little to the noise.
        assert (deviation / bottom.sigma > 0.9).all()
        assert (deviation / bottom.sigma < 1.5).all()


@pytest.mark.parametrize("measurements", [1, 2])
def test_modes_are_in_proportion_to_their_weight_where_one_posterior_misses_them(measurements):
    distances = {1: 0.0, 64: 0.0}
    for seed in range(4):
        prior, observation, exact = mixture_problem(8, measurements, seed)
        reference = exact.sample(512, seeded(1))
        for components in distances:
            config = FitConfig.several(components) if components > 1 else FitConfig(iterations=0)
            q = fit_posterior(prior, observation, config, generator=seeded())
            result = sample_posterior(
                prior, observation, q, 512, RefineConfig(steps=12, batch_size=512), generator=seeded()
            )
            distances[components] += sliced_wasserstein(result.latents, reference, 500, generator=seeded()) / 4
    assert distances[64] < 0.6 * distances[1]


def test_as_the_proposal_of_particles_they_have_weighed_the_observation_already():
    """Populations begin even, and their weights say nothing of p(y)."""
    prior = gaussian(correlated=False)
    q = fit_posterior(prior, partly_seen(), SHORT, generator=seeded())
    config = RefineConfig(steps=6, particles=4)
    populations = sample_posterior(prior, partly_seen(), q, 4, config, generator=seeded()).populations
    assert populations.effective.item() > 0.95
    assert populations.log_evidence.isnan().all()
    assert "ln p(y)" not in str(populations)


def test_many_measurements_do_not_weigh_draws_and_the_posterior_says_so():
    size = FEW + 8
    prior = gaussian(shape=(1, size))
    mask = torch.ones(1, 1, size, dtype=torch.float64)
    observation = Observation(draw(1, 1, size, seed=4), operators.Inpainting(mask), 0.3)
    q = fit_posterior(prior, observation, SHORT, generator=seeded())
    assert q.components == 6
    assert "too many measurements" in q.metadata["start"]
    few = fit_posterior(gaussian(), partly_seen(), SHORT, generator=seeded())
    assert "1 x 6 particles" in few.metadata["start"]
    robust = Observation(partly_seen().y, partly_seen().operator, 0.3, StudentT(4.0))
    assert "not weighed" in fit_posterior(gaussian(), robust, SHORT, generator=seeded()).metadata["start"]


def test_every_component_is_fitted_and_history_is_their_mean():
    prior, config = gaussian(), replace(SHORT, components=2, iterations=3, samples=2)
    seen = []
    q = fit_posterior(prior, partly_seen(), config, generator=seeded(), callback=seen.append)
    unfit = fit_posterior(prior, partly_seen(), replace(config, iterations=0), generator=seeded())
    assert len(q.history) == 3
    assert q.history[0].keys() == {"loss", "likelihood", "transitions", "top"}
    assert [(p.step, p.total) for p in seen if p.stage == "fit"] == [(i + 1, 6) for i in range(6)]
    moved = (q.means - unfit.means).abs().flatten(2).amax(2)
    assert (moved > 0).all()


@pytest.mark.parametrize("settings", [{"components": 0}, {"components": 2, "objective": "published_v1"}])
def test_impossible_numbers_are_refused(settings):
    with pytest.raises(InputError, match="components"):
        FitConfig(**settings)


def test_a_few_pixels_of_a_picture_weigh_draws_of_a_network():
    """In single precision, where what the pixels share makes their covariance all but singular."""
    mask = torch.zeros(1, 1, 64, 64)
    mask[0, 0, [5, 20, 40, 45, 60], [10, 50, 32, 12, 40]] = 1
    picture = load_image(EMBEDDED_PRIOR.with_name("demo_scene.png"))
    observation = Observation(mask * picture, operators.Inpainting(mask), 0.05)
    q = fit_posterior(load_embedded_prior(), observation, replace(SHORT, components=2), generator=seeded())
    assert q.means.isfinite().all()
    assert "1 x 2 particles" in q.metadata["start"]
