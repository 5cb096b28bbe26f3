"""The content of the output files of ``vipaint``: pictures, plots, posterior and metrics."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..diffusion.prior import Evaluations
from ..evaluation import metrics, plots
from ..evaluation.spread import most_different, spread
from ..images import masks
from ..images.padding import crop_to
from ..images.pictures import pixels, png
from ..images.windows import Window, stitch
from ..inference.results import SampleResult
from ..measurement.observation import Observation
from ..priors.diffusers import DiffusersPrior
from ..restoration import for_picture
from ..vipaint import HierarchicalPosterior
from .made import made_from
from .output import RECORD
from .task import Task

EXPECTED = 4
"""Number of draws per keypoint in keypoints.png."""

SHOWN = 400
"""Number of samples in sheet.png, at most."""

DIFFERENT = 4
"""Number of samples in samples_different.png, at most."""


@dataclass(frozen=True)
class Restored:
    """Samples of a picture, or of a window of it, and the posterior that they are drawn from, if any."""

    observation: Observation
    window: Window | None
    posterior: HierarchicalPosterior | None
    result: SampleResult

    @property
    def images(self) -> Tensor:
        """As decoded, ``[n, 3, height, width]``."""
        return self.result.images.float().cpu()


def least_size(task: Task, samples: int) -> int:
    """What the results surely take on the disk, in bytes: a third of the pixels, as PNG compresses pictures."""
    return samples * math.prod(task.size)


def results(
    options: argparse.Namespace, task: Task, prior: DiffusersPrior, restored: list[Restored], configs: dict[str, Any]
) -> dict[str, bytes]:
    """The files of a run by name, its record last.

    Args:
        restored: the picture, or each window.
        configs: settings of the stages, by stage.
    """
    images = _assembled(options, task, restored)
    numbers = range(options.first, options.first + len(images))
    consistency = _consistency(restored)
    rankings = _rankings(images, consistency, numbers)
    report = {
        "command": options.command,
        "method": options.method,
        "metrics": _metrics(task, images, restored, consistency) | rankings,
        "seconds": task.seconds,
        "seed": options.seed,
        "first": options.first,
        "noise_std": restored[0].observation.noise_std,
        "config": configs,
        "prior": prior.identity,
        "versions": _versions(),
    }
    posteriors = [part.posterior for part in restored if part.posterior is not None]
    if posteriors:
        report["keypoints"] = posteriors[0].times
    if restored[0].result.populations is not None:
        report["particles"] = str(restored[0].result.populations)
    files = {f"sample_{k:02d}.png": png(pixels(image)) for k, image in zip(numbers, images, strict=True)}
    if not options.no_plots:
        chosen = rankings.get("most_different", [])[:DIFFERENT]
        files |= {name: png(plot) for name, plot in _plots(task, images, prior, restored, numbers, chosen).items()}
    for name, posterior in zip(_posterior_names(len(posteriors)), posteriors, strict=True):
        files[name] = posterior.serialised()
    report["evaluations"] = {
        "fit": vars(sum((posterior.evaluations for posterior in posteriors), Evaluations())),
        "sample": vars(sum((part.result.evaluations for part in restored), Evaluations())),
    }
    return files | recorded(options, report, files)


def recorded(options: argparse.Namespace, report: dict[str, Any], files: dict[str, bytes]) -> dict[str, bytes]:
    """The record of a run by its name: ``report``, what it is made from, and the digests of its files."""
    report = report | {
        "run": made_from(options),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    return {RECORD: (json.dumps(report, indent=2, allow_nan=False) + "\n").encode()}


def _posterior_names(count: int) -> list[str]:
    return ["posterior.safetensors"] if count == 1 else [f"posterior_{i}.safetensors" for i in range(1, count + 1)]


def _assembled(options: argparse.Namespace, task: Task, restored: list[Restored]) -> Tensor:
    """The samples in the size of the picture, with its known pixels unless ``--no-composite`` is given."""
    parts = []
    for part in restored:
        images, known = part.images.clamp(-1, 1), part.observation
        if task.pasted is not None and not options.no_composite:
            mask = known.observed[:, :1].float()
            correct = masks.match_colours if options.colour_match else masks.without_shift
            images = masks.composite(correct(images, known.y, mask), known.y, mask, options.feather)
        parts.append(images)
    windows = [part.window for part in restored if part.window is not None]
    if not windows or task.pasted is None:
        return parts[0].clamp(-1, 1)
    return stitch(task.picture, task.pasted, windows, parts).clamp(-1, 1)


def _plots(
    task: Task, images: Tensor, prior: DiffusersPrior, restored: list[Restored], numbers: range, chosen: list[int]
) -> dict[str, Any]:
    height, width = task.size
    seen = task.picture if task.mask is None else plots.show_hole(task.picture, task.mask)
    items = [("observed", F.interpolate(seen, size=(height, width), mode="nearest"))]
    items += [(f"sample {k}", image[None]) for k, image in zip(numbers, images[:SHOWN], strict=False)]
    items += [] if task.truth is None else [("truth", task.truth)]
    pictures = {"sheet.png": plots.contact_sheet(items, columns=math.ceil((2 * len(items)) ** 0.5))}
    if chosen:
        pictures |= _spread_plots(images, numbers, chosen)
    if restored[0].posterior is not None and len(restored) == 1:
        pictures |= _fit_plots(prior, restored[0], restored[0].posterior)
    return pictures


def _fit_plots(prior: DiffusersPrior, part: Restored, posterior: HierarchicalPosterior) -> dict[str, Any]:
    """Predictions at each keypoint, and the terms of the bound, if the fit had any."""
    sized, _ = for_picture(prior, part.observation)
    expected = [
        (f"t = {time:.3f}", crop_to(image[None].float().cpu(), *part.images.shape[2:]))
        for time, images_at in posterior.expectations(sized, EXPECTED)
        for image in images_at
    ]
    pictures = {"keypoints.png": plots.contact_sheet(expected, columns=EXPECTED)}
    if any(plots.CURVES.keys() & record.keys() for record in posterior.history):
        pictures["fit.png"] = plots.fit_curves(posterior.history)
    return pictures


def _spread_plots(images: Tensor, numbers: range, chosen: list[int]) -> dict[str, Any]:
    """The mean of the samples, where they differ, and the chosen ones, by their numbers."""
    mean, std = spread(images)
    items = [(f"sample {k}", images[numbers.index(k)][None]) for k in chosen]
    return {
        "samples_mean.png": pixels(mean),
        "samples_spread.png": plots.heat_map(std, max(std.max().item(), torch.finfo(std.dtype).tiny)),
        "samples_different.png": plots.contact_sheet(items, columns=DIFFERENT),
    }


def _metrics(task: Task, images: Tensor, restored: list[Restored], consistency: Tensor) -> dict[str, Any]:
    """Consistency and observed PSNR of the decoded pictures; diversity and PSNR to the truth of the written ones."""
    values = {
        "consistency": consistency,
        "diversity": torch.tensor(metrics.diversity(images, task.pasted)),
    }
    if len(restored) == 1:
        values["psnr_observed_db"] = _observed_psnr(restored[0])
    if task.truth is not None:
        values["psnr_truth_db"] = metrics.psnr(images, task.truth)
        if task.pasted is not None:
            values["psnr_truth_hole_db"] = metrics.psnr(images, task.truth, 1 - task.pasted)
    return {name: rounded(value.tolist()) for name, value in values.items()}


def _rankings(images: Tensor, consistency: Tensor, numbers: range) -> dict[str, list[int]]:
    """Numbers of the samples, from the least residual, and in the order of the most different ones."""
    if len(images) < 2:
        return {}
    chosen = [choice.sample for choice in most_different(images, len(images))]
    orders = {"by_consistency": consistency.argsort().tolist(), "most_different": chosen}
    return {name: [numbers[k] for k in order] for name, order in orders.items()}


def _consistency(restored: list[Restored]) -> Tensor:
    """The residual of each sample in units of the noise, root mean square over windows."""
    parts = [metrics.consistency(part.images, part.observation) for part in restored]
    return torch.stack(parts).square().mean(0).sqrt()


def _observed_psnr(part: Restored) -> Tensor:
    """PSNR of A x against the measurements."""
    observation = part.observation
    residual = observation.residual(part.images)
    return metrics.psnr(residual, torch.zeros_like(residual[:1]), observation.observed.float())


def rounded(value: float | list[float]) -> Any:
    """Numbers to five digits; None for infinity (equal pictures) and NaN (diversity of one sample), for JSON."""
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _versions() -> dict[str, str]:
    installed = {d.name.lower() for d in metadata.distributions()}
    names = [name for name in ("vipaint", "torch", "diffusers", "transformers") if name in installed]
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}
