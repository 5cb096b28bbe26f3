"""DPS: diffusion posterior sampling by the gradient of the residual's norm."""

from __future__ import annotations

from dataclasses import dataclass

from ..inference.chain import pure_noise, reverse_step
from ..inference.corrections import DPS
from ..inference.progress import reported
from ..settings import number
from .config import SamplerConfig
from .driver import sampler
from .gradient_step import in_units_of, relative_length

PUBLISHED_SIZE, PUBLISHED_STEPS = 3 * 256 * 256, 1000


@dataclass(frozen=True, kw_only=True)
class DPSConfig(SamplerConfig):
    """Published for pictures of 256 pixels in 1000 steps; other sizes and numbers of steps follow
    :func:`~vipaint_ops.samplers.gradient_step.relative_length`.

    Attributes:
        scale: zeta, the step length down the residual's norm: 0.5 for inpainting, the default.
    """

    steps: int = number(PUBLISHED_STEPS, 1)
    scale: float = number(0.5, 0)

    @classmethod
    def deblurring(cls) -> DPSConfig:
        """Gaussian and motion blur."""
        return cls(scale=0.3)

    @classmethod
    def super_resolution(cls) -> DPSConfig:
        """Bicubic, four times."""
        return cls(scale=0.3)


@sampler(DPSConfig)
def dps(prior, observation, config, streams, callback):
    """DPS (Chung et al. 2023, algorithm 1): every step is an ancestral one, less ``scale`` times the gradient by z_t of
    \\|y - A D(zh)\\|, the norm taken of each sample."""
    steps = prior.schedule.reverse_steps(config.grid(prior))
    length = config.scale * relative_length(prior, len(steps), PUBLISHED_SIZE, PUBLISHED_STEPS)
    z = pure_noise(prior, steps[0].t, streams)
    for step in reported(steps, callback):
        correction = DPS(length * in_units_of(prior, step.next, step.level))
        z = reverse_step(z, correction(prior, observation, z, step, streams).z0, step, streams)
    return z
