"""The node that shows where samples differ."""

from __future__ import annotations

import torch
from comfy_api.v0_0_2 import io

from ..vipaint_ops.errors import InputError
from ..vipaint_ops.evaluation import metrics, plots
from ..vipaint_ops.evaluation.spread import Choice, most_different, spread
from .compare import check_observation
from .pictures import images as to_images
from .pictures import pictures, sheet, without_border
from .search import schema
from .shown import with_text
from .sockets import ObservationSocket, output

_LEVELS = 127.5
"""Levels of 255 in a unit of the library's pictures."""


class UncertaintyMap(io.ComfyNode):
    """Mean and spread of samples, and those that differ most."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintUncertaintyMap",
            display_name="Uncertainty Map (VIPaint)",
            category="VIPaint",
            description="Shows where samples of one image agree and where they differ, and picks those that differ "
            "most from each other.",
            inputs=[
                io.Image.Input("images", tooltip="Samples of one image, two or more."),
                io.Int.Input(
                    "keep",
                    default=4,
                    min=1,
                    max=64,
                    tooltip="Number of samples to pick. They differ most from each other. More than there are: all.",
                ),
                ObservationSocket.Input(
                    "observation",
                    optional=True,
                    tooltip="Adds the residual of each sample in units of the noise level. About 1 is expected.",
                ),
            ],
            outputs=[
                output(io.Image, "map", "Spread of each pixel. Black is 0, pale yellow the largest, as in the text."),
                output(io.Mask, "spread", "The same as a mask: 0 = samples agree, 1 = the largest spread."),
                output(io.Image, "mean", "Mean of the samples. It is blurred where they differ."),
                output(io.Image, "most_different", "The picked samples, the most typical one first."),
                output(io.String, "text", "The spread, and the picked samples with distance and residual."),
            ],
        )

    @classmethod
    def execute(cls, images, keep, observation=None) -> io.NodeOutput:
        samples = pictures(images, "images")
        if len(samples) < 2:
            raise InputError("images is one sample: set num_samples to 2 or more")
        residuals = None
        if observation is not None:
            samples = without_border(samples, *observation.operator.picture_size(tuple(observation.y.shape[2:])))
            check_observation(samples, observation)
            residuals = metrics.consistency(samples, observation).tolist()
        mean, std = spread(samples)
        largest = max(std.max().item(), torch.finfo(std.dtype).tiny)
        chosen = most_different(samples, min(keep, len(samples)))
        scale = (
            f"spread of the pixels: mean {_LEVELS * std.mean():.1f}, largest {_LEVELS * std.max():.1f} levels of 255"
        )
        text = "\n".join([scale, "", *_table(chosen, residuals)])
        return with_text(
            text,
            sheet(plots.heat_map(std, largest)),
            (std / largest)[0],
            to_images(mean),
            to_images(samples[[choice.sample for choice in chosen]]),
            text,
        )


def _table(chosen: list[Choice], residuals: list[float] | None) -> list[str]:
    """A row for each picked sample."""
    heading = "sample  distance (levels)" + ("" if residuals is None else "  residual / noise")
    rows = [
        f"{sample + 1:6}  {_LEVELS * distance:17.1f}" + ("" if residuals is None else f"  {residuals[sample]:16.2f}")
        for sample, distance in chosen
    ]
    return [heading, *rows]
