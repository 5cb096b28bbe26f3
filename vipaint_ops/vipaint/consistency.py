"""Whether a finished sample explains its observation: what a chain is asked before its sample is handed out."""

from __future__ import annotations

import torch
from torch import Tensor

from ..diffusion.prior import DiffusionPrior
from ..inference.linearised import dot
from ..measurement.observation import Observation

TOLERATED = 1.07
"""Factor on the root mean square residual beyond what chance and the autoencoder account for."""


def chance(count: int, quantile: float = 3.09) -> float:
    """What the sum of ``count`` squared standard normals stays below but once in a thousand (Wilson & Hilferty 1931).

    ``quantile`` is that of a standard normal.
    """
    return count * (1 - 2 / (9 * count) + quantile * (2 / (9 * count)) ** 0.5) ** 3


def excess(prior: DiffusionPrior, observation: Observation, picture: Tensor) -> Tensor:
    """|y - A x|^2 over the most that a sample x of the posterior is allowed, ``[batch]``: above 1 it is none.

    Allowed is what the noise makes by chance and, through a mask, what the autoencoder leaves of this picture once its
    known pixels are put back: a noise level below what the decoder can do is no fault of the sample. ``picture`` is
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
