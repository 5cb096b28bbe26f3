"""The families a hierarchical posterior can belong to: the library's own, and those of the two published codes.

A family gives the parameters mu, tau and gamma of a keypoint their meaning. All three share one walk
(:meth:`~vipaint_ops.vipaint.posterior.HierarchicalPosterior.walk`) and one file format.

- ``gated`` (the default): q(z_K) = N(alpha_K mu, tau^2), q(z_i | z_{i+1}) = N(g m_p + (1 - g) alpha_i mu, tau^2).
- ``coupled`` (first published code): as ``gated``, but the top's signal follows its own tau,
  q(z_K) = N(sqrt(alpha_K^2 + sigma_K^2 - tau^2) mu, tau^2); in a variance-preserving schedule sqrt(1 - tau^2).
- ``x0`` (second published code): the prediction of z_0 is shifted, x0_q = g zh + mu, and the reverse step, of eta = 1
  and variance w, taken with it; std = sigmoid(tau) sqrt(w). The top is noise of std sigmoid(sigma_T) around the mean
  that mu, taken as the mean of the keypoint below, has there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..diffusion.schedule import Level, reverse_kernel


class Normal(NamedTuple):
    """N(mean, exp(log_std)^2), elementwise."""

    mean: Tensor
    log_std: Tensor


class PriorStep(NamedTuple):
    """The prior's own step from ``z`` above down to a keypoint: its prediction of z_0, and its mean m_p."""

    above: Level
    level: Level
    z: Tensor
    prediction: Tensor
    mean: Tensor


class Family(NamedTuple):
    """``top(mu, tau, levels)`` is q(z_K); ``step(mu, tau, gamma, prior's step)`` is q(z_i | z_{i+1})."""

    top: Callable[[Tensor, Tensor, list[Level]], Normal]
    step: Callable[[Tensor, Tensor, Tensor, PriorStep], Normal]


def coupled_alpha(level: Level, tau: Tensor) -> Tensor:
    """Signal coefficient beside noise of std ``tau`` at the power of ``level``; positive for every tau."""
    return (level.alpha**2 + level.sigma**2 - tau**2).clamp(min=1e-6).sqrt()


def _gated_top(mu: Tensor, log_std: Tensor, levels: list[Level]) -> Normal:
    return Normal(levels[0].alpha * mu, log_std)


def _gated_step(mu: Tensor, log_std: Tensor, gamma: Tensor, step: PriorStep) -> Normal:
    gate = gamma.sigmoid()
    return Normal(gate * step.mean + (1 - gate) * step.level.alpha * mu, log_std)


def _coupled_top(mu: Tensor, log_std: Tensor, levels: list[Level]) -> Normal:
    return Normal(coupled_alpha(levels[0], log_std.exp()) * mu, log_std)


def _x0_top(mu: Tensor, tau: Tensor, levels: list[Level]) -> Normal:
    top, below = levels[0], levels[min(1, len(levels) - 1)]
    return Normal(top.alpha / below.alpha * mu, torch.full_like(tau, top.sigma).sigmoid().log())


def _x0_step(mu: Tensor, tau: Tensor, gamma: Tensor, step: PriorStep) -> Normal:
    kernel = reverse_kernel(step.level, step.above)
    mean = kernel.on_z * step.z + kernel.on_z0 * (gamma.sigmoid() * step.prediction + mu)
    return Normal(mean, logsigmoid(tau) + 0.5 * math.log(kernel.variance))


FAMILIES = {
    "gated": Family(_gated_top, _gated_step),
    "coupled": Family(_coupled_top, _gated_step),
    "x0": Family(_x0_top, _x0_step),
}
