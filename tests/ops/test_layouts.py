"""Layouts: components of a hole, fitted to what the known latents say of them, resampled and sampled cheaply."""

from dataclasses import replace

import pytest
import torch

from benchmarks.problems import DOUBLE, layouts_problem
from tests.ops.gaussian_chain import FLOW, VP, draw, gaussian, marginal
from vipaint_ops import (
    FitConfig,
    HierarchicalPosterior,
    InputError,
    Observation,
    fit_posterior,
    load_embedded_prior,
    operators,
    sample_posterior,
)
from vipaint_ops.diffusion.prior import CountedPrior
from vipaint_ops.diffusion.streams import NoiseStreams
from vipaint_ops.images.masks import box
from vipaint_ops.images.pictures import load_image
from vipaint_ops.presets import PRESETS
from vipaint_ops.priors.embedded import EMBEDDED_PRIOR
from vipaint_ops.vipaint.layouts import RATIOS, Layouts, shares

REFINE = PRESETS["layouts"].refine
both_schedules = pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])


def short(components: int = 6, iterations: int = 10) -> FitConfig:
    return replace(FitConfig.layouts(components), iterations=iterations, start_steps=4)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def around(prior, draws: torch.Tensor) -> HierarchicalPosterior:
    """A component around each of ``draws``."""
    time = prior.schedule.time_at_ratio(1.5 * prior.data_std)
    log_std = torch.zeros_like(draws[:1])
    return HierarchicalPosterior.joined([HierarchicalPosterior((time,), one[None], log_std, log_std) for one in draws])


def recipe(prior, observation, draws: torch.Tensor, **changes) -> Layouts:
    """The recipe of a fit whose start has these draws."""
    config = replace(short(len(draws)), **changes)
    found = Layouts(CountedPrior(prior), observation, config)
    found.start((0.5,), 0, lambda progress: None)
    found._completed = draws
    return found


def two_layouts(schedule):
    """The observation of a picture, its own layout, and another one whose code differs; clean latents."""
    prior, observation = layouts_problem(8, 3, schedule)
    weights = prior.layout_weights(observation)
    codes = prior.means[:, 0, 2::4, 7]
    right = weights.argmax()
    wrong = (codes - codes[right]).abs().sum(1).argmax()
    known = prior.encode(observation.y)
    pictures = prior.means[torch.stack([right, wrong])].clone()
    pictures[..., :8] = known[..., :8]
    return prior, observation, pictures


def test_shares_are_the_whole_integral():
    assert sum(shares(RATIOS)) == pytest.approx(1 / RATIOS[-1] ** 2)
    assert all(share > 0 for share in shares(RATIOS))


@both_schedules
def test_the_evidence_is_the_diffusion_bound_in_closed_form(schedule):
    """On a Gaussian prior the error of a prediction is a quadratic form of the noise."""
    prior = gaussian(schedule, (1, 2, 4))
    mask = torch.tensor([[[1.0, 1, 0, 0], [1, 1, 0, 0]]], dtype=DOUBLE)[None]
    observation = Observation(mask * draw(1, 1, 2, 4, seed=4), operators.Inpainting(mask), 0.3)
    z0, keep, expected = draw(1, 1, 2, 4, seed=5), mask.flatten(), 0.0
    mean, covariance = prior.moments()
    for ratio, share in zip(RATIOS, shares(RATIOS), strict=True):
        level = schedule.level(schedule.time_at_ratio(ratio * prior.data_std))
        gain = level.alpha * covariance @ marginal(prior, level).precision_matrix
        bias = mean + level.alpha * gain @ (z0.flatten() - mean) - z0.flatten()
        error = (keep * bias).square().sum() + level.sigma**2 * (keep[:, None] * gain).square().sum()
        expected += 0.5 * share / prior.data_std**2 * error.item()
    made = recipe(prior, observation, z0)
    noise = draw(20_000, 1, 2, 4, seed=6)
    many = z0.expand(len(noise), -1, -1, -1)
    found = sum(made._missed(many, many, index, noise).mean().item() for index in range(len(RATIOS)))
    assert found == pytest.approx(expected, rel=0.02)


@both_schedules
def test_layouts_against_the_evidence_are_dropped(schedule):
    prior, observation, pictures = two_layouts(schedule)
    q = around(prior, pictures.repeat_interleave(4, 0))
    kept = recipe(prior, observation, pictures.repeat_interleave(4, 0)).finish(q, 1)
    apart = [(kept.means[0] - one).flatten(1).norm(dim=1) for one in pictures]
    assert (apart[0] < apart[1]).all()
    assert "4 of 8" in kept.metadata["start"]


