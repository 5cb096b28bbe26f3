"""Costs of the library besides the networks: time, memory of a fit, and evaluations of a batch.

    python -m benchmarks.overhead               # seeds 0 to 2, the figures of docs/record.md
    python -m benchmarks.overhead --seeds 1     # a quick look

The prior is the embedded one, with a half mask and default settings. Networks are timed from input to output, forward
and backward. The rest of the time of a fit or sampling run is the library's. Peak memory is that of the process (Unix
only).
"""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Callable
from statistics import fmean
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.report import Report, arguments, interval
from tools import scenes
from vipaint_ops import (
    DiffusionPrior,
    Evaluations,
    FitConfig,
    HierarchicalPosterior,
    Observation,
    fit_posterior,
    load_embedded_prior,
    operators,
    sample_posterior,
)
from vipaint_ops.images.masks import half_plane

TARGET = 0.10
BATCH = 8
MEMORY_ITERATIONS = (10, 50, 100)


class _Mark(torch.autograd.Function):
    """The identity, with a call of ``report`` in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, report: Callable[[], None]) -> Tensor:
        ctx.report = report
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.report()
        return gradients[0], None


class TimedPrior:
    """A prior that sums the seconds inside its networks in ``seconds``, by network and direction."""

    def __init__(self, prior: DiffusionPrior):
        self._prior, self.seconds, self._began = prior, Counter[str](), 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._prior, name)

    def denoise(self, z: Tensor, t: Tensor) -> Tensor:
        return self._timed("denoiser", lambda v: self._prior.denoise(v, t), z)

    def decode(self, z0: Tensor) -> Tensor:
        return self._timed("decoder", self._prior.decode, z0)

    def encode(self, x: Tensor) -> Tensor:
        return self._timed("encoder", self._prior.encode, x)

    def _timed(self, network: str, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        x = _Mark.apply(x, lambda: self._stop(network + " backward"))
        self._start()
        y = function(x)
        self._stop(network + " forward")
        return _Mark.apply(y, self._start)

    def _start(self) -> None:
        self._began = perf_counter()

    def _stop(self, name: str) -> None:
        self.seconds[name] += perf_counter() - self._began


def problem(seed: int) -> Observation:
    """A scene with its right half hidden."""
    picture = torch.from_numpy(scenes.sample_scenes(1, 10**6 + seed)[0]).float() * 2 - 1
    mask = half_plane(64, 64, 0.0)
    return Observation(mask * picture, operators.Inpainting(mask), 0.02)


def timed(prior: DiffusionPrior, task: Callable[[TimedPrior], Any]) -> tuple[Any, dict[str, float]]:
    """The result of ``task``, and its seconds: in each network and direction, and outside."""
    watched = TimedPrior(prior)
    began = perf_counter()
    result = task(watched)
    whole = perf_counter() - began
    return result, dict(sorted(watched.seconds.items())) | {"outside": whole - watched.seconds.total()}


def mean_seconds(runs: dict[str, list[dict[str, float]]]) -> dict[str, list[float]]:
    """Mean seconds of each part (network and direction, or outside), in the order of ``runs``."""
    parts = dict.fromkeys(part for found in runs.values() for run in found for part in run)
    return {part: [fmean(run.get(part, 0.0) for run in found) for found in runs.values()] for part in parts}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def time_share(report: Report, prior: DiffusionPrior, seeds: range) -> dict[str, list[dict[str, float]]]:
    """Seconds of fits and of sampling runs; adds their table to the report."""
    runs: dict[str, list[dict[str, float]]] = {"fit": [], f"{BATCH} samples": []}
    for seed in tqdm(seeds):
        observation = problem(seed)
        posterior, seconds = timed(prior, lambda p: fit_posterior(p, observation, generator=seeded(seed)))  # noqa: B023
        runs["fit"].append(seconds)
        _, seconds = timed(
            prior,
            lambda p: sample_posterior(p, observation, posterior, BATCH, generator=seeded(seed)),  # noqa: B023
        )
        runs[f"{BATCH} samples"].append(seconds)
    parts = mean_seconds(runs)
    rows = []
    for (name, found), seconds in zip(runs.items(), zip(*parts.values(), strict=True), strict=True):
        overhead = interval([run["outside"] / (sum(run.values()) - run["outside"]) for run in found])
        met = "yes" if overhead.mean <= TARGET else "no"
        share = f"{100 * overhead.mean:.1f} ± {100 * overhead.half_width:.1f} %"
        rows.append([name, *(f"{value:.2f}" for value in seconds), share, met])
    report.say(f"## Seconds inside and outside the networks ({torch.get_num_threads()} threads)")
    report.table(["run", *parts, "added by the library", f"at most {100 * TARGET:.0f} %"], rows)
    return runs


def peak_memory(report: Report, prior: DiffusionPrior) -> dict[str, float]:
    """Peak resident MiB of the process after fits with an increasing number of iterations."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peaks = {}
    for iterations in MEMORY_ITERATIONS:
        fit_posterior(prior, problem(0), FitConfig(iterations=iterations), generator=seeded(0))
        peaks[str(iterations)] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    report.say("## Peak memory of the process after a fit")
    report.table(["iterations", "MiB"], [[name, f"{peak:.1f}"] for name, peak in peaks.items()])
    return peaks


def batch_cost(report: Report, prior: DiffusionPrior, posterior: HierarchicalPosterior) -> dict[str, dict[str, int]]:
    """Evaluations of one batch and of the same images drawn one by one."""
    observation = problem(0)
    batch = sample_posterior(prior, observation, posterior, BATCH, generator=seeded(0))
    singles = [sample_posterior(prior, observation, posterior, 1, generator=seeded(0), first=k) for k in range(BATCH)]
    found = {
        f"a batch of {BATCH}": vars(batch.evaluations),
        f"{BATCH} single samples": vars(sum((one.evaluations for one in singles), Evaluations())),
    }
    difference = (batch.images - torch.cat([one.images for one in singles])).abs().max().item()
    report.say("## Evaluations, in rows")
    heads = [name.replace("_", " ") for name in vars(batch.evaluations)]
    report.table(["", *heads], [[name, *counts.values()] for name, counts in found.items()])
    report.say(f"Largest difference between their pictures, of a range of 2: {difference:.1e}.")
    return found


def main() -> None:
    options = arguments(__doc__, 0, 3)
    report = Report("overhead", "Time, memory and evaluations besides the networks", options.seeds, options.out)
    prior = load_embedded_prior()
    memory = peak_memory(report, prior)
    runs = time_share(report, prior, options.seeds)
    posterior = fit_posterior(prior, problem(0), FitConfig(iterations=0), generator=seeded(0))
    counts = batch_cost(report, prior, posterior)
    time, space = report.panels(2, 4.6, 2.6)
    start = [0.0] * len(runs)
    for part, seconds in mean_seconds(runs).items():
        time.barh(list(runs), seconds, left=start, label=part)
        start = [a + b for a, b in zip(start, seconds, strict=True)]
    time.set_title("seconds", loc="left", fontsize=9)
    time.legend(fontsize=7, frameon=False)
    space.plot(MEMORY_ITERATIONS, list(memory.values()), marker="o")
    space.set_ylim(0, 1.2 * max(memory.values()))
    space.set_title("peak memory, MiB", loc="left", fontsize=9)
    space.set_xlabel("iterations of the fit")
    report.write({"seconds": runs, "peak MiB": memory, "evaluations": counts})


if __name__ == "__main__":
    main()
