"""A sampling method of the library as ComfyUI's SAMPLER."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ...vipaint_ops.errors import InputError
from ...vipaint_ops.inference.progress import Progress
from ...vipaint_ops.inference.results import SampleResult
from ...vipaint_ops.measurement.observation import Observation
from ...vipaint_ops.samplers.config import SamplerConfig
from .branches import Gradients
from .prior import HostPrior, empty_latent, pad_to_model, with_host_prior
from .schedule import HostSchedule
from .vae import HostVAE

Method = Callable[..., SampleResult]
"""A function of :mod:`vipaint_ops.samplers`."""


class HostSampler(comfy.samplers.Sampler):
    """Samples ``observation`` by ``method``, with any GUIDER, SIGMAS and NOISE.

    The batch size of the latent is the number of samples. Each sample starts from its row of the noise, added to the
    latent if that is not empty. All other random numbers come from the seed of the noise. ``config`` is the method's;
    its times come from the sigmas.

    Attributes:
        gradients: networks that the method differentiates through.
        from_latent: whether the method starts from a noisy latent.
        checkpointing: see :func:`~.host.with_host_prior`.
        first: index of the first sample. A sample has the same random numbers in any batch.
    """

    gradients = Gradients.ALL
    from_latent = True
    checkpointing = "auto"
    first = 0

    def __init__(self, method: Method, config: SamplerConfig, observation: Observation, vae: Any):
        self._method, self._config, self._vae = method, config, vae
        self._observation, self._part = pad_to_model(observation, vae)

    def sample(
        self,
        guider: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Called by ComfyUI with the model loaded; latents are in the model's scale.

        Raises:
            InputError: sigmas that do not end at 0, a latent of another size than the observation's or with a mask, or
                a setting that the method does not support.
        """
        for name, values in {"noise": noise, "latent_image": latent_image}.items():
            if not values.isfinite().all():
                raise InputError(f"{name} contains NaN or infinite values: check the node that made it")
        if denoise_mask is not None:
            raise InputError(
                "latent_image has a noise mask, but the observation defines the known pixels: connect an empty latent, "
                "or one without a mask"
            )
        if latent_image.any() and not self.from_latent:
            raise InputError(
                "latent_image is not empty, but this method starts from the observation: connect an empty latent"
            )
        self._check_size(guider, latent_image)
        _check_sigmas(sigmas.tolist())

        def work(prior: HostPrior) -> Tensor:
            times = _times(prior.schedule, sigmas.tolist())
            config = dataclasses.replace(self._config, times=times, batch_size=prior.rows)
            last = Progress("sample", 0, 0)

            def report(progress: Progress) -> None:
                nonlocal last
                last = progress
                prior.report(progress)

            result = self._method(
                prior,
                self._observation,
                len(noise),
                config,
                generator=torch.Generator().manual_seed(seed),
                first=self.first,
                noise=_begin(prior, config, noise, latent_image),
                callback=report,
            )
            # What is shown last is the node's denoised_output.
            prior.report(last, result.latents)
            return result.latents

        seed = extra_args["seed"] or 0
        rows = min(self._config.batch_size, len(noise))
        latents = with_host_prior(
            guider,
            self._vae,
            self._part,
            work,
            rows=rows,
            checkpointing=self.checkpointing,
            gradients=self.gradients,
            sigmas=sigmas,
            callback=callback,
        )
        if not latents.isfinite().all():
            raise InputError(
                "the run diverged to NaN or infinite values: use more steps or a lower scale or rate, raise "
                "noise_level, or load the model in fp32 or bf16"
            )
        return latents

    def _check_size(self, guider: Any, latent_image: Tensor) -> None:
        vae = HostVAE(self._vae)
        wanted = empty_latent(guider.model_patcher, vae, self._part.size)
        if latent_image.shape[1:] != wanted.shape[1:]:
            width, height = (vae.factor * side for side in reversed(latent_image.shape[-2:]))
            rows, columns = self._part.size
            raise InputError(
                f"latent_image is one of {width} x {height} pixels (width x height), but observation needs "
                f"{columns} x {rows}: set width {columns} and height {rows}, or connect Empty Latent for Observation"
            )


def _check_sigmas(sigmas: list[float]) -> None:
    if not all(map(math.isfinite, sigmas)):
        raise InputError("sigmas contain NaN or infinite values: check the node that made them")
    if len(sigmas) < 2 or sigmas[-1] != 0:
        raise InputError(
            f"sigmas end at {sigmas[-1] if sigmas else 'nothing'} and must end at 0, after one or more: connect all "
            "sigmas of the scheduler, or the low_sigmas of SplitSigmas"
        )
    for before, after in pairwise(sigmas):
        if after > before:
            raise InputError(f"sigmas rise from {before:.4g} to {after:.4g} and must decrease")


def _times(schedule: HostSchedule, sigmas: list[float]) -> tuple[float, ...]:
    """The library's times of all sigmas but the last, without duplicates."""
    return tuple(dict.fromkeys(schedule.time_at_host(sigma) for sigma in sigmas[:-1]))


def _begin(prior: HostPrior, config: SamplerConfig, noise: Tensor, latent_image: Tensor) -> Tensor:
    """The noise eps for which sigma eps at the first time is the given noise added to the given latent."""
    level = prior.schedule.level(config.grid(prior)[0])
    return noise.clone() + level.alpha / level.sigma * latent_image.clone()
