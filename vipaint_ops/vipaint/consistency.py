"""Check of finished samples: whether they explain the observation."""

from __future__ import annotations

import torch
from torch import Tensor

from ..diffusion.prior import CountedPrior
from ..inference.linearised import dot
from ..measurement.observation import Observation

TOLERATED = 1.07
"""Factor on the root mean square residual beyond chance and the autoencoder's error."""


def chance(count: int, quantile: float = 3.09) -> float:
    """The 99.9th percentile of a sum of ``count`` squared standard normals (Wilson & Hilferty 1931).

    ``quantile`` is that of a standard normal.
    """
    return count * (1 - 2 / (9 * count) + quantile * (2 / (9 * count)) ** 0.5) ** 3


def excess(prior: CountedPrior, observation: Observation, picture: Tensor) -> Tensor:
    """|y - A x|^2 over the largest value allowed for a sample x of the posterior, ``[batch]``: above 1 it is refused.

    The largest value is the one of the noise by chance. Through a mask it is at least the autoencoder's own residual on
    this picture with its known pixels put back: the decoder's error is no fault of the sample. ``picture`` is
    ``[batch, channels, height, width]`` in [-1, 1].
    """
    residual = observation.residual(picture)
    noise = observation.noise_std**2 * chance(int(observation.observed.sum()))
    allowed = torch.full_like(dot(residual, residual), noise)
    if observation.operator.selects:
        exact = picture + observation.operator.pinv(residual)
        left = observation.residual(prior.decode(prior.encode(exact)))
        allowed = allowed.maximum(dot(left, left))
    return dot(residual, residual) / (TOLERATED**2 * allowed)
