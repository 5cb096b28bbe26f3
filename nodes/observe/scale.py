"""The observation node for super-resolution."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ...vipaint_ops.operators import SuperResolution
from ..search import schema
from .inpaint import noise_input, observation_output, observe

IMAGE_TOOLTIP = "The small image. The result is factor times as wide and high."


def scale_inputs() -> list[io.ComboInput]:
    """The widgets of a downscaling."""
    return [
        io.Int.Input("factor", default=4, min=2, max=16, tooltip="Upscaling factor."),
        io.Combo.Input(
            "kind",
            options=["bicubic", "average"],
            default="bicubic",
            tooltip="Downscaling method. bicubic: antialiased, as in image editors. average: mean of factor x factor "
            "blocks, as in sensors.",
        ),
    ]


class ObserveSuperResolution(io.ComfyNode):
    """A downscaled image."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintObserveSuperResolution",
            display_name="Observe: Super-Resolution",
            category="VIPaint/observe",
            description="Describes a downscaled image, for super-resolution.",
            inputs=[io.Image.Input("image", tooltip=IMAGE_TOOLTIP), *scale_inputs(), noise_input()],
            outputs=[observation_output()],
            is_input_list=True,
        )

    @classmethod
    def execute(cls, image, factor, kind, noise_level) -> io.NodeOutput:
        return observe(SuperResolution, image, noise_level, factor=factor, kind=kind)
