"""Methods without gradients through the model."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ...vipaint_ops.samplers import (
    BlendedConfig,
    DDNMConfig,
    RedDiffConfig,
    RedDiffVConfig,
    RePaintConfig,
    blended,
    ddnm,
    red_diff,
    red_diff_v,
    repaint,
)
from ..host.prior import Gradients
from ..presets import check_choice
from .base import MethodNode, eta_input, travel_inputs


class REDDiffSampler(MethodNode):
    """RED-diff and RED-diff V."""

    node = ("VIPaintREDDiffSampler", "RED-diff Sampler")
    about = "RED-diff: optimises an image with the model as regulariser. Fast, low diversity, best if little is "
    "missing."
    gradients, linear_gradients = Gradients.VAE, Gradients.NONE
    from_latent = False

    @classmethod
    def widgets(cls):
        return [
            io.Combo.Input(
                "variant",
                options=["annealed", "V"],
                default="annealed",
                tooltip="annealed: decreasing noise levels, as published. V: the variational bound with random noise "
                "levels, as a control.",
            ),
            io.Float.Input(
                "rate",
                default=0.1,
                min=0.0001,
                max=10.0,
                step=0.01,
                round=0.0001,
                tooltip="Learning rate of Adam. Published: 0.1 with 1000 steps.",
            ),
            io.Float.Input(
                "weight",
                default=0.25,
                min=0.0,
                max=100.0,
                step=0.05,
                round=0.001,
                tooltip="Weight of the model against the observation (annealed only). Published: 0.25.",
            ),
        ]

    @classmethod
    def plan(cls, variant, weight, **settings):
        check_choice("variant", variant, ("annealed", "V"))
        if variant == "V":
            return red_diff_v, RedDiffVConfig(**settings)
        return red_diff, RedDiffConfig(weight=weight, **settings)


class RePaintSampler(MethodNode):
    """RePaint."""

    node = ("VIPaintRePaintSampler", "RePaint Sampler")
    about = "RePaint: replaces the known latents at every noise level, and repeats noising and denoising to harmonise "
    "the result."
    gradients = Gradients.NONE
    replaces = True

    @classmethod
    def widgets(cls):
        return travel_inputs(10, 10, "Published: 10 of 250", "Published: 10")

    @classmethod
    def plan(cls, **settings):
        return repaint, RePaintConfig(**settings)


class BlendedSampler(MethodNode):
    """Replacement at every noise level."""

    node = ("VIPaintBlendedSampler", "Blended Sampler")
    about = "Blended: replaces the known latents at every noise level. Lowest cost; edges of the masked area may not "
    "match."
    gradients = Gradients.NONE
    replaces = True

    @classmethod
    def widgets(cls):
        return [eta_input(0.0, "Fraction of fresh noise per step. 0 = DDIM, 1 = ancestral sampling.")]

    @classmethod
    def plan(cls, **settings):
        return blended, BlendedConfig(**settings)


class DDNMSampler(MethodNode):
    """DDNM and DDNM+."""

    node = ("VIPaintDDNMSampler", "DDNM Sampler")
    about = "DDNM: replaces the observed component of every prediction by the observation, and keeps the rest. No "
    "gradients."
    gradients = Gradients.NONE

    @classmethod
    def widgets(cls):
        return [
            io.Boolean.Input(
                "noisy",
                default=True,
                tooltip="On: account for the observation noise (DDNM+). Off: treat the observation as exact (DDNM).",
            ),
            eta_input(0.85, "Fraction of fresh noise per step. Published: 0.85."),
            *travel_inputs(10, 1, "Published: 10", "Published: 1, and 3 with time travel"),
        ]

    @classmethod
    def plan(cls, **settings):
        return ddnm, DDNMConfig(**settings)
