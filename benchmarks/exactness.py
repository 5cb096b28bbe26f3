"""Samples compared with exact posteriors, for mixtures and image-like priors.

    python -m benchmarks.exactness              # everything at 20 seeds: hours on two cores
    python -m benchmarks.exactness --quick      # four problems, two seeds, the fast methods: under five minutes
    python -m benchmarks.exactness --problems "mixture (8, 1)" --methods VIPaint Kalman

Mixtures follow MCGdiff (Cardoso et al. 2023, section 4): 25 components in 8, 80 and 800 dimensions, with 1, 2 and 4
measurements. The figure is the sliced W1 with 2000 directions between 1000 samples of a method and 1000 exact samples.
The row of exact samples is the lower limit. Image-like priors have 16 x 16 pixels of standard deviation 0.5 and noise
0.05. The figures are the errors of the marginal moments of the hidden pixels, from 200 samples. Runs are stored in
``--work`` and are not repeated. No setting was tuned on these seeds.
"""

from __future__ import annotations

import argparse
import math
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import systems
from benchmarks.problems import IMAGES, MIXTURES, Problem
from benchmarks.report import RESULTS, Figures, Interval, Report, Store, paired
from benchmarks.systems import Sampler, VIPaint
from vipaint_ops import Evaluations, FitConfig, InputError, RefineConfig, samplers
from vipaint_ops.evaluation.metrics import moment_errors, sliced_wasserstein

FIRST_SEED = {**dict.fromkeys(MIXTURES, 2000), **dict.fromkeys(IMAGES, 100)}
PARTICLES = RefineConfig(particles=32, steps=50)
METHODS: dict[str, VIPaint | Sampler] = {
    **systems.METHODS,
    "VIPaint, 50 iterations": VIPaint(FitConfig(iterations=50, bound_every=0)),
    "VIPaint, 32 particles": VIPaint(FitConfig(), PARTICLES),
    **{
        f"VIPaint, 32 particles, {n} steps": VIPaint(FitConfig(), RefineConfig(particles=32, steps=n)) for n in (20, 29)
    },
    "VIPaint, 50 iterations, 32 particles": VIPaint(FitConfig(iterations=50, bound_every=0), PARTICLES),
    **{f"VIPaint, {n} components": VIPaint(FitConfig.several(n), RefineConfig(steps=12)) for n in (64, 256)},
    **systems.VARIANTS,
    "Kalman, 8 particles": Sampler(samplers.kalman, samplers.KalmanConfig(steps=50, particles=8)),
    **{
        f"Kalman, {size} particles, {n} steps": Sampler(samplers.kalman, samplers.KalmanConfig(steps=n, particles=size))
        for n, size in product((19, 20, 30), (250, 1000))
    },
    "Kalman, 32 particles": Sampler(samplers.kalman, samplers.KalmanConfig(steps=50, particles=32)),
    "DPS, scale 0.1": Sampler(samplers.dps, samplers.DPSConfig(scale=0.1)),
}
EXACT = "exact samples"
SLOW = ("CoPaint", "CoPaint-Fast", "CoPaint-TT", "DPS", "DPS, scale 0.1", "PSLD", "ReSample", "RePaint")
QUICK = ("mixture (8, 1)", "mixture (80, 2)", "Gaussian, half", "four modes, half")


def measure(problem: Problem, method: str, count: int, seed: int) -> Figures:
    """W1 to exact samples, errors of the mean (in posterior deviations) and of the log-spread, evaluations a sample."""
    prior, observation, posterior = problem
    generator = torch.Generator().manual_seed(seed + 10**6)
    if method == EXACT:
        samples, spent = posterior.sample(count, generator), Evaluations()
    else:
        samples, spent = METHODS[method].in_batches(count)(prior, observation, count, generator)
    reference = posterior.sample(count, torch.Generator().manual_seed(seed + 2 * 10**6))
    hidden = ~observation.observed.flatten()
    chosen = hidden if hidden.shape == posterior.means[0].flatten().shape and hidden.any() else slice(None)
    found, expected = samples.flatten(1)[:, chosen], reference.flatten(1)[:, chosen]
    mean, covariance = posterior.moments()
    errors = moment_errors(found, mean[chosen], covariance.diagonal()[chosen].sqrt())
    figures = {"w1": _distance(found, expected), "mean": errors.mean, "spread": errors.log_std}
    finite = {name: value if math.isfinite(value) else math.inf for name, value in figures.items()}
    return finite | systems.costs(spent, count)


def _distance(samples: Tensor, reference: Tensor) -> float:
    return sliced_wasserstein(samples, reference, 2000, generator=torch.Generator().manual_seed(0))


