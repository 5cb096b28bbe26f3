"""The content of the output files of ``vipaint``: pictures, plots, posterior and metrics."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
from importlib import metadata
from typing import Any

import torch
from torch import Tensor

from ..evaluation import metrics, plots
from ..images import masks
from ..images.padding import crop_to
from ..images.pictures import pixels, png
from ..inference.results import SampleResult
from ..measurement.observation import Observation
from ..operators import Inpainting
from ..priors.diffusers import DiffusersPrior
from ..vipaint import HierarchicalPosterior
from .made import made_from
from .output import RECORD
from .task import Task

EXPECTED = 4
"""Number of draws per keypoint in keypoints.png."""

SHOWN = 400
"""Number of samples in sheet.png, at most."""


def least_size(task: Task, samples: int) -> int:
    """What the results surely take on the disk, in bytes: a third of the pixels, as PNG compresses pictures."""
    return samples * task.picture.shape[2] * task.picture.shape[3]


def results(
    options: argparse.Namespace,
    task: Task,
    prior: DiffusersPrior,
    observation: Observation,
    posterior: HierarchicalPosterior,
    result: SampleResult,
    configs: dict[str, Any],
) -> dict[str, bytes]:
    """The files of a run by name, its record last.

    Args:
        configs: settings of the stages, by stage.
    """
    size = task.picture.shape[2:]
    decoded = crop_to(result.images.float().cpu(), *size)
    images = decoded.clamp(-1, 1)
    if not options.no_composite:
        images = masks.without_shift(images, task.picture, task.mask)
        images = masks.composite(images, task.picture, task.mask)
    report = {
        "metrics": _metrics(task, decoded, images, observation.noise_std),
        "seconds": task.seconds,
        "seed": options.seed,
        "noise_std": observation.noise_std,
        "keypoints": posterior.times,
        "config": configs,
        "prior": prior.identity,
        "run": made_from(options),
        "versions": _versions(),
    }
    if result.populations is not None:
        report["particles"] = str(result.populations)
    files = {f"sample_{i:02d}.png": png(pixels(image)) for i, image in enumerate(images)}
    files |= {name: png(plot) for name, plot in _plots(task, images, prior, posterior).items()}
    files["posterior.safetensors"] = posterior.serialised()
    report["evaluations"] = {"fit": vars(posterior.evaluations), "sample": vars(result.evaluations)}
    report["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return files | {RECORD: (json.dumps(report, indent=2, allow_nan=False) + "\n").encode()}


def _plots(task: Task, images: Tensor, prior: DiffusersPrior, posterior: HierarchicalPosterior) -> dict[str, Any]:
    size = task.picture.shape[2:]
    items = [("observed", plots.show_hole(task.picture, task.mask))]
    items += [(f"sample {i}", image[None]) for i, image in enumerate(images[:SHOWN])]
    items += [] if task.truth is None else [("truth", task.truth)]
    expected = [
        (f"t = {time:.3f}", crop_to(image[None].float().cpu(), *size))
        for time, images_at in posterior.expectations(prior, EXPECTED)
        for image in images_at
    ]
    pictures = {
        "sheet.png": plots.contact_sheet(items, columns=math.ceil((2 * len(items)) ** 0.5)),
        "keypoints.png": plots.contact_sheet(expected, columns=EXPECTED),
    }
    if any(plots.CURVES.keys() & record.keys() for record in posterior.history):
        pictures["fit.png"] = plots.fit_curves(posterior.history)
    return pictures


def _metrics(task: Task, decoded: Tensor, images: Tensor, noise_std: float) -> dict[str, Any]:
    """Consistency and observed PSNR of the decoded pictures; diversity and PSNR to the truth of the written ones."""
    observation = Observation(task.mask * task.picture, Inpainting(task.mask), noise_std)
    values = {
        "consistency": metrics.consistency(decoded, observation),
        "psnr_observed_db": metrics.psnr(decoded, task.picture, task.mask),
        "diversity": torch.tensor(metrics.diversity(images, task.mask)),
    }
    if task.truth is not None:
        values["psnr_truth_db"] = metrics.psnr(images, task.truth)
        values["psnr_truth_hole_db"] = metrics.psnr(images, task.truth, 1 - task.mask)
    return {name: _rounded(value.tolist()) for name, value in values.items()}


def _rounded(value: float | list[float]) -> Any:
    """Numbers to five digits; None for infinity (equal pictures) and NaN (diversity of one sample), for JSON."""
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _versions() -> dict[str, str]:
    installed = {d.name.lower() for d in metadata.distributions()}
    names = [name for name in ("vipaint", "torch", "diffusers", "transformers") if name in installed]
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}
