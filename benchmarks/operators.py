"""Seconds and memory of every operator, its adjoint and its variances on a picture of 2048 x 2048 pixels.

    python -m benchmarks.operators              # three pictures, the figures of docs/operators.md
    python -m benchmarks.operators --seeds 1    # a quick look

Seconds are processor time, summed over threads: other processes change them little. Memory is the peak of the process
during a call above its memory before the call, result included (Linux only). The targets are 2 seconds and 1000 MB a
call. A second table compares blurs by Fourier transforms and by direct convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from benchmarks.memory import with_peak
from benchmarks.report import Report, arguments, draw_intervals, interval
from vipaint_ops.operators import (
    Blur,
    Compose,
    Crop,
    GaussianBlur,
    Grey,
    Inpainting,
    MotionBlur,
    Operator,
    SuperResolution,
)

SIDE, SMALL = 2048, 64
KERNELS, PICTURES = (3, 5, 7, 11, 21, 61), (256, 1024)
SECONDS, MEGABYTES = 2.0, 1000.0


def operators(side: int) -> dict[str, Operator]:
    """Operators for images of ``side`` x ``side`` pixels, by name."""
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(1, 1, side, side, generator=generator) > 0.5).float()
    return {
        "mask": Inpainting(mask),
        "Gaussian blur 61, std 3": GaussianBlur(),
        "straight motion 61": MotionBlur(61, 30.0),
        "camera shake 61": MotionBlur.shake(61, 0.5, generator),
        "kernel of 5 x 5": Blur(torch.ones(5, 5) / 25),
        "bicubic x4": SuperResolution(4),
        "average x4": SuperResolution(4, "average"),
        "grey": Grey(),
        "crop": Crop(side - 8, side - 8, 8, 8),
        "Gaussian blur, bicubic x4, mask": Compose(
            GaussianBlur(), SuperResolution(4), Inpainting(mask[..., : side // 4, : side // 4])
        ),
    }


def calls(operator: Operator, side: int, seed: int) -> dict[str, Callable[[], Tensor]]:
    """The measured calls of an operator, by name."""
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed))
    y = operator(x)
    return {
        "A x": lambda: operator(x),
        "A^T y": lambda: operator.adjoint(y),
        "squared": lambda: operator.squared(x),
    }


def measured(call: Callable[[], Tensor]) -> tuple[float, float]:
    """Processor seconds of a call, and the MB by which its peak exceeds the memory before it."""
    began = process_time()
    _, mebibytes = with_peak(call)
    return process_time() - began, mebibytes * 2**20 / 1e6


def against_summing(report: Report) -> list[dict[str, float]]:
    """Milliseconds of a blur by Fourier transforms, by a convolution, and by one along each axis (separable)."""
    found = []
    for side in PICTURES:
        x = torch.rand(1, 3, side, side)
        for size in KERNELS:
            kernel, radius = torch.rand(size, size), size // 2
            blur, padded = Blur(kernel), F.pad(x, [radius] * 4, mode="reflect")
            whole, column, row = (k.expand(3, 1, *k.shape) for k in (kernel, kernel[:, :1], kernel[:1]))
            ways: dict[str, Callable[[], Tensor]] = {
                "Fourier": lambda: blur(x),  # noqa: B023
                "one sum": lambda: F.conv2d(padded, whole, groups=3),  # noqa: B023
                "two sums": lambda: F.conv2d(F.conv2d(padded, column, groups=3), row, groups=3),  # noqa: B023
            }
            fastest = {name: 1e3 * min(measured(way)[0] for _ in range(5)) for name, way in ways.items()}
            found.append({"side": side, "kernel": size} | fastest)
    report.say("## A blur by Fourier transforms and by summing, processor milliseconds, fastest of five")
    report.table(list(found[0]), [[*run.values()][:2] + [f"{run[way]:.1f}" for way in fastest] for run in found])
    return found


def main() -> None:
    options = arguments(__doc__, 0, 3)
    title = f"Operators on 3 x {SIDE} x {SIDE} pixels, float32, threads: {torch.get_num_threads()}"
    report = Report("operators", title, options.seeds, options.out)
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    small = operators(SMALL)
    for name, operator in tqdm(operators(SIDE).items()):
        for call in calls(small[name], SMALL, 0).values():
            call()  # warm-up
        found[name] = {}
        for seed in options.seeds:
            for what, call in calls(operator, SIDE, seed).items():
                found[name].setdefault(what, []).append(measured(call))
    rows, slowest = [], {}
    for name, runs in found.items():
        seconds = {what: interval([one[0] for one in run]) for what, run in runs.items()}
        memory = max(one[1] for run in runs.values() for one in run)
        slowest[name] = max(seconds.values(), key=lambda one: one.mean)
        met = slowest[name].mean <= SECONDS and memory <= MEGABYTES
        rows.append([name, *seconds.values(), f"{memory:.0f}", "yes" if met else "no"])
    report.table(["operator", *(f"{what}, s" for what in runs), "most memory, MB", "within the targets"], rows)
    (panel,) = report.panels(1, 6.5, 3.4)
    draw_intervals(panel, "seconds of the slowest call", slowest, SECONDS)
    report.write({"calls": found, "against summing": against_summing(report)})


if __name__ == "__main__":
    main()
