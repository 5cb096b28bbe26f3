"""Methods that need no gradient through the model."""

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
    about = "Optimises one picture with the model as its critic: fast, sharpest where little is missing, one answer."
    gradients = Gradients.VAE
    from_latent = False

    @classmethod
    def widgets(cls):
        return [
            io.Combo.Input(
                "variant", options=["annealed", "V"], default="annealed",
                tooltip="annealed: as published, from noise to clean. V: the bound itself, its noise levels in no "
                "order, as a control.",
            ),
            io.Float.Input(
                "rate", default=0.1, min=0.0001, max=10.0, step=0.01, round=0.0001,
                tooltip="Adam's learning rate. Published: 0.1 with 1000 steps.",
            ),
            io.Float.Input(
                "weight", default=0.25, min=0.0, max=100.0, step=0.05, round=0.001,
                tooltip="How much the model counts against the observation; annealed only. Published: 0.25.",
            ),
        ]  # fmt: skip

    @classmethod
    def plan(cls, variant, weight, **settings):
        check_choice("variant", variant, ("annealed", "V"))
        if variant == "V":
            return red_diff_v, RedDiffVConfig(**settings)
        return red_diff, RedDiffConfig(weight=weight, **settings)


class RePaintSampler(MethodNode):
    """RePaint."""

    node = ("VIPaintRePaintSampler", "RePaint Sampler")
    about = "Overwrites what is known at every noise level, and goes back and forth until old and new agree."
    gradients = Gradients.NONE
    replaces = True

    @classmethod
    def widgets(cls):
        return travel_inputs(10, 10, "Published: 10 of 250", "Published: 10")

    @classmethod
    def plan(cls, **settings):
        return repaint, RePaintConfig(**settings)


class BlendedSampler(MethodNode):
    """Replacement sampling."""

    node = ("VIPaintBlendedSampler", "Blended Sampler")
    about = "Overwrites what is known at every noise level: the cheapest method, and the one that knows least."
    gradients = Gradients.NONE
    replaces = True

    @classmethod
    def widgets(cls):
        return [eta_input(0.0, "Fresh noise at every step: 0 none (DDIM), 1 as much as ancestral sampling.")]

    @classmethod
    def plan(cls, **settings):
        return blended, BlendedConfig(**settings)


class DDNMSampler(MethodNode):
    """DDNM and DDNM+."""

    node = ("VIPaintDDNMSampler", "DDNM Sampler")
    about = "Replaces, in every prediction, what the observation shows, and keeps what it does not show."
    gradients = Gradients.NONE

    @classmethod
    def widgets(cls):
        return [
            io.Boolean.Input(
                "noisy", default=True,
                tooltip="On: allow for the observation's noise (DDNM+). Off: take it as exact (DDNM).",
            ),
            eta_input(0.85, "Share of fresh noise in every step. Published: 0.85."),
            *travel_inputs(10, 1, "Published: 10", "Published: 1, and 3 with time travel"),
        ]  # fmt: skip

    @classmethod
    def plan(cls, **settings):
        return ddnm, DDNMConfig(**settings)
