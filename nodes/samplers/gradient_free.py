"""Methods without gradients through the model."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

from ...vipaint_ops.samplers import (
    BlendedConfig,
    DDNMConfig,
    DInGConfig,
    LanPaintConfig,
    LATINOConfig,
    RedDiffConfig,
    RedDiffVConfig,
    RePaintConfig,
    blended,
    ddnm,
    ding,
    lanpaint,
    latino,
    red_diff,
    red_diff_v,
    repaint,
)
from ..host.branches import Gradients
from .base import MethodNode, eta_input, travel_inputs


class REDDiffSampler(MethodNode):
    """RED-diff and RED-diff V."""

    node = ("VIPaintREDDiffSampler", "RED-diff Sampler")
    about = (
        "RED-diff: optimises an image with the model as regulariser. Fast, low diversity, best if little is missing."
    )
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
        if variant == "V":
            return red_diff_v, RedDiffVConfig(**settings)
        return red_diff, RedDiffConfig(weight=weight, **settings)


class RePaintSampler(MethodNode):
    """RePaint."""

    node = ("VIPaintRePaintSampler", "RePaint Sampler")
    about = (
        "RePaint: replaces the known latents at every noise level, and repeats noising and denoising to harmonise "
        "the result."
    )
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

    node = ("VIPaintBlendedSampler", "Blended Sampler (VIPaint)")
    about = (
        "Blended: replaces the known latents at every noise level. Lowest cost; edges of the masked area may not match."
    )
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
    about = (
        "DDNM: replaces the observed component of every prediction by the observation, and keeps the rest. No "
        "gradients."
    )
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


def _refreshes_input() -> Any:
    return io.Int.Input(
        "refreshes",
        default=3,
        min=0,
        max=20,
        tooltip="How often the known latents are encoded again, with the current prediction in the masked area. Each "
        "costs one decode and one encode. 0 = published; seams at the mask.",
    )


class DInGSampler(MethodNode):
    """DInG."""

    node = ("VIPaintDInGSampler", "DInG Sampler")
    about = "DInG: draws every step from a Gaussian that includes the known latents. Two passes per step, no gradients."
    gradients = Gradients.NONE
    replaces = True

    @classmethod
    def widgets(cls):
        return [
            io.Float.Input(
                "known_std",
                default=0.01,
                min=0.0001,
                max=10.0,
                step=0.01,
                round=0.0001,
                tooltip="Standard deviation of the known latents, relative to that of the model's latents. Published: "
                "0.01.",
            ),
            _refreshes_input(),
        ]

    @classmethod
    def plan(cls, **settings):
        return ding, DInGConfig(**settings)


class LanPaintSampler(MethodNode):
    """LanPaint."""

    node = ("VIPaintLanPaintSampler", "LanPaint Sampler")
    about = "LanPaint: Langevin steps of masked and known latents at every noise level. No gradients."
    gradients = Gradients.NONE
    replaces = True

    @classmethod
    def widgets(cls):
        return [
            io.Int.Input(
                "inner_steps",
                default=5,
                min=0,
                max=100,
                tooltip="Langevin steps at the noisiest level; fewer at lower noise. Each costs one pass through the "
                "model. Published: 5, and 10 for difficult masks.",
            ),
            io.Float.Input(
                "step_size",
                default=0.2,
                min=0.0001,
                max=1.0,
                step=0.01,
                round=0.0001,
                tooltip="Length of a Langevin step. Lower it if results diverge. Published: 0.2.",
            ),
            io.Float.Input(
                "guidance",
                default=5.0,
                min=0.0,
                max=50.0,
                step=0.5,
                round=0.01,
                tooltip="Strength of the bidirectional guidance (lambda). Higher values follow the known area faster. "
                "Published: 5.",
            ),
            io.Float.Input(
                "friction",
                default=15.0,
                min=0.1,
                max=1000.0,
                step=1.0,
                round=0.1,
                tooltip="Friction of the Langevin dynamics. High values: slower and more stable. Published: 15.",
            ),
            _refreshes_input(),
        ]

    @classmethod
    def plan(cls, **settings):
        return lanpaint, LanPaintConfig(**settings)


class LATINOSampler(MethodNode):
    """LATINO."""

    node = ("VIPaintLATINOSampler", "LATINO Sampler")
    about = "LATINO: decodes, moves towards the observation, encodes and adds noise again. Few steps, no gradients."
    gradients = Gradients.NONE

    @classmethod
    def widgets(cls):
        return [
            io.Int.Input(
                "ode_steps",
                default=4,
                min=1,
                max=100,
                tooltip="Passes through the model per step. 4 for ordinary models; 1 for consistency models (LCM, "
                "DMD2), with 8 steps, as published.",
            ),
            io.Float.Input(
                "delta",
                default=1.0,
                min=0.001,
                max=1000.0,
                step=0.1,
                round=0.001,
                tooltip="Length of the step towards the observation. Higher values follow it more closely. Published "
                "for masks: 1, and 0.5 in the second half.",
            ),
        ]

    @classmethod
    def plan(cls, **settings):
        return latino, LATINOConfig(**settings)
