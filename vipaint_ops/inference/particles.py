"""Sequential Monte Carlo over the guided chain: populations of particles that are weighed and resampled by y."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior
from ..diffusion.streams import NoiseStreams
from ..measurement.observation import Observation
from .corrections import Kalman
from .linearised import exact
from .progress import Callback, reported
from .results import Drawn, Populations
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
    """Whether weights will not degenerate: at most :data:`~.twist.FEW` measurements, with Gaussian noise."""
    return int(observation.observed.sum()) <= FEW and not observation.likelihood.robust


@dataclass(frozen=True)
class Particles:
    """Populations of particles at the first level of a chain.

    Attributes:
        z: ``[populations x size, *latent_shape]``.
        size: particles of a population.
        log_weights: ln p(z) - ln q(z) of the law q that ``z`` was drawn from, ``[populations x size]``; none where it
            is p itself, or unknown.
        weighed: whether ``z`` is an (approximate) draw from p(z | y). Weights are then even at first, and give no
            estimate of p(y).
    """

    z: Tensor
    size: int
    log_weights: Tensor | None = None
    weighed: bool = False


def particle_chain(
    prior: CountedPrior,
    observation: Observation,
    particles: Particles,
    times: list[float],
    kalman: Kalman,
    streams: NoiseStreams,
    callback: Callback,
) -> Drawn:
    """Run populations of particles to clean latents of equal weight.

    A few measurements (:data:`~.twist.FEW` at most) are weighed exactly: on a Gaussian prior samples are exact except
    for the step size, on others the weights correct the linear model. Many are weighed by a scalar, and tempered.

    Args:
        particles: at ``times[0]``.
        times: decreasing; after the last comes the step to the clean latent.
        kalman: of the proposal.
    """
    few, z, size = weighs_exactly(observation), particles.z, particles.size
    make = ExactTwist if few else ScalarTwist
    predicted = torch.zeros(len(z), dtype=torch.float64)
    start = particles.log_weights if few and particles.log_weights is not None else predicted
    log_weights = exact(start).view(-1, size)
    evidence = torch.zeros(len(log_weights), dtype=torch.float64)
    effective, exponent = torch.ones_like(evidence), torch.ones_like(evidence)
    steps = prior.schedule.reverse_steps(times)
    for step in reported(steps, callback):
        twist: Twist = make(prior, observation, z, step, kalman, streams)
        if particles.weighed and step is steps[0]:
            predicted = twist.log_likelihood
        log_weights = log_weights + (twist.log_likelihood - predicted).view(-1, size)
        if not few:
            power = tempered(log_weights)
            log_weights, exponent = power[:, None] * log_weights, exponent.minimum(power)
        share = effective_share(log_weights)
        effective = effective.minimum(share)
        again = (share < LEAST_EFFECTIVE) | (step is steps[-1])
        rows, log_weights, gained = _resampled(log_weights, again, streams)
        evidence = evidence + gained
        z, predicted = twist.move(rows)
    known = few and not particles.weighed
    return Drawn(z, Populations(size, effective, exponent, evidence if known else evidence.fill_(math.nan)))


def _resampled(log_weights: Tensor, again: Tensor, streams: NoiseStreams) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the ancestors, the weights after resampling, and the mean weight removed: only where ``again``."""
    count, size = log_weights.shape
    uniform = torch.special.ndtr(streams.normal(log_weights.new_zeros(count * size, 1)).view(count, size)[:, 0])
    ancestors = torch.where(again[:, None], systematic(log_weights, uniform), torch.arange(size))
    mean = log_weights.logsumexp(1) - math.log(size)
    rows = (ancestors + size * torch.arange(count)[:, None]).flatten()
    return rows, torch.where(again[:, None], 0.0, log_weights), torch.where(again, mean, 0.0)
