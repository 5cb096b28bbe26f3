"""The published settings: their numbers by hand, their laws, and that they run as their authors' code did."""

import math
from itertools import pairwise

import pytest
import torch

from vipaint_ops import (
    FitConfig,
    HierarchicalPosterior,
    NoiseSchedule,
    Observation,
    RefineConfig,
    fit_posterior,
    sample_posterior,
)
from vipaint_ops.diffusion.prior import CountedPrior, Evaluations
from vipaint_ops.diffusion.schedule import bridge, reverse_kernel, reverse_mean
from vipaint_ops.diffusion.streams import NoiseStreams
from vipaint_ops.errors import InputError
from vipaint_ops.operators import Inpainting, Linear
from vipaint_ops.priors.analytic import GaussianMixturePrior
from vipaint_ops.vipaint.families import Normal, coupled_alpha
from vipaint_ops.vipaint.fit import RECIPES
from vipaint_ops.vipaint.objective import gaussian_kl
from vipaint_ops.vipaint.published import v1 as published_v1
from vipaint_ops.vipaint.published import v2 as published_v2

IMAGENET, CHURCH = NoiseSchedule.scaled_linear(0.0015, 0.0195), NoiseSchedule.scaled_linear(0.0015, 0.0155)
SD3 = NoiseSchedule.rectified_flow(3.0)
PRESETS = ("published_v1", "published_v2")
SIDE = 6


def smooth_prior(schedule):
    """Smooth one-channel Gaussian pictures of standard deviation 1 over 6 x 6 pixels."""
    places = torch.arange(SIDE, dtype=torch.float64)
    rows = torch.exp(-((places[:, None] - places[None]) ** 2) / 8)
    covariance = 0.95 * torch.kron(rows, rows) + 0.05 * torch.eye(SIDE**2)
    means = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64)
    return GaussianMixturePrior(torch.ones(1, dtype=torch.float64), means, covariance[None], schedule)


