"""The node with an example photograph and its mask, which makes way for the user's own."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..vipaint_ops.images.pictures import load_image, load_mask
from .search import schema
from .sockets import output

_FOLDER = Path(__file__).parent / "examples"
_FILES = {"cup (remove the spoon)": "cup", "raccoon (remove the blade of grass)": "raccoon"}


class ExamplePhotograph(io.ComfyNode):
    """A photograph that comes with the pack and a mask over an object in it, or what is connected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VIPaintExamplePhotograph",
            display_name="Example Photograph (VIPaint)",
            category="VIPaint/loaders",
            description="An example photograph with its mask, until your own image is connected. No files are needed.",
            inputs=[
                io.Combo.Input(
                    "photograph",
                    options=list(_FILES),
                    default=next(iter(_FILES)),
                    tooltip="The example, in parentheses what its mask covers. cup: square, 400 pixels. "
                    "raccoon: 4:3, 1024 pixels.",
                ),
                io.Int.Input(
                    "size",
                    default=512,
                    min=16,
                    max=4096,
                    step=16,
                    tooltip="Longer side of the example in pixels. Your own image is not resized.",
                ),
                io.Image.Input("own_image", optional=True, tooltip="Your own image, used in place of the example."),
                io.Mask.Input("own_mask", optional=True, tooltip="Your own mask, used in place of the example's."),
            ],
            outputs=[
                output(io.Image, "image", "The example, or your own image."),
                output(io.Mask, "mask", "1 = masked area. Empty for your own image without a mask."),
            ],
        )

    @classmethod
    def execute(cls, photograph: str, size: int, own_image: Tensor | None = None, own_mask: Tensor | None = None):
        if own_image is None:
            image, mask = _example(_FILES[photograph], size)
        else:
            image, mask = own_image, own_image.new_zeros(1, *own_image.shape[1:3])
        return io.NodeOutput(image, mask if own_mask is None else own_mask)


def _example(name: str, size: int) -> tuple[Tensor, Tensor]:
    """IMAGE and MASK of an example, the longer side resized to ``size``."""
    # Made outside inference mode, so that gradients may later pass through what is computed from them.
    with torch.inference_mode(False):
        picture = (load_image(_FOLDER / f"{name}.jpg") + 1) / 2
        hidden = 1 - load_mask(_FOLDER / f"{name}_mask.png", white="fill")
        height, width = picture.shape[2:]
        sides = tuple(round(side * size / max(height, width)) for side in (height, width))
        resized = F.interpolate(picture, sides, mode="bicubic", antialias=True).clamp(0, 1)
        covered = F.interpolate(hidden, sides, mode="bilinear", antialias=True) > 0
        return resized.movedim(1, -1), covered[0].float()
