"""The node that reads the size of the images that a model was trained for."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

from .shown import with_text
from .sockets import output

_SD1_CONTEXT, _SD1_SIZE, _NEWER_SIZE = 768, 512, 1024
_LARGEST = 16384
_ON_THE_PICTURE = ("control", "area", "mask", "concat_latent_image", "concat_mask", "gligen")
"""Entries of a conditioning that have their place on the picture."""


class ModelSize(io.ComfyNode):
    """The size of the images that a model was trained for."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VIPaintModelSize",
            display_name="Model Size (VIPaint)",
            category="VIPaint/internal",
            description="The side of the images that a model was trained for, for the size of Crop for Inpainting.",
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model."),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip=f"With a ControlNet, an area or a mask, the size is {_LARGEST}: a window does not fit it.",
                ),
                io.Conditioning.Input("negative", optional=True, tooltip="As positive."),
            ],
            outputs=[output(io.Int, "size", "Side in pixels: 512 for SD 1.x, 1024 for newer models.")],
        )

    @classmethod
    def execute(cls, model, positive=(), negative=()) -> io.NodeOutput:
        placed = {key for _, entries in (*positive, *negative) for key in _ON_THE_PICTURE if key in entries}
        if placed:
            entries = ", ".join(sorted(placed))
            return with_text(f"Notice: the image is not cropped: its conditioning lies on it ({entries})", _LARGEST)
        return io.NodeOutput(_trained_size(model.model.model_config))


def _trained_size(config: Any) -> int:
    own = vars(config).get("picture_size")  # the host's configurations warn of attributes that they lack
    return own or (_SD1_SIZE if config.unet_config.get("context_dim") == _SD1_CONTEXT else _NEWER_SIZE)
