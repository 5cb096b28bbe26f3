"""Layouts of a hole on a closed-form family: samples compared with exact ones.

    python -m benchmarks.layouts              # four problems, 20 seeds: about 20 minutes on two cores
    python -m benchmarks.layouts --seeds 2    # a first look

The prior has 8 or 64 layouts on 16 x 16 pixels that differ in four observed pixels (``LayoutsPrior`` of
benchmarks/problems.py), seen through a known decoder that is not linear. Figures, of 64 samples: the energy distance of
the hidden pixels to 256 exact samples (unbiased, 0 for the posterior), and the total variation between the layouts of
the samples and the exact p(layout | y). Runs are stored in ``--work`` and are not repeated.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import systems
from benchmarks.problems import FLOW, SCHEDULES, LayoutsPrior, layouts_problem
from benchmarks.report import RESULTS, Figures, Report, Store, draw_intervals, paired
from benchmarks.systems import Sampler, VIPaint
from vipaint_ops import PRESETS, Evaluations, Observation
from vipaint_ops.evaluation.metrics import energy_distance

PROBLEMS = {
    f"{count} layouts{name}": (count, schedule)
    for (name, schedule), count in product((("", "variance-preserving"), (", flow", FLOW)), (8, 64))
}
LAYOUTS, SAMPLES, FIRST_SEED = PRESETS["layouts"], 64, 500
EXACT, REFERENCE = "exact samples", "VIPaint, layouts"
METHODS: dict[str, VIPaint | Sampler] = {
    REFERENCE: VIPaint(replace(LAYOUTS.fit, components=32), LAYOUTS.refine),
    "VIPaint, layouts, 0 iterations": VIPaint(replace(LAYOUTS.fit, components=32, iterations=0), LAYOUTS.refine),
    **{name: systems.METHODS[name] for name in ("VIPaint", "VIPaint, fast", "DInG", "LanPaint")},
}


def total_variation(prior: LayoutsPrior, observation: Observation, samples: Tensor, weights: Tensor) -> float:
    """Between the layouts next to the hidden pixels of ``samples`` and ``weights``."""
    hidden = ~observation.observed.flatten()
    apart = torch.cdist(samples.flatten(1)[:, hidden], prior.decode(prior.means).flatten(1)[:, hidden])
    shares = torch.bincount(apart.argmin(1), minlength=len(weights)) / len(samples)
    return 0.5 * (shares - weights).abs().sum().item()


def measure(problem: str, method: str, seed: int) -> Figures:
    """Distance, total variation and evaluations a sample."""
    count, schedule = PROBLEMS[problem]
    prior, observation = layouts_problem(count, seed, SCHEDULES[schedule])
    generator = torch.Generator().manual_seed(seed + 10**6)
    if method == EXACT:
        samples, spent = prior.restorations(observation, SAMPLES, generator), Evaluations()
    else:
        samples, spent = METHODS[method].in_batches(SAMPLES)(prior, observation, SAMPLES, generator)
    true = prior.restorations(observation, 256, torch.Generator().manual_seed(seed + 2 * 10**6))
    figures = {
        "distance": energy_distance(samples, true, observation.observed.to(true.dtype)),
        "layouts": total_variation(prior, observation, samples, prior.layout_weights(observation)),
    }
    return figures | systems.costs(spent, SAMPLES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help=f"how many, from {FIRST_SEED} on (default 20)")
    parser.add_argument("--work", type=Path, default=Path("build/layouts"), help="folder of the stored runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables, the raw numbers and the plot")
    options = parser.parse_args()
    store, methods = Store(options.work), [EXACT, *METHODS]
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    for problem, method, seed in product(PROBLEMS, methods, seeds):
        if str(seed) not in store.read(problem, method):
            store.add(problem, method, seed, measure(problem, method, seed))
    report = Report("layouts", "Layouts against exact posteriors", seeds, options.out)
    for figure in ("distance", "layouts"):
        report.say(f"## {figure}; denoiser evaluations a sample in brackets")
        rows = []
        for method in methods:
            found = [store.intervals(problem, method) for problem in PROBLEMS]
            rows.append([method, *(f"{one[figure]} ({one['evaluations'].mean:.0f})" for one in found)])
        report.table(["method", *PROBLEMS], rows)
    for rival in METHODS:
        paired(report, store, list(PROBLEMS), (REFERENCE, rival), "distance")
    for axes, problem in zip(report.panels(len(PROBLEMS)), PROBLEMS, strict=True):
        draw_intervals(axes, f"{problem}: distance", {m: store.intervals(problem, m)["distance"] for m in methods})
    report.write({problem: {m: store.read(problem, m) for m in methods} for problem in PROBLEMS})


if __name__ == "__main__":
    main()
