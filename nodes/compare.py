"""The node that computes metrics of samples."""

from __future__ import annotations

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..vipaint_ops.errors import InputError
from ..vipaint_ops.evaluation import metrics, plots
from ..vipaint_ops.measurement.observation import Observation
from .batches import each_image, numbered, per_image
from .gather import list_output
from .pictures import pictures, sheet, without_border
from .search import schema
from .shown import with_text
from .sockets import ObservationSocket

_COLUMNS = 4
_HEADINGS = ("PSNR (dB)", "SSIM", "residual / noise")
_REMEDY = "compare before resizing"
_DIVERSITY = "\n\ndiversity {:.3f}: mean RMS distance between pairs of images, for pixel values in [-1, 1]"


class Compare(io.ComfyNode):
    """Metrics of samples against the original, the observation and each other."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintCompare",
            display_name="Compare (VIPaint)",
            category="VIPaint",
            description="Computes PSNR, SSIM, the residual of the observation and the diversity of samples.",
            inputs=[
                io.Image.Input(
                    "images", tooltip="Samples of an image to measure, any number, or a list of samples of several."
                ),
                io.Image.Input(
                    "original",
                    tooltip="The image before degradation, of the same size. One for all samples or one each.",
                ),
                ObservationSocket.Input(
                    "observation",
                    optional=True,
                    tooltip="Adds the residual of each image in units of the noise level. About 1 is expected.",
                ),
                io.String.Input(
                    "names",
                    default="",
                    optional=True,
                    multiline=True,
                    tooltip="Labels of the images, one per line. Images without a label are numbered.",
                ),
            ],
            outputs=[
                list_output(io.String, "text", "Table of the metrics."),
                list_output(io.Image, "sheet", "Contact sheet of the images with their metrics. The original is last."),
            ],
            is_input_list=True,
        )

    @classmethod
    def execute(cls, images, original, observation=(None,), names=("",)) -> io.NodeOutput:
        lists = {"images": images, "original": each_image(original)}
        compared = per_image(_compared, lists, {"observation": observation, "names": names})
        tables, sheets = map(list, zip(*compared, strict=True))
        return with_text(numbered(tables), tables, sheets)


def _compared(images: Tensor, original: Tensor, observation: Observation | None, names: str) -> tuple[str, Tensor]:
    """The table and the sheet of the samples of one image."""
    truth = pictures(original, "original")
    restored = without_border(pictures(images, "images"), *truth.shape[2:])
    if restored.shape[2:] != truth.shape[2:]:
        raise InputError(f"images are {_size(restored)} and original {_size(truth)} (height x width): {_REMEDY}")
    if observation is not None:
        check_observation(restored, observation)
    scores = _scores(restored, truth, observation)
    rows = dict(zip(_names(names, len(restored)), scores, strict=True))
    gap = "\n" if names.strip() else ": "
    labels = [f"{name}{gap}{_label(row)}" for name, row in rows.items()]
    pixels = plots.contact_sheet([*zip(labels, restored, strict=True), ("original", truth)], _COLUMNS)
    text = _table(rows)
    if len(restored) > 1:
        (average,) = _scores(restored.mean(0, keepdim=True), truth, observation)
        text = _table(rows | {"average of all": average}) + _DIVERSITY.format(metrics.diversity(restored))
    return text, sheet(pixels)


def _names(given: str, count: int) -> list[str]:
    """One label per image, all different."""
    lines = [line.strip() for line in given.splitlines()][:count]
    lines += [""] * (count - len(lines))
    return [f"{number} {name}".strip() for number, name in enumerate(lines, 1)]


def check_observation(restored: Tensor, observation: Observation) -> None:
    measured = observation.operator.picture_size(tuple(observation.y.shape[2:]))
    if measured != tuple(restored.shape[2:]):
        raise InputError(
            f"images are {_size(restored)} and observation is of an image of {measured[0]}x{measured[1]} (height x "
            f"width): {_REMEDY}"
        )


def _scores(restored: Tensor, truth: Tensor, observation: Observation | None) -> list[list[float]]:
    """PSNR, SSIM and, with an observation, the residual in units of its noise level: one row per image."""
    columns = [metrics.psnr(restored, truth), metrics.ssim(restored, truth)]
    if observation is not None:
        columns.append(metrics.consistency(restored, observation))
    return torch.stack(columns, 1).tolist()


def _label(row: list[float]) -> str:
    psnr, ssim, *residual = row
    return f"{psnr:.1f} dB {ssim:.2f}" + "".join(f" {value:.2f}\N{GREEK SMALL LETTER SIGMA}" for value in residual)


def _table(rows: dict[str, list[float]]) -> str:
    width = max(map(len, rows))
    columns = list(zip(_HEADINGS, (".2f", ".3f", ".2f"), strict=True))[: len(next(iter(rows.values())))]
    lines = [" " * width + "".join(f"  {heading}" for heading, _ in columns)]
    for name, row in rows.items():
        numbers = (f"  {value:{len(heading)}{form}}" for value, (heading, form) in zip(row, columns, strict=True))
        lines.append(name.ljust(width) + "".join(numbers))
    return "\n".join(lines)


def _size(pictures: Tensor) -> str:
    return "x".join(map(str, pictures.shape[2:]))
