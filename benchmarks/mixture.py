"""Modes and their weights: the 25-component mixture seen through one or two measurements.

    python -m benchmarks.mixture                # seeds 2000 to 2019, the figures of docs/results.md
    python -m benchmarks.mixture --seeds 4      # a quick look

The protocol of MCGdiff (Cardoso et al. 2023, section 4) in 8 dimensions with 1 measurement and 80 with 2: 1000
samples of every method against 1000 exact ones, sliced W1 with 2000 directions. Nothing can beat the row of exact
samples. The same problems and directions for every method, so differences are paired.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from tqdm import tqdm

from benchmarks.gaussian import Method, exact, sampler, vipaint
from benchmarks.problems import mixture_problem
from benchmarks.report import Report, arguments, draw_intervals, interval
from vipaint_ops import FitConfig, RefineConfig
from vipaint_ops.metrics import sliced_wasserstein
from vipaint_ops.samplers import DPSConfig, KalmanConfig, dps, kalman

COUNT = 1000
PROBLEMS = ((8, 1), (80, 2))
DPS_SCALES = (0.1, 0.5, 1.0)

REFINE = RefineConfig(batch_size=COUNT)
METHODS: dict[str, Method] = {
    "exact samples": exact,
    "VIPaint": vipaint(FitConfig(), REFINE),
    "VIPaint, 0 iterations": vipaint(FitConfig(iterations=0), REFINE),
    "Kalman, 20 steps": sampler(kalman, KalmanConfig(steps=20, batch_size=COUNT)),
} | {
    f"DPS, 1000 steps, scale {scale:g}": sampler(dps, DPSConfig(steps=1000, scale=scale, batch_size=COUNT))
    for scale in DPS_SCALES
}


def measure(method: str, dimension: int, measurements: int, seed: int) -> tuple[float, float]:
    """Sliced W1 to exact samples, infinite where samples diverged, and evaluations a sample."""
    prior, observation, posterior = mixture_problem(dimension, measurements, seed)
    samples, evaluations = METHODS[method](prior, observation, COUNT, torch.Generator().manual_seed(seed + 10**6))
    reference = posterior.sample(COUNT, torch.Generator().manual_seed(seed + 2 * 10**6))
    directions = torch.Generator().manual_seed(0)
    distance = sliced_wasserstein(samples, reference, 2000, generator=directions)
    return distance if math.isfinite(distance) else math.inf, evaluations / COUNT


def main() -> None:
    options = arguments(__doc__, 2000, 20, list(METHODS))
    methods = options.methods
    title = f"25-component mixture (dimension, measurements), sliced W1, {COUNT} samples"
    report = Report("mixture", title, options.seeds, options.out)
    results: dict[str, dict[str, list[tuple[float, float]]]] = {}
    progress = tqdm(total=len(PROBLEMS) * len(methods) * len(options.seeds))
    for problem in PROBLEMS:
        runs = results[str(problem)] = {method: [] for method in methods}
        for method, seed in product(methods, options.seeds):
            runs[method].append(measure(method, *problem, seed))
            progress.update()
    progress.close()
    distances = {p: {m: [d for d, _ in runs[m]] for m in methods} for p, runs in results.items()}
    costs = {p: {m: f"{interval([c for _, c in runs[m]]).mean:.0f}" for m in methods} for p, runs in results.items()}
    summary = {p: {m: interval(d) for m, d in rows.items()} for p, rows in distances.items()}
    heads = [head for p in results for head in (f"W1 {p}", "evaluations/sample")]
    report.table(
        ["method", *heads], [[m, *(c for p in results for c in (summary[p][m], costs[p][m]))] for m in methods]
    )
    rivals = [m for m in methods if m not in ("exact samples", "VIPaint")]
    differences = {
        p: {r: interval([a - b for a, b in zip(rows["VIPaint"], rows[r], strict=True)]) for r in rivals}
        for p, rows in distances.items()
    }
    report.say("## W1 of VIPaint minus that of another method on the same seed: negative where VIPaint is better")
    report.table(["other method", *results], [[r, *(differences[p][r] for p in results)] for r in rivals])
    for axes, problem in zip(report.panels(len(results), 5.0), results, strict=True):
        draw_intervals(axes, f"{problem}: sliced W1", summary[problem], summary[problem]["exact samples"].mean)
    report.write(results)


if __name__ == "__main__":
    main()
