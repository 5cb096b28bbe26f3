"""Samples against the exact posterior of an image-like Gaussian prior, on the hidden pixels.

    python -m benchmarks.gaussian               # seeds 100 to 107, the figures of docs/results.md
    python -m benchmarks.gaussian --seeds 2     # a quick look

Power-law prior on 16 x 16 pixels of standard deviation 0.5, noise 0.05, half and box masks, a variance-preserving
schedule and rectified flow, 200 samples a problem. No setting was tuned on these seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.problems import inpainting_problem, power_law_prior
from benchmarks.report import Interval, Report, arguments, draw_intervals, interval
from vipaint_ops import FitConfig, NoiseSchedule, Observation, RefineConfig, fit_posterior, sample_posterior
from vipaint_ops.analytic import GaussianMixturePrior
from vipaint_ops.guidance import GuidanceConfig
from vipaint_ops.metrics import moment_errors, sliced_wasserstein
from vipaint_ops.samplers import DPSConfig, KalmanConfig, dps, kalman

COUNT = 200
NOISE_STD = 0.05
MEAN_TARGET, SPREAD_TARGET, COST_TARGET = 0.10, 0.06, 160
SCHEDULES = {
    "variance-preserving": NoiseSchedule.scaled_linear(0.0015, 0.0195),
    "rectified flow": NoiseSchedule.rectified_flow(),
}

Method = Callable[[GaussianMixturePrior, Observation, int, torch.Generator], tuple[Tensor, int]]
"""So many latents, and the denoiser evaluations they cost, a fit included."""


def vipaint(config: FitConfig, refine: RefineConfig) -> Method:
    def run(prior, observation, count, generator):
        posterior = fit_posterior(prior, observation, config, generator=generator)
        result = sample_posterior(prior, observation, posterior, count, refine, generator=generator)
        return result.latents, (posterior.evaluations + result.evaluations).denoiser

    return run


def sampler(function, config) -> Method:
    def run(prior, observation, count, generator):
        result = function(prior, observation, count, config, generator=generator)
        return result.latents, result.evaluations.denoiser

    return run


def exact(prior, observation, count, generator):
    return prior.posterior(observation).sample(count, generator), 0


REFINE = RefineConfig(batch_size=COUNT)
PSEUDO_INVERSE = RefineConfig(guidance="pseudo_inverse", steps=50, batch_size=COUNT)
METHODS: dict[str, Method] = {
    "exact samples": exact,
    "VIPaint": vipaint(FitConfig(), REFINE),
    "VIPaint, 0 iterations": vipaint(FitConfig(iterations=0), REFINE),
    "VIPaint, pseudo-inverse, 50 steps": vipaint(FitConfig(), PSEUDO_INVERSE),
    "Kalman": sampler(kalman, KalmanConfig(batch_size=COUNT)),
    "Kalman, no spread": sampler(kalman, KalmanConfig(batch_size=COUNT, settings=GuidanceConfig(spread_iterations=0))),
    "DPS, 250 steps, scale 0.5": sampler(dps, DPSConfig(steps=250, scale=0.5, batch_size=COUNT)),
    "DPS, 250 steps, scale 1": sampler(dps, DPSConfig(steps=250, scale=1.0, batch_size=COUNT)),
}
FIGURES = ("mean error (posterior std)", "log-spread bias", "sliced W1", "evaluations/sample")


def measure(method: str, prior: GaussianMixturePrior, mask: str, seed: int) -> tuple[float, ...]:
    """:data:`FIGURES` of one run."""
    observation, posterior = inpainting_problem(prior, mask, NOISE_STD, torch.Generator().manual_seed(seed))
    samples, evaluations = METHODS[method](prior, observation, COUNT, torch.Generator().manual_seed(seed + 10**6))
    hidden = ~observation.observed.flatten()
    mean, covariance = posterior.moments()
    chosen = samples.flatten(1)[:, hidden]
    errors = moment_errors(chosen, mean[hidden], covariance.diagonal()[hidden].sqrt())
    directions = torch.Generator().manual_seed(0)
    reference = posterior.sample(COUNT, torch.Generator().manual_seed(seed + 2 * 10**6)).flatten(1)[:, hidden]
    distance = sliced_wasserstein(chosen, reference, generator=directions)
    return errors.mean, errors.log_std, distance, evaluations / COUNT


def main() -> None:
    options = arguments(__doc__, 100, 8)
    title = f"Image-like Gaussian prior, hidden pixels, {COUNT} samples against the exact posterior"
    report = Report("gaussian", title, options.seeds, options.out)
    problems = [(schedule, mask) for schedule in SCHEDULES for mask in ("half", "box")]
    progress = tqdm(total=len(problems) * len(METHODS) * len(options.seeds))
    runs: dict[tuple[str, str], dict[str, list[tuple[float, ...]]]] = {}
    for schedule, mask in problems:
        prior = power_law_prior(SCHEDULES[schedule])
        runs[schedule, mask] = {method: [] for method in METHODS}
        for method, seed in product(METHODS, options.seeds):
            runs[schedule, mask][method].append(measure(method, prior, mask, seed))
            progress.update()
    progress.close()
    summary = {p: {m: [interval(c) for c in zip(*v, strict=True)] for m, v in r.items()} for p, r in runs.items()}
    for (schedule, mask), results in summary.items():
        report.say(f"## {schedule}, {mask} mask")
        report.table(("method", *FIGURES), [(m, a, b, c, f"{d.mean:.0f}") for m, (a, b, c, d) in results.items()])
    report.say("\n".join(verdict(*problem, results["VIPaint"]) for problem, results in summary.items()))
    pooled = {
        method: [interval(c) for c in torch.tensor([runs[p][method] for p in problems]).mean(0).T.tolist()]
        for method in METHODS
    }
    left, right = report.panels(2, 5.0)
    draw_intervals(left, FIGURES[0] + ", all problems", {m: f[0] for m, f in pooled.items()}, MEAN_TARGET)
    bias = {m: f[1] for m, f in pooled.items()}
    draw_intervals(right, FIGURES[1] + ", all problems", bias, -SPREAD_TARGET, SPREAD_TARGET)
    right.set_yticklabels([])
    report.write({", ".join(problem): results for problem, results in runs.items()} | {"figures": FIGURES})


def verdict(schedule: str, mask: str, figures: list[Interval]) -> str:
    """One line on whether VIPaint reaches the targets."""
    mean, bias, _, cost = (figure.mean for figure in figures)
    met = mean <= MEAN_TARGET and abs(bias) <= SPREAD_TARGET and cost <= COST_TARGET
    return (
        f"- {schedule}, {mask}: VIPaint {'reaches' if met else 'misses'} mean error {mean:.3f} <= {MEAN_TARGET}, "
        f"|bias| {abs(bias):.3f} <= {SPREAD_TARGET}, {cost:.0f} <= {COST_TARGET} evaluations a sample"
    )


if __name__ == "__main__":
    main()
