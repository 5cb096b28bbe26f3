"""The nodes that fit a posterior and draw samples from it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..vipaint_ops.diffusion.prior import Evaluations
from ..vipaint_ops.errors import InputError
from ..vipaint_ops.evaluation import plots
from ..vipaint_ops.images.padding import crop_to
from ..vipaint_ops.inference.decoder import DECODERS
from ..vipaint_ops.inference.particles import weighs_exactly
from ..vipaint_ops.inference.results import SampleResult
from ..vipaint_ops.vipaint import FitConfig, HierarchicalPosterior, RefineConfig, fit_posterior, sample_posterior
from .host.branches import gradients_of
from .host.prior import HostPrior, pad_to_model, with_host_prior
from .host.settings import CHECKPOINTING
from .pictures import images as to_images
from .pictures import sheet
from .presets import FITS, GUIDANCE, PRESET_TOOLTIP, fit_config, fit_work, refine_config
from .search import schema
from .shown import Stages, with_text
from .sockets import FIXED_SEED, SEED, ObservationSocket, PosteriorSocket, output

GUIDER_TOOLTIP = "The model with its prompts, from CFGGuider or BasicGuider. LoRAs and ControlNets apply."
VAE_TOOLTIP = "The VAE of the model."
CHECKPOINTING_TOOLTIP = (
    "Recompute activations in the backward pass: half the memory, about a third slower. auto = on if memory is short."
)
_DRAWS = 4
_NOT_FINITE = "the run diverged to NaN or infinite values: raise noise_level, or load the model in fp32 or bf16"


Config = TypeVar("Config", FitConfig, RefineConfig)


def decoder_input(options: Sequence[str], default: str) -> Any:
    """The choice of the decoder's Jacobian, last in its node: workflows store widgets by position."""
    return io.Combo.Input(
        "decoder",
        options=list(options),
        default=default,
        optional=True,
        tooltip="Jacobian of the VAE's decoder. linear: a linear map fitted to the decoder, without gradients through "
        "it: less time and memory. exact: gradients of the decoder.",
    )


def _cost(evaluations: Evaluations, seconds: float) -> str:
    return f"rows of the networks: {evaluations}; {seconds:.1f} s"


def _in_memory(config: Config, prior: HostPrior) -> Config:
    """The settings with a batch that fits into memory."""
    return dataclasses.replace(config, batch_size=min(config.batch_size, prior.rows))


