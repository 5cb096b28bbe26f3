"""The fit: it climbs the bound, repeats, costs what it says, and leaves the prior and the caller as they were."""

import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.problems import inpainting_problem, power_law_prior
from tests.ops.gaussian_chain import DOUBLE, FLOW, VP, bound, draw, gaussian
from vipaint_ops import FitConfig, InputError, NoiseSchedule, Observation, fit_posterior, operators
from vipaint_ops.inference.corrections import Kalman

SHORT = FitConfig(iterations=12, samples=2, start_chains=3, start_steps=3)
both_schedules = pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def observe(prior, kind: str = "matrix") -> Observation:
    """An observation of any prior of eight latents."""
    if kind == "matrix":
        matrix = draw(5, 8, seed=5)
        return Observation(draw(1, 5, seed=4), operators.Linear(matrix, prior.latent_shape), 0.3)
    return Observation(draw(1, *prior.latent_shape, seed=4), operators.Inpainting(torch.ones(1)), 0.3)


def fit(prior, observation, config: FitConfig = SHORT, seed: int = 0, callback=None):
    return fit_posterior(prior, observation, config, generator=seeded(seed), callback=callback)


def same(first, second) -> bool:
    parameters = all(torch.equal(getattr(first, n), getattr(second, n)) for n in ("means", "log_stds", "gates"))
    return parameters and first.times == second.times and first.history == second.history


class TinyNetwork(nn.Module):
    """A prior made of a network with weights that would take gradients."""

    schedule, latent_shape, identity, data_std = VP, (8,), "tiny network", 1.0
    device, dtype = torch.device("cpu"), DOUBLE

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(9, 16), nn.Tanh(), nn.Linear(16, 8)).to(DOUBLE)
        self.decoder = nn.Linear(8, 8).to(DOUBLE)
        self.graphs: weakref.WeakSet = weakref.WeakSet()

    def denoise(self, z, t):
        out = self.schedule.alpha(t)[:, None] * z + 0.1 * self.body(torch.cat([z, t[:, None]], 1))
        if out.requires_grad:
            token = type("Graph", (), {})()
            self.graphs.add(token)
            out.register_hook(lambda _, token=token: None)  # lives as long as the graph does
        return out

    def decode(self, z0):
        return self.decoder(z0)

    def encode(self, x):
        return x


@pytest.mark.parametrize(("schedule", "mask"), [(VP, "half"), (FLOW, "box")], ids=["vp-half", "flow-box"])
def test_the_bound_rises_over_every_ten_iterations(schedule, mask):
    """Over the same draws at every look, averaged over seeds."""
    prior = power_law_prior(schedule, side=8)
    problems = [inpainting_problem(prior, mask, 0.05, seeded(seed))[0] for seed in range(3)]
    looks = []
    for iterations in range(0, 60, 10):
        config = FitConfig(iterations=iterations, bound_every=0)
        fits = [fit(prior, observation, config, seed) for seed, observation in enumerate(problems)]
        values = [bound(prior, o, q, 400)[0] for o, q in zip(problems, fits, strict=True)]
        looks.append(torch.stack(values).mean())
    assert (torch.stack(looks).diff() > 0).all()


@both_schedules
@pytest.mark.parametrize("shape", [(8,), (2, 4), (2, 2, 2), (1, 2, 2, 2)])
def test_any_rank_of_latent_is_fitted(schedule, shape):
    prior = gaussian(schedule, shape)
    observation = observe(prior)
    start, fitted = (fit(prior, observation, FitConfig(iterations=n, bound_every=0)) for n in (0, 60))
    assert fitted.means.shape == fitted.log_stds.shape == fitted.gates.shape == (2, *shape)
    assert bound(prior, observation, fitted, 400)[0] > bound(prior, observation, start, 400)[0]


@pytest.mark.parametrize("keypoints", [(0.7,), (0.8, 0.6, 0.5, 0.4)])
def test_any_number_of_keypoints_is_fitted(keypoints):
    prior = gaussian()
    observation = observe(prior)
    configs = [FitConfig(keypoints, iterations=n, bound_every=0) for n in (0, 60)]
    start, fitted = (fit(prior, observation, config) for config in configs)
    assert fitted.times == keypoints
    assert len(fitted.means) == len(keypoints)
    assert bound(prior, observation, fitted, 400)[0] > bound(prior, observation, start, 400)[0]


def test_the_rank_does_not_change_the_fit():
    flat, folded = gaussian(shape=(8,)), gaussian(shape=(2, 2, 2))
    folded = type(flat)(flat.weights, flat.means.view(1, 2, 2, 2), flat.covariances, VP)
    config = FitConfig(decoder="exact")  # a linear decoder needs cells
    first, second = fit(flat, observe(flat), config), fit(folded, observe(folded), config)
    torch.testing.assert_close(first.means, second.means.flatten(1))
    torch.testing.assert_close(first.log_stds, second.log_stds.flatten(1))


