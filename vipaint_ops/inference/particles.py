"""Sequential Monte Carlo over the guided chain: populations of particles that are weighed, and drawn again, by y."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior
from ..diffusion.schedule import CLEAN
from ..diffusion.streams import NoiseStreams
from ..measurement.observation import Observation
from .corrections import GuidanceConfig
from .progress import Callback, Progress
from .results import Populations
from .twist import FEW, ExactTwist, ScalarTwist, Twist

LEAST_EFFECTIVE = 0.5
"""The share of a population that its effective sample size must not fall below."""


def effective_share(log_weights: Tensor) -> Tensor:
    """Effective sample size (Kong 1992) over the number of particles, ``[populations]``, of ``[populations, size]``."""
    return 1 / (log_weights.softmax(1) ** 2).sum(1) / log_weights.shape[1]


def systematic(log_weights: Tensor, uniform: Tensor) -> Tensor:
    """Ancestors by systematic resampling: particle i gets floor or ceil of size x weight_i children.

    Args:
        log_weights: ``[populations, size]``, not normalised.
        uniform: ``[populations]`` in [0, 1).
    """
    size = log_weights.shape[1]
    places = (torch.arange(size, device=uniform.device) + uniform[:, None]) / size
    return torch.searchsorted(log_weights.softmax(1).cumsum(1), places).clamp(max=size - 1)


def tempered(log_weights: Tensor) -> Tensor:
    """The largest exponent up to 1, ``[populations]``, by bisection, that leaves each :data:`LEAST_EFFECTIVE`."""
    low, high = torch.zeros_like(log_weights[:, 0]), torch.ones_like(log_weights[:, 0])
    enough = effective_share(log_weights) >= LEAST_EFFECTIVE
    for _ in range(30):
        middle = (low + high) / 2
        fits = effective_share(middle[:, None] * log_weights) >= LEAST_EFFECTIVE
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return torch.where(enough, 1.0, low)


def weighs_exactly(observation: Observation) -> bool:
    """Whether there are few enough measurements, :data:`~.twist.FEW` at most, for weights that do not degenerate, and
    their noise is Gaussian."""
    return int(observation.observed.sum()) <= FEW and not observation.likelihood.robust


def particle_chain(
    prior: CountedPrior,
    observation: Observation,
    z: Tensor,
    log_weights: Tensor | None,
    times: list[float],
    size: int,
    config: GuidanceConfig,
    streams: NoiseStreams,
    callback: Callback | None = None,
    weighed: bool = False,
) -> tuple[Tensor, Populations]:
    """Run populations of ``size`` particles from ``z`` at ``times[0]`` to clean latents of equal weight.

    A few measurements (:data:`~.twist.FEW` at most) are weighed exactly: on a Gaussian prior samples are exact but for
    the steps, on others the weights make up for what the linear model misses. Many are weighed by a scalar, and
    tempered.

    Args:
        z: ``[populations x size, *latent_shape]``.
        log_weights: ln p(z) - ln q(z) of the law q that ``z`` was drawn from, ``[populations x size]``; none where
            it is p itself, or unknown.
        times: decreasing; the last is followed by the step to the clean latent.
        weighed: whether ``z`` is drawn from p(z | y), as nearly as is known: weights are then even to begin with, and
            say nothing of p(y).
    """
    levels = [prior.schedule.level(t) for t in times] + [CLEAN]
    few = weighs_exactly(observation)
    make = ExactTwist if few else ScalarTwist
    foreseen = torch.zeros(len(z), dtype=torch.float64, device=z.device)
    carried = (foreseen if log_weights is None or not few else log_weights.double()).view(-1, size)
    evidence, known = torch.zeros(len(carried), dtype=torch.float64, device=z.device), few and not weighed
    effective, exponent = torch.ones_like(evidence), torch.ones_like(evidence)
    for i, t in enumerate(times):
        twist: Twist = make(prior, observation, z, t, config, streams)
        if weighed and i == 0:
            foreseen = twist.log_likelihood
        carried = carried + (twist.log_likelihood - foreseen).view(-1, size)
        if not few:
            power = tempered(carried)
            carried, exponent = power[:, None] * carried, exponent.minimum(power)
        share = effective_share(carried)
        effective = effective.minimum(share)
        again = (share < LEAST_EFFECTIVE) | (i == len(times) - 1)
        rows, carried, gained = _drawn_again(carried, again, streams)
        evidence = evidence + gained
        z, foreseen = twist.step(rows, levels[i + 1])
        if callback is not None:
            callback(Progress("sample", i + 1, len(times)))
    return z, Populations(size, effective, exponent, evidence if known else torch.full_like(evidence, math.nan))


def _drawn_again(log_weights: Tensor, again: Tensor, streams: NoiseStreams) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the ancestors, the weights after the draw, and the mean weight that it took out: only where ``again``."""
    count, size = log_weights.shape
    uniform = torch.special.ndtr(streams.normal(log_weights.new_zeros(count * size, 1)).view(count, size)[:, 0])
    own = torch.arange(size, device=log_weights.device)
    ancestors = torch.where(again[:, None], systematic(log_weights, uniform), own)
    mean = log_weights.logsumexp(1) - math.log(size)
    rows = (ancestors + size * torch.arange(count, device=own.device)[:, None]).flatten()
    return rows, torch.where(again[:, None], 0.0, log_weights), torch.where(again, mean, 0.0)
