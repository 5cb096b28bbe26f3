"""The observation node for inpainting, and the parts that observation nodes share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ...vipaint_ops.measurement.observation import Observation
from ...vipaint_ops.operators import Inpainting, Operator
from ..batches import each_image, each_mask, per_image
from ..gather import list_output
from ..pictures import masked_picture, pictures
from ..search import schema
from ..shown import noticed, plan_items, with_text
from ..sockets import ObservationSocket

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
    return list_output(
        ObservationSocket,
        "observation",
        "For Fit Posterior, Sample Posterior or a sampler. Of several images: a list, for a run each.",
    )


def observe(
    operator: Callable[..., Operator], image: Sequence[Tensor], noise_level: Sequence[float], **settings: Sequence[Any]
) -> io.NodeOutput:
    """The observations of a list of IMAGE, each through ``operator(**settings)`` with its items of those lists.

    Raises:
        InputError: the operator does not make images of this size, or an error of :func:`per_image`.
    """

    def observation(image: Tensor, noise_level: float, **setting: Any) -> Observation:
        picture, made = pictures(image), operator(**setting)
        made.picture_size((picture.shape[2], picture.shape[3]))
        return Observation(picture, made, noise_level)

    with torch.inference_mode(False):
        lists = settings | {"noise_level": noise_level}
        observations = per_image(observation, {"image": each_image(image)}, lists)
    plan_items(len(observations))
    return io.NodeOutput(observations)


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
                io.Image.Input("image", tooltip="The image, or several. Pixels under the mask are not used."),
                io.Mask.Input(
                    "mask",
                    tooltip="1 = masked area, 0 = known pixels. Grey pixels are masked. A mask of another size but the "
                    "same shape is resized. One for all images, or one each.",
                ),
                noise_input(),
            ],
            outputs=[observation_output()],
            is_input_list=True,
        )

    @classmethod
    def execute(cls, image, mask, noise_level) -> io.NodeOutput:
        lists = {"image": each_image(image), "mask": each_mask(mask)}
        with noticed() as notices, torch.inference_mode(False):
            observations = per_image(_known_pixels, lists, {"noise_level": noise_level})
        plan_items(len(observations))
        return with_text("\n".join(notices), observations)


def _known_pixels(image: Tensor, mask: Tensor, noise_level: float) -> Observation:
    picture, known = masked_picture(image, mask)
    return Observation(known * picture, Inpainting(known), noise_level)