@both_schedules
def test_the_fit_moves_hidden_latents_towards_the_evidence(schedule):
    """From half way between two layouts, more of the way to the one that the known pixels have."""
    prior, observation, pictures = two_layouts(schedule)
    middle = pictures.mean(0, keepdim=True).expand(4, -1, -1, -1).clone()
    made, q = recipe(prior, observation, middle), around(prior, middle)
    q.means.requires_grad_()
    for index in range(len(RATIOS)):
        q.history = [{}] * index
        made.loss(q, NoiseStreams(1, range(4))).loss.backward()
    step = -q.means.grad[0].sum(0)
    assert (step * (pictures[0] - pictures[1]))[..., 8:].sum() > 0
    assert step[..., :8].abs().max() == 0


@pytest.fixture(scope="module")
def holed() -> Observation:
    picture, mask = load_image(EMBEDDED_PRIOR.with_name("demo_scene.png")), box(64, 64, 32)
    return Observation(mask * picture, operators.Inpainting(mask), 0.02)


def test_iterations_raise_the_evidence_and_leave_the_known_latents(holed):
    """At noise that the fit did not see, for every component."""
    prior, known = load_embedded_prior(), torch.ones(16, 16, dtype=torch.bool)
    known[4:12, 4:12] = False
    made = Layouts(CountedPrior(prior), holed, short(3))
    before = made.start((0.5,), 0, lambda progress: None)
    after = fit_from(made, before, 15)
    assert torch.equal(after[..., known], before.means[0][..., known])
    noise = draw(4, 4, 16, 16, seed=6).float()
    for index in range(len(RATIOS)):
        lost, left = (
            sum(made._missed(means, made._completed, index, one[None]) for one in noise)
            for means in (before.means[0], after)
        )
        assert (left < lost).all()


def fit_from(made: Layouts, q: HierarchicalPosterior, iterations: int) -> torch.Tensor:
    """mu of every component after some iterations of Adam on the loss, with fresh noise each."""
    means = q.means.clone().requires_grad_()
    joined = HierarchicalPosterior(q.times, means, q.log_stds, q.gates, components=q.components)
    optimiser = torch.optim.Adam([means], 0.1, (0.9, 0.99))
    for number in range(iterations):
        joined.history = [{}] * number
        optimiser.zero_grad()
        made.loss(joined, NoiseStreams(number, range(q.components))).loss.backward()
        optimiser.step()
    return means.detach()[0]


def test_nothing_under_the_mask_is_looked_at_and_a_seed_is_a_fit(holed):
    mask = box(64, 64, 32)
    noisy = Observation(holed.y + (1 - mask), operators.Inpainting(mask), 0.02)
    prior, config = load_embedded_prior(), short(2, 2)
    one, other = (fit_posterior(prior, y, config, generator=seeded()) for y in (holed, noisy))
    assert torch.equal(one.means, other.means)
    again = fit_posterior(prior, holed, config, generator=seeded(1))
    assert not torch.equal(one.means, again.means)


def test_batches_change_nothing_but_memory(holed):
    prior = load_embedded_prior()
    whole, parts = (
        fit_posterior(prior, holed, replace(short(4, 3), batch_size=size), generator=seeded()) for size in (4, 3)
    )
    torch.testing.assert_close(whole.means, parts.means, atol=1e-4, rtol=0)
    assert whole.evaluations.denoiser == parts.evaluations.denoiser
    together = sample_posterior(prior, holed, whole, 3, REFINE, generator=seeded()).images
    alone = sample_posterior(prior, holed, whole, 1, REFINE, generator=seeded(), first=2).images
    torch.testing.assert_close(together[2:], alone, atol=1e-3, rtol=0)


def test_the_fit_needs_no_gradient_of_the_decoder_and_samples_none_at_all(holed):
    prior = load_embedded_prior()
    q = fit_posterior(prior, holed, short(2, 3), generator=seeded())
    assert (q.evaluations.denoiser_backward, q.evaluations.decoder_backward) == (6, 0)
    spent = sample_posterior(prior, holed, q, 2, REFINE, generator=seeded()).evaluations
    assert (spent.denoiser_backward, spent.decoder_backward) == (0, 0)
    assert spent.denoiser_forward == 2 * (2 * REFINE.steps - 1)
    assert spent.decoder_forward == 2 * (3 + 1)  # known latents anew, and the result: no linear map is made


def test_other_observations_are_refused():
    prior = load_embedded_prior()
    blurred = Observation(torch.zeros(1, 3, 64, 64), operators.GaussianBlur(9, 1.0), 0.02)
    with pytest.raises(InputError, match="known pixels"):
        fit_posterior(prior, blurred, short(2), generator=seeded())
