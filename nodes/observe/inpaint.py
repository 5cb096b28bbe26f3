"""The observation node for inpainting, and the parts that observation nodes share."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ...vipaint_ops.measurement.observation import Observation
from ...vipaint_ops.operators import Inpainting, Operator
from ..pictures import observed, single_picture
from ..search import schema
from ..shown import noticed, with_text
from ..sockets import ObservationSocket, output

NOISE_TOOLTIP = (
    "Noise standard deviation of the observation, for pixel values in [-1, 1]. It must cover the VAE's reconstruction "
    "error: 0.05 for Stable Diffusion, 0.02 for the embedded prior. Higher values follow the model more."
)


def noise_input() -> Any:
    """The noise level widget of observation nodes."""
    return io.Float.Input(
        "noise_level", default=0.05, min=0.001, max=1.0, step=0.005, round=0.001, tooltip=NOISE_TOOLTIP
    )


def observation_output() -> Any:
    """The output of observation nodes."""
    return output(ObservationSocket, "observation", "For Fit Posterior, Sample Posterior or a sampler.")


def observe(image: Tensor, operator: Operator, noise_level: float) -> Observation:
    """The observation of an IMAGE through ``operator``.

    Raises:
        InputError: the operator does not make images of this size.
    """
    picture = single_picture(image)
    with torch.inference_mode(False):
        operator.picture_size((picture.shape[2], picture.shape[3]))
        return Observation(picture, operator, noise_level)


class ObserveInpaint(io.ComfyNode):
    """An image with a masked area."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintObserveInpaint",
            display_name="Observe: Inpaint",
            category="VIPaint/observe",
            description="Defines the known pixels of an image and their noise level. VIPaint fills the masked area.",
            inputs=[
                io.Image.Input("image", tooltip="The image. Pixels under the mask are not used."),
                io.Mask.Input(
                    "mask",
                    tooltip="1 = masked area, 0 = known pixels. Grey pixels are masked. A mask of another size but the "
                    "same shape is resized.",
                ),
                noise_input(),
            ],
            outputs=[observation_output()],
        )

    @classmethod
    def execute(cls, image, mask, noise_level) -> io.NodeOutput:
        picture = single_picture(image)
        with noticed() as notices:
            known = observed(mask, *picture.shape[2:])
        with torch.inference_mode(False):
            return with_text("\n".join(notices), Observation(known * picture, Inpainting(known), noise_level))
