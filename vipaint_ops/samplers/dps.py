"""DPS: diffusion posterior sampling by the gradient of the residual's norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..ancestral import SampleResult, even_times, guided_chain, start_time
from ..batches import sample_in_batches
from ..guidance import GuidanceConfig
from ..observation import Observation
from ..prior import DiffusionPrior
from ..progress import Callback


@dataclass(frozen=True)
class DPSConfig:
    """Published: 1000 steps, even in time, ``scale`` 0.5 for inpainting and 0.3 for deblurring and super-resolution."""

    steps: int = 1000
    scale: float = 0.5
    batch_size: int = 8


def dps(
    prior: DiffusionPrior,
    observation: Observation,
    num_samples: int,
    config: DPSConfig | None = None,
    *,
    generator: torch.Generator,
    first: int = 0,
    callback: Callback | None = None,
) -> SampleResult:
    """DPS (Chung et al. 2023, algorithm 1), the residual's norm taken of each sample, not of the batch."""
    settings = config or DPSConfig()
    start = start_time(prior.schedule, prior.data_std)
    times = even_times(start, settings.steps)
    guidance = GuidanceConfig(dps_scale=settings.scale)

    def chain(counted, observation, streams, report):
        z = prior.schedule.sigma(start) * streams.normal(counted.zeros(streams.rows))
        return guided_chain(counted, observation, z, times, "dps", guidance, streams, callback=report)

    return sample_in_batches(
        prior, observation, chain, num_samples, settings.batch_size, generator=generator, first=first, callback=callback
    )