def half_seen(prior):
    mask = torch.ones(SIDE, SIDE, dtype=torch.float64)
    mask[:, SIDE // 2 :] = 0
    truth = 0.5 * prior.sample(1, torch.Generator().manual_seed(1))
    return Observation(mask * truth, Inpainting(mask), 0.05)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def fit(preset, schedule=IMAGENET, **changes):
    prior = smooth_prior(schedule)
    config = getattr(FitConfig, preset)()
    config = FitConfig(**{**vars(config), **changes})
    return prior, half_seen(prior), fit_posterior(prior, half_seen(prior), config, generator=seeded())


def recipe(kind, preset, prior):
    """The recipe of a preset over ``prior``, and a start of its own."""
    config, counted = getattr(FitConfig, preset)(), CountedPrior(prior)
    made = kind(counted, half_seen(prior), config)
    times = (0.55, 0.4) if preset == "published_v1" else (0.501, 0.2515)
    return made, made.start(times, 3, None), counted


def test_v1_numbers_by_hand():
    config = FitConfig.published_v1()
    assert config.keypoints == (0.55, 0.4)
    assert (config.iterations, config.samples, config.betas, config.rate_decay) == (50, 5, (0.9, 0.99), 0.99)
    assert (config.mean_rate, 2 * config.log_std_rate, config.gate_rate) == (0.1, 0.001, 0.01)
    assert config.eta**2 == pytest.approx(0.2)
    assert pytest.approx(156.0764, abs=1e-4) == published_v1.DATA_WEIGHT
    assert published_v1.BETA == 100
    refine = RefineConfig.published_v1()
    assert (refine.steps, refine.eta, published_v1.STEP) == (round(1000 * config.keypoints[-1]), 0.2, 2 / 5)


def test_v2_numbers_by_hand():
    config, refine = FitConfig.published_v2(), RefineConfig.published_v2()
    assert (config.iterations, config.samples, config.betas, config.rate_decay) == (50, 1, (0.9, 0.999), 1.0)
    assert config.mean_rate == config.log_std_rate == config.gate_rate == 0.2
    weights = published_v2.PIXEL_WEIGHT, published_v2.LATENT_WEIGHT, published_v2.KL_WEIGHT, published_v2.MIDDLE_WEIGHT
    assert weights == pytest.approx((250, 600, 50, 25000))
    assert (refine.steps, refine.eta, published_v2.L1_WEIGHT, published_v2.STEP) == (249, 1.0, 20, 650)
    assert SD3.sigma(published_v2.LAST_TIME) == pytest.approx(0.00893, abs=1e-5)


def test_v2_keypoints_are_pure_noise_and_the_published_noise_levels():
    _, _, fitted = fit("published_v2", SD3, iterations=0)
    assert [SD3.sigma(t) for t in fitted.times] == pytest.approx([1, 0.7507, 0.5020], abs=1e-4)
    assert fitted.times[1:] == pytest.approx((0.501, 0.2515), abs=1e-4)


@pytest.mark.parametrize(("schedule", "factor", "std"), [(IMAGENET, 0.0126, 0.335), (CHURCH, 0.0100, 0.316)])
def test_v1_ties_means_to_the_prior_by_s4_too_little(schedule, factor, std):
    above, level = schedule.level(0.55), schedule.level(0.4)
    zero = torch.zeros(2, 3, dtype=torch.float64)
    _, variance = reverse_mean(zero, zero, level, above, FitConfig.published_v1().eta)
    assert variance**0.5 == pytest.approx(std, abs=1e-3)
    means, log_stds = torch.randn(2, 3, generator=seeded(), dtype=torch.float64), zero[0] - 0.7
    published = published_v1.published_kl(Normal(means, log_stds), zero, variance)
    right = gaussian_kl(means, log_stds, zero, variance) / 3
    same = gaussian_kl(zero, log_stds, zero, variance) / 3
    torch.testing.assert_close((published - same) / (right - same), torch.full_like(same, variance**2))
    assert variance**2 == pytest.approx(factor, rel=0.01)


def test_v1_grid_above_the_top_is_the_published_one():
    level = IMAGENET.level(0.55)
    times = published_v1.noisier_times(IMAGENET, level, torch.full((4,), level.sigma, dtype=torch.float64))
    assert len(times) == 139
    assert times[0] > 0.55
    assert times[-1] == pytest.approx(0.999)
    assert min(1000 * (b - a) for a, b in pairwise(times)) > 2


def test_v1_bridge_has_a_variance_too_large_by_one_term():
    e, s, t = (IMAGENET.level(x) for x in (0.55, 0.7, 0.75))
    z_e, z_t = torch.randn(2, 4, generator=seeded(), dtype=torch.float64)
    one = torch.ones(4, dtype=torch.float64)
    mean, variance = published_v1.published_bridge(e.alpha * one, e.sigma, s, t, z_e, z_t)
    right = bridge(e, s, t)
    a_se, a_ts = s.alpha / e.alpha, t.alpha / s.alpha
    v_se, v_ts = s.sigma**2 - (a_se * e.sigma) ** 2, t.sigma**2 - (a_ts * s.sigma) ** 2
    torch.testing.assert_close(1 / variance, (1 / v_se + a_se**2 / v_ts) * one)
    torch.testing.assert_close(mean / variance, (right.on_z * z_t + right.on_z0 * z_e) / right.variance)


def test_v1_start_by_hand():
    prior = smooth_prior(IMAGENET)
    made, start, _ = recipe(published_v1.PublishedV1, "published_v1", prior)
    assert start.family == "coupled"
    above, level = IMAGENET.level(0.55), IMAGENET.level(0.4)
    torch.testing.assert_close(start.log_stds[0].exp(), torch.full_like(start.gates[0], above.sigma))
    own = 0.7 * reverse_kernel(level, above).variance ** 0.5
    torch.testing.assert_close(start.log_stds[1].exp(), torch.full_like(start.gates[0], own))
    assert (start.gates == 5).all()
    starts = torch.stack([made.start((0.55, 0.4), seed, None).means for seed in range(500)])
    spread, centre = starts.std((0, 2, 3, 4)), half_seen(prior).y[0]
    own_std, picture_std = [math.hypot(1, 0.8), math.hypot(level.alpha, level.sigma)], centre.std().item()
    expected = [math.hypot(std, alpha * picture_std) for std, alpha in zip(own_std, (1, level.alpha), strict=True)]
    assert spread.tolist() == pytest.approx(expected, rel=0.02)
    torch.testing.assert_close(starts.mean(0)[0], centre, atol=0.25, rtol=0)
    torch.testing.assert_close(starts.mean(0)[1], level.alpha * centre, atol=0.25, rtol=0)


def test_v1_data_term_is_a_mean_over_hidden_pixels_too():
    prior = smooth_prior(IMAGENET)
    observation, counted = half_seen(prior), CountedPrior(prior)
    pictures = observation.y + torch.tensor([0.1, -0.3], dtype=torch.float64).view(2, 1, 1, 1)
    values = published_v1.data_term(counted, observation, pictures)
    assert values.tolist() == pytest.approx([156.0764 * 0.05, 156.0764 * 0.15], rel=1e-5)


def test_v1_top_keeps_its_power_when_tau_grows():
    level = IMAGENET.level(0.55)
    tau = torch.tensor([0.5, level.sigma, 0.99, 1.2], dtype=torch.float64)
    alpha = coupled_alpha(level, tau)
    torch.testing.assert_close(alpha[:3], (1 - tau[:3] ** 2).sqrt())
    assert alpha[3] > 0
    assert coupled_alpha(SD3.level(0.55), torch.tensor(SD3.sigma(0.55))).item() == pytest.approx(SD3.alpha(0.55))


def test_v2_walk_is_the_shifted_reverse_step():
    prior = smooth_prior(SD3)
    _, start, counted = recipe(published_v2.PublishedV2, "published_v2", prior)
    assert start.family == "x0"
    keypoints = list(start.walk(counted, NoiseStreams(7, range(4000))))
    top, first = keypoints[0], keypoints[1]
    assert top.q_mean.abs().max() == 0
    assert top.z.std().item() == pytest.approx(1 / (1 + math.exp(-1)), rel=0.01)
    shifted = torch.sigmoid(torch.ones(1)).item() * first.parent_prediction + start.means[1]
    mean, variance = reverse_mean(top.z, shifted, first.level, top.level)
    torch.testing.assert_close(first.q_mean, mean)
    drawn = ((first.z - mean).std() / variance**0.5).item()
    assert drawn == pytest.approx(1 / (1 + math.exp(-1)), rel=0.01)


def test_v2_kl_of_pure_noise_is_the_published_constant():
    std = 1 / (1 + math.exp(-1))
    value = gaussian_kl(torch.zeros(1, 5), torch.full((5,), math.log(std)), 0.0, 1.0) / 5
    assert value.item() == pytest.approx(0.0805, abs=1e-4)


def test_v2_middle_kl_compares_predictions_with_the_mean_at_the_first_keypoint():
    class Constant(GaussianMixturePrior):
        def denoise(self, z, t):
            return torch.full_like(z, 0.3)

    plain = smooth_prior(SD3)
    prior = Constant(plain.weights, plain.means, plain.covariances, SD3)
    made, start, _ = recipe(published_v2.PublishedV2, "published_v2", prior)
    start.means[1] = 0.3 * SD3.alpha(start.times[1])
    assert made._middle_kl(start, NoiseStreams(1, range(1))).item() == pytest.approx(0, abs=1e-20)
    start.means[1] += 0.01 * SD3.alpha(start.times[1])
    one, two = (made._middle_kl(start, NoiseStreams(1, range(1))).item() for _ in range(2))
    assert one == two > 0
    start.means[1] += 0.01 * SD3.alpha(start.times[1])
    assert made._middle_kl(start, NoiseStreams(1, range(1))).item() == pytest.approx(4 * one)


def test_v2_latent_term_has_the_published_weight():
    alpha, sigma = SD3.level(0.2515)
    assert (alpha * sigma**2) ** 2 == pytest.approx(0.0157, abs=1e-4)
    prior = smooth_prior(SD3)
    made, start, counted = recipe(published_v2.PublishedV2, "published_v2", prior)
    with torch.no_grad():
        likelihood = made.loss(start, NoiseStreams(5, range(1))).likelihood
        bottom = list(start.walk(counted, NoiseStreams(5, range(1))))[-1]
        prediction = counted.denoise(bottom.z, bottom.time)
    observation = half_seen(prior)
    error, raw = (observation.residual(x).square().mean() for x in (prediction.clamp(-1, 1), prediction))
    expected = 250 * error / 4 + 600 * (bottom.level.alpha * bottom.level.sigma**2) ** 2 * raw
    torch.testing.assert_close(likelihood, expected[None])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("schedule", [IMAGENET, SD3], ids=["vp", "flow"])
def test_fit_lowers_its_own_loss(preset, schedule):
    prior, observation, fitted = fit(preset, schedule)
    _, _, start = fit(preset, schedule, iterations=0)
    made = RECIPES[preset](CountedPrior(prior), observation, FitConfig(objective=preset))
    with torch.no_grad():
        before, after = (made.loss(p, NoiseStreams(5, range(256))).loss.item() for p in (start, fitted))
    assert after < 0.97 * before
    for record in fitted.history:
        assert record["loss"] == pytest.approx(record["likelihood"] + record["transitions"] + record["top"])
    assert not any("bound" in record for record in fitted.history)


@pytest.mark.parametrize(("preset", "denoiser", "decoder"), [("published_v1", 3 * 5, 5), ("published_v2", 3 + 9, 1)])
def test_fit_costs_what_the_published_code_does(preset, denoiser, decoder):
    _, _, fitted = fit(preset, iterations=4)
    assert fitted.evaluations == Evaluations(4 * denoiser, 4 * denoiser, 4 * decoder, 4 * decoder, encoder_forward=1)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("published_v1", Evaluations(400 + 1, 400, 400 + 1, 400)),
        ("published_v2", Evaluations(2 * 249 + 1 + 2, 249, 249 + 1, 249)),
    ],
)
def test_refinement_costs_what_the_published_code_does(preset, expected):
    prior, observation, fitted = fit(preset, iterations=0)
    config = getattr(RefineConfig, preset)()
    result = sample_posterior(prior, observation, fitted, 1, config, generator=seeded())
    assert result.evaluations == expected


