"""The node with a test image and its mask."""

from __future__ import annotations

import torch
from comfy_api.v0_0_2 import io

from ..vipaint_ops.images.masks import NAMES, by_name
from ..vipaint_ops.images.pictures import load_image
from ..vipaint_ops.priors.embedded import EMBEDDED_PRIOR
from .search import schema
from .sockets import FIXED_SEED, output


class DemoScene(io.ComfyNode):
    """The demonstration image of the embedded prior, and a mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VIPaintDemoScene",
            display_name="Demo Scene (VIPaint)",
            category="VIPaint/loaders",
            description="A 64 x 64 test image and a mask for the embedded prior. No files are needed.",
            inputs=[
                io.Combo.Input(
                    "hole",
                    options=list(NAMES),
                    default="half",
                    tooltip="half: right half. box: centre. random: rectangles. pixels: 70 % of the pixels.",
                ),
                io.Int.Input(
                    "seed",
                    **FIXED_SEED,
                    tooltip="Seed of random and pixels. Not used by half and box.",
                ),
            ],
            outputs=[
                output(io.Image, "image", "The test image, 64 x 64."),
                output(io.Mask, "mask", "1 = masked area."),
            ],
        )

    @classmethod
    def execute(cls, hole: str, seed: int) -> io.NodeOutput:
        # Made outside inference mode, so that gradients may later pass through what is computed from them.
        with torch.inference_mode(False):
            image = (load_image(EMBEDDED_PRIOR.with_name("demo_scene.png")) + 1) / 2
            generator = torch.Generator().manual_seed(seed)
            mask = 1 - by_name(hole, *image.shape[2:], generator=generator)
            return io.NodeOutput(image.movedim(1, -1), mask[0])
