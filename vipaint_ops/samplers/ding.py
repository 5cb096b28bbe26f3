"""DInG: Gaussian posterior transitions on the latent grid, without a gradient and without the decoder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import zip_longest

import torch

from ..diffusion.schedule import Level, reverse_kernel, reverse_mean
from ..inference.chain import pure_noise
from ..inference.progress import reported
from ..settings import number
from .config import SamplerConfig
from .driver import sampler
from .known import Known, pixels_only


@dataclass(frozen=True, kw_only=True)
class DInGConfig(SamplerConfig):
    """Published: 28 steps, even in time, and a standard deviation of 0.01 (``configs`` of YazidJanati/ding).

    Attributes:
        known_std: standard deviation of the known latents about the encoded picture, in those of the prior's latents.
        refreshes: how often the known latents are encoded anew with a prediction in the hole; 0 for a chain without
            the decoder, as published.
    """

    steps: int = number(28, 1)
    known_std: float = number(0.01, 0, open=True)
    refreshes: int = number(3, 0, 20)


def fresh_std(s: Level, data_std: float) -> float:
    """Standard deviation of the fresh noise in the step to level ``s``: sigma_s (1 - alpha_s) in a flow.

    The levels of other schedules are converted to those of a flow, whose coefficients of signal and noise add up to 1.
    """
    return s.sigma * s.sigma / (s.alpha * data_std + s.sigma)


@sampler(DInGConfig, pixels_only("DInG"), gradients=False)
@torch.no_grad()
def ding(prior, observation, config, streams, callback):
    """DInG (Moufad et al. 2026, algorithm 1): needs no gradient, and two forward passes a step.

    A proxy of z_s is drawn from the prior's step, and the noise in it is predicted by the second pass. The likelihood
    N(alpha_s y + sigma_s eps(proxy); z_s, alpha_s^2 std^2) of the known latents does not depend on z_s in any other
    way, so its product with the prior's step is Gaussian and is drawn exactly. The last step is the prediction.

    Raises:
        InputError: the observation is not an inpainting one, or not of a picture.
    """
    steps = prior.schedule.reverse_steps(config.grid(prior))
    known = Known(prior, observation, config.refreshes)
    z = pure_noise(prior, steps[0].t, streams)
    for step, below in reported(list(zip_longest(steps, steps[1:])), callback):
        z0 = prior.denoise(z, step.t)
        known.refresh(z0, step.level)
        if below is None:
            z = known.put_into(z0)
            continue
        s = below.level
        eta = fresh_std(s, prior.data_std) / math.sqrt(reverse_kernel(s, step.level).variance)
        mean, variance = reverse_mean(z, z0, s, step.level, eta)
        proxy = mean + math.sqrt(variance) * streams.normal(mean)
        noise = (proxy - s.alpha * prior.denoise(proxy, below.t)) / s.sigma
        gain = known.keep * variance / (variance + (s.alpha * config.known_std * prior.data_std) ** 2)
        mean = mean + gain * (s.alpha * known.latents + s.sigma * noise - mean)
        z = mean + (variance * (1 - gain)).sqrt() * streams.normal(mean)
    return z