def test_a_seed_repeats_bit_by_bit_and_another_does_not():
    prior = gaussian()
    observation = observe(prior)
    assert same(fit(prior, observation), fit(prior, observation))
    assert not same(fit(prior, observation), fit(prior, observation, seed=1))


def test_the_generator_moves_on_between_fits():
    prior, generator = gaussian(), seeded()
    first, second = (fit_posterior(prior, observe(prior), SHORT, generator=generator) for _ in range(2))
    assert not same(first, second)


def test_looking_at_the_bound_does_not_change_the_fit():
    prior = gaussian()
    looked, blind = (fit(prior, observe(prior), replace(SHORT, bound_every=n)) for n in (3, 0))
    assert torch.equal(looked.means, blind.means)
    assert torch.equal(looked.gates, blind.gates)


def test_no_iterations_keep_the_start():
    prior = gaussian()
    start = fit(prior, observe(prior), replace(SHORT, iterations=0))
    still = fit(prior, observe(prior), replace(SHORT, mean_rate=0.0, log_std_rate=0.0, gate_rate=0.0))
    assert torch.equal(start.means, still.means)
    assert torch.equal(start.log_stds, still.log_stds)
    assert start.history == []
    assert len(still.history) == SHORT.iterations


@both_schedules
def test_ratios_place_keypoints_by_noise_level(schedule):
    prior = gaussian(schedule)
    by_ratio = fit(prior, observe(prior), replace(SHORT, keypoint_ratios=(5.0, 2.0, 1.0)))
    ratios = [schedule.sigma(t) / (schedule.alpha(t) * prior.data_std) for t in by_ratio.times]
    assert ratios == pytest.approx([5, 2, 1])
    assert same(by_ratio, fit(prior, observe(prior), replace(SHORT, keypoints=by_ratio.times)))