class FitPosterior(io.ComfyNode):
    """The variational fit."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintFitPosterior",
            display_name="Fit Posterior",
            category="VIPaint",
            description="Fits a posterior distribution of noisy latents to an observation by gradient steps through "
            "the model. Fit once, then draw any number of samples with Sample Posterior.",
            inputs=[
                io.Guider.Input("guider", tooltip=GUIDER_TOOLTIP),
                io.Vae.Input("vae", tooltip=VAE_TOOLTIP),
                ObservationSocket.Input("observation", tooltip="The observation, from an Observe node."),
                io.Int.Input("seed", **FIXED_SEED, tooltip="Seed of the fit."),
                io.Combo.Input(
                    "preset",
                    options=list(FITS),
                    default="balanced",
                    tooltip=PRESET_TOOLTIP + " several: 64 components; use with at most 16 measurements, when several "
                    "answers fit.",
                ),
                io.String.Input(
                    "keypoints",
                    default="",
                    tooltip="Noise levels of the fit, as decreasing times from 1 (noise) to 0 (clean), such as 0.55, "
                    "0.4. Empty = preset, which suits any model.",
                ),
                io.Int.Input(
                    "iterations",
                    default=-1,
                    min=-1,
                    max=1000,
                    tooltip="Gradient steps. -1 = preset, 0 = initialisation only.",
                ),
                io.Int.Input(
                    "samples",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="Monte Carlo samples per iteration. Time and memory grow with it. 0 = preset.",
                ),
                io.Float.Input(
                    "mean_rate",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    round=0.0001,
                    tooltip="Learning rate of the means, in standard deviations of the latent. 0 = preset.",
                ),
                io.Float.Input(
                    "log_std_rate",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    round=0.0001,
                    tooltip="Learning rate of the log standard deviations. 0 = preset.",
                ),
                io.Float.Input(
                    "gate_rate",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    round=0.0001,
                    tooltip="Learning rate of the gates between keypoints. 0 = preset.",
                ),
                io.Combo.Input(
                    "checkpointing", options=list(CHECKPOINTING), default="auto", tooltip=CHECKPOINTING_TOOLTIP
                ),
                io.Float.Input(
                    "perceptual_weight",
                    default=0.0,
                    min=0.0,
                    max=10000.0,
                    step=1.0,
                    round=0.01,
                    optional=True,
                    tooltip="Weight of a perceptual (LPIPS) term in the likelihood. 0 = off. Needs the Python package "
                    "lpips, which downloads its weights.",
                ),
                io.Int.Input(
                    "components",
                    default=0,
                    min=0,
                    max=256,
                    optional=True,
                    tooltip="Mixture components, each fitted around its own draw. Samples cycle through them. 0 = "
                    "preset (several: 64, others: 1).",
                ),
                io.Int.Input(
                    "batch_size",
                    default=0,
                    min=0,
                    max=64,
                    optional=True,
                    tooltip="Chains and Monte Carlo samples computed in parallel, fewer if memory is short. Affects "
                    "speed and memory; the fit is the same up to rounding. 0 = as many as fit.",
                ),
                decoder_input(["preset", *DECODERS], "preset"),
            ],
            outputs=[
                output(PosteriorSocket, "posterior", "For Sample Posterior and Save Posterior."),
                output(
                    io.Image,
                    "loss_plot",
                    "Terms of the variational bound over the iterations, in nats. Without "
                    "iterations, the keypoint preview.",
                ),
                output(io.Image, "keypoint_preview", "Denoised predictions of four draws at each keypoint."),
                output(io.String, "report", "Cost of the fit, and the weighting of several components."),
            ],
        )

    @classmethod
    def validate_inputs(cls, keypoints=None):
        # ComfyUI passes None for an input with a link, whose value is checked when the node runs.
        if keypoints is None:
            return True
        try:
            fit_config("balanced", keypoints, -1)
        except InputError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, guider, vae, observation, seed, checkpointing, **settings) -> io.NodeOutput:
        began, config = time.perf_counter(), fit_config(**settings)
        padded, part = pad_to_model(observation, vae)

        def fit(prior: HostPrior) -> tuple[HierarchicalPosterior, list[tuple[str, Tensor]]]:
            generator, settings = torch.Generator().manual_seed(seed), _in_memory(config, prior)
            posterior = fit_posterior(prior, padded, settings, generator=generator, callback=prior.report)
            expected = [
                (f"t = {t:.3f}", crop_to(picture[None].cpu(), *part.picture))
                for t, pictures in posterior.expectations(prior, _DRAWS)
                for picture in pictures
            ]
            return posterior.to(torch.device("cpu"), torch.float32), expected

        rows = max(config.batch_size, config.components if weighs_exactly(observation) else 1)
        start, iterations = fit_work(config)
        shares = {"start": start / (start + iterations), "fit": iterations / (start + iterations)}
        posterior, expected = with_host_prior(
            guider,
            vae,
            part,
            fit,
            rows=rows,
            checkpointing=checkpointing,
            display=Stages("Fit", shares, first=True),
            gradients=gradients_of(config.differentiates),
        )
        if not posterior.means.isfinite().all():
            raise InputError(_NOT_FINITE)
        curves = plots.fit_curves(posterior.history) if posterior.history else plots.contact_sheet(expected, _DRAWS)
        report = _cost(posterior.evaluations, time.perf_counter() - began)
        if made := posterior.metadata.get("start"):
            report = f"{posterior.components} components, {made}; {report}"
        preview = sheet(plots.contact_sheet(expected, _DRAWS))
        return with_text(f"Fit: {report}", posterior, sheet(curves), preview, report)


class SamplePosterior(io.ComfyNode):
    """Samples from a fitted posterior."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="VIPaintSamplePosterior",
            display_name="Sample Posterior",
            category="VIPaint",
            description="Draws samples from a fitted posterior and refines them with the model. A new seed draws new "
            "samples of the same fit.",
            inputs=[
                PosteriorSocket.Input("posterior", tooltip="From Fit Posterior or Load Posterior."),
                io.Guider.Input("guider", tooltip=GUIDER_TOOLTIP + " Use the model of the fit."),
                io.Vae.Input("vae", tooltip=VAE_TOOLTIP),
                ObservationSocket.Input("observation", tooltip="The observation of the fit."),
                io.Int.Input("num_samples", default=4, min=1, max=64, tooltip="Number of samples."),
                io.Int.Input("seed", **SEED, tooltip="Seed of the samples."),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Denoising steps from the last keypoint to the image. 0 = default of the guidance.",
                ),
                io.Combo.Input(
                    "guidance",
                    options=list(GUIDANCE),
                    default="kalman",
                    tooltip="Correction towards the observation at each step. kalman: no step size, diverse samples. "
                    "forward only: fast, without gradients. ding: for masks. layouts: for a fit of that preset. "
                    "quality: more steps. pseudo-inverse: one gradient a step. dps: with a step size. published: for a "
                    "fit of that preset.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=4,
                    min=0,
                    max=64,
                    tooltip="Samples computed in parallel, fewer if memory is short. Affects speed and memory; the "
                    "samples are the same up to rounding. 0 = as many as fit.",
                ),
                io.Int.Input(
                    "first_sample",
                    default=0,
                    min=0,
                    max=100000,
                    tooltip="Index of the first sample. To draw sample 3 of a batch alone: same seed, first_sample 3, "
                    "num_samples 1.",
                ),
                io.Combo.Input(
                    "checkpointing", options=list(CHECKPOINTING), default="auto", tooltip=CHECKPOINTING_TOOLTIP
                ),
                io.Int.Input(
                    "particles",
                    default=1,
                    min=1,
                    max=64,
                    optional=True,
                    tooltip="Group size of sequential Monte Carlo, for kalman guidance. 1 = off. Use with at most 16 "
                    "measurements. A group must fit into memory.",
                ),
                decoder_input(["preset", *DECODERS], "preset"),
            ],
            outputs=[
                output(io.Latent, "latent", "The samples before decoding."),
                output(io.Image, "images", "The decoded samples. Composite Observed restores the known pixels."),
                output(io.String, "report", "Cost of the run, and statistics of the particles."),
            ],
        )

    @classmethod
    def execute(
        cls,
        posterior,
        guider,
        vae,
        observation,
        num_samples,
        seed,
        first_sample,
        checkpointing,
        **settings,
    ) -> io.NodeOutput:
        began, config = time.perf_counter(), refine_config(num_samples, **settings)
        padded, part = pad_to_model(observation, vae)
        posterior.check_observation(padded)

        def sample(prior: HostPrior) -> tuple[Tensor, SampleResult]:
            generator = torch.Generator().manual_seed(seed)
            result = sample_posterior(
                prior,
                padded,
                posterior,
                num_samples,
                _in_memory(config, prior),
                generator=generator,
                first=first_sample,
                callback=prior.report,
            )
            return prior.to_wire(result.latents), result

        latents, result = with_host_prior(
            guider,
            vae,
            part,
            sample,
            rows=max(config.batch_size, config.particles),
            checkpointing=checkpointing,
            display=Stages("Sampling", {"sample": 1.0}),
            gradients=gradients_of(config.differentiates),
        )
        if not result.images.isfinite().all():
            raise InputError(_NOT_FINITE)
        cost = f"{num_samples} samples; {_cost(result.evaluations, time.perf_counter() - began)}"
        report = f"{cost}; {result.populations}" if result.populations else cost
        images = to_images(crop_to(result.images, *part.picture))
        return with_text(f"Sampling: {report}", {"samples": latents}, images, report)
