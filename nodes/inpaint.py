"""The all-in-one node for inpainting, and the parts that all-in-one nodes share."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io
from comfy_execution.graph_utils import GraphBuilder

from .composite import FEATHER_TOOLTIP, MATCH_TOOLTIP
from .gather import expanded, list_output
from .observe.inpaint import noise_input
from .posterior import VAE_TOOLTIP
from .presets import PRESET_TOOLTIP, RESTORATIONS, expected_cost, fit_share
from .search import schema
from .shown import plan_fit, show
from .sockets import SEED

LINK = {"rawLink": True}
"""Passes the link instead of the value, for the nodes that the node expands into: the host caches their results."""
_FIT_SEED = 0
_CROPPED = {"positive": 3, "negative": 4}
"""Outputs of Crop for Inpainting."""


def model_inputs() -> list[Any]:
    """Model inputs of an all-in-one node."""
    return [
        io.Model.Input("model", extra_dict=LINK, tooltip="The diffusion model. LoRAs apply."),
        io.Conditioning.Input("positive", extra_dict=LINK, tooltip="Prompt for the whole image."),
        io.Conditioning.Input(
            "negative",
            optional=True,
            extra_dict=LINK,
            tooltip="Negative prompt. Not connected: the positive one set to zero. Not used at cfg 1.",
        ),
        io.Vae.Input("vae", extra_dict=LINK, tooltip=VAE_TOOLTIP),
    ]


def sampling_inputs(presets: list[str]) -> list[Any]:
    """Sampling widgets of an all-in-one node with these presets."""
    noise_level = noise_input()
    noise_level.extra_dict = LINK  # an argument of sockets alone in ComfyUI 0.3.64
    return [
        io.Int.Input("seed", **SEED, tooltip="A new seed draws new samples of the same fit."),
        io.Float.Input(
            "cfg",
            default=3.0,
            min=0.0,
            max=30.0,
            step=0.1,
            round=0.01,
            tooltip="Classifier-free guidance: how closely the prompt is followed. 3 to 5 suits most models; higher "
            "values reduce diversity. 1 = off, half the cost: for distilled models such as Flux, and without a prompt.",
        ),
        io.Int.Input("num_samples", default=4, min=1, max=64, tooltip="Number of samples."),
        io.Combo.Input(
            "preset",
            options=presets,
            default="balanced",
            tooltip=PRESET_TOOLTIP,
        ),
        noise_level,
    ]


def restore(
    graph: GraphBuilder,
    observation: Any,
    *,
    vae: Any,
    seed: int,
    num_samples: int,
    preset: str,
    positive: Any,
    negative: Any = None,
    **guidance: Any,
) -> Any:
    """Add the nodes that fit and sample ``observation``, and return the sampling node. Models and data are links.

    ``guidance`` are the other inputs of CFGGuider.
    """
    plan_fit(fit_share(preset, num_samples))
    show(
        f"Cost ({preset}): about {expected_cost(preset, num_samples):.0f} times an image of KSampler in 28 steps, for "
        "each image or window"
    )
    if negative is None:
        negative = graph.node("ConditioningZeroOut", conditioning=positive).out(0)
    guider = graph.node("CFGGuider", positive=positive, negative=negative, **guidance).out(0)
    model_and_picture = {"guider": guider, "vae": vae, "observation": observation, "checkpointing": "auto"}
    fit = graph.node(
        "VIPaintFitPosterior",
        **model_and_picture,
        seed=_FIT_SEED,
        preset=preset,
        keypoints="",
        iterations=-1,
        samples=0,
        mean_rate=0.0,
        log_std_rate=0.0,
        gate_rate=0.0,
    )
    return graph.node(
        "VIPaintSamplePosterior",
        **model_and_picture,
        posterior=fit.out(0),
        num_samples=num_samples,
        seed=seed,
        steps=0,
        guidance=RESTORATIONS[preset],
        batch_size=4,
        first_sample=0,
    )


class Inpaint(io.ComfyNode):
    """Observe, fit, sample and composite."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintInpaint",
            display_name="VIPaint Inpaint",
            category="VIPaint",
            description="Fills the masked area with several different samples. A new seed draws new samples without a "
            "new fit.",
            inputs=[
                *model_inputs(),
                io.Image.Input("image", extra_dict=LINK, tooltip="The image to inpaint."),
                io.Mask.Input("mask", extra_dict=LINK, tooltip="Mask of the area to fill (1 = fill)."),
                *sampling_inputs(list(RESTORATIONS)),
                io.Int.Input("feather", default=0, min=0, max=256, tooltip=FEATHER_TOOLTIP),
                io.Boolean.Input("colour_match", default=False, tooltip=MATCH_TOOLTIP),
                io.Boolean.Input(
                    "crop",
                    default=True,
                    optional=True,
                    tooltip="Images larger than the model's size: restore a window around each masked area, and stitch "
                    "it into the untouched image. Off: restore the whole image at once.",
                ),
            ],
            outputs=[
                list_output(io.Image, "images", "The samples with the original known pixels."),
                list_output(io.Latent, "latent", "The samples before decoding and compositing."),
            ],
            enable_expand=True,
        )

    @classmethod
    def execute(cls, image, mask, noise_level, feather, colour_match, crop=True, **restoration) -> io.NodeOutput:
        graph = GraphBuilder()
        if crop:
            size = graph.node("VIPaintModelSize", model=restoration["model"]).out(0)
            conditions = {name: restoration[name] for name in restoration.keys() & {"positive", "negative"}}
            cut = graph.node(
                "VIPaintCropForInpaint",
                image=image,
                mask=mask,
                size=size,
                context=0.5,
                enlarge=2.0,
                keep_small=True,
                vae=restoration["vae"],
                **conditions,
            )
            image, mask = cut.out(0), cut.out(1)
            restoration |= {name: cut.out(place) for name, place in _CROPPED.items() if name in conditions}
        observation = graph.node("VIPaintObserveInpaint", image=image, mask=mask, noise_level=noise_level)
        sample = restore(graph, observation.out(0), **restoration)
        composited = graph.node(
            "VIPaintCompositeObserved",
            images=sample.out(1),
            original=image,
            mask=mask,
            feather=feather,
            colour_match=colour_match,
        )
        images = composited.out(0)
        if crop:
            images = graph.node("VIPaintStitch", stitch=cut.out(2), images=images, feather=0).out(0)
        return expanded(graph, images, sample.out(0))
