"""DPS: diffusion posterior sampling by the gradient of the residual's norm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.prior import DiffusionPrior
from ..diffusion.schedule import CLEAN, reverse_mean
from ..inference import corrections as guidance
from ..inference.batches import sample_in_batches
from ..inference.chain import pure_noise
from ..inference.corrections import GuidanceConfig
from ..inference.progress import Callback, Progress
from ..inference.results import SampleResult
from ..measurement.observation import Observation
from .config import SamplerConfig
from .gradient_step import in_units_of, relative_length

PUBLISHED_SIZE, PUBLISHED_STEPS = 3 * 256 * 256, 1000


@dataclass(frozen=True, kw_only=True)
class DPSConfig(SamplerConfig):
    """Published for pictures of 256 pixels in 1000 steps; other sizes and numbers of steps follow
    :func:`~vipaint_ops.samplers.gradient_step.relative_length`.

    Attributes:
        scale: zeta, the step length down the residual's norm: 0.5 for inpainting, the default.
    """

    steps: int = PUBLISHED_STEPS
    scale: float = 0.5

    @classmethod
    def deblurring(cls) -> DPSConfig:
        """Gaussian and motion blur."""
        return cls(scale=0.3)

    @classmethod
    def super_resolution(cls) -> DPSConfig:
        """Bicubic, four times."""
        return cls(scale=0.3)


def dps(
    prior: DiffusionPrior,
    observation: Observation,
    num_samples: int,
    config: DPSConfig | None = None,
    *,
    generator: torch.Generator,
    first: int = 0,
    noise: Tensor | None = None,
    callback: Callback | None = None,
) -> SampleResult:
    """DPS (Chung et al. 2023, algorithm 1): ancestral sampling, every step less ``scale`` times the gradient by z_t of
    \\|y - A D(zh)\\|, the norm taken of each sample, not of the batch."""
    settings = config or DPSConfig()
    times = settings.grid(prior)
    levels = [prior.schedule.level(t) for t in times] + [CLEAN]
    length = settings.scale * relative_length(prior, len(times), PUBLISHED_SIZE, PUBLISHED_STEPS)

    def chain(counted, observation, streams, report):
        z = pure_noise(counted, times[0], streams)
        for i, t in enumerate(times):
            s, level = levels[i + 1], levels[i]
            scaled = GuidanceConfig(dps_scale=length * in_units_of(counted, s, level))
            guided = guidance.dps(counted, observation, z, t, s, streams, scaled)
            mean, variance = reverse_mean(z, guided.z0, s, level)
            z = mean + math.sqrt(variance) * streams.normal(z)
            report(Progress("sample", i + 1, len(times)))
        return z

    return sample_in_batches(
        prior, observation, chain, num_samples, settings.batch_size, generator=generator, first=first, noise=noise,
        callback=callback,
    )  # fmt: skip
