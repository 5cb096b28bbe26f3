"""Methods that differentiate through the model."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ...vipaint_ops.inference.corrections import COVARIANCES, Kalman
from ...vipaint_ops.samplers import (
    CoPaintConfig,
    DPSConfig,
    KalmanConfig,
    PiGDMConfig,
    PSLDConfig,
    ReSampleConfig,
    copaint,
    dps,
    kalman,
    pigdm,
    psld,
    resample,
)
from ..host.branches import Gradients, gradients_of
from .base import MethodNode, eta_input, from_preset, preset_input, travel_inputs

_COPAINT = {
    "default": CoPaintConfig,
    "fast": CoPaintConfig.fast,
    "time travel": CoPaintConfig.time_travel,
    "ImageNet": CoPaintConfig.imagenet,
    "fast ImageNet": CoPaintConfig.fast_imagenet,
    "ImageNet 512": CoPaintConfig.imagenet512,
}
_DPS = {
    "inpainting": DPSConfig,
    "deblurring": DPSConfig.deblurring,
    "super-resolution": DPSConfig.super_resolution,
}
_PSLD = {
    "faces": PSLDConfig,
    "faces, super-resolution": PSLDConfig.super_resolution,
    "Stable Diffusion": PSLDConfig.stable_diffusion,
    "Stable Diffusion, box": PSLDConfig.stable_diffusion_box,
}
_RESAMPLE = {"default": ReSampleConfig, "inpainting": ReSampleConfig.inpainting}


class CoPaintSampler(MethodNode):
    """CoPaint, CoPaint-Fast and CoPaint-TT."""

    node = ("VIPaintCoPaintSampler", "CoPaint Sampler")
    about = "CoPaint: optimises the latent at every step until the predicted image agrees with the observation."

    @classmethod
    def widgets(cls):
        return [
            preset_input(
                _COPAINT,
                "default, time travel (CoPaint-TT): for faces, 250 steps. fast: 100 steps. time travel repeats every "
                "segment, for the best joins. ImageNet: larger weight.",
            ),
            io.Int.Input(
                "gradient_steps",
                default=-1,
                min=-1,
                max=100,
                tooltip="Gradient steps per noise level. -1 = preset (2; fast: 1, ImageNet 512: 5).",
            ),
            io.Float.Input(
                "step_size",
                default=-1.0,
                min=-1.0,
                max=10.0,
                step=0.005,
                round=0.0001,
                tooltip="Initial step size. A step that increases the loss is shortened. -1 = preset (0.02).",
            ),
            io.Float.Input(
                "weight",
                default=-1.0,
                min=-1.0,
                max=100.0,
                step=0.001,
                round=0.00001,
                tooltip="Weight of the distance to the latent before the gradient steps. -1 = preset (0.0001; "
                "ImageNet: 0.01).",
            ),
            io.Int.Input(
                "prediction_steps",
                default=1,
                min=1,
                max=20,
                tooltip="DDIM steps of the prediction. Time and memory grow with it. Published: 1.",
            ),
            *travel_inputs(-1, -1, "-1 = preset (10)", "-1 = preset (1; time travel: 2)"),
        ]

    @classmethod
    def plan(cls, preset, prediction_steps, batch_size, **given):
        config = from_preset(_COPAINT, preset, given, prediction_steps=prediction_steps, batch_size=batch_size)
        return copaint, config


class DPSSampler(MethodNode):
    """DPS."""

    node = ("VIPaintDPSSampler", "DPS Sampler")
    about = "DPS: adds a gradient step on the residual of the observation to every sampling step."

    @classmethod
    def widgets(cls):
        return [
            preset_input(_DPS, "Published step size for this task."),
            io.Float.Input(
                "scale",
                default=-1.0,
                min=-1.0,
                max=100.0,
                step=0.05,
                round=0.001,
                tooltip="Step size of the residual gradient, for 1000 steps. -1 = preset (inpainting: 0.5, others: "
                "0.3).",
            ),
        ]

    @classmethod
    def plan(cls, preset, batch_size, **given):
        return dps, from_preset(_DPS, preset, given, batch_size=batch_size)


class PSLDSampler(MethodNode):
    """PSLD."""

    linear_gradients = Gradients.ALL  # the encoder's remains
    node = ("VIPaintPSLDSampler", "PSLD Sampler")
    about = (
        "PSLD: DPS for latent diffusion, with a second gradient that keeps the latent consistent with the VAE's "
        "encoder."
    )

    @classmethod
    def widgets(cls):
        return [
            preset_input(
                _PSLD,
                "Published for a face model at 256 pixels, and for Stable Diffusion 1.5 at 512 pixels (box: for a "
                "masked box).",
            ),
            io.Float.Input(
                "omega",
                default=-1.0,
                min=-1.0,
                max=100.0,
                step=0.05,
                round=0.001,
                tooltip="Step size of the residual gradient, for 1000 steps. -1 = preset.",
            ),
            io.Float.Input(
                "gamma",
                default=-1.0,
                min=-1.0,
                max=100.0,
                step=0.01,
                round=0.001,
                tooltip="Step size of the encoder consistency gradient. -1 = preset.",
            ),
        ]

    @classmethod
    def plan(cls, preset, batch_size, **given):
        return psld, from_preset(_PSLD, preset, given, batch_size=batch_size)


class ReSampleSampler(MethodNode):
    """ReSample."""

    node = ("VIPaintReSampleSampler", "ReSample Sampler")
    about = "ReSample: every few steps, optimises the prediction until it agrees with the observation."

    @classmethod
    def widgets(cls):
        rate = {"min": 0.0, "max": 1.0, "step": 0.001, "round": 0.0001}
        return [
            preset_input(_RESAMPLE, "inpainting: 200 iterations in latent space instead of 500."),
            io.Float.Input(
                "scale",
                default=0.5,
                min=0.0,
                max=100.0,
                step=0.05,
                round=0.001,
                tooltip="Step size of the residual gradient, for 500 steps.",
            ),
            io.Int.Input(
                "every",
                default=10,
                min=1,
                max=1000,
                tooltip="Steps between two optimisations. Published: 10 of 500 steps; use a lower value with fewer "
                "steps.",
            ),
            io.Int.Input(
                "ahead",
                default=5,
                min=1,
                max=100,
                tooltip="Denoising steps of the prediction before an optimisation. Published: 5.",
            ),
            io.Float.Input(
                "gamma",
                default=40.0,
                min=0.0,
                max=10000.0,
                step=1.0,
                round=0.01,
                tooltip="Weight of the current latent against the optimised prediction. Published: 40.",
            ),
            io.Float.Input(
                "pixel_rate",
                default=0.01,
                **rate,
                tooltip="Learning rate of Adam in pixel space (middle third of the steps). Published: 0.01.",
            ),
            io.Int.Input(
                "pixel_iterations",
                default=2000,
                min=0,
                max=10000,
                tooltip="Maximum iterations in pixel space, without a network. Published: 2000.",
            ),
            io.Float.Input(
                "latent_rate",
                default=0.005,
                **rate,
                tooltip="Learning rate of Adam in latent space (last third of the steps). Published: 0.005.",
            ),
            io.Int.Input(
                "latent_iterations",
                default=-1,
                min=-1,
                max=10000,
                tooltip="Maximum iterations in latent space, each through the VAE's decoder. -1 = preset (500; "
                "inpainting: 200).",
            ),
        ]

    @classmethod
    def plan(cls, preset, latent_iterations, **settings):
        return resample, from_preset(_RESAMPLE, preset, {"latent_iterations": latent_iterations}, **settings)


class PiGDMSampler(MethodNode):
    """PiGDM."""

    node = ("VIPaintPiGDMSampler", "PiGDM Sampler")
    about = "PiGDM: pseudo-inverse guidance, with one variance for the whole image. No step size to tune."

    @classmethod
    def widgets(cls):
        return [eta_input(1.0, "Fraction of fresh noise per step. 1 = ancestral sampling (published), 0 = none.")]

    @classmethod
    def plan(cls, **settings):
        return pigdm, PiGDMConfig(**settings)


class KalmanSampler(MethodNode):
    """Kalman guidance."""

    node = ("VIPaintKalmanSampler", "Kalman Sampler (VIPaint)")
    about = (
        "Kalman: weighs the model's uncertainty against the noise of the observation at every step. No step size "
        "to tune."
    )

    decoder = "linear"

    @classmethod
    def widgets(cls):
        return [
            io.Int.Input(
                "solver_iterations",
                default=2,
                min=1,
                max=50,
                tooltip="Extra passes per step to solve for the observation, at least 3 with decoder exact.",
            ),
            io.Int.Input(
                "spread_iterations",
                default=2,
                min=0,
                max=50,
                tooltip="Extra passes per step to draw the posterior variance. 0 = off: samples are too similar.",
            ),
        ]

    @classmethod
    def later_widgets(cls):
        return [
            *super().later_widgets(),
            io.Combo.Input(
                "covariance",
                options=list(COVARIANCES),
                default="tweedie",
                optional=True,
                tooltip="The model's uncertainty. tweedie: by extra passes of the model. isotropic: one number."
                " No gradients are used.",
            ),
        ]

    @classmethod
    def needed(cls, config):
        return gradients_of(config.correction.differentiates(config.decoder))

    @classmethod
    def plan(cls, batch_size, solver_iterations, covariance="tweedie", **settings):
        if covariance == "isotropic":
            settings["exact_below"] = 0.0  # without any gradient
        correction = Kalman(
            covariance=covariance,
            linear_iterations=solver_iterations,
            solver_iterations=max(solver_iterations, Kalman.solver_iterations),
            **settings,
        )
        return kalman, KalmanConfig(correction=correction, batch_size=batch_size)
