"""Restoration of harder scenes (tools/streets.py): two houses, up to three suns, and signs.

    python -m benchmarks.streets    # trains a prior first, which is not shipped: an hour on one core

The figure is the energy distance of the hidden pixels to true completions (unbiased, 0 for the posterior). DInG and
LanPaint have the operations of 32 layouts whose fit is shared by 32 samples. Runs are stored in ``--work`` and are not
repeated.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import systems
from benchmarks.full_size import on_sd15
from benchmarks.report import RESULTS, Figures, Report, Store, draw_intervals, paired
from benchmarks.systems import Sampler, VIPaint
from benchmarks.tasks import HELD_OUT_SEED, MASK_NOISE, MASKS
from tools import scenes, streets, train_prior
from vipaint_ops import PRESETS, Observation, load_embedded_prior, operators
from vipaint_ops.diffusion.prior import DiffusionPrior
from vipaint_ops.evaluation import metrics

TASKS, REFERENCE = ("half", "box"), "VIPaint, 32 layouts"
TFLOP, LAYOUTS = 188, replace(PRESETS["layouts"].fit, components=32)
METHODS: dict[str, VIPaint | Sampler] = {
    REFERENCE: VIPaint(LAYOUTS, PRESETS["layouts"].refine),
    "VIPaint, 32 layouts, 0 iterations": VIPaint(replace(LAYOUTS, iterations=0), PRESETS["layouts"].refine),
    **{name: systems.METHODS[name] for name in ("VIPaint", "VIPaint, fast", "DInG", "LanPaint")},
}
COLUMNS = {"distance": "distance to true completions", "diversity": "pairwise distance", "tflop": "TFLOP/sample, SD1.5"}
PRIOR = Path("build/streets/prior.safetensors")
TRAINING = ("unpack", "autoencoder --resume --minutes 15 --rate 0.001", "denoiser --resume --minutes 30")
"""From the shipped prior on."""


def load_prior(path: Path) -> DiffusionPrior:
    """The prior of streets; trained if the file is missing."""
    if not path.exists():
        common = ["--scenes", "streets", "--count", "10000", "--work", str(path.parent)]
        for stage in (*TRAINING, f"export --out {path}"):
            train_prior.main([*stage.split(), *common])
    return load_embedded_prior(path)


@cache
def completions(task: str, scene: int) -> Tensor:
    """The street itself, then 32 true completions, ``[33, 3, 64, 64]``."""
    u = streets.draw_uniforms(scene + 1, np.random.default_rng(HELD_OUT_SEED))[-1:]
    visible = MASKS[task][0, 0].bool().numpy()
    agreeing = scenes.sample_agreeing(u, visible, 32, HELD_OUT_SEED, 300, render=streets.render)[0]
    return train_prior.to_unit(streets.render(np.concatenate([u, agreeing])))


def observed(task: str, scene: int) -> Observation:
    """The known pixels of a street."""
    mask = MASKS[task]
    return Observation(mask * completions(task, scene)[:1], operators.Inpainting(mask), MASK_NOISE)


@cache
def within_budget(method: str, prior: DiffusionPrior) -> VIPaint | Sampler:
    """The method; if it is a sampler, with the number of steps adapted to the budget on one street."""
    restore = METHODS[method]
    if isinstance(restore, VIPaint):
        return restore
    observation = observed("half", 0)
    return restore.within(TFLOP, prior, observation, on_sd15(restore, observation))


def draw(method: str, task: str, scene: int, count: int, prior: DiffusionPrior) -> tuple[Tensor, Figures]:
    """Samples of one street, and their costs a sample."""
    restore, observation = within_budget(method, prior), observed(task, scene)
    samples, spent = restore(prior, observation, count, torch.Generator().manual_seed(scene))
    tflop = on_sd15(restore, observation)(spent) / count
    return samples, systems.costs(spent, count) | {"tflop": tflop}


def run(options: argparse.Namespace, prior: DiffusionPrior, store: Store, method: str, task: str, scene: int) -> None:
    """Measure a method on one street, if that is not stored."""
    if str(scene) in store.read(task, method):
        return
    samples, costs = draw(method, task, scene, options.samples, prior)
    folder = options.work / "samples" / task / method
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(samples.half(), folder / f"{scene}.pt")
    true, samples = completions(task, scene)[1:], samples.clamp(-1, 1)
    distance = metrics.energy_distance(samples, true, MASKS[task])
    figures = {"distance": distance, "diversity": metrics.diversity(samples, MASKS[task])}
    store.add(task, method, scene, figures | costs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", type=Path, default=PRIOR, help="its file, which is trained if missing")
    parser.add_argument("--scenes", type=int, default=10, help="how many (default 10)")
    parser.add_argument("--first", type=int, default=0, help="the first scene (default 0)")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--tasks", nargs="*", default=TASKS, choices=TASKS, metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS, metavar="METHOD")
    parser.add_argument("--work", type=Path, default=Path("build/streets/runs"), help="folder of the stored runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables, the raw numbers and the plot")
    options = parser.parse_args()
    prior, store, methods = load_prior(options.prior), Store(options.work), options.methods
    numbers = range(options.first, options.first + options.scenes)
    for scene, task, method in product(numbers, options.tasks, methods):
        run(options, prior, store, method, task, scene)
    report = Report("streets", f"Restoration of streets, {options.samples} samples each", numbers, options.out)
    for task in options.tasks:
        report.say(f"## {task}")
        found = {method: store.intervals(task, method) for method in methods}
        report.table(
            ["method", *COLUMNS.values()],
            [[method, *(str(one.get(name, "")) for name in COLUMNS)] for method, one in found.items()],
        )
    for rival in methods:
        paired(report, store, options.tasks, (REFERENCE, rival), "distance")
        paired(report, store, options.tasks, ("VIPaint, fast", rival), "distance")
    for axes, task in zip(report.panels(len(options.tasks)), options.tasks, strict=True):
        draw_intervals(axes, f"{task}: distance", {m: store.intervals(task, m)["distance"] for m in methods})
    report.write({task: {m: store.read(task, m) for m in methods} for task in options.tasks})


if __name__ == "__main__":
    main()
