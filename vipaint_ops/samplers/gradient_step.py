"""The step that DPS, PSLD and ReSample are made of: a reverse step, then a move down a loss of the prediction."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior, DiffusionPrior
from ..diffusion.schedule import Level, reverse_mean
from ..diffusion.streams import NoiseStreams
from ..measurement.observation import Observation

Loss = Callable[[Tensor], Tensor]
"""Of clean latents ``[batch, *latent_shape]``, a number for each, ``[batch]``."""


def relative_length(prior: DiffusionPrior, steps: int, published_size: int, published_steps: int) -> float:
    """What a published step length is multiplied by, so that it does here what it did where it was published.

    The gradient of a norm is about as long for a small latent as for a large one. So the length follows the root of the
    latent's size, for each number to move as far, and the number of steps, for a chain to move as far.
    """
    return math.sqrt(math.prod(prior.latent_shape) / published_size) * published_steps / steps


def in_units_of(prior: CountedPrior, s: Level, t: Level) -> float:
    """What turns a published length, of z of unit variance at all levels, into one of ``prior``: it moves z_s by the
    gradient by z_t."""
    return math.hypot(prior.data_std * s.alpha, s.sigma) * math.hypot(prior.data_std * t.alpha, t.sigma)


def gradient_step(
    prior: CountedPrior,
    z: Tensor,
    t: float,
    s: Level,
    loss: Loss,
    length: float,
    streams: NoiseStreams,
    eta: float = 0.0,
) -> Tensor:
    """z at ``s``: the reverse step from ``t``, less ``length`` times the gradient of ``loss(zh(z))`` by ``z``."""
    level = prior.schedule.level(t)
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        z0 = prior.denoise(z, t)
        (gradient,) = torch.autograd.grad(loss(z0).sum(), z)
    mean, variance = reverse_mean(z.detach(), z0.detach(), s, level, eta)
    moved = mean - length * in_units_of(prior, s, level) * gradient
    return moved + math.sqrt(variance) * streams.normal(moved) if variance > 0 else moved


def residual_norm(observation: Observation, picture: Tensor) -> Tensor:
    """\\|y - A x\\| of each picture, never of the batch."""
    return observation.residual(picture).flatten(1).norm(dim=1)
