"""A picture with a hole to try things on."""

from __future__ import annotations

import torch
from comfy_api.v0_0_2 import io

from ..vipaint_ops.images.masks import NAMES, by_name
from ..vipaint_ops.images.pictures import load_image
from ..vipaint_ops.priors.embedded import EMBEDDED_PRIOR
from .sockets import output


class DemoScene(io.ComfyNode):
    """The picture that the embedded prior's demonstration restores, and a mask for it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VIPaintDemoScene",
            display_name="Demo Scene",
            category="VIPaint/loaders",
            description="A 64-pixel scene and a hole in it: something to try the embedded prior on, without any file.",
            inputs=[
                io.Combo.Input(
                    "hole",
                    options=list(NAMES),
                    default="half",
                    tooltip="What is hidden: the right half, the middle, random rectangles, or 70 % of the pixels.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=True,
                    tooltip="Which random rectangles or pixels; half and box do not use it.",
                ),
            ],
            outputs=[
                output(io.Image, "image", "The whole scene, 64 x 64."),
                output(io.Mask, "mask", "1 where the scene is hidden."),
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
