"""The node that reads the size of the images that a model was trained for."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

from .host.conditions import control_patches
from .shown import with_text
from .sockets import output

_SD1_CONTEXT, _SD1_SIZE, _NEWER_SIZE = 768, 512, 1024
_LARGEST = 16384


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
                io.Model.Input(
                    "model",
                    tooltip=f"The diffusion model. With a control patch (Qwen-Image, Z-Image) the size is {_LARGEST}, "
                    "as its picture is not cropped.",
                ),
            ],
            outputs=[output(io.Int, "size", "Side in pixels: 512 for SD 1.x, 1024 for newer models.")],
        )

    @classmethod
    def execute(cls, model) -> io.NodeOutput:
        if control_patches(model.model_options["transformer_options"].get("patches", {})):
            return with_text("Notice: the image is not cropped: a control patch of the model lies on it", _LARGEST)
        return io.NodeOutput(_trained_size(model.model.model_config))


def _trained_size(config: Any) -> int:
    own = vars(config).get("picture_size")  # the host's configurations warn of attributes that they lack
    return own or (_SD1_SIZE if config.unet_config.get("context_dim") == _SD1_CONTEXT else _NEWER_SIZE)