@pytest.mark.parametrize("preset", PRESETS)
def test_refinement_lowers_the_misfit_of_the_observation(preset):
    prior, observation, fitted = fit(preset)
    config = getattr(RefineConfig, preset)()
    result = sample_posterior(prior, observation, fitted, 16, config, generator=seeded())
    counted = CountedPrior(prior)
    z = fitted.sample(counted, NoiseStreams(0, range(16)))
    before = observation.residual(counted.denoise(z, fitted.times[-1])).abs().mean()
    assert observation.residual(result.images).abs().mean() < 0.3 * before


def test_v1_adds_no_noise_below_the_last_keypoint():
    prior = smooth_prior(IMAGENET)
    config = RefineConfig(chain="published_v1", steps=5, eta=0.2)
    z = torch.randn(2, 1, SIDE, SIDE, generator=seeded(), dtype=torch.float64)
    one, two = (
        published_v1.refine(CountedPrior(prior), half_seen(prior), z, 0.4, config, NoiseStreams(s, range(2)), print)
        for s in (1, 2)
    )
    assert torch.equal(one, two)


@pytest.mark.parametrize("preset", PRESETS)
def test_same_seed_same_fit_and_sample_k_alone(preset, tmp_path):
    prior, observation, fitted = fit(preset, iterations=3)
    _, _, again = fit(preset, iterations=3)
    assert torch.equal(fitted.means, again.means)
    assert torch.equal(fitted.log_stds, again.log_stds)
    config = RefineConfig(chain=preset, steps=4)
    batch = sample_posterior(prior, observation, fitted, 3, config, generator=seeded())
    alone = sample_posterior(prior, observation, again, 1, config, generator=seeded(), first=2)
    torch.testing.assert_close(alone.latents[0], batch.latents[2])


