"""Kalman guidance from pure noise: the refinement of VIPaint standing alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..ancestral import SampleResult, end_time, guided_chain, start_time, time_grid
from ..batches import sample_in_batches
from ..guidance import GuidanceConfig
from ..observation import Observation
from ..prior import DiffusionPrior
from ..progress import Callback


@dataclass(frozen=True)
class KalmanConfig:
    """``steps`` reverse steps, even in log-SNR; ``settings`` of the correction."""

    steps: int = 16
    batch_size: int = 8
    settings: GuidanceConfig = field(default_factory=GuidanceConfig)


def kalman(
    prior: DiffusionPrior,
    observation: Observation,
    num_samples: int,
    config: KalmanConfig | None = None,
    *,
    generator: torch.Generator,
    first: int = 0,
    callback: Callback | None = None,
) -> SampleResult:
    """Ancestral sampling with Tweedie-covariance guidance; exact for Gaussian priors (TMPD, Boys et al. 2023)."""
    settings = config or KalmanConfig()
    start = start_time(prior.schedule, prior.data_std)
    times = time_grid(prior.schedule, start, end_time(prior.schedule, prior.data_std), settings.steps)

    def chain(counted, observation, streams, report):
        z = prior.schedule.sigma(start) * streams.normal(counted.zeros(streams.rows))
        return guided_chain(counted, observation, z, times, "kalman", settings.settings, streams, callback=report)

    return sample_in_batches(
        prior, observation, chain, num_samples, settings.batch_size, generator=generator, first=first, callback=callback
    )
