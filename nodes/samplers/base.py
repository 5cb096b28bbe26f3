"""The parts that sampler nodes share, and the node for their latent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from comfy_api.v0_0_2 import io

from ...vipaint_ops.inference.decoder import DECODERS
from ...vipaint_ops.inference.known import pixels_only
from ...vipaint_ops.samplers.config import SamplerConfig
from ..host.branches import Gradients
from ..host.prior import pad_to_model
from ..host.sampler import HostSampler, Method
from ..host.settings import CHECKPOINTING
from ..host.vae import HostVAE
from ..posterior import CHECKPOINTING_TOOLTIP, VAE_TOOLTIP, decoder_input
from ..search import schema
from ..sockets import ObservationSocket, output

CATEGORY = "VIPaint/samplers"
OBSERVATION_TOOLTIP = "The observation, from an Observe node."
_COUNT = {"min": 1, "max": 64}


class MethodNode(io.ComfyNode):
    """A node that returns a method of :mod:`vipaint_ops.samplers` as SAMPLER."""

    node: ClassVar[tuple[str, str]]
    """Id and display name."""
    about: ClassVar[str]
    gradients: ClassVar[Gradients] = Gradients.ALL
    """Networks that the method differentiates through, with the exact decoder."""
    linear_gradients: ClassVar[Gradients] = Gradients.MODEL
    """The same with a linear decoder."""
    decoder: ClassVar[str] = "exact"
    """The default of that choice."""
    from_latent: ClassVar[bool] = True
    """Whether the method starts from a noisy latent, and so can start from a given one."""
    replaces: ClassVar[bool] = False
    """Whether the method replaces known pixels, and so needs a mask. This is checked before the model is loaded."""

    @classmethod
    def widgets(cls) -> list[Any]:
        """Widgets of the method."""
        raise NotImplementedError

    @classmethod
    def later_widgets(cls) -> list[Any]:
        """Widgets that come last."""
        if Gradients.VAE not in cls.gradients:
            return []
        return [decoder_input(DECODERS, cls.decoder)]

    @classmethod
    def plan(cls, **settings: Any) -> tuple[Method, SamplerConfig]:
        """The method and its configuration for these settings and ``batch_size``.

        Raises:
            InputError: a setting out of range.
        """
        raise NotImplementedError

    @classmethod
    def needed(cls, config: SamplerConfig) -> Gradients:
        """Networks that the method differentiates through with these settings."""
        return cls.linear_gradients if config.decoder == "linear" else cls.gradients

    @classmethod
    def define_schema(cls) -> io.Schema:
        checkpointing = io.Combo.Input(
            "checkpointing", options=list(CHECKPOINTING), default="auto", tooltip=CHECKPOINTING_TOOLTIP
        )
        return schema(
            node_id=cls.node[0],
            display_name=cls.node[1],
            category=CATEGORY,
            description=cls.about + " Connect it to SamplerCustomAdvanced.",
            inputs=[
                ObservationSocket.Input("observation", tooltip=OBSERVATION_TOOLTIP),
                io.Vae.Input("vae", tooltip=VAE_TOOLTIP),
                *cls.widgets(),
                io.Int.Input(
                    "batch_size",
                    default=4,
                    min=0,
                    max=_COUNT["max"],
                    tooltip="Samples of the latent's batch computed in parallel, fewer if memory is short. Affects "
                    "speed and memory; the samples are the same up to rounding. 0 = as many as fit.",
                ),
                io.Int.Input(
                    "first_sample",
                    default=0,
                    min=0,
                    max=100000,
                    tooltip="Index of the first sample. To draw sample 3 of a batch alone: LatentFromBatch with "
                    "batch_index 3, and first_sample 3.",
                ),
                *([checkpointing] if Gradients.MODEL in cls.gradients else []),
                *cls.later_widgets(),
            ],
            outputs=[output(io.Sampler, "sampler", "For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(
        cls,
        observation,
        vae,
        first_sample,
        batch_size,
        checkpointing="auto",
        decoder=None,
        **settings,
    ) -> io.NodeOutput:
        if cls.replaces:
            pixels_only(cls.node[1])(observation)
        method, config = cls.plan(batch_size=batch_size or _COUNT["max"], **settings)
        if Gradients.VAE in cls.gradients:
            config = dataclasses.replace(config, decoder=decoder or cls.decoder)
        sampler = HostSampler(method, config, observation, vae)
        sampler.gradients, sampler.from_latent = cls.needed(config), cls.from_latent
        sampler.checkpointing, sampler.first = checkpointing, first_sample
        return io.NodeOutput(sampler)


def preset_input(presets: dict[str, Any], tooltip: str) -> Any:
    """The widget of the published settings; the first is the default."""
    return io.Combo.Input("preset", options=list(presets), default=next(iter(presets)), tooltip=tooltip)


def from_preset(
    presets: dict[str, Callable[[], SamplerConfig]], preset: str, given: dict[str, float], **settings: Any
) -> SamplerConfig:
    """The settings of a preset, with the values of ``given`` that are not negative, and with ``settings``.

    Raises:
        InputError: a setting out of range.
    """
    changes = {name: value for name, value in given.items() if value >= 0}
    return dataclasses.replace(presets[preset](), **changes, **settings)


def eta_input(default: float, tooltip: str) -> Any:
    """The widget for the fraction of fresh noise."""
    return io.Float.Input("eta", default=default, min=0.0, max=1.0, step=0.05, round=0.001, tooltip=tooltip)


def travel_inputs(length: int, visits: int, length_note: str, visits_note: str) -> list[Any]:
    """The widgets of time travel; -1 is allowed if it is the default."""
    return [
        io.Int.Input(
            "travel_length",
            default=length,
            min=min(length, 1),
            max=1000,
            tooltip=f"Time travel: steps per segment. {length_note}.",
        ),
        io.Int.Input(
            "travel_visits",
            default=visits,
            min=min(visits, 1),
            max=100,
            tooltip="Time travel: passes over each segment, with noise added in between. 1 = off. Cost grows with it. "
            f"{visits_note}.",
        ),
    ]


class EmptyLatent(io.ComfyNode):
    """The initial latent of the samplers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VIPaintEmptyLatent",
            display_name="Empty Latent for Observation",
            category=CATEGORY,
            description="Empty latent of the size that an observation needs, for any model.",
            inputs=[
                ObservationSocket.Input("observation", tooltip=OBSERVATION_TOOLTIP),
                io.Vae.Input("vae", tooltip=VAE_TOOLTIP),
                io.Int.Input("num_samples", default=4, **_COUNT, tooltip="Number of samples."),
            ],
            outputs=[output(io.Latent, "latent", "For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, observation, vae, num_samples) -> io.NodeOutput:
        _, part = pad_to_model(observation, vae)
        network = HostVAE(vae)
        cells = (side // network.factor for side in part.size)
        return io.NodeOutput({"samples": torch.zeros(num_samples, network.latent_channels, *cells)})
