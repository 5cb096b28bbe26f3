"""Observation nodes for blurred images."""

from __future__ import annotations

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ...vipaint_ops.operators import Blur, GaussianBlur, MotionBlur
from ..batches import each_image
from ..pictures import pictures
from ..search import schema
from ..sockets import FIXED_SEED
from .inpaint import noise_input, observation_output, observe

IMAGE_TOOLTIP = "The blurred image."
STD_TOOLTIP = "Standard deviation of the blur in pixels."
ANGLE_TOOLTIP = "Direction of the motion in degrees, counter-clockwise. 0 = horizontal, 90 = vertical."
KERNEL_TOOLTIP = (
    "Image of the point-spread function: a bright spot on black with odd sides. Colours are averaged and the sum is "
    "normalised."
)


def kernel_size_input(tooltip: str) -> io.Int.Input:
    """The widget for the kernel size."""
    return io.Int.Input("kernel_size", default=61, min=3, max=511, step=2, tooltip=tooltip)


class ObserveGaussianBlur(io.ComfyNode):
    """A Gaussian blur."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintObserveGaussianBlur",
            display_name="Observe: Gaussian Blur",
            category="VIPaint/observe",
            description="Describes an image blurred by a Gaussian kernel, for example out of focus.",
            inputs=[
                io.Image.Input("image", tooltip=IMAGE_TOOLTIP),
                kernel_size_input("Side of the kernel in pixels, odd. The kernel is zero beyond 4 std."),
                io.Float.Input("std", default=3.0, min=0.1, max=100.0, step=0.1, round=0.01, tooltip=STD_TOOLTIP),
                noise_input(),
            ],
            outputs=[observation_output()],
            is_input_list=True,
        )

    @classmethod
    def execute(cls, image, kernel_size, std, noise_level) -> io.NodeOutput:
        return observe(GaussianBlur, image, noise_level, kernel_size=kernel_size, std=std)


class ObserveMotionBlur(io.ComfyNode):
    """Motion blur of a straight or random path."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintObserveMotionBlur",
            display_name="Observe: Motion Blur",
            category="VIPaint/observe",
            description="Describes an image with motion blur: a straight motion or camera shake.",
            inputs=[
                io.Image.Input("image", tooltip=IMAGE_TOOLTIP),
                io.Combo.Input(
                    "kind",
                    options=["straight", "camera shake"],
                    default="straight",
                    tooltip="straight: along a line. camera shake: a random path, for test images.",
                ),
                kernel_size_input("Side of the kernel in pixels, odd: length of the motion + 1."),
                io.Float.Input(
                    "angle", default=0.0, min=-360.0, max=360.0, step=1.0, round=0.01, tooltip=ANGLE_TOOLTIP
                ),
                io.Float.Input(
                    "intensity",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=0.01,
                    tooltip="Camera shake: 0 = straight line, 1 = very irregular path.",
                ),
                io.Int.Input("seed", **FIXED_SEED, tooltip="Camera shake: seed of the path."),
                noise_input(),
            ],
            outputs=[observation_output()],
            is_input_list=True,
        )

    @classmethod
    def execute(cls, image, noise_level, **settings) -> io.NodeOutput:
        return observe(_motion, image, noise_level, **settings)


def _motion(kind: str, kernel_size: int, angle: float, intensity: float, seed: int) -> MotionBlur:
    if kind == "straight":
        return MotionBlur(kernel_size, angle)
    return MotionBlur.shake(kernel_size, intensity, torch.Generator().manual_seed(seed))


class ObserveKernel(io.ComfyNode):
    """A blur by a given kernel."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintObserveKernel",
            display_name="Observe: Kernel",
            category="VIPaint/observe",
            description="Describes an image blurred by a custom kernel, given as an image.",
            inputs=[
                io.Image.Input("image", tooltip=IMAGE_TOOLTIP),
                io.Image.Input("kernel", tooltip=KERNEL_TOOLTIP),
                noise_input(),
            ],
            outputs=[observation_output()],
            is_input_list=True,
        )

    @classmethod
    def execute(cls, image, kernel, noise_level) -> io.NodeOutput:
        return observe(_blur_of, image, noise_level, kernel=each_image(kernel))


def _blur_of(kernel: Tensor) -> Blur:
    return Blur.of_picture(pictures(kernel, "kernel"))
