"""The node that says how a picture was made smaller."""

from __future__ import annotations

import torch
from comfy_api.v0_0_2 import io

from ...vipaint_ops.operators import SuperResolution
from .inpaint import noise_input, observation_output, observe

IMAGE_TOOLTIP = "The small picture. The restored one is factor times as wide and as high."


def scale_inputs() -> list[io.ComboInput]:
    """The widgets that say how a picture was made smaller."""
    return [
        io.Int.Input("factor", default=4, min=2, max=16, tooltip="How many times larger the restored picture is."),
        io.Combo.Input(
            "kind", options=["bicubic", "average"], default="bicubic",
            tooltip="How it was made smaller: bicubic as image editors do (antialiased), average of factor x factor "
            "pixels as sensors do.",
        ),
    ]  # fmt: skip


class ObserveSuperResolution(io.ComfyNode):
    """A picture that is too small."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VIPaintObserveSuperResolution",
            display_name="Observe: Super-Resolution",
            category="VIPaint/observe",
            description="Says that a picture is a smaller version of the one to restore.",
            inputs=[io.Image.Input("image", tooltip=IMAGE_TOOLTIP), *scale_inputs(), noise_input()],
            outputs=[observation_output()],
        )

    @classmethod
    def execute(cls, image, factor, kind, noise_level) -> io.NodeOutput:
        with torch.inference_mode(False):
            return io.NodeOutput(observe(image, SuperResolution(factor, kind), noise_level))
