"""RePaint: replacement sampling that goes back and forth until the known and the new part agree."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..inference.chain import pure_noise, reverse_step
from ..inference.known import known_latents, pixels_only, warn_if_unused
from ..settings import number
from .driver import sampler
from .travel import TravelConfig, noised, reported_steps


@dataclass(frozen=True, kw_only=True)
class RePaintConfig(TravelConfig):
    """Published: 250 steps, even in time, ten runs through stretches of 10 (section 5, and all configurations of the
    public code)."""

    steps: int = number(250, 1)
    travel_length: int = number(10, 1)
    travel_visits: int = number(10, 1)


@sampler(RePaintConfig, pixels_only("RePaint"), gradients=False)
def repaint(prior, observation, config, streams, callback):
    """RePaint (Lugmayr et al. 2022, algorithm 1 and section 4.2): needs no gradient.

    Before every ancestral step the known latents are overwritten by a fresh draw from q(z_t | z_0) of the encoded
    picture (eq. 8), which is taken as exact, and at the end by the encoded picture itself.

    Raises:
        InputError: the observation is not an inpainting one, or not of a picture.
    """
    moves = config.moves(prior)
    known, keep = known_latents(prior, observation)
    warn_if_unused(observation, keep)
    z = pure_noise(prior, moves[0].step.t, streams)
    for _, step, jump in reported_steps(moves, callback):
        if jump:
            z = noised(z, step.level, step.next, streams)
            continue
        alpha, sigma = step.level
        z = keep * (alpha * known + sigma * streams.normal(z)) + (1 - keep) * z
        with torch.no_grad():
            z0 = prior.denoise(z, step.t)
        z = reverse_step(z, z0, step, streams)
    return keep * known + (1 - keep) * z
