"""Nodes that make masks and show what becomes of them."""

from __future__ import annotations

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..vipaint_ops.errors import InputError
from ..vipaint_ops.images import masks
from .sockets import output

KINDS = (
    "box",
    "random boxes",
    "half plane",
    "brush strokes",
    "outpaint border",
    "every k-th pixel",
    "random pixels",
)
_SMALLEST, _LARGEST = 8, 16384
_SHARE_TOLERANCE = 0.01


class MakeMask(io.ComfyNode):
    """A mask by rule or by chance."""

    @classmethod
    def define_schema(cls):
        side = {"default": 512, "min": _SMALLEST, "max": _LARGEST}
        return io.Schema(
            node_id="VIPaintMakeMask",
            display_name="Make Mask",
            category="VIPaint/masks",
            description="Makes the masks that inpainting methods are compared on. 1 (white) is the hole.",
            inputs=[
                io.Int.Input("width", **side, tooltip="Width of the picture in pixels."),
                io.Int.Input("height", **side, tooltip="Height of the picture in pixels."),
                io.Combo.Input(
                    "kind", options=list(KINDS), default="box",
                    tooltip="What is hidden. Each kind has its own settings below and leaves the others unused.",
                ),
                io.Float.Input(
                    "share", default=0.25, min=0.01, max=0.99, step=0.01, round=0.001,
                    tooltip="Hidden share of the picture, for box, random boxes, brush strokes and random pixels. "
                    "Random boxes meet it to about 0.01.",
                ),
                io.Float.Input(
                    "angle", default=0.0, min=-360.0, max=360.0, step=1.0, round=0.01,
                    tooltip="Half plane: the hidden side in degrees, counter-clockwise. 0 hides the right half, 90 the "
                    "top.",
                ),
                io.Int.Input(
                    "border", default=64, min=1, max=_LARGEST // 2,
                    tooltip="Outpaint border: how many pixels are hidden along each side.",
                ),
                io.Int.Input(
                    "step", default=4, min=2, max=64,
                    tooltip="Every k-th pixel: one pixel of each block of step x step is known.",
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=2**64 - 1, control_after_generate=True,
                    tooltip="Which random boxes, strokes or pixels; the other kinds do not use it.",
                ),
            ],
            outputs=[
                output(io.Mask, "mask", "1 where the picture is hidden."),
                output(io.String, "coverage", "How much of the picture is hidden."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, width, height, kind, share, angle, border, step, seed) -> io.NodeOutput:
        generator = torch.Generator().manual_seed(seed)
        with torch.inference_mode(False):
            match kind:
                case "box":
                    known = masks.box(height, width, (_box_side(height, share), _box_side(width, share)))
                case "random boxes":
                    known = masks.random_boxes(height, width, _about(share, height * width), generator=generator)
                case "half plane":
                    known = masks.half_plane(height, width, angle)
                case "brush strokes":
                    known = masks.brush_strokes(height, width, share, generator=generator)
                case "outpaint border":
                    known = masks.outpaint_border(height, width, border)
                case "every k-th pixel":
                    known = masks.every_kth_pixel(height, width, step)
                case "random pixels":
                    known = masks.random_pixels(height, width, 1 - share, generator=generator)
            return io.NodeOutput(1 - known[0], _coverage(known))


class MaskToLatentGrid(io.ComfyNode):
    """A mask in the cells of a latent."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VIPaintMaskToLatentGrid",
            display_name="Mask to Latent Grid",
            category="VIPaint/masks",
            description="Shows a mask as coarse as the latent: a cell is a hole where any of its pixels is. Samplers "
            "that mask the latent replace that much; VIPaint itself keeps to the mask's pixels.",
            inputs=[
                io.Mask.Input("mask", tooltip="1 (white) is the hole."),
                io.Vae.Input("vae", tooltip="The VAE whose cells count: 8 x 8 pixels for Stable Diffusion."),
            ],
            outputs=[output(io.Mask, "latent_grid", "The mask in whole cells, at its own size.")],
        )

    @classmethod
    def execute(cls, mask, vae) -> io.NodeOutput:
        if not mask.isfinite().all() or mask.min() < 0 or mask.max() > 1:
            raise InputError("mask has values outside [0, 1]: 1 is what to paint, 0 what to keep")
        known = 1 - mask.float().reshape(-1, 1, *mask.shape[-2:])
        return io.NodeOutput(1 - masks.latent_grid(known, int(vae.spacial_compression_decode()))[:, 0])


def _box_side(side: int, share: float) -> int:
    """Side of the hidden box along a side of the picture, of which it leaves some."""
    return min(max(round(side * share**0.5), 1), side - 1)


def _about(share: float, pixels: int) -> tuple[float, float]:
    """A range of shares around one that some whole number of pixels always meets."""
    tolerance = max(_SHARE_TOLERANCE, 1 / pixels)
    return max(share - tolerance, 0.5 / pixels), min(share + tolerance, 1 - 0.5 / pixels)


def _coverage(known: Tensor) -> str:
    total = known.numel()
    hidden = total - int(known.count_nonzero())
    return f"{100 * hidden / total:.1f} % hidden ({hidden} of {total} pixels)"
