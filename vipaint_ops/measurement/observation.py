"""An observation: y = A x + noise, and how likely a picture makes it."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from ..errors import InputError
from ..operators import Operator
from ..operators.base import working_dtype
from .likelihood import Gaussian, Likelihood

MOST_NOISE = 1e18
"""Largest noise level, whose square float32 holds."""


class Observation:
    """Measurements ``y`` of a picture through ``operator``, with noise of scale ``noise_std``, Gaussian by default.

    Args:
        y: ``[1, ...]``, the shape of ``operator(x)`` for one picture x in [-1, 1].
        operator: the linear operator A.
        noise_std: in the units of ``y`` (0.05 in [-1, 1] is 0.025 in [0, 1]); positive. It covers the decoder's error
            and the camera's noise.
        likelihood: the law of the noise, of scale ``noise_std``;
            :class:`~vipaint_ops.measurement.likelihood.StudentT` where some measurements are outliers.

    Raises:
        InputError: ``y`` is not finite, not a batch of one or not of the operator's shape, or the noise
            level is not positive.
    """

    def __init__(self, y: Tensor, operator: Operator, noise_std: float, likelihood: Likelihood | None = None):
        if y.ndim < 2 or y.numel() == 0:
            raise InputError(f"y has shape {tuple(y.shape)}; give a batch of one observation, not empty")
        if len(y) != 1:
            raise InputError(f"y holds {len(y)} observations; give one at a time, as a batch of one")
        if not y.isfinite().all():
            raise InputError("y contains NaN or infinite values")
        if not 0 < noise_std <= MOST_NOISE:
            raise InputError(
                f"noise_std is {noise_std}; it must be positive and at most {MOST_NOISE:g} (0.02 suits a clean 8-bit "
                "picture)"
            )
        # Refuses measurements of a size that the operator does not give.
        dtype = working_dtype(y.dtype)
        operator.to(y.device, dtype).adjoint(y.to(dtype))
        self.y, self.operator, self.noise_std = y, operator, float(noise_std)
        self.likelihood = likelihood or Gaussian()

    @property
    def observed(self) -> Tensor:
        """Which entries of ``y`` are measurements (boolean, the shape of ``y``)."""
        return self.operator.observed(self.y)

    @property
    def digest(self) -> str:
        """A hash of operator and measurements (in steps of 8-bit pictures): a fit belongs to one observation."""
        steps = torch.where(self.observed, self.y * 127.5, 1000.0).round().short().cpu()
        noise = f" {self.likelihood}" if self.likelihood.robust else ""
        content = f"{tuple(steps.shape)} {self.operator.description}{noise}".encode() + steps.numpy().tobytes()
        return hashlib.sha256(content).hexdigest()[:16]

    def residual(self, x: Tensor) -> Tensor:
        """y - A x, zero where nothing is measured; ``[batch, ...]``.

        Raises:
            InputError: A x is not of the size of y: the picture is not of the size that was measured.
        """
        seen = self.operator(x)
        if seen.shape[1:] != self.y.shape[1:]:
            raise InputError(
                f"picture has shape {tuple(x.shape)} and gives measurements of {tuple(seen.shape[1:])}; y has "
                f"{tuple(self.y.shape[1:])}: use a picture of the size that was measured"
            )
        return torch.where(self.observed, self.y - seen, 0.0)

    def log_likelihood(self, x: Tensor, picture_variance: Tensor | None = None) -> Tensor:
        """Log-density of y around A x, of squared scale noise_std^2 + diag(A V A^T), in nats; ``[batch]``.

        The sum over measurements. ``picture_variance`` is V, the variance of each entry of x around the given
        prediction (broadcastable to x); none means that x is certain.
        """
        variance = torch.full_like(self.y, self.noise_std**2)
        if picture_variance is not None:
            variance = variance + self.operator.squared(picture_variance.expand_as(x))
        terms = self.likelihood.log_prob(self.residual(x), variance)
        return torch.where(self.observed, terms, 0.0).flatten(1).sum(1)

    def to(self, device: torch.device, dtype: torch.dtype) -> Observation:
        """This observation with its tensors on ``device`` in ``dtype``."""
        return Observation(self.y.to(device, dtype), self.operator.to(device, dtype), self.noise_std, self.likelihood)

    def require_gaussian(self, method: str) -> None:
        """Refuse noise that is not Gaussian, for a method that assumes it.

        Raises:
            InputError: the likelihood is another.
        """
        if self.likelihood.robust:
            raise InputError(
                f"{method} takes noise as Gaussian, and the observation's likelihood is {self.likelihood}: use VIPaint "
                "with kalman, pseudo-inverse or dps guidance, or an observation without Robust Likelihood"
            )
