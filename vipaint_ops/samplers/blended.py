"""Blended (replacement) sampling: overwrite the known latents at every noise level."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..inference.chain import pure_noise, reverse_step
from ..inference.known import known_latents, pixels_only, warn_if_unused
from ..inference.progress import reported
from ..settings import number
from .config import SamplerConfig
from .driver import sampler


@dataclass(frozen=True, kw_only=True)
class BlendedConfig(SamplerConfig):
    """``steps`` even in time; ``eta`` 0 for DDIM, 1 for ancestral noise."""

    steps: int = number(250, 1)
    eta: float = number(0.0, 0, 1)


@sampler(BlendedConfig, pixels_only("blended sampling"), gradients=False)
def blended(prior, observation, config, streams, callback):
    """Replacement sampling (Blended Latent Diffusion, Avrahami et al. 2023): needs no gradient.

    Raises:
        InputError: the observation is not an inpainting one, or not of a picture.
    """
    steps = prior.schedule.reverse_steps(config.grid(prior))
    known, keep = known_latents(prior, observation)
    warn_if_unused(observation, keep)
    z = pure_noise(prior, steps[0].t, streams)
    for step in reported(steps, callback):
        alpha, sigma = step.level
        z = keep * (alpha * known + sigma * streams.normal(z)) + (1 - keep) * z
        with torch.no_grad():
            z0 = prior.denoise(z, step.t)
        z = reverse_step(z, z0, step, streams, config.eta)
    return keep * known + (1 - keep) * z
