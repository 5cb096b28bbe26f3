"""Methods that differentiate through the model."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ...vipaint_ops.inference.corrections import Kalman
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
    about = "At every step, moves the whole picture until what the model expects of it agrees with what is known."

    @classmethod
    def widgets(cls):
        return [
            preset_input(
                _COPAINT,
                "default and time travel (CoPaint-TT): published for faces and 250 steps, fast for 100. time travel "
                "goes through every ten steps twice, and joins old and new best. ImageNet: held back more.",
            ),
            io.Int.Input(
                "gradient_steps", default=-1, min=-1, max=100,
                tooltip="Gradient steps at every noise level. -1: the preset's, 2 (fast 1, ImageNet 512 5).",
            ),
            io.Float.Input(
                "step_size", default=-1.0, min=-1.0, max=10.0, step=0.005, round=0.0001,
                tooltip="Length of the first gradient steps; a step that makes things worse is shortened by itself. "
                "-1: the preset's, 0.02.",
            ),
            io.Float.Input(
                "weight", default=-1.0, min=-1.0, max=100.0, step=0.001, round=0.00001,
                tooltip="What holds a latent back to where it was before the gradient steps. -1: the preset's, 0.0001 "
                "(ImageNet 0.01).",
            ),
            io.Int.Input(
                "prediction_steps", default=1, min=1, max=20,
                tooltip="In how many steps the model's expectation is computed; time and memory grow with them. "
                "Published: 1.",
            ),
            *travel_inputs(-1, -1, "-1: the preset's, 10", "-1: the preset's, 1 (time travel 2)"),
        ]  # fmt: skip

    @classmethod
    def plan(cls, preset, prediction_steps, batch_size, **given):
        config = from_preset(_COPAINT, preset, given, prediction_steps=prediction_steps, batch_size=batch_size)
        return copaint, config


class DPSSampler(MethodNode):
    """DPS."""

    node = ("VIPaintDPSSampler", "DPS Sampler")
    about = "Diffusion posterior sampling: every step also goes down the gradient of the residual."

    @classmethod
    def widgets(cls):
        return [
            preset_input(_DPS, "The published step length for this task."),
            io.Float.Input(
                "scale", default=-1.0, min=-1.0, max=100.0, step=0.05, round=0.001,
                tooltip="Step length down the residual's norm, as published for 1000 steps. -1: the preset's, 0.5 for "
                "inpainting, 0.3 else.",
            ),
        ]  # fmt: skip

    @classmethod
    def plan(cls, preset, batch_size, **given):
        return dps, from_preset(_DPS, preset, given, batch_size=batch_size)


class PSLDSampler(MethodNode):
    """PSLD."""

    node = ("VIPaintPSLDSampler", "PSLD Sampler")
    about = "DPS for latent models: also keeps the latent one that the VAE would encode the picture to."

    @classmethod
    def widgets(cls):
        return [
            preset_input(
                _PSLD,
                "Published for a latent model of faces at 256 pixels, and for Stable Diffusion 1.5 at 512 pixels, with "
                "another one for filling a box.",
            ),
            io.Float.Input(
                "omega", default=-1.0, min=-1.0, max=100.0, step=0.05, round=0.001,
                tooltip="Step length down the residual's norm, as published for 1000 steps. -1: the preset's.",
            ),
            io.Float.Input(
                "gamma", default=-1.0, min=-1.0, max=100.0, step=0.01, round=0.001,
                tooltip="Step length towards latents that the VAE would encode to. -1: the preset's.",
            ),
        ]  # fmt: skip

    @classmethod
    def plan(cls, preset, batch_size, **given):
        return psld, from_preset(_PSLD, preset, given, batch_size=batch_size)


class ReSampleSampler(MethodNode):
    """ReSample."""

    node = ("VIPaintReSampleSampler", "ReSample Sampler")
    about = "Every few steps, optimises the picture until it agrees with the observation, and goes on from there."

    @classmethod
    def widgets(cls):
        rate = {"min": 0.0, "max": 1.0, "step": 0.001, "round": 0.0001}
        return [
            preset_input(_RESAMPLE, "inpainting: 200 iterations over latents in the place of 500."),
            io.Float.Input(
                "scale", default=0.5, min=0.0, max=100.0, step=0.05, round=0.001,
                tooltip="Step length down the residual's norm, as published for 500 steps.",
            ),
            io.Int.Input(
                "every", default=10, min=1, max=1000,
                tooltip="Steps from one optimisation to the next. Published: 10 of 500 steps; take fewer with fewer.",
            ),
            io.Int.Input(
                "ahead", default=5, min=1, max=100,
                tooltip="Steps that the prediction is computed ahead before it is optimised. Published: 5.",
            ),
            io.Float.Input(
                "gamma", default=40.0, min=0.0, max=10000.0, step=1.0, round=0.01,
                tooltip="How far the chain trusts where it was over what was optimised. Published: 40.",
            ),
            io.Float.Input(
                "pixel_rate", default=0.01, **rate, tooltip="Adam's, in the middle third, over pixels. Published: 0.01."
            ),
            io.Int.Input(
                "pixel_iterations", default=2000, min=0, max=10000,
                tooltip="At most so many over pixels; they need no network. Published: 2000.",
            ),
            io.Float.Input(
                "latent_rate", default=0.005, **rate,
                tooltip="Adam's, in the last third, over latents. Published: 0.005.",
            ),
            io.Int.Input(
                "latent_iterations", default=-1, min=-1, max=10000,
                tooltip="At most so many over latents, each of them through the VAE's decoder and back. -1: the "
                "preset's.",
            ),
        ]  # fmt: skip

    @classmethod
    def plan(cls, preset, latent_iterations, **settings):
        return resample, from_preset(_RESAMPLE, preset, {"latent_iterations": latent_iterations}, **settings)


class PiGDMSampler(MethodNode):
    """PiGDM."""

    node = ("VIPaintPiGDMSampler", "PiGDM Sampler")
    about = "Pseudo-inverse guidance: as Kalman, with one uncertainty for the whole picture. No step size to tune."

    @classmethod
    def widgets(cls):
        return [eta_input(1.0, "Fresh noise at every step: 1 as much as ancestral sampling (published), 0 none.")]

    @classmethod
    def plan(cls, **settings):
        return pigdm, PiGDMConfig(**settings)


class KalmanSampler(MethodNode):
    """Kalman guidance."""

    node = ("VIPaintKalmanSampler", "Kalman Sampler")
    about = "Each step weighs the model's own uncertainty against the observation's noise. No step size to tune."

    @classmethod
    def widgets(cls):
        return [
            io.Int.Input(
                "solver_iterations", default=3, min=1, max=50,
                tooltip="Backward passes a step with which the observation is solved for.",
            ),
            io.Int.Input(
                "spread_iterations", default=2, min=0, max=50,
                tooltip="Backward passes a step with which what the observation leaves open is drawn. 0: samples are "
                "too alike.",
            ),
        ]  # fmt: skip

    @classmethod
    def plan(cls, batch_size, **settings):
        return kalman, KalmanConfig(correction=Kalman(**settings), batch_size=batch_size)
