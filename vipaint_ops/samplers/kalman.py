"""Kalman guidance from pure noise: the refinement of VIPaint standing alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..ancestral import SampleResult, end_time, guided_chain, pure_noise, time_grid
from ..batches import sample_in_batches
from ..guidance import GuidanceConfig
from ..observation import Observation
from ..prior import DiffusionPrior
from ..progress import Callback
from .config import SamplerConfig


@dataclass(frozen=True, kw_only=True)
class KalmanConfig(SamplerConfig):
    """``steps`` reverse steps, even in log-SNR; ``settings`` of the correction."""

    steps: int = 32
    settings: GuidanceConfig = field(default_factory=GuidanceConfig)

    def _spread(self, prior: DiffusionPrior, start: float) -> list[float]:
        return time_grid(prior.schedule, start, end_time(prior.schedule, prior.data_std), self.steps)


def kalman(
    prior: DiffusionPrior,
    observation: Observation,
    num_samples: int,
    config: KalmanConfig | None = None,
    *,
    generator: torch.Generator,
    first: int = 0,
    noise: Tensor | None = None,
    callback: Callback | None = None,
) -> SampleResult:
    """Ancestral sampling with Tweedie-covariance guidance; exact for Gaussian priors (TMPD, Boys et al. 2023)."""
    settings = config or KalmanConfig()
    times = settings.grid(prior)

    def chain(counted, observation, streams, report):
        z = pure_noise(counted, times[0], streams)
        return guided_chain(counted, observation, z, times, "kalman", settings.settings, streams, callback=report)

    return sample_in_batches(
        prior, observation, chain, num_samples, settings.batch_size, generator=generator, first=first, noise=noise,
        callback=callback,
    )  # fmt: skip
