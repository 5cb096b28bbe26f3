"""The subcommands of ``vipaint`` that make test cases and score results. They load no model."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..evaluation import metrics, plots
from ..evaluation.degrade import degrade as degraded_by
from ..images.pictures import load_image, pixels, png
from ..inference.perceptual import lpips_distance
from ..measurement.observation import Observation
from ..operators import Blur, Operator
from .claim import claimed
from .degradations import degradation, known_pixels, likelihood
from .output import ResultFolder, check_writable
from .results import SHOWN, recorded, rounded
from .say import say, show
from .tables import table

_COLUMNS = 4
_FORMS = {"psnr_db": ".2f", "ssim": ".3f", "residual": ".2f", "seam": ".2f", "lpips": ".3f"}
_HEADINGS = {"psnr_db": "PSNR (dB)", "ssim": "SSIM", "residual": "residual / noise", "seam": "seam", "lpips": "LPIPS"}


def degrade(options: argparse.Namespace) -> None:
    """Mask, blur or reduce a clean picture, and write what restores it."""
    output = ResultFolder(options)
    check_writable(output)
    picture = load_image(options.image)
    mask = known_pixels(options, *_measured_size(options, picture))
    operator = degradation(options, mask)
    generator = torch.Generator().manual_seed(options.seed)
    seen = degraded_by(picture, operator, options.noise_std, generator=generator, likelihood=likelihood(options))
    files = {"degraded.png": png(pixels(seen.y))}
    if mask is not None:
        files["degraded_mask.png"] = png(pixels((1 - 2 * mask).expand(1, 3, -1, -1)))
    for blur in (stage for stage in _stages(operator) if isinstance(stage, Blur)):
        files["degraded_kernel.png"] = _kernel_png(blur.kernel)
    report = {"command": "degrade", "operator": operator.description, "noise_std": options.noise_std}
    with claimed(output, 0) as write:
        write(files | recorded(options, report | {"seed": options.seed}, files))
    say(f"wrote {Path(options.out) / 'degraded.png'}", sys.stdout)


def compare(options: argparse.Namespace) -> None:
    """Print the scores of restored pictures, and write them with a sheet if there is a folder for them."""
    options.pictures = _files(options.pictures)
    output = None if options.out is None else ResultFolder(options)
    if output is not None:
        check_writable(output)
    images, truth = _same_size(options.pictures), None if options.truth is None else load_image(options.truth)
    if truth is not None and truth.shape[2:] != images.shape[2:]:
        raise InputError(f"the pictures are {_size(images)} and --truth is {_size(truth)}: give one of that size")
    scores = _scores(images, truth, *_observed(options, images))
    if not scores:
        raise InputError("there is nothing to compare with: give --truth, or --image with its mask, blur or scale")
    names = [str(path) for path in options.pictures]
    text = _table(names, scores)
    report: dict[str, Any] = {
        "command": "compare",
        "pictures": names,
        "metrics": {k: rounded(v) for k, v in scores.items()},
    }
    if len(images) > 1:
        report["diversity"] = metrics.diversity(images)
        text += f"\n\ndiversity {report['diversity']:.3f}: mean RMS distance between pairs, for pixels in [-1, 1]"
    show(text, sys.stdout)
    if output is not None:
        items = [(path.name, image) for path, image in zip(options.pictures, images, strict=True)][:SHOWN]
        items += [] if truth is None else [("truth", truth[0])]
        files = {"sheet.png": png(plots.contact_sheet(items, _COLUMNS))}
        with claimed(output, 0) as write:
            write(files | recorded(options, report, files))


def _measured_size(options: argparse.Namespace, picture: Tensor) -> tuple[int, int]:
    factor = options.factor or 1
    return picture.shape[2] // factor, picture.shape[3] // factor


def _stages(operator: Operator) -> list[Operator]:
    return getattr(operator, "stages", [operator])


def _kernel_png(kernel: Tensor) -> bytes:
    """A kernel in 16 bits, its largest value white."""
    levels = (kernel.clamp(min=0) / kernel.max() * 65535).round().numpy().astype(np.uint16)
    return png(levels)


def _files(given: list[str]) -> list[Path]:
    """The pictures, and the samples of folders."""
    found: list[Path] = []
    for path in map(Path, given):
        inside = sorted(path.glob("sample_*.png")) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"{str(path)!r} has no sample_*.png: give the pictures one by one")
        found += inside
    return found


def _same_size(paths: list[Path]) -> Tensor:
    images = [load_image(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(f"{str(path)!r} is {_size(image)} and {str(paths[0])!r} {_size(images[0])}: give one size")
    return torch.cat(images)


def _observed(options: argparse.Namespace, images: Tensor) -> tuple[Observation | None, Tensor | None]:
    """The observation, if the degraded picture is given, and the mask of a hole in the restored ones."""
    masked = options.mask is not None and options.factor is None and options.blur is None and options.kernel is None
    if options.image is None:
        return None, known_pixels(options, *images.shape[2:]) if masked else None
    seen = load_image(options.image)
    mask = known_pixels(options, *seen.shape[2:])
    operator = degradation(options, mask)
    if operator.picture_size((seen.shape[2], seen.shape[3])) != tuple(images.shape[2:]):
        raise InputError(f"the pictures are {_size(images)} and --image is {_size(seen)}, which is of another size")
    y = seen if mask is None else mask * seen
    return Observation(y, operator, options.noise_std, likelihood(options)), mask if masked else None


def _scores(
    images: Tensor, truth: Tensor | None, observation: Observation | None, mask: Tensor | None
) -> dict[str, list[float]]:
    scores = {}
    if truth is not None:
        scores["psnr_db"] = metrics.psnr(images, truth)
        scores["ssim"] = metrics.ssim(images, truth)
        if find_spec("lpips") is not None:
            distance = lpips_distance(images.device)
            scores["lpips"] = torch.cat([distance(image[None], truth) for image in images])
    if observation is not None:
        scores["residual"] = metrics.consistency(images, observation)
    if mask is not None:
        scores["seam"] = metrics.seam(images, mask)
    return {name: values.tolist() for name, values in scores.items()}


def _table(names: list[str], scores: dict[str, list[float]]) -> str:
    lines = [
        [name, *(f"{values[position]:{_FORMS[score]}}" for score, values in scores.items())]
        for position, name in enumerate(names)
    ]
    return table(["", *(_HEADINGS[score] for score in scores)], lines)


def _size(images: Tensor) -> str:
    return f"{images.shape[2]}x{images.shape[3]}"
