"""The measurement operator: y = A x + noise, with its adjoint and pseudo-inverse."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Operator(ABC):
    """A linear map A from pictures ``[batch, ...]`` to measurements ``[batch, ...]``."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """A x."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y, with <A x, y> = <x, A^T y> exactly."""

    @abstractmethod
    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y, the Moore-Penrose pseudo-inverse."""

    @abstractmethod
    def squared(self, v: Tensor) -> Tensor:
        """The diagonal of A diag(v) A^T: independent variances ``v`` of the picture seen through A."""

    def observed(self, y: Tensor) -> Tensor:
        """Which entries of ``y`` are measurements at all (boolean, the shape of ``y``)."""
        return torch.ones_like(y, dtype=torch.bool)

    def to(self, device: torch.device, dtype: torch.dtype) -> Operator:
        """This operator with its tensors on ``device`` in ``dtype``."""
        return self
