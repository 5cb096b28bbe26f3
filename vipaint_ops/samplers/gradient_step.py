"""The step of PSLD and ReSample: a reverse step, then a move down a loss of the prediction."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior, DiffusionPrior
from ..diffusion.schedule import Level, ReverseStep, reverse_mean
from ..diffusion.streams import NoiseStreams
from ..measurement.observation import Observation

Loss = Callable[[Tensor], Tensor]
"""One number for each clean latent: ``[batch, *latent_shape]`` to ``[batch]``."""


def relative_length(prior: DiffusionPrior, steps: int, published_size: int, published_steps: int) -> float:
    """Factor on a published step length, for another size of latents and number of steps.

    The gradient of a norm is about as long for a small latent as for a large one. So the length follows the root of the
    latent's size, so that each element moves as far, and the number of steps, so that the chain moves as far.
    """
    return math.sqrt(math.prod(prior.latent_shape) / published_size) * published_steps / steps


def in_units_of(prior: CountedPrior, s: Level, t: Level) -> float:
    """Factor from a published length, for z of unit variance at all levels, to one for ``prior``, which moves z_s by
    the gradient by z_t."""
    return math.hypot(prior.data_std * s.alpha, s.sigma) * math.hypot(prior.data_std * t.alpha, t.sigma)


def gradient_step(
    prior: CountedPrior,
    z: Tensor,
    step: ReverseStep,
    loss: Loss,
    length: float,
    streams: NoiseStreams,
    eta: float = 0.0,
) -> Tensor:
    """z at ``step.next``: the reverse step, less ``length`` times the gradient of ``loss(zh(z))`` by ``z``."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        z0 = prior.denoise(z, step.t)
        (gradient,) = torch.autograd.grad(loss(z0).sum(), z)
    mean, variance = reverse_mean(z.detach(), z0.detach(), step.next, step.level, eta)
    moved = mean - length * in_units_of(prior, step.next, step.level) * gradient
    return moved + math.sqrt(variance) * streams.normal(moved) if variance > 0 else moved


def residual_norm(observation: Observation, picture: Tensor) -> Tensor:
    """\\|y - A x\\| of each picture, never of the batch."""
    return observation.residual(picture).flatten(1).norm(dim=1)
