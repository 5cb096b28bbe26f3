"""The all-in-one nodes for blurred and for small images."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io
from comfy_execution.graph_utils import GraphBuilder

from .gather import expanded, list_output
from .inpaint import LINK, model_inputs, restore, sampling_inputs
from .observe import blur as observe_blur
from .observe import scale as observe_scale
from .presets import FOR_OPERATORS
from .search import schema


class Deblur(io.ComfyNode):
    """Observe a blur, fit and sample."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintDeblur",
            display_name="VIPaint Deblur",
            category="VIPaint",
            description="Deblurs an image with several different samples that are consistent with it. A new seed draws "
            "new samples without a new fit.",
            inputs=[
                *model_inputs(),
                io.Image.Input("image", extra_dict=LINK, tooltip=observe_blur.IMAGE_TOOLTIP),
                io.Combo.Input(
                    "blur",
                    options=["gaussian", "motion"],
                    default="gaussian",
                    tooltip="gaussian: out of focus, uses std. motion: along a line, uses angle. A connected kernel "
                    "replaces both.",
                ),
                observe_blur.kernel_size_input(
                    "Side of the kernel in pixels, odd. gaussian: 6 std or more. motion: length of the motion + 1."
                ),
                io.Float.Input(
                    "std", default=3.0, min=0.1, max=100.0, step=0.1, round=0.01, tooltip=observe_blur.STD_TOOLTIP
                ),
                io.Float.Input(
                    "angle",
                    default=0.0,
                    min=-360.0,
                    max=360.0,
                    step=1.0,
                    round=0.01,
                    tooltip=observe_blur.ANGLE_TOOLTIP,
                ),
                *sampling_inputs(FOR_OPERATORS),
                io.Image.Input("kernel", optional=True, extra_dict=LINK, tooltip=observe_blur.KERNEL_TOOLTIP),
            ],
            outputs=_outputs(),
            enable_expand=True,
        )

    @classmethod
    def execute(cls, image, blur, kernel_size, std, angle, noise_level, kernel=None, **restoration) -> io.NodeOutput:
        seen = {"image": image, "noise_level": noise_level}
        graph = GraphBuilder()
        if kernel is not None:
            observation = graph.node("VIPaintObserveKernel", **seen, kernel=kernel)
        elif blur == "gaussian":
            observation = graph.node("VIPaintObserveGaussianBlur", **seen, kernel_size=kernel_size, std=std)
        else:
            observation = graph.node(
                "VIPaintObserveMotionBlur",
                **seen,
                kind="straight",
                kernel_size=kernel_size,
                angle=angle,
                intensity=0.0,
                seed=0,
            )
        return _expanded(graph, observation, restoration)


class SuperResolve(io.ComfyNode):
    """Observe a small image, fit and sample."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintSuperResolve",
            display_name="VIPaint Super-Resolve",
            category="VIPaint",
            description="Upscales an image with several different samples that are consistent with it. A new seed "
            "draws new samples without a new fit.",
            inputs=[
                *model_inputs(),
                io.Image.Input("image", extra_dict=LINK, tooltip=observe_scale.IMAGE_TOOLTIP),
                *observe_scale.scale_inputs(),
                *sampling_inputs(FOR_OPERATORS),
            ],
            outputs=_outputs(),
            enable_expand=True,
        )

    @classmethod
    def execute(cls, image, factor, kind, noise_level, **restoration) -> io.NodeOutput:
        graph = GraphBuilder()
        observation = graph.node(
            "VIPaintObserveSuperResolution", image=image, factor=factor, kind=kind, noise_level=noise_level
        )
        return _expanded(graph, observation, restoration)


def _outputs() -> list[Any]:
    return [
        list_output(io.Image, "images", "The samples."),
        list_output(io.Latent, "latent", "The samples before decoding."),
    ]


def _expanded(graph: GraphBuilder, observation: Any, restoration: dict[str, Any]) -> io.NodeOutput:
    sample = restore(graph, observation.out(0), **restoration)
    return expanded(graph, sample.out(1), sample.out(0))
