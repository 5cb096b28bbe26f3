"""DPS: diffusion posterior sampling by the gradient of the residual's norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..ancestral import SampleResult, guided_chain, pure_noise
from ..batches import sample_in_batches
from ..guidance import GuidanceConfig
from ..observation import Observation
from ..prior import DiffusionPrior
from ..progress import Callback
from .config import SamplerConfig


@dataclass(frozen=True, kw_only=True)
class DPSConfig(SamplerConfig):
    """Published: 1000 steps, even in time, ``scale`` 0.5 for inpainting and 0.3 for deblurring and super-resolution."""

    steps: int = 1000
    scale: float = 0.5


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
    """DPS (Chung et al. 2023, algorithm 1), the residual's norm taken of each sample, not of the batch."""
    settings = config or DPSConfig()
    times = settings.grid(prior)
    guidance = GuidanceConfig(dps_scale=settings.scale)

    def chain(counted, observation, streams, report):
        z = pure_noise(counted, times[0], streams)
        return guided_chain(counted, observation, z, times, "dps", guidance, streams, callback=report)

    return sample_in_batches(
        prior, observation, chain, num_samples, settings.batch_size, generator=generator, first=first, noise=noise,
        callback=callback,
    )  # fmt: skip