@pytest.mark.parametrize(("preset", "family"), [("published_v1", "coupled"), ("published_v2", "x0")])
def test_file_keeps_the_family(preset, family, tmp_path):
    prior, observation, fitted = fit(preset, iterations=2)
    fitted.save(tmp_path / "fit.safetensors")
    loaded = HierarchicalPosterior.load(tmp_path / "fit.safetensors")
    assert (loaded.family, loaded.metadata) == (family, fitted.metadata)
    assert loaded.to(prior.device, prior.dtype).family == family
    config = RefineConfig(chain=preset, steps=3)
    first, second = (
        sample_posterior(prior, observation, p, 1, config, generator=seeded()).latents for p in (fitted, loaded)
    )
    assert torch.equal(first, second)


def test_file_of_an_unknown_family_is_refused(tmp_path):
    _, _, fitted = fit("published_v1", iterations=0)
    fitted.family = "next"
    fitted.save(tmp_path / "fit.safetensors")
    with pytest.raises(InputError, match="unknown family 'next'"):
        HierarchicalPosterior.load(tmp_path / "fit.safetensors")


def test_published_posterior_takes_the_library_refinement_too():
    prior, observation, fitted = fit("published_v2", iterations=2)
    result = sample_posterior(prior, observation, fitted, 2, RefineConfig(steps=3), generator=seeded())
    assert result.latents.isfinite().all()


def test_bad_names_and_observations_are_refused():
    names = "bound, layouts, published_v1, published_v2"
    with pytest.raises(InputError, match=f"objective is 'elbo'; choose one of {names}"):
        FitConfig(objective="elbo")
    with pytest.raises(InputError, match="chain is 'magic'; choose one of guided, ding, published_v1, published_v2"):
        RefineConfig(chain="magic")
    with pytest.raises(InputError, match="steps is 0"):
        RefineConfig(steps=0)
    prior = smooth_prior(IMAGENET)
    whole = Observation(torch.zeros(1, SIDE**2, dtype=torch.float64), Linear(torch.eye(SIDE**2)), 0.1)
    with pytest.raises(InputError, match="pictures with a mask, not for Linear"):
        fit_posterior(prior, whole, FitConfig.published_v2(), generator=seeded())
