"""DInG: Gaussian posterior transitions on the latent grid, without a gradient and without the decoder."""

from __future__ import annotations

from dataclasses import dataclass

from ..inference.chain import pure_noise
from ..inference.ding import KNOWN_STD, ding_chain
from ..inference.known import REFRESHES, Known, pixels_only
from ..settings import number
from .config import SamplerConfig
from .driver import sampler


@dataclass(frozen=True, kw_only=True)
class DInGConfig(SamplerConfig):
    """Published: 28 steps, even in time, and a standard deviation of 0.01 (``configs`` of YazidJanati/ding).

    Attributes:
        known_std: standard deviation of the known latents about the encoded picture, in those of the prior's latents.
        refreshes: how often the known latents are encoded anew with a prediction in the hole; 0 for a chain without
            the decoder, as published.
    """

    steps: int = number(28, 1)
    known_std: float = number(KNOWN_STD, 0, open=True)
    refreshes: int = number(REFRESHES, 0, 20)


@sampler(DInGConfig, pixels_only("DInG"), gradients=False)
def ding(prior, observation, config, streams, callback):
    """DInG (Moufad et al. 2026, algorithm 1): needs no gradient, and two forward passes a step.

    Raises:
        InputError: the observation is not an inpainting one, or not of a picture.
    """
    steps = prior.schedule.reverse_steps(config.grid(prior))
    known = Known(prior, observation, config.refreshes)
    return ding_chain(
        prior,
        known,
        pure_noise(prior, steps[0].t, streams),
        steps,
        streams,
        callback,
        config.known_std,
    )
