"""Nodes that make test images, and show a degradation."""

from __future__ import annotations

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ...vipaint_ops.evaluation.degrade import degrade, response
from ...vipaint_ops.measurement.observation import Observation
from ...vipaint_ops.operators import Blur
from ..batches import each_image, per_image
from ..gather import list_output
from ..pictures import images, pictures
from ..search import schema
from ..sockets import FIXED_SEED, ObservationSocket, output

_PREVIEW_SIDE = 256
_VISIBLE = 0.01
"""The preview is cropped to the part of the response above this fraction of its peak."""


class DegradeImage(io.ComfyNode):
    """Degrades a clean image."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintDegradeImage",
            display_name="Degrade Image (VIPaint)",
            category="VIPaint/observe",
            description="Applies the degradation and noise of an observation to a clean image, to make a test case "
            "with known ground truth.",
            inputs=[
                io.Image.Input("image", tooltip="The clean image, or several."),
                ObservationSocket.Input(
                    "observation",
                    tooltip="Degradation and noise level to apply, one for all images or one each. Its image is not "
                    "used.",
                ),
                io.Int.Input("seed", **FIXED_SEED, tooltip="Seed of the noise."),
            ],
            outputs=[
                list_output(io.Image, "degraded", "The degraded image, clamped to [0, 1], for display."),
                list_output(
                    ObservationSocket,
                    "degraded_observation",
                    "The degraded image, unclamped, with its degradation, to restore.",
                ),
            ],
            is_input_list=True,
        )

    @classmethod
    def execute(cls, image, observation, seed) -> io.NodeOutput:
        with torch.inference_mode(False):
            settings = {"observation": observation, "seed": seed}
            degraded = per_image(_degraded, {"image": each_image(image)}, settings)
        return io.NodeOutput([images(seen.y.expand(-1, 3, -1, -1)) for seen in degraded], degraded)


def _degraded(image: Tensor, observation: Observation, seed: int) -> Observation:
    return degrade(
        pictures(image),
        observation.operator,
        observation.noise_std,
        generator=torch.Generator().manual_seed(seed),
        likelihood=observation.likelihood,
    )


class KernelPreview(io.ComfyNode):
    """Shows the kernel of a blur."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintKernelPreview",
            display_name="Kernel Preview (VIPaint)",
            category="VIPaint/observe",
            description="Shows the response of a degradation to one bright point. For a blur, this is its kernel.",
            inputs=[ObservationSocket.Input("observation", tooltip="From an Observe node.")],
            outputs=[
                output(
                    io.Image,
                    "kernel",
                    "The kernel, enlarged, with white peak. For a chain: response to a point in the centre.",
                )
            ],
        )

    @classmethod
    def execute(cls, observation) -> io.NodeOutput:
        operator = observation.operator
        if isinstance(operator, Blur):
            seen = operator.kernel
        else:
            seen = response(operator, *operator.picture_size(tuple(observation.y.shape[2:]))).mean((0, 1))
            rows, columns = (seen >= _VISIBLE * seen.max()).nonzero().unbind(1)
            seen = seen[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        return io.NodeOutput(_enlarged(seen))


def _enlarged(kernel: Tensor) -> Tensor:
    """IMAGE of ``[height, width]`` values: negative values are black, the largest is white."""
    scale = max(1, _PREVIEW_SIDE // max(kernel.shape))
    levels = kernel.clamp(min=0) / kernel.max().clamp(min=torch.finfo(kernel.dtype).tiny)
    large = levels.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    return large.float().cpu()[None, ..., None].expand(-1, -1, -1, 3).contiguous()
