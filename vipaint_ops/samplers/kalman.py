"""Kalman guidance from pure noise: the refinement of VIPaint standing alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..diffusion.prior import DiffusionPrior
from ..errors import InputError
from ..inference.batches import sample_in_batches
from ..inference.chain import end_time, guided_chain, pure_noise, time_grid
from ..inference.corrections import GuidanceConfig
from ..inference.particles import particle_chain
from ..inference.progress import Callback
from ..inference.results import Populations, SampleResult
from ..measurement.observation import Observation
from .config import SamplerConfig


@dataclass(frozen=True, kw_only=True)
class KalmanConfig(SamplerConfig):
    """``steps`` reverse steps, even in log-SNR; ``settings`` of the correction; ``particles`` as in
    :class:`~vipaint_ops.vipaint.refine.RefineConfig`.

    Raises:
        InputError: fewer than one particle.
    """

    steps: int = 32
    particles: int = 1
    settings: GuidanceConfig = field(default_factory=GuidanceConfig)

    def __post_init__(self):
        super().__post_init__()
        if self.particles < 1:
            raise InputError(f"particles is {self.particles}; it must be at least 1")

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

    if settings.particles > 1:
        observation.require_gaussian("weighing particles")
    populations: list[Populations] = []

    def chain(counted, observation, streams, report):
        z = pure_noise(counted, times[0], streams)
        if settings.particles > 1:
            z, drawn = particle_chain(
                counted, observation, z, None, times, settings.particles, settings.settings, streams, report
            )
            populations.append(drawn)
            return z
        return guided_chain(counted, observation, z, times, "kalman", settings.settings, streams, callback=report)

    result = sample_in_batches(
        prior, observation, chain, num_samples, settings.batch_size, generator=generator, first=first, noise=noise,
        population=settings.particles, callback=callback,
    )  # fmt: skip
    return replace(result, populations=Populations.joined(populations)) if populations else result
