"""The output files of ``vipaint``: pictures, plots, posterior and metrics. All are written at the end, or none."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..evaluation import metrics, plots
from ..images import masks
from ..images.pictures import crop_to, save_image
from ..inference.results import SampleResult
from ..measurement.observation import Observation
from ..operators import Inpainting
from ..priors.diffusers import DiffusersPrior
from ..vipaint import HierarchicalPosterior
from .task import Task

EXPECTED = 4
"""Number of draws per keypoint in keypoints.png."""

OUTPUTS = ("sample_*.png", "sheet.png", "fit.png", "keypoints.png", "posterior.safetensors", "metrics.json")


def check_folder(out: Path, overwrite: bool) -> None:
    """Check the folder for the results.

    Raises:
        InputError: the folder is not writable, or has results of an earlier run and ``overwrite`` is off.
    """
    check_writable(out)
    found = sorted(path.name for pattern in OUTPUTS for path in out.glob(pattern))
    if found and not overwrite:
        raise InputError(f"--out {str(out)!r} has results already ({found[0]}): give another folder or --overwrite")


def check_writable(folder: Path) -> None:
    """Check that a folder is writable, or can be made.

    Raises:
        InputError: it is not writable, or is a file.
    """
    existing = _existing(folder)
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(f"cannot write to {str(folder)!r}: {str(existing)!r} is not a folder with write permission")


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A temporary folder. Its files move to ``folder`` at the end; after an error they are deleted."""
    with tempfile.TemporaryDirectory(prefix=".vipaint-", dir=_existing(folder)) as staged:
        yield Path(staged)
        folder.mkdir(parents=True, exist_ok=True)
        for path in Path(staged).iterdir():
            os.replace(path, folder / path.name)


def write_results(
    options: argparse.Namespace,
    task: Task,
    prior: DiffusersPrior,
    observation: Observation,
    posterior: HierarchicalPosterior,
    result: SampleResult,
    configs: dict[str, Any],
) -> None:
    """Write the results of a run to ``options.out``, and remove those of an earlier run.

    Args:
        configs: settings of the stages, by stage.
    """
    out, size = Path(options.out), task.picture.shape[2:]
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
        "versions": _versions(),
    }
    if result.populations is not None:
        report["particles"] = str(result.populations)
    with staging(out) as folder:
        for i, image in enumerate(images):
            save_image(folder / f"sample_{i:02d}.png", image)
        _save_plots(folder, task, images, prior, posterior)
        posterior.save(folder / "posterior.safetensors")
        report["evaluations"] = {"fit": vars(posterior.evaluations), "sample": vars(result.evaluations)}
        (folder / "metrics.json").write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        written = {path.name for path in folder.iterdir()}
    for path in [path for pattern in OUTPUTS for path in out.glob(pattern) if path.name not in written]:
        path.unlink()
    print(f"wrote {len(images)} samples to {out}; see {out / 'sheet.png'}")


def _save_plots(
    folder: Path, task: Task, images: Tensor, prior: DiffusersPrior, posterior: HierarchicalPosterior
) -> None:
    size = task.picture.shape[2:]
    items = [("observed", plots.show_hole(task.picture, task.mask))]
    items += [(f"sample {i}", image[None]) for i, image in enumerate(images)]
    items += [] if task.truth is None else [("truth", task.truth)]
    expected = [
        (f"t = {time:.3f}", crop_to(image[None].float().cpu(), *size))
        for time, images_at in posterior.expectations(prior, EXPECTED)
        for image in images_at
    ]
    pictures = {
        "sheet": plots.contact_sheet(items, columns=math.ceil((2 * len(items)) ** 0.5)),
        "keypoints": plots.contact_sheet(expected, columns=EXPECTED),
    }
    if posterior.history:
        pictures["fit"] = plots.fit_curves(posterior.history)
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")


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


def _existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
