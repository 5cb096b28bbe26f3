"""Kalman guidance from pure noise: the refinement of VIPaint on its own."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..inference.chain import guided_chain, noisiest, pure_noise
from ..inference.corrections import Kalman
from ..inference.decoder import DECODERS
from ..inference.particles import Particles, particle_chain
from ..inference.progress import reported
from ..settings import choice, number
from .config import LogSnrConfig
from .driver import sampler


@dataclass(frozen=True, kw_only=True)
class KalmanConfig(LogSnrConfig):
    """``steps`` reverse steps, even in log-SNR; ``correction``, its settings; ``particles`` as in
    :class:`~vipaint_ops.vipaint.config.RefineConfig`."""

    steps: int = number(32, 1)
    particles: int = number(1, 1)
    decoder: str = choice("linear", DECODERS)
    correction: Kalman = field(default_factory=Kalman)

    @property
    def population(self) -> int:
        """Particles of a population."""
        return self.particles


@sampler(KalmanConfig)
def kalman(prior, observation, config, streams, callback):
    """Ancestral sampling with Tweedie-covariance guidance; exact for Gaussian priors (TMPD, Boys et al. 2023)."""
    times = config.grid(prior)
    if config.particles > 1:
        observation.require_gaussian("weighing particles")
        particles = Particles(noisiest(prior, times[0], streams), config.particles)
        return particle_chain(prior, observation, particles, times, config.correction, streams, callback)
    steps = reported(prior.schedule.reverse_steps(times), callback)
    z = pure_noise(prior, times[0], streams)
    return guided_chain(prior, observation, z, steps, config.correction, streams)