def run(problem: str, method: str, seeds: range, store: Store, progress: tqdm) -> None:
    """Measure the seeds missing in the store; skip a method that does not support the observation."""
    make, count = (MIXTURES | IMAGES)[problem], 1000 if problem in MIXTURES else 200
    for seed in seeds:
        progress.set_description(f"{problem}: {method}")
        if str(seed) not in store.read(problem, method):
            try:
                store.add(problem, method, seed, measure(make(seed), method, count, seed))
            except InputError as error:
                progress.write(f"{method} does not support {problem}: {error}")
                return
        progress.update()


def tables(report: Report, store: Store, problems: list[str], methods: list[str]) -> None:
    """One table of W1 for mixtures, one of moment errors for image-like priors."""
    for group, figures in ((MIXTURES, ["w1"]), (IMAGES, ["mean", "spread"])):
        if not (shown := [p for p in problems if p in group]):
            continue
        report.say(f"## {' and '.join(figures)}; denoiser evaluations a sample in brackets")
        rows = []
        for method in methods:
            found = {p: store.intervals(p, method) for p in shown}
            if any(found.values()):
                rows.append([method, *(_cell(found[p], figures) for p in shown)])
        report.table(["method", *shown], rows)


def _cell(found: dict[str, Interval], figures: list[str]) -> str:
    if not found:
        return ""
    return ", ".join(str(found[name]) for name in figures) + f" ({found['evaluations'].mean:.0f})"


def plot(report: Report, store: Store, problems: list[str], methods: list[str]) -> None:
    """Error against evaluations: W1 for mixtures, the error of the mean for image-like priors."""
    from matplotlib import colormaps

    methods = [m for m in methods if any(store.read(p, m) for p in problems)]
    colours = [colour for name in ("tab20", "tab20b", "tab20c") for colour in colormaps[name](range(20))]
    for axes, problem in zip(report.panels(len(problems)), problems, strict=True):
        figure = "w1" if problem in MIXTURES else "mean"
        for method, colour in zip(methods, colours, strict=False):
            if found := store.intervals(problem, method):
                cost, error = max(found["evaluations"].mean, 10), found[figure]
                axes.errorbar(cost, error.mean, error.half_width, None, "o", c=colour, ms=4, capsize=2, label=method)
        axes.legend(fontsize=5, frameon=False)
        axes.set(xscale="log", yscale="log", title=problem, xlabel="denoiser evaluations a sample", ylabel=figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*MIXTURES, *IMAGES]
    parser.add_argument("--seeds", type=int, default=20, help="how many, from 2000 (mixtures) or 100 on (default 20)")
    parser.add_argument("--first", type=int, help="the first seed of every problem")
    parser.add_argument("--problems", nargs="*", default=known, choices=known, metavar="PROBLEM", help=", ".join(known))
    parser.add_argument("--methods", nargs="*", default=[EXACT, *METHODS], choices=[EXACT, *METHODS], metavar="METHOD")
    parser.add_argument(
        "--quick", action="store_true", help="two seeds of four problems, without slow methods and variants"
    )
    parser.add_argument("--work", type=Path, default=Path("build/exactness"), help="folder of the stored runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables, the raw numbers and the plot")
    options = parser.parse_args()
    if options.quick:
        options.problems, options.seeds = list(QUICK), 2
        options.methods = [m for m in options.methods if m not in (*SLOW, *systems.VARIANTS)]
    store = Store(options.work)
    progress = tqdm(total=len(options.problems) * len(options.methods) * options.seeds, mininterval=5)
    for problem, method in product(options.problems, options.methods):
        first = FIRST_SEED[problem] if options.first is None else options.first
        seeds = range(first, first + options.seeds)
        run(problem, method, seeds, store, progress)
    progress.close()
    report = Report("exactness", "Samples against exact posteriors", range(options.seeds), options.out)
    tables(report, store, options.problems, options.methods)
    paired(report, store, options.problems, ("VIPaint", "Kalman"), "w1")
    paired(report, store, options.problems, ("VIPaint", "DPS"), "w1")
    paired(report, store, options.problems, ("VIPaint, 50 iterations, 32 particles", "VIPaint, 32 particles"), "w1")
    paired(report, store, options.problems, ("VIPaint, 256 components", "VIPaint"), "w1")
    paired(report, store, options.problems, ("VIPaint", "VIPaint, spread_eta 1.0"), "mean")
    plot(report, store, options.problems, options.methods)
    report.write({p: {m: store.read(p, m) for m in options.methods} for p in options.problems})


if __name__ == "__main__":
    main()
