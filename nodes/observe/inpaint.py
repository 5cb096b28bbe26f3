"""Nodes that say what was measured of a picture."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ...vipaint_ops.measurement.observation import Observation
from ...vipaint_ops.operators import Inpainting, Operator
from ..pictures import observed, single_picture
from ..sockets import ObservationSocket, output

NOISE_TOOLTIP = (
    "How far what is known may be missed, in standard deviations on a scale where black is -1 and white 1. It must "
    "cover what the VAE cannot reproduce: 0.05 suits Stable Diffusion's VAEs, 0.02 the embedded prior. Larger follows "
    "the model more and the picture less."
)


def noise_input() -> Any:
    """The widget of every node that observes."""
    return io.Float.Input(
        "noise_level", default=0.05, min=0.001, max=1.0, step=0.005, round=0.001, tooltip=NOISE_TOOLTIP
    )


def observation_output() -> Any:
    """The output of every node that observes."""
    return output(ObservationSocket, "observation", "For Fit Posterior and Sample Posterior, or a sampler.")


def observe(image: Tensor, operator: Operator, noise_level: float) -> Observation:
    """An IMAGE as what ``operator`` measured.

    Raises:
        InputError: it makes no pictures of this size.
    """
    picture = single_picture(image)
    with torch.inference_mode(False):
        operator.picture_size((picture.shape[2], picture.shape[3]))
        return Observation(picture, operator, noise_level)


class ObserveInpaint(io.ComfyNode):
    """A picture with a hole."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VIPaintObserveInpaint",
            display_name="Observe: Inpaint",
            category="VIPaint/observe",
            description="Says which part of a picture is known. The rest is what VIPaint restores, in several ways.",
            inputs=[
                io.Image.Input("image", tooltip="The picture. What lies under the mask is never looked at."),
                io.Mask.Input(
                    "mask",
                    tooltip="1 (white) is the hole to fill, 0 what is known; greys are known in part. A mask of "
                    "another size but the same shape is resized.",
                ),
                noise_input(),
            ],
            outputs=[observation_output()],
        )

    @classmethod
    def execute(cls, image, mask, noise_level) -> io.NodeOutput:
        picture = single_picture(image)
        known = observed(mask, *picture.shape[2:])
        with torch.inference_mode(False):
            return io.NodeOutput(Observation(known * picture, Inpainting(known), noise_level))
