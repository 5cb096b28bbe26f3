"""The reverse chain of DInG: Gaussian posterior transitions on the latent grid (Moufad et al. 2026, algorithm 1)."""

from __future__ import annotations

import math
from itertools import zip_longest

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior
from ..diffusion.schedule import Level, ReverseStep, reverse_kernel, reverse_mean
from ..diffusion.streams import NoiseStreams
from .known import Known
from .progress import Callback, reported

KNOWN_STD = 0.01
"""Published standard deviation of the known latents about the encoded picture, in those of the prior's latents."""


def fresh_std(s: Level, data_std: float) -> float:
    """Standard deviation of the fresh noise in the step to level ``s``: sigma_s (1 - alpha_s) in a flow.

    The levels of other schedules are converted to those of a flow, whose coefficients of signal and noise add up to 1.
    """
    return s.sigma * s.sigma / (s.alpha * data_std + s.sigma)


@torch.no_grad()
def ding_chain(
    prior: CountedPrior,
    known: Known,
    z: Tensor,
    steps: list[ReverseStep],
    streams: NoiseStreams,
    callback: Callback,
    known_std: float = KNOWN_STD,
) -> Tensor:
    """Run the chain from ``z`` to a clean latent, in two forward passes a step.

    A proxy of z_s is drawn from the prior's step, and the noise in it is predicted by the second pass. The likelihood
    N(alpha_s y + sigma_s eps(proxy); z_s, alpha_s^2 std^2) of the known latents does not depend on z_s in any other
    way, so its product with the prior's step is Gaussian and is drawn exactly. The last step is the prediction.

    Args:
        z: ``[batch, *latent_shape]`` at the time of the first step.
        known_std: standard deviation of the known latents, in those of the prior's latents.
    """
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
        gain = known.keep * variance / (variance + (s.alpha * known_std * prior.data_std) ** 2)
        mean = mean + gain * (s.alpha * known.latents + s.sigma * noise - mean)
        z = mean + (variance * (1 - gain)).sqrt() * streams.normal(mean)
    return z
