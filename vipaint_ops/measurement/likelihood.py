"""Noise models: the log-density of a residual, and the weight of each measurement."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError


class Likelihood(Protocol):
    """The law of independent noise on measurements; the observation gives its scale."""

    robust: ClassVar[bool]
    """Whether each measurement has its own weight."""

    def log_prob(self, residual: Tensor, variance: Tensor) -> Tensor:
        """Log-density of ``residual`` where the squared scale is ``variance``, elementwise."""
        ...

    def weights(self, residual: Tensor, noise_variance: float, predicted: Tensor) -> Tensor:
        """w of each measurement, small for outliers: its noise has the variance ``noise_variance`` / w.

        Args:
            residual: measurement less prediction, ``[batch, ...]``.
            predicted: the prediction's own variance, as seen by each measurement.
        """
        ...

    def draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Noise of scale 1, of the shape, dtype and device of ``like``; ``generator`` is on the CPU."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """N(0, scale^2)."""

    robust: ClassVar[bool] = False

    def log_prob(self, residual: Tensor, variance: Tensor) -> Tensor:
        return -0.5 * (residual**2 / variance + (2 * math.pi * variance).log())

    def weights(self, residual: Tensor, noise_variance: float, predicted: Tensor) -> Tensor:
        return torch.ones_like(residual)

    def draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)


@dataclass(frozen=True)
class StudentT:
    """Student's t: Gaussian noise on most measurements, with a few outliers of any size.

    It is a Gaussian whose variance is scale^2 / w with w ~ Gamma(degrees / 2, degrees / 2), for each measurement alone.
    Infinitely many degrees make it Gaussian.

    Args:
        degrees: of freedom, positive; fewer degrees mean more outliers.

    Raises:
        InputError: ``degrees`` is not positive.
    """

    degrees: float = 2.0
    robust: ClassVar[bool] = True

    def __post_init__(self):
        if not (math.isfinite(self.degrees) and self.degrees > 0):
            raise InputError(f"degrees is {self.degrees}; it must be positive (2 suits a few outliers)")

    def log_prob(self, residual: Tensor, variance: Tensor) -> Tensor:
        degrees = self.degrees
        constant = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)
        spread = (math.pi * degrees * variance).log()
        return constant - 0.5 * (spread + (degrees + 1) * (residual**2 / (degrees * variance)).log1p())

    def weights(self, residual: Tensor, noise_variance: float, predicted: Tensor) -> Tensor:
        """The E-step, E[w | residual] = (degrees + 1) / (degrees + r^2 / S), with S = noise_variance + predicted.

        Exact where the prediction is certain (Lange, Little & Taylor 1989, eq. 4). Elsewhere S keeps the prediction's
        own error from counting as an outlier.
        """
        return (self.degrees + 1) / (self.degrees + residual**2 / (noise_variance + predicted))

    def draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        seed = int(torch.randint(2**62, (), generator=generator))
        values = np.random.default_rng(seed).standard_t(self.degrees, like.shape)
        return torch.from_numpy(values).to(like.device, like.dtype)
