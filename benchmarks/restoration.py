"""Restorations of held-out scenes with the embedded prior: masks, blurs and reduced resolution, every method.

    python -m benchmarks.restoration             # 8 tasks, 64 scenes, 8 samples, every method: days on two cores
    python -m benchmarks.restoration --tasks half box --scenes 8 --methods VIPaint CoPaint --budget 290
    python -m benchmarks.restoration --tasks "bicubic x4" --scenes 8 --methods VIPaint Wiener pseudo-inverse

Known pixels of a mask are clean; the noise level given to the methods is 0.02, the autoencoder's error. Measurements
through any other operator have noise 0.05. For masks, samples are compared with 64 true completions of the visible
pixels by the energy distance of the hidden pixels, which is unbiased and 0 for the posterior itself. Each scene is
stored in ``--work`` with its samples and is not repeated.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import systems
from benchmarks.full_size import on_sd15
from benchmarks.memory import with_peak
from benchmarks.report import RESULTS, Figures, Report, Store, draw_intervals, paired
from benchmarks.systems import Sampler, VIPaint
from benchmarks.tasks import MASK_FIGURES, MASKS, OPERATOR_FIGURES, TASKS, Case, autoencoded
from vipaint_ops import PRESETS, Evaluations, FitConfig, InputError, Observation, RefineConfig, load_embedded_prior
from vipaint_ops.inference.corrections import DPS, PseudoInverse

DEFAULT, LAYOUTS = FitConfig(), PRESETS["layouts"]
METHODS: dict[str, VIPaint | Sampler] = {
    **systems.METHODS,
    **{f"VIPaint, {n} iterations": VIPaint(replace(DEFAULT, iterations=n, bound_every=0)) for n in (25, 50, 100)},
    "VIPaint, 8 components": VIPaint(FitConfig.several(8), RefineConfig(steps=12)),
    "VIPaint, layouts, 0 iterations": VIPaint(replace(LAYOUTS.fit, iterations=0), LAYOUTS.refine),
    "VIPaint, 32 layouts": VIPaint(FitConfig.layouts(32), LAYOUTS.refine),
    "VIPaint, 16 steps": VIPaint(DEFAULT, RefineConfig(steps=16)),
    "VIPaint, DInG's transitions": VIPaint(PRESETS["fast"].fit, replace(LAYOUTS.refine, steps=26)),
    "VIPaint, 1 attempt": VIPaint(DEFAULT, RefineConfig(attempts=1)),
    **systems.VARIANTS,
    "VIPaint, 1 keypoint": VIPaint(replace(DEFAULT, keypoint_ratios=(8.0,))),
    "VIPaint, 4 keypoints": VIPaint(replace(DEFAULT, keypoint_ratios=(13.0, 11.0, 9.5, 8.0))),
    "VIPaint, pseudo-inverse": VIPaint(DEFAULT, RefineConfig(guidance=PseudoInverse())),
    "VIPaint, DPS": VIPaint(DEFAULT, RefineConfig(guidance=DPS(), steps=100)),
    "VIPaint, 8 particles": VIPaint(DEFAULT, RefineConfig(particles=8)),
}
TRUE, AUTOENCODED = "true completions", "true completions, autoencoded"


def pseudo_inverse(observation: Observation) -> Tensor:
    """A^+ y."""
    return observation.operator.pinv(observation.y)


def wiener(observation: Observation, iterations: int = 200, variance: float = 0.25) -> Tensor:
    """A^T (A A^T + noise / variance)^-1 y, the linear estimate under white pixels, by conjugate gradients."""
    operator, y = observation.operator, observation.y
    ratio = observation.noise_std**2 / variance
    u, residual = torch.zeros_like(y), y
    direction, size = residual, residual.square().sum()
    for _ in range(iterations):
        if size <= 1e-10 * y.square().sum():
            break
        image = operator(operator.adjoint(direction)) + ratio * direction
        step = size / (direction * image).sum()
        u, residual = u + step * direction, residual - step * image
        before, size = size, residual.square().sum()
        direction = residual + size / before * direction
    return operator.adjoint(u)


LINEAR = {"pseudo-inverse": pseudo_inverse, "Wiener": wiener}
COSTS = {
    "evaluations": "denoiser/sample",
    "decoder": "decoder/sample",
    "encoder": "encoder/sample",
    "tflop": "TFLOP/sample, SD1.5 512",
    "seconds": "s/sample",
    "memory": "peak MiB",
}
"""Evaluations of each network, operations at full size, time and memory."""
ALL = [TRUE, AUTOENCODED, *LINEAR, *METHODS]


def draw(case: Case, method: str, count: int, restore: VIPaint | Sampler | None) -> tuple[Tensor, Evaluations]:
    """Samples of one scene, and the evaluations of all of them."""
    if restore:
        generator = torch.Generator().manual_seed(case.scene)
        return restore(load_embedded_prior(), case.observation, count, generator)
    if method in LINEAR:
        return LINEAR[method](case.observation), Evaluations()
    true = case.completions(count, seed=4)
    return autoencoded(true) if method == AUTOENCODED else true, Evaluations()


def measure(case: Case, method: str, count: int, restore: VIPaint | Sampler | None) -> tuple[Tensor, Figures]:
    """Samples of one scene, and their figures and costs: seconds and TFLOP a sample, peak MiB of all of them."""
    start = time.time()
    (samples, evaluations), memory = with_peak(lambda: draw(case, method, count, restore))
    costs = {"seconds": (time.time() - start) / count, "memory": memory}
    if restore:
        costs["tflop"] = on_sd15(restore, case.observation)(evaluations) / count
    return samples, case.figures(samples) | systems.costs(evaluations, count) | costs


def within_budget(task: str, method: str, options: argparse.Namespace) -> VIPaint | Sampler | None:
    """The method, with the number of steps adapted to the budget on the first scene; None for references."""
    restore = METHODS.get(method)
    if not isinstance(restore, Sampler):
        return restore
    prior, observation = load_embedded_prior(), Case(task, 0).observation
    if options.tflop:
        return restore.within(options.tflop, prior, observation, on_sd15(restore, observation))
    return restore.within(options.budget, prior, observation) if options.budget else restore


def fits(task: str, method: str) -> bool:
    """True completions exist for masks only; linear estimates are for the other operators."""
    return method in METHODS or (task in MASKS) == (method in (TRUE, AUTOENCODED))


def run(task: str, method: str, options: argparse.Namespace, store: Store, progress: tqdm) -> None:
    """Measure the scenes missing in the store; skip a method that does not support the observation."""
    progress.set_description(f"{task}: {method}")
    missing = [scene for scene in options.scenes if str(scene) not in store.read(task, method)]
    progress.update(len(options.scenes) - len(missing))
    if not missing:
        return
    folder = options.work / "samples" / task / method
    folder.mkdir(parents=True, exist_ok=True)
    try:
        restore = within_budget(task, method, options)
        for scene in missing:
            samples, figures = measure(Case(task, scene), method, options.samples, restore)
            store.add(task, method, scene, figures)
            torch.save(samples.half(), folder / f"{scene}.pt")
            progress.update()
    except InputError as error:
        progress.write(f"{method} does not support {task}: {error}")


def tables(report: Report, store: Store, tasks: list[str], methods: list[str]) -> None:
    for task in tasks:
        heads = MASK_FIGURES if task in MASKS else OPERATOR_FIGURES
        report.say(f"## {task}")
        rows = []
        for method in methods:
            if found := store.intervals(task, method):
                figures = [str(found.get(name, "")) for name in heads]
                costs = [f"{found[name].mean:.0f}" if name in found else "" for name in COSTS]
                rows.append([method, str(len(store.read(task, method))), *figures, *costs])
        report.table(["method", "scenes", *heads.values(), *COSTS.values()], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=64, help="how many (default 64)")
    parser.add_argument("--first", type=int, default=0, help="the first scene (default 0)")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tasks", nargs="*", default=TASKS, choices=TASKS, metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--methods", nargs="*", default=ALL, choices=ALL, metavar="METHOD", help=", ".join(ALL))
    parser.add_argument("--budget", type=int, help="denoiser evaluations a sample, for all methods except VIPaint")
    parser.add_argument("--tflop", type=float, help="TFLOP a sample on SD1.5 at 512 pixels, instead of --budget")
    parser.add_argument("--reference", default="VIPaint", choices=ALL, help="the method compared with all others")
    parser.add_argument("--work", type=Path, default=Path("build/restoration"), help="folder of the stored runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables, the raw numbers and the plot")
    options = parser.parse_args()
    options.scenes = range(options.first, options.first + options.scenes)
    budget, name = "defaults", "defaults"
    if options.budget:
        budget, name = f"about {options.budget} evaluations", str(options.budget)
    if options.tflop:
        budget, name = f"about {options.tflop:g} TFLOP", f"{options.tflop:g}tflop"
    options.work = options.work / f"{options.samples}-{name}"
    store = Store(options.work)
    runs = [(task, method) for task, method in product(options.tasks, options.methods) if fits(task, method)]
    progress = tqdm(total=len(runs) * len(options.scenes), mininterval=5)
    for task, method in runs:
        run(task, method, options, store, progress)
    progress.close()
    name = "restoration" if budget == "defaults" else f"restoration_{name}"
    title = f"Restoration of 64-pixel scenes, {options.samples} samples each, {budget}"
    report = Report(name, title, options.scenes, options.out)
    tables(report, store, options.tasks, options.methods)
    for rival in options.methods:
        for figure in ("distance", "psnr"):
            paired(report, store, options.tasks, (options.reference, rival), figure)
    for axes, task in zip(report.panels(len(options.tasks)), options.tasks, strict=True):
        figure = "distance" if task in MASKS else "psnr"
        found = {m: store.intervals(task, m)[figure] for m in options.methods if store.read(task, m)}
        draw_intervals(axes, f"{task}: {figure}", found)
    report.write({task: {m: store.read(task, m) for m in options.methods} for task in options.tasks})


if __name__ == "__main__":
    main()
