"""Noise models: how likely a residual is, and how far each measurement is to be believed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError


class Likelihood(Protocol):
    """The law of independent noise on measurements, of a scale that the observation gives."""

    robust: ClassVar[bool]
    """Whether measurements are to be weighed one by one."""

    def log_prob(self, residual: Tensor, variance: Tensor) -> Tensor:
        """Log-density of ``residual`` where the squared scale is ``variance``, elementwise."""
        ...

    def weights(self, residual: Tensor, noise_variance: float, predicted: Tensor) -> Tensor:
        """w of each measurement, small where doubtful: its noise is taken to have the variance ``noise_variance`` / w.

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
    """Student's t: most measurements are as good as Gaussian ones, a few may be wrong by any amount.

    It is a Gaussian whose variance is scale^2 / w with w ~ Gamma(degrees / 2, degrees / 2), for each measurement alone.
    Infinitely many degrees make it Gaussian.

    Args:
        degrees: of freedom, positive; the fewer, the more wrong measurements are expected.

    Raises:
        InputError: ``degrees`` is not positive.
    """

    degrees: float = 2.0
    robust: ClassVar[bool] = True

    def __post_init__(self):
        if not (math.isfinite(self.degrees) and self.degrees > 0):
            raise InputError(f"degrees is {self.degrees}; it must be positive (2 suits a few wrong pixels)")

    def log_prob(self, residual: Tensor, variance: Tensor) -> Tensor:
        degrees = self.degrees
        constant = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)
        spread = (math.pi * degrees * variance).log()
        return constant - 0.5 * (spread + (degrees + 1) * (residual**2 / (degrees * variance)).log1p())

    def weights(self, residual: Tensor, noise_variance: float, predicted: Tensor) -> Tensor:
        """The E-step, E[w | residual] = (degrees + 1) / (degrees + r^2 / S), with S = noise_variance + predicted.

        Where the prediction is certain this is exact (Lange, Little & Taylor 1989, eq. 4). Where it is not, S keeps a
        residual that the prediction explains from counting as a wrong measurement.
        """
        return (self.degrees + 1) / (self.degrees + residual**2 / (noise_variance + predicted))

    def draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        seed = int(torch.randint(2**62, (), generator=generator))
        values = np.random.default_rng(seed).standard_t(self.degrees, like.shape)
        return torch.from_numpy(values).to(like.device, like.dtype)