def test_levels_matter_and_the_clock_does_not():
    """Two flows of other shifts are one process: keypoints of equal noise give equal fits."""
    first, second = (gaussian(NoiseSchedule.rectified_flow(shift)) for shift in (1.0, 3.0))
    one, other = fit(first, observe(first)), fit(second, observe(second))
    assert one.times != other.times
    torch.testing.assert_close(one.means, other.means, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("keypoints", [(0.4, 0.6), (0.5, 0.5), (1.2, 0.5), (0.5, 0.0), ()])
def test_keypoints_out_of_order_are_refused(keypoints):
    with pytest.raises(InputError, match="keypoints"):
        FitConfig(keypoints=keypoints)


@pytest.mark.parametrize(
    "setting",
    [
        {"iterations": -1},
        {"samples": 0},
        {"start_chains": 0},
        {"start_chains": 1},  # has no variance
        {"start_steps": 0},
        {"eta": 0.0},  # has no density
        {"eta": 1.5},
        {"keypoint_ratios": ()},
        {"keypoint_ratios": (1.0, 2.0)},
        {"keypoint_ratios": (1.0, 0.0)},
    ],
    ids=str,
)
def test_settings_without_a_meaning_are_refused(setting):
    prior = gaussian()
    with pytest.raises(InputError):
        fit(prior, observe(prior), replace(FitConfig(), **setting))


@pytest.mark.parametrize("outside", [torch.enable_grad, torch.no_grad])
def test_the_network_is_left_as_it_was(outside):
    prior = TinyNetwork()
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    with outside():
        was = torch.is_grad_enabled()
        posterior = fit(prior, observe(prior))
        assert torch.is_grad_enabled() == was
    assert all(p.grad is None and p.requires_grad for p in prior.parameters())
    assert all(torch.equal(before[name], value) for name, value in prior.state_dict().items())
    assert same(posterior, fit(prior, observe(prior)))


def test_a_network_without_gradients_of_its_own_is_fitted_alike():
    live, frozen = TinyNetwork(), TinyNetwork().requires_grad_(False)
    assert same(fit(live, observe(live)), fit(frozen, observe(frozen)))


@pytest.mark.parametrize("kind", ["matrix", "mask"])
def test_checkpointing_changes_memory_and_not_the_fit(kind):
    prior = TinyNetwork()
    plain = fit(prior, observe(prior, kind))
    saving = fit(prior, observe(prior, kind), replace(SHORT, checkpointing=True))
    for name in ("means", "log_stds", "gates"):
        torch.testing.assert_close(getattr(plain, name), getattr(saving, name), rtol=1e-12, atol=1e-12)
    assert plain.evaluations == saving.evaluations


def test_no_graph_outlives_its_iteration():
    prior, alive = TinyNetwork(), {"start": [], "fit": []}
    posterior = fit(prior, observe(prior), callback=lambda p: alive[p.stage].append(len(prior.graphs)))
    assert len(set(alive["start"])) == 1
    assert alive["start"][0] <= 1
    assert len(set(alive["fit"])) == 1
    assert alive["fit"][0] <= len(posterior.times)
    assert len(prior.graphs) == 0
    assert not any(getattr(posterior, n).requires_grad for n in ("means", "log_stds", "gates"))
    assert all(type(value) is float for record in posterior.history for value in record.values())


@pytest.mark.parametrize("stage", ["start", "fit"])
def test_an_interrupt_passes_through_and_leaves_nothing_behind(stage):
    prior = TinyNetwork()

    def stop(progress):
        if (progress.stage, progress.step) == (stage, 2):
            raise KeyboardInterrupt

    whole = fit(prior, observe(prior))
    for outside in (torch.enable_grad, torch.no_grad):
        with outside():
            was = torch.is_grad_enabled()
            with pytest.raises(KeyboardInterrupt):
                fit(prior, observe(prior), callback=stop)
            assert torch.is_grad_enabled() == was
    assert all(p.grad is None and p.requires_grad for p in prior.parameters())
    assert len(prior.graphs) == 0
    assert same(fit(prior, observe(prior)), whole)


def test_the_callback_sees_every_iteration():
    prior, seen = gaussian(), []
    posterior = fit(prior, observe(prior), replace(SHORT, bound_every=4), callback=seen.append)
    start = SHORT.start_steps
    wanted = [("start", i + 1, start) for i in range(start)] + [("fit", i + 1, 12) for i in range(12)]
    assert [(p.stage, p.step, p.total) for p in seen] == wanted
    assert [p.terms for p in seen[start:]] == posterior.history
    assert all(r["loss"] == pytest.approx(r["likelihood"] + r["transitions"] + r["top"]) for r in posterior.history)
    assert ["bound" in record for record in posterior.history] == [i % 4 == 3 for i in range(12)]


def test_the_recorded_bound_is_an_estimate_of_the_bound():
    prior = gaussian()
    config = FitConfig(iterations=1, samples=4000, bound_every=1, mean_rate=0.0, log_std_rate=0.0, gate_rate=0.0)
    posterior = fit(prior, observe(prior), config)
    exact, error = bound(prior, observe(prior), posterior, 4000)
    assert posterior.history[0]["bound"] == pytest.approx(exact.item(), abs=10 * error.item())


@pytest.mark.parametrize("keypoints", [(0.7,), (0.7, 0.5), (0.8, 0.7, 0.5)])
def test_evaluations_are_counted_by_the_row(keypoints):
    """The start: Kalman steps and a prediction a keypoint. An iteration: a prediction a walk and keypoint."""
    prior, guided, points = gaussian(), Kalman(), 8
    config = replace(SHORT, keypoints=keypoints, bound_every=6, guidance=guided)
    cost = fit(prior, observe(prior), config).evaluations
    start, walks = config.start_chains * config.start_steps, config.iterations * config.samples * len(keypoints)
    looks = 2 * points * config.samples
    matching = config.start_chains * (len(keypoints) - 1)
    assert cost.denoiser_forward == start + matching + walks + looks
    assert cost.condition_forward == start * (guided.solver_iterations + guided.spread_iterations)
    assert cost.denoiser_backward == walks
    assert cost.denoiser == cost.denoiser_forward + cost.denoiser_backward + cost.condition_forward


def test_a_posterior_says_what_it_was_fitted_to():
    prior = gaussian()
    posterior = fit(prior, observe(prior))
    posterior.check(prior)
    assert posterior.metadata["iterations"] == "12"
    assert posterior.metadata["noise_std"] == "0.3"
    with pytest.raises(InputError):
        posterior.check(gaussian(FLOW))


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("components", [1, 2])
def test_batches_of_chains_and_walks_change_nothing_but_memory(batch_size, components):
    prior = TinyNetwork()
    observation = observe(prior, "mask") if components > 1 else observe(prior)
    config = replace(SHORT, iterations=3, samples=4, start_chains=5, components=components)
    whole, parts = (fit(prior, observation, replace(config, batch_size=size)) for size in (8, batch_size))
    for name in ("means", "log_stds", "gates"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))
    assert parts.evaluations == whole.evaluations
    for record, expected in zip(parts.history, whole.history, strict=True):
        assert record == pytest.approx(expected)
