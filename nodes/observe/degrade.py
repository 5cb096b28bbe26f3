"""Nodes that make test cases, and show what a degradation does."""

from __future__ import annotations

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ...vipaint_ops.evaluation.degrade import degrade, response
from ...vipaint_ops.operators import Blur
from ..pictures import images, single_picture
from ..sockets import SEED, ObservationSocket, output

_PREVIEW_SIDE = 256
_VISIBLE = 0.01
"""Of what one bright point becomes, the preview shows the part where something is brighter than this, to its peak."""


class DegradeImage(io.ComfyNode):
    """A clean picture, spoilt on purpose."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VIPaintDegradeImage",
            display_name="Degrade Image",
            category="VIPaint/observe",
            description="Applies the degradation of an observation to a clean picture and adds its noise: a test case "
            "of which the truth is known.",
            inputs=[
                io.Image.Input("image", tooltip="The clean picture."),
                ObservationSocket.Input(
                    "observation",
                    tooltip="Its degradation and its noise level are used, not its picture: any will do there.",
                ),
                io.Int.Input("seed", **SEED, tooltip="Which noise is added."),
            ],
            outputs=[
                output(io.Image, "degraded", "What is left of the picture, to look at: cut to black and white."),
                output(ObservationSocket, "degraded_observation", "What is left of the picture, uncut, to restore."),
            ],
        )

    @classmethod
    def execute(cls, image, observation, seed) -> io.NodeOutput:
        picture = single_picture(image)
        generator = torch.Generator().manual_seed(seed)
        with torch.inference_mode(False):
            degraded = degrade(
                picture, observation.operator, observation.noise_std, generator=generator,
                likelihood=observation.likelihood,
            )  # fmt: skip
        return io.NodeOutput(images(degraded.y.expand(-1, 3, -1, -1)), degraded)


class KernelPreview(io.ComfyNode):
    """The kernel of a blur."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VIPaintKernelPreview",
            display_name="Kernel Preview",
            category="VIPaint/observe",
            description="Shows what a degradation makes of one bright point: for a blur, its kernel.",
            inputs=[ObservationSocket.Input("observation", tooltip="From an Observe node.")],
            outputs=[
                output(
                    io.Image, "kernel", "The kernel, enlarged; its peak is white. Of a chain: a point in the middle."
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
    """IMAGE of ``[height, width]`` numbers, of which negative ones are as dark as 0 and the largest is white."""
    scale = max(1, _PREVIEW_SIDE // max(kernel.shape))
    levels = kernel.clamp(min=0) / kernel.max().clamp(min=torch.finfo(kernel.dtype).tiny)
    large = levels.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    return large.float().cpu()[None, ..., None].expand(-1, -1, -1, 3).contiguous()
