"""The one node that does it all, and what its siblings share with it."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io
from comfy_execution.graph_utils import GraphBuilder

from .composite import FEATHER_TOOLTIP, MATCH_TOOLTIP
from .observe.inpaint import noise_input
from .posterior import VAE_TOOLTIP
from .presets import RESTORATIONS, check_choice
from .sockets import SEED, output

LINK = {"rawLink": True}
"""Hands the node its link instead of the value, for the nodes it expands into: so the host caches their results."""
_FIT_SEED = 0


def model_inputs() -> list[Any]:
    """What every node that does it all needs of a model."""
    return [
        io.Model.Input("model", extra_dict=LINK, tooltip="The diffusion model; LoRAs on it apply."),
        io.Conditioning.Input("positive", extra_dict=LINK, tooltip="What the whole picture should show."),
        io.Conditioning.Input("negative", extra_dict=LINK, tooltip="What it should not; unused at cfg 1."),
        io.Vae.Input("vae", extra_dict=LINK, tooltip=VAE_TOOLTIP),
    ]


def sampling_inputs() -> list[Any]:
    """The widgets of every node that does it all."""
    return [
        io.Int.Input("seed", **SEED, tooltip="Another seed draws other samples of the same fit."),
        io.Float.Input(
            "cfg", default=1.0, min=0.0, max=30.0, step=0.1, round=0.01,
            tooltip="Guidance by the prompt. 1 samples what the model believes and costs half; prompts need 3 to 5; "
            "more makes samples alike.",
        ),
        io.Int.Input("num_samples", default=4, min=1, max=64, tooltip="How many restorations to draw."),
        io.Combo.Input(
            "preset", options=list(RESTORATIONS), default="quality",
            tooltip="balanced: half the iterations of the fit with half the walks, three quarters of the time. fast: "
            "fewer steps too, half of it. published v1 and v2: the two published settings, for comparison.",
        ),
        noise_input(),
    ]  # fmt: skip


def restore(
    graph: GraphBuilder, observation: Any, model: Any, positive: Any, negative: Any, vae: Any, seed: int, cfg: float,
    num_samples: int, preset: str,
) -> Any:  # fmt: skip
    """Add the nodes that fit and sample ``observation``, all of them links; returns the sampling one."""
    check_choice("preset", preset, RESTORATIONS)
    settings = RESTORATIONS[preset]
    guider = graph.node("CFGGuider", model=model, positive=positive, negative=negative, cfg=cfg).out(0)
    model_and_picture = {"guider": guider, "vae": vae, "observation": observation, "checkpointing": "auto"}
    fit = graph.node(
        "VIPaintFitPosterior", **model_and_picture, seed=_FIT_SEED, preset=settings.fit, keypoints="", iterations=-1,
        samples=0, mean_rate=0.0, log_std_rate=0.0, gate_rate=0.0,
    )  # fmt: skip
    return graph.node(
        "VIPaintSamplePosterior", **model_and_picture, posterior=fit.out(0), num_samples=num_samples, seed=seed,
        steps=settings.steps, guidance=settings.guidance, batch_size=4, first_sample=0,
    )  # fmt: skip


class Inpaint(io.ComfyNode):
    """Observe, fit, sample and composite."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VIPaintInpaint",
            display_name="VIPaint Inpaint",
            category="VIPaint",
            description="Fills a hole in several different ways that all fit the rest of the picture. Another seed "
            "draws others without fitting again.",
            inputs=[
                *model_inputs(),
                io.Image.Input("image", extra_dict=LINK, tooltip="The picture with the part to replace."),
                io.Mask.Input("mask", extra_dict=LINK, tooltip="1 (white) is the hole to fill."),
                *sampling_inputs(),
                io.Int.Input("feather", default=0, min=0, max=256, tooltip=FEATHER_TOOLTIP),
                io.Boolean.Input("colour_match", default=False, tooltip=MATCH_TOOLTIP),
            ],
            outputs=[
                output(io.Image, "images", "The restorations, with the known pixels exactly as they were."),
                output(io.Latent, "latent", "The samples before decoding and compositing."),
            ],
            enable_expand=True,
        )

    @classmethod
    def execute(cls, image, mask, noise_level, feather, colour_match, **restoration) -> io.NodeOutput:
        graph = GraphBuilder()
        observation = graph.node("VIPaintObserveInpaint", image=image, mask=mask, noise_level=noise_level)
        sample = restore(graph, observation.out(0), **restoration)
        composited = graph.node(
            "VIPaintCompositeObserved", images=sample.out(1), original=image, mask=mask, feather=feather,
            colour_match=colour_match,
        )  # fmt: skip
        return io.NodeOutput(composited.out(0), sample.out(0), expand=graph.finalize())
