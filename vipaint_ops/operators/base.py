"""The measurement operator: y = A x + noise, with its adjoint and pseudo-inverse."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor


class Operator(ABC):
    """A linear map A from pictures ``[batch, ...]`` to measurements ``[batch, ...]``.

    Attributes:
        selects: whether A only picks pixels and weighs them: each measurement is of one pixel, and no pixel is
            measured twice.
        orthogonal_rows: whether A A^T is a multiple of the identity, so that (B A)^+ = A^+ B^+ for every B.
    """

    selects: bool = False
    orthogonal_rows: bool = False

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

    def picture_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the picture that measurements of ``size`` come from.

        Raises:
            InputError: measurements of this size do not exist.
        """
        return size

    @property
    def description(self) -> str:
        """A short string that two operators share when they are the same, to about four digits."""
        return f"{type(self).__name__}({', '.join(_described(value) for _, value in sorted(vars(self).items()))})"

    def to(self, device: torch.device, dtype: torch.dtype) -> Operator:
        """This operator with its tensors on ``device`` in ``dtype``."""
        return self


def _described(value: Any) -> str:
    if isinstance(value, Operator):
        return value.description
    if isinstance(value, list):
        return ", ".join(map(_described, value))
    if not isinstance(value, Tensor):
        return repr(value)
    digits = (value.detach().cpu().double() * 1e4).round().int()
    return f"{tuple(digits.shape)} {hashlib.sha256(digits.numpy().tobytes()).hexdigest()[:16]}"


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums over pixels of ``dtype`` are taken: at least float32."""
    return torch.promote_types(dtype, torch.float32)
