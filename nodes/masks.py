"""Nodes that make and show masks."""

from __future__ import annotations

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..vipaint_ops.images import masks
from ..vipaint_ops.operators.inpainting import evidence
from .pictures import mask_of
from .search import schema
from .shown import with_text
from .sockets import FIXED_SEED, output

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
    """A regular or random mask."""

    @classmethod
    def define_schema(cls):
        side = {"default": 512, "min": _SMALLEST, "max": _LARGEST}
        return schema(
            node_id="VIPaintMakeMask",
            display_name="Make Mask (VIPaint)",
            category="VIPaint/masks",
            description="Creates standard masks of inpainting benchmarks. 1 = masked area.",
            inputs=[
                io.Int.Input("width", **side, tooltip="Width of the image in pixels."),
                io.Int.Input("height", **side, tooltip="Height of the image in pixels."),
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    default="box",
                    tooltip="Shape of the masked area. Each kind uses its own settings below and ignores the others.",
                ),
                io.Float.Input(
                    "share",
                    default=0.25,
                    min=0.01,
                    max=0.99,
                    step=0.01,
                    round=0.001,
                    tooltip="Masked fraction of the image, for box, random boxes (within about 0.01), brush strokes "
                    "and random pixels.",
                ),
                io.Float.Input(
                    "angle",
                    default=0.0,
                    min=-360.0,
                    max=360.0,
                    step=1.0,
                    round=0.01,
                    tooltip="Half plane: direction of the masked side in degrees, counter-clockwise. 0 = right half, "
                    "90 = top.",
                ),
                io.Int.Input(
                    "border",
                    default=64,
                    min=1,
                    max=_LARGEST // 2,
                    tooltip="Outpaint border: masked pixels along each side.",
                ),
                io.Int.Input(
                    "step",
                    default=4,
                    min=2,
                    max=64,
                    tooltip="Every k-th pixel: one pixel of each step x step block is known.",
                ),
                io.Int.Input(
                    "seed",
                    **FIXED_SEED,
                    tooltip="Seed of random boxes, brush strokes and random pixels.",
                ),
            ],
            outputs=[
                output(io.Mask, "mask", "The mask (1 = masked area)."),
                output(io.String, "coverage", "The masked fraction as text."),
            ],
        )

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
            coverage = _coverage(known)
            return with_text(coverage, 1 - known[0], coverage)


class MaskToLatentGrid(io.ComfyNode):
    """A mask expanded to latent cells."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintMaskToLatentGrid",
            display_name="Mask to Latent Grid (VIPaint)",
            category="VIPaint/masks",
            description="Expands a mask to whole latent cells, as samplers that mask the latent do. VIPaint uses the "
            "mask per pixel.",
            inputs=[
                io.Mask.Input("mask", tooltip="The mask (1 = masked area)."),
                io.Vae.Input("vae", tooltip="VAE that sets the cell size (8 x 8 pixels for Stable Diffusion)."),
            ],
            outputs=[output(io.Mask, "latent_grid", "The mask in whole latent cells, at its own size.")],
        )

    @classmethod
    def execute(cls, mask, vae) -> io.NodeOutput:
        known = evidence(mask_of(mask))
        return io.NodeOutput(1 - masks.latent_grid(known, int(vae.spacial_compression_decode()))[:, 0])


def _box_side(side: int, share: float) -> int:
    """Side of the masked box; at least one pixel of the image stays known."""
    return min(max(round(side * share**0.5), 1), side - 1)


def _about(share: float, pixels: int) -> tuple[float, float]:
    """A range of fractions around ``share`` that contains a whole number of pixels."""
    tolerance = max(_SHARE_TOLERANCE, 1 / pixels)
    return max(share - tolerance, 0.5 / pixels), min(share + tolerance, 1 - 0.5 / pixels)


def _coverage(known: Tensor) -> str:
    total = known.numel()
    hidden = total - int(known.count_nonzero())
    return f"{100 * hidden / total:.1f} % hidden ({hidden} of {total} pixels)"
