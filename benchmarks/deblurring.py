"""Deblurring and super-resolution on the embedded prior, against linear baselines and DPS.

    python -m benchmarks.deblurring              # 8 held-out scenes, 8 samples each
    python -m benchmarks.deblurring --seeds 2 --methods VIPaint Wiener    # a quick look

Scenes seen through a Gaussian blur (61 pixels, std 3), a straight motion blur (31 pixels at 30 degrees) and x4 bicubic
downsampling, with noise 0.05. The pseudo-inverse and the Wiener filter give one picture; the others the mean of their
samples (for PSNR), their residual and their spread.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import systems
from benchmarks.inpainting import HELD_OUT_SEED
from benchmarks.report import Report, arguments, draw_intervals, interval
from benchmarks.systems import Sampler, VIPaint
from tools import scenes
from tools.train_prior import to_unit
from vipaint_ops import Observation, load_embedded_prior, metrics, operators
from vipaint_ops.degrade import degrade
from vipaint_ops.samplers import DPSConfig, dps

NOISE_STD, SAMPLES = 0.05, 8
OPERATORS = {
    "Gaussian blur": operators.GaussianBlur(61, 3.0),
    "motion blur": operators.MotionBlur(31, 30.0),
    "bicubic x4": operators.SuperResolution(4),
}
FIGURES = ("PSNR of the mean (dB)", "residual / noise", "pairwise distance", "evaluations/sample")
Result = tuple[Tensor, float]


def pseudo_inverse(observation: Observation, generator: torch.Generator) -> Result:
    return observation.operator.pinv(observation.y), 0.0


def wiener(observation: Observation, generator: torch.Generator, iterations: int = 200) -> Result:
    """A^T (A A^T + noise / variance)^-1 y, the linear estimate under white pixels, by conjugate gradients."""
    operator, y = observation.operator, observation.y
    ratio = NOISE_STD**2 / SCENES.var()
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
    return operator.adjoint(u), 0.0


def drawn(method: VIPaint | Sampler) -> Callable[..., Result]:
    """A method's samples, and its denoiser evaluations a sample."""

    def run(observation: Observation, generator: torch.Generator) -> Result:
        images, spent = method(PRIOR, observation, SAMPLES, generator)
        return images, spent.denoiser / SAMPLES

    return run


PRIOR = load_embedded_prior()
SCENES = to_unit(scenes.sample_scenes(64, HELD_OUT_SEED)[0])
METHODS: dict[str, Callable[..., Result]] = {
    "pseudo-inverse": pseudo_inverse,
    "Wiener": wiener,
    "VIPaint": drawn(systems.METHODS["VIPaint"]),
    "VIPaint, 0 iterations": drawn(systems.METHODS["VIPaint, 0 iterations"]),
    "DPS, 100 steps, scale 0.5": drawn(Sampler(dps, DPSConfig(steps=100, scale=0.5))),
}


def measure(operator: str, method: str, scene: int) -> tuple[float, ...]:
    """:data:`FIGURES` of one run."""
    truth = SCENES[scene : scene + 1]
    noise = torch.Generator().manual_seed(scene)
    observation = degrade(truth, OPERATORS[operator], NOISE_STD, generator=noise)
    images, evaluations = METHODS[method](observation, torch.Generator().manual_seed(scene + 10**6))
    mean = images.mean(0, keepdim=True)
    spread = metrics.diversity(images) if len(images) > 1 else 0.0
    return metrics.psnr(mean, truth).item(), metrics.consistency(images, observation).mean().item(), spread, evaluations


def main() -> None:
    options = arguments(__doc__, 0, 8, list(METHODS))
    title = f"Deblurring and super-resolution of 64-pixel scenes, noise {NOISE_STD}, {SAMPLES} samples"
    report = Report("deblurring", title, options.seeds, options.out)
    progress = tqdm(total=len(OPERATORS) * len(options.methods) * len(options.seeds))
    results: dict[str, dict[str, list[tuple[float, ...]]]] = {}
    for operator in OPERATORS:
        results[operator] = {method: [] for method in options.methods}
        for method, scene in product(options.methods, options.seeds):
            results[operator][method].append(measure(operator, method, scene))
            progress.update()
        rows = {m: [interval(c) for c in zip(*runs, strict=True)] for m, runs in results[operator].items()}
        report.say(f"## {operator}")
        report.table(("method", *FIGURES), [(m, a, b, c, f"{d.mean:.0f}") for m, (a, b, c, d) in rows.items()])
    progress.close()
    for axes, (operator, runs) in zip(report.panels(len(OPERATORS)), results.items(), strict=True):
        psnr = {method: interval([run[0] for run in found]) for method, found in runs.items()}
        draw_intervals(axes, f"{operator}: {FIGURES[0]}", psnr)
    report.write(results)


if __name__ == "__main__":
    main()
